//! The toolchains that gotracer's build and tests need: found where they are, fetched where we may, and where
//! neither works an error that says what to install.
//!
//! In goes a name or a version, out comes a path that can be run. Nothing here knows what is built with them.

mod bpf;
mod debian;
mod go;
mod readers;

use anyhow::Result;

pub use bpf::{Bpf, bpf};
pub use debian::install as install_debian_packages;
pub use debian::install_unstarted as install_debian_services;
pub use go::{VERSIONS as GO_VERSIONS, command as go_command, go};
pub use readers::{browser, python};

use crate::workspace::say;

#[derive(clap::Args)]
pub struct Args {
    /// Go versions to fetch (default: all that the tests use)
    #[arg(long = "go", value_name = "VERSION")]
    go: Vec<String>,
    /// Only Go: leave out the eBPF toolchain
    #[arg(long)]
    no_ebpf: bool,
}

/// `cargo xtask toolchains`: has everything ready before a build, so that later steps need no network.
pub fn run(args: &Args) -> Result<()> {
    let asked: Vec<&str> =
        if args.go.is_empty() { GO_VERSIONS.to_vec() } else { args.go.iter().map(String::as_str).collect() };
    for version in asked {
        println!("go {version}: {}", go(version)?.display());
    }
    if !args.no_ebpf {
        println!("ebpf: {}", bpf()?);
    }
    println!("readers of recordings: {}", python()?.display());
    browser()?;
    say("all toolchains are there");
    Ok(())
}

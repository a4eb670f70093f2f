//! A Rust compiler for `bpfel-unknown-none` and bpf-linker.
//!
//! Two ways. Debian's `rustc-web` with a ready `core` for BPF is the reference: the committed object was built by it,
//! and another compiler gives other bytes. Elsewhere a rustup nightly with `rust-src` builds `core` itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::privileges::is_root;
use crate::workspace::{execute, on_path, output, say};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const LLVM: &str = "/usr/lib/llvm-22";
/// The LLVM it is linked to must be at least the compiler's: rustc 1.96 brings LLVM 22.
const BPF_LINKER: &str = "0.13.0";

const WHAT_TO_INSTALL: &str = "\
to build the eBPF object install either
  Debian:  apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev, and
           LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
  rustup:  rustup toolchain install nightly --component rust-src, and
           cargo install bpf-linker
(users of gotracer need none of this: the object is committed)";

/// A toolchain for BPF that was found.
pub struct Bpf {
    /// The compiler to be used, as `RUSTC`.
    pub rustc: PathBuf,
    /// Its first line of `--version`, for messages.
    pub version: String,
    /// The folder it takes its libraries and their sources from.
    pub sysroot: PathBuf,
    /// Whether `core` must be built from its sources (`-Z build-std=core`).
    pub build_std: bool,
}

impl Bpf {
    /// Whether this is the kind of compiler that built the committed object.
    pub fn is_reference(&self) -> bool {
        !self.build_std
    }
}

impl fmt::Display for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = if self.build_std { "core from rust-src" } else { "ready core" };
        write!(f, "{} ({}, {core})", self.rustc.display(), self.version)
    }
}

/// Finds, or on Debian as root installs, a toolchain for BPF.
///
/// # Errors
/// When there is none; the error says what to install.
pub fn bpf() -> Result<Bpf> {
    if let Some(found) = debian_toolchain()? {
        linker()?;
        return Ok(found);
    }
    if let Some(found) = rustup_nightly() {
        linker()?;
        return Ok(found);
    }
    if is_root() && Path::new("/usr/bin/apt-get").exists() {
        debian::install(&["rustc-web", "libstd-rust-web-dev-bpf"], "the eBPF compiler").context(WHAT_TO_INSTALL)?;
        if let Some(found) = debian_toolchain()? {
            linker()?;
            return Ok(found);
        }
    }
    bail!("no Rust compiler for BPF was found\n{WHAT_TO_INSTALL}")
}

fn debian_toolchain() -> Result<Option<Bpf>> {
    if !Path::new(DEBIAN_CORE).is_dir() || !Path::new(DEBIAN_RUSTC).is_file() {
        return Ok(None);
    }
    Ok(Some(described(PathBuf::from(DEBIAN_RUSTC), false)?))
}

fn rustup_nightly() -> Option<Bpf> {
    let rustc = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"])).ok()?;
    let found = described(PathBuf::from(rustc.trim()), true).ok()?;
    found.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file().then_some(found)
}

fn described(rustc: PathBuf, build_std: bool) -> Result<Bpf> {
    let version = output(Command::new(&rustc).arg("--version"))?.trim().to_string();
    let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?.trim());
    Ok(Bpf { rustc, version, sysroot, build_std })
}

/// Sees to it that `bpf-linker` is on PATH.
fn linker() -> Result<()> {
    if on_path("bpf-linker") {
        return Ok(());
    }
    debian::install(&["llvm-22-dev"], "bpf-linker").context(WHAT_TO_INSTALL)?;
    say(format!("building bpf-linker {BPF_LINKER} (about a minute)"));
    execute(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .env("LLVM_PREFIX", LLVM)
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22"]),
    )
    .context(WHAT_TO_INSTALL)?;
    if !on_path("bpf-linker") {
        bail!("bpf-linker was installed, but is not on PATH: add cargo's bin folder (~/.cargo/bin) to it");
    }
    Ok(())
}

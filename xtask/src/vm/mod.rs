//! `cargo xtask vm`: the end-to-end tests, or any command, under another kernel and on another architecture.
//!
//! `debian` fetches and unpacks packages, `kernels` chooses the kernel, `initramfs` packs what runs in the machine,
//! `emulator` runs it and watches its console, `results` reads what the tests said there; `cell` puts these together
//! for one machine and `matrix` for all of them.

pub(crate) mod cache;
mod cell;
pub(crate) mod debian;
mod emulator;
mod initramfs;
mod kernels;
mod matrix;
mod programs;
mod results;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::cross::Arch;
use cell::{Cell, Outcome, Payload};
use kernels::Kernel;

/// Runs the end-to-end tests, or a command, in a virtual machine
#[derive(Args)]
pub(crate) struct VmArgs {
    /// Architecture of the machine
    #[arg(long, required_unless_present = "matrix", conflicts_with = "matrix")]
    arch: Option<Arch>,
    /// Kernel to boot
    #[arg(long, required_unless_present = "matrix", conflicts_with = "matrix")]
    kernel: Option<Kernel>,
    /// Go versions whose programs are run, a machine for each (default: the newest; in the matrix, all)
    #[arg(long, value_delimiter = ',', value_name = "VERSION,...")]
    go: Vec<String>,
    /// Tests whose name contains this, of all there are (default: those that tell most)
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Every kernel on every architecture; writes docs/kernels.md
    #[arg(long)]
    matrix: bool,
    /// With --matrix: only kernels 5.10 and 6.1 and the newest Go; writes nothing
    #[arg(long, requires = "matrix")]
    short: bool,
    /// With --matrix: do not run the machines again that were green when they were run last, of whatever commit; the table
    /// names it
    #[arg(long, requires = "matrix", conflicts_with_all = ["short", "filter"])]
    resume: bool,
    /// Leave gotracer out of the machine (for a command)
    #[arg(long, requires = "command")]
    bare: bool,
    /// Files or folders to put into the machine's /root
    #[arg(long, value_name = "PATH")]
    add: Vec<PathBuf>,
    /// More kernel parameters, such as lockdown=confidentiality
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// The machine's memory
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Give up on a machine after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// A command to run instead of the tests; a single argument is a line of shell
    #[arg(last = true, conflicts_with = "matrix")]
    command: Vec<String>,
}

/// # Errors
///
/// When a machine gives no result, a test fails, or the command exits with anything but 0.
pub(crate) fn run(args: VmArgs) -> Result<()> {
    let (Some(arch), Some(kernel)) = (args.arch, args.kernel) else { return matrix::run(&args) };
    if !args.command.is_empty() {
        return command(arch, kernel, &args);
    }
    let payload = Payload::tests(arch)?;
    let mut red = 0;
    for go in programs::build(arch, &args.go, true)? {
        let cell = Cell { arch, kernel, go: Some(go), lacks: None };
        let outcome = cell.run(&payload, &args, |line| println!("{line}"))?;
        let Outcome { results, release, took, .. } = &outcome;
        eprintln!("{cell} ({release}): {results}, {:.1} s", took.as_secs_f64());
        red += u32::from(!outcome.green());
    }
    ensure!(red == 0, "{red} of the machines are not green");
    Ok(())
}

fn command(arch: Arch, kernel: Kernel, args: &VmArgs) -> Result<()> {
    let payload = if args.bare { Payload::bare() } else { Payload::tracer(arch)? };
    // A command may do without programs, unless it asks for some.
    let chosen = if args.go.is_empty() { Vec::new() } else { programs::build(arch, &args.go, true)? };
    let versions: Vec<Option<String>> =
        if chosen.is_empty() { vec![None] } else { chosen.into_iter().map(Some).collect() };
    for go in versions {
        let cell = Cell { arch, kernel, go, lacks: None };
        let outcome = cell.run(&payload, args, |line| println!("{line}"))?;
        eprintln!("{cell} ({}): exit status {}, {:.1} s", outcome.release, outcome.status, outcome.took.as_secs_f64());
        if outcome.status != 0 {
            bail!("the command failed with exit status {}", outcome.status);
        }
    }
    Ok(())
}

//! `gotracer prove`: which goroutines are leaked, decided by reachability.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;

use super::{Failure, parse_duration, sink};
use crate::go_runtime::Globals;
use crate::process::memory::LiveMemory;
use crate::process::{Process, RegisterSamples};
use crate::proof::{Options, Prover};
use crate::snapshot::Source;
use crate::tracee::Tracee;
use crate::units::Pid;

/// Prove which goroutines are leaked: blocked on what nothing that can run can reach
#[derive(Args)]
pub(super) struct ProveArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    /// Passes to be done
    #[arg(long, value_name = "N", default_value_t = 3)]
    passes: u32,
    /// Time between the starts of two passes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    every: Duration,
    /// How long one pass may take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1m")]
    deadline: Duration,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Exit with 3 if a goroutine is leaked
    #[arg(long)]
    fail: bool,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn prove(arguments: &ProveArguments) -> Result<ExitCode, Failure> {
    let mut out = sink(arguments.output.as_ref())?;
    let tracee = Tracee::open(Process::open(Pid(arguments.pid))?)?;
    let Some(bias) = tracee.bias() else { return Err("where the program is loaded is not known".into()) };
    let program = tracee.program();
    let (binary, layout) = (&*program.binary, &*program.layout);
    let memory = LiveMemory::new(tracee.process());
    let globals = Globals::of(binary, layout);
    let source = Source { memory: &memory, binary, layout, globals: &globals, reasons: &program.wait_reasons, bias };
    let cancel = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
    let options = Options { threads, deadline: arguments.deadline, least_age: Duration::from_secs(2), cancel: &cancel };
    let mut prover = Prover::new(&source, options)?;
    for pass in 0..arguments.passes {
        if pass > 0 {
            std::thread::sleep(arguments.every);
        }
        let process = tracee.process();
        let writable = if prover.has_foreign_memory() { process.writable_memory()? } else { Vec::new() };
        let registers = RegisterSamples::start(process).inspect_err(|e| log::info!("no register samples: {e}")).ok();
        let figures = prover.pass(&writable, registers)?;
        log::info!("{figures:?}");
    }
    for leak in prover.leaks() {
        writeln!(out, "{} {:?} {:?} {}", leak.goid, leak.blocked, leak.objects, leak.verdict.name())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

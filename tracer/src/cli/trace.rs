//! `gotracer trace`: the events of a running process, as they come.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::live::{LiveArguments, follow, runtime};
use crate::process::Process;
use crate::session::Session;
use crate::units::Pid;

/// Print each goroutine's life in a running Go process as it happens, then a summary by creation site
#[derive(Args)]
#[command(after_help = "\
Examples:
  gotracer trace --pid 1234 --for 5s                  what happens in five seconds
  gotracer trace --pid 1234 --only created,exited     births and deaths only
  gotracer trace --pid 1234 --goid 42                 one goroutine
  gotracer trace --pid 1234 --json --for 1m > a.jsonl for other programs")]
pub(super) struct TraceArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    #[command(flatten)]
    live: LiveArguments,
}

pub(super) fn trace(arguments: &TraceArguments) -> Result<ExitCode, Failure> {
    let process = Process::open(Pid(arguments.pid))?;
    runtime()?.block_on(async {
        let session = Session::attach_with(process, arguments.live.cost.options())?;
        follow(session, &arguments.live, || Ok(())).await
    })?;
    Ok(ExitCode::SUCCESS)
}

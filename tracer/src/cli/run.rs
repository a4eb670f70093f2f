//! `gotracer run`: a program, traced from its first instruction.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::live::{LiveArguments, follow, runtime};
use crate::process::{Held, find_program};
use crate::session::Session;

/// Start a program and trace it from its first instruction
#[derive(Args)]
#[command(after_help = "\
The program inherits stdin, stdout and stderr. To keep its output apart from ours, use --output.

Examples:
  gotracer run -- ./server -port 8080
  gotracer run --json --output events.jsonl -- go build ./...")]
pub(super) struct RunArguments {
    #[command(flatten)]
    live: LiveArguments,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM [ARGS]")]
    command: Vec<OsString>,
}

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let (name, rest) = arguments.command.split_first().ok_or("no program given")?;
    let program = find_program(&PathBuf::from(name))?;
    let runtime = runtime()?;
    let mut child = runtime.block_on(async {
        let held = Held::spawn(&program, rest)?;
        let session = Session::before_start_with(held.pid(), &program, arguments.live.cost.options())?;
        let begin = || held.release().map_err(|e| format!("cannot run {}: {e}", program.display()).into());
        follow(session, &arguments.live, begin).await
    })?;
    // Tracing may end before the program does; the shell's job is the program.
    let status = child.wait()?;
    if !status.success() {
        eprintln!("{} ended with {status}", program.display());
    }
    Ok(ExitCode::SUCCESS)
}

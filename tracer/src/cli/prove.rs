//! `gotracer prove`: which goroutines are leaked, decided by reachability.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::proving::{PassArguments, passes};
use super::{Failure, sink};
use crate::output::proof::{Counts, SITES, write_text};
use crate::process::Process;
use crate::proving::report;
use crate::tracee::Tracee;
use crate::units::Pid;

/// Prove which goroutines are leaked: blocked on what nothing that can run can reach
#[derive(Args)]
#[command(after_help = "\
Reads the process's memory as its garbage collector does, without stopping it, and attaches nothing.
docs/proof.md says what suspected, leaked, confirmed and unknown promise.

Examples:
  gotracer prove --pid 1234                        three passes over two seconds
  gotracer prove --pid 1234 --passes 8             until it is confirmed
  gotracer prove --pid 1234 --fail || page-me      exit code 3 if a goroutine is leaked
  gotracer prove --pid 1234 --json | jq '.sites[] | [.function, .line, .counts.leaked, .retained_estimate.heap_bytes]'")]
pub(super) struct ProveArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    #[command(flatten)]
    passes: PassArguments,
    /// One JSON object: every unreachable goroutine with all that is known of it
    #[arg(long)]
    json: bool,
    /// Print so many go statements, those with the most goroutines
    #[arg(long, value_name = "N", default_value_t = SITES, conflicts_with = "json")]
    limit: usize,
    /// Exit with code 3 if a goroutine is leaked, with 1 if one may be and it is not proven
    #[arg(long)]
    fail: bool,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn prove(arguments: &ProveArguments) -> Result<ExitCode, Failure> {
    // Opened first: a file that cannot be written is not worth a look at the process.
    let mut out = sink(arguments.output.as_ref())?;
    let tracee = Tracee::open(Process::open(Pid(arguments.pid))?)?;
    let proven = passes(&tracee, &arguments.passes, true)?;
    let report = report(&tracee, &proven)?;
    if arguments.json {
        crate::output::json::line(&mut out, &report)?;
    } else {
        write_text(&mut out, &report, arguments.limit)?;
    }
    out.flush()?;
    Ok(exit_code(arguments.fail, report.counts()))
}

/// A script that asks with `--fail` must not take "could not tell" for "nothing there".
fn exit_code(fail: bool, counts: Counts) -> ExitCode {
    if !fail || counts.all() == 0 {
        return ExitCode::SUCCESS;
    }
    if counts.proven() > 0 {
        return ExitCode::from(3);
    }
    eprintln!("gotracer: {} goroutines are unreachable and not proven leaked; use more --passes", counts.all());
    ExitCode::FAILURE
}

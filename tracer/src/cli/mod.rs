//! The commands. One file each; the only place that prints, reads flags, or decides an exit code.
//!
//! stdout carries the result, stderr the rest. Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 findings with `--fail`.

mod agent;
mod convert;
mod diff;
mod doctor;
mod dump;
mod dump_for;
mod leaks;
mod live;
mod logger;
mod prove;
mod proving;
mod record;
mod report;
mod run;
mod thresholds;
mod top;
mod trace;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::probes::at_work;
use crate::units::parse_duration;

/// For so long the end of a command waits for probes that are being taken away; each takes the kernel up to a tenth of a second.
const MOST_FOR_PROBES: Duration = Duration::from_secs(10);

/// A failure of a command: printed as one sentence, its causes below.
type Failure = Box<dyn Error>;

#[derive(Parser)]
#[command(name = "gotracer", version, about, max_term_width = 100)]
struct Arguments {
    /// Tell more on stderr: -v what is done, -vv what the kernel programs could not read
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Trace(trace::TraceArguments),
    Run(run::RunArguments),
    Dump(dump::DumpArguments),
    Record(record::RecordArguments),
    Report(report::ReportArguments),
    Convert(convert::ConvertArguments),
    Top(top::TopArguments),
    Leaks(leaks::LeaksArguments),
    Diff(diff::DiffArguments),
    Prove(prove::ProveArguments),
    Doctor(doctor::DoctorArguments),
    Agent(agent::AgentArguments),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logger::init(arguments.verbose);
    let done = match arguments.command {
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Dump(arguments) => dump::dump(&arguments),
        Command::Record(arguments) => record::record(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::Convert(arguments) => convert::convert(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Leaks(arguments) => leaks::leaks(&arguments),
        Command::Diff(arguments) => diff::diff_files(&arguments),
        Command::Prove(arguments) => prove::prove(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Agent(arguments) => agent::agent(arguments),
    };
    let code = match done {
        Ok(code) => code,
        Err(failure) if is_broken_pipe(failure.as_ref()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(failure.as_ref());
            ExitCode::FAILURE
        }
    };
    at_work::stop(MOST_FOR_PROBES);
    code
}

/// What stands between a command and where its output goes: a failure to write says that it was one. The kind is kept,
/// for a reader that has gone is no failure.
struct Output<W>(W);

impl<W: Write> Output<W> {
    fn named<T>(done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| io::Error::new(error.kind(), format!("cannot write the output: {error}")))
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::named(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::named(self.0.flush())
    }
}

/// Where a command's result goes: to the file at `path`, or to stdout.
fn sink(path: Option<&PathBuf>) -> Result<Box<dyn Write>, Failure> {
    Ok(match path {
        Some(path) => {
            let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Box::new(BufWriter::with_capacity(1 << 20, Output(file)))
        }
        None => Box::new(BufWriter::with_capacity(1 << 16, Output(io::stdout()))),
    })
}

/// Prints a failure and the chain of its causes.
fn tell(failure: &dyn Error) {
    let mut text = format!("gotracer: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {error}"));
        cause = error.source();
    }
    // If stderr is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether whoever read our output has gone, as `head` does: a normal end.
fn is_broken_pipe(failure: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(failure);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Parses a size as people write it: `500kB`, `100MB`, `1GB`, `64MiB`, or bytes without a unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write 500kB, 100MB, 1GB or 64MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let size = number * bytes;
    // Beyond what any disk holds, and below what means anything.
    if (1.0..1e18).contains(&size) { Ok(size as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("500kB", 500_000), ("1.5GB", 1_500_000_000), ("64MiB", 64 << 20), ("2m", 2_000_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for wrong in ["", "MB", "0", "-1MB", "5 MB", "1e30GB", "1.2.3MB", "9999999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}

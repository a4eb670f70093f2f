//! `gotracer dump`: all goroutines of a process or of a core file, as they are now.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use regex::Regex;

use super::proving::{PassArguments, passes};
use super::{Failure, dump_for, parse_duration, sink};
use crate::output::dump::{DumpFilter, Meta, View, groups, write_groups, write_json, write_sites, write_text};
use crate::output::{folded, pprof};
use crate::process::Process;
use crate::process::memory::{CoreFile, LiveMemory, ReadMemory};
use crate::snapshot::{self, RuntimeStats, Snapshot, Source, Symbols};
use crate::tracee::{LoadBias, Program, Tracee};
use crate::units::{FileOffset, Goid, Pid};

/// Print every goroutine of a Go process with its stack, without stopping it
#[derive(Args)]
#[command(after_help = "\
Without a form, prints what Go's own /debug/pprof/goroutine?debug=2 prints.
`[chan receive, 12 minutes]`: the runtime notices a wait when the collector next runs, so it may be longer, and it does
not tell less than a minute. With --for, goroutines that block meanwhile have it exactly: `[chan receive, 3.214 seconds]`.

Examples:
  gotracer dump --pid 1234                            every goroutine and its stack
  gotracer dump --pid 1234 --group                    equal stacks together, the most frequent first
  gotracer dump --pid 1234 --sites                    who holds how much stack memory
  gotracer dump --pid 1234 --reason 'chan receive' --older-than 5m
  gotracer dump --pid 1234 --function 'net/http\\.' --limit 10
  gotracer dump --pid 1234 --pprof goroutines.pb.gz   then: go tool pprof -http=: goroutines.pb.gz
  gotracer dump --pid 1234 --folded | flamegraph.pl > goroutines.svg
  gotracer dump --pid 1234 --for 10s --older-than 2s  what has not come back in the last ten seconds
  gotracer dump --pid 1234 --prove --state leaked     those that nothing can wake any more
  gotracer dump --core core.1234 --exe ./server       of a process that is dead")]
pub(super) struct DumpArguments {
    /// The process
    #[arg(short, long, value_name = "PID", required_unless_present = "core", conflicts_with_all = ["core", "exe"])]
    pid: Option<u32>,
    /// Read this core file
    #[arg(long, value_name = "FILE", requires = "exe")]
    core: Option<PathBuf>,
    /// The program that left the core file
    #[arg(long, value_name = "FILE", requires = "core")]
    exe: Option<PathBuf>,
    /// Watch the process for this time first (500ms, 5s, 2m): then the time of each block that was seen is exact
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, conflicts_with = "core")]
    duration: Option<Duration>,
    #[command(flatten)]
    form: Form,
    /// With --json, the arguments of calls too: the words that Go prints in its tracebacks
    #[arg(long, conflicts_with_all = ["no_args", "group", "folded", "pprof", "sites"])]
    args: bool,
    /// Print the arguments of calls as (...): equal stacks are equal text then
    #[arg(long)]
    no_args: bool,
    /// Prove first which goroutines are leaked (docs/proof.md), and mark them as Go does: `(leaked)`
    #[arg(long, conflicts_with_all = ["core", "duration"])]
    prove: bool,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE", conflicts_with = "pprof")]
    output: Option<PathBuf>,
    /// The runtime's own goroutines too
    #[arg(long, visible_alias = "system")]
    all: bool,
    /// Only goroutines in these states: waiting, running, runnable, syscall, ...
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    state: Vec<String>,
    /// Only goroutines that wait for a reason that contains this: `chan receive`, select, sleep, IO, ...
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    reason: Vec<String>,
    /// Only goroutines with such a function on their stack, as creator, or as start function
    #[arg(long, value_name = "REGEX")]
    function: Option<Regex>,
    /// Only goroutines that are known to wait for as long as this: 90s, 5m, 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Only this goroutine; may be repeated
    #[arg(long, value_name = "N")]
    goid: Vec<u64>,
    /// So many goroutines at most (with --group, groups)
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args)]
#[group(multiple = false)]
struct Form {
    /// Equal stacks together with their number, the most frequent first, as Go's debug=1
    #[arg(long)]
    group: bool,
    /// One JSON object: every goroutine with all that is known of it, and the runtime's figures
    #[arg(long)]
    json: bool,
    /// A goroutine profile for `go tool pprof`, to this file
    #[arg(long, value_name = "FILE")]
    pprof: Option<PathBuf>,
    /// Folded stacks, for flame graphs
    #[arg(long)]
    folded: bool,
    /// A table of creation sites: goroutines, stack memory, waiting times (min/median/max)
    #[arg(long)]
    sites: bool,
}

impl Form {
    /// None of the others: Go's own text.
    fn is_text(&self) -> bool {
        !(self.group || self.json || self.folded || self.sites || self.pprof.is_some())
    }
}

pub(super) fn dump(arguments: &DumpArguments) -> Result<ExitCode, Failure> {
    // Opened first: a file that cannot be written is not worth a look at the process.
    let mut out = sink(arguments.form.pprof.as_ref().or(arguments.output.as_ref()))?;
    if let (Some(core), Some(exe)) = (&arguments.core, &arguments.exe) {
        let program = Program::open(exe.display().to_string(), open(exe)?)?;
        let core = CoreFile::open(open(core)?, &core.display().to_string())?;
        let bias = core_bias(&core, &program)?;
        let taken = take(arguments, &core, &program, bias)?;
        return print(arguments, &taken, &program, bias, &mut out);
    }
    let process = Process::open(Pid(arguments.pid.unwrap_or_default()))?;
    let (tracee, session) = match arguments.duration {
        None => (Tracee::open(process)?, None),
        Some(duration) => {
            let (tracee, session) = dump_for::watch(process, duration)?;
            (tracee, Some(session))
        }
    };
    let Some(bias) = tracee.bias() else { return Err("where the program is loaded is not known".into()) };
    let memory = LiveMemory::new(tracee.process());
    let proven = if arguments.prove { passes(&tracee, &PassArguments::default(), true)?.leaks } else { Vec::new() };
    let mut taken = take(arguments, &memory, tracee.program(), bias)?;
    let leaked = proven.iter().filter(|leak| leak.verdict.is_proven()).map(|leak| (leak.goid, leak.address));
    taken.snapshot.mark_leaked(leaked);
    let taken = match session {
        None => taken,
        Some(session) => Taken { snapshot: session.refine(taken.snapshot)?, ..taken },
    };
    print(arguments, &taken, tracee.program(), bias, &mut out)
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()).into())
}

/// The auxiliary vector says where the program headers were; they stand behind the ELF header, 64 bytes into the file.
fn core_bias(core: &CoreFile, program: &Program) -> Result<LoadBias, Failure> {
    let binary = &program.binary;
    if !binary.is_pie() {
        return Ok(LoadBias::default());
    }
    let headers = core.program_headers().zip(binary.image().pc_at(FileOffset(64)));
    let Some((remote, pc)) = headers else {
        return Err("the core file does not say where the program was loaded (it has no NT_AUXV note)".into());
    };
    Ok(LoadBias::between(pc, remote))
}

/// What was read.
struct Taken {
    snapshot: Snapshot,
    /// Where they are printed.
    stats: Option<RuntimeStats>,
}

fn take(
    arguments: &DumpArguments,
    memory: &dyn ReadMemory,
    program: &Program,
    bias: LoadBias,
) -> Result<Taken, Failure> {
    let (binary, layout) = (&*program.binary, &*program.layout);
    let globals = program.globals();
    let source = Source { memory, binary, layout, globals, reasons: &program.wait_reasons, bias };
    let with_arguments = arguments.args || (arguments.form.is_text() && !arguments.no_args);
    let snapshot = snapshot::take(&source, snapshot::Options { arguments: with_arguments, ..Default::default() })?;
    let stats = arguments.form.json.then(|| RuntimeStats::read(&source, &snapshot));
    Ok(Taken { snapshot, stats })
}

fn print(
    arguments: &DumpArguments,
    taken: &Taken,
    program: &Program,
    bias: LoadBias,
    out: &mut Box<dyn Write>,
) -> Result<ExitCode, Failure> {
    let (Taken { snapshot, stats }, binary) = (taken, &*program.binary);
    let form = &arguments.form;
    let view = View::new(snapshot, Symbols::new(binary), &program.wait_reasons, bias);
    let selected = view.select(&filter(arguments));
    if form.json {
        let go_version = binary.version().to_string();
        let (exe, go_version) = (program.name.as_str(), go_version.as_str());
        let meta = Meta { pid: arguments.pid, exe, go_version, runtime: stats.as_ref() };
        write_json(out, &view, &selected, &meta)?;
    } else if form.sites {
        write_sites(out, &view, &selected)?;
    } else if form.group || form.folded || form.pprof.is_some() {
        let mut groups = groups(&view, &selected);
        groups.truncate(arguments.limit.unwrap_or(usize::MAX));
        if form.group {
            write_groups(out, &view, &groups)?;
        } else if form.folded {
            folded::write_folded(out, &view, &groups)?;
        } else {
            let executable = pprof::Executable::of(program, bias);
            pprof::write_pprof(&mut *out, &view, &groups, executable)?;
        }
    } else {
        write_text(out, &view, &selected)?;
    }
    out.flush()?;
    Ok(say_what_is_missing(snapshot))
}

fn filter(arguments: &DumpArguments) -> DumpFilter {
    let form = &arguments.form;
    let by_group = form.group || form.folded || form.pprof.is_some();
    DumpFilter {
        system: arguments.all,
        states: arguments.state.clone(),
        reasons: arguments.reason.clone(),
        function: arguments.function.clone(),
        older_than: arguments.older_than,
        goids: arguments.goid.iter().map(|&goid| Goid(goid)).collect(),
        limit: arguments.limit.filter(|_| !by_group),
    }
}

/// What was printed is all there was, or it is said on stderr that it is not; a dump with parts missing is a failure.
fn say_what_is_missing(snapshot: &Snapshot) -> ExitCode {
    let moved = snapshot.moved();
    if moved > 0 {
        log::info!("{moved} goroutines went on moving while they were read; their stacks are not shown");
    }
    match &snapshot.incomplete {
        None => ExitCode::SUCCESS,
        Some(why) => {
            eprintln!("gotracer: incomplete, {} goroutines are shown: {why}", snapshot.goroutines.len());
            ExitCode::FAILURE
        }
    }
}

//! `gotracer leaks`: which `go` statement leaks, and how long memory lasts.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hashbrown::HashMap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::proving::PassArguments;
use super::thresholds::ThresholdArguments;
use super::{Failure, live, parse_duration, sink};
use crate::analysis::{Analysis, Sample, SiteKey, Thresholds, Verdict};
use crate::output::leaks::{Report, Subject, write_text};
use crate::output::proof;
use crate::probes::Detail;
use crate::process::Process;
use crate::proof::ProofError;
use crate::proving::ProvingError;
use crate::recording::Source as _;
use crate::recording::replay::State;
use crate::session::{Options, Progress, Session};
use crate::tracee::Tracee;
use crate::units::{Goid, Pid};
use crate::watch::{DumpFile, Pace, Sampler, Watch, WatchError};

/// A pass that takes longer is done only where it is asked for.
const QUICK: Duration = Duration::from_secs(2);

/// Find the go statement that leaks goroutines, with evidence, and say how long memory lasts
#[derive(Args)]
#[command(after_help = "\
What is told is suspected, with a score from 0 to 1; docs/leaks.md says what the kinds and scores mean.

Examples:
  gotracer leaks --pid 1234                      observe for 30 seconds, then report, the worst first
  gotracer leaks --pid 1234 --for 5m             slow leaks need longer
  gotracer leaks --pid 1234 --fail || page-me    exit code 3 if something is found
  gotracer leaks --pid 1234 --no-probes          by reading memory alone: costs the process nothing
  gotracer leaks --pid 1234 --json | jq '.findings[] | [.kind, .site.file, .site.line, .count]'
  gotracer leaks --pid 1234 --prove              and what can never be woken again, however large the heap
  gotracer leaks incident.gtr                    of a recording
  gotracer leaks goroutines.json                 of one dump (gotracer dump --json): only what stands still")]
pub(super) struct LeaksArguments {
    /// The process
    #[arg(short, long, value_name = "PID", required_unless_present = "file")]
    pid: Option<u32>,
    /// A recording, or the output of `dump --json`
    #[arg(value_name = "FILE", conflicts_with_all = ["pid", "duration", "no_probes", "interval"])]
    file: Option<PathBuf>,
    /// Observe for so long (10s, 2m, 1h)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    duration: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Exit with code 3 if something is found, with 1 if observation was too short to say
    #[arg(long)]
    fail: bool,
    /// Attach no probes: goroutines are read from memory now and then, births and ends in between are not counted
    #[arg(long)]
    no_probes: bool,
    /// Then prove which goroutines are leaked, by reachability (docs/proof.md), however long it takes; without it only where
    /// a pass takes less than two seconds
    #[arg(long, conflicts_with = "file")]
    prove: bool,
    /// Leave the proof out; it takes about three seconds
    #[arg(long, conflicts_with = "prove")]
    no_prove: bool,
    /// Read the goroutines this often; without it, every half second at first, then more seldom
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    thresholds: ThresholdArguments,
}

/// What was observed.
pub(super) struct Observed {
    pub(super) analysis: Analysis,
    pub(super) subject: Subject,
    pub(super) lost: u64,
    /// What a pass of a proof would have to go through, where that is known: heap in bytes, goroutines.
    extent: Option<(u64, u64)>,
    /// Somebody wants to see the report at once.
    interrupted: bool,
}

pub(super) fn leaks(arguments: &LeaksArguments) -> Result<ExitCode, Failure> {
    // Opened first: a file that cannot be written is not worth a look at the process.
    let mut out = sink(arguments.output.as_ref())?;
    let observed = match &arguments.file {
        Some(file) => of_file(file, arguments.thresholds.thresholds())?,
        None => live::runtime()?.block_on(observe(arguments, Pid(arguments.pid.unwrap_or_default())))?,
    };
    let report = Report::of(&observed.analysis, &observed.subject, observed.lost);
    let proof = match () {
        () if observed.subject.ended.is_some() || arguments.file.is_some() || arguments.no_prove => None,
        () if arguments.prove => Some(prove(arguments, PassArguments::default())?),
        () if observed.interrupted => None,
        () => prove_if_quick(arguments, observed.extent),
    };
    if arguments.json {
        crate::output::json::line(&mut out, &WithProof { report: &report, proof: proof.as_ref() })?;
    } else {
        let terminal = arguments.output.is_none() && std::io::stdout().is_terminal();
        write_text(&mut out, &report, terminal && std::env::var_os("NO_COLOR").is_none())?;
        if let Some(proof) = &proof {
            writeln!(out, "\nProven by reachability:")?;
            proof::write_text(&mut out, proof, proof::SITES)?;
        }
    }
    out.flush()?;
    let proven = proof.as_ref().is_some_and(|proof| proof.counts().proven() > 0);
    Ok(if arguments.fail && proven { ExitCode::from(3) } else { exit_code(arguments.fail, &report) })
}

/// The report, and what was proven where that was asked for.
#[derive(serde::Serialize)]
struct WithProof<'a> {
    #[serde(flatten)]
    report: &'a Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a proof::Report>,
}

/// Does the passes of `gotracer prove`.
fn prove(arguments: &LeaksArguments, passes: PassArguments) -> Result<proof::Report, Failure> {
    let tracee = Tracee::open(Process::open(Pid(arguments.pid.unwrap_or_default()))?)?;
    let proven = super::proving::passes(&tracee, &passes, true)?;
    Ok(crate::proving::report(&tracee, &proven)?)
}

/// The same where nobody has to wait for it; else it says what there is to be had.
fn prove_if_quick(arguments: &LeaksArguments, extent: Option<(u64, u64)>) -> Option<proof::Report> {
    let (heap, goroutines) = extent?;
    let expected = crate::proof::expected_time(heap, goroutines);
    if expected > QUICK {
        let (gib, seconds) = (heap as f64 / f64::from(1 << 30), expected.as_secs_f64());
        eprintln!(
            "not proven by reachability: a pass over {gib:.1} GiB of heap may take {seconds:.0} s; --prove does it"
        );
        return None;
    }
    match prove(arguments, PassArguments { deadline: QUICK, ..PassArguments::default() }) {
        Ok(report) => Some(report),
        Err(error) if matches!(error.downcast_ref(), Some(ProvingError::Proof(ProofError::Deadline))) => {
            eprintln!(
                "not proven by reachability: a pass takes more than {} s; --prove takes the time",
                QUICK.as_secs()
            );
            None
        }
        Err(error) => {
            eprintln!("not proven by reachability: {error}");
            None
        }
    }
}

/// What a file holds.
pub(super) struct Material {
    pub(super) pid: Option<u32>,
    pub(super) subject: Subject,
    /// The last sample.
    pub(super) last: Sample,
    /// Of a dump, each goroutine's site.
    pub(super) sites_of: Option<HashMap<Goid, SiteKey>>,
}

fn of_file(path: &Path, thresholds: Thresholds) -> Result<Observed, Failure> {
    let mut analysis = Analysis::new(thresholds);
    let material = open(path, |sample| analysis.observe(sample))?;
    Ok(Observed { analysis, subject: material.subject, lost: material.last.lost, extent: None, interrupted: false })
}

/// What can be read.
const FORMS: &str = "what can be read is .gtr, .jsonl, .jsonl.zst, and what trace --json and dump --json print";

/// Reads a recording or a dump, and hands each sample of it to `each`.
pub(super) fn open(path: &Path, mut each: impl FnMut(&Sample)) -> Result<Material, Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let name = path.display().to_string();
    if is_dump(path)? {
        let file = File::open(path).map_err(|error| named(&error))?;
        let dump = DumpFile::read(BufReader::new(file)).map_err(|error| named(&error))?;
        if let Some(why) = &dump.incomplete {
            eprintln!("{}", named(&format!("an incomplete dump: {why}")));
        }
        each(&dump.sample);
        let go_version = Some(dump.go_version).filter(|version| !version.is_empty());
        let subject = Subject { pid: None, name, go_version, by: "dump", ended: None };
        let subject = Subject { name: if dump.exe.is_empty() { subject.name } else { dump.exe }, ..subject };
        return Ok(Material { pid: dump.pid, subject, last: dump.sample, sites_of: Some(dump.sites_of) });
    }
    let mut source = super::convert::open_or(path, FORMS)?;
    let mut state = State::new(source.header());
    let mut last = Sample::default();
    let mut sampler = Sampler::new(|sample: Sample| {
        each(&sample);
        last = sample;
    });
    while let Some(item) = source.next().map_err(|error| named(&error))? {
        state.take(&item, &mut sampler);
    }
    sampler.finish(&mut state);
    drop(sampler);
    let ended =
        (!state.is_whole()).then(|| "the recording is damaged or was cut off: up to there it is right".to_owned());
    let program = state.names.last().program();
    let go_version = Some(program.go_version.clone()).filter(|version| !version.is_empty());
    let subject = Subject { pid: None, name, go_version, by: "recording", ended };
    Ok(Material { pid: None, subject, last, sites_of: None })
}

/// Whether the file is one JSON object with goroutines: of a recording in JSON the first object is its header, on a line.
fn is_dump(path: &Path) -> Result<bool, Failure> {
    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    let mut head = Vec::new();
    let read = file.take(1 << 16).read_to_end(&mut head);
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let head = String::from_utf8_lossy(&head);
    Ok(head.starts_with('{') && head.contains("\"taken_to_ns\"") && head.contains("\"goroutines\""))
}

/// A script that asks with `--fail` must not take "could not tell" for "nothing there".
fn exit_code(fail: bool, report: &Report<'_>) -> ExitCode {
    match &report.verdict {
        _ if !fail => ExitCode::SUCCESS,
        _ if !report.findings.is_empty() => ExitCode::from(3),
        Verdict::Enough => ExitCode::SUCCESS,
        Verdict::TooShort { .. } => {
            eprintln!("gotracer: observed too shortly for a verdict; use a longer --for");
            ExitCode::FAILURE
        }
    }
}

/// Observes a process for its time, or until it ends or a signal comes.
async fn observe(arguments: &LeaksArguments, pid: Pid) -> Result<Observed, Failure> {
    let pace = arguments.interval.map_or(Pace::Soon, Pace::Every);
    let (mut session, mut watch, subject);
    if arguments.no_probes {
        let tracee = Tracee::open(Process::open(pid)?)?;
        watch = Watch::new(&tracee, pace)?;
        subject = tracee_subject(&tracee, "snapshots");
        session = None;
    } else {
        let options = Options { detail: Detail::Lifecycle, ..Options::default() };
        let attached = Session::attach_with(Process::open(pid)?, options)?;
        let tracee = attached.tracee().ok_or("the process has replaced its program")?;
        watch = Watch::new(tracee, pace)?;
        subject = tracee_subject(tracee, "probes");
        session = Some(attached);
    }
    let analysis = Analysis::new(arguments.thresholds.thresholds());
    let mut observed = Observed { analysis, subject, lost: 0, extent: None, interrupted: false };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let seconds = arguments.duration.as_secs_f64();
    eprintln!("observing process {pid} for {seconds:.0} s; Ctrl-C reports at once");
    let end = Instant::now() + arguments.duration;
    let mut events = Vec::new();
    loop {
        events.clear();
        tokio::select! {
            progress = next(session.as_mut(), &mut events) => match progress? {
                Progress::Running | Progress::Merged(_) => {
                    if let Some(session) = &session {
                        watch.learn(&events, session.table());
                    }
                }
                Progress::Followed => {
                    eprintln!("the process has replaced its program; observation begins anew");
                    let Some(tracee) = session.as_ref().and_then(Session::tracee) else { break };
                    watch = Watch::new(tracee, pace)?;
                    observed.subject = tracee_subject(tracee, "probes");
                    observed.analysis = Analysis::new(arguments.thresholds.thresholds());
                }
                Progress::Ended(_) => {
                    observed.subject.ended = Some("the process ended".to_owned());
                    break;
                }
            },
            look = watch.next() => match look {
                Ok(mut look) => {
                    if let Some(session) = &session {
                        watch.add_counts(&mut look.sample, session.table());
                        observed.lost = look.sample.lost;
                    }
                    observed.analysis.observe(&look.sample);
                    let goroutines = look.snapshot.goroutines.len() as u64;
                    observed.extent = look.runtime.heap_spans_bytes.map(|heap| (heap, goroutines));
                }
                Err(WatchError::Process(_) | WatchError::Exited { .. }) if observed.analysis.samples() > 0 => {
                    observed.subject.ended = Some("the process ended".to_owned());
                    break;
                }
                Err(error) => return Err(error.into()),
            },
            _ = interrupt.recv() => {
                observed.interrupted = true;
                break;
            }
            _ = terminate.recv() => {
                observed.interrupted = true;
                break;
            }
            () = tokio::time::sleep_until(end) => break,
        }
    }
    if let Some(session) = &mut session {
        session.finish(&mut events)?;
    }
    Ok(observed)
}

/// The session's next events; never any without one.
async fn next(
    session: Option<&mut Session>,
    events: &mut Vec<crate::events::Event>,
) -> Result<Progress, crate::session::SessionError> {
    match session {
        Some(session) => session.next(live::INTERVAL, events).await,
        None => std::future::pending().await,
    }
}

fn tracee_subject(tracee: &Tracee, by: &'static str) -> Subject {
    let program = tracee.program();
    Subject {
        pid: Some(tracee.process().pid().0),
        name: program.name.clone(),
        go_version: Some(program.binary.version().to_string()),
        by,
        ended: None,
    }
}

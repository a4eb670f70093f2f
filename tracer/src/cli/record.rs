//! `gotracer record`: what a process's goroutines do, into a file.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::live::{CostArguments, means, runtime};
use super::{Failure, parse_duration, parse_size};
use crate::events::Event;
use crate::output::recording::Format;
use crate::process::Process;
use crate::recording::Header;
use crate::recording::live::{Limits, Outcome, Paths, Recorder, Stop};
use crate::session::{End, Progress, Session};
use crate::units::{MonotonicNs, Pid};

/// Record what each goroutine of a running Go process does to a file
#[derive(Args)]
#[command(after_help = "\
The form is that of the file's name:
  .gtr       gotracer's own: compact, keeps up with a million events a second, readable after a crash;
             gotracer report shows it, gotracer convert makes any of the others of it
  .jsonl     one JSON object a line, as of gotracer trace --json; .jsonl.zst compressed
  .parquet   for DuckDB, pandas, Spark: the events, and beside it FILE.goroutines.parquet
  .pftrace   for https://ui.perfetto.dev: a track for each goroutine
  .pb.gz     for go tool pprof: goroutines and time blocked, by stack and reason

Stacks are read from the process's memory at the beginning, every 5 seconds, and at the end. Nothing is stopped.

Examples:
  gotracer record --pid 1234 -o shop.gtr --for 60s
  gotracer record --pid 1234 -o shop.gtr --rotate 100MB --keep 10     the newest gigabyte, for as long as it takes
  gotracer record --pid 1234 -o shop.pb.gz --for 30s                  then: go tool pprof -http=: shop.pb.gz")]
pub(super) struct RecordArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    /// The file; its extension says what is written
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What is written, whatever the file is called
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// End after this time (500ms, 5s, 2m, 1h); without it, at Ctrl-C or when the process exits
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// End at this size, of all files together (500kB, 100MB, 1GB)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Begin a new file at this size: FILE-000001, FILE-000002, ..., each complete on its own
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rotate: Option<u64>,
    /// Keep only so many files, the newest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cost: CostArguments,
}

/// How often to look when no filling buffer wakes us.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often all goroutines are read, with their stacks.
const READINGS: Duration = Duration::from_secs(5);
/// The last reading may take so long.
const LAST_READING: Duration = Duration::from_secs(2);
/// How often progress is shown: on a terminal, and elsewhere, where each is a line.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(10);

pub(super) fn record(arguments: &RecordArguments) -> Result<ExitCode, Failure> {
    let format = match arguments.format {
        Some(format) => format,
        None => Format::of(&arguments.output)?,
    };
    let process = Process::open(Pid(arguments.pid))?;
    runtime()?.block_on(async {
        let mut session = Session::attach_with(process, arguments.cost.options())?;
        session.read_every(READINGS);
        let paths =
            Paths { main: arguments.output.clone(), beside: format.beside(&arguments.output), force: arguments.force };
        let limits = Limits {
            max_size: arguments.max_size,
            rotate: arguments.rotate,
            keep: arguments.keep.map(|keep| keep as usize),
        };
        let header = Header::here(session.pid(), session.started(), session.level().name());
        let recorder = Recorder::begin(header, paths, limits, Box::new(move |header| format.encoder(header)))?;
        follow(session, recorder, arguments).await
    })
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Tells on stderr that everything is attached, to this program or to the one that it has become: from here on, nothing is
/// missed.
fn announce(session: &Session, arguments: &RecordArguments) {
    let file = arguments.output.display();
    eprintln!("recording process {} to {file} {}", session.pid(), means(session));
}

async fn follow(mut session: Session, recorder: Recorder, arguments: &RecordArguments) -> Result<ExitCode, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut end = arguments.duration.map(|duration| Instant::now() + duration);
    let mut feed = Feed { begun: None };
    let mut progress = ProgressLine::new();
    let mut ending = None;
    let mut events = Vec::new();
    feed.program(&session, &recorder);
    announce(&session, arguments);
    let ended = loop {
        events.clear();
        tokio::select! {
            next = session.next(INTERVAL, &mut events) => match next? {
                Progress::Ended(ended) => break Some(ended),
                next => {
                    if matches!(next, Progress::Followed) {
                        announce(&session, arguments);
                    }
                    feed.take(&mut session, &recorder, &events, &next, &mut ending);
                }
            },
            _ = interrupt.recv() => end = Some(Instant::now()),
            _ = terminate.recv() => end = Some(Instant::now()),
            () = until(end), if ending.is_none() => {}
        }
        if recorder.gauges().stopped() {
            break None;
        }
        if recorder.gauges().take_wants_reading() {
            session.read_soon();
        }
        progress.show(&session, &recorder);
        // The last thing in a recording is where everybody stands.
        match &ending {
            None if end.is_some_and(|end| Instant::now() >= end) => {
                // One that is under way says nothing of those who came to stand somewhere since.
                let under_way = !session.is_seeded();
                if !under_way {
                    session.read_soon();
                }
                recorder.stay_in_file();
                ending = Some(Ending { until: Instant::now() + LAST_READING, under_way });
            }
            Some(ending) if Instant::now() >= ending.until => break None,
            _ => {}
        }
    };
    events.clear();
    session.finish(&mut events)?;
    recorder.events(&events);
    progress.clear();
    let time = MonotonicNs(session.started().0.saturating_add(session.duration_ns()));
    let why = match &ended {
        None => "detached",
        Some(End::Exited) => "exited",
        Some(End::Replaced(_)) => "replaced",
    };
    if let Some(End::Replaced(why)) = &ended {
        eprintln!("the process replaced its program: {why}");
    }
    finish(recorder, time, why, arguments)
}

/// The recording goes on until the last reading is in it, or this moment.
struct Ending {
    until: Instant,
    /// A reading that began before the end was asked for: the last one is still to come.
    under_way: bool,
}

fn finish(recorder: Recorder, time: MonotonicNs, why: &str, arguments: &RecordArguments) -> Result<ExitCode, Failure> {
    let file = arguments.output.display();
    let Outcome { end, stopped, bytes, files } = recorder.finish(time, why);
    let lost = if end.lost > 0 { format!("{} events LOST", end.lost) } else { "0 events lost".to_owned() };
    let files = if arguments.rotate.is_some() { format!(" in {files} files") } else { String::new() };
    let size = size_in_words(bytes);
    match stopped {
        None => {
            eprintln!("{} events, {size}{files}, {lost}: {file}", end.events);
            Ok(ExitCode::SUCCESS)
        }
        Some(Stop::MaxSize) => {
            eprintln!("{} events, {size}{files}, {lost}: {file} has the size that it may have", end.events);
            Ok(ExitCode::SUCCESS)
        }
        Some(Stop::DiskFull) => Err(format!(
            "the disk is full: the recording ends early, and {file} is whole up to there ({} events, {size}, {lost})",
            end.events
        )
        .into()),
        Some(Stop::Failed(error)) => {
            Err(format!("cannot write {file}: {error}; what was recorded before is in it").into())
        }
    }
}

/// What of the session has been recorded.
struct Feed {
    begun: Option<MonotonicNs>,
}

impl Feed {
    fn program(&self, session: &Session, recorder: &Recorder) {
        if let Some(tracee) = session.tracee()
            && let Some(bias) = tracee.bias()
        {
            recorder.program(tracee.program(), bias, session.table().generation());
        }
    }

    /// Records one step of the session, in the order in which its table took it.
    fn take(
        &mut self,
        session: &mut Session,
        recorder: &Recorder,
        events: &[Event],
        next: &Progress,
        ending: &mut Option<Ending>,
    ) {
        if matches!(next, Progress::Followed) {
            self.program(session, recorder);
        }
        let reading = session.take_reading();
        // Begun in this step: before its events. Merged in this step: behind them, and then it is no more under way.
        let begun = reading.as_ref().and(self.begun).or(session.table().snapshot_begun());
        if begun != self.begun
            && let Some(time) = begun
        {
            recorder.reading_begun(time);
        }
        self.begun = begun;
        recorder.events(events);
        for change in session.take_changes() {
            recorder.detail(crate::events::now(), change.to.name());
        }
        if let Some(reading) = reading {
            recorder.reading(reading);
            if let Some(ending) = ending {
                if std::mem::take(&mut ending.under_way) {
                    session.read_soon();
                } else {
                    ending.until = Instant::now();
                }
            }
        }
    }
}

/// Progress on stderr: one line that is redrawn on a terminal, now and then a line elsewhere.
struct ProgressLine {
    terminal: bool,
    shown: Instant,
    began: Instant,
    events: u64,
    drawn: bool,
}

impl ProgressLine {
    fn new() -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), shown: now, began: now, events: 0, drawn: false }
    }

    fn show(&mut self, session: &Session, recorder: &Recorder) {
        let since = self.shown.elapsed();
        if since < if self.terminal { ON_TERMINAL } else { ELSEWHERE } {
            return;
        }
        let gauges = recorder.gauges();
        let events = gauges.events();
        let rate = events.saturating_sub(self.events) as f64 / since.as_secs_f64();
        let lost = session.table().totals().lost;
        let mut line = format!(
            "{:.0} s: {events} events, {rate:.0}/s, {}, {} live, {lost} lost",
            self.began.elapsed().as_secs_f64(),
            size_in_words(gauges.bytes()),
            session.table().live().total(),
        );
        if gauges.dropped() > 0 {
            line += &format!(", {} not written in time", gauges.dropped());
        }
        if let Some(overhead) = session.overhead() {
            line += &format!(", overhead {:.1} %", overhead.of_target * 100.0);
        }
        let mut stderr = std::io::stderr().lock();
        // Nobody to tell is no reason to end.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
        (self.shown, self.events, self.drawn) = (Instant::now(), events, true);
    }

    fn clear(&self) {
        if self.terminal && self.drawn {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Bytes as people say them.
fn size_in_words(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

//! What `trace` and `run` share: follow a session until it ends, print its events and then its summary.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::{Failure, parse_duration, sink};
use crate::events::now;
use crate::goroutines::MergeReport;
use crate::governor::{Budget, Level, Overhead, Quality};
use crate::output::{EventName, Filter, json, summary, text};
use crate::probes::Detail;
use crate::session::{Options, Progress, Session};
use crate::units::Goid;

/// How to print what a live command sees.
#[derive(Args)]
pub(super) struct LiveArguments {
    /// End after this time (500ms, 5s, 2m, 1h); without it, at Ctrl-C or when the process exits
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Print one JSON object a line, the summary last
    #[arg(long)]
    json: bool,
    /// Print only these events: created, blocked, running, exited, exec, overhead
    #[arg(long, value_name = "EVENTS", value_delimiter = ',')]
    only: Vec<EventName>,
    /// Print only the events of this goroutine
    #[arg(long, value_name = "N")]
    goid: Option<u64>,
    #[command(flatten)]
    pub(super) cost: CostArguments,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a live command may cost the process.
#[derive(Args)]
pub(super) struct CostArguments {
    /// How much to be told: every event; states, which the kernel keeps and gotracer reads now and then, with births and
    /// ends as events; or lifecycle, births and ends alone, with states from the process's memory
    #[arg(long, value_name = "DETAIL", value_enum, default_value_t)]
    detail: Detail,
    /// Give up detail to keep what tracing costs the process below this share of the CPU time that it uses, such as 1%
    #[arg(long, value_name = "SHARE")]
    max_overhead: Option<Budget>,
}

impl CostArguments {
    pub(super) fn options(&self) -> Options {
        Options { detail: self.detail, budget: self.max_overhead }
    }
}

/// A tokio runtime on this thread alone: there is one stream to follow.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// How often to look when no filling buffer wakes us: what a person sees as at once, and what costs nothing.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

/// A trace that is shorter than it takes to read the older goroutines goes on until they are read, but no longer than this.
const FOR_SEEDING: Duration = Duration::from_secs(2);

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Tells on stderr that everything is attached: from here on, nothing is missed.
fn announce(session: &Session) {
    eprintln!("tracing process {} {}", session.pid(), means(session));
}

/// What a session tells by.
pub(super) fn means(session: &Session) -> String {
    match session.level() {
        Level::Snapshots => "by snapshots alone: probes would take more than the budget".to_owned(),
        _ => format!("with {} probes", session.probes()),
    }
}

/// Tells on stderr what a reading of the goroutines changed, where that is worth knowing.
fn tell_merge(report: MergeReport) {
    let MergeReport { added, corrected, ended_unseen, .. } = report;
    log::info!("{added} older goroutines were found in the process's memory");
    if corrected + ended_unseen > 0 {
        eprintln!(
            "repaired after lost events: {corrected} states corrected, {ended_unseen} goroutines had ended unseen"
        );
    }
}

/// Prints the events of `session` until its end, then the summary.
///
/// `begin` is called when everything is ready: from there on nothing is missed and a signal ends it cleanly.
pub(super) async fn follow<T>(
    mut session: Session,
    arguments: &LiveArguments,
    begin: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut out = sink(arguments.output.as_ref())?;
    let terminal = arguments.output.is_none() && std::io::stdout().is_terminal();
    let filter = Filter { events: arguments.only.clone(), goid: arguments.goid.map(Goid) };
    let style = text::Style { colour: terminal && std::env::var_os("NO_COLOR").is_none(), start: session.started() };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut end = arguments.duration.map(|duration| Instant::now() + duration);
    let latest_end = end.map(|end| end + FOR_SEEDING);
    let mut ended = None;
    announce(&session);
    let begun = begin()?;

    let mut status = Status { told: Instant::now(), shown: None };
    let mut events = Vec::new();
    while ended.is_none() {
        events.clear();
        tokio::select! {
            progress = session.next(INTERVAL, &mut events) => match progress? {
                Progress::Running => {}
                // Where states come from snapshots, that is nothing to tell.
                Progress::Merged(report) if session.level().states() == Quality::Exact => tell_merge(report),
                Progress::Merged(_) => {}
                Progress::Followed => announce(&session),
                Progress::Ended(end) => ended = Some(end),
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = until(end) => {
                if session.is_seeded() || end >= latest_end {
                    break;
                }
                end = end.map(|end| end + INTERVAL);
            }
        }
        print(&mut out, &events, &mut session, &filter, arguments.json, style)?;
        status.tell(&mut out, &mut session, &filter, arguments.json, style)?;
    }
    events.clear();
    session.finish(&mut events)?;
    print(&mut out, &events, &mut session, &filter, arguments.json, style)?;

    let summary = summary::Summary::of(&mut session, ended);
    if arguments.json {
        json::line(&mut out, &serde_json::json!({ "summary": summary }))?;
        out.flush()?;
    } else {
        out.flush()?;
        let mut stderr = std::io::stderr().lock();
        summary.write(&mut stderr)?;
    }
    Ok(begun)
}

/// What is said beside the events: changes of detail as they come, and what tracing costs.
struct Status {
    /// When the price was last told on stderr.
    told: Instant,
    /// The price that was last written to the output.
    shown: Option<Overhead>,
}

impl Status {
    /// Text has the price on stderr so often.
    const EVERY: Duration = Duration::from_secs(10);

    fn tell(
        &mut self,
        mut out: &mut dyn Write,
        session: &mut Session,
        filter: &Filter,
        as_json: bool,
        style: text::Style,
    ) -> std::io::Result<()> {
        // A change qualifies all that follows: it is told whatever was asked for.
        for change in session.take_changes() {
            if as_json {
                json::change(&mut out, &change)?;
            } else {
                text::change(&mut out, &change, style)?;
            }
            out.flush()?;
        }
        let Some(overhead) = session.overhead() else { return Ok(()) };
        if as_json && filter.wants_overhead() && self.shown.as_ref() != Some(overhead) {
            json::overhead(&mut out, now(), overhead)?;
            self.shown = Some(overhead.clone());
        }
        if !as_json && self.told.elapsed() >= Self::EVERY {
            eprintln!("{}", text::overhead(overhead));
            self.told = Instant::now();
        }
        Ok(())
    }
}

fn print(
    out: &mut dyn Write,
    events: &[crate::events::Event],
    session: &mut Session,
    filter: &Filter,
    as_json: bool,
    style: text::Style,
) -> std::io::Result<()> {
    let mut out = out;
    for event in events.iter().filter(|event| filter.wants(event)) {
        if as_json {
            json::event(&mut out, event, session.names())?;
        } else {
            text::event(&mut out, event, session.names(), style)?;
        }
    }
    out.flush()
}

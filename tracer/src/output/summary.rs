//! What a live command says in the end: totals, and the table by creation site.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::text::{percent, place};
use super::{Names, SiteName};
use crate::go_runtime::Owner;
use crate::goroutines::Log2Histogram;
use crate::governor::{Level, Quality};
use crate::session::{End, Session};
use crate::units::Pid;

/// The summary of a session; the object that `--json` gives as last line.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The process.
    pub pid: Pid,
    /// The Go version that built its program.
    pub go_version: Option<String>,
    /// Seconds from the moment at which all probes were attached.
    pub seconds: f64,
    /// What ended it: nothing (we did), or the target.
    pub ended: Ended,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// About how many goroutines were made, by the runtime's own count; `None` without a budget.
    pub made: Option<u64>,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Times that a goroutine parked.
    pub blocked: u64,
    /// Times that a goroutine was given a thread.
    pub running: u64,
    /// Goroutines alive at the end: what `runtime.NumGoroutine` says, which leaves out the runtime's own.
    pub live: u64,
    /// The runtime's own goroutines alive at the end.
    pub system: u64,
    /// Goroutines that were there before they were first seen.
    pub first_seen: u64,
    /// Events that did not reach us. If this is not 0, every figure here is a lower bound.
    pub lost: u64,
    /// Events that came so late that they were printed out of order.
    pub late: u64,
    /// What the figures are worth.
    pub quality: SummaryQuality,
    /// How much was told, and for how long.
    pub levels: Vec<HeldLevel>,
    /// What tracing cost the process, as a share of the CPU time that it used; `None` where that was not measured: it
    /// takes a second.
    pub overhead: Option<f64>,
    /// By `go` statement and start function; most live first.
    pub sites: Vec<SiteSummary>,
}

/// What the figures of a summary are worth, each the least that it was worth at any time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SummaryQuality {
    /// `created` and `exited`: all are counted wherever anything is attached.
    pub lives: Quality,
    /// The same by site.
    pub sites: Quality,
    /// `blocked` and `running`, by site as well.
    pub states: Quality,
}

/// A level of detail that held for some time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HeldLevel {
    /// Which.
    #[serde(flatten)]
    pub level: Level,
    /// For how many seconds in all.
    pub seconds: f64,
}

/// One `go` statement with one start function.
#[derive(Debug, Serialize)]
pub struct SiteSummary {
    /// The `go` statement.
    pub site: SiteName,
    /// The function that runs in the goroutine.
    pub start: Arc<str>,
    /// Whether these are goroutines of the Go runtime itself.
    pub system: bool,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Alive at the end.
    pub live: u64,
    /// Times that one of them parked.
    pub blocked: u64,
    /// Seconds for which they were blocked, in blocks that have ended.
    pub blocked_seconds: f64,
    /// How many of their blocks took so long.
    pub blocks: Vec<Bucket>,
}

/// Blocks of about one length.
#[derive(Debug, Serialize)]
pub struct Bucket {
    /// They took less than so many nanoseconds, a power of two, and half of it or more.
    pub below_ns: u64,
    /// How many.
    pub count: u64,
}

/// What ended a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// We did: `--for` was over, or a signal came.
    Detached,
    /// The target exited.
    Exited,
    /// The target replaced its program by one that cannot be traced, for this reason.
    Replaced(String),
}

impl Summary {
    /// Sums a session up.
    #[must_use]
    pub fn of(session: &mut Session, end: Option<End>) -> Self {
        let seconds = session.duration_ns() as f64 / 1e9;
        let go_version = session.go_version();
        let late = session.late();
        let (lives, states) = session.quality();
        let levels: Vec<HeldLevel> =
            session.levels().into_iter().map(|(level, seconds)| HeldLevel { level, seconds }).collect();
        let counted = if lives == Quality::Snapshot { Quality::Snapshot } else { Quality::Exact };
        let quality = SummaryQuality { lives: counted, sites: lives, states };
        let (overhead, made) = (session.mean_overhead(), session.made());
        let (table, names) = session.table_and_names();
        let totals = table.totals();
        let mut sites: Vec<SiteSummary> = table
            .sites()
            .iter()
            .filter(|site| site.created + site.first_seen + site.exited + site.blocked_events > 0)
            .map(|site| {
                let unknown = SiteName { function: "(unknown)".into(), file: "".into(), line: 0 };
                let (name, start) = match names.get_mut(site.generation as usize) {
                    Some(names) if site.gopc.0 != 0 || site.startpc.0 != 0 => {
                        (names.site(site.gopc), names.function(site.startpc))
                    }
                    _ => (unknown, "(created before tracing began)".into()),
                };
                SiteSummary {
                    site: name,
                    system: Owner::of(&start).is_system(),
                    start,
                    created: site.created + site.created_estimated,
                    exited: site.exited + site.exited_estimated,
                    live: site.live.total(),
                    blocked: site.blocked_events,
                    blocked_seconds: site.blocked_ns as f64 / 1e9,
                    blocks: buckets(&site.blocks),
                }
            })
            .collect();
        let system = sites.iter().filter(|site| site.system).map(|site| site.live).sum();
        sites.sort_by_key(|site| std::cmp::Reverse((site.live, site.created, site.blocked)));
        Self {
            pid: table.pid(),
            go_version,
            seconds,
            ended: match end {
                None => Ended::Detached,
                Some(End::Exited) => Ended::Exited,
                Some(End::Replaced(why)) => Ended::Replaced(why.to_string()),
            },
            created: totals.created,
            made,
            exited: totals.exited,
            blocked: totals.blocked,
            running: totals.running,
            live: table.live().total() - system,
            system,
            first_seen: totals.first_seen,
            lost: totals.lost,
            late,
            quality,
            levels,
            overhead,
            sites,
        }
    }

    /// What was told for how long, and what it cost, where there is something to say.
    fn write_worth(&self, out: &mut impl Write) -> io::Result<()> {
        if self.levels.iter().any(|held| held.level != Level::Events) {
            let held: Vec<String> =
                self.levels.iter().map(|held| format!("{} for {:.1} s", held.level, held.seconds)).collect();
            writeln!(out, "told: {}", held.join("; "))?;
        }
        let states = match self.quality.states {
            Quality::Exact => None,
            Quality::Estimated => Some("blocked and running are estimates, from slices of the time"),
            Quality::Snapshot => Some("blocked and running were not counted all the time; states are from snapshots"),
        };
        let lives = match self.quality.sites {
            Quality::Exact => None,
            Quality::Estimated => Some("created and exited are exact in all, and estimates by site"),
            Quality::Snapshot => Some("created and exited were not counted all the time"),
        };
        if let Some(worth) = lives {
            write!(out, "{worth}")?;
            if let (Quality::Snapshot, Some(made)) = (self.quality.sites, self.made) {
                write!(out, "; by the Go runtime's own count about {made} were created")?;
            }
            writeln!(out)?;
        }
        if let Some(worth) = states {
            writeln!(out, "{worth}")?;
        }
        match self.overhead {
            Some(share) => writeln!(out, "tracing cost {} of the process's CPU time", percent(share)),
            None => Ok(()),
        }
    }

    /// Writes it for a person to read.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        let how = match &self.ended {
            Ended::Detached => "detached".to_owned(),
            Ended::Exited => "the process exited".to_owned(),
            Ended::Replaced(why) => format!("the process replaced its program; {why}"),
        };
        writeln!(out, "process {} traced for {:.1} s; {how}", self.pid, self.seconds)?;
        writeln!(
            out,
            "{} created, {} exited, {} blocked, {} running; {} live, and {} of the runtime's own; {} events lost",
            self.created, self.exited, self.blocked, self.running, self.live, self.system, self.lost
        )?;
        self.write_worth(out)?;
        if self.lost > 0 {
            writeln!(out, "events were lost, so every figure is a lower bound")?;
        }
        if self.sites.is_empty() {
            return Ok(());
        }
        const MOST: usize = 40;
        let rows: Vec<[String; 6]> = self
            .sites
            .iter()
            .take(MOST)
            .map(|s| {
                [
                    s.created.to_string(),
                    s.exited.to_string(),
                    s.live.to_string(),
                    s.blocked.to_string(),
                    place(&s.site),
                    s.start.to_string(),
                ]
            })
            .collect();
        let head = ["CREATED", "EXITED", "LIVE", "BLOCKED", "CREATED AT", "RUNS"];
        let width = |column: usize| {
            rows.iter().map(|r| r[column].chars().count()).chain([head[column].len()]).max().unwrap_or_default()
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        writeln!(out)?;
        for row in [head.map(str::to_owned)].iter().chain(&rows) {
            let [created, exited, live, blocked, at, runs] = row;
            let [w0, w1, w2, w3, w4, _] = widths;
            writeln!(out, "{created:>w0$}  {exited:>w1$}  {live:>w2$}  {blocked:>w3$}  {at:<w4$}  {runs}")?;
        }
        if self.sites.len() > MOST {
            writeln!(out, "and {} more sites; --json has them all", self.sites.len() - MOST)?;
        }
        Ok(())
    }
}

/// The buckets that hold something.
fn buckets(histogram: &Log2Histogram) -> Vec<Bucket> {
    let filled = histogram.buckets().iter().zip(1_u32..).filter(|(count, _)| **count > 0);
    filled
        .map(|(count, power)| Bucket { below_ns: 1_u64.checked_shl(power).unwrap_or(u64::MAX), count: *count })
        .collect()
}

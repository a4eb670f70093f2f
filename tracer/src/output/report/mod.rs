//! A recording, told: what happened, where goroutines come from, where they wait, and how that changed over time.
//!
//! In: a [`Source`]. Out: a [`Report`], as figures; [`text`] and [`html`] show them. Prints nothing itself.

mod creators;
mod gather;
pub mod html;
pub mod text;
mod timeline;

pub use creators::Creator;
pub use timeline::{Bucket, SiteLine, Timeline};

use std::sync::Arc;

use serde::Serialize;

use crate::goroutines::Log2Histogram;
use crate::governor::{Level, Quality};
use crate::output::SiteName;
use crate::recording::{Damage, End, Frame, Header, Program, ReadError, Source};
use crate::units::Goid;

/// All that is told of a recording. Times are nanoseconds; those called `at_ns` are since its beginning.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the recording says of itself.
    pub recording: Header,
    /// The programs that the process ran.
    pub programs: Vec<ProgramLine>,
    /// Its regular end, if it has one.
    pub end: Option<End>,
    /// What of the file could not be read.
    pub damages: Vec<DamageLine>,
    /// Counts.
    pub totals: Totals,
    /// Changes of what was recorded.
    pub details: Vec<DetailLine>,
    /// What the figures are worth, the least at any time.
    pub quality: Worth,
    /// By `go` statement and start function; most live first.
    pub sites: Vec<SiteRow>,
    /// By wait reason; most time first.
    pub reasons: Vec<ReasonRow>,
    /// By where goroutines wait; most time first.
    pub waits: Vec<WaitRow>,
    /// Waiting places that are not in `waits`.
    pub more_waits: usize,
    /// The longest blocks.
    pub longest: Vec<BlockRow>,
    /// How long goroutines lived that were born and ended in the recording, by powers of two.
    pub lifetimes: Vec<Lifetimes>,
    /// Counts over time.
    pub timeline: Timeline,
    /// Who creates whom.
    pub creators: Vec<Creator>,
}

/// A program.
#[derive(Debug, Serialize)]
pub struct ProgramLine {
    /// Its executable.
    pub exe: String,
    /// The Go version that built it.
    pub go_version: String,
    /// Its build id.
    pub build_id: String,
}

impl ProgramLine {
    fn of(program: &Program) -> Self {
        let Program { exe, go_version, build_id, .. } = program.clone();
        Self { exe, go_version, build_id }
    }
}

/// A part of the file that could not be read.
#[derive(Debug, Serialize)]
pub struct DamageLine {
    /// Where, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub bytes: u64,
    /// How many events are missing, if that is known.
    pub events: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl DamageLine {
    fn of(damage: &Damage) -> Self {
        let Damage { offset, bytes, events, what } = damage.clone();
        Self { offset, bytes, events, what }
    }
}

/// What figures of a recording are worth, by what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Worth {
    /// Births and ends.
    pub lives: Quality,
    /// States, parks and blocked time: exact where every park and run is in the recording, else those of its readings. What
    /// the kernel keeps at detail `states` is in the session's own table, not in the recording.
    pub states: Quality,
}

impl Worth {
    /// Of a recording with these levels of detail, one after the other.
    fn of<'l>(levels: impl Iterator<Item = &'l str>) -> Self {
        // What tells no level is from before there were any; what has an unknown one is worth what is certain.
        let levels = levels.filter(|name| !name.is_empty()).map(|name| Level::named(name).unwrap_or(Level::Snapshots));
        levels.fold(Self { lives: Quality::Exact, states: Quality::Exact }, |worth, level| {
            let states = if level == Level::Events { Quality::Exact } else { Quality::Snapshot };
            Self { lives: worth.lives.max(level.lives()), states: worth.states.max(states) }
        })
    }
}

/// From here on, something else was recorded.
#[derive(Debug, Serialize)]
pub struct DetailLine {
    /// When.
    pub at_ns: u64,
    /// What.
    pub level: String,
}

/// Counts over the whole recording.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// How long it is.
    pub duration_ns: u64,
    /// Events, losses not counted.
    pub events: u64,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Times that one parked.
    pub blocked: u64,
    /// Times that one was given a thread.
    pub running: u64,
    /// Goroutines that were there before they were first seen.
    pub first_seen: u64,
    /// Goroutines found gone, their end not seen.
    pub ended_unseen: u64,
    /// The program's goroutines alive at the end.
    pub live: u64,
    /// The runtime's own alive at the end.
    pub system: u64,
    /// Events that did not reach the recording; if not 0, all counts are lower bounds.
    pub lost: u64,
    /// Events that stand behind later ones.
    pub late: u64,
    /// Readings of all goroutines.
    pub readings: u64,
}

/// One `go` statement with one start function.
#[derive(Debug, Serialize)]
pub struct SiteRow {
    /// The `go` statement.
    pub site: SiteName,
    /// The function that runs.
    pub start: Arc<str>,
    /// Whether these are the runtime's own.
    pub system: bool,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines that were there before they were first seen.
    pub first_seen: u64,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Alive at the end.
    pub live: u64,
    /// Times that one parked.
    pub blocked: u64,
    /// Time that they were blocked.
    pub blocked_ns: u64,
    /// Half of those that were born and ended in the recording lived less than this.
    pub median_life_ns: Option<u64>,
}

/// One wait reason.
#[derive(Debug, Serialize)]
pub struct ReasonRow {
    /// Its name.
    pub reason: String,
    /// Blocks.
    pub blocks: u64,
    /// Time.
    pub blocked_ns: u64,
    /// Half of the blocks were shorter than this.
    pub median_ns: Option<u64>,
    /// 99 in 100 were.
    pub p99_ns: Option<u64>,
    /// Goroutines that wait for it at the end.
    pub waiting: u64,
}

/// A place at which goroutines wait.
#[derive(Debug, Serialize)]
pub struct WaitRow {
    /// For what.
    pub reason: String,
    /// How the stack is known: `seen` (it was read during the block), `same_goroutine` (at another block of the same
    /// goroutine, for the same reason), `no`.
    pub known: &'static str,
    /// The stack, innermost first; empty if it is not known.
    pub stack: Vec<Call>,
    /// The `go` statement of those who wait.
    pub site: SiteName,
    /// The function that they run.
    pub start: Arc<str>,
    /// Blocks.
    pub blocks: u64,
    /// Time.
    pub blocked_ns: u64,
    /// Goroutines that wait here at the end.
    pub waiting: u64,
}

/// A call in a stack.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The function.
    pub function: Arc<str>,
    /// The source file.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
}

impl Call {
    fn of(frame: &Frame) -> Self {
        Self { function: Arc::clone(&frame.function), file: Arc::clone(&frame.file), line: frame.line }
    }
}

/// One long block.
#[derive(Debug, Serialize)]
pub struct BlockRow {
    /// The goroutine.
    pub goid: Goid,
    /// For what.
    pub reason: String,
    /// When it began, since the beginning of the recording.
    pub at_ns: u64,
    /// How long it lasted within the recording.
    pub ns: u64,
    /// It goes on at the end.
    pub goes_on: bool,
    /// As in [`WaitRow`].
    pub known: &'static str,
    /// As in [`WaitRow`].
    pub stack: Vec<Call>,
    /// As in [`WaitRow`].
    pub site: SiteName,
    /// As in [`WaitRow`].
    pub start: Arc<str>,
}

/// Lifetimes from `from_ns` to below twice that.
#[derive(Debug, Serialize)]
pub struct Lifetimes {
    /// The shortest.
    pub from_ns: u64,
    /// How many.
    pub count: u64,
}

impl Lifetimes {
    /// The buckets from the first to the last that hold something.
    fn of(histogram: &Log2Histogram) -> Vec<Self> {
        let buckets = histogram.buckets();
        let first = buckets.iter().position(|count| *count > 0);
        let last = buckets.iter().rposition(|count| *count > 0);
        let Some((first, last)) = first.zip(last) else { return Vec::new() };
        (first..=last).map(|at| Self { from_ns: 1 << at, count: buckets[at] }).collect()
    }
}

impl Report {
    /// Reads a whole recording.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of(source: &mut impl Source) -> Result<Self, ReadError> {
        gather::report(source)
    }
}

/// Nanoseconds as people say them: three digits and a unit.
#[must_use]
pub fn duration(ns: u64) -> String {
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (value / 1e3, "\u{b5}s"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        1_000_000_000..120_000_000_000 => (value / 1e9, "s"),
        120_000_000_000..7_200_000_000_000 => (value / 60e9, "min"),
        _ => (value / 3600e9, "h"),
    };
    match value {
        0.0..9.995 => format!("{value:.2} {unit}"),
        9.995..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_figures_are_worth_is_the_least_of_all_levels() {
        let of = |levels: &[&str]| {
            let Worth { lives, states } = Worth::of(levels.iter().copied());
            (lives, states)
        };
        assert_eq!(of(&["events"]), (Quality::Exact, Quality::Exact));
        assert_eq!(of(&[""]), (Quality::Exact, Quality::Exact));
        assert_eq!(of(&["lifecycle", "events"]), (Quality::Exact, Quality::Snapshot));
        assert_eq!(of(&["events", "sampled_lifecycle", "events"]), (Quality::Estimated, Quality::Snapshot));
        assert_eq!(of(&["of a later gotracer"]), (Quality::Snapshot, Quality::Snapshot));
    }

    #[test]
    fn durations_have_three_digits() {
        let said: Vec<String> =
            [0, 999, 1_000, 12_345, 999_499, 5_678_000, 61_000_000_000, 180_000_000_000, 36_000_000_000_000]
                .map(duration)
                .to_vec();
        assert_eq!(said, ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "999 µs", "5.68 ms", "61.0 s", "3.00 min", "10.0 h"]);
    }
}

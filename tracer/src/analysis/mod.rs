//! What grows, what is stuck, and how long memory lasts.
//!
//! In: [`Sample`]s, one look at a process each, in the order of their times. Out: a [`SiteTrend`] for each creation site,
//! [`Finding`]s, the [`MemoryTrend`] and its [`Forecast`]. Pure: no clock, no process, no addresses; memory is bounded by
//! [`SITES`] and [`HISTORY`].
//!
//! The word *leaked* is not used here: nothing that is seen in figures proves it. Findings are *suspected*, with a score.

mod diff;
mod finding;
mod history;
mod memory;
mod sample;
mod site;
mod state;
mod survival;
mod suspect;
mod thresholds;
pub mod trend;
mod words;

use serde::Serialize;

pub use diff::{Diff, SiteDiff, diff};
pub use finding::{Evidence, Finding, Kind, Severity};
pub use sample::{Ages, Block, FrameName, MemorySample, PLACES, Place, Sample, SiteKey, SiteSample, WaitFacts};
pub use state::Analysis;
pub use thresholds::Thresholds;
pub use trend::Trend;
pub use words::{duration, rate};

/// Creation sites that are followed; a program has fewer `go` statements, hostile memory more.
pub const SITES: usize = 1 << 16;
/// Values kept of a series; when there are more, each two become one.
pub const HISTORY: usize = 48;

/// How a creation site moves.
#[derive(Clone, Debug, Serialize)]
pub struct SiteTrend {
    /// Which.
    pub key: SiteKey,
    /// Alive now.
    pub live: u64,
    /// Of them waiting.
    pub parked: u64,
    /// Started since observation began; `None` where nobody counts.
    pub created: Option<u64>,
    /// Ended since observation began.
    pub exited: Option<u64>,
    /// Started a second, lately; `None` where nobody counts.
    pub born_per_second: Option<f64>,
    /// Ended a second, lately.
    pub died_per_second: Option<f64>,
    /// How `live` moves.
    pub growth: Trend,
    /// How the number of the old ones moves, those that have outlived their like: the growth that stays. `None` while
    /// nobody has been watched for long enough to be old.
    pub staying: Option<Trend>,
    /// The share of goroutines that live longer than each time (nanoseconds), by Kaplan and Meier, at times where it falls.
    pub survival: Vec<(u64, f64)>,
    /// What most of them wait for: the runtime's word.
    pub reason: Option<std::sync::Arc<str>>,
    /// The share of all goroutine time, since observation began, in which they were parked.
    pub parked_share: f64,
    /// Bytes of stack that they hold.
    pub stack_bytes: u64,
    /// Who started them, the nearest first.
    pub creators: Vec<SiteKey>,
    /// Whether it grows, is steady, or cannot be told yet.
    pub state: SiteState,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteState {
    /// Observed too shortly to say.
    Unknown,
    /// It comes and goes, or stays as it is.
    Steady,
    /// It gets more, and there is no finding (yet).
    Growing,
    /// There is a finding.
    Suspected,
}

/// How memory moves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryTrend {
    /// The last figures.
    pub now: MemorySample,
    /// Bytes a second: resident memory (else the heap that the collector marks and the stacks).
    pub used: Trend,
    /// Bytes a second: the heap that the collector found live.
    pub heap: Trend,
    /// Bytes a second: stacks.
    pub stacks: Trend,
    /// Timers a second.
    pub timers: Trend,
    /// Collector cycles a second.
    pub gc_per_second: Option<f64>,
    /// The mean stop of the world of one cycle, lately, in nanoseconds.
    pub gc_pause_ns: Option<f64>,
}

/// When memory reaches its limit if it goes on like this.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The limit, in bytes.
    pub limit: u64,
    /// Whose limit: `cgroup`, `machine`; `GOMEMLIMIT` for the one at which the collector begins to run without end.
    pub limit_of: &'static str,
    /// What is used now, in bytes.
    pub used: u64,
    /// Seconds, at the soonest.
    pub soonest_s: f64,
    /// Seconds, at the latest; `None`: perhaps never.
    pub latest_s: Option<f64>,
    /// How sure it is that memory grows at all, from 0 to 1.
    pub confidence: f64,
    /// The part of the growth that the suspected goroutines explain, from 0 to 1; an estimate.
    pub explained: Option<f64>,
    /// Bytes a second that their stacks take: measured.
    pub stacks_per_second: f64,
    /// Bytes a second that they keep in the heap: estimated from how the marked heap moves with their number.
    pub heap_per_second: Option<f64>,
}

/// Whether there was enough to see.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too little was seen to say anything about growth; this long (seconds) is needed.
    TooShort {
        /// Seconds seen.
        seen_s: f64,
        /// Seconds needed, at the pace of the looks so far.
        needed_s: f64,
    },
    /// Enough.
    Enough,
}

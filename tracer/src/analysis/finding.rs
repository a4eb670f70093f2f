//! What analysis gives: findings, each with its kind, how sure it is, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::sample::{FrameName, SiteKey};
use crate::units::{Goid, MonotonicNs};

/// What is wrong. `docs/leaks.md` describes each, and what looks like it and is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Blocked on a channel on whose other side nobody is seen, or that is nil.
    Channel,
    /// Outlives the call that started it, and no end of that call can reach it.
    Context,
    /// Waits for a `sync.WaitGroup` that is never counted down, or runs on after its group was waited for.
    WaitGroup,
    /// Woken again and again by a ticker, or timers that only get more.
    Timer,
    /// Started by a deferred function, and blocked.
    DeferredClosure,
    /// Waits for a mutex that is never unlocked.
    Mutex,
    /// Waits for a `sync.Cond` that nobody signals.
    Cond,
    /// Stuck in a system call or a call of C.
    Syscall,
    /// Runs and runs, and never parks.
    Busy,
    /// Born faster than they die, by more than the threshold.
    Storm,
    /// A finalizer or cleanup that does not return: no other finalizer runs any more.
    Finalizer,
    /// More goroutines than the threshold, most of them parked.
    TooMany,
    /// Only gets more, for none of the reasons above.
    Growth,
    /// Memory will reach its limit.
    Memory,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Channel,
        Self::Context,
        Self::WaitGroup,
        Self::Timer,
        Self::DeferredClosure,
        Self::Mutex,
        Self::Cond,
        Self::Syscall,
        Self::Busy,
        Self::Storm,
        Self::Finalizer,
        Self::TooMany,
        Self::Growth,
        Self::Memory,
    ];

    /// Its name in JSON and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Context => "context",
            Self::WaitGroup => "wait_group",
            Self::Timer => "timer",
            Self::DeferredClosure => "deferred_closure",
            Self::Mutex => "mutex",
            Self::Cond => "cond",
            Self::Syscall => "syscall",
            Self::Busy => "busy",
            Self::Storm => "storm",
            Self::Finalizer => "finalizer",
            Self::TooMany => "too_many",
            Self::Growth => "growth",
            Self::Memory => "memory",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Channel => "channel without a counterpart",
            Self::Context => "context not propagated",
            Self::WaitGroup => "WaitGroup never done",
            Self::Timer => "timer or ticker not stopped",
            Self::DeferredClosure => "started by a deferred function",
            Self::Mutex => "mutex never released",
            Self::Cond => "condition never signalled",
            Self::Syscall => "stuck in a system call or in C",
            Self::Busy => "busy, never parks",
            Self::Storm => "goroutine storm",
            Self::Finalizer => "blocked finalizer",
            Self::TooMany => "too many goroutines",
            Self::Growth => "only grows",
            Self::Memory => "memory limit ahead",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How bad it is; grows with the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing: it does not grow, or slowly, or may be meant.
    Notice,
    /// It grows, and will become a problem.
    Warning,
    /// It grows fast, is huge already, or memory ends within the hour.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// Something suspected. Proof is another's: see `docs/leaks.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// How sure, from 0 to 1: `docs/leaks.md` says what goes into it.
    pub score: f64,
    /// Which goroutines; `None` where it is about the whole process.
    pub site: Option<SiteKey>,
    /// How many goroutines are meant.
    pub count: u64,
    /// How many more they get a second; `None` if observed too shortly to say.
    pub per_second: Option<f64>,
    /// Since when there were some, as far as known: perhaps since before.
    pub since: Option<MonotonicNs>,
    /// For how long, in nanoseconds: `since` seen from the last sample.
    pub since_ns: Option<u64>,
    /// Why, the strongest first.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: String,
    /// Where they stand, innermost first.
    pub stack: Arc<[FrameName]>,
    /// The runtime's word for what they wait for.
    pub reason: Arc<str>,
    /// Bytes of stack that they hold.
    pub stack_bytes: u64,
    /// Who started them, the nearest first.
    pub creators: Vec<SiteKey>,
    /// Some of them.
    pub examples: Vec<Goid>,
}

/// One reason for a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// A stable name: `growth`, `survival`, `no_counterpart`, ...
    pub what: &'static str,
    /// The sentence.
    pub words: String,
    /// Its numbers, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<&'static str, f64>,
}

//! What analysis takes: one look at a process, by creation site.
//!
//! Made by [`Census`](super::Census) from snapshots and the table, or read from a recording. Holds names, not addresses, so
//! that samples of one program compare whatever they come from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::goroutines::Log2Histogram;
use crate::units::{Goid, MonotonicNs};

/// A `go` statement with the function that it starts: what makes two goroutines of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SiteKey {
    /// The function with the `go` statement; empty for the first goroutine, which has none.
    pub function: Arc<str>,
    /// Its source file as the compiler was given it; empty where not known.
    pub file: Arc<str>,
    /// The line of the `go` statement; 0 where not known.
    pub line: u32,
    /// The function that runs in the goroutine.
    pub start: Arc<str>,
}

/// One look at a process.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When; of a snapshot, when its reading ended.
    pub time: MonotonicNs,
    /// The program's own goroutines by creation site, in no particular order, each site once.
    pub sites: Vec<SiteSample>,
    /// Whether [`SiteSample::ages`] and [`SiteSample::places`] were looked at for this sample: a snapshot was taken.
    pub whole: bool,
    /// The runtime's figures and the kernel's.
    pub memory: MemorySample,
    /// Events that did not reach us so far. If it grows, `created` and `exited` are lower bounds.
    pub lost: u64,
}

impl Sample {
    /// All live goroutines.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.sites.iter().map(|site| site.live).sum()
    }
}

/// The goroutines of one creation site.
#[derive(Clone, Debug)]
pub struct SiteSample {
    /// Which.
    pub key: SiteKey,
    /// Alive.
    pub live: u64,
    /// Of them waiting for a reason.
    pub parked: u64,
    /// Started since observation began; `None` where nobody counted (snapshots alone do not).
    pub created: Option<u64>,
    /// Ended since observation began.
    pub exited: Option<u64>,
    /// Lifetimes of those that were seen to start and to end since observation began.
    pub lifetimes: Option<Log2Histogram>,
    /// How long the live ones are known to have lived.
    pub ages: Ages,
    /// How long those live ones have lived that were seen to start.
    pub young_ages: Ages,
    /// Bytes of stack they hold.
    pub stack_bytes: u64,
    /// Where they stand, the largest groups first; at most [`PLACES`] of them.
    pub places: Vec<Place>,
    /// Who started them, as far as it was seen: the site of their creators, the creators' creators' and so on.
    pub creators: Vec<SiteKey>,
    /// Whether the function with the `go` statement runs as a deferred call.
    pub deferred: bool,
    /// Whether the function that runs counts a `sync.WaitGroup` down.
    pub counts_down: bool,
}

impl SiteSample {
    /// A site without live goroutines.
    #[must_use]
    pub fn empty(key: SiteKey) -> Self {
        Self {
            key,
            live: 0,
            parked: 0,
            created: None,
            exited: None,
            lifetimes: None,
            ages: Ages::default(),
            young_ages: Ages::default(),
            stack_bytes: 0,
            places: Vec::new(),
            creators: Vec::new(),
            deferred: false,
            counts_down: false,
        }
    }
}

/// So many places are kept of a site.
pub const PLACES: usize = 8;

/// Goroutines of one site with the same stack, waiting for the same.
#[derive(Clone, Debug)]
pub struct Place {
    /// What they do there.
    pub block: Block,
    /// The runtime's word for it: a wait reason, or a state such as `syscall`.
    pub reason: Arc<str>,
    /// Their stack, innermost first, as Go's own traceback shows it.
    pub stack: Arc<[FrameName]>,
    /// How many.
    pub count: u64,
    /// Of them those that have not moved since the sample before.
    pub stuck: u64,
    /// Of [`Block::Runs`]: they have not parked once in their lives.
    pub never_parked: bool,
    /// How long these goroutines are known to have stood here without a move.
    pub still: Ages,
    /// Of them those whose creating call is over: the creator has ended, or its stack no longer holds the call.
    pub orphans: u64,
    /// Of them those whose creator was looked for.
    pub orphans_of: u64,
    /// What is known of what they wait for.
    pub waits: WaitFacts,
    /// Some of them, the oldest first.
    pub examples: Vec<Goid>,
}

/// One line of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameName {
    /// The function.
    pub function: Arc<str>,
    /// Its source file.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
}

/// What keeps a goroutine where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// It has a thread or waits for one.
    Runs,
    /// Sends to a channel.
    Send,
    /// Receives from a channel.
    Receive,
    /// Waits in a select with channels.
    Select,
    /// Waits for a channel that is nil, or in a select without cases: for ever.
    Never,
    /// In `time.Sleep`.
    Sleep,
    /// For the network or a file.
    Io,
    /// For a `sync.Mutex` or `sync.RWMutex`.
    Mutex,
    /// In `sync.WaitGroup.Wait`.
    WaitGroup,
    /// In `sync.Cond.Wait`.
    Cond,
    /// In a system call.
    Syscall,
    /// In a call of C.
    Cgo,
    /// For another reason.
    Other,
}

/// What was read of the objects that a [`Place`]'s goroutines wait for. Of many goroutines some are looked at: `of` counts
/// them, and the other figures are of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitFacts {
    /// Goroutines whose waits were looked at.
    pub of: u64,
    /// Distinct channels (of mutexes and wait groups: objects) among them.
    pub objects: u64,
    /// Goroutines on a channel on whose other side another goroutine waits.
    pub counterpart: u64,
    /// Goroutines that wait for a timer's channel.
    pub timed: u64,
    /// Of them those whose timer goes on and on, a ticker's, and its period in nanoseconds (of one of them).
    pub ticking: u64,
    /// See `ticking`.
    pub period_ns: Option<u64>,
    /// Goroutines that can also be ended by a `context`'s Done channel (a select with an unbuffered `chan struct{}`).
    pub done: u64,
    /// Who seems to hold the mutex: a goroutine that has it on its stack and does not wait for it.
    pub holder: Option<Goid>,
    /// The counter of one of the wait groups.
    pub counter: Option<u64>,
}

/// How many of some goroutines are known to have lasted how long: bucket `i` counts the ages from 2^i to 2^(i+1) - 1 in
/// units of 2^24 ns (16.8 ms), the first all below, the last all above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    counts: [u32; Ages::BUCKETS],
    oldest_ns: u64,
}

impl Ages {
    /// Buckets: up to 2^47 ns, 39 hours.
    pub const BUCKETS: usize = 24;
    const UNIT: u32 = 24;

    /// Counts one of that age.
    pub fn add(&mut self, ns: u64) {
        let bucket = (ns >> Self::UNIT).checked_ilog2().unwrap_or_default() as usize;
        let count = &mut self.counts[bucket.min(Self::BUCKETS - 1)];
        *count = count.saturating_add(1);
        self.oldest_ns = self.oldest_ns.max(ns);
    }

    /// The counts.
    #[must_use]
    pub fn buckets(&self) -> &[u32; Self::BUCKETS] {
        &self.counts
    }

    /// The least age in bucket `i`, in nanoseconds.
    #[must_use]
    pub fn begin_ns(i: usize) -> u64 {
        if i == 0 { 0 } else { 1 << (Self::UNIT as usize + i.min(Self::BUCKETS - 1)) }
    }

    /// How many are at least as old as bucket `i` begins.
    #[must_use]
    pub fn at_least(&self, i: usize) -> u64 {
        self.counts.iter().skip(i).map(|n| u64::from(*n)).sum()
    }

    /// The age of the oldest, in nanoseconds; 0 for none.
    #[must_use]
    pub fn oldest_ns(&self) -> u64 {
        self.oldest_ns
    }

    /// All.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.at_least(0)
    }
}

/// The runtime's memory figures and the kernel's, in bytes, at one time. `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemorySample {
    /// Heap that is live or was allocated since the last mark.
    pub heap_live: Option<u64>,
    /// Heap that the last cycle marked.
    pub heap_marked: Option<u64>,
    /// The heap size at which the next cycle should end.
    pub heap_goal: Option<u64>,
    /// Spans of goroutines' stacks.
    pub stacks: Option<u64>,
    /// GOMEMLIMIT.
    pub go_limit: Option<u64>,
    /// Collector cycles completed.
    pub gc_cycles: Option<u64>,
    /// Nanoseconds that the collector stopped the world, in all.
    pub gc_pause_ns: Option<u64>,
    /// The share of processor time that the collector has taken since the process began.
    pub gc_cpu_share: Option<f64>,
    /// Timers that are set.
    pub timers: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Resident memory of the process.
    pub rss: Option<u64>,
    /// Memory that its cgroup uses, other processes and page cache included.
    pub cgroup_used: Option<u64>,
    /// The least limit of its cgroup and those above.
    pub cgroup_limit: Option<u64>,
    /// The machine's memory.
    pub machine: Option<u64>,
}

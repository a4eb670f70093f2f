//! What the table tells of one goroutine. Plain values; no behaviour of the table.

use super::sites::SiteId;
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// What a goroutine is doing, as far as park and execute tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Created and not run yet. From a snapshot: in a run queue, for whatever reason.
    Runnable,
    /// Given a thread and not parked since: running, in a system call, or preempted and waiting for its next turn.
    Running,
    /// Parked and not given a thread since: waiting, or woken and in the run queue.
    Blocked {
        /// The runtime's `waitReason`, a number whose meaning depends on the Go version.
        reason: u8,
    },
}

/// A live goroutine. Its nanoseconds add up what has ended before `since`; [`Goroutine::at`] adds what goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// Its id.
    pub goid: Goid,
    /// The goroutine that ran its `go` statement; 0 where there was none or it is not known.
    pub parent: Goid,
    /// Where it was created and what it runs.
    pub site: SiteId,
    /// What it does.
    pub state: State,
    /// When it came into that state.
    pub since: MonotonicNs,
    /// `since` is not the time of an event: it was in that state then, perhaps before.
    pub since_estimated: bool,
    /// When it was created, or when it is first known to have lived if `first_seen`.
    pub created: MonotonicNs,
    /// It was there before we saw it: `created`, the times and the parks say nothing of its life before.
    pub first_seen: bool,
    /// A step of its history is missing (lost events, or a state known from a snapshot alone): times are estimates.
    pub estimated: bool,
    /// The newest event about it; `None` if a snapshot is all we have.
    pub last_event: Option<MonotonicNs>,
    /// Nanoseconds in [`State::Running`].
    pub running_ns: u64,
    /// Nanoseconds in [`State::Blocked`].
    pub blocked_ns: u64,
    /// Nanoseconds from creation to its first run.
    pub runnable_ns: u64,
    /// The longest block, in nanoseconds.
    pub longest_block_ns: u64,
    /// How often it parked.
    pub parks: u64,
}

impl Goroutine {
    /// The same with the time from `since` to `now` counted in.
    #[must_use]
    pub fn at(mut self, now: MonotonicNs) -> Self {
        let ns = now.since(self.since);
        match self.state {
            State::Runnable => self.runnable_ns = self.runnable_ns.saturating_add(ns),
            State::Running => self.running_ns = self.running_ns.saturating_add(ns),
            State::Blocked { .. } => {
                self.blocked_ns = self.blocked_ns.saturating_add(ns);
                self.longest_block_ns = self.longest_block_ns.max(ns);
            }
        }
        self
    }
}

/// How a goroutine's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It was seen to exit.
    Exited,
    /// It is gone, and its exit was lost.
    Unseen,
    /// The process replaced its program.
    Exec,
}

/// A life that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When; for [`End::Unseen`], when that was found out.
    pub time: MonotonicNs,
    /// How.
    pub end: End,
    /// Its last figures. After [`End::Exited`] they include its last interval; otherwise that is not known to have
    /// lasted to `time` and is left out.
    pub goroutine: Goroutine,
}

impl Ended {
    /// Nanoseconds from creation to end; `None` unless both were seen.
    #[must_use]
    pub fn lifetime_ns(&self) -> Option<u64> {
        (self.end == End::Exited && !self.goroutine.first_seen).then(|| self.time.since(self.goroutine.created))
    }
}

/// A goroutine as read from the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotGoroutine {
    /// `g.goid`.
    pub goid: Goid,
    /// `g.parentGoid`; 0 where there is none or the Go version does not say.
    pub parent: Goid,
    /// `g.gopc`.
    pub gopc: RemoteAddr,
    /// `g.startpc`.
    pub startpc: RemoteAddr,
    /// From `g.atomicstatus` and `g.waitreason`; a goroutine in a system call is [`State::Running`].
    pub state: State,
    /// Since when, if the runtime knows (`g.waitsince`, on our clock): it was so then, perhaps before.
    pub since: Option<MonotonicNs>,
}

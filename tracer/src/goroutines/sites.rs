//! Creation sites and what their goroutines did.
//!
//! In: (gopc, startpc) pairs and counts. Out: a small id for each pair and its figures. Knows nothing of symbols: the
//! names and lines behind the addresses are found at output.

use hashbrown::HashMap;

use super::histogram::Log2Histogram;
use super::view::State;
use crate::units::RemoteAddr;

/// A creation site of one table: an index into [`GoroutineTable::sites`](super::GoroutineTable::sites). Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u32);

impl SiteId {
    /// The site of goroutines whose creation was not seen and that no snapshot has named, and of all that came after
    /// the limit on sites was reached.
    pub const UNKNOWN: Self = Self(0);
}

/// Live goroutines by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveByState {
    /// Not run yet.
    pub runnable: u64,
    /// Running, in a system call, or preempted.
    pub running: u64,
    /// Parked, or woken and waiting for a thread.
    pub blocked: u64,
}

impl LiveByState {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.runnable + self.running + self.blocked
    }

    pub(super) fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Runnable => &mut self.runnable,
            State::Running => &mut self.running,
            State::Blocked { .. } => &mut self.blocked,
        }
    }
}

/// A `go` statement with the function it starts, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `g.gopc`: just behind the `go` statement's call. 0 for [`SiteId::UNKNOWN`].
    pub gopc: RemoteAddr,
    /// `g.startpc`: the function that runs. 0 for [`SiteId::UNKNOWN`].
    pub startpc: RemoteAddr,
    /// Which program of the process the addresses belong to: 0 at first, one more with each `execve`.
    pub generation: u32,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines first seen after their creation.
    pub first_seen: u64,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Goroutines found gone by a snapshot, their end lost.
    pub ended_unseen: u64,
    /// Goroutines that ended when the process replaced its program.
    pub ended_by_exec: u64,
    /// Goroutines that were created beside those in [`Self::created`], as estimated from a sample.
    pub created_estimated: u64,
    /// Goroutines that ended beside those in [`Self::exited`], as estimated from a sample.
    pub exited_estimated: u64,
    /// Live goroutines.
    pub live: LiveByState,
    /// Times that a goroutine of this site parked.
    pub blocked_events: u64,
    /// Nanoseconds its goroutines were blocked, blocks that have ended only.
    pub blocked_ns: u64,
    /// How long its goroutines were blocked each time, blocks seen at both begin and end.
    pub blocks: Log2Histogram,
    /// Lifetimes in nanoseconds of goroutines seen at both creation and end.
    pub lifetimes: Log2Histogram,
}

impl Site {
    fn new(gopc: RemoteAddr, startpc: RemoteAddr, generation: u32) -> Self {
        Self {
            gopc,
            startpc,
            generation,
            created: 0,
            first_seen: 0,
            exited: 0,
            ended_unseen: 0,
            ended_by_exec: 0,
            created_estimated: 0,
            exited_estimated: 0,
            live: LiveByState::default(),
            blocked_events: 0,
            blocked_ns: 0,
            blocks: Log2Histogram::default(),
            lifetimes: Log2Histogram::default(),
        }
    }
}

/// All sites of a table.
#[derive(Debug)]
pub(super) struct Sites {
    sites: Vec<Site>,
    ids: HashMap<(RemoteAddr, RemoteAddr), SiteId>,
    limit: usize,
    generation: u32,
}

impl Sites {
    /// At most `limit` sites beside the unknown one.
    pub(super) fn new(limit: u32) -> Self {
        let unknown = Site::new(RemoteAddr(0), RemoteAddr(0), 0);
        Self { sites: vec![unknown], ids: HashMap::new(), limit: limit as usize, generation: 0 }
    }

    pub(super) fn intern(&mut self, gopc: RemoteAddr, startpc: RemoteAddr) -> SiteId {
        // The main goroutine has no gopc; the two together say "nothing known".
        if (gopc.0, startpc.0) == (0, 0) {
            return SiteId::UNKNOWN;
        }
        if let Some(&id) = self.ids.get(&(gopc, startpc)) {
            return id;
        }
        if self.sites.len() > self.limit {
            return SiteId::UNKNOWN;
        }
        let id = SiteId(self.sites.len() as u32);
        self.sites.push(Site::new(gopc, startpc, self.generation));
        self.ids.insert((gopc, startpc), id);
        id
    }

    /// The addresses of another program begin.
    pub(super) fn next_generation(&mut self, generation: u32) {
        self.generation = generation;
        self.ids.clear();
    }

    pub(super) fn all(&self) -> &[Site] {
        &self.sites
    }

    pub(super) fn at(&mut self, id: SiteId) -> &mut Site {
        &mut self.sites[id.0 as usize]
    }
}

//! What the kernel keeps, into the table: the figures that events would have given.
//!
//! While the kernel keeps states, births and ends are events as ever. What lies between comes in
//! [`Reading`]s: what each goroutine did since the epoch began, and what was blocked by site and by reason, of goroutines
//! that have ended meanwhile as well. So sites, reasons and totals are as exact as with events; a goroutine's own figures
//! are those of the last reading, and of one that has ended they lack what came after it.
//!
//! Where states are kept in slices of the time, a reading stands for the time since the slice before: counts are
//! multiplied, and the time in which nobody looked is taken to have been spent like the slice. All that says so:
//! goroutines are `estimated`.

use hashbrown::HashMap;

use super::index::Slot;
use super::slab::{GAP, SINCE_ESTIMATED};
use super::table::GoroutineTable;
use super::view::State;
use crate::events::{Blocks, Kept, KeptState, Reading};
use crate::units::{Goid, MonotonicNs};

/// What tells the table what goroutines do between birth and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatesFrom {
    /// Each transition is an event.
    #[default]
    Events,
    /// What the kernel keeps.
    Kept,
    /// Snapshots alone.
    Snapshots,
}

/// What time a reading stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window {
    /// All of it since the epoch began.
    Whole,
    /// A slice that began at `from`: the epoch is the slice.
    Slice {
        /// When the slice began.
        from: MonotonicNs,
        /// The time that it stands for, divided by its own length: 1 or more.
        scale: f64,
    },
}

impl Window {
    fn scale(self, count: u64) -> u64 {
        match self {
            Self::Whole => count,
            Self::Slice { scale, .. } => (count as f64 * scale).round() as u64,
        }
    }
}

/// What of an epoch is in a goroutine's figures already.
#[derive(Clone, Copy, Debug)]
struct Taken {
    since: MonotonicNs,
    parks: u64,
    blocked_ns: u64,
}

/// From when on one goroutine in how many is among the events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    from: MonotonicNs,
    one_in: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { from: MonotonicNs(0), one_in: 1 }
    }
}

/// The epoch, by goroutine.
#[derive(Debug, Default)]
pub(super) struct Epoch(HashMap<Goid, Taken>);

impl From<KeptState> for State {
    fn from(state: KeptState) -> Self {
        match state {
            KeptState::Runnable => Self::Runnable,
            KeptState::Running => Self::Running,
            KeptState::Blocked { reason } => Self::Blocked { reason },
        }
    }
}

impl GoroutineTable {
    /// From here on, this tells of states.
    pub fn take_states_from(&mut self, states: StatesFrom) {
        self.states = states;
    }

    /// From the moment `from` on, births and ends are events of one goroutine in `one_in` alone: each stands for so many at
    /// its site. The others are to be told by [`Self::count_left_out`].
    pub fn sample(&mut self, from: MonotonicNs, one_in: u32) {
        // Of events still on their way, some are older than the last change, but for none older than the one before.
        let before = self.sampling.1;
        self.sampling = (before, Sampling { from, one_in: one_in.max(1) });
    }

    /// Births and ends that were no events, because their goroutines were left out of a sample.
    pub fn count_left_out(&mut self, created: u64, exited: u64) {
        self.totals.created += created;
        self.totals.created_left_out += created;
        self.totals.exited += exited;
        self.totals.exited_left_out += exited;
    }

    /// How many more an event of a birth or end at `time` stands for.
    pub(super) fn stands_for_more(&self, time: MonotonicNs) -> u64 {
        let (before, last) = self.sampling;
        u64::from(if time >= last.from { last.one_in } else { before.one_in }) - 1
    }

    /// A new epoch of the kernel's records begins: each starts from nothing.
    pub fn begin_epoch(&mut self) {
        self.epoch = Epoch::default();
    }

    /// Takes in what the kernel has kept. Goroutines that the table does not have (their birth is still on its way, they
    /// have ended, or were never read) are passed over; a later reading has all that this one had.
    pub fn apply_kept(&mut self, reading: &Reading, window: Window) {
        let mut epoch = HashMap::with_capacity(reading.goroutines.len());
        for kept in &reading.goroutines {
            let Some(slot) = self.find(kept.goid) else { continue };
            let taken = match window {
                Window::Whole => self.take_whole(slot, kept),
                Window::Slice { from, .. } => self.take_slice(slot, kept, from, window),
            };
            if let Some(taken) = taken {
                epoch.insert(kept.goid, taken);
            }
        }
        self.epoch = Epoch(epoch);
        for (gopc, startpc, blocks) in &reading.sites {
            let site = self.sites.intern(*gopc, *startpc);
            let site = self.sites.at(site);
            site.blocked_events = site.blocked_events.saturating_add(window.scale(blocks.parks));
            site.blocked_ns = site.blocked_ns.saturating_add(window.scale(blocks.blocked_ns));
            each_bucket(blocks, window, |bucket, count| site.blocks.add_many(bucket, count));
        }
        for (reason, blocks) in &reading.reasons {
            let stats = self.reasons.at(*reason);
            stats.parks = stats.parks.saturating_add(window.scale(blocks.parks));
            stats.blocked_ns = stats.blocked_ns.saturating_add(window.scale(blocks.blocked_ns));
            each_bucket(blocks, window, |bucket, count| stats.blocks.add_many(bucket, count));
        }
    }

    /// Counts transitions that were no events.
    pub fn count_transitions(&mut self, blocked: u64, running: u64, window: Window) {
        self.totals.blocked = self.totals.blocked.saturating_add(window.scale(blocked));
        self.totals.running = self.totals.running.saturating_add(window.scale(running));
    }

    fn take_whole(&mut self, slot: Slot, kept: &Kept) -> Option<Taken> {
        let taken = match self.epoch.0.get(&kept.goid) {
            Some(taken) => *taken,
            None => {
                let first = kept.first?;
                // What it was in when the epoch began ended then.
                self.close_interval(slot, first, self.slab.hot(slot).state != State::Running);
                Taken { since: first, parks: 0, blocked_ns: 0 }
            }
        };
        let blocked = kept.blocked_ns.saturating_sub(taken.blocked_ns);
        let hot = self.slab.hot_mut(slot);
        hot.blocked_ns = hot.blocked_ns.saturating_add(blocked);
        hot.running_ns = hot.running_ns.saturating_add(kept.since.since(taken.since).saturating_sub(blocked));
        hot.parks = hot.parks.saturating_add(kept.parks.saturating_sub(taken.parks));
        self.come_to(slot, kept);
        Some(Taken { since: kept.since, parks: kept.parks, blocked_ns: kept.blocked_ns })
    }

    /// A slice is read once, so nothing of it is in the figures yet.
    fn take_slice(&mut self, slot: Slot, kept: &Kept, from: MonotonicNs, window: Window) -> Option<Taken> {
        let first = kept.first?;
        let was_runnable = self.slab.hot(slot).state == State::Runnable;
        let before = self.slab.hot(slot).since;
        let seen_from = before.max(from);
        let until_first = first.since(seen_from);
        let in_state_before = if kept.first_ran { until_first } else { 0 };
        let (mut blocked, mut runnable) = (kept.blocked_ns, 0);
        if was_runnable && before >= from {
            runnable = in_state_before;
        } else {
            blocked = blocked.saturating_add(in_state_before);
        }
        let seen = kept.since.since(seen_from);
        let unseen = from.since(before);
        // Nobody looked from `before` to `from`: taken to have been like the slice.
        let share = if seen == 0 { 0.0 } else { (blocked as f64 / seen as f64).clamp(0.0, 1.0) };
        let unseen_blocked = (unseen as f64 * share) as u64;
        let running = seen.saturating_sub(blocked).saturating_sub(runnable);
        let cold = self.slab.cold_mut(slot);
        cold.runnable_ns = cold.runnable_ns.saturating_add(runnable);
        let hot = self.slab.hot_mut(slot);
        hot.blocked_ns = hot.blocked_ns.saturating_add(blocked).saturating_add(unseen_blocked);
        hot.running_ns = hot.running_ns.saturating_add(running).saturating_add(unseen - unseen_blocked);
        hot.parks = hot.parks.saturating_add(window.scale(kept.parks));
        hot.flags |= GAP;
        self.come_to(slot, kept);
        None
    }

    fn come_to(&mut self, slot: Slot, kept: &Kept) {
        let hot = self.slab.hot_mut(slot);
        hot.longest_block_ns = hot.longest_block_ns.max(kept.longest_block_ns);
        hot.since = kept.since;
        hot.flags &= !SINCE_ESTIMATED;
        hot.last_event = hot.last_event.max(kept.since);
        self.set_state(slot, kept.state.into());
    }
}

fn each_bucket(blocks: &Blocks, window: Window, mut add: impl FnMut(usize, u64)) {
    for (bucket, count) in blocks.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        add(bucket, window.scale(*count));
    }
}

//! A snapshot into the table. The cases are in the [module](super)'s table; the order of calls too.

use hashbrown::{HashMap, HashSet};

use super::index::Slot;
use super::sites::SiteId;
use super::slab::{Cold, FIRST_SEEN, GAP, Hot, IN_SNAPSHOT, LIVE, SINCE_ESTIMATED};
use super::table::GoroutineTable;
use super::view::{End, Ended, SnapshotGoroutine, State};
use crate::units::{Goid, MonotonicNs};

/// How long after a merge, in event time, an event can still bring back what the merge removed.
const PUT_BACK_NS: u64 = 1_000_000_000;

/// How much of the target's goroutines a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every goroutine that lived from begin to end of the reading: who is not in it is gone.
    Whole,
    /// Some: nothing follows from absence, and nothing is repaired.
    Part,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Goroutines that the table did not have.
    pub added: u64,
    /// Goroutines whose creation site became known.
    pub named: u64,
    /// Goroutines whose state was the snapshot's.
    pub corrected: u64,
    /// Goroutines that are gone, their end lost.
    pub ended_unseen: u64,
}

/// Why a snapshot was not merged. The table is as it was; take another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeRefused {
    /// No `begin_snapshot` came before: exits during the reading are not known.
    #[error("the snapshot was not announced with begin_snapshot")]
    NotBegun,
    /// The reading began before `begin_snapshot`, or ended before it began.
    #[error("the snapshot's times do not follow its begin")]
    Times,
    /// The process replaced its program after `begin_snapshot`.
    #[error("the process replaced its program while the snapshot was read")]
    Exec,
    /// More goroutines ended during the reading than are remembered.
    #[error("too many goroutines ended while the snapshot was read")]
    TooManyExits,
}

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    begun: MonotonicNs,
    exited: HashSet<Goid>,
    spoilt: Option<MergeRefused>,
}

/// Goroutines that the last merge removed.
#[derive(Debug, Default)]
pub(super) struct Removed {
    records: HashMap<Goid, (Hot, Cold)>,
    until: MonotonicNs,
}

impl GoroutineTable {
    /// From here until the merge, exits are remembered. Call it after the probes are attached and, with `now`, some
    /// milliseconds before the first read. A snapshot begun earlier and not merged is forgotten.
    pub fn begin_snapshot(&mut self, now: MonotonicNs) {
        self.reading = Some(Reading { begun: now, exited: HashSet::new(), spoilt: None });
        self.removed = Removed::default();
    }

    /// When the reading began that is to be merged next, if one did.
    #[must_use]
    pub fn snapshot_begun(&self) -> Option<MonotonicNs> {
        self.reading.as_ref().map(|reading| reading.begun)
    }

    /// Merges goroutines read between `taken_from` and `taken_to`. Call it when a drain that began after `taken_to`
    /// has been applied.
    ///
    /// # Errors
    /// [`MergeRefused`]; the table is unchanged, and the snapshot's begin is used up.
    pub fn merge_snapshot(
        &mut self,
        taken_from: MonotonicNs,
        taken_to: MonotonicNs,
        goroutines: &[SnapshotGoroutine],
        coverage: Coverage,
    ) -> Result<MergeReport, MergeRefused> {
        self.merge_snapshot_with(taken_from, taken_to, goroutines, coverage, |_| {})
    }

    /// As [`GoroutineTable::merge_snapshot`], and hands each goroutine found gone to `on_end`.
    ///
    /// # Errors
    /// As [`GoroutineTable::merge_snapshot`].
    pub fn merge_snapshot_with(
        &mut self,
        taken_from: MonotonicNs,
        taken_to: MonotonicNs,
        goroutines: &[SnapshotGoroutine],
        coverage: Coverage,
        on_end: impl FnMut(&Ended),
    ) -> Result<MergeReport, MergeRefused> {
        let reading = self.reading.take().ok_or(MergeRefused::NotBegun)?;
        if let Some(why) = reading.spoilt {
            return Err(why);
        }
        if taken_from < reading.begun || taken_to < taken_from {
            return Err(MergeRefused::Times);
        }
        let mut report = MergeReport::default();
        for read in goroutines {
            // A hostile `since` may lie in the future.
            let since = read.since.map_or(taken_from, |since| since.min(taken_to));
            match self.find(read.goid) {
                Some(slot) => self.merge_known(slot, read, since, reading.begun, &mut report),
                None if reading.exited.contains(&read.goid) => {}
                None if self.is_full() => self.totals.refused += 1,
                None => self.merge_unknown(read, since, taken_from, &mut report),
            }
        }
        if coverage == Coverage::Whole {
            self.remove_absent(taken_from, taken_to, &mut report, on_end);
            self.repair(reading.begun);
        }
        for slot in 0..self.slab.end() {
            self.slab.hot_mut(slot).flags &= !IN_SNAPSHOT;
        }
        Ok(report)
    }

    fn merge_unknown(
        &mut self,
        read: &SnapshotGoroutine,
        since: MonotonicNs,
        taken_from: MonotonicNs,
        report: &mut MergeReport,
    ) {
        let site = self.sites.intern(read.gopc, read.startpc);
        let flags = FIRST_SEEN | SINCE_ESTIMATED | IN_SNAPSHOT;
        let hot = Hot::new(read.goid, site, read.state, since, flags);
        self.add(hot, Cold { parent: read.parent, created: since.min(taken_from), runnable_ns: 0 });
        report.added += 1;
    }

    fn merge_known(
        &mut self,
        slot: Slot,
        read: &SnapshotGoroutine,
        since: MonotonicNs,
        begun: MonotonicNs,
        report: &mut MergeReport,
    ) {
        let hot = self.slab.hot_mut(slot);
        hot.flags |= IN_SNAPSHOT;
        let (site, state, last_event, at) = (hot.site, hot.state, hot.last_event, since.max(hot.since));
        if site == SiteId::UNKNOWN {
            let site = self.sites.intern(read.gopc, read.startpc);
            self.move_to_site(slot, site);
            let parent = &mut self.slab.cold_mut(slot).parent;
            if parent.0 == 0 {
                *parent = read.parent;
            }
            report.named += u64::from(site != SiteId::UNKNOWN);
        }
        if last_event >= begun || read.state == State::Runnable || read.state == state {
            return;
        }
        // When it changed is not known; `at` is when it is first known to have been so.
        self.close_interval(slot, at, false);
        self.set_state(slot, read.state);
        let hot = self.slab.hot_mut(slot);
        hot.since = at;
        hot.flags |= SINCE_ESTIMATED | GAP;
        report.corrected += 1;
    }

    fn remove_absent(
        &mut self,
        taken_from: MonotonicNs,
        taken_to: MonotonicNs,
        report: &mut MergeReport,
        mut on_end: impl FnMut(&Ended),
    ) {
        self.removed = Removed { records: HashMap::new(), until: MonotonicNs(taken_to.0.saturating_add(PUT_BACK_NS)) };
        for slot in 0..self.slab.end() {
            let hot = self.slab.hot(slot);
            if hot.flags & (LIVE | IN_SNAPSHOT) == LIVE && hot.last_event < taken_from {
                self.removed.records.insert(hot.goid, (hot.clone(), self.slab.cold(slot).clone()));
                self.end(slot, End::Unseen, taken_to, &mut on_end);
                report.ended_unseen += 1;
            }
        }
    }

    /// All that was lost before `begun` is made up for. The bound is not the time of the first read: an event between
    /// the two keeps its state, which a loss noticed only then may have made stale.
    fn repair(&mut self, begun: MonotonicNs) {
        self.losses.repaired = self.losses.repaired.max(begun);
        if self.losses.newest <= begun {
            self.losses.uncertain_since = None;
        } else if let Some(since) = &mut self.losses.uncertain_since {
            *since = begun.max(*since);
        }
    }

    /// An event about a goroutine that the last merge removed: it was there after all.
    pub(super) fn put_back(&mut self, time: MonotonicNs, goid: Goid) -> Option<Slot> {
        if self.removed.records.is_empty() || self.is_full() {
            return None;
        }
        if time > self.removed.until {
            self.removed = Removed::default();
            return None;
        }
        let (hot, cold) = self.removed.records.remove(&goid)?;
        self.totals.ended_unseen -= 1;
        self.sites.at(hot.site).ended_unseen -= 1;
        Some(self.place(hot, cold))
    }

    pub(super) fn remember_exit(&mut self, goid: Goid) {
        if let Some(reading) = &mut self.reading {
            if reading.spoilt.is_some() {
                return;
            }
            reading.exited.insert(goid);
            if reading.exited.len() > self.limits.exits_while_read as usize {
                reading.spoilt = Some(MergeRefused::TooManyExits);
                reading.exited = HashSet::new();
            }
        }
    }

    /// The program was replaced at `time`: a snapshot begun before may hold the old one's goroutines.
    pub(super) fn forget_reading_before(&mut self, time: MonotonicNs) {
        self.removed = Removed::default();
        if let Some(reading) = &mut self.reading {
            reading.exited = HashSet::new();
            if reading.begun <= time {
                reading.spoilt = Some(MergeRefused::Exec);
            }
        }
    }
}

//! Where the records of live goroutines lie.
//!
//! In and out: records by slot number. Knows nothing of events.
//!
//! A record is split: 64 bytes that events touch, on a cache line of their own, and 24 bytes that only creation and
//! output touch. Both lie in chunks, so growth never copies and never holds twice the memory; freed slots are reused,
//! last freed first. Chunks are kept until the table is reset.

use super::index::Slot;
use super::sites::SiteId;
use super::view::State;
use crate::units::{Goid, MonotonicNs};

/// Slots in a chunk: 44 KiB, so that a process with few goroutines costs little.
const CHUNK: usize = 512;

/// What events touch.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Hot {
    /// The goid; in a free slot, the number of the next free one.
    pub goid: Goid,
    pub since: MonotonicNs,
    /// Time of the newest event; 0 if there was none and all we know is a snapshot's.
    pub last_event: MonotonicNs,
    pub running_ns: u64,
    pub blocked_ns: u64,
    pub longest_block_ns: u64,
    pub parks: u64,
    pub site: SiteId,
    pub state: State,
    pub flags: u8,
}

/// What only creation, the first run and output touch.
#[derive(Clone, Debug)]
pub(super) struct Cold {
    pub parent: Goid,
    pub created: MonotonicNs,
    pub runnable_ns: u64,
}

/// The slot holds a goroutine.
pub(super) const LIVE: u8 = 1;
/// The goroutine was there before its first event or snapshot: `created` is when it was first seen.
pub(super) const FIRST_SEEN: u8 = 2;
/// `since` was not given by an event.
pub(super) const SINCE_ESTIMATED: u8 = 4;
/// A step is missing in its history: its times are estimates.
pub(super) const GAP: u8 = 8;
/// It is in the snapshot that is being merged.
pub(super) const IN_SNAPSHOT: u8 = 16;

const _: () = assert!(size_of::<Hot>() == 64 && size_of::<Cold>() == 24);

const NO_SLOT: u64 = u64::MAX;

impl Hot {
    /// A goroutine that has done nothing yet.
    pub(super) const fn new(goid: Goid, site: SiteId, state: State, since: MonotonicNs, flags: u8) -> Self {
        Self {
            goid,
            since,
            last_event: MonotonicNs(0),
            running_ns: 0,
            blocked_ns: 0,
            longest_block_ns: 0,
            parks: 0,
            site,
            state,
            flags,
        }
    }
}

const EMPTY_HOT: Hot = Hot::new(Goid(NO_SLOT), SiteId::UNKNOWN, State::Runnable, MonotonicNs(0), 0);

const EMPTY_COLD: Cold = Cold { parent: Goid(0), created: MonotonicNs(0), runnable_ns: 0 };

/// Records by slot number.
#[derive(Debug)]
pub(super) struct Slab {
    hot: Vec<Box<[Hot]>>,
    cold: Vec<Box<[Cold]>>,
    /// Slots that have ever been used: those from here on are free too, but not in the chain.
    touched: usize,
    /// First of the chain of free slots.
    free: u64,
    live: usize,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self { hot: Vec::new(), cold: Vec::new(), touched: 0, free: NO_SLOT, live: 0 }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn insert(&mut self, hot: Hot, cold: Cold) -> Slot {
        let at = if self.free == NO_SLOT {
            if self.touched == self.hot.len() * CHUNK {
                self.hot.push(vec![EMPTY_HOT; CHUNK].into());
                self.cold.push(vec![EMPTY_COLD; CHUNK].into());
            }
            self.touched += 1;
            self.touched - 1
        } else {
            self.free as usize
        };
        let place = &mut self.hot[at / CHUNK][at % CHUNK];
        if self.free != NO_SLOT {
            self.free = place.goid.0;
        }
        *place = Hot { flags: hot.flags | LIVE, ..hot };
        self.cold[at / CHUNK][at % CHUNK] = cold;
        self.live += 1;
        // The table's limit on live goroutines keeps slots far below u32::MAX.
        at as Slot
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let next = Goid(self.free);
        *self.hot_mut(slot) = Hot { goid: next, ..EMPTY_HOT };
        self.free = u64::from(slot);
        self.live -= 1;
    }

    pub(super) fn hot(&self, slot: Slot) -> &Hot {
        &self.hot[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    pub(super) fn hot_mut(&mut self, slot: Slot) -> &mut Hot {
        &mut self.hot[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    pub(super) fn cold(&self, slot: Slot) -> &Cold {
        &self.cold[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    pub(super) fn cold_mut(&mut self, slot: Slot) -> &mut Cold {
        &mut self.cold[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    pub(super) fn is_live(&self, slot: Slot) -> bool {
        self.hot(slot).flags & LIVE != 0
    }

    /// Slots that hold a goroutine, in slot order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.end()).filter(|&slot| self.is_live(slot))
    }

    /// One past the highest slot ever used.
    pub(super) fn end(&self) -> Slot {
        self.touched as Slot
    }

    /// Brings in what events touch, ahead of a change; `whole`: the rest as well.
    pub(super) fn prefetch(&self, slot: Slot, whole: bool) {
        prefetch(self.hot(slot));
        if whole {
            prefetch(self.cold(slot));
        }
    }
}

/// Asks for `what`'s cache line. A hint: nothing depends on it.
pub(super) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing into the program and faults on nothing; SSE is part of x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast());
    }
    // Elsewhere the intrinsic is not stable yet; aarch64 cores overlap the misses of neighbouring events by themselves.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn add(slab: &mut Slab, goid: u64) -> Slot {
        slab.insert(Hot::new(Goid(goid), SiteId::UNKNOWN, State::Running, MonotonicNs(0), 0), EMPTY_COLD)
    }

    #[test]
    fn every_freed_slot_is_used_again_before_a_new_one() {
        let mut slab = Slab::new();
        let slots: Vec<_> = (0..2000).map(|goid| add(&mut slab, goid)).collect();
        let freed: BTreeSet<_> = slots.iter().copied().filter(|slot| slot % 3 == 0).collect();
        freed.iter().for_each(|&slot| slab.remove(slot));
        assert_eq!((slab.live(), slab.slots().count()), (2000 - freed.len(), 2000 - freed.len()));
        let again: BTreeSet<_> = (0..freed.len()).map(|n| add(&mut slab, 5000 + n as u64)).collect();
        assert_eq!(again, freed);
        assert_eq!((slab.end(), slab.live()), (2000, 2000));
        assert_eq!(add(&mut slab, 9000), 2000);
    }
}

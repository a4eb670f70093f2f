//! Which slot holds a goid.
//!
//! In: goids. Out: slot numbers; the slots themselves are asked through a closure. Knows nothing of what they hold.
//!
//! Open addressing with linear probing: 8 bytes an entry (32 bits of hash, slot number), at most 3/4 full. Against
//! `hashbrown::HashTable<u32>` it spends one cache miss a look-up where that spends two (control bytes and bucket
//! apart), leaves no tombstones (removal shifts back what follows), and grows without reading the slots, as the stored
//! 32 bits of hash are all that the place depends on: 1,000,000 goroutines would be as many cache misses there.
//!
//! A hostile target can choose its goids. The hash is a folded multiplication with keys drawn at random for each
//! table, so it cannot aim at long probe sequences from outside; were the keys known, look-ups would be slow, not
//! wrong, and memory would not grow.

use std::hash::{BuildHasher, RandomState};

use crate::units::Goid;

/// A slot of the slab.
pub(super) type Slot = u32;

const FIRST_SIZE: usize = 64;

/// Goid to slot.
#[derive(Debug)]
pub(super) struct GoidIndex {
    /// `hash << 32 | slot + 1`; 0 is empty. A power of two long.
    entries: Box<[u64]>,
    used: usize,
    key: u64,
    factor: u64,
}

impl GoidIndex {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // An even factor would lose the lowest bits of the goid.
        let (key, factor) = (random.hash_one(0u8), random.hash_one(1u8) | 1);
        Self { entries: vec![0; FIRST_SIZE].into(), used: 0, key, factor }
    }

    pub(super) fn hash(&self, goid: Goid) -> u32 {
        let product = u128::from(goid.0 ^ self.key) * u128::from(self.factor);
        let folded = (product >> 64) as u64 ^ product as u64;
        (folded >> 32) as u32 ^ folded as u32
    }

    /// The slot with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let mut at = self.home(hash);
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            if entry >> 32 == u64::from(hash) {
                let slot = entry as u32 - 1;
                if is_it(slot) {
                    return Some(slot);
                }
            }
            at = self.after(at);
        }
    }

    /// Adds a slot that is not in the index. `slot` must be below `u32::MAX`.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.used += 1;
        self.put(u64::from(hash) << 32 | u64::from(slot + 1));
    }

    /// Takes a slot out, if it is in.
    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let wanted = u64::from(hash) << 32 | u64::from(slot + 1);
        let mut hole = self.home(hash);
        while self.entries[hole] != wanted {
            if self.entries[hole] == 0 {
                return;
            }
            hole = self.after(hole);
        }
        self.used -= 1;
        // Close the gap: an entry further on may move back unless its home lies behind the hole.
        let mut at = hole;
        loop {
            at = self.after(at);
            let entry = self.entries[at];
            if entry == 0 {
                break;
            }
            let mask = self.entries.len() - 1;
            let from_home = at.wrapping_sub(self.home((entry >> 32) as u32)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = 0;
    }

    /// Brings the entry's cache line in, ahead of a look-up.
    pub(super) fn prefetch(&self, hash: u32) {
        super::slab::prefetch(&self.entries[self.home(hash)]);
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }

    fn put(&mut self, entry: u64) {
        let mut at = self.home((entry >> 32) as u32);
        while self.entries[at] != 0 {
            at = self.after(at);
        }
        self.entries[at] = entry;
    }

    fn grow(&mut self) {
        let size = self.entries.len() * 2;
        let old = std::mem::replace(&mut self.entries, vec![0; size].into());
        for &entry in old.iter().filter(|&&entry| entry != 0) {
            self.put(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequential_goids_probe_a_few_entries_at_most() {
        let mut index = GoidIndex::new();
        let count = 700_000u32;
        for n in 0..count {
            let hash = index.hash(Goid(u64::from(n) * 16));
            index.insert(hash, n);
        }
        let mut steps = 0u64;
        for n in 0..count {
            let hash = index.hash(Goid(u64::from(n) * 16));
            let mut at = index.home(hash);
            while index.entries[at] as u32 != n + 1 {
                at = index.after(at);
                steps += 1;
            }
        }
        // At 2/3 full, theory says one extra step on average.
        assert!(steps < 2 * u64::from(count), "{steps} extra steps for {count} goids");
    }

    proptest! {
        /// With hashes from a handful of values, clusters wrap and merge: removal must not break a chain.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..200), 1..600)) {
            let mut index = GoidIndex::new();
            let hash = |slot: u32| (slot % 7) * 13 + 50;
            let mut model = BTreeMap::new();
            for (add, slot) in steps {
                if add {
                    if model.insert(slot, ()).is_none() {
                        index.insert(hash(slot), slot);
                    }
                } else {
                    model.remove(&slot);
                    index.remove(hash(slot), slot);
                }
                prop_assert_eq!(index.used, model.len());
            }
            for slot in 0..200 {
                let found = index.find(hash(slot), |other| other == slot);
                prop_assert_eq!(found.is_some(), model.contains_key(&slot));
            }
        }
    }
}

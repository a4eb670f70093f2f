//! Time blocked, by stack and reason.
//!
//! In: the steps of a [`replay`](super::replay). Out: blocks with where their goroutine stood. An event has no stack; stacks
//! are known from readings of all goroutines, so how well a block's is known differs, and is said ([`Known`]):
//!
//! - a reading fell into the block itself: that is its stack;
//! - a reading caught the same goroutine waiting for the same reason at another time: that stack is taken;
//! - no reading did: the creation site, the start function and the reason are what is known.
//!
//! Only what lies within the recording counts, blocks that have not ended by its end included.

use hashbrown::HashMap;

use super::replay::State;
use super::{Reading, StackNumber};
use crate::events::{Event, Transition};
use crate::goroutines::{self, Ended, Goroutine, SiteId};
use crate::units::{Goid, MonotonicNs};

/// How a block's stack is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Known {
    /// It was read during the block.
    Seen,
    /// It was read when the same goroutine waited for the same reason, at another time.
    SameGoroutine,
    /// It is not known.
    No,
}

/// Where a goroutine waits, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The program that the site and the reason belong to.
    pub generation: u32,
    /// Who created it, where; as the table numbers sites.
    pub site: SiteId,
    /// The stack, if it is known.
    pub stack: Option<StackNumber>,
    /// How it is known.
    pub known: Known,
    /// The reason.
    pub reason: u8,
}

/// What waited at a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Blocks, those that go on at the end included.
    pub blocks: u64,
    /// Nanoseconds blocked in the time of the recording.
    pub ns: u64,
    /// Goroutines that wait there at the end.
    pub waiting: u64,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The goroutine.
    pub goid: Goid,
    /// Where it waited, as far as that is known; a better answer may come later.
    pub place: Place,
    /// When it began, within the recording.
    pub from: MonotonicNs,
    /// Nanoseconds.
    pub ns: u64,
    /// It goes on at the end.
    pub goes_on: bool,
}

/// So many blocks are kept of the longest.
const LONGEST: usize = 100;

/// What is known of one live goroutine.
#[derive(Debug, Default)]
struct Life {
    /// A stack read, and since when the block lasted in which it was read.
    seen: Option<(MonotonicNs, StackNumber)>,
    /// The newest stack for each reason.
    stacks: Vec<(u8, StackNumber)>,
    /// Blocks that wait for a stack to be known.
    pending: Vec<(u8, Waited)>,
}

/// Gathers blocks.
#[derive(Debug, Default)]
pub struct Waits {
    lives: HashMap<Goid, Life>,
    places: HashMap<Place, Waited>,
    longest: Vec<Block>,
    /// No block that is shorter gets among the longest any more.
    least: u64,
}

impl Waits {
    /// An event is about to change its goroutine from `before`: see [`Visitor::event`](super::replay::Visitor::event).
    pub fn event(&mut self, event: &Event, before: Option<&Goroutine>, state: &State) {
        let Event::Goroutine { time, transition, .. } = event else { return };
        if let Some(goroutine) = before
            && let goroutines::State::Blocked { reason } = goroutine.state
            && !matches!(transition, Transition::Created { .. })
        {
            self.end_block(goroutine, reason, *time, state.started, state.table.generation());
        }
    }

    fn end_block(
        &mut self,
        goroutine: &Goroutine,
        reason: u8,
        time: MonotonicNs,
        started: MonotonicNs,
        generation: u32,
    ) {
        let from = goroutine.since.max(started);
        let ns = time.since(from);
        let life = self.lives.entry(goroutine.goid).or_default();
        let waited = Waited { blocks: 1, ns, waiting: 0 };
        let place = life.place(goroutine, reason, generation);
        match place.known {
            Known::Seen | Known::SameGoroutine => add(&mut self.places, place, waited),
            Known::No => match life.pending.iter_mut().find(|(of, _)| *of == reason) {
                Some((_, pending)) => pending.add(waited),
                None => life.pending.push((reason, waited)),
            },
        }
        self.keep(Block { goid: goroutine.goid, place, from, ns, goes_on: false });
    }

    fn keep(&mut self, block: Block) {
        if block.ns < self.least {
            return;
        }
        self.longest.push(block);
        if self.longest.len() >= 2 * LONGEST {
            self.longest.sort_unstable_by_key(|block| std::cmp::Reverse((block.ns, block.goid)));
            self.longest.truncate(LONGEST);
            self.least = self.longest.last().map_or(0, |block| block.ns);
        }
    }

    /// A reading was merged.
    pub fn reading(&mut self, reading: &Reading, state: &State) {
        let generation = state.table.generation();
        for parked in &reading.goroutines {
            let goroutines::State::Blocked { reason } = parked.goroutine.state else { continue };
            let Some(stack) = parked.stack else { continue };
            let Some(goroutine) = state.table.get(parked.goroutine.goid) else { continue };
            let life = self.lives.entry(goroutine.goid).or_default();
            // It moved on while it was read, or the reading lags: then it is still a stack of this goroutine's.
            if goroutine.state == parked.goroutine.state && goroutine.since <= reading.taken_from {
                life.seen = Some((goroutine.since, stack));
            }
            match life.stacks.iter_mut().find(|(of, _)| *of == reason) {
                Some((_, newest)) => *newest = stack,
                None => life.stacks.push((reason, stack)),
            }
            let site = goroutine.site;
            if let Some(at) = life.pending.iter().position(|(of, _)| *of == reason) {
                let (_, pending) = life.pending.swap_remove(at);
                let place = Place { generation, site, stack: Some(stack), known: Known::SameGoroutine, reason };
                add(&mut self.places, place, pending);
            }
        }
    }

    /// A life is over: what waited for a stack to be known stays without.
    pub fn ended(&mut self, ended: &Ended, generation: u32) {
        let Some(life) = self.lives.remove(&ended.goroutine.goid) else { return };
        self.give_up(life, ended.goroutine.site, generation);
    }

    fn give_up(&mut self, life: Life, site: SiteId, generation: u32) {
        for (reason, waited) in life.pending {
            add(&mut self.places, Place { generation, site, stack: None, known: Known::No, reason }, waited);
        }
    }

    /// The recording is over: who waits now has waited until now.
    #[must_use]
    pub fn finish(mut self, state: &State) -> Sums {
        let generation = state.table.generation();
        for goroutine in state.table.iter() {
            let life = self.lives.remove(&goroutine.goid).unwrap_or_default();
            if let goroutines::State::Blocked { reason } = goroutine.state {
                let from = goroutine.since.max(state.started);
                let ns = state.newest.since(from);
                let place = life.place(&goroutine, reason, generation);
                add(&mut self.places, place, Waited { blocks: 1, ns, waiting: 1 });
                self.keep(Block { goid: goroutine.goid, place, from, ns, goes_on: true });
            }
            self.give_up(life, goroutine.site, generation);
        }
        self.longest.sort_unstable_by_key(|block| std::cmp::Reverse((block.ns, block.goid)));
        self.longest.truncate(LONGEST);
        let mut places: Vec<(Place, Waited)> = self.places.into_iter().collect();
        places.sort_unstable_by_key(|(place, waited)| {
            (std::cmp::Reverse(waited.ns), place.site, place.reason, place.stack, place.known)
        });
        Sums { places, longest: self.longest }
    }
}

/// Blocks by place, the most time first, and the longest of them.
#[derive(Debug)]
pub struct Sums {
    /// By place.
    pub places: Vec<(Place, Waited)>,
    /// The longest ones.
    pub longest: Vec<Block>,
}

impl Life {
    fn place(&self, goroutine: &Goroutine, reason: u8, generation: u32) -> Place {
        let site = goroutine.site;
        let place = |stack, known| Place { generation, site, stack, known, reason };
        if let Some((_, stack)) = self.seen.filter(|(since, _)| *since == goroutine.since) {
            return place(Some(stack), Known::Seen);
        }
        match self.stacks.iter().find(|(of, _)| *of == reason) {
            Some(&(_, stack)) => place(Some(stack), Known::SameGoroutine),
            None => place(None, Known::No),
        }
    }
}

impl Waited {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.ns = self.ns.saturating_add(other.ns);
        self.waiting += other.waiting;
    }
}

fn add(places: &mut HashMap<Place, Waited>, place: Place, waited: Waited) {
    places.entry(place).or_default().add(waited);
}

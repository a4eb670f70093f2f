//! Where goroutines stand, each place numbered once for all snapshots.
//!
//! In: a site, a status, a wait reason, the number of a stack. Out: the number of the place, and what is done there. A place
//! is told by 8 bytes, so that a million goroutines are compared with where they stood before without a look at more.

use std::sync::Arc;

use hashbrown::HashMap;

use super::stacks::{SeenStacks, of_reason};
use crate::analysis::Block;
use crate::go_runtime::Status;
use crate::output::Names;
use crate::snapshot::{Goroutine, StackState};

/// So many places are remembered; then [`Places::clear`] is due.
const LIMIT: usize = 1 << 18;

/// In place of a stack, of those that run.
pub(super) const NO_STACK: u32 = u32::MAX;
/// In place of a reason, of those that run.
const NEVER_PARKED: u8 = 1;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The number of its site.
    pub(super) site: u16,
    status: Status,
    reason: u8,
    /// The number of its stack, or [`NO_STACK`].
    pub(super) stack: u32,
}

const _: () = assert!(size_of::<Place>() == 8);

/// What is done at a place.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    pub(super) block: Block,
    /// The runtime's word for it.
    pub(super) reason: Arc<str>,
    /// Of [`Block::Runs`]: they have not parked once in their lives.
    pub(super) never_parked: bool,
}

/// All places that were seen.
#[derive(Debug, Default)]
pub(super) struct Places {
    numbers: HashMap<Place, u32>,
    all: Vec<Place>,
    doing: Vec<Doing>,
    words: HashMap<(Status, u8), Arc<str>>,
}

impl Place {
    /// Where `g` of this site stands; its stack is that of the snapshot, or [`NO_STACK`].
    pub(super) fn of(g: &Goroutine, site: u16) -> Self {
        match g.status {
            Status::Waiting | Status::Leaked | Status::Syscall => {
                let stack = match g.stack {
                    StackState::Read(id) => id.index() as u32,
                    StackState::Running | StackState::Moved => NO_STACK,
                };
                let reason = if g.status == Status::Syscall { 0 } else { g.wait_reason };
                Self { site, status: g.status, reason, stack }
            }
            // gopark leaves its reason in the g, and the end of a goroutine clears it.
            // https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L4430-L4440
            _ => {
                let reason = if g.wait_reason == 0 { NEVER_PARKED } else { 0 };
                Self { site, status: Status::Running, reason, stack: NO_STACK }
            }
        }
    }

    /// Whether goroutines have no stack there to leave: they stand where they run until they are seen waiting.
    pub(super) fn runs(self) -> bool {
        self.stack == NO_STACK
    }
}

impl Places {
    /// Whether there are too many.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() > LIMIT
    }

    /// Forgets all; numbers begin anew, and everybody seems to have moved once.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The place of that number.
    pub(super) fn get(&self, number: u32) -> Option<Place> {
        self.all.get(number as usize).copied()
    }

    /// What is done at the place of that number.
    pub(super) fn doing(&self, number: u32) -> Option<&Doing> {
        self.doing.get(number as usize)
    }

    /// The number of `place`, whose stack is one of `stacks`.
    pub(super) fn number(&mut self, place: Place, stacks: &SeenStacks, names: &impl Names) -> u32 {
        if let Some(&number) = self.numbers.get(&place) {
            return number;
        }
        let number = self.all.len() as u32;
        let waits = stacks.get(place.stack).and_then(|facts| facts.waits);
        let word = self.words.entry((place.status, place.reason)).or_insert_with(|| match place.status {
            Status::Waiting | Status::Leaked => names.reason(place.reason).into(),
            status => crate::output::dump::state_name(status).into(),
        });
        let block = match place.status {
            Status::Waiting | Status::Leaked => of_reason(word).or(waits).unwrap_or(Block::Other),
            Status::Syscall => waits.unwrap_or(Block::Syscall),
            _ => Block::Runs,
        };
        let never_parked = block == Block::Runs && place.reason == NEVER_PARKED;
        self.doing.push(Doing { block, reason: Arc::clone(word), never_parked });
        self.all.push(place);
        self.numbers.insert(place, number);
        number
    }
}

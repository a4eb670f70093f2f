//! Stacks, each kept once: most goroutines of a program stand at one of a few places.

use hashbrown::HashMap;

use super::unwind::StackEnd;
use crate::units::Pc;

/// Innermost and outermost frames kept of a stack; of those between only the number is.
pub(super) const INNER: usize = 1024;
/// See [`INNER`].
pub(super) const OUTER: usize = 128;

/// One of a snapshot's stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub(super) u32);

impl StackId {
    /// A number from 0 on.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The physical frames of a stack, innermost first. What was inlined into them is for the symbols to tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Program counters by link-time address: return addresses, but for the innermost and those that a signal interrupted.
    pub pcs: Box<[Pc]>,
    /// Frames left out, between the first 1,024 and the last 128 of `pcs`.
    pub elided: u32,
    /// How the walk ended.
    pub end: StackEnd,
}

/// All stacks of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    ids: HashMap<Stack, u32>,
    stacks: Vec<Stack>,
}

impl Stacks {
    /// The id of `stack`.
    pub(super) fn intern(&mut self, stack: Stack) -> StackId {
        if let Some(&id) = self.ids.get(&stack) {
            return StackId(id);
        }
        let id = u32::try_from(self.stacks.len()).unwrap_or(u32::MAX);
        self.stacks.push(stack.clone());
        self.ids.insert(stack, id);
        StackId(id)
    }

    /// The stack of that id.
    #[must_use]
    pub fn get(&self, id: StackId) -> Option<&Stack> {
        self.stacks.get(id.index())
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (StackId, &Stack)> {
        self.stacks.iter().enumerate().map(|(i, stack)| (StackId(i as u32), stack))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}

/// Collects the frames of one walk, within bounds.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Program counter and end of each.
    inner: Vec<(Pc, u64)>,
    /// A ring of the last ones.
    outer: Vec<(Pc, u64)>,
    seen: usize,
}

impl Frames {
    pub(super) fn clear(&mut self) {
        self.inner.clear();
        self.outer.clear();
        self.seen = 0;
    }

    /// A frame by its program counter and the address at which it ends.
    pub(super) fn push(&mut self, pc: Pc, top: u64) {
        if self.inner.len() < INNER {
            self.inner.push((pc, top));
        } else if self.outer.len() < OUTER {
            self.outer.push((pc, top));
        } else if let Some(slot) = self.outer.get_mut((self.seen - INNER) % OUTER) {
            *slot = (pc, top);
        }
        self.seen += 1;
    }

    /// The frames that are kept, innermost first.
    fn kept(&self) -> impl Iterator<Item = &(Pc, u64)> {
        let oldest = if self.elided() == 0 { 0 } else { (self.seen - INNER) % OUTER };
        let (newer, older) = self.outer.split_at_checked(oldest).unwrap_or_default();
        self.inner.iter().chain(older).chain(newer)
    }

    fn elided(&self) -> usize {
        self.seen - self.inner.len() - self.outer.len()
    }

    /// Where the frames that are kept end, in the order of [`Stack::pcs`].
    pub(super) fn tops(&self) -> Vec<u64> {
        self.kept().map(|&(_, top)| top).collect()
    }

    pub(super) fn stack(&self, end: StackEnd) -> Stack {
        let pcs = self.kept().map(|&(pc, _)| pc).collect();
        Stack { pcs, elided: u32::try_from(self.elided()).unwrap_or(u32::MAX), end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_huge_stack_is_left_out() {
        let mut frames = Frames::default();
        for n in [3, INNER, INNER + OUTER, INNER + OUTER + 1, INNER + 3 * OUTER + 5] {
            frames.clear();
            (0..n).for_each(|i| frames.push(Pc(i as u64), i as u64));
            let stack = frames.stack(StackEnd::Top);
            let elided = n.saturating_sub(INNER + OUTER);
            assert_eq!(stack.elided as usize, elided);
            let expected: Vec<Pc> =
                (0..n).filter(|i| *i < INNER || *i >= INNER + elided).map(|i| Pc(i as u64)).collect();
            assert_eq!(*stack.pcs, *expected, "{n}");
            assert!(frames.tops().iter().eq(expected.iter().map(|pc| &pc.0)), "{n}");
        }
    }
}

//! The rings of slots that kernel programs write to, one for each CPU, mapped into our memory.
//!
//! In: the maps. Out: the bytes of each event, in the order in which a CPU's slots were taken, but for those that were not
//! written yet when later ones were: they come with a later drain. Must not know what is in an event.
//!
//! The protocol stands at [`Slot`] and [`RingHead`]. The kernel's side is the file of the same name in tracer-ebpf.

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use gotracer_ebpf::{RingHead, Slot};

use crate::kernel::mapping::Mapping;

/// The rings of all CPUs that were online when they were made.
#[derive(Debug)]
pub(super) struct Rings {
    heads: Heads,
    slots: Slots,
    rings: Vec<Ring>,
    /// A power of two.
    slots_each: u64,
}

/// Where the reader is in one CPU's ring.
#[derive(Debug)]
struct Ring {
    cpu: u32,
    /// Index of its first slot.
    first: u64,
    /// Events before this one were read, but for those in [`Self::unwritten`].
    read: u64,
    /// Slots that had been taken and not written: their programs were preempted in between. In order.
    unwritten: Vec<u64>,
}

impl Rings {
    /// Gives each of the CPUs `cpus` a ring, of `slots_each` slots, in the maps `heads` (an element for each possible CPU)
    /// and `slots`.
    ///
    /// # Errors
    ///
    /// If the maps cannot be mapped, or are too small for so many.
    pub(super) fn open(heads: BorrowedFd<'_>, slots: BorrowedFd<'_>, sizes: Sizes, cpus: &[u32]) -> io::Result<Self> {
        let Sizes { possible_cpus, slots_each } = sizes;
        let heads = Heads(Mapping::new(heads, possible_cpus as usize * size_of::<RingHead>())?);
        let slots = Slots(Mapping::new(slots, cpus.len() * slots_each as usize * size_of::<Slot>())?);
        let mut rings = Vec::with_capacity(cpus.len());
        for (&cpu, index) in cpus.iter().zip(0_u64..) {
            let first = index * slots_each;
            heads.word(cpu as usize, offset_of!(RingHead, first))?.store(first, Ordering::Relaxed);
            heads.word(cpu as usize, offset_of!(RingHead, slots))?.store(slots_each, Ordering::Release);
            rings.push(Ring { cpu, first, read: 0, unwritten: Vec::new() });
        }
        Ok(Self { heads, slots, rings, slots_each })
    }

    /// Hands each event that has been written to `event`, with the number of its ring, counted from 0, then gives the room
    /// back. Returns how full the fullest ring was, from 0 to 1.
    ///
    /// # Errors
    ///
    /// If the kernel's side says what cannot be: more events than there are slots.
    pub(super) fn drain(&mut self, mut event: impl FnMut(u32, &[u8])) -> io::Result<f64> {
        let mut fullest = 0.0_f64;
        for (ring, index) in self.rings.iter_mut().zip(0..) {
            let head = |offset| self.heads.word(ring.cpu as usize, offset);
            let reserved = head(offset_of!(RingHead, reserved))?.load(Ordering::Acquire);
            let consumed = head(offset_of!(RingHead, consumed))?;
            let taken = reserved.wrapping_sub(consumed.load(Ordering::Relaxed));
            if taken > self.slots_each {
                return Err(io::Error::other(
                    "a ring of events has more of them than slots: this is a bug in gotracer",
                ));
            }
            fullest = fullest.max(taken as f64 / self.slots_each as f64);
            let mut hand_over = |number: u64| -> bool {
                let slot = ring.first + (number & (self.slots_each - 1));
                match self.slots.written(slot as usize, number) {
                    Some(bytes) => {
                        event(index, bytes);
                        true
                    }
                    None => false,
                }
            };
            ring.unwritten.retain(|&number| !hand_over(number));
            for number in ring.read..reserved {
                if !hand_over(number) {
                    ring.unwritten.push(number);
                }
            }
            ring.read = reserved;
            let free_to = ring.unwritten.first().copied().unwrap_or(reserved);
            consumed.store(free_to, Ordering::Release);
        }
        Ok(fullest)
    }
}

/// How large the maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Elements of the map of heads.
    pub(super) possible_cpus: u32,
    /// Slots of each ring: a power of two.
    pub(super) slots_each: u64,
}

/// The array of heads, one for each possible CPU.
#[derive(Debug)]
struct Heads(Mapping);

impl Heads {
    /// The word at an offset of a CPU's head.
    fn word(&self, cpu: usize, offset: usize) -> io::Result<&AtomicU64> {
        let word = self.0.word(cpu * size_of::<RingHead>() + offset);
        word.ok_or_else(|| io::Error::other("a CPU has a number that is not possible"))
    }
}

/// The array of slots, of all rings.
#[derive(Debug)]
struct Slots(Mapping);

impl Slots {
    /// The event with this number, if it has been written to this slot.
    fn written(&self, slot: usize, number: u64) -> Option<&[u8]> {
        const EVENT: usize = offset_of!(Slot, event);
        let at = slot.checked_mul(size_of::<Slot>())?;
        let sequence = self.0.word(at + offset_of!(Slot, sequence))?.load(Ordering::Acquire);
        if sequence != number.wrapping_add(1) {
            return None;
        }
        // SAFETY: its writer is done, and the next one waits until `consumed` says that the slot is free.
        unsafe { self.0.bytes(at + EVENT, size_of::<Slot>() - EVENT) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::mapping::memory;

    const SLOTS: u64 = 8;

    /// The kernel's side, on memory that is not a map.
    struct Writer {
        heads: Heads,
        slots: Slots,
    }

    /// Rings of CPUs 0 and 2; CPU 1 is possible and has none.
    fn rings() -> (Rings, Writer) {
        let (heads, slots) = (memory(3 * size_of::<RingHead>()), memory(2 * SLOTS as usize * size_of::<Slot>()));
        let sizes = Sizes { possible_cpus: 3, slots_each: SLOTS };
        let rings = Rings::open(heads.as_fd(), slots.as_fd(), sizes, &[0, 2]).expect("rings");
        let map = |file: &OwnedFd, bytes| Mapping::new(file.as_fd(), bytes).expect("a mapping");
        let heads = Heads(map(&heads, 3 * size_of::<RingHead>()));
        (rings, Writer { heads, slots: Slots(map(&slots, 2 * SLOTS as usize * size_of::<Slot>())) })
    }

    impl Writer {
        fn head(&self, cpu: usize, offset: usize) -> &AtomicU64 {
            self.heads.word(cpu, offset).expect("a word")
        }

        /// As the kernel programs do.
        fn take(&self, cpu: usize) -> Option<u64> {
            let number = self.head(cpu, offset_of!(RingHead, reserved)).load(Ordering::Relaxed);
            let consumed = self.head(cpu, offset_of!(RingHead, consumed)).load(Ordering::Acquire);
            let slots = self.head(cpu, offset_of!(RingHead, slots)).load(Ordering::Relaxed);
            if number - consumed >= slots {
                return None;
            }
            self.head(cpu, offset_of!(RingHead, reserved)).store(number + 1, Ordering::Release);
            Some(number)
        }

        fn write(&self, cpu: usize, number: u64, event: u64) {
            let first = self.head(cpu, offset_of!(RingHead, first)).load(Ordering::Relaxed);
            let slot = (first + number % SLOTS) as usize;
            let word = |offset| self.slots.0.word(slot * size_of::<Slot>() + offset).expect("a word");
            word(offset_of!(Slot, event)).store(event, Ordering::Relaxed);
            word(offset_of!(Slot, sequence)).store(number + 1, Ordering::Release);
        }
    }

    fn drained(rings: &mut Rings) -> Vec<(u32, u64)> {
        let mut events = Vec::new();
        rings
            .drain(|ring, bytes| {
                let word = bytes.first_chunk().expect("a slot has a word");
                events.push((ring, u64::from_ne_bytes(*word)));
            })
            .expect("drains");
        events
    }

    #[test]
    fn a_slot_that_was_taken_and_not_written_holds_up_itself_alone() {
        let (mut rings, kernel) = rings();
        let numbers = [0, 1, 2].map(|_| kernel.take(0).expect("room"));
        kernel.write(0, numbers[0], 10);
        kernel.write(0, numbers[2], 12);
        assert_eq!(drained(&mut rings), [(0, 10), (0, 12)]);
        assert_eq!(drained(&mut rings), []);
        kernel.write(0, numbers[1], 11);
        assert_eq!(drained(&mut rings), [(0, 11)]);
    }

    #[test]
    fn a_full_ring_takes_no_more_until_it_is_drained_and_no_slot_behind_an_unwritten_one_is_given_back() {
        let (mut rings, kernel) = rings();
        let numbers: Vec<u64> = std::iter::from_fn(|| kernel.take(2)).collect();
        assert_eq!(numbers, (0..SLOTS).collect::<Vec<_>>());
        numbers.iter().skip(1).for_each(|&number| kernel.write(2, number, number));
        assert_eq!(drained(&mut rings).len(), SLOTS as usize - 1);
        assert_eq!(kernel.take(2), None);
        kernel.write(2, 0, 0);
        assert_eq!(drained(&mut rings), [(1, 0)]);
        assert_eq!(kernel.take(2), Some(SLOTS));
        // A CPU without a ring.
        assert_eq!(kernel.take(1), None);
    }

    #[test]
    fn a_head_that_cannot_be_is_an_error() {
        let (mut rings, kernel) = rings();
        kernel.head(0, offset_of!(RingHead, reserved)).store(SLOTS + 1, Ordering::Relaxed);
        assert!(rings.drain(|_, _| ()).is_err());
    }

    proptest! {
        /// Taking, writing and draining in any order: what was written comes out, once, and what is read in one go is in order.
        #[test]
        fn nothing_is_lost_or_made_up(steps in prop::collection::vec(0u8..4, 0..400)) {
            let (mut rings, kernel) = rings();
            let (mut taken, mut written, mut read) = (Vec::new(), Vec::new(), Vec::new());
            for (step, at) in steps.into_iter().zip(1_usize..) {
                match step {
                    0 | 1 => taken.extend(kernel.take(0)),
                    2 if !taken.is_empty() => {
                        // Any of them: programs that were preempted end in any order.
                        let number = taken.swap_remove(at % taken.len());
                        kernel.write(0, number, number);
                        written.push(number);
                    }
                    2 => {}
                    _ => {
                        let share: Vec<u64> = drained(&mut rings).into_iter().map(|(_, event)| event).collect();
                        prop_assert!(share.is_sorted());
                        read.extend(share);
                    }
                }
            }
            read.extend(drained(&mut rings).into_iter().map(|(_, event)| event));
            read.sort_unstable();
            written.sort_unstable();
            prop_assert_eq!(read, written);
        }
    }
}

//! The rings of slots that kernel programs write to, one for each CPU, mapped into our memory.
//!
//! In: the maps. Out: the bytes of each event, in the order in which a CPU's slots were taken, but for those that were not
//! written yet when later ones were: they come with a later drain. Must not know what is in an event.
//!
//! The protocol stands at [`Slot`] and [`RingHead`]. The kernel's side is the file of the same name in tracer-ebpf.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use gotracer_ebpf::{RingHead, Slot};

/// The rings of all CPUs that were online when they were made.
#[derive(Debug)]
pub(super) struct Rings {
    heads: Mapping<RingHead>,
    slots: Mapping<Slot>,
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
        let heads = Mapping::<RingHead>::new(heads, possible_cpus as usize)?;
        let slots = Mapping::<Slot>::new(slots, cpus.len() * slots_each as usize)?;
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
                return Err(io::Error::other("a ring of events has more of them than slots: this is a bug in gotracer"));
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

/// An array map of `T`, in our memory.
#[derive(Debug)]
struct Mapping<T> {
    base: NonNull<T>,
    elements: usize,
}

// SAFETY: the mapping is ours alone on this side; nothing in it is tied to a thread.
unsafe impl<T> Send for Mapping<T> {}

impl<T> Mapping<T> {
    fn new(map: BorrowedFd<'_>, elements: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses one that is larger than the map.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                elements * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, elements })
    }

    fn at(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: within the mapping.
        (index < self.elements).then(|| unsafe { self.base.add(index) })
    }

    /// The word at an offset of an element.
    fn word(&self, index: usize, offset: usize) -> io::Result<&AtomicU64> {
        assert!(offset.is_multiple_of(8) && offset + 8 <= size_of::<T>());
        let at = self.at(index).ok_or_else(|| io::Error::other("a CPU has a number that is not possible"))?;
        // SAFETY: an aligned word of the mapping, which both sides use by atomics alone.
        Ok(unsafe { at.cast::<u8>().add(offset).cast::<AtomicU64>().as_ref() })
    }
}

impl Mapping<Slot> {
    /// The event with this number, if it has been written to this slot.
    fn written(&self, slot: usize, number: u64) -> Option<&[u8]> {
        let sequence = self.word(slot, offset_of!(Slot, sequence)).ok()?.load(Ordering::Acquire);
        if sequence != number.wrapping_add(1) {
            return None;
        }
        let event = self.at(slot)?;
        // SAFETY: within the slot; its writer is done, and the next one waits until `consumed` says that it is free.
        Some(unsafe {
            let bytes = event.cast::<u8>().add(offset_of!(Slot, event));
            std::slice::from_raw_parts(bytes.as_ptr(), size_of::<Slot>() - offset_of!(Slot, event))
        })
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this size, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.elements * size_of::<T>()) };
    }
}

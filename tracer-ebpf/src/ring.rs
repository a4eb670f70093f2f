//! The way up: a ring of slots for each CPU, in arrays that user space has mapped.
//!
//! Writing to memory that both sides see costs a program some twenty nanoseconds; each of the kernel's own ways up costs
//! a hundred or more (docs/journal.md). The reader looks now and then by itself; a bell is rung when a ring has filled to a
//! quarter.
//!
//! A program stays on its CPU, but another may preempt it there, so a slot is taken by an atomic; that takes Linux 5.12,
//! on arm64 5.18. What the reader must know stands at [`Slot`].

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, RingBuf},
};
use gotracer_ebpf::{ARCH_X86_64, COUNT_NO_BUFFER, COUNT_NO_SPACE, RingHead, Slot};

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// A ring for each CPU that is possible; the loader says how many, and which have slots.
#[map]
static RING_HEADS: Array<RingHead> = Array::with_max_entries(1, MMAPABLE);

/// The slots of all rings; the loader says how many.
#[map]
static RING_SLOTS: Array<Slot> = Array::with_max_entries(1, MMAPABLE);

/// Wakes the reader. What is in it says nothing.
#[map]
static BELL: RingBuf = RingBuf::with_byte_size(4096, 0);

/// How often a slot is tried for. One try fails only when another program has come in between its two instructions.
const TRIES: u32 = 8;

/// Sends an event, or counts it as lost.
#[inline(always)]
pub(crate) fn send<C: EbpfContext, T>(_ctx: &C, event: &T) {
    const { assert!(size_of::<T>() % 8 == 0 && size_of::<T>() <= size_of::<Slot>() - 8) };
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let Some(head) = RING_HEADS.get_ptr_mut(cpu) else { return crate::count(COUNT_NO_BUFFER) };
    // SAFETY: a live map value. User space writes these two before there is a probe, and no more.
    let (first, slots) = unsafe { ((*head).first, (*head).slots) };
    if slots == 0 {
        return crate::count(COUNT_NO_BUFFER);
    }
    let Some(number) = reserve(head, slots) else { return crate::count(COUNT_NO_SPACE) };
    let index = first.wrapping_add(number & slots.wrapping_sub(1)) as u32;
    let Some(slot) = RING_SLOTS.get_ptr_mut(index) else { return crate::count(COUNT_NO_BUFFER) };
    let words = core::ptr::from_ref(event).cast::<u64>();
    // SAFETY: a live map value, which is this program's alone until `sequence` says otherwise; `event` consists of words.
    unsafe {
        let mut word = 0;
        while word < size_of::<T>() / 8 {
            // Volatile: these stores stay before the one of `sequence`.
            write_volatile((&raw mut (*slot).event).cast::<u64>().add(word), *words.add(word));
            word += 1;
        }
        publish(&raw mut (*slot).sequence, number.wrapping_add(1));
        // Above a quarter, once in an eighth: one that the reader was too busy to hear is not the last.
        let eighth = slots / 8;
        if number & eighth.wrapping_sub(1) == 0 && number.wrapping_sub(read_volatile(&raw const (*head).consumed)) > eighth {
            let _ = BELL.output::<u64>(&0, u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }
}

/// Takes the next slot and gives its number; `None` if all are full.
#[inline(always)]
fn reserve(head: *mut RingHead, slots: u64) -> Option<u64> {
    let mut tries = 0;
    while tries < TRIES {
        // SAFETY: a live map value.
        unsafe {
            let consumed = read_volatile(&raw const (*head).consumed);
            let number = read_volatile(&raw const (*head).reserved);
            if number.wrapping_sub(consumed) >= slots {
                return None;
            }
            if compare_exchange(&raw mut (*head).reserved, number, number.wrapping_add(1)) == number {
                return Some(number);
            }
        }
        tries += 1;
    }
    None
}

/// Stores `new` if `old` is there; gives what was there.
///
/// # Safety
///
/// `at` must be a live, aligned map value.
#[inline(always)]
unsafe fn compare_exchange(at: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // In assembly: the compiler's own way needs another instruction set level for the whole object.
    // SAFETY: as the caller says.
    unsafe {
        asm!("r0 = cmpxchg_64({at} + 0, r0, {new})", at = in(reg) at, new = in(reg) new, inout("r0") old => found);
    }
    found
}

/// Stores `sequence` behind all stores that stand before it.
///
/// # Safety
///
/// `at` must be a live, aligned map value.
#[inline(always)]
unsafe fn publish(at: *mut u64, sequence: u64) {
    // SAFETY: as the caller says; the first is a plain read, volatile because the loader changes the value.
    unsafe {
        if read_volatile(&raw const crate::ARCH) == ARCH_X86_64 {
            // x86 keeps stores in order.
            write_volatile(at, sequence);
        } else {
            // A full barrier on every architecture, where a plain store has none on arm64.
            asm!("{value} = xchg_64({at} + 0, {value})", at = in(reg) at, value = inout(reg) sequence => _);
        }
    }
}

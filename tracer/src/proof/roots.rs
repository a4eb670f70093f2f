//! Where reachability begins, goroutines aside.
//!
//! In: the target's memory. Out: words. The program's variables by the linker's masks; what is attached to objects (finalizers,
//! cleanups) and what of it is queued; of a program with C in it, all writable memory that is not Go's. Timers, processors and
//! threads are reached from the variables `allp` and `allm`.
//!
//! After `markroot`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgcmark.go#L234-L380>.

use hashbrown::HashSet;

use super::heap::Heap;
use super::{Locate, ProofError, spans, threads};
use crate::go_runtime::{Field, Variable};
use crate::process::memory::{MemoryError, MemoryRange, ReadMemory};
use crate::snapshot::Source;
use crate::snapshot::raw::ObjectBatch;
use crate::units::RemoteAddr;

/// Bytes of variables read at a time.
const PIECE: u64 = 1 << 20;
/// The smallest page of any kernel.
const PAGE: u64 = 4096;
/// Bytes of variables believed.
const DATA_LIMIT: u64 = 16 << 30;
/// Records attached to objects believed.
const SPECIAL_LIMIT: usize = 1 << 24;
/// Weak pointers remembered; what more of them point at counts as reachable.
const WEAK_LIMIT: usize = 1 << 20;
/// Blocks of queued finalizers or cleanups believed.
const BLOCK_LIMIT: usize = 1 << 20;
/// Bytes of one such block believed.
const BLOCK_SIZE: u32 = 1 << 16;

/// The numbers of the kinds of `runtime.special`, which change:
/// - up to 1.22: <https://github.com/golang/go/blob/go1.21.13/src/runtime/mheap.go#L1794-L1802>
/// - 1.23: <https://github.com/golang/go/blob/go1.23.9/src/runtime/mheap.go#L1815-L1826>
/// - 1.24: <https://github.com/golang/go/blob/go1.24.11/src/runtime/mheap.go#L1826-L1839>
/// - from 1.25: <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L1936-L1954>
struct Kinds {
    finalizer: u64,
    weak: Option<u64>,
    cleanup: Option<u64>,
}

impl Kinds {
    fn of(minor: u16) -> Option<Self> {
        Some(match minor {
            18..=22 => Self { finalizer: 1, weak: None, cleanup: None },
            23 => Self { finalizer: 1, weak: Some(2), cleanup: None },
            24 => Self { finalizer: 1, weak: Some(2), cleanup: Some(6) },
            25..=27 => Self { finalizer: 2, weak: Some(3), cleanup: Some(7) },
            _ => return None,
        })
    }
}

/// Whether the roots of Go 1.`minor` are known.
pub(super) fn is_known(minor: u16) -> bool {
    Kinds::of(minor).is_some()
}

/// A weak pointer: whoever reaches the handle can get at the object, for as long as the object is there; and as the collector
/// sees it, a blocked goroutine's stack keeps it there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weak {
    pub(super) handle: u64,
    pub(super) object: u64,
    /// Where the runtime's record of it lies: memory of its own, which it never gives back, and no reference.
    pub(super) record: (u64, u64),
}

/// Gives the program's variables to `take`.
pub(super) fn variables(source: &Source<'_>, take: &mut impl FnMut(u64)) -> Result<(), ProofError> {
    let layout = &source.layout.moduledata;
    let module = source.memory.bytes(source.remote(Variable::Firstmoduledata)?, layout.size as usize)?;
    let field = |field: Field| field.read(&module).unwrap_or_default();
    if field(layout.next) != 0 {
        return Err(ProofError::Plugin);
    }
    let parts = [
        (field(layout.data), field(layout.edata), field(layout.gc_data_mask), field(layout.gc_data_mask_bits)),
        (field(layout.bss), field(layout.ebss), field(layout.gc_bss_mask), field(layout.gc_bss_mask_bits)),
    ];
    for (start, end, mask, bits) in parts {
        let size = end.checked_sub(start).filter(|size| *size <= DATA_LIMIT);
        let Some(size) = size.filter(|_| start % 8 == 0) else {
            return Err(ProofError::corrupt("the bounds of its variables make no sense"));
        };
        // `n` is an int32, of words.
        let words = (size / 8).min(bits & 0xffff_ffff);
        for first in (0..words).step_by(PIECE as usize / 8) {
            let count = (words - first).min(PIECE / 8);
            let mask = source.memory.bytes(RemoteAddr(mask + first / 8), count.div_ceil(8) as usize)?;
            let data = source.memory.bytes(RemoteAddr(start + 8 * first), 8 * count as usize)?;
            for (i, word) in data.chunks_exact(8).enumerate() {
                let is_pointer = mask.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
                if let (true, Some(word)) = (is_pointer, word.first_chunk()) {
                    take(u64::from_le_bytes(*word));
                }
            }
        }
    }
    Ok(())
}

/// Gives to `take` what finalizers and cleanups hold, attached ones and queued ones; the weak pointers come back.
pub(super) fn specials(source: &Source<'_>, heap: &Heap, take: &mut impl FnMut(u64)) -> Result<Vec<Weak>, ProofError> {
    let minor = source.binary.version().minor();
    let kinds = Kinds::of(minor).ok_or_else(|| ProofError::Version { version: source.binary.version().to_string() })?;
    let layout = &source.layout.special;
    // The largest of the records.
    let sizes = [
        source.layout.special_finalizer.as_ref().map(|record| record.size),
        source.layout.special_cleanup.as_ref().map(|record| record.size),
        source.layout.special_weak_handle.as_ref().map(|record| record.size),
    ];
    let size = sizes.into_iter().flatten().max().unwrap_or(layout.size).max(layout.size);
    let mut at: Vec<(usize, RemoteAddr)> =
        heap.attached.iter().enumerate().map(|(i, span)| (i, RemoteAddr(span.specials))).collect();
    let (mut weak, mut count, mut batch) = (Vec::new(), 0, ObjectBatch::default());
    while !at.is_empty() && count < SPECIAL_LIMIT {
        count += at.len();
        let addresses: Vec<RemoteAddr> = at.iter().map(|(_, address)| *address).collect();
        batch.read(source.memory, &addresses, size)?;
        let mut next = Vec::new();
        for (i, &(number, address)) in at.iter().enumerate() {
            let Some(span) = heap.attached.get(number) else { continue };
            let link = batch.with(source.memory, i, address, |bytes| {
                let kind = layout.kind.read(bytes)? & 0xff;
                let offset = layout.offset.read(bytes)?;
                let object = span.start.wrapping_add(offset / span.elem * span.elem);
                if kind == kinds.finalizer {
                    // The finalizer is given the object, so it reaches what the object does.
                    take(object);
                    words(bytes).for_each(&mut *take);
                } else if Some(kind) == kinds.cleanup {
                    words(bytes).for_each(&mut *take);
                } else if Some(kind) == kinds.weak {
                    let layout = source.layout.special_weak_handle.as_ref();
                    match layout.and_then(|layout| Some((layout.handle.read(bytes)?, layout.size))) {
                        Some((handle, size)) if weak.len() < WEAK_LIMIT => {
                            let record = (address.0, address.0.saturating_add(u64::from(size)));
                            weak.push(Weak { handle, object, record });
                        }
                        _ => take(object),
                    }
                }
                layout.next.read(bytes)
            });
            next.extend(link.filter(|link| *link != 0 && *link != address.0).map(|link| (number, RemoteAddr(link))));
        }
        at = next;
    }
    queued(source, take)?;
    Ok(weak)
}

/// Finalizers and cleanups that wait to be run.
fn queued(source: &Source<'_>, take: &mut impl FnMut(u64)) -> Result<(), ProofError> {
    let first = source.memory.word(source.remote(Variable::Allfin)?)?;
    let missing = || ProofError::corrupt("it has queued finalizers, and their layout is not known");
    if first != 0 {
        let block = source.layout.fin_block.as_ref().ok_or_else(missing)?;
        blocks(source, first, block.size, block.all_link, block.finalizers, take)?;
    }
    if let Some(queue) = &source.layout.cleanup_queue {
        let first = source.memory.word(queue.all.at(source.remote(Variable::GcCleanups)?))?;
        if first != 0 {
            let block = source.layout.cleanup_block.as_ref().ok_or_else(missing)?;
            blocks(source, first, block.size, block.all_link, block.cleanups, take)?;
        }
    }
    Ok(())
}

/// All words of the blocks of a list, from `content` on: those that are not in use any more are cleared by the runtime.
fn blocks(
    source: &Source<'_>,
    first: u64,
    size: u32,
    link: Field,
    content: Field,
    take: &mut impl FnMut(u64),
) -> Result<(), ProofError> {
    let (mut at, mut seen) = (first, HashSet::new());
    while at != 0 && seen.len() < BLOCK_LIMIT && seen.insert(at) {
        let bytes = source.memory.bytes(RemoteAddr(at), size.min(BLOCK_SIZE) as usize)?;
        words(bytes.get(content.offset as usize..).unwrap_or_default()).for_each(&mut *take);
        at = link.read(&bytes).unwrap_or_default();
    }
    Ok(())
}

/// Gives to `take` every word of `ranges`, memory that is not Go's, outside of what the runtime itself has there: its span
/// structs, which hold the address of each span's first object, and its records of weak pointers.
pub(super) fn foreign(
    source: &Source<'_>,
    ranges: &[MemoryRange],
    weak: &[Weak],
    take: &mut impl FnMut(u64),
) -> Result<(), ProofError> {
    if ranges.is_empty() {
        return Ok(());
    }
    let size = u64::from(source.layout.mspan.size);
    let spans = spans::structs(source)?.into_iter().map(|span| (span, span.saturating_add(size)));
    let mut own: Vec<(u64, u64)> = spans.chain(weak.iter().map(|weak| weak.record)).collect();
    own.sort_unstable();
    let mut one = |at: u64, bytes: &[u8]| {
        let mut next = own.partition_point(|(_, end)| *end <= at);
        for (i, word) in words(bytes).enumerate() {
            let here = at + 8 * i as u64;
            while own.get(next).is_some_and(|(_, end)| *end <= here) {
                next += 1;
            }
            if own.get(next).is_none_or(|(start, _)| here < *start) {
                take(word);
            }
        }
    };
    for range in ranges {
        each_piece(
            source.memory,
            range.start.0.next_multiple_of(8),
            range.start.0.saturating_add(range.len as u64),
            &mut one,
        )?;
    }
    Ok(())
}

/// Gives what is mapped from `start` to `end`, in pieces.
pub(super) fn each_piece(
    memory: &dyn ReadMemory,
    start: u64,
    end: u64,
    take: &mut impl FnMut(u64, &[u8]),
) -> Result<(), ProofError> {
    let mut at = start;
    while at < end {
        let next = (at / PIECE + 1).saturating_mul(PIECE).min(end);
        match memory.bytes(RemoteAddr(at), (next - at) as usize) {
            Ok(bytes) => take(at, &bytes),
            // Some of it was unmapped, or never was mapped: page by page, then.
            Err(MemoryError::Missing { .. }) => {
                let mut page = at;
                while page < next {
                    let after = (page / PAGE + 1).saturating_mul(PAGE).min(next);
                    match memory.bytes(RemoteAddr(page), (after - page) as usize) {
                        Ok(bytes) => take(page, &bytes),
                        Err(MemoryError::Missing { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                    page = after;
                }
            }
            Err(error) => return Err(error.into()),
        }
        at = next;
    }
    Ok(())
}

/// Whether there is C in the program. What says so is part of runtime/cgo, and in the function table whatever is stripped:
/// <https://github.com/golang/go/blob/go1.27.3/src/runtime/cgo/asm_amd64.s>.
pub(super) fn has_foreign(source: &Source<'_>) -> bool {
    !source.binary.functions().by_name("crosscall2").is_empty()
}

/// Memory of which Go knows nothing: what of `writable` is neither the heap's nor Go's variables, nor its scheduler's. Empty for a
/// program without C in it: what it maps for itself cannot hold references, by the rules of `unsafe`.
pub(super) fn not_go(
    source: &Source<'_>,
    heap: &Heap,
    writable: &[MemoryRange],
) -> Result<Vec<MemoryRange>, ProofError> {
    if !has_foreign(source) {
        return Ok(Vec::new());
    }
    let layout = &source.layout.moduledata;
    let module = source.memory.bytes(source.remote(Variable::Firstmoduledata)?, layout.size as usize)?;
    let field = |field: Field| field.read(&module).unwrap_or_default();
    let mut own = heap.arenas();
    own.extend([
        (field(layout.noptrdata), field(layout.enoptrdata)),
        (field(layout.data), field(layout.edata)),
        (field(layout.bss), field(layout.ebss)),
        (field(layout.noptrbss), field(layout.enoptrbss)),
    ]);
    own.extend(threads::scheduler_stacks(source)?);
    own.sort_unstable();
    Ok(writable.iter().flat_map(|range| subtract(*range, &own)).collect())
}

/// What of `range` is in none of `holes`, which are sorted.
fn subtract(range: MemoryRange, holes: &[(u64, u64)]) -> Vec<MemoryRange> {
    let (mut at, end) = (range.start.0, range.start.0.saturating_add(range.len as u64));
    let mut left = Vec::new();
    let mut keep = |from: u64, to: u64| {
        if from < to {
            left.push(MemoryRange { start: RemoteAddr(from), len: (to - from) as usize });
        }
    };
    for &(low, high) in holes {
        if high <= at || low >= end {
            continue;
        }
        keep(at, low);
        at = at.max(high);
    }
    keep(at, end);
    left
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).filter_map(|word| word.first_chunk().map(|word| u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out() {
        let range = MemoryRange { start: RemoteAddr(100), len: 100 };
        let parts = |holes: &[(u64, u64)]| {
            subtract(range, holes).iter().map(|r| (r.start.0, r.start.0 + r.len as u64)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[]), [(100, 200)]);
        assert_eq!(parts(&[(0, 50), (90, 110), (120, 130), (190, 300)]), [(110, 120), (130, 190)]);
        assert_eq!(parts(&[(0, 500)]), [(0, 0); 0]);
        assert_eq!(parts(&[(200, 300)]), [(100, 200)]);
    }
}

//! The runtime's table of spans.
//!
//! In: the target's memory. Out: a [`Span`] for each run of pages that is in use. The table changes while it is read; what makes no
//! sense is left out. Knows no marks.

use super::{Locate, ProofError};
use crate::binary::GoVersion;
use crate::go_runtime::{MspanLayout, Variable};
use crate::process::memory::MemoryError;
use crate::snapshot::Source;
use crate::snapshot::raw::ObjectBatch;
use crate::units::RemoteAddr;

/// A page of the runtime: <https://github.com/golang/go/blob/go1.27.3/src/internal/runtime/gc/malloc.go#L25-L29>.
pub(super) const PAGE: u64 = 1 << PAGE_SHIFT;
pub(super) const PAGE_SHIFT: u32 = 13;
/// Addresses of user space; the rest cannot be heap.
const ADDRESS_LIMIT: u64 = 1 << 48;
/// Spans believed: a heap of a terabyte of the smallest.
const SPAN_LIMIT: usize = 1 << 27;
/// Objects of one span believed: 1,024 of the smallest are in a page.
const COUNT_LIMIT: u64 = 1 << 14;
/// Pages believed of a span with several objects; Go's longest has ten.
const PAGES_LIMIT: u64 = 1 << 14;
/// How often the span list may move under us.
const ATTEMPTS: usize = 5;
/// mspan structs read at a time.
const CHUNK: usize = 8192;
/// `mSpanInUse`, `mSpanManual`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/mheap.go#L378-L382>.
const IN_USE: u64 = 1;
const MANUAL: u64 = 2;
/// `gc.MinSizeForMallocHeader`: from Go 1.22, objects above this size begin with a pointer to their type:
/// <https://github.com/golang/go/blob/go1.27.3/src/internal/runtime/gc/malloc.go#L11-L46>.
const HEADER_ABOVE: u64 = 512;
/// `unsafe.Sizeof(spanInlineMarkBits{})`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgcmark_greenteagc.go#L66-L71>.
const INLINE_MARKS: u64 = 128;

/// Where it is written which words of a span's objects are pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PointerInfo {
    /// None is.
    None,
    /// A bit for each word of the span, so far behind its start.
    InSpan {
        /// In bytes.
        at: u64,
    },
    /// The first word of each object is the address of its type.
    Header,
    /// The one object of the span is of the type there; 0 while it is not written yet.
    Large {
        /// `mspan.largeType`.
        kind: u64,
    },
    /// Not known: any word may be one.
    Any,
    /// No objects: a stack, or other memory that the runtime manages by hand.
    Manual,
}

impl PointerInfo {
    /// Bytes of an object's slot before the object itself.
    pub(super) const fn header(self) -> u64 {
        if matches!(self, Self::Header) { 8 } else { 0 }
    }
}

/// What spans of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// In bytes, of the whole run of pages.
    pub(super) size: u64,
    /// In bytes, of an object.
    pub(super) elem: u64,
    /// Objects.
    pub(super) count: u32,
    pub(super) info: PointerInfo,
}

/// A run of pages with objects of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) kind: Kind,
    /// `mspan.specials`.
    pub(super) specials: u64,
}

/// Which rules of a Go version the heap goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Bits or headers tell pointers (Go 1.22).
    precise: bool,
    /// The mark bits of small objects stand in their span, behind the pointer bits.
    inline_marks: bool,
}

impl Rules {
    /// `greenteagc` could be chosen in Go 1.25, and not be chosen in 1.26:
    /// <https://github.com/golang/go/blob/go1.26.6/src/internal/buildcfg/exp.go>.
    pub(super) fn of(version: &GoVersion) -> Self {
        let named = |name: &str| version.experiments().any(|experiment| experiment == name);
        let inline_marks = match version.minor() {
            ..=24 => false,
            25 => named("greenteagc"),
            _ => !named("nogreenteagc"),
        };
        Self { precise: version.minor() >= 22, inline_marks }
    }
}

/// Gives all spans that are in use, some thousands at a time. Where the table moves under us it begins again, so that some come
/// twice.
pub(super) fn each(
    source: &Source<'_>,
    rules: Rules,
    mut take: impl FnMut(&[Span]) -> Result<(), ProofError>,
) -> Result<(), ProofError> {
    for _ in 1..ATTEMPTS {
        match each_once(source, rules, &mut take) {
            // The list was moved to a larger place, and the old one given back.
            Err(ProofError::Memory(MemoryError::Missing { .. })) => {}
            done => return done,
        }
    }
    each_once(source, rules, &mut take)
}

fn each_once(
    source: &Source<'_>,
    rules: Rules,
    take: &mut impl FnMut(&[Span]) -> Result<(), ProofError>,
) -> Result<(), ProofError> {
    let layout = &source.layout.mspan;
    let (mut spans, mut batch) = (Vec::with_capacity(CHUNK), ObjectBatch::default());
    each_struct(source, |addresses| {
        spans.clear();
        batch.read(source.memory, addresses, layout.size)?;
        for (i, &address) in addresses.iter().enumerate() {
            spans.extend(batch.with(source.memory, i, address, |bytes| parse(bytes, layout, rules)));
        }
        take(&spans)
    })
}

/// Where the runtime's mspan structs are, by rising address.
pub(super) fn structs(source: &Source<'_>) -> Result<Vec<u64>, ProofError> {
    let mut found = Vec::new();
    each_struct(source, |addresses| {
        found.extend(addresses.iter().map(|address| address.0));
        Ok(())
    })?;
    found.sort_unstable();
    Ok(found)
}

/// Gives the addresses in `mheap_.allspans`, some thousands at a time.
fn each_struct(
    source: &Source<'_>,
    mut take: impl FnMut(&[RemoteAddr]) -> Result<(), ProofError>,
) -> Result<(), ProofError> {
    let slice = source.layout.mheap.allspans.at(source.remote(Variable::Mheap)?);
    let (array, len) = (source.memory.word(slice)?, source.memory.word(RemoteAddr(slice.0.wrapping_add(8)))?);
    let len = usize::try_from(len).ok().filter(|len| *len <= SPAN_LIMIT);
    let Some(len) = len.filter(|_| array % 8 == 0) else {
        return Err(ProofError::corrupt("its list of spans makes no sense"));
    };
    for first in (0..len).step_by(CHUNK) {
        let at = RemoteAddr(array.wrapping_add(8 * first as u64));
        let bytes = source.memory.bytes(at, (len - first).min(CHUNK) * 8)?;
        let words = bytes.chunks_exact(8).filter_map(|w| w.first_chunk().map(|w| u64::from_le_bytes(*w)));
        take(&words.map(RemoteAddr).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A span in use, from its struct; `None` for one that is not, or makes no sense.
fn parse(bytes: &[u8], layout: &MspanLayout, rules: Rules) -> Option<Span> {
    let state = layout.state.read(bytes)? & 0xff;
    let start = layout.start_addr.read(bytes)?;
    let size = layout.npages.read(bytes)?.checked_mul(PAGE)?;
    let end = start.checked_add(size)?;
    if start % PAGE != 0 || size == 0 || end > ADDRESS_LIMIT {
        return None;
    }
    if state == MANUAL {
        let kind = Kind { size, elem: size, count: 0, info: PointerInfo::Manual };
        return Some(Span { start, kind, specials: 0 });
    }
    let (elem, count) = (layout.elemsize.read(bytes)?, layout.nelems.read(bytes)?);
    let is_count = (1..=COUNT_LIMIT).contains(&count) && (count == 1 || size <= PAGES_LIMIT * PAGE);
    if state != IN_USE || elem == 0 || elem % 8 != 0 || !is_count || elem.checked_mul(count)? > size {
        return None;
    }
    let class = layout.spanclass.read(bytes)? & 0xff;
    let arena_chunk = layout.is_user_arena_chunk.is_some_and(|field| field.read(bytes) != Some(0));
    let info = if class & 1 == 1 {
        PointerInfo::None
    } else if !rules.precise || arena_chunk {
        PointerInfo::Any
    } else if elem <= HEADER_ABOVE {
        let marks = if rules.inline_marks && elem >= 16 { INLINE_MARKS } else { 0 };
        PointerInfo::InSpan { at: size.checked_sub(size / 64 + marks)? }
    } else if class >> 1 != 0 {
        PointerInfo::Header
    } else {
        PointerInfo::Large { kind: layout.large_type?.read(bytes)? }
    };
    let kind = Kind { size, elem, count: u32::try_from(count).ok()?, info };
    Some(Span { start, kind, specials: layout.specials.read(bytes)? })
}

//! The heap as the runtime's span table has it, and our own mark bits over it.
//!
//! In: the target's memory. Out: [`Heap`], which says of any word which object it points at, and remembers which objects
//! were marked and which of those were scanned. A bit each for marks and scans, a few dozen bytes a span: about a 250th of
//! the heap where objects are as small as they get. Knows neither roots nor goroutines.
//!
//! The table is read while the program runs. Spans that came after it was read are found out by pointers into pages that
//! were nobody's ([`Heap::stray`]); [`Heap::refresh`] takes them in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Locate, ProofError};
use crate::binary::GoVersion;
use crate::go_runtime::{MspanLayout, Variable};
use crate::process::memory::MemoryError;
use crate::snapshot::Source;
use crate::snapshot::raw::ObjectBatch;
use crate::units::RemoteAddr;

/// A page of the runtime: <https://github.com/golang/go/blob/go1.27.3/src/internal/runtime/gc/malloc.go#L25-L29>.
pub(super) const PAGE: u64 = 8 << 10;
const PAGE_SHIFT: u32 = 13;
/// Arenas are 64 MiB on 64-bit Linux: <https://github.com/golang/go/blob/go1.27.3/src/runtime/malloc.go#L219-L251>.
const ARENA_SHIFT: u32 = 26;
const ARENA_PAGES: usize = 1 << (ARENA_SHIFT - PAGE_SHIFT);
/// Addresses of user space; the rest cannot be heap.
const ADDRESS_LIMIT: u64 = 1 << 48;
/// Spans believed: a heap of a terabyte of the smallest.
const SPAN_LIMIT: usize = 1 << 27;
/// Objects of one span believed: 1,024 of the smallest are in a page.
const COUNT_LIMIT: u64 = 1 << 14;
/// Objects believed: their bits take a gigabyte.
const OBJECT_LIMIT: u64 = 1 << 32;
/// Arenas with a table of pages believed, 2 TiB; larger objects need none.
const ARENA_LIMIT: usize = 1 << 15;
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
/// Pages that were nobody's, remembered of one look.
const STRAY_LIMIT: usize = 1 << 16;

/// Where it is written which words of a span's objects are pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A run of pages with objects of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    /// In bytes, of the whole run.
    pub(super) size: u64,
    /// In bytes, of an object.
    pub(super) elem: u64,
    pub(super) count: u32,
    /// Go's own way to divide: `^uint32(0)/size + 1`.
    reciprocal: u32,
    pub(super) info: PointerInfo,
    /// Where its bits begin, in words of 64.
    first_bit_word: usize,
    /// Some of its objects are not to be scanned as others are.
    pub(super) has_special: bool,
    /// `mspan.specials`.
    pub(super) specials: u64,
}

impl Span {
    pub(super) fn object(&self, index: u32) -> u64 {
        self.start + u64::from(index) * self.elem
    }

    /// The address behind its last object.
    fn limit(&self) -> u64 {
        self.start + u64::from(self.count) * self.elem
    }

    fn index(&self, offset: u64) -> u32 {
        if self.count == 1 { 0 } else { ((offset * u64::from(self.reciprocal)) >> 32) as u32 }
    }

    fn bit_words(&self) -> usize {
        (self.count as usize).div_ceil(64)
    }

    fn same_pages(&self, other: &Span) -> bool {
        (self.start, self.size, self.elem, self.count, self.info)
            == (other.start, other.size, other.elem, other.count, other.info)
    }
}

/// One object: its span's number and its own in the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Object {
    pub(super) span: u32,
    pub(super) index: u32,
}

/// What a word is.
pub(super) enum Found {
    /// A pointer into this object.
    Object(Object),
    /// No pointer into an object.
    Nothing,
    /// A pointer into pages of the heap that were nobody's when the table was read.
    Stray,
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

/// The spans, and two bits for each of their objects.
#[derive(Debug, Default)]
pub(super) struct Heap {
    pub(super) spans: Vec<Span>,
    /// Arena number less `first_arena` -> table in `pages`, plus one; or span number, plus one, with the top bit set: an
    /// arena that is all one object's.
    arenas: Vec<u32>,
    first_arena: u64,
    /// Page -> span number, plus one.
    pages: Vec<Box<[u32]>>,
    marks: Vec<AtomicU64>,
    scanned: Vec<AtomicU64>,
    /// A span that has objects marked and not scanned, and is queued for it.
    grey: Vec<AtomicBool>,
}

const WHOLE: u32 = 1 << 31;

impl Heap {
    /// Reads the span table.
    pub(super) fn read(source: &Source<'_>, rules: Rules) -> Result<Self, ProofError> {
        let mut heap = Self::default();
        let spans = read_spans(source, rules)?;
        heap.place(&spans)?;
        for span in spans {
            heap.add(span)?;
        }
        Ok(heap)
    }

    /// Reads the span table again: spans that are new or whose pages were given to others are added. True if there are any.
    pub(super) fn refresh(&mut self, source: &Source<'_>, rules: Rules) -> Result<bool, ProofError> {
        let spans = read_spans(source, rules)?;
        self.place(&spans)?;
        let mut new = false;
        for span in spans {
            let known = self.span_at(span.start).and_then(|i| self.spans.get(i as usize));
            if !known.is_some_and(|known| known.same_pages(&span)) {
                self.add(span)?;
                new = true;
            }
        }
        Ok(new)
    }

    /// Makes room for all arenas of `spans`.
    fn place(&mut self, spans: &[Span]) -> Result<(), ProofError> {
        let low = spans.iter().map(|s| s.start >> ARENA_SHIFT).min().unwrap_or_default();
        let high = spans.iter().map(|s| (s.start + s.size - 1) >> ARENA_SHIFT).max().unwrap_or_default();
        if self.arenas.is_empty() {
            self.first_arena = low;
        }
        if low < self.first_arena {
            let before = (self.first_arena - low) as usize;
            self.arenas.splice(0..0, std::iter::repeat_n(0, before));
            self.first_arena = low;
        }
        // 48 bits of address are 4 million arenas.
        let count = (high + 1).saturating_sub(self.first_arena) as usize;
        if count > self.arenas.len() {
            self.arenas.resize(count, 0);
        }
        Ok(())
    }

    fn add(&mut self, mut span: Span) -> Result<(), ProofError> {
        let number = self.spans.len() as u32 + 1;
        if self.spans.len() >= SPAN_LIMIT {
            return Err(ProofError::corrupt("there are more spans than a terabyte has"));
        }
        span.first_bit_word = self.marks.len();
        if self.marks.len() as u64 * 64 + u64::from(span.count) > OBJECT_LIMIT {
            return Err(ProofError::corrupt("there are more objects than a heap has"));
        }
        let (mut page, end) = (span.start >> PAGE_SHIFT, (span.start + span.size) >> PAGE_SHIFT);
        while page < end {
            let arena = page >> (ARENA_SHIFT - PAGE_SHIFT);
            let arena_end = (arena + 1) << (ARENA_SHIFT - PAGE_SHIFT);
            let slot = self.arenas.get_mut((arena - self.first_arena) as usize);
            let Some(slot) = slot else { return Err(ProofError::corrupt("a span lies outside all arenas")) };
            let upto = end.min(arena_end);
            if (upto - page) as usize == ARENA_PAGES {
                *slot = number | WHOLE;
                page = upto;
                continue;
            }
            if *slot == 0 || *slot & WHOLE != 0 {
                if self.pages.len() >= ARENA_LIMIT {
                    return Err(ProofError::corrupt("its spans lie in more arenas than a heap has"));
                }
                self.pages.push(vec![0; ARENA_PAGES].into_boxed_slice());
                *slot = self.pages.len() as u32;
            }
            let table = self.pages.get_mut(*slot as usize - 1);
            let range = (page % ARENA_PAGES as u64) as usize..(page % ARENA_PAGES as u64 + (upto - page)) as usize;
            if let Some(range) = table.and_then(|table| table.get_mut(range)) {
                range.fill(number);
            }
            page = upto;
        }
        let words = span.bit_words();
        self.marks.resize_with(self.marks.len() + words, AtomicU64::default);
        self.scanned.resize_with(self.scanned.len() + words, AtomicU64::default);
        self.grey.push(AtomicBool::new(false));
        self.spans.push(span);
        Ok(())
    }

    /// The span whose pages hold `address`; `None` for none.
    #[inline]
    fn span_at(&self, address: u64) -> Option<u32> {
        let arena = (address >> ARENA_SHIFT).wrapping_sub(self.first_arena);
        let slot = *self.arenas.get(usize::try_from(arena).ok()?)?;
        if slot & WHOLE != 0 {
            return Some((slot & !WHOLE) - 1);
        }
        let table = self.pages.get((slot as usize).checked_sub(1)?)?;
        table.get((address >> PAGE_SHIFT) as usize % ARENA_PAGES)?.checked_sub(1)
    }

    /// What `word` points at.
    #[inline]
    pub(super) fn find(&self, word: u64) -> Found {
        let arena = (word >> ARENA_SHIFT).wrapping_sub(self.first_arena);
        if arena >= self.arenas.len() as u64 {
            return Found::Nothing;
        }
        let Some(number) = self.span_at(word) else {
            // Between arenas there is nothing at all.
            let known = self.arenas.get(arena as usize).is_some_and(|slot| *slot != 0);
            return if known { Found::Stray } else { Found::Nothing };
        };
        let Some(span) = self.spans.get(number as usize) else { return Found::Nothing };
        if span.info == PointerInfo::Manual || word >= span.limit() {
            return Found::Nothing;
        }
        Found::Object(Object { span: number, index: span.index(word - span.start) })
    }

    /// The object that `word` points at, if it does.
    pub(super) fn object(&self, word: u64) -> Option<Object> {
        match self.find(word) {
            Found::Object(object) => Some(object),
            Found::Nothing | Found::Stray => None,
        }
    }

    fn bit(&self, object: Object) -> Option<(usize, u64)> {
        let span = self.spans.get(object.span as usize)?;
        Some((span.first_bit_word + object.index as usize / 64, 1 << (object.index % 64)))
    }

    /// Marks `object`; true if it was not marked before.
    #[inline]
    pub(super) fn mark(&self, object: Object) -> bool {
        let Some((word, bit)) = self.bit(object) else { return false };
        let Some(word) = self.marks.get(word) else { return false };
        // Most pointers lead to what is marked: look before writing.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(super) fn is_marked(&self, object: Object) -> bool {
        let bit = self.bit(object).and_then(|(word, bit)| Some(self.marks.get(word)?.load(Ordering::Relaxed) & bit));
        bit.unwrap_or_default() != 0
    }

    /// Queues the span of a marked object; true if it was not queued yet.
    #[inline]
    pub(super) fn make_grey(&self, span: u32) -> bool {
        self.grey
            .get(span as usize)
            .is_some_and(|grey| !grey.load(Ordering::Relaxed) && !grey.swap(true, Ordering::AcqRel))
    }

    pub(super) fn take_grey(&self, span: u32) {
        if let Some(grey) = self.grey.get(span as usize) {
            grey.store(false, Ordering::Release);
        }
    }

    /// How many objects of `span` are marked and not scanned, at most `limit`.
    pub(super) fn unscanned(&self, span: &Span, limit: u32) -> u32 {
        let mut count = 0;
        for word in span.first_bit_word..span.first_bit_word + span.bit_words() {
            count += self.pending(word).count_ones();
            if count >= limit {
                break;
            }
        }
        count
    }

    fn pending(&self, word: usize) -> u64 {
        let marks = self.marks.get(word).map(|w| w.load(Ordering::Acquire)).unwrap_or_default();
        let scanned = self.scanned.get(word).map(|w| w.load(Ordering::Relaxed)).unwrap_or_default();
        marks & !scanned
    }

    /// Takes up to 64 objects of `span`, from the `from`th word of its bits on, that are marked and not scanned, and counts
    /// them as scanned. Gives their bits and the number of the word.
    pub(super) fn take_unscanned(&self, span: &Span, from: usize) -> Option<(usize, u64)> {
        for i in from..span.bit_words() {
            let pending = self.pending(span.first_bit_word + i);
            if pending != 0 {
                if let Some(word) = self.scanned.get(span.first_bit_word + i) {
                    word.fetch_or(pending, Ordering::Relaxed);
                }
                return Some((i, pending));
            }
        }
        None
    }

    /// Counts every object as not scanned, and gives all spans that have marked ones with pointers in them.
    pub(super) fn scan_again(&self) -> Vec<u32> {
        self.scanned.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let with_marks = self.spans.iter().enumerate().filter(|(_, span)| {
            !matches!(span.info, PointerInfo::None | PointerInfo::Manual) && self.unscanned(span, 1) > 0
        });
        with_marks.map(|(i, _)| i as u32).filter(|&i| self.make_grey(i)).collect()
    }

    /// Bytes in spans of objects.
    pub(super) fn bytes(&self) -> u64 {
        let objects = self.spans.iter().filter(|span| span.info != PointerInfo::Manual);
        objects.map(|span| span.size).fold(0, u64::saturating_add)
    }

    /// How many objects are marked, and how many bytes they are.
    pub(super) fn marked(&self) -> (u64, u64) {
        let mut sum = (0, 0_u64);
        for span in &self.spans {
            let words = self.marks.get(span.first_bit_word..span.first_bit_word + span.bit_words());
            let bits = words.into_iter().flatten().map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()));
            let count: u64 = bits.sum();
            sum = (sum.0 + count, sum.1.saturating_add(count.saturating_mul(span.elem)));
        }
        sum
    }

    /// A copy of all marks.
    pub(super) fn snapshot(&self) -> Vec<u64> {
        self.marks.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// The objects, by span, that are marked in `after` and were not in `before`.
    pub(super) fn added<'h>(
        &'h self,
        before: &'h [u64],
        after: &'h [u64],
    ) -> impl Iterator<Item = (&'h Span, Vec<u32>)> + 'h {
        self.spans.iter().filter_map(|span| {
            let mut objects = Vec::new();
            for i in 0..span.bit_words() {
                let word = span.first_bit_word + i;
                let (old, new) = (before.get(word).copied().unwrap_or_default(), after.get(word).copied());
                let mut bits = new.unwrap_or_default() & !old;
                while bits != 0 {
                    objects.push(i as u32 * 64 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
            (!objects.is_empty()).then_some((span, objects))
        })
    }

    /// Marks that the object at `address` is to be treated by itself.
    pub(super) fn set_special(&mut self, address: u64) {
        if let Some(object) = self.object(address)
            && let Some(span) = self.spans.get_mut(object.span as usize)
        {
            span.has_special = true;
        }
    }

    /// The address space that is the heap's, in use or not.
    pub(super) fn arenas(&self) -> Vec<(u64, u64)> {
        let used = self.arenas.iter().enumerate().filter(|(_, slot)| **slot != 0);
        let start = |i: usize| (self.first_arena + i as u64) << ARENA_SHIFT;
        used.map(|(i, _)| (start(i), start(i + 1))).collect()
    }
}

/// Pages into which pointers were seen and which were nobody's; of each worker its own.
#[derive(Debug, Default)]
pub(super) struct Strays(hashbrown::HashSet<u64>);

impl Strays {
    #[inline]
    pub(super) fn add(&mut self, word: u64) {
        if self.0.len() < STRAY_LIMIT {
            self.0.insert(word);
        }
    }

    pub(super) fn absorb(&mut self, other: Strays) {
        other.0.into_iter().for_each(|word| self.add(word));
    }

    pub(super) fn take(&mut self) -> Vec<u64> {
        self.0.drain().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All spans that are in use, by rising address.
fn read_spans(source: &Source<'_>, rules: Rules) -> Result<Vec<Span>, ProofError> {
    for _ in 1..ATTEMPTS {
        match read_spans_once(source, rules) {
            // The list was moved to a larger place, and the old one given back.
            Err(ProofError::Memory(MemoryError::Missing { .. })) => {}
            done => return done,
        }
    }
    read_spans_once(source, rules)
}

fn read_spans_once(source: &Source<'_>, rules: Rules) -> Result<Vec<Span>, ProofError> {
    let layout = &source.layout.mspan;
    let (mut spans, mut batch) = (Vec::new(), ObjectBatch::default());
    each_struct(source, |addresses| {
        batch.read(source.memory, addresses, layout.size)?;
        for (i, &address) in addresses.iter().enumerate() {
            spans.extend(batch.with(source.memory, i, address, |bytes| parse(bytes, layout, rules)));
        }
        Ok(())
    })?;
    spans.sort_unstable_by_key(|span| span.start);
    Ok(spans)
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
    let mut span = Span {
        start,
        size,
        elem: size,
        count: 0,
        reciprocal: 0,
        info: PointerInfo::Manual,
        first_bit_word: 0,
        has_special: false,
        specials: 0,
    };
    if state == MANUAL {
        return Some(span);
    }
    let (elem, count) = (layout.elemsize.read(bytes)?, layout.nelems.read(bytes)?);
    let is_count = (1..=COUNT_LIMIT).contains(&count);
    if state != IN_USE || elem == 0 || elem % 8 != 0 || !is_count || elem.checked_mul(count)? > size {
        return None;
    }
    let class = layout.spanclass.read(bytes)? & 0xff;
    span.elem = elem;
    span.count = u32::try_from(count).ok()?;
    span.reciprocal = if elem < 1 << 31 { u32::MAX / elem as u32 + 1 } else { 0 };
    span.specials = layout.specials.read(bytes)?;
    let arena_chunk = layout.is_user_arena_chunk.is_some_and(|field| field.read(bytes) != Some(0));
    span.info = if class & 1 == 1 {
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
    Some(span)
}

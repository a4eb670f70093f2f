//! Marking: what is reachable from the roots that were given.
//!
//! In: a [`Heap`] and words that may be pointers. Out: marks. Objects wait for their scan as bits; what is queued is their
//! span, each at most once, so the queue never holds more than there are spans and needs no spilling. A generation of the
//! queue is read in the order of addresses, neighbours in one system call; a span is scanned until nothing new in it is
//! marked, as a list that was allocated in order would else take a generation for each link.
//!
//! Some objects are special: a goroutine's struct tells nothing before it is known that the goroutine can run, nor does what
//! it waits on in a queue ([`Special`]).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::{HashMap, HashSet};

use super::ProofError;
use super::heap::{Found, Heap, PointerInfo, Span, Strays};
use super::types::{TypeMap, TypeMaps};
use crate::go_runtime::SudogLayout;
use crate::process::memory::{Batch, MemoryError, MemoryRange, ReadMemory};
use crate::snapshot::Source;
use crate::units::{MonotonicNs, RemoteAddr};

/// Bytes read in one call.
const CALL_BYTES: usize = 1 << 20;
/// Ranges read in one call.
const CALL_RANGES: usize = 512;
/// Spans that a worker takes at a time: a megabyte of the smallest.
const SPANS: usize = 128;
/// Up to so many objects are read one by one, more with their whole span.
const FEW: u32 = 3;
/// Above this size spans are read object by object, and objects piece by piece.
const LARGE: u64 = 64 << 10;

/// How an object is scanned that is not like others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Not at all: a `runtime.g`.
    Opaque,
    /// A sudog of this candidate: until it can run, only the links to other sudogs.
    Sudog(u32),
    /// But for [`Special::exceptions`]: a `runtime.p` where it is not known which words are pointers.
    Processor,
}

/// What is not to be followed as other objects are.
#[derive(Debug, Default)]
pub(super) struct Special {
    pub(super) objects: HashMap<u64, Treatment>,
    /// Bytes of a `runtime.p` that hold addresses that are no references.
    pub(super) exceptions: Vec<std::ops::Range<u64>>,
    /// By candidate: whether it was found able to run.
    pub(super) live: Vec<bool>,
    /// The g of each candidate that waits on a condition: any sudog of its own that is reached belongs to a condition that
    /// is reached.
    pub(super) on_condition: HashMap<u64, u32>,
    /// The size of slots in which sudogs are allocated.
    pub(super) sudog_slot: u64,
}

/// What bounds a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// Give up then.
    pub(super) deadline: Option<Instant>,
    /// Give up when this is set.
    pub(super) cancel: &'a AtomicBool,
    /// Threads that read and mark.
    pub(super) threads: usize,
}

impl Bounds<'_> {
    pub(super) fn check(&self) -> Result<(), ProofError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ProofError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ProofError::Deadline);
        }
        Ok(())
    }
}

/// Memory that cannot be read any more when the bounds are reached: so nothing goes on, wherever it is.
pub(super) struct Bounded<'a> {
    pub(super) memory: &'a dyn ReadMemory,
    pub(super) bounds: Bounds<'a>,
}

impl ReadMemory for Bounded<'_> {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        if self.bounds.check().is_err() {
            return Err(MemoryError::Read(std::io::ErrorKind::TimedOut.into()));
        }
        self.memory.fill(ranges, into, missing)
    }

    fn why_missing(&self, address: RemoteAddr) -> String {
        self.memory.why_missing(address)
    }

    fn now(&self) -> Option<MonotonicNs> {
        self.memory.now()
    }
}

/// Marks what is reachable.
pub(super) struct Marker<'a> {
    source: &'a Source<'a>,
    pub(super) heap: Heap,
    pub(super) special: Special,
    bounds: Bounds<'a>,
    queue: Vec<u32>,
    pub(super) strays: Strays,
    /// Candidates of which a sudog was reached from a condition.
    pub(super) woken: HashSet<u32>,
    /// Bytes of the target that were read.
    pub(super) bytes_read: u64,
    /// Whether the next generation goes by falling addresses.
    pub(super) descending: bool,
}

impl<'a> Marker<'a> {
    pub(super) fn new(source: &'a Source<'a>, heap: Heap, special: Special, bounds: Bounds<'a>) -> Self {
        let (queue, strays, woken) = (Vec::new(), Strays::default(), HashSet::new());
        Self { source, heap, special, bounds, queue, strays, woken, bytes_read: 0, descending: false }
    }

    /// Marks the object at which `word` points, if it does.
    pub(super) fn root(&mut self, word: u64) {
        match self.heap.find(word) {
            Found::Object(object) => {
                if self.heap.mark(object) && self.scannable(object.span) && self.heap.make_grey(object.span) {
                    self.queue.push(object.span);
                }
            }
            Found::Stray => self.strays.add(word),
            Found::Nothing => {}
        }
    }

    /// As [`Marker::root`], for each word of `bytes`.
    pub(super) fn roots(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            if let Some(word) = word.first_chunk() {
                self.root(u64::from_le_bytes(*word));
            }
        }
    }

    /// Whether the object at which `word` points is marked; `None` if it points at none.
    pub(super) fn is_marked(&self, word: u64) -> Option<bool> {
        self.heap.object(word).map(|object| self.heap.is_marked(object))
    }

    /// All that is marked is to be scanned once more.
    pub(super) fn scan_again(&mut self) {
        self.queue.extend(self.heap.scan_again());
    }

    fn scannable(&self, span: u32) -> bool {
        self.heap.spans.get(span as usize).is_some_and(|span| span.info != PointerInfo::None)
    }

    /// Scans until nothing that is marked is unscanned.
    pub(super) fn drain(&mut self) -> Result<(), ProofError> {
        while !self.queue.is_empty() {
            let mut spans = std::mem::take(&mut self.queue);
            spans.sort_unstable();
            if self.descending {
                spans.reverse();
            }
            self.descending = !self.descending;
            for found in self.generation(&spans)? {
                self.queue.extend(found.grey);
                self.strays.absorb(found.strays);
                self.woken.extend(found.woken);
                self.bytes_read += found.bytes_read;
            }
        }
        Ok(())
    }

    fn generation(&self, spans: &[u32]) -> Result<Vec<Reached>, ProofError> {
        let next = AtomicUsize::new(0);
        let chunks: Vec<&[u32]> = spans.chunks(SPANS).collect();
        let work = || {
            let mut worker = Worker::new(self.source, &self.heap, &self.special);
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.bounds.check()?;
                worker.spans(chunk)?;
            }
            Ok::<Reached, ProofError>(worker.reached)
        };
        let threads = self.bounds.threads.min(chunks.len()).max(1);
        if threads == 1 {
            return Ok(vec![work()?]);
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()?];
            for other in others {
                // A worker has no way to panic; one that did would have left objects unscanned.
                found.push(other.join().map_err(|_| ProofError::corrupt("a worker failed"))??);
            }
            Ok(found)
        })
    }
}

/// What a worker came upon.
#[derive(Default)]
struct Reached {
    grey: Vec<u32>,
    strays: Strays,
    woken: HashSet<u32>,
    bytes_read: u64,
}

/// What is read for one span.
enum Plan {
    /// All of it: this range.
    Whole { span: u32, range: usize },
    /// Some objects, these ranges, then that of the span's pointer bits, where it has them.
    Some { span: u32, objects: Vec<u32>, first: usize, bits: Option<usize> },
}

struct Worker<'a, 'h> {
    source: &'a Source<'a>,
    heap: &'h Heap,
    special: &'h Special,
    types: TypeMaps<'a>,
    batch: Batch,
    ranges: Vec<MemoryRange>,
    plans: Vec<Plan>,
    reached: Reached,
}

impl<'a, 'h> Worker<'a, 'h> {
    fn new(source: &'a Source<'a>, heap: &'h Heap, special: &'h Special) -> Self {
        let (ranges, plans) = (Vec::new(), Vec::new());
        let (types, batch, reached) = (TypeMaps::new(source), Batch::default(), Reached::default());
        Self { source, heap, special, types, batch, ranges, plans, reached }
    }

    /// Scans what is marked and unscanned in `spans`.
    fn spans(&mut self, spans: &[u32]) -> Result<(), MemoryError> {
        let mut bytes = 0;
        for &number in spans {
            let Some(&span) = self.heap.spans.get(number as usize) else { continue };
            let count = self.heap.unscanned(&span, FEW + 1);
            if span.elem > LARGE {
                self.heap.take_grey(number);
                self.large(&span)?;
                continue;
            }
            if count > FEW && span.size <= LARGE {
                // It stays grey while it is scanned, so that what is marked in it meanwhile does not queue it again.
                self.plans.push(Plan::Whole { span: number, range: self.ranges.len() });
                self.ranges.push(MemoryRange { start: RemoteAddr(span.start), len: span.size as usize });
                bytes += span.size as usize;
            } else {
                self.heap.take_grey(number);
                bytes += self.plan_objects(number, &span);
            }
            if bytes >= CALL_BYTES || self.ranges.len() >= CALL_RANGES {
                self.read()?;
                bytes = 0;
            }
        }
        self.read()
    }

    /// Plans the unscanned objects of `span` one by one; gives how many bytes that is.
    fn plan_objects(&mut self, number: u32, span: &Span) -> usize {
        let (mut objects, first, mut from) = (Vec::new(), self.ranges.len(), 0);
        while let Some((word, bits)) = self.heap.take_unscanned(span, from) {
            from = word + 1;
            for bit in ones(bits) {
                let index = word as u32 * 64 + bit;
                objects.push(index);
                self.ranges.push(MemoryRange { start: RemoteAddr(span.object(index)), len: span.elem as usize });
            }
        }
        if objects.is_empty() {
            return 0;
        }
        let bytes = objects.len() * span.elem as usize;
        let bits = match span.info {
            PointerInfo::InSpan { at } => {
                self.ranges.push(MemoryRange { start: RemoteAddr(span.start + at), len: (span.size / 64) as usize });
                Some(self.ranges.len() - 1)
            }
            _ => None,
        };
        self.plans.push(Plan::Some { span: number, objects, first, bits });
        bytes
    }

    /// Reads what is planned, and scans it.
    fn read(&mut self) -> Result<(), MemoryError> {
        if self.ranges.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.read(self.source.memory, &self.ranges)?;
        self.reached.bytes_read += self.ranges.iter().map(|range| range.len as u64).sum::<u64>();
        let plans = std::mem::take(&mut self.plans);
        for plan in &plans {
            match plan {
                Plan::Whole { span: number, range } => {
                    let Some(span) = self.heap.spans.get(*number as usize) else { continue };
                    // Of pages that were given back nothing is left to be scanned.
                    self.whole(span, batch.get(*range).unwrap_or_default());
                    self.heap.take_grey(*number);
                    if self.heap.unscanned(span, 1) > 0 && self.heap.make_grey(*number) {
                        self.reached.grey.push(*number);
                    }
                }
                Plan::Some { span, objects, first, bits } => {
                    let Some(span) = self.heap.spans.get(*span as usize) else { continue };
                    let bits = bits.and_then(|range| batch.get(range));
                    for (i, index) in objects.iter().enumerate() {
                        if let Some(bytes) = batch.get(first + i) {
                            self.object(span, *index, bytes, bits);
                        }
                    }
                }
            }
        }
        self.batch = batch;
        self.plans = plans;
        self.plans.clear();
        self.ranges.clear();
        Ok(())
    }

    /// Scans all that is unscanned in a span, and what becomes marked in it meanwhile.
    fn whole(&mut self, span: &Span, bytes: &[u8]) {
        let bits = match span.info {
            PointerInfo::InSpan { at } => bytes.get(at as usize..(at + span.size / 64) as usize),
            _ => None,
        };
        let mut from = 0;
        loop {
            let Some((word, taken)) = self.heap.take_unscanned(span, from) else {
                if from == 0 {
                    return;
                }
                from = 0;
                continue;
            };
            from = word;
            for bit in ones(taken) {
                let index = word as u32 * 64 + bit;
                let at = (u64::from(index) * span.elem) as usize;
                if let Some(object) = bytes.get(at..at + span.elem as usize) {
                    self.object(span, index, object, bits);
                }
            }
        }
    }

    /// Scans an object of a span that has one, or few, piece by piece.
    fn large(&mut self, span: &Span) -> Result<(), MemoryError> {
        let mut from = 0;
        while let Some((word, taken)) = self.heap.take_unscanned(span, from) {
            from = word + 1;
            for bit in ones(taken) {
                self.pieces(span, span.object(word as u32 * 64 + bit))?;
            }
        }
        Ok(())
    }

    fn pieces(&mut self, span: &Span, start: u64) -> Result<(), MemoryError> {
        let map = match span.info {
            PointerInfo::Large { kind } => self.types.get(kind),
            _ => self.types.get(0),
        };
        let mut buffer = vec![0; CALL_BYTES.min(span.elem as usize)];
        let mut done = 0;
        while done < span.elem {
            let len = (span.elem - done).min(CALL_BYTES as u64);
            let piece = buffer.get_mut(..len as usize).unwrap_or_default();
            match self.source.memory.read(RemoteAddr(start + done), piece) {
                Ok(()) => {
                    self.reached.bytes_read += len;
                    let piece = std::mem::take(&mut buffer);
                    map.pointers(done, done + len, |offset| self.visit(word_at(&piece, offset - done)));
                    buffer = piece;
                }
                Err(MemoryError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            done += len;
        }
        Ok(())
    }

    /// Scans one object.
    #[inline]
    fn object(&mut self, span: &Span, index: u32, bytes: &[u8], bits: Option<&[u8]>) {
        if span.has_special
            && let Some(treatment) = self.special.objects.get(&span.object(index))
        {
            return self.special_object(treatment, span, index, bytes, bits);
        }
        if span.elem == self.special.sudog_slot && !self.special.on_condition.is_empty() {
            let g = word_at(bytes, u64::from(self.source.layout.sudog.g.offset));
            self.reached.woken.extend(self.special.on_condition.get(&g));
        }
        self.ordinary(span, index, bytes, bits, &[]);
    }

    fn special_object(&mut self, treatment: &Treatment, span: &Span, index: u32, bytes: &[u8], bits: Option<&[u8]>) {
        match treatment {
            Treatment::Opaque => {}
            Treatment::Processor => self.ordinary(span, index, bytes, bits, &self.special.exceptions),
            Treatment::Sudog(candidate) => {
                if self.special.on_condition.is_empty() {
                    // The common case: nothing of it matters but its links.
                } else {
                    let g = word_at(bytes, u64::from(self.source.layout.sudog.g.offset));
                    self.reached.woken.extend(self.special.on_condition.get(&g));
                }
                if self.special.live.get(*candidate as usize) == Some(&true) {
                    return self.ordinary(span, index, bytes, bits, &[]);
                }
                for offset in links(&self.source.layout.sudog) {
                    self.visit(word_at(bytes, u64::from(offset)));
                }
            }
        }
    }

    #[inline]
    fn ordinary(
        &mut self,
        span: &Span,
        index: u32,
        bytes: &[u8],
        bits: Option<&[u8]>,
        except: &[std::ops::Range<u64>],
    ) {
        match span.info {
            PointerInfo::None | PointerInfo::Manual => {}
            PointerInfo::InSpan { .. } => {
                let first = u64::from(index) * span.elem / 8;
                let words = span.elem / 8;
                // Bits that could not be read tell nothing: any word may be a pointer.
                let mut set = bits.map_or(u64::MAX, |bits| bit_run(bits, first));
                if words < 64 {
                    set &= (1 << words) - 1;
                }
                while set != 0 {
                    let word = u64::from(set.trailing_zeros());
                    set &= set - 1;
                    self.visit(word_at(bytes, 8 * word));
                }
            }
            PointerInfo::Header => {
                let map = self.types.get(word_at(bytes, 0));
                // A type that is not written yet leaves nothing out; nor is the header itself a reference.
                let from = if *map == TypeMap::Any { 0 } else { 8 };
                map.pointers(0, span.elem - from, |offset| self.visit(word_at(bytes, from + offset)));
            }
            PointerInfo::Large { kind } => {
                let map = self.types.get(kind);
                map.pointers(0, span.elem, |offset| self.visit(word_at(bytes, offset)));
            }
            PointerInfo::Any => {
                for offset in (0..bytes.len() as u64).step_by(8) {
                    if !except.iter().any(|range| range.contains(&offset)) {
                        self.visit(word_at(bytes, offset));
                    }
                }
            }
        }
    }

    /// Marks what a word points at.
    #[inline]
    fn visit(&mut self, word: u64) {
        match self.heap.find(word) {
            Found::Nothing => {}
            Found::Stray => self.reached.strays.add(word),
            Found::Object(object) => {
                if self.heap.mark(object)
                    && self.heap.spans.get(object.span as usize).is_some_and(|s| s.info != PointerInfo::None)
                    && self.heap.make_grey(object.span)
                {
                    self.reached.grey.push(object.span);
                }
            }
        }
    }
}

/// The sudog's links to other sudogs.
fn links(layout: &SudogLayout) -> [u32; 5] {
    [&layout.next, &layout.prev, &layout.parent, &layout.waitlink, &layout.waittail].map(|field| field.offset)
}

#[inline]
fn word_at(bytes: &[u8], offset: u64) -> u64 {
    let word = bytes.get(offset as usize..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// 64 bits from the `first`th on; those past the end are zero.
#[inline]
fn bit_run(bits: &[u8], first: u64) -> u64 {
    let (word, shift) = (first / 64 * 8, first % 64);
    let low = word_at(bits, word) >> shift;
    if shift == 0 { low } else { low | word_at(bits, word + 8) << (64 - shift) }
}

/// The numbers of the bits that are set.
fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let bit = bits.trailing_zeros();
        bits &= bits - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_across_words() {
        let bits: Vec<u8> = (0..16).collect();
        assert_eq!(bit_run(&bits, 0), 0x0706_0504_0302_0100);
        assert_eq!(bit_run(&bits, 8), 0x0807_0605_0403_0201);
        assert_eq!(bit_run(&bits, 120), 0x0f);
        assert_eq!(bit_run(&bits, 4096), 0);
        assert_eq!(ones(0b1010_0001).collect::<Vec<_>>(), [0, 5, 7]);
    }
}

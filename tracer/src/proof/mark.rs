//! Marking: what is reachable from the roots that were given.
//!
//! In: a [`Heap`] and words that may be pointers. Out: marks. Objects wait for their scan as bits, and a bit for each page says
//! where there are some: so what is queued never takes more memory, however large the heap. A sweep goes through these
//! bits in the order of addresses, from a place that chance chooses; neighbours are read in one system call. What it marks ahead
//! of itself it comes by in the same sweep.
//!
//! A list would take a sweep for each link of it. So a span is scanned until nothing new in it is marked; one of which an object
//! was read alone, and that is found to go on, is read whole; and where what was read marks next to nothing, that is read next.
//!
//! Pointers are followed some hundred at a time, in steps: where each leads, then which of these are marked, so that the
//! processor waits for many of its caches' misses together.
//!
//! Some objects are special: a goroutine's struct tells nothing before it is known that the goroutine can run, nor does what
//! it waits on in a queue ([`Special`]).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::{HashMap, HashSet};

use super::ProofError;
use super::heap::{ARENA_WORDS, Found, Heap, Object, Run, Strays, ones};
use super::order::Order;
use super::spans::{PAGE_SHIFT, PointerInfo};
use super::types::{TypeMap, TypeMaps};
use crate::go_runtime::SudogLayout;
use crate::process::memory::{Batch, MemoryError, MemoryRange, ReadMemory};
use crate::snapshot::Source;
use crate::units::{MonotonicNs, RemoteAddr};

/// Bytes read in one call: what fits into a processor's own cache, and is scanned while it is there.
const CALL_BYTES: usize = 256 << 10;
/// Bytes of a large object read in one call.
const PIECE: usize = 1 << 20;
/// Ranges read in one call.
const CALL_RANGES: usize = 512;
/// What a worker takes at a time, in words of 64 pages: 8 MiB.
const SEGMENT: usize = 16;
/// Pointers followed together.
const TOGETHER: usize = 256;
/// Up to so many objects are read one by one, more with their whole span.
const FEW: u32 = 3;
/// If what was read marked no more objects than these, they are read next. To read them one by one takes less than a sweep.
const CHAIN: usize = 8;
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
    pub(super) strays: Strays,
    /// Candidates of which a sudog was reached from a condition.
    pub(super) woken: HashSet<u32>,
    /// Bytes of the target that were read.
    pub(super) bytes_read: u64,
    order: Order,
}

impl<'a> Marker<'a> {
    pub(super) fn new(source: &'a Source<'a>, heap: Heap, special: Special, bounds: Bounds<'a>, order: Order) -> Self {
        let (strays, woken) = (Strays::default(), HashSet::new());
        Self { source, heap, special, bounds, strays, woken, bytes_read: 0, order }
    }

    /// Marks the object at which `word` points, if it does.
    pub(super) fn root(&mut self, word: u64) {
        self.heap.root(word, &mut self.strays);
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

    /// Goes once through all that is marked and was not scanned; false if there was nothing.
    fn sweep(&mut self) -> Result<bool, ProofError> {
        if !self.heap.has_grey() {
            return Ok(false);
        }
        let singles = self.heap.take_grey_singles();
        let (worker, next) = (|| Worker::new(self.source, &self.heap, &self.special), AtomicUsize::new(0));
        let mut segments: Vec<Segment> = self.heap.tables().into_iter().flat_map(Segment::of).collect();
        self.order.turn(&mut segments);
        let work = || {
            let mut worker = worker();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                self.bounds.check()?;
                if let Some(single) = singles.get(number) {
                    worker.single(single)?;
                    worker.read_on()?;
                } else if let Some(segment) = segments.get(number - singles.len()) {
                    worker.segment(segment)?;
                } else {
                    return Ok::<Reached, ProofError>(worker.reached);
                }
            }
        };
        let threads = self.bounds.threads.min(segments.len() + singles.len()).max(1);
        let found = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()?];
            for other in others {
                // A worker has no way to panic; one that did would have left objects unscanned.
                found.push(other.join().map_err(|_| ProofError::corrupt("a worker failed"))??);
            }
            Ok::<_, ProofError>(found)
        })?;
        for found in found {
            self.strays.absorb(found.strays);
            self.woken.extend(found.woken);
            self.bytes_read += found.bytes_read;
        }
        Ok(true)
    }

    /// Sweeps until so many bytes or more were read, or nothing is left; false if there was nothing.
    pub(super) fn sweeps(&mut self, bytes: u64) -> Result<bool, ProofError> {
        let (enough, mut any) = (self.bytes_read.saturating_add(bytes), false);
        while self.sweep()? {
            any = true;
            if self.bytes_read >= enough {
                break;
            }
        }
        Ok(any)
    }

    /// Scans until nothing that is marked is unscanned.
    pub(super) fn drain(&mut self) -> Result<(), ProofError> {
        while self.sweep()? {}
        Ok(())
    }
}

/// A part of the heap, as a worker takes it.
struct Segment {
    /// Its first page's address.
    start: u64,
    /// Where its bits begin, in words.
    word: usize,
}

impl Segment {
    /// Those of an arena.
    fn of((start, word): (u64, usize)) -> impl Iterator<Item = Segment> {
        let one =
            move |first: usize| Segment { start: start + ((first as u64 * 64) << PAGE_SHIFT), word: word + first };
        (0..ARENA_WORDS).step_by(SEGMENT).map(one)
    }
}

/// What a worker came upon.
#[derive(Default)]
struct Reached {
    strays: Strays,
    woken: HashSet<u32>,
    bytes_read: u64,
}

/// What is read for one span.
enum Plan {
    /// All of it: from so many bytes of this range on.
    Whole { run: Run, range: usize, at: usize },
    /// Some objects, these ranges, then that of the span's pointer bits, where it has them.
    Some { run: Run, objects: Vec<u32>, first: usize, bits: Option<usize> },
}

struct Worker<'a, 'h> {
    source: &'a Source<'a>,
    heap: &'h Heap,
    special: &'h Special,
    types: TypeMaps<'a>,
    batch: Batch,
    ranges: Vec<MemoryRange>,
    plans: Vec<Plan>,
    /// Bytes of all ranges.
    planned: usize,
    pointers: Vec<u64>,
    objects: [Object; TOGETHER],
    /// Objects just marked that are still to be scanned; one more than [`CHAIN`] of them stand for any number.
    fresh: Vec<Object>,
    reached: Reached,
}

impl<'a, 'h> Worker<'a, 'h> {
    fn new(source: &'a Source<'a>, heap: &'h Heap, special: &'h Special) -> Self {
        Self {
            source,
            heap,
            special,
            types: TypeMaps::new(source),
            batch: Batch::default(),
            ranges: Vec::new(),
            plans: Vec::new(),
            planned: 0,
            pointers: Vec::with_capacity(TOGETHER),
            objects: [Object::default(); TOGETHER],
            fresh: Vec::new(),
            reached: Reached::default(),
        }
    }

    /// Scans what is marked and unscanned in a segment.
    fn segment(&mut self, segment: &Segment) -> Result<(), MemoryError> {
        for i in 0..SEGMENT {
            let first = segment.start + ((i as u64 * 64) << PAGE_SHIFT);
            for page in ones(self.heap.take_grey(segment.word + i)) {
                // One whose first page is another's by now has nothing of its own left.
                if let Some(run) = self.heap.run(first + (u64::from(page) << PAGE_SHIFT)) {
                    self.plan(run);
                }
                if self.planned >= CALL_BYTES || self.ranges.len() >= CALL_RANGES {
                    self.read_on()?;
                }
            }
        }
        self.read_on()
    }

    /// Reads what is planned and scans it, and goes on with what that marks, until it is much or nothing. Only a shortcut: what
    /// is left over here is grey.
    fn read_on(&mut self) -> Result<(), MemoryError> {
        loop {
            self.read()?;
            let fresh = std::mem::take(&mut self.fresh);
            if fresh.len() <= CHAIN {
                for object in fresh {
                    match self.heap.run_of(object).filter(|run| self.heap.take_grey_of(run)) {
                        Some(run) if run.kind.count == 1 => self.single(&run)?,
                        Some(run) => self.plan(run),
                        None => {}
                    }
                }
            }
            if self.ranges.is_empty() && self.fresh.is_empty() {
                return Ok(());
            }
        }
    }

    fn plan(&mut self, run: Run) {
        if self.heap.unscanned(&run, FEW + 1) <= FEW || run.kind.size > LARGE {
            self.plan_objects(run);
        } else {
            self.plan_whole(run);
        }
    }

    fn plan_whole(&mut self, run: Run) {
        let len = run.kind.size as usize;
        let last = self.ranges.len().wrapping_sub(1);
        let joined = match (self.ranges.last_mut(), self.plans.last()) {
            (Some(range), Some(Plan::Whole { .. })) if range.start.0 + range.len as u64 == run.start => {
                range.len += len;
                Some((last, range.len - len))
            }
            _ => None,
        };
        let (range, at) = joined.unwrap_or_else(|| {
            self.ranges.push(MemoryRange { start: RemoteAddr(run.start), len });
            (self.ranges.len() - 1, 0)
        });
        self.planned += len;
        self.plans.push(Plan::Whole { run, range, at });
    }

    /// Plans the unscanned objects of a span one by one.
    fn plan_objects(&mut self, run: Run) {
        let (mut objects, first, mut from) = (Vec::new(), self.ranges.len(), 0);
        while let Some((word, bits)) = self.heap.take_unscanned(&run, from) {
            from = word + 1;
            for bit in ones(bits) {
                let index = word as u32 * 64 + bit;
                objects.push(index);
                let len = run.kind.elem as usize;
                self.ranges.push(MemoryRange { start: RemoteAddr(run.object(index)), len });
            }
        }
        if objects.is_empty() {
            return;
        }
        self.planned += objects.len() * run.kind.elem as usize;
        let bits = match run.kind.info {
            PointerInfo::InSpan { at } => {
                let len = (run.kind.size / 64) as usize;
                self.ranges.push(MemoryRange { start: RemoteAddr(run.start + at), len });
                Some(self.ranges.len() - 1)
            }
            _ => None,
        };
        self.plans.push(Plan::Some { run, objects, first, bits });
    }

    /// Reads what is planned, and scans it.
    fn read(&mut self) -> Result<(), MemoryError> {
        if self.ranges.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.read(self.source.memory, &self.ranges)?;
        self.reached.bytes_read += self.ranges.iter().map(|range| range.len as u64).sum::<u64>();
        let mut plans = std::mem::take(&mut self.plans);
        for plan in &plans {
            match plan {
                Plan::Whole { run, range, at } => {
                    let len = run.kind.size as usize;
                    match batch.get(*range) {
                        Some(bytes) => self.whole(run, bytes.get(*at..at + len).unwrap_or_default()),
                        // Pages that were given back, of this one or of a neighbour. Of the former nothing is left to be scanned.
                        None => match self.source.memory.bytes(RemoteAddr(run.start), len) {
                            Ok(bytes) => self.whole(run, &bytes),
                            Err(MemoryError::Missing { .. }) => self.whole(run, &[]),
                            Err(error) => return Err(error),
                        },
                    }
                }
                Plan::Some { run, objects, first, bits } => {
                    let bits = bits.and_then(|range| batch.get(range));
                    for (i, index) in objects.iter().enumerate() {
                        if let Some(bytes) = batch.get(first + i) {
                            self.object(run, *index, bytes, bits);
                        }
                    }
                }
            }
        }
        self.follow();
        self.batch = batch;
        self.ranges.clear();
        self.planned = 0;
        let spans = plans.drain(..).filter_map(|plan| match plan {
            Plan::Some { run, .. } if run.kind.size <= LARGE => Some(run),
            _ => None,
        });
        // What goes on in the span where it was goes on there for long: the rest of a list.
        let again: Vec<Run> = spans.filter(|run| self.heap.unscanned(run, 1) > 0).collect();
        self.plans = plans;
        for run in again {
            if self.planned < CALL_BYTES && self.heap.take_grey_of(&run) {
                self.plan_whole(run);
            }
        }
        Ok(())
    }

    /// Scans all that is unscanned in a span, and what becomes marked in it meanwhile.
    fn whole(&mut self, run: &Run, bytes: &[u8]) {
        let bits = match run.kind.info {
            PointerInfo::InSpan { at } => bytes.get(at as usize..(at + run.kind.size / 64) as usize),
            _ => None,
        };
        let mut from = 0;
        loop {
            let Some((word, taken)) = self.heap.take_unscanned(run, from) else {
                if from == 0 {
                    return;
                }
                self.follow();
                from = 0;
                if self.fresh.len() <= CHAIN {
                    // Those are the next ones here.
                    self.fresh.retain(|object| !object.is_in(run.start));
                }
                continue;
            };
            from = word + 1;
            for bit in ones(taken) {
                let index = word as u32 * 64 + bit;
                let at = (u64::from(index) * run.kind.elem) as usize;
                if let Some(object) = bytes.get(at..at + run.kind.elem as usize) {
                    self.object(run, index, object, bits);
                }
            }
        }
    }

    /// Scans an object that has a span to itself, piece by piece.
    fn single(&mut self, run: &Run) -> Result<(), MemoryError> {
        if self.heap.take_unscanned(run, 0).is_none() {
            return Ok(());
        }
        if run.kind.size <= LARGE {
            match self.source.memory.bytes(RemoteAddr(run.start), run.kind.elem as usize) {
                Ok(bytes) => {
                    self.reached.bytes_read += run.kind.elem;
                    self.object(run, 0, &bytes, None);
                }
                Err(MemoryError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            self.follow();
            return Ok(());
        }
        let map = match run.kind.info {
            PointerInfo::Large { kind } => self.types.get(kind),
            _ => self.types.get(0),
        };
        let mut buffer = vec![0; PIECE.min(run.kind.elem as usize)];
        let mut done = 0;
        while done < run.kind.elem {
            let len = (run.kind.elem - done).min(PIECE as u64);
            let piece = buffer.get_mut(..len as usize).unwrap_or_default();
            match self.source.memory.read(RemoteAddr(run.start + done), piece) {
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
        self.follow();
        Ok(())
    }

    /// Scans one object.
    #[inline]
    fn object(&mut self, run: &Run, index: u32, bytes: &[u8], bits: Option<&[u8]>) {
        if run.has_special
            && let Some(treatment) = self.special.objects.get(&(run.object(index) + run.kind.info.header()))
        {
            return self.special_object(treatment, run, index, bytes, bits);
        }
        if run.kind.elem == self.special.sudog_slot && !self.special.on_condition.is_empty() {
            let g = word_at(bytes, u64::from(self.source.layout.sudog.g.offset));
            self.reached.woken.extend(self.special.on_condition.get(&g));
        }
        self.ordinary(run, index, bytes, bits, &[]);
    }

    fn special_object(&mut self, treatment: &Treatment, run: &Run, index: u32, bytes: &[u8], bits: Option<&[u8]>) {
        match treatment {
            Treatment::Opaque => {}
            Treatment::Processor => self.ordinary(run, index, bytes, bits, &self.special.exceptions),
            Treatment::Sudog(candidate) => {
                if self.special.on_condition.is_empty() {
                    // The common case: nothing of it matters but its links.
                } else {
                    let g = word_at(bytes, u64::from(self.source.layout.sudog.g.offset));
                    self.reached.woken.extend(self.special.on_condition.get(&g));
                }
                if self.special.live.get(*candidate as usize) == Some(&true) {
                    return self.ordinary(run, index, bytes, bits, &[]);
                }
                for offset in links(&self.source.layout.sudog) {
                    self.visit(word_at(bytes, u64::from(offset)));
                }
            }
        }
    }

    #[inline]
    fn ordinary(&mut self, run: &Run, index: u32, bytes: &[u8], bits: Option<&[u8]>, except: &[std::ops::Range<u64>]) {
        let elem = run.kind.elem;
        match run.kind.info {
            PointerInfo::None | PointerInfo::Manual => {}
            PointerInfo::InSpan { .. } => {
                let first = u64::from(index) * elem / 8;
                let words = elem / 8;
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
                // The header is no reference; but where no type is written yet, the word there is no header.
                if *map == TypeMap::Any {
                    self.visit(word_at(bytes, 0));
                }
                let header = run.kind.info.header();
                map.pointers(0, elem - header, |offset| {
                    if !except.iter().any(|range| range.contains(&offset)) {
                        self.visit(word_at(bytes, header + offset));
                    }
                });
            }
            PointerInfo::Large { kind } => {
                let map = self.types.get(kind);
                map.pointers(0, elem, |offset| self.visit(word_at(bytes, offset)));
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

    /// Remembers to follow `word`, if it may be a pointer.
    #[inline]
    fn visit(&mut self, word: u64) {
        if self.heap.may_hold(word) {
            self.pointers.push(word);
            if self.pointers.len() >= TOGETHER {
                self.follow();
            }
        }
    }

    /// Marks what the words remembered point at.
    fn follow(&mut self) {
        let mut count = 0;
        for &word in &self.pointers {
            match self.heap.find(word) {
                Found::Nothing => {}
                Found::Stray => self.reached.strays.add(word),
                Found::Object(object) => {
                    if let Some(slot) = self.objects.get_mut(count) {
                        *slot = object;
                        count += 1;
                    }
                }
            }
        }
        self.pointers.clear();
        // Without a branch on what cannot be foretold: those that are not marked move to the front.
        let mut fresh = 0;
        for at in 0..count {
            let object = self.objects.get(at).copied().unwrap_or_default();
            if let Some(slot) = self.objects.get_mut(fresh) {
                *slot = object;
            }
            fresh += usize::from(!self.heap.is_marked(object));
        }
        let marked = self.objects.get(..fresh).unwrap_or_default();
        marked.iter().for_each(|object| self.heap.mark(*object));
        let room = (CHAIN + 1).saturating_sub(self.fresh.len());
        self.fresh.extend(marked.iter().filter(|object| object.is_scannable()).take(room));
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

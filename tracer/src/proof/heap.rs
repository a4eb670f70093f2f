//! The heap, and our own mark bits over it.
//!
//! In: the runtime's [`Span`]s. Out: [`Heap`], which says of any word which object it points at, and remembers which objects
//! were marked, which of those were scanned, and where there are some that were not. Knows neither roots nor goroutines.
//!
//! For each page a word says all that is needed to find an object's bits, so that a pointer costs two accesses to memory and no
//! more: its kind of span, which page of the span it is, and where the span's bits begin. So marks take two bits an object and
//! eight bytes a page, a 300th of a heap of objects of 64 bytes.
//!
//! The table is read while the program runs. Spans that came after it was read are found out by pointers into pages that
//! were nobody's ([`Found::Stray`]); [`Heap::refresh`] takes them in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hashbrown::HashMap;

use super::ProofError;
use super::spans::{self, Kind, PAGE, PAGE_SHIFT, PointerInfo, Rules, Span};
use crate::snapshot::Source;

/// Arenas are 64 MiB on 64-bit Linux: <https://github.com/golang/go/blob/go1.27.3/src/runtime/malloc.go#L219-L251>.
const ARENA_SHIFT: u32 = 26;
const ARENA_PAGES: usize = 1 << (ARENA_SHIFT - PAGE_SHIFT);
/// Words of 64 in a bit for each page of an arena.
pub(super) const ARENA_WORDS: usize = ARENA_PAGES / 64;
/// Objects believed: their bits take a gigabyte.
const OBJECT_LIMIT: u64 = 1 << 32;
/// Arenas with a table of pages believed, 2 TiB; larger objects need none.
const ARENA_LIMIT: usize = 1 << 15;
/// Spans of one object believed.
const SINGLE_LIMIT: usize = 1 << 27;
/// Pages that were nobody's, remembered of one look.
const STRAY_LIMIT: usize = 1 << 16;

/// What is known of a page, in a word: from the lowest bit on 32 bits of where the span's bits begin, in words of 64, or the
/// number of its one object; 15 bits of how many pages of the span lie before; a bit that is set where some of its objects are
/// special; 16 bits of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Page(u64);

impl Page {
    const NOBODY: u16 = 0;
    const SINGLE: u16 = u16::MAX;
    const MANUAL: u16 = u16::MAX - 1;
    const BEFORE: u32 = 32;
    const SPECIAL: u64 = 1 << 47;
    const KIND: u32 = 48;

    fn new(kind: u16, before: u64, low: u32) -> Self {
        Self(u64::from(kind) << Self::KIND | before << Self::BEFORE | u64::from(low))
    }

    fn kind(self) -> u16 {
        (self.0 >> Self::KIND) as u16
    }

    fn low(self) -> u32 {
        self.0 as u32
    }

    /// Bytes of the span before this page.
    fn before(self) -> u64 {
        (self.0 >> Self::BEFORE & 0x7fff) << PAGE_SHIFT
    }

    fn is_special(self) -> bool {
        self.0 & Self::SPECIAL != 0
    }

    /// Of spans with several objects.
    fn shared(self) -> Option<usize> {
        (!matches!(self.kind(), Self::NOBODY | Self::SINGLE | Self::MANUAL)).then(|| usize::from(self.kind()) - 1)
    }
}

/// A kind of span with several objects, with what finding one of them takes.
#[derive(Clone, Copy, Debug)]
struct Class {
    kind: Kind,
    /// Go's own way to divide: `^uint32(0)/size + 1`.
    reciprocal: u32,
    /// Bytes from the span's start to behind its last object.
    limit: u64,
}

/// A span of one object.
#[derive(Debug)]
struct Single {
    start: u64,
    kind: Kind,
    /// Its word of bits, of which it has the first.
    bits: usize,
    has_special: bool,
    grey: AtomicBool,
}

/// A run of pages with objects of one size, as it is scanned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) kind: Kind,
    /// Where its bits begin, in words of 64.
    bits: usize,
    /// Some of its objects are not to be scanned as others are.
    pub(super) has_special: bool,
    grey: Grey,
}

impl Run {
    /// The address of an object.
    pub(super) fn object(&self, index: u32) -> u64 {
        self.start + u64::from(index) * self.kind.elem
    }

    fn bit_words(&self) -> usize {
        (self.kind.count as usize).div_ceil(64)
    }
}

/// Where it is remembered that a span has objects that are marked and not scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grey {
    /// The bit of its first page.
    Page(usize),
    /// In its [`Single`].
    Single(usize),
}

/// One object, small enough to have many at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    /// The number of its bit.
    bit: u64,
    /// The address of its span, or four times the number of its [`Single`]; with the two bits below.
    of: u64,
}

impl Object {
    /// It may hold pointers.
    const SCANNABLE: u64 = 1;
    /// It has a span to itself.
    const SINGLE: u64 = 2;

    fn new(bit: u64, of: u64, info: PointerInfo) -> Self {
        Self { bit, of: of | if info == PointerInfo::None { 0 } else { Self::SCANNABLE } }
    }

    /// Whether it may hold pointers.
    pub(super) fn is_scannable(self) -> bool {
        self.of & Self::SCANNABLE != 0
    }

    /// Whether it is one of several in the span that begins at `start`.
    pub(super) fn is_in(self, start: u64) -> bool {
        self.of & Self::SINGLE == 0 && self.of & !Self::SCANNABLE == start
    }
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A pointer into this object.
    Object(Object),
    /// No pointer into an object.
    Nothing,
    /// A pointer into pages of the heap that were nobody's when the table was read.
    Stray,
}

/// Objects to which the runtime has attached something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attached {
    /// The span's first object.
    pub(super) start: u64,
    /// Its objects' size.
    pub(super) elem: u64,
    /// The first record.
    pub(super) specials: u64,
}

/// The spans, and two bits for each of their objects.
#[derive(Debug, Default)]
pub(super) struct Heap {
    /// Arena number less `first_arena` -> the number of its table in `pages`, plus one; or a number in `singles`, plus one,
    /// with the top bit set: an arena that is all one object's, or that of no object ([`NO_OBJECT`]).
    arenas: Vec<u32>,
    first_arena: u64,
    /// The tables, [`ARENA_PAGES`] each.
    pages: Vec<Page>,
    classes: Vec<Class>,
    numbers: HashMap<Kind, u16>,
    singles: Vec<Single>,
    marks: Vec<AtomicU64>,
    scanned: Vec<AtomicU64>,
    /// A bit for each of `pages`.
    grey: Vec<AtomicU64>,
    pub(super) attached: Vec<Attached>,
    /// Bytes in spans of objects.
    pub(super) bytes: u64,
}

const WHOLE: u32 = 1 << 31;
/// The number of the object of a span that has none.
const NO_OBJECT: u32 = WHOLE - 2;

impl Heap {
    /// Reads the span table.
    pub(super) fn read(source: &Source<'_>, rules: Rules) -> Result<Self, ProofError> {
        let mut heap = Self::default();
        heap.refresh(source, rules)?;
        Ok(heap)
    }

    /// Reads the span table again: spans that are new or whose pages were given to others are added. True if there are any.
    pub(super) fn refresh(&mut self, source: &Source<'_>, rules: Rules) -> Result<bool, ProofError> {
        (self.bytes, self.attached) = (0, Vec::new());
        let mut new = false;
        spans::each(source, rules, |spans| {
            self.place(spans)?;
            for span in spans {
                new |= self.take_in(span)?;
            }
            Ok(())
        })?;
        Ok(new)
    }

    /// Makes room for all arenas of `spans`.
    fn place(&mut self, spans: &[Span]) -> Result<(), ProofError> {
        let Some(low) = spans.iter().map(|span| span.start >> ARENA_SHIFT).min() else { return Ok(()) };
        let high = spans.iter().map(|span| (span.start + span.kind.size - 1) >> ARENA_SHIFT).max().unwrap_or(low);
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

    /// Adds a span, if it is not known; true if it was not.
    fn take_in(&mut self, span: &Span) -> Result<bool, ProofError> {
        if span.kind.info != PointerInfo::Manual {
            self.bytes = self.bytes.saturating_add(span.kind.size);
            if span.specials != 0 {
                let (start, elem) = (span.start, span.kind.elem);
                self.attached.push(Attached { start, elem, specials: span.specials });
            }
        }
        let page = match self.page(span.start) {
            At::Page(page) => self.pages.get(page).copied().unwrap_or_default(),
            At::Whole(number) => Page::new(Page::SINGLE, 0, number),
            At::Nowhere => Page::default(),
        };
        let known = match page.kind() {
            Page::NOBODY => false,
            // Where there are no objects it matters only that there are none.
            Page::MANUAL => span.kind.info == PointerInfo::Manual,
            Page::SINGLE => match self.singles.get(page.low() as usize) {
                Some(single) => single.start == span.start && single.kind == span.kind,
                None => span.kind.info == PointerInfo::Manual,
            },
            _ => page.before() == 0 && self.class(page).is_some_and(|class| class.kind == span.kind),
        };
        if !known {
            self.add(span)?;
        }
        Ok(!known)
    }

    fn add(&mut self, span: &Span) -> Result<(), ProofError> {
        let too_many = || ProofError::corrupt("there are more objects than a heap has");
        let kind = span.kind;
        let bits = u32::try_from(self.marks.len()).map_err(|_| too_many())?;
        if self.marks.len() as u64 * 64 + u64::from(kind.count) > OBJECT_LIMIT {
            return Err(too_many());
        }
        let (number, low) = match kind {
            Kind { info: PointerInfo::Manual, .. } => (Page::MANUAL, NO_OBJECT),
            Kind { count: 1, .. } => {
                let number = u32::try_from(self.singles.len()).ok().filter(|n| (*n as usize) < SINGLE_LIMIT);
                let single = Single {
                    start: span.start,
                    kind,
                    bits: bits as usize,
                    has_special: false,
                    grey: AtomicBool::new(false),
                };
                self.singles.push(single);
                (Page::SINGLE, number.ok_or_else(too_many)?)
            }
            _ => (self.number(kind)?, bits),
        };
        let words = (kind.count as usize).div_ceil(64);
        self.marks.resize_with(self.marks.len() + words, AtomicU64::default);
        self.scanned.resize_with(self.scanned.len() + words, AtomicU64::default);
        self.forget_remnants(span.start, span.start + kind.size);
        let (first, end) = (span.start >> PAGE_SHIFT, (span.start + kind.size) >> PAGE_SHIFT);
        let mut page = first;
        while page < end {
            let arena = page >> (ARENA_SHIFT - PAGE_SHIFT);
            let upto = end.min((arena + 1) << (ARENA_SHIFT - PAGE_SHIFT));
            let pages = (upto - page) as usize;
            if matches!(number, Page::SINGLE | Page::MANUAL) && pages == ARENA_PAGES {
                if let Some(slot) = self.arenas.get_mut((arena - self.first_arena) as usize) {
                    *slot = (low + 1) | WHOLE;
                }
                page = upto;
                continue;
            }
            let from = self.table(arena)? + (page % ARENA_PAGES as u64) as usize;
            for (i, slot) in self.pages.get_mut(from..from + pages).unwrap_or_default().iter_mut().enumerate() {
                let before = if number == Page::SINGLE || number == Page::MANUAL { 0 } else { page - first + i as u64 };
                *slot = Page::new(number, before, low);
            }
            page = upto;
        }
        Ok(())
    }

    /// Pages of spans that others have got some pages of are nobody's: what points there is remembered.
    fn forget_remnants(&mut self, start: u64, end: u64) {
        if let At::Page(at) = self.page(start) {
            let page = self.pages.get(at).copied().unwrap_or_default();
            if page.shared().is_some() {
                self.forget(start - page.before(), start);
            }
        }
        if let At::Page(at) = self.page(end) {
            let page = self.pages.get(at).copied().unwrap_or_default();
            if let Some(class) = page.shared().and_then(|number| self.classes.get(number))
                && page.before() > 0
            {
                self.forget(end, end - page.before() + class.kind.size);
            }
        }
    }

    fn forget(&mut self, start: u64, end: u64) {
        for address in (start..end).step_by(PAGE as usize) {
            if let At::Page(at) = self.page(address)
                && let Some(page) = self.pages.get_mut(at)
            {
                *page = Page::default();
            }
        }
    }

    /// The number of a kind of span.
    fn number(&mut self, kind: Kind) -> Result<u16, ProofError> {
        if let Some(number) = self.numbers.get(&kind) {
            return Ok(*number);
        }
        let number = u16::try_from(self.classes.len() + 1).ok().filter(|number| *number < Page::MANUAL);
        let number = number.ok_or_else(|| ProofError::corrupt("there are more kinds of spans than a heap has"))?;
        let reciprocal = if kind.elem < 1 << 31 { u32::MAX / kind.elem as u32 + 1 } else { 0 };
        self.classes.push(Class { kind, reciprocal, limit: u64::from(kind.count) * kind.elem });
        self.numbers.insert(kind, number);
        Ok(number)
    }

    /// Where the table of `arena` begins in `pages`; made if there is none.
    fn table(&mut self, arena: u64) -> Result<usize, ProofError> {
        let slot = self.arenas.get_mut((arena - self.first_arena) as usize);
        let Some(slot) = slot else { return Err(ProofError::corrupt("a span lies outside all arenas")) };
        if *slot == 0 || *slot & WHOLE != 0 {
            let tables = self.pages.len() / ARENA_PAGES;
            if tables >= ARENA_LIMIT {
                return Err(ProofError::corrupt("its spans lie in more arenas than a heap has"));
            }
            self.pages.resize(self.pages.len() + ARENA_PAGES, Page::default());
            self.grey.resize_with(self.grey.len() + ARENA_WORDS, AtomicU64::default);
            *slot = tables as u32 + 1;
        }
        Ok((*slot as usize - 1) * ARENA_PAGES)
    }

    /// What `address` is in.
    #[inline]
    fn page(&self, address: u64) -> At {
        let arena = (address >> ARENA_SHIFT).wrapping_sub(self.first_arena);
        // Addresses are 48 bits here, so nothing is lost.
        match self.arenas.get(arena as usize) {
            None | Some(0) => At::Nowhere,
            Some(slot) if slot & WHOLE != 0 => At::Whole((slot & !WHOLE) - 1),
            Some(slot) => At::Page((*slot as usize - 1) * ARENA_PAGES + (address >> PAGE_SHIFT) as usize % ARENA_PAGES),
        }
    }

    fn class(&self, page: Page) -> Option<&Class> {
        self.classes.get(page.shared()?)
    }

    /// Whether `word` is an address between the heap's first and last: quick, and right of nearly all words that are none.
    #[inline]
    pub(super) fn may_hold(&self, word: u64) -> bool {
        (word >> ARENA_SHIFT).wrapping_sub(self.first_arena) < self.arenas.len() as u64
    }

    /// What `word` points at.
    #[inline]
    pub(super) fn find(&self, word: u64) -> Found {
        match self.page(word) {
            At::Nowhere => Found::Nothing,
            At::Page(at) => match self.pages.get(at) {
                Some(page) => self.find_in(*page, word),
                None => Found::Nothing,
            },
            At::Whole(number) => self.single(number, word),
        }
    }

    #[inline]
    fn find_in(&self, page: Page, word: u64) -> Found {
        match page.kind() {
            Page::NOBODY => Found::Stray,
            Page::MANUAL => Found::Nothing,
            Page::SINGLE => self.single(page.low(), word),
            _ => {
                let offset = page.before() + word % PAGE;
                let Some(class) = self.class(page).filter(|class| offset < class.limit) else { return Found::Nothing };
                let index = (offset * u64::from(class.reciprocal)) >> 32;
                let bit = u64::from(page.low()) * 64 + index;
                Found::Object(Object::new(bit, word - offset, class.kind.info))
            }
        }
    }

    fn single(&self, number: u32, word: u64) -> Found {
        let Some(single) = self.singles.get(number as usize) else { return Found::Nothing };
        if word.wrapping_sub(single.start) >= single.kind.elem {
            return Found::Nothing;
        }
        let of = (u64::from(number) * 4) | Object::SINGLE;
        Found::Object(Object::new(single.bits as u64 * 64, of, single.kind.info))
    }

    /// Marks the object at which `word` points, if it does.
    pub(super) fn root(&self, word: u64, strays: &mut Strays) {
        match self.find(word) {
            Found::Object(object) => self.mark(object),
            Found::Stray => strays.add(word),
            Found::Nothing => {}
        }
    }

    /// The object that `word` points at, if it does.
    pub(super) fn object(&self, word: u64) -> Option<Object> {
        match self.find(word) {
            Found::Object(object) => Some(object),
            Found::Nothing | Found::Stray => None,
        }
    }

    pub(super) fn is_marked(&self, object: Object) -> bool {
        let word = self.marks.get((object.bit / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (object.bit % 64) & 1 == 1)
    }

    /// Marks `object`, and remembers that there is something to scan.
    #[inline]
    pub(super) fn mark(&self, object: Object) {
        let Some(word) = self.marks.get((object.bit / 64) as usize) else { return };
        let bit = 1 << (object.bit % 64);
        // Most pointers lead to what is marked: look before writing.
        if word.load(Ordering::Relaxed) & bit == 0
            && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
            && object.is_scannable()
            && let Some(grey) = self.grey_of(object)
        {
            self.make_grey(grey);
        }
    }

    /// Where it is remembered that there is something to scan in the object's span.
    fn grey_of(&self, object: Object) -> Option<Grey> {
        if object.of & Object::SINGLE != 0 {
            return Some(Grey::Single((object.of >> 2) as usize));
        }
        match self.page(object.of) {
            At::Page(page) => Some(Grey::Page(page)),
            At::Whole(_) | At::Nowhere => None,
        }
    }

    /// One thread marks and then looks whether the span is grey; another takes that and then looks for marks. One of them must
    /// see what the other did, or an object is never scanned: so these four are in one order for all (`SeqCst`).
    #[inline]
    fn make_grey(&self, grey: Grey) {
        match grey {
            Grey::Page(page) => {
                let (word, bit) = (self.grey.get(page / 64), 1 << (page % 64));
                if let Some(word) = word.filter(|word| word.load(Ordering::SeqCst) & bit == 0) {
                    word.fetch_or(bit, Ordering::SeqCst);
                }
            }
            Grey::Single(number) => {
                if let Some(single) = self.singles.get(number) {
                    single.grey.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// Where each arena's bits of [`Heap::take_grey`] begin, with the arena's address, by rising address.
    pub(super) fn tables(&self) -> Vec<(u64, usize)> {
        let tables = self.arenas.iter().enumerate().filter(|(_, slot)| **slot != 0 && **slot & WHOLE == 0);
        let one = |(i, slot): (usize, &u32)| {
            ((self.first_arena + i as u64) << ARENA_SHIFT, (*slot as usize - 1) * ARENA_WORDS)
        };
        tables.map(one).collect()
    }

    /// Takes what is grey of 64 pages, those of word `at`: a bit for each.
    pub(super) fn take_grey(&self, at: usize) -> u64 {
        match self.grey.get(at) {
            Some(word) if word.load(Ordering::Relaxed) != 0 => word.swap(0, Ordering::SeqCst),
            _ => 0,
        }
    }

    /// Takes a span's own bit: whether it was grey.
    pub(super) fn take_grey_of(&self, run: &Run) -> bool {
        match run.grey {
            Grey::Page(page) => {
                let (word, bit) = (self.grey.get(page / 64), 1 << (page % 64));
                word.is_some_and(|word| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
            }
            Grey::Single(number) => {
                self.singles.get(number).is_some_and(|single| single.grey.swap(false, Ordering::SeqCst))
            }
        }
    }

    /// The span that `object` is in.
    pub(super) fn run_of(&self, object: Object) -> Option<Run> {
        match self.grey_of(object)? {
            Grey::Page(_) => self.run(object.of & !Object::SCANNABLE),
            Grey::Single(number) => self.singles.get(number).map(|single| single.run(number)),
        }
    }

    /// The spans of one object that are grey, which they are no more.
    pub(super) fn take_grey_singles(&self) -> Vec<Run> {
        let grey = self.singles.iter().enumerate().filter(|(_, single)| single.grey.load(Ordering::Relaxed));
        let taken = grey.filter(|(_, single)| single.grey.swap(false, Ordering::SeqCst));
        taken.map(|(number, single)| single.run(number)).collect()
    }

    /// Whether anything is grey.
    pub(super) fn has_grey(&self) -> bool {
        self.grey.iter().any(|word| word.load(Ordering::Acquire) != 0)
            || self.singles.iter().any(|single| single.grey.load(Ordering::Acquire))
    }

    /// The span with several objects that begins at `start`.
    pub(super) fn run(&self, start: u64) -> Option<Run> {
        let At::Page(at) = self.page(start) else { return None };
        let page = *self.pages.get(at)?;
        let class = self.class(page).filter(|_| page.before() == 0)?;
        Some(Run {
            start,
            kind: class.kind,
            bits: page.low() as usize,
            has_special: page.is_special(),
            grey: Grey::Page(at),
        })
    }

    /// All spans of objects.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let shared = self.tables().into_iter().flat_map(move |(start, _)| {
            (0..ARENA_PAGES as u64).filter_map(move |page| self.run(start + (page << PAGE_SHIFT)))
        });
        shared.chain(self.singles.iter().enumerate().map(|(number, single)| single.run(number)))
    }

    /// How many objects of `run` are marked and not scanned, at most `limit`.
    pub(super) fn unscanned(&self, run: &Run, limit: u32) -> u32 {
        let mut count = 0;
        for word in run.bits..run.bits + run.bit_words() {
            count += self.pending(word).count_ones();
            if count >= limit {
                break;
            }
        }
        count
    }

    fn pending(&self, word: usize) -> u64 {
        let marks = self.marks.get(word).map(|w| w.load(Ordering::SeqCst)).unwrap_or_default();
        let scanned = self.scanned.get(word).map(|w| w.load(Ordering::Relaxed)).unwrap_or_default();
        marks & !scanned
    }

    /// Takes up to 64 objects of `run`, from the `from`th word of its bits on, that are marked and not scanned, and counts
    /// them as scanned. Gives their bits and the number of the word.
    pub(super) fn take_unscanned(&self, run: &Run, from: usize) -> Option<(usize, u64)> {
        for i in from..run.bit_words() {
            let pending = self.pending(run.bits + i);
            if pending != 0 {
                if let Some(word) = self.scanned.get(run.bits + i) {
                    word.fetch_or(pending, Ordering::Relaxed);
                }
                return Some((i, pending));
            }
        }
        None
    }

    /// Counts every object as not scanned, and all spans that have marked ones with pointers in them as grey.
    pub(super) fn scan_again(&mut self) {
        self.scanned.iter_mut().for_each(|word| *word.get_mut() = 0);
        let scannable = self.runs().filter(|run| run.kind.info != PointerInfo::None);
        scannable.filter(|run| self.unscanned(run, 1) > 0).for_each(|run| self.make_grey(run.grey));
    }

    /// How many objects are marked, and how many bytes they are.
    pub(super) fn marked(&self) -> (u64, u64) {
        let mut sum = (0, 0_u64);
        for run in self.runs() {
            let words = self.marks.get(run.bits..run.bits + run.bit_words());
            let bits = words.into_iter().flatten().map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()));
            let count: u64 = bits.sum();
            sum = (sum.0 + count, sum.1.saturating_add(count.saturating_mul(run.kind.elem)));
        }
        sum
    }

    /// A copy of all marks.
    pub(super) fn snapshot(&self) -> Vec<u64> {
        self.marks.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// The objects, by span, that are marked and were not in `before`.
    pub(super) fn added<'h>(&'h self, before: &'h [u64]) -> impl Iterator<Item = (Run, Vec<u32>)> + 'h {
        self.runs().filter_map(|run| {
            let mut objects = Vec::new();
            for i in 0..run.bit_words() {
                let word = run.bits + i;
                let now = self.marks.get(word).map(|word| word.load(Ordering::Relaxed)).unwrap_or_default();
                objects
                    .extend(ones(now & !before.get(word).copied().unwrap_or_default()).map(|bit| i as u32 * 64 + bit));
            }
            (!objects.is_empty()).then_some((run, objects))
        })
    }

    /// Remembers that the object at `address` is to be treated by itself.
    pub(super) fn set_special(&mut self, address: u64) {
        match self.object(address).and_then(|object| self.grey_of(object)) {
            Some(Grey::Page(at)) => {
                if let Some(page) = self.pages.get_mut(at) {
                    page.0 |= Page::SPECIAL;
                }
            }
            Some(Grey::Single(number)) => {
                if let Some(single) = self.singles.get_mut(number) {
                    single.has_special = true;
                }
            }
            None => {}
        }
    }

    /// The address space that is the heap's, in use or not.
    pub(super) fn arenas(&self) -> Vec<(u64, u64)> {
        let used = self.arenas.iter().enumerate().filter(|(_, slot)| **slot != 0);
        let start = |i: usize| (self.first_arena + i as u64) << ARENA_SHIFT;
        used.map(|(i, _)| (start(i), start(i + 1))).collect()
    }
}

impl Single {
    fn run(&self, number: usize) -> Run {
        Run {
            start: self.start,
            kind: self.kind,
            bits: self.bits,
            has_special: self.has_special,
            grey: Grey::Single(number),
        }
    }
}

/// What an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// This one of `pages`.
    Page(usize),
    /// An arena that is all this one object's.
    Whole(u32),
    /// No arena.
    Nowhere,
}

/// The numbers of the bits that are set.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let bit = bits.trailing_zeros();
        bits &= bits - 1;
        Some(bit)
    })
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARENA: u64 = 0xc0_0000_0000;

    fn span(page: u64, pages: u64, elem: u64, info: PointerInfo) -> Span {
        let (size, count) = (pages * PAGE, if info == PointerInfo::Manual { 0 } else { (pages * PAGE / elem) as u32 });
        Span { start: ARENA + page * PAGE, kind: Kind { size, elem, count, info }, specials: 0 }
    }

    fn heap(spans: &[Span]) -> Heap {
        let mut heap = Heap::default();
        add(&mut heap, spans);
        heap
    }

    /// How many of them are new.
    fn add(heap: &mut Heap, spans: &[Span]) -> usize {
        heap.place(spans).expect("there is room");
        spans.iter().filter(|span| heap.take_in(span).expect("they are few")).count()
    }

    /// The objects that are marked, by address.
    fn marked(heap: &Heap) -> Vec<u64> {
        let runs = heap.added(&[]).map(|(run, objects)| objects.iter().map(|i| run.object(*i)).collect::<Vec<_>>());
        let mut all: Vec<u64> = runs.flatten().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn pointers_lead_to_objects() {
        let small = span(3, 1, 48, PointerInfo::InSpan { at: 8064 });
        let long = span(8190, 4, 6144, PointerInfo::Header);
        let huge = span(8194, 3 * 8192, 3 * 8192 * PAGE, PointerInfo::Large { kind: 0 });
        let heap = heap(&[small, long, huge, span(5, 4, 8, PointerInfo::Manual)]);
        let mut strays = Strays::default();
        // The second object of the small span, from its middle; the one across two pages and two arenas, from its end.
        for word in [small.start + 48 + 13, long.start + 3 * 6144 - 1, huge.start + (1 << 26) + 5, huge.start] {
            heap.root(word, &mut strays);
        }
        // Behind the last object; a stack; nobody's page; outside of all arenas.
        for word in [small.start + 170 * 48, ARENA + 5 * PAGE + 8, ARENA + 9 * PAGE, ARENA - 8, u64::MAX, 0] {
            heap.root(word, &mut strays);
        }
        assert_eq!(marked(&heap), [small.start + 48, long.start + 2 * 6144, huge.start]);
        assert_eq!(strays.take(), [ARENA + 9 * PAGE]);
        assert!(heap.has_grey());
        let (start, word) = *heap.tables().first().expect("an arena");
        assert_eq!((start, heap.take_grey(word)), (ARENA, 1 << 3));
        assert_eq!(heap.take_grey_singles().iter().map(|run| run.start).collect::<Vec<_>>(), [huge.start]);
    }

    #[test]
    fn a_span_is_taken_by_what_was_marked_in_it() {
        let (small, long) = (span(3, 1, 64, PointerInfo::Any), span(4, 3, 3 * PAGE, PointerInfo::Any));
        let heap = heap(&[small, long, span(7, 1, 64, PointerInfo::Any)]);
        for (word, inside) in [(small.start + 640, true), (long.start + 2 * PAGE, false)] {
            heap.root(word, &mut Strays::default());
            let object = heap.object(word).expect("an object");
            let run = heap.run_of(object).expect("its span");
            assert_eq!(
                heap.object(run.start).and_then(|first| heap.run_of(first)).map(|run| run.start),
                Some(run.start)
            );
            assert_eq!((object.is_in(run.start), object.is_in(small.start + 4 * PAGE)), (inside, false));
            assert_eq!([heap.take_grey_of(&run), heap.take_grey_of(&run)], [true, false]);
            assert_eq!(heap.unscanned(&run, 2), 1);
        }
        assert!(!heap.has_grey());
    }

    #[test]
    fn what_holds_no_pointers_is_not_scanned() {
        let heap = heap(&[span(0, 1, 16, PointerInfo::None), span(1, 1, 8192, PointerInfo::None)]);
        heap.root(ARENA + 16, &mut Strays::default());
        heap.root(ARENA + PAGE, &mut Strays::default());
        assert_eq!(marked(&heap), [ARENA + 16, ARENA + PAGE]);
        assert!(!heap.has_grey());
    }

    #[test]
    fn pages_that_others_got_are_theirs_and_the_rest_nobodys() {
        let old = span(10, 4, 96, PointerInfo::None);
        let mut heap = heap(&[old, span(14, 1, 96, PointerInfo::None)]);
        assert_eq!(add(&mut heap, &[old]), 0, "it is known");
        assert_eq!(add(&mut heap, &[span(11, 1, 64, PointerInfo::None)]), 1);
        let find = |page: u64| heap.find(ARENA + page * PAGE);
        assert_eq!([find(10), find(12), find(13)], [Found::Stray; 3]);
        assert!(matches!(find(11), Found::Object(_)) && matches!(find(14), Found::Object(_)));
    }
}

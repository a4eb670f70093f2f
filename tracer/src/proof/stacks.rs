//! What goroutines that can run hold on their stacks.
//!
//! In: addresses of g structs. Out: words that are, or may be, pointers. A goroutine that is parked is walked by pcsp and its
//! frames are read as the collector reads them (`scanstack`,
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgcmark.go#L905-L1044>); of one that runs or moves, every word of
//! the whole stack counts, below SP too, for a preemption saves the registers there.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::blocked::print;
use super::frames::{FrameMap, FrameMaps, StackObject, Stub, StubClosure, Words, bases, frame_minimum};
use super::heap::{Heap, Strays};
use super::mark::Bounds;
use super::roots::each_piece;
use super::{Locate, ProofError};
use crate::go_runtime::{GLayout, Status, Variable};
use crate::process::memory::{Batch, MemoryRange};
use crate::snapshot::Source;
use crate::snapshot::collect::BinaryRules;
use crate::snapshot::raw::{ObjectBatch, RawG};
use crate::snapshot::unwind::{Registers, StackWords, walk};
use crate::units::{Pc, RemoteAddr};

/// Goroutines handled together.
const CHUNK: usize = 1024;
/// Bytes of a stack read with others; larger ones are read by themselves.
const TOGETHER: u64 = 32 << 10;
/// Bytes of a stack that is read precisely; of a larger one every word counts.
const PRECISE_LIMIT: u64 = 64 << 20;
/// Go's bound on a stack, twice.
const STACK_LIMIT: u64 = 2_000_000_000;
/// Looks at a goroutine that moves before its whole stack counts.
const ATTEMPTS: usize = 3;
/// Deferred calls of a goroutine followed.
const DEFER_LIMIT: usize = 1 << 20;

/// A goroutine as its stack was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    pub(super) address: RemoteAddr,
    /// See [`print`].
    pub(super) print: u64,
}

/// A physical frame of a walk.
struct Visited {
    pc: u64,
    /// Where it begins: where its callee's ends.
    sp: u64,
    fp: u64,
}

/// Reads stacks, on several threads.
pub(super) struct StackScanners<'a> {
    /// One for each thread: each remembers the frames that it has seen.
    scanners: Vec<StackScanner<'a>>,
}

impl<'a> StackScanners<'a> {
    pub(super) fn new(source: &'a Source<'a>, bounds: Bounds<'_>) -> Result<Self, ProofError> {
        let scanners = (0..bounds.threads.max(1)).map(|_| StackScanner::new(source));
        Ok(Self { scanners: scanners.collect::<Result<_, _>>()? })
    }

    /// Marks what the goroutines at `addresses` hold. Gives what they were like, and what led to nobody's pages.
    pub(super) fn scan(&mut self, addresses: &[RemoteAddr], heap: &Heap) -> Result<(Vec<Scanned>, Strays), ProofError> {
        let (chunks, next) = (addresses.chunks(CHUNK).collect::<Vec<_>>(), AtomicUsize::new(0));
        let threads = self.scanners.len().min(chunks.len()).max(1);
        let work = |scanner: &mut StackScanner<'a>| {
            let (mut scanned, mut strays) = (Vec::new(), Strays::default());
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                scanner.scan(chunk, &mut scanned, &mut |word| heap.root(word, &mut strays))?;
            }
            Ok::<_, ProofError>((scanned, strays))
        };
        let work = &work;
        std::thread::scope(|scope| {
            let Some((first, others)) = self.scanners.split_first_mut() else { return Ok(Default::default()) };
            let others = others.iter_mut().take(threads - 1);
            let others: Vec<_> = others.map(|scanner| scope.spawn(move || work(scanner))).collect();
            let (mut scanned, mut strays) = work(first)?;
            for other in others {
                // A worker has no way to panic; one that did would have left stacks unread.
                let (more, others) = other.join().map_err(|_| ProofError::corrupt("a worker failed"))??;
                scanned.extend(more);
                strays.absorb(others);
            }
            Ok((scanned, strays))
        })
    }

    /// How many stacks were read word by word.
    pub(super) fn loose(&self) -> usize {
        self.scanners.iter().map(|scanner| scanner.loose).sum()
    }
}

/// Reads stacks.
struct StackScanner<'a> {
    source: &'a Source<'a>,
    rules: BinaryRules<'a>,
    frames: FrameMaps<'a>,
    first: ObjectBatch,
    second: ObjectBatch,
    batch: Batch,
    visited: Vec<Visited>,
    /// How many stacks were read word by word.
    loose: usize,
}

/// The fields of a g that matter here.
#[derive(Clone)]
struct Fields {
    raw: RawG,
    status: Status,
    panic: u64,
    defers: u64,
    /// All of its words but the bounds of its stack: one equals the address of the next span.
    words: Vec<u64>,
}

/// The words of a stack, read beforehand.
struct Window<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl StackWords for Window<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
}

impl<'a> StackScanner<'a> {
    fn new(source: &'a Source<'a>) -> Result<Self, ProofError> {
        let module = source.remote(Variable::Firstmoduledata)?;
        let rodata = source.bias.pc(RemoteAddr(source.memory.word(source.layout.moduledata.rodata.at(module))?));
        Ok(Self {
            source,
            rules: BinaryRules::new(source),
            frames: FrameMaps::new(source.binary, rodata),
            first: ObjectBatch::default(),
            second: ObjectBatch::default(),
            batch: Batch::default(),
            visited: Vec::new(),
            loose: 0,
        })
    }

    /// Gives to `take` what the goroutines at `addresses` hold.
    fn scan(
        &mut self,
        addresses: &[RemoteAddr],
        scanned: &mut Vec<Scanned>,
        take: &mut impl FnMut(u64),
    ) -> Result<(), ProofError> {
        let mut open = addresses.to_vec();
        for attempt in 1..=ATTEMPTS {
            open = self.attempt(&open, attempt == ATTEMPTS, take, scanned)?;
            if open.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// One look at each; those that moved come back, unless it is the last look.
    fn attempt(
        &mut self,
        addresses: &[RemoteAddr],
        last: bool,
        take: &mut impl FnMut(u64),
        scanned: &mut Vec<Scanned>,
    ) -> Result<Vec<RemoteAddr>, ProofError> {
        let memory = self.source.memory;
        self.first.read(memory, addresses, self.source.layout.g.size)?;
        let mut all = Vec::with_capacity(addresses.len());
        let mut ranges = Vec::new();
        for (i, &address) in addresses.iter().enumerate() {
            let Some(fields) = self.fields(&self.first, i, address) else {
                return Err(ProofError::corrupt("a goroutine's struct cannot be read"));
            };
            if !fields.status.is_alive() {
                scanned.push(Scanned { address, print: print(&fields.raw) });
                continue;
            }
            let registers = fields.raw.registers(fields.status).filter(|_| fields.status != Status::Running);
            let size = registers.map_or(0, |r| fields.raw.stack_hi - r.sp);
            let range = registers.filter(|_| size <= TOGETHER).map(|registers| {
                ranges.push(MemoryRange { start: RemoteAddr(registers.sp), len: size as usize });
                ranges.len() - 1
            });
            all.push((address, fields, registers, range));
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.read(memory, &ranges)?;
        let again: Vec<RemoteAddr> = all.iter().map(|(address, ..)| *address).collect();
        self.second.read(memory, &again, self.source.layout.g.size)?;
        let mut moved = Vec::new();
        for (i, (address, fields, registers, range)) in all.iter().enumerate() {
            let (address, registers) = (*address, *registers);
            let seen = print(&fields.raw);
            let later = self.fields(&self.second, i, address);
            let still = later.as_ref().is_some_and(|later| print(&later.raw) == seen);
            if let (Some(registers), true) = (registers, still) {
                let precise = match range.and_then(|range| batch.get(range)) {
                    Some(bytes) => self.precise(fields, registers, bytes),
                    None => self.precise_alone(address, fields, registers, seen)?,
                };
                if let Some(words) = precise {
                    words.into_iter().chain(fields.words.iter().copied()).for_each(&mut *take);
                    scanned.push(Scanned { address, print: seen });
                    continue;
                }
            } else if !last && fields.status != Status::Running {
                moved.push(address);
                continue;
            }
            // It runs or went on moving, or its frames are not understood. Of one that stands nothing below SP is in use: what
            // an earlier call or an earlier owner of the stack has left there is no reference.
            let now = later.as_ref().filter(|later| later.status.is_alive()).unwrap_or(fields);
            self.loose += 1;
            let low = registers.filter(|_| still).map_or(fields.raw.stack_lo, |registers| registers.sp);
            loosely(self.source, low, fields.raw.stack_hi, take)?;
            if (now.raw.stack_lo, now.raw.stack_hi) != (fields.raw.stack_lo, fields.raw.stack_hi) {
                loosely(self.source, now.raw.stack_lo, now.raw.stack_hi, take)?;
            }
            fields.words.iter().chain(&now.words).copied().for_each(&mut *take);
            scanned.push(Scanned { address, print: seen });
        }
        self.batch = batch;
        Ok(moved)
    }

    fn fields(&self, batch: &ObjectBatch, index: usize, address: RemoteAddr) -> Option<Fields> {
        let (layout, minor) = (&self.source.layout.g, self.source.binary.version().minor());
        batch.with(self.source.memory, index, address, |bytes| Fields::parse(bytes, layout, minor))
    }

    /// As [`StackScanner::precise`], of a stack that was too large to be read with others.
    fn precise_alone(
        &mut self,
        address: RemoteAddr,
        fields: &Fields,
        registers: Registers,
        seen: u64,
    ) -> Result<Option<Vec<u64>>, ProofError> {
        let size = fields.raw.stack_hi - registers.sp;
        if size > PRECISE_LIMIT {
            return Ok(None);
        }
        let Ok(bytes) = self.source.memory.bytes(RemoteAddr(registers.sp), size as usize) else { return Ok(None) };
        let found = self.precise(fields, registers, &bytes);
        let again = self.source.memory.bytes(address, self.source.layout.g.size as usize)?;
        let still = RawG::parse(&again, &self.source.layout.g).is_some_and(|later| print(&later) == seen);
        Ok(found.filter(|_| still))
    }

    /// The pointers on a parked goroutine's stack, of which `bytes` is the used part; `None` if its frames are not understood.
    fn precise(&mut self, fields: &Fields, registers: Registers, bytes: &[u8]) -> Option<Vec<u64>> {
        let arch = self.source.binary.arch();
        let mut window = Window { start: registers.sp, bytes };
        self.visited.clear();
        let visited = &mut self.visited;
        let mut sp = registers.sp;
        let end = walk(registers, arch, &mut window, &mut self.rules, |pc, fp| {
            visited.push(Visited { pc, sp, fp });
            sp = fp;
        });
        if !end.is_whole() {
            return None;
        }
        let mut found =
            Found { start: registers.sp, bytes, low: fields.raw.stack_lo, hi: fields.raw.stack_hi, ..Found::default() };
        let mut interrupted = false;
        for frame in &self.visited {
            let (varp, argp) = bases(arch, frame.sp, frame.fp);
            let framed = varp.saturating_sub(frame.sp) > frame_minimum(arch);
            let map = self.frames.get(self.source.bias.pc(RemoteAddr(frame.pc)), framed);
            let any_args = match &*map {
                FrameMap::Unknown => return None,
                FrameMap::Any { args } | FrameMap::Interrupted { args } => Some(*args),
                FrameMap::Reflect { .. } if interrupted => return None,
                FrameMap::Reflect { entry } => {
                    self.stub(*entry, frame, varp, argp, &mut found)?;
                    None
                }
                FrameMap::Precise { args, .. } if interrupted => Some(u64::from(args.count) * 8),
                FrameMap::Precise { .. } => None,
            };
            if let Some(args) = any_args {
                // On arm64 what interrupted a frame saved the link register in 16 bytes between the two.
                let end =
                    if interrupted || matches!(*map, FrameMap::Interrupted { .. }) { frame.fp + 16 } else { varp };
                found.all(frame.sp, end.max(varp));
                found.all(argp, argp.saturating_add(args));
            }
            if let FrameMap::Precise { locals, args, objects } = &*map {
                if any_args.is_none() {
                    let first = varp.wrapping_sub(8 * u64::from(locals.count));
                    locals.pointers().for_each(|word| found.word_at(first.wrapping_add(8 * word)));
                    args.pointers().for_each(|word| found.word_at(argp.wrapping_add(8 * word)));
                }
                for object in objects {
                    let base = if object.offset < 0 { varp } else { argp };
                    let at = base.wrapping_add_signed(i64::from(object.offset));
                    // Before the frame is set up there is no such object.
                    if at >= frame.sp {
                        found.objects.insert(at, object.clone());
                    }
                }
            }
            interrupted = matches!(*map, FrameMap::Interrupted { .. });
        }
        // A panic under way: its record lies in the frame of `gopanic` or `Goexit`.
        found.word(fields.panic);
        self.deferred(fields, &mut found)?;
        found.follow();
        Some(found.words)
    }

    /// What a stub of `reflect` was given, by `argMapInternal` of
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/stkframe.go#L94-L153>; `None` if that makes no sense.
    fn stub(&self, entry: Pc, frame: &Visited, varp: u64, argp: u64, found: &mut Found<'_>) -> Option<()> {
        let (stub, memory) = (Stub::of(self.source.binary.arch()), self.source.memory);
        // It has not begun, and has no arguments: with some, the `go` statement wraps it in a function of its own.
        if varp <= frame.sp {
            return (self.source.bias.pc(RemoteAddr(frame.pc)) == entry).then_some(());
        }
        let pointers = varp.checked_sub(stub.pointers)?;
        (0..stub.registers).for_each(|register| found.word_at(pointers + 8 * register));
        let closure = found.at(frame.sp + stub.closure)?;
        let results = found.at(frame.sp + stub.results)? & 0xff != 0;
        let closure = StubClosure::parse(&memory.bytes(RemoteAddr(closure), StubClosure::SIZE).ok()?)?;
        if closure.function != self.source.bias.remote(entry).0 {
            return None;
        }
        let head = memory.bytes(RemoteAddr(closure.stack), 16).ok()?;
        let (count, bits) = closure.vector(&head, results)?;
        if count > 0 {
            let bits = memory.bytes(RemoteAddr(bits), count.div_ceil(8) as usize).ok()?;
            Words::new(count, bits).pointers().for_each(|word| found.word_at(argp.wrapping_add(8 * word)));
        }
        Some(())
    }

    /// What deferred calls hold; `None` if their list makes no sense.
    fn deferred(&self, fields: &Fields, found: &mut Found<'_>) -> Option<()> {
        let layout = &self.source.layout.defer_record;
        let mut at = fields.defers;
        for _ in 0..DEFER_LIMIT {
            if at == 0 {
                return Some(());
            }
            found.word(at);
            let bytes = self.source.memory.bytes(RemoteAddr(at), layout.size as usize).ok()?;
            found.word(layout.f.read(&bytes)?);
            let next = layout.link.read(&bytes)?;
            if next == at {
                return None;
            }
            at = next;
        }
        None
    }
}

impl Fields {
    fn parse(bytes: &[u8], layout: &GLayout, minor: u16) -> Option<Self> {
        let raw = RawG::parse(bytes, layout)?;
        let status = Status::parse(raw.status_word, minor)?;
        let bounds = [raw.stack_lo, raw.stack_hi];
        Some(Self {
            status,
            panic: layout.panic.read(bytes)?,
            defers: layout.defers.read(bytes)?,
            words: words(bytes).filter(|word| *word > 1 << 20 && !bounds.contains(word)).collect(),
            raw,
        })
    }
}

/// The pointers found on one stack.
#[derive(Default)]
struct Found<'a> {
    start: u64,
    bytes: &'a [u8],
    low: u64,
    hi: u64,
    /// Those that lead out of the stack.
    words: Vec<u64>,
    /// Those that lead into it.
    inner: Vec<u64>,
    /// By address.
    objects: std::collections::BTreeMap<u64, StackObject>,
}

impl Found<'_> {
    fn at(&self, address: u64) -> Option<u64> {
        Window { start: self.start, bytes: self.bytes }.word(address)
    }

    fn word_at(&mut self, address: u64) {
        if let Some(word) = self.at(address) {
            self.word(word);
        }
    }

    fn word(&mut self, word: u64) {
        if self.low <= word && word < self.hi {
            self.inner.push(word);
        } else if word != 0 {
            self.words.push(word);
        }
    }

    fn all(&mut self, low: u64, high: u64) {
        let high = high.min(self.hi);
        (low..high).step_by(8).for_each(|address| self.word_at(address));
    }

    /// Follows pointers into the stack to its objects, each read once.
    fn follow(&mut self) {
        while let Some(word) = self.inner.pop() {
            let Some((&at, object)) = self.objects.range(..=word).next_back() else { continue };
            if word - at >= u64::from(object.size) {
                continue;
            }
            let Some(object) = self.objects.remove(&at) else { continue };
            match &object.words {
                Some(words) => words.pointers().for_each(|word| self.word_at(at + 8 * word)),
                None => self.all(at, at + u64::from(object.size)),
            }
        }
    }
}

/// Every word from `low` to `high`. The end of a thread's stack that was never used is not mapped.
pub(super) fn loosely(source: &Source<'_>, low: u64, high: u64, take: &mut impl FnMut(u64)) -> Result<(), ProofError> {
    let high = high.min(low.saturating_add(STACK_LIMIT));
    each_piece(source.memory, low.next_multiple_of(8), high, &mut |_, bytes| words(bytes).for_each(&mut *take))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).filter_map(|word| word.first_chunk().map(|word| u64::from_le_bytes(*word)))
}

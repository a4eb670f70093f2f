//! Goroutines out of memory that changes while it is read.
//!
//! In: addresses of g structs. Out: goroutines with their stacks. A few thousand at a time: read the structs, the used parts
//! of their stacks, what they wait on; then read the structs again. Those that stood still are consistent; the others are
//! tried again, a few times. The fewer at a time, the shorter between the two looks; the more, the fewer system calls.

use hashbrown::HashMap;

use super::arguments::{self, Arguments};
use super::raw::{ObjectBatch, RawG};
use super::stacks::{Frames, Stack, Stacks};
use super::unwind::{Registers, Rule, Rules, StackWords, walk};
use super::waits::read_waits;
use super::{Goroutine, Source, StackState, Wait};
use crate::binary::Arch;
use crate::go_runtime::{SCAN_BIT, Status};
use crate::process::memory::{Batch, MemoryError, MemoryRange, ReadMemory};
use crate::units::{Goid, MonotonicNs, Pc, RemoteAddr};

/// Goroutines handled together.
pub(super) const CHUNK: usize = 2048;
/// How often one is looked at before it counts as moving.
const ATTEMPTS: usize = 5;
/// Bytes of a stack read with the others; of the few larger ones the rest is read when the walk comes there.
const STACK_WINDOW: usize = 32 << 10;
/// Bytes of a large stack read at a time.
const LARGE_WINDOW: usize = 256 << 10;
/// Go's bound on a stack, twice: <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L171-L179>.
const STACK_LIMIT: u64 = 2_000_000_000;

/// What one worker found.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) goroutines: Vec<Goroutine>,
    pub(super) stacks: Stacks,
    pub(super) waits: Vec<Wait>,
    pub(super) arguments: Arguments,
    /// Goroutines that are in a bubble, and it.
    pub(super) bubbles: Vec<(RemoteAddr, RemoteAddr)>,
    /// g structs that could not be read or made no sense, and the first of them.
    pub(super) unreadable: usize,
    pub(super) first_unreadable: Option<RemoteAddr>,
}

/// The rules of one binary, loaded at a bias, each looked up once.
pub(crate) struct BinaryRules<'a> {
    source: &'a Source<'a>,
    known: HashMap<u64, Option<Rule>>,
}

/// So many rules are remembered; a program has fewer call sites, hostile memory more.
const RULE_LIMIT: usize = 1 << 20;

impl<'a> BinaryRules<'a> {
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, known: HashMap::new() }
    }

    fn look_up(&self, pc: u64) -> Option<Rule> {
        /// `funcFlag`: <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L37-L60>.
        const TOP: u8 = 1;
        const SP_WRITE: u8 = 2;
        let pc = self.source.bias.pc(RemoteAddr(pc));
        let function = self.source.binary.functions().find(pc)?;
        let sp_delta = function.sp_delta(pc)?;
        let name = function.name();
        Some(Rule {
            sp_delta,
            top: function.flags() & TOP != 0,
            // "It carefully arranges that during the transition BOTH stacks have cgocallback frame valid".
            writes_sp: function.flags() & SP_WRITE != 0 && name != "runtime.cgocallback",
            injected: super::symbols::is_injected(name),
        })
    }
}

impl Rules for BinaryRules<'_> {
    fn rule(&mut self, pc: u64) -> Option<Rule> {
        if let Some(rule) = self.known.get(&pc) {
            return *rule;
        }
        let rule = self.look_up(pc);
        if self.known.len() < RULE_LIMIT {
            self.known.insert(pc, rule);
        }
        rule
    }
}

/// The used part of a stack: what was read of it, and the rest on demand.
struct StackReader<'a> {
    memory: &'a dyn ReadMemory,
    start: u64,
    window: &'a [u8],
    /// A later window, once the walk has left the first.
    later: Vec<u8>,
    hi: u64,
}

impl StackReader<'_> {
    fn in_window(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = if self.later.is_empty() { self.window } else { &self.later };
        let word = bytes.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*word))
    }
}

impl StackWords for StackReader<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        if let Some(word) = self.in_window(address) {
            return Some(word);
        }
        // The walk only goes up.
        if address < self.start || address.checked_add(8)? > self.hi {
            return None;
        }
        let len = usize::try_from(self.hi - address).ok()?.min(LARGE_WINDOW);
        self.later = self.memory.bytes(RemoteAddr(address), len).ok()?;
        self.start = address;
        self.in_window(address)
    }
}

/// What a worker keeps between chunks.
pub(super) struct Worker<'a> {
    source: &'a Source<'a>,
    rules: BinaryRules<'a>,
    first: ObjectBatch,
    second: ObjectBatch,
    stacks: Batch,
    frames: Frames,
    /// Where they are asked for.
    arguments: Option<arguments::Collector<'a>>,
    pub(super) found: Collected,
}

/// A goroutine under examination.
struct Pending {
    address: RemoteAddr,
    raw: RawG,
    status: Status,
    registers: Option<Registers>,
    /// Its range in the batch of stacks.
    stack: Option<usize>,
    waits: (u32, u32),
}

impl<'a> Worker<'a> {
    pub(super) fn new(source: &'a Source<'a>, with_arguments: bool) -> Self {
        Self {
            source,
            arguments: with_arguments.then(|| arguments::Collector::new(source)),
            rules: BinaryRules::new(source),
            first: ObjectBatch::default(),
            second: ObjectBatch::default(),
            stacks: Batch::default(),
            frames: Frames::default(),
            found: Collected::default(),
        }
    }

    /// Reads the goroutines at `addresses`.
    pub(super) fn chunk(&mut self, addresses: &[RemoteAddr]) -> Result<(), MemoryError> {
        let mut addresses = addresses.to_vec();
        for attempt in 1..=ATTEMPTS {
            addresses = self.attempt(&addresses, attempt == ATTEMPTS)?;
            if addresses.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// One look at each of `addresses`; those that moved are given back, unless it is the last look.
    fn attempt(&mut self, addresses: &[RemoteAddr], last: bool) -> Result<Vec<RemoteAddr>, MemoryError> {
        let layout = &self.source.layout.g;
        let memory = self.source.memory;
        self.first.read(memory, addresses, layout.size)?;
        let mut pending = Vec::with_capacity(addresses.len());
        let mut ranges = Vec::with_capacity(addresses.len());
        let minor = self.source.binary.version().minor();
        for (i, &address) in addresses.iter().enumerate() {
            let raw = self.first.with(memory, i, address, |bytes| RawG::parse(bytes, layout));
            let parsed = raw.and_then(|raw| Some((Status::parse(raw.status_word, minor)?, raw)));
            let Some((status, raw)) = parsed else {
                self.found.unreadable += 1;
                self.found.first_unreadable.get_or_insert(address);
                continue;
            };
            if !status.is_alive() {
                continue;
            }
            let registers = raw.registers(status);
            let stack = registers.map(|registers| {
                let used = raw.stack_hi.saturating_sub(registers.sp).min(STACK_LIMIT);
                let len = usize::try_from(used).unwrap_or_default().min(STACK_WINDOW);
                ranges.push(MemoryRange { start: RemoteAddr(registers.sp), len });
                ranges.len() - 1
            });
            pending.push(Pending { address, raw, status, registers, stack, waits: (0, 0) });
        }
        self.stacks.read(memory, &ranges)?;
        let waiting: Vec<u64> =
            pending.iter().map(|p| if p.status == Status::Waiting { p.raw.waiting } else { 0 }).collect();
        let waits = read_waits(memory, &self.source.layout.sudog, &waiting)?;
        for (one, range) in pending.iter_mut().zip(waits.ranges) {
            one.waits = range;
        }
        let again: Vec<RemoteAddr> = pending.iter().map(|p| p.address).collect();
        self.second.read(memory, &again, layout.size)?;

        let mut moved = Vec::new();
        for (i, one) in pending.iter().enumerate() {
            let later = self.second.with(memory, i, one.address, |bytes| RawG::parse(bytes, layout));
            let mut still = one.registers.is_none() && one.status == Status::Running
                || later.is_some_and(|later| one.raw.stood_still(&later));
            if !still && !last {
                moved.push(one.address);
                continue;
            }
            let mut stack = StackState::Running;
            if let (Some(registers), Some(range)) = (one.registers, one.stack) {
                stack = StackState::Moved;
                if still {
                    let (end, refilled) = self.unwind(one, registers, range);
                    still = !refilled || self.still_there(one);
                    if still {
                        stack = StackState::Read(self.found.stacks.intern(end));
                    } else if !last {
                        moved.push(one.address);
                        continue;
                    }
                }
            } else if one.status != Status::Running {
                stack = StackState::Moved;
            }
            let held = waits.all.get(one.waits.0 as usize..one.waits.1 as usize).unwrap_or_default();
            let first = self.found.waits.len() as u32;
            if still {
                self.found.waits.extend(held);
            }
            let goroutine = goroutine(self.source, one, stack, (first, self.found.waits.len() as u32), !still);
            self.found.goroutines.push(goroutine);
            if one.raw.bubble != 0 {
                self.found.bubbles.push((one.address, RemoteAddr(one.raw.bubble)));
            }
        }
        Ok(moved)
    }

    /// Walks the stack in batch range `range`; also says whether more of it had to be read.
    fn unwind(&mut self, one: &Pending, registers: Registers, range: usize) -> (Stack, bool) {
        self.frames.clear();
        let hi = one.raw.stack_hi.min(registers.sp.saturating_add(STACK_LIMIT));
        let (frames, bias) = (&mut self.frames, self.source.bias);
        let mut reader = StackReader {
            memory: self.source.memory,
            start: registers.sp,
            window: self.stacks.get(range).unwrap_or_default(),
            later: Vec::new(),
            hi,
        };
        let arch: Arch = self.source.binary.arch();
        let end =
            walk(registers, arch, &mut reader, &mut self.rules, |pc, top| frames.push(bias.pc(RemoteAddr(pc)), top));
        let (stack, mut refilled) = (frames.stack(end), !reader.later.is_empty());
        if let Some(arguments) = &mut self.arguments {
            let window = self.stacks.get(range).unwrap_or_default();
            let memory = self.source.memory;
            arguments.collect(one.address, &stack.pcs, &frames.tops(), hi, |address| {
                let at = address.checked_sub(registers.sp).and_then(|at| usize::try_from(at).ok());
                let word = at.and_then(|at| window.get(at..)?.first_chunk::<8>());
                word.map(|word| u64::from_le_bytes(*word)).or_else(|| {
                    refilled = true;
                    memory.word(RemoteAddr(address)).ok()
                })
            });
        }
        (stack, refilled)
    }

    /// Whether it stands as it stood, once more.
    fn still_there(&self, one: &Pending) -> bool {
        let layout = &self.source.layout.g;
        let bytes = self.source.memory.bytes(one.address, layout.size as usize).unwrap_or_default();
        RawG::parse(&bytes, layout).is_some_and(|later| one.raw.stood_still(&later))
    }
}

/// Runs the collector over `addresses` with `threads` workers. What was found before an error is kept.
pub(super) fn collect(
    source: &Source<'_>,
    addresses: &[RemoteAddr],
    threads: usize,
    with_arguments: bool,
) -> (Vec<Collected>, Option<MemoryError>) {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<MemoryError>> = Mutex::new(None);
    let chunks: Vec<&[RemoteAddr]> = addresses.chunks(CHUNK).collect();
    let work = || {
        let mut worker = Worker::new(source, with_arguments);
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = worker.chunk(chunk) {
                next.store(usize::MAX / 2, Ordering::Relaxed);
                failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                break;
            }
        }
        worker.found.arguments = worker.arguments.map(|collector| collector.found).unwrap_or_default();
        worker.found
    };
    let threads = threads.clamp(1, chunks.len().max(1));
    let found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut found = vec![work()];
        // A worker that panicked found nothing; there is no way for it to.
        found.extend(others.into_iter().filter_map(|other| other.join().ok()));
        found
    });
    (found, failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn goroutine(source: &Source<'_>, one: &Pending, stack: StackState, waits: (u32, u32), moved: bool) -> Goroutine {
    let raw = &one.raw;
    let address = |word: u64| RemoteAddr(word);
    Goroutine {
        goid: Goid(raw.goid),
        address: one.address,
        status: one.status,
        scan: raw.status_word & SCAN_BIT != 0,
        wait_reason: raw.waitreason,
        wait_since: (raw.waitsince != 0).then_some(MonotonicNs(raw.waitsince)),
        wait_seen: false,
        parent: Goid(raw.parent),
        gopc: address(raw.gopc),
        startpc: address(raw.startpc),
        stack_lo: address(raw.stack_lo),
        stack_hi: address(raw.stack_hi),
        pc: address(one.registers.map_or(0, |r| r.pc)),
        sp: address(one.registers.map_or(0, |r| r.sp)),
        bp: address(one.registers.map_or(0, |r| r.bp)),
        runs: raw.tracking_seq,
        m: address(raw.m),
        locked: raw.lockedm != 0,
        system: source.is_system(raw, one.status),
        labels: address(raw.labels),
        ancestors: address(raw.ancestors),
        stack,
        waits,
        moved,
    }
}

/// The start function of a goroutine as a link-time address.
pub(super) fn start(source: &Source<'_>, raw: &RawG) -> Pc {
    source.bias.pc(RemoteAddr(raw.startpc))
}

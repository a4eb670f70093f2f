//! What the runtime knows of itself, read in the same pass: scheduler, timers, collector, memory.
//!
//! None of it is consistent with the rest: each figure is as of the moment it was read.

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::raw::ObjectBatch;
use super::{Snapshot, Source};
use crate::go_runtime::{Field, Layout, Variable};
use crate::units::RemoteAddr;

/// Processors believed: `_MaxGomaxprocs` is unbounded, machines are not.
const PROCESSOR_LIMIT: u64 = 1 << 14;
/// Timers whose states are read, up to Go 1.22.
const TIMER_LIMIT: u64 = 1 << 22;
/// Pauses that the ring holds: <https://github.com/golang/go/blob/go1.27.3/src/runtime/mstats.go#L39-L40>.
const PAUSES: usize = 256;

/// The runtime's own figures. `None`: not found in this program, or not in this Go version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeStats {
    /// Distinct channels that goroutines are blocked on: `sudog.c` of all of `g.waiting`.
    pub blocked_channels: usize,
    /// `runtime.gomaxprocs`.
    pub gomaxprocs: Option<u64>,
    /// Threads there are: `sched.mnext - sched.nmfreed`, as the runtime's `mcount`.
    pub threads: Option<u64>,
    /// Threads without work: `sched.nmidle`.
    pub idle_threads: Option<u64>,
    /// Processors without work: `sched.npidle`.
    pub idle_processors: Option<u64>,
    /// Timers that are set, in the heaps of all of `runtime.allp`. From Go 1.23 (`p.timers.len` less `zombies`) without
    /// those of channels that nobody waits for, which the runtime keeps in no heap; before (`p.timers`, by `timer.status`)
    /// with them.
    pub timers: Option<u64>,
    /// Bytes of the heap that are live or were allocated since the last mark: `gcController.heapLive`.
    pub heap_live_bytes: Option<u64>,
    /// Bytes that the last cycle marked: `gcController.heapMarked`.
    pub heap_marked_bytes: Option<u64>,
    /// The heap size at which the next cycle should end by GOGC: `gcController.gcPercentHeapGoal` (`heapGoal` in 1.18). A
    /// memory limit can make it sooner.
    pub heap_goal_bytes: Option<u64>,
    /// GOGC: `gcController.gcPercent`; negative for off.
    pub gc_percent: Option<i32>,
    /// GOMEMLIMIT in bytes: `gcController.memoryLimit`; none where it is not set.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes of spans of the heap: `memstats.heapStats`, `inHeap`, summed over its three parts.
    pub heap_spans_bytes: Option<u64>,
    /// Bytes of spans of goroutines' stacks: the same, `inStacks`.
    pub stack_spans_bytes: Option<u64>,
    /// Cycles that were completed: `memstats.numgc`.
    pub gc_cycles: Option<u64>,
    /// Of them those that the program forced: `memstats.numforcedgc`.
    pub gc_forced_cycles: Option<u64>,
    /// Nanoseconds the world was stopped by the collector: `memstats.pause_total_ns`.
    pub gc_pause_total_ns: Option<u64>,
    /// When the last cycle ended, nanoseconds of the monotonic clock: `memstats.last_gc_nanotime`.
    pub last_gc_ns: Option<u64>,
    /// The share of processor time that the collector took since the start: `memstats.gc_cpu_fraction`.
    pub gc_cpu_fraction: Option<f64>,
    /// The last pauses, the newest first: the ring `memstats.pause_ns` with `pause_end`.
    pub gc_pauses: Vec<GcPause>,
}

/// One stop of the world by the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcPause {
    /// How long, in nanoseconds: of all stops of one cycle.
    pub ns: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_unix_ns: u64,
}

/// A copy of a struct that a runtime variable is.
struct Copied {
    bytes: Vec<u8>,
}

impl Copied {
    fn read(source: &Source<'_>, variable: Variable, size: u32) -> Option<Self> {
        let at = source.bias.remote(source.globals.pc(variable)?);
        source.memory.bytes(at, size as usize).ok().map(|bytes| Self { bytes })
    }

    fn get(&self, field: Field) -> Option<u64> {
        field.read(&self.bytes)
    }

    fn word(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }
}

impl RuntimeStats {
    /// Reads the figures beside `snapshot`, which was taken from the same source.
    #[must_use]
    pub fn read(source: &Source<'_>, snapshot: &Snapshot) -> Self {
        let mut stats = Self { blocked_channels: blocked_channels(snapshot), ..Self::default() };
        stats.scheduler(source);
        stats.collector(source);
        stats.memory(source);
        stats.timers = timers(source);
        stats
    }

    fn scheduler(&mut self, source: &Source<'_>) {
        let pc = source.globals.pc(Variable::Gomaxprocs);
        let read = pc.and_then(|pc| source.memory.bytes(source.bias.remote(pc), 4).ok());
        self.gomaxprocs = read.and_then(|b| b.first_chunk().map(|b| u64::from(u32::from_le_bytes(*b))));
        let layout = &source.layout.sched;
        let Some(sched) = Copied::read(source, Variable::Sched, layout.size) else { return };
        self.threads =
            sched.get(layout.mnext).zip(sched.get(layout.nmfreed)).map(|(made, freed)| made.wrapping_sub(freed));
        self.idle_threads = sched.get(layout.nmidle);
        self.idle_processors = sched.get(layout.npidle);
    }

    fn collector(&mut self, source: &Source<'_>) {
        let layout = &source.layout.gc_controller;
        let Some(controller) = Copied::read(source, Variable::GcController, layout.size) else { return };
        self.heap_live_bytes = controller.get(layout.heap_live);
        self.heap_marked_bytes = controller.get(layout.heap_marked);
        // All ones while GOGC is off.
        self.heap_goal_bytes = controller.get(layout.heap_goal).filter(|goal| *goal != u64::MAX);
        self.gc_percent = controller.get(layout.gc_percent).map(|percent| percent as i32);
        let limit = layout.memory_limit.and_then(|field| controller.get(field));
        self.memory_limit_bytes = limit.filter(|limit| *limit < i64::MAX as u64);
    }

    fn memory(&mut self, source: &Source<'_>) {
        let layout = &source.layout.memstats;
        let Some(stats) = Copied::read(source, Variable::Memstats, layout.size) else { return };
        let summed = |field: Field| {
            let delta = layout.heap_stats_delta.size as usize;
            // A part can be negative; the sum is not, but for the moment of a flush.
            let mut sum = 0_i64;
            for i in 0..3 {
                sum = sum.wrapping_add(stats.word(field.offset as usize + i * delta)? as i64);
            }
            u64::try_from(sum).ok()
        };
        self.heap_spans_bytes = summed(layout.in_heap);
        self.stack_spans_bytes = summed(layout.in_stacks);
        self.gc_cycles = stats.get(layout.numgc);
        self.gc_forced_cycles = stats.get(layout.numforcedgc);
        self.gc_pause_total_ns = stats.get(layout.pause_total_ns);
        self.last_gc_ns = stats.get(layout.last_gc_nanotime);
        self.gc_cpu_fraction = stats.get(layout.gc_cpu_fraction).map(f64::from_bits).filter(|share| share.is_finite());
        let cycles = self.gc_cycles.unwrap_or_default() as usize;
        let pause = |back: usize| {
            let slot = (cycles + PAUSES - 1 - back) % PAUSES * 8;
            let ns = stats.word(layout.pause_ns.offset as usize + slot)?;
            Some(GcPause { ns, ended_unix_ns: stats.word(layout.pause_end.offset as usize + slot)? })
        };
        self.gc_pauses = (0..cycles.min(PAUSES)).filter_map(pause).collect();
    }
}

fn blocked_channels(snapshot: &Snapshot) -> usize {
    let waits = snapshot.goroutines.iter().flat_map(|g| snapshot.waits(g));
    waits.map(|wait| wait.channel).filter(|channel| channel.0 != 0).collect::<HashSet<_>>().len()
}

fn timers(source: &Source<'_>) -> Option<u64> {
    let at = source.bias.remote(source.globals.pc(Variable::Allp)?);
    let header = source.memory.bytes(at, 16).ok()?;
    let start = u64::from_le_bytes(*header.first_chunk()?);
    let len = u64::from_le_bytes(*header.get(8..)?.first_chunk()?).min(PROCESSOR_LIMIT);
    let mut total = 0_u64;
    for i in 0..len {
        let p = source.memory.word(RemoteAddr(start.checked_add(i * 8)?)).ok()?;
        if p != 0 {
            total = total.saturating_add(timers_of(source, RemoteAddr(p))?);
        }
    }
    Some(total)
}

/// The timers of one processor.
fn timers_of(source: &Source<'_>, p: RemoteAddr) -> Option<u64> {
    let Layout { p: layout, timers, timer, .. } = source.layout;
    let slice = source.memory.bytes(layout.timers.at(p), 16).ok()?;
    let start = u64::from_le_bytes(*slice.first_chunk()?);
    let len = u64::from_le_bytes(*slice.get(8..)?.first_chunk()?);
    if let Some(timers) = timers {
        let base = RemoteAddr(layout.timers.at(p).0.checked_sub(u64::from(timers.heap.offset))?);
        let bytes = source.memory.bytes(base, timers.size as usize).ok()?;
        return Some(timers.len.read(&bytes)?.saturating_sub(timers.zombies.read(&bytes)?));
    }
    let status = timer.status?;
    let pointers = source.memory.bytes(RemoteAddr(start), len.min(TIMER_LIMIT) as usize * 8).ok()?;
    let pointers: Vec<RemoteAddr> = pointers
        .chunks_exact(8)
        .filter_map(|word| word.first_chunk().map(|word| RemoteAddr(u64::from_le_bytes(*word))))
        .collect();
    let mut batch = ObjectBatch::default();
    let mut set = 0;
    for chunk in pointers.chunks(4096) {
        batch.read(source.memory, chunk, timer.size).ok()?;
        for (i, &at) in chunk.iter().enumerate() {
            /// None, deleted, being removed, removed:
            /// <https://github.com/golang/go/blob/go1.22.10/src/runtime/time.go#L119-L152>.
            const UNSET: [u64; 4] = [0, 3, 4, 5];
            let state = batch.with(source.memory, i, at, |bytes| status.read(bytes));
            set += u64::from(state.is_some_and(|state| !UNSET.contains(&state)));
        }
    }
    Some(set)
}

//! The objects that goroutines wait for: channels and their timers, semaphores, and who has an object's address on its
//! stack.
//!
//! In: [`Source`], addresses. Out: what was there at that moment; what could not be read is left out. Each look has a bound,
//! for a target may have millions of each.

use hashbrown::{HashMap, HashSet};

use super::raw::ObjectBatch;
use super::{Goroutine, Snapshot, Source};
use crate::go_runtime::{Field, Variable};
use crate::process::memory::{Batch, MemoryRange};
use crate::units::RemoteAddr;

/// Timers looked at, up to Go 1.22.
const TIMER_LIMIT: usize = 1 << 20;
/// Processors believed.
const PROCESSOR_LIMIT: u64 = 1 << 14;
/// Nodes of the semaphores' trees followed.
const WAITER_LIMIT: usize = 1 << 20;
/// `semTabSize`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/sema.go#L50-L51>.
const ROOTS: u64 = 251;
/// Bytes of a bucket believed: they are as long as a cache line.
const BUCKET_LIMIT: u32 = 4096;
/// Bytes of stacks searched for an address, of one goroutine and in all.
const STACK_WINDOW: usize = 16 << 10;
/// See [`STACK_WINDOW`].
const SEARCH_LIMIT: usize = 64 << 20;
/// Stacks searched; of more the oldest goroutines' and the newest's. A stack costs the kernel more than its bytes do.
const STACKS: usize = 1 << 15;
/// Stacks read together.
const CHUNK: usize = 1024;
/// Goroutines told of a word.
const HOLDERS: usize = 64;

/// A `runtime.hchan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Bytes of an element.
    pub element_size: u64,
    /// Elements it can hold.
    pub capacity: u64,
    /// Elements it holds.
    pub len: u64,
    /// Whether it is closed.
    pub closed: bool,
    /// Whether a timer sends to it, ...
    pub timed: bool,
    /// ... and every so many nanoseconds, if it goes on and on.
    pub period_ns: Option<u64>,
}

/// Looks at objects of one program.
#[derive(Debug)]
pub struct Objects<'a> {
    source: Source<'a>,
    /// Up to Go 1.22 a channel does not know its timer: the timers know their channels.
    timers: HashMap<RemoteAddr, u64>,
}

impl<'a> Objects<'a> {
    /// Prepares to look.
    #[must_use]
    pub fn new(source: Source<'a>) -> Self {
        let mut objects = Self { source, timers: HashMap::new() };
        if source.layout.hchan.timer.is_none() {
            objects.timers = objects.timers_by_channel().unwrap_or_default();
        }
        objects
    }

    /// The channels at `addresses`, those that could be read.
    #[must_use]
    pub fn channels(&self, addresses: &[RemoteAddr]) -> HashMap<RemoteAddr, Channel> {
        let (layout, memory) = (&self.source.layout.hchan, self.source.memory);
        let mut batch = ObjectBatch::default();
        let mut found = HashMap::new();
        let mut timers = Vec::new();
        for chunk in addresses.chunks(4096) {
            if batch.read(memory, chunk, layout.size).is_err() {
                break;
            }
            for (i, &address) in chunk.iter().enumerate() {
                let read = batch.with(memory, i, address, |bytes| {
                    let timer = layout.timer.map_or(Some(0), |field| field.read(bytes))?;
                    let known = self.timers.get(&address).copied();
                    let channel = Channel {
                        element_size: layout.elemsize.read(bytes)?,
                        capacity: layout.dataqsiz.read(bytes)?,
                        len: layout.qcount.read(bytes)?,
                        closed: layout.closed.read(bytes)? != 0,
                        timed: timer != 0 || known.is_some(),
                        period_ns: known.filter(|period| *period != 0),
                    };
                    Some((channel, timer))
                });
                if let Some((channel, timer)) = read {
                    found.insert(address, channel);
                    if timer != 0 {
                        timers.push((address, RemoteAddr(timer)));
                    }
                }
            }
        }
        let layout = &self.source.layout.timer;
        for chunk in timers.chunks(4096) {
            let addresses: Vec<RemoteAddr> = chunk.iter().map(|(_, timer)| *timer).collect();
            if batch.read(memory, &addresses, layout.size).is_err() {
                break;
            }
            for (i, &(channel, timer)) in chunk.iter().enumerate() {
                let period = batch.with(memory, i, timer, |bytes| layout.period.read(bytes)).filter(|ns| *ns != 0);
                if let Some(channel) = found.get_mut(&channel) {
                    channel.period_ns = period;
                }
            }
        }
        found
    }

    /// The period of each channel's timer, 0 for one that fires once; up to Go 1.22.
    fn timers_by_channel(&self) -> Option<HashMap<RemoteAddr, u64>> {
        let Source { memory, layout, .. } = self.source;
        let slice = |at: RemoteAddr| {
            let header = memory.bytes(at, 16).ok()?;
            Some((u64::from_le_bytes(*header.first_chunk()?), u64::from_le_bytes(*header.get(8..)?.first_chunk()?)))
        };
        let words = |start: u64, len: u64| -> Option<Vec<RemoteAddr>> {
            let bytes = memory.bytes(RemoteAddr(start), usize::try_from(len).ok()?.checked_mul(8)?).ok()?;
            let words = bytes.chunks_exact(8).filter_map(|word| word.first_chunk());
            Some(words.map(|word| RemoteAddr(u64::from_le_bytes(*word))).collect())
        };
        let (start, len) = slice(self.variable(Variable::Allp)?)?;
        let mut found = HashMap::new();
        let mut batch = ObjectBatch::default();
        // The second word of the interface `arg`.
        let channel = Field { offset: layout.timer.arg.offset.checked_add(8)?, size: 8 };
        for p in words(start, len.min(PROCESSOR_LIMIT))?.into_iter().filter(|p| p.0 != 0) {
            let (start, len) = slice(layout.p.timers.at(p))?;
            let timers = words(start, len.min(TIMER_LIMIT as u64))?;
            for chunk in timers.chunks(4096) {
                batch.read(memory, chunk, layout.timer.size).ok()?;
                for (i, &timer) in chunk.iter().enumerate() {
                    let read = batch.with(memory, i, timer, |bytes| {
                        Some((RemoteAddr(channel.read(bytes)?), layout.timer.period.read(bytes)?))
                    });
                    if found.len() < TIMER_LIMIT {
                        found.extend(read);
                    }
                }
            }
        }
        Some(found)
    }

    fn variable(&self, variable: Variable) -> Option<RemoteAddr> {
        Some(self.source.bias.remote(self.source.globals.pc(variable)?))
    }

    /// Which semaphore each goroutine (by the address of its g) waits for: `runtime.semtable`, whose trees have a node for
    /// each semaphore and a list of waiters behind each node.
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/sema.go#L29-L62>
    #[must_use]
    pub fn semaphores(&self) -> HashMap<RemoteAddr, RemoteAddr> {
        let mut waiters = HashMap::new();
        let Source { memory, layout, .. } = self.source;
        let Some(table) = self.variable(Variable::Semtable) else { return waiters };
        let bucket = layout.sema_table.bucket;
        let root = layout.sema_table.root.offset.saturating_add(layout.sema_root.treap.offset);
        let size = bucket.size.clamp(1, BUCKET_LIMIT);
        let Ok(bytes) = memory.bytes(table, (u64::from(size) * ROOTS) as usize) else { return waiters };
        let roots = bytes.chunks_exact(size as usize);
        let treap = Field { offset: root, size: 8 };
        let mut at: Vec<RemoteAddr> =
            roots.filter_map(|root| treap.read(root)).filter(|node| *node != 0).map(RemoteAddr).collect();
        let mut seen: HashSet<RemoteAddr> = at.iter().copied().collect();
        let mut batch = ObjectBatch::default();
        while !at.is_empty() && seen.len() < WAITER_LIMIT {
            if batch.read(memory, &at, layout.sudog.size).is_err() {
                break;
            }
            let mut next = Vec::new();
            for (i, &node) in at.iter().enumerate() {
                let read = batch.with(memory, i, node, |bytes| {
                    let sudog = &layout.sudog;
                    let links = [sudog.prev.read(bytes)?, sudog.next.read(bytes)?, sudog.waitlink.read(bytes)?];
                    Some((RemoteAddr(sudog.g.read(bytes)?), RemoteAddr(sudog.elem.read(bytes)?), links))
                });
                let Some((g, semaphore, links)) = read else { continue };
                waiters.insert(g, semaphore);
                let links = links.into_iter().filter(|link| *link != 0 && link % 8 == 0).map(RemoteAddr);
                next.extend(links.filter(|link| seen.insert(*link)));
            }
            at = next;
        }
        waiters
    }

    /// The 64-bit word at `address`.
    #[must_use]
    pub fn word(&self, address: RemoteAddr) -> Option<u64> {
        self.source.memory.word(address).ok()
    }

    /// On whose stacks the words `wanted` stand, as indices into the snapshot's goroutines; of a goroutine those that `counts`.
    /// What lies there may be stale: it is a hint, not more. Of each stack the innermost 16 KiB are searched, 64 MiB and
    /// 32,768 stacks in all, and of each word 64 goroutines are told.
    #[must_use]
    pub fn on_stacks(
        &self,
        snapshot: &Snapshot,
        wanted: &HashSet<RemoteAddr>,
        counts: impl Fn(&Goroutine, RemoteAddr) -> bool,
    ) -> HashMap<RemoteAddr, Vec<u32>> {
        let mut found: HashMap<RemoteAddr, Vec<u32>> = HashMap::new();
        let (Some(&least), Some(&most)) = (wanted.iter().min(), wanted.iter().max()) else { return found };
        let mut batch = Batch::default();
        let mut left = SEARCH_LIMIT;
        let all = snapshot.goroutines.len();
        let oldest = all.min(STACKS / 2);
        let newest = all.saturating_sub(STACKS / 2).max(oldest);
        let chunks = [0..oldest, newest..all].into_iter().flat_map(|part| {
            let end = part.end;
            part.step_by(CHUNK).map(move |first| (first, end.min(first + CHUNK)))
        });
        for (first, end) in chunks {
            let chunk = snapshot.goroutines.get(first..end).unwrap_or_default();
            let ranges: Vec<MemoryRange> = chunk
                .iter()
                .map(|g| {
                    let used = g.stack_used().and_then(|used| usize::try_from(used).ok()).unwrap_or_default();
                    MemoryRange { start: g.sp, len: used.min(STACK_WINDOW) }
                })
                .collect();
            let bytes: usize = ranges.iter().map(|range| range.len).sum();
            if bytes > left || batch.read(self.source.memory, &ranges).is_err() {
                break;
            }
            left -= bytes;
            for (i, g) in chunk.iter().enumerate() {
                let index = (first + i) as u32;
                let words = batch.get(i).unwrap_or_default().chunks_exact(8).filter_map(|word| word.first_chunk());
                let words = words.map(|word| RemoteAddr(u64::from_le_bytes(*word)));
                for word in words.filter(|word| (least..=most).contains(word) && wanted.contains(word)) {
                    let holders = found.entry(word).or_default();
                    if holders.last() != Some(&index) && holders.len() < HOLDERS && counts(g, word) {
                        holders.push(index);
                    }
                }
            }
        }
        found
    }
}

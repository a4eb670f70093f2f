//! How many goroutines a program has made so far, by the runtime's own count: known without a probe.
//!
//! In: a tracee. Out: the ids that its scheduler has given out. Must not know levels nor budgets.

use crate::go_runtime::{Globals, Variable};
use crate::process::Process;
use crate::process::memory::{LiveMemory, ReadMemory as _};
use crate::tracee::{Program, Tracee};
use crate::units::RemoteAddr;

/// Where the count is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Births {
    at: Option<RemoteAddr>,
}

impl Births {
    /// Finds `sched.goidgen` of a program; nowhere as long as it is not known where that is loaded.
    pub(super) fn of(tracee: &Tracee) -> Self {
        let Program { binary, layout, .. } = tracee.program();
        let at = tracee.bias().and_then(|bias| {
            let sched = bias.remote(Globals::of(binary, layout).pc(Variable::Sched)?);
            sched.0.checked_add(u64::from(layout.sched.goidgen.offset)).map(RemoteAddr)
        });
        Self { at }
    }

    /// The ids that were given out: to each P 16 at a time, so that few of them may not have a goroutine yet. All versions:
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L5320>.
    pub(super) fn so_far(self, process: &Process) -> Option<u64> {
        LiveMemory::new(process).word(self.at?).ok()
    }
}

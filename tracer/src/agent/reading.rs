//! What it takes to read a process's memory, for who asks for a dump of it.
//!
//! In: a watched process. Out: a [`Source`] of its goroutines. Takes milliseconds to seconds, so it is done on a thread of
//! its own; nothing of the process is stopped.

use crate::process::Process;
use crate::process::memory::LiveMemory;
use crate::snapshot::Source;
use crate::tracee::{LoadBias, Program};
use crate::units::Pid;

/// Which process to read, and how.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The process.
    pub pid: Pid,
    /// When it began: with the PID, its identity.
    pub start_ticks: u64,
    /// Its program.
    pub program: Program,
    /// Where that is loaded.
    pub bias: LoadBias,
}

/// Calls `look` with all that is needed to read the process.
pub fn with_source<T>(process: &Process, subject: &Subject, look: impl FnOnce(&Source<'_>) -> T) -> T {
    let Program { binary, layout, wait_reasons, .. } = &subject.program;
    let globals = subject.program.globals();
    let memory = LiveMemory::new(process);
    look(&Source { memory: &memory, binary, layout, globals, reasons: wait_reasons, bias: subject.bias })
}

//! One look into a process's memory: its goroutines and what its runtime knows of itself.
//!
//! In: a program and where it is loaded. Out: a [`Reading`]. Takes milliseconds to seconds, so it is done on a thread of
//! its own; nothing of the process is stopped.

use std::time::{Duration, Instant};

use crate::go_runtime::Globals;
use crate::process::memory::LiveMemory;
use crate::process::{Process, ProcessError};
use crate::snapshot::{self, RuntimeStats, Snapshot, SnapshotError, Source};
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

/// What was read.
#[derive(Debug)]
pub struct Reading {
    /// The goroutines.
    pub snapshot: Snapshot,
    /// The runtime's own figures.
    pub runtime: RuntimeStats,
    /// Bytes of the goroutines' stacks.
    pub stack_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The process is gone, or not for us to see.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its memory.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The PID is another's by now.
    #[error("the process is another one by now")]
    Another,
}

/// Reads.
///
/// # Errors
///
/// If the process is gone, another, or its memory makes no sense.
pub fn read(subject: &Subject) -> Result<Reading, ReadError> {
    let begin = Instant::now();
    let process = Process::open(subject.pid)?;
    if process.start_ticks() != subject.start_ticks {
        return Err(ReadError::Another);
    }
    with_source(&process, subject, |source| {
        let snapshot = snapshot::take(source, snapshot::Options { threads: 1, ..Default::default() })?;
        let runtime = RuntimeStats::read(source, &snapshot);
        let stack_bytes = snapshot.goroutines.iter().map(snapshot::Goroutine::stack_size).sum();
        Ok(Reading { snapshot, runtime, stack_bytes, took: begin.elapsed() })
    })
}

/// Calls `look` with all that is needed to read the process.
pub fn with_source<T>(process: &Process, subject: &Subject, look: impl FnOnce(&Source<'_>) -> T) -> T {
    let Program { binary, layout, wait_reasons, .. } = &subject.program;
    let globals = Globals::of(binary, layout);
    let memory = LiveMemory::new(process);
    look(&Source { memory: &memory, binary, layout, globals: &globals, reasons: wait_reasons, bias: subject.bias })
}

//! Passes of the prover over one process: what `gotracer prove`, `leaks`, `dump` and the agent have in common.
//!
//! In: a process and how many passes to do. Out: what they gave, and a [`Report`] with names and stacks. Takes seconds, on the
//! caller's thread; stops nothing. Must not know who asks, nor print.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::go_runtime::Globals;
use crate::output::dump::View;
use crate::output::proof::{Proven, Report};
use crate::process::memory::LiveMemory;
use crate::process::{ProcessError, RegisterSamples};
use crate::proof::{Figures, Options, ProofError, Prover};
use crate::snapshot::{self, SnapshotError, Source, Symbols};
use crate::tracee::{LoadBias, Tracee};
use crate::units::Pid;

/// From the first to the last pass that must find a goroutine unreachable.
pub const LEAST_AGE: Duration = Duration::from_secs(2);

/// How passes are done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many.
    pub passes: u32,
    /// From the end of one to the start of the next.
    pub every: Duration,
    /// How long one may take.
    pub deadline: Duration,
    /// Threads that read and mark.
    pub threads: usize,
}

/// Why nothing was proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvingError {
    /// Where it is loaded is not known (yet).
    #[error("where process {pid} has loaded its program is not known")]
    NotLocated {
        /// The process.
        pid: Pid,
    },
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A pass.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The goroutines that were to be named.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Does the passes. `cancel` ends them, and what was found until then is given; `after` is told of each pass.
///
/// # Errors
///
/// If the process cannot be read, or not one pass was done.
pub fn passes(
    tracee: &Tracee,
    plan: &Plan,
    cancel: &AtomicBool,
    mut after: impl FnMut(u32, &Figures),
) -> Result<Proven, ProvingError> {
    with_source(tracee, |source, _| {
        let options = Options { threads: plan.threads, deadline: plan.deadline, least_age: LEAST_AGE, cancel };
        let mut prover = Prover::new(source, options)?;
        let (began, mut proven) = (Instant::now(), Proven::default());
        for pass in 1..=plan.passes {
            if pass > 1 && pause(plan.every, cancel) {
                break;
            }
            let process = tracee.process();
            let writable = if prover.has_foreign_memory() { process.writable_memory()? } else { Vec::new() };
            let registers = RegisterSamples::start(process);
            let registers = registers.inspect_err(|error| log::info!("registers cannot be sampled: {error}")).ok();
            match prover.pass(&writable, registers, true) {
                Ok(figures) => proven.figures = figures,
                Err(ProofError::Cancelled) if pass > 1 => break,
                Err(error) => return Err(error.into()),
            }
            after(pass, &proven.figures);
            log::debug!("{:?}", proven.figures);
        }
        (proven.leaks, proven.sites) = (prover.leaks()?, prover.sites().to_vec());
        (proven.passes, proven.took) = (prover.passes(), began.elapsed());
        Ok(proven)
    })
}

/// Puts names and stacks to what was proven.
///
/// # Errors
///
/// If the goroutines cannot be read (any more).
pub fn report(tracee: &Tracee, proven: &Proven) -> Result<Report, ProvingError> {
    with_source(tracee, |source, bias| {
        let program = tracee.program();
        let snapshot = snapshot::take(source, snapshot::Options::default())?;
        let view = View::new(&snapshot, Symbols::new(&program.binary), &program.wait_reasons, bias);
        let version = program.binary.version().to_string();
        Ok(Report::new(tracee.process().pid().0, &program.name, &version, proven, &view))
    })
}

fn with_source<T>(
    tracee: &Tracee,
    look: impl FnOnce(&Source<'_>, LoadBias) -> Result<T, ProvingError>,
) -> Result<T, ProvingError> {
    let bias = tracee.bias().ok_or(ProvingError::NotLocated { pid: tracee.process().pid() })?;
    let program = tracee.program();
    let (binary, layout) = (&*program.binary, &*program.layout);
    let memory = LiveMemory::new(tracee.process());
    let globals = Globals::of(binary, layout);
    look(&Source { memory: &memory, binary, layout, globals: &globals, reasons: &program.wait_reasons, bias }, bias)
}

/// Waits; true if it was cancelled.
fn pause(duration: Duration, cancel: &AtomicBool) -> bool {
    let end = Instant::now() + duration;
    while !cancel.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    true
}

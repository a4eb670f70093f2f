//! Passes of the prover over one process: what `gotracer prove`, `leaks`, `dump`, `top` and the agent have in common.
//!
//! In: a process and how many passes to do. Out: what they gave, and a [`Report`] with names and stacks. Takes seconds, on the
//! caller's thread; stops nothing. Must not know who asks, nor print.

mod pace;

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pace::Taken;

use crate::output::dump::View;
use crate::output::proof::{Proven, Report};
use crate::process::memory::LiveMemory;
use crate::process::{Process, ProcessError, RegisterSamples};
use crate::proof::{Figures, Options, ProofError, Prover};
use crate::snapshot::{self, SnapshotError, Source, Symbols};
use crate::tracee::{LoadBias, Program, Tracee};
use crate::units::Pid;

pub use pace::Pace;

/// From the first to the last pass that must find a goroutine unreachable.
pub const LEAST_AGE: Duration = Duration::from_secs(2);

/// How passes are done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many.
    pub passes: u32,
    /// How long they rest.
    pub pace: Pace,
    /// How long one may take.
    pub deadline: Duration,
    /// Threads that read and mark.
    pub threads: usize,
    /// Decides in which order heap and stacks are read.
    pub seed: u64,
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

/// Does the passes. `cancel` ends them, and what was found until then is given; `after` is told of each pass, and of the rest
/// that follows it if there is another.
///
/// # Errors
///
/// If the process cannot be read, or not one pass was done.
pub fn passes(
    tracee: &Tracee,
    plan: &Plan,
    cancel: &AtomicBool,
    mut after: impl FnMut(&Prover<'_>, &Figures, Option<Duration>),
) -> Result<Proven, ProvingError> {
    let Plan { threads, deadline, seed, .. } = *plan;
    let options = Options { threads, deadline, least_age: LEAST_AGE, seed, cancel };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (began, mut proven) = (Instant::now(), Proven { seed, ..Proven::default() });
    let (mut begun, mut before) = (began, Taken::now());
    let done = Subject::of(tracee, true)?.each_pass(options, |prover, figures| -> Result<_, ProvingError> {
        proven.figures = figures;
        let rest = plan.pace.rest(Taken::since(before), begun.elapsed(), processors);
        let rest = (prover.passes() < plan.passes).then_some(rest);
        after(prover, &proven.figures, rest);
        (proven.passes, proven.took) = (prover.passes(), began.elapsed());
        (proven.leaks, proven.sites) = (prover.leaks()?, prover.sites().to_vec());
        let enough = rest.is_none_or(|rest| pause(rest, cancel));
        (begun, before) = (Instant::now(), Taken::now());
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    match done {
        // What the passes before found is given.
        Err(ProvingError::Proof(ProofError::Cancelled)) if proven.passes > 0 => Ok(proven),
        Err(error) => Err(error),
        Ok(()) => Ok(proven),
    }
}

/// What passes are done on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The process.
    pub process: &'a Process,
    /// What it runs.
    pub program: &'a Program,
    /// Where that is loaded.
    pub bias: LoadBias,
    /// Find out what the leaked ones hold, too.
    pub weigh: bool,
}

impl<'a> Subject<'a> {
    /// A process and its program.
    ///
    /// # Errors
    ///
    /// If it is not known where the program is loaded.
    pub fn of(tracee: &'a Tracee, weigh: bool) -> Result<Self, ProvingError> {
        let bias = tracee.bias().ok_or(ProvingError::NotLocated { pid: tracee.process().pid() })?;
        Ok(Self { process: tracee.process(), program: tracee.program(), bias, weigh })
    }

    /// Does passes until `after`, which is called after each, has enough.
    ///
    /// # Errors
    ///
    /// If the process cannot be read, or `after` says so.
    pub fn each_pass<E: From<ProvingError>>(
        &self,
        options: Options<'_>,
        mut after: impl FnMut(&Prover<'_>, Figures) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.with_source(|source| {
            let mut prover = Prover::new(source, options).map_err(ProvingError::from)?;
            loop {
                let figures = self.pass(&mut prover)?;
                log::info!("{figures:?}");
                if after(&prover, figures)?.is_break() {
                    return Ok(());
                }
            }
        })
    }

    fn pass(&self, prover: &mut Prover<'_>) -> Result<Figures, ProvingError> {
        let writable = if prover.has_foreign_memory() { self.process.writable_memory()? } else { Vec::new() };
        let registers = RegisterSamples::start(self.process);
        let registers = registers.inspect_err(|error| log::info!("registers cannot be sampled: {error}")).ok();
        Ok(prover.pass(&writable, registers, self.weigh)?)
    }

    fn with_source<T>(&self, look: impl FnOnce(&Source<'_>) -> T) -> T {
        let (binary, layout) = (&*self.program.binary, &*self.program.layout);
        let memory = LiveMemory::new(self.process);
        let globals = self.program.globals();
        let (reasons, bias) = (&self.program.wait_reasons, self.bias);
        look(&Source { memory: &memory, binary, layout, globals, reasons, bias })
    }
}

/// Puts names and stacks to what was proven.
///
/// # Errors
///
/// If the goroutines cannot be read (any more).
pub fn report(tracee: &Tracee, proven: &Proven) -> Result<Report, ProvingError> {
    let subject = Subject::of(tracee, false)?;
    subject.with_source(|source| {
        let program = subject.program;
        let snapshot = snapshot::take(source, snapshot::Options::default())?;
        let view = View::new(&snapshot, Symbols::new(&program.binary), &program.wait_reasons, subject.bias);
        let version = program.binary.version().to_string();
        Ok(Report::new(subject.process.pid().0, &program.name, &version, proven, &view))
    })
}

/// A seed that no other run had, but for chance.
#[must_use]
pub fn any_seed() -> u64 {
    // Keyed from the system's randomness.
    RandomState::new().hash_one(std::process::id())
}

/// Waits; true if it was cancelled.
#[must_use]
pub fn pause(duration: Duration, cancel: &AtomicBool) -> bool {
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

//! Passes over one process: what `prove`, `leaks` and `dump` have in common.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use crate::go_runtime::Globals;
use crate::output::proof::Proven;
use crate::process::memory::LiveMemory;
use crate::process::{Process, RegisterSamples};
use crate::proof::{Figures, Options, ProofError, Prover};
use crate::snapshot::Source;
use crate::tracee::{LoadBias, Program, Tracee};
use crate::units::parse_duration;

/// From the first to the last pass that must find a goroutine unreachable.
pub(super) const LEAST_AGE: Duration = Duration::from_secs(2);

/// How passes are done.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct PassArguments {
    /// Passes to be done: three for *leaked*, eight for *confirmed*
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) passes: u32,
    /// Time from the end of one pass to the start of the next; *leaked* needs two seconds from first to last
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    pub(super) every: Duration,
    /// How long one pass may take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1m")]
    pub(super) deadline: Duration,
    /// Reads heap and stacks in the order that another run with this seed did; without it, in any (--json tells the seed)
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

impl Default for PassArguments {
    fn default() -> Self {
        Self { passes: 3, every: Duration::from_secs(1), deadline: Duration::from_secs(60), seed: None }
    }
}

/// Does the passes. An interrupt ends them, and what was found until then is given.
pub(super) fn passes(tracee: &Tracee, arguments: &PassArguments, say: bool) -> Result<Proven, Failure> {
    let Some(bias) = tracee.bias() else { return Err("where the program is loaded is not known".into()) };
    let (cancel, seed) = (interrupted()?, arguments.seed.unwrap_or_else(any_seed));
    // One is left to the target.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
    let options = Options { threads, deadline: arguments.deadline, least_age: LEAST_AGE, seed, cancel: &cancel };
    let (began, mut proven) = (Instant::now(), Proven { seed, ..Proven::default() });
    let subject = Subject { process: tracee.process(), program: tracee.program(), bias, weigh: true };
    let done = subject.each_pass(options, |prover, figures| {
        proven.figures = figures;
        if say {
            eprintln!(
                "pass {} of {}: {} of {} that wait on synchronisation are unreachable, {} of them leaked \
                 ({:.0} ms, {:.0} MiB of heap)",
                prover.passes(),
                arguments.passes,
                figures.unreachable,
                figures.blocked,
                prover.proven(),
                figures.took.as_secs_f64() * 1e3,
                figures.heap_bytes as f64 / f64::from(1 << 20),
            );
        }
        log::info!("{figures:?}");
        (proven.passes, proven.took) = (prover.passes(), began.elapsed());
        (proven.leaks, proven.sites) = (prover.leaks()?, prover.sites().to_vec());
        let enough = prover.passes() >= arguments.passes || pause(arguments.every, &cancel);
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    match done {
        // What the passes before found is given.
        Err(error) if proven.passes > 0 && matches!(error.downcast_ref(), Some(ProofError::Cancelled)) => Ok(proven),
        Err(error) => Err(error),
        Ok(()) => Ok(proven),
    }
}

/// What passes are done on.
pub(super) struct Subject<'a> {
    pub(super) process: &'a Process,
    pub(super) program: &'a Program,
    pub(super) bias: LoadBias,
    /// Find out what the leaked ones hold, too.
    pub(super) weigh: bool,
}

impl Subject<'_> {
    /// Does passes until `after`, which is called after each, has enough.
    pub(super) fn each_pass(
        &self,
        options: Options<'_>,
        mut after: impl FnMut(&Prover<'_>, Figures) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let (binary, layout) = (&*self.program.binary, &*self.program.layout);
        let memory = LiveMemory::new(self.process);
        let globals = Globals::of(binary, layout);
        let (reasons, bias) = (&self.program.wait_reasons, self.bias);
        let source = Source { memory: &memory, binary, layout, globals: &globals, reasons, bias };
        let mut prover = Prover::new(&source, options)?;
        loop {
            let writable = if prover.has_foreign_memory() { self.process.writable_memory()? } else { Vec::new() };
            let registers = RegisterSamples::start(self.process);
            let registers = registers.inspect_err(|error| log::info!("registers cannot be sampled: {error}")).ok();
            let figures = prover.pass(&writable, registers, self.weigh)?;
            if after(&prover, figures)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// A number that no other run had, but for chance.
pub(super) fn any_seed() -> u64 {
    // Keyed from the system's randomness.
    RandomState::new().hash_one(std::process::id())
}

/// Set when the user interrupts.
fn interrupted() -> Result<Arc<AtomicBool>, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&cancel);
    let runtime = super::live::runtime()?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            theirs.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(cancel)
}

/// Waits; true if it was interrupted.
pub(super) fn pause(duration: Duration, cancel: &AtomicBool) -> bool {
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

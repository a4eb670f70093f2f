//! The arguments of passes over one process, and their way to [`proving`]: for `prove`, `leaks` and `dump`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::output::proof::Proven;
use crate::proving::{self, Pace, Plan};
use crate::tracee::Tracee;
use crate::units::parse_duration;

/// Between two passes, if it disturbs nobody.
const REST: Duration = Duration::from_secs(1);

/// How passes are done.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct PassArguments {
    /// Passes to be done: three for *leaked*, eight for *confirmed*
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) passes: u32,
    /// Time from the end of one pass to the start of the next [default: 1s, and longer where no processor is idle, until passes
    /// take a twentieth of all]; *leaked* needs two seconds from first to last
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) every: Option<Duration>,
    /// How long one pass may take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1m")]
    pub(super) deadline: Duration,
    /// Reads heap and stacks in the order that another run with this seed did; without it, in any (--json tells the seed)
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

impl Default for PassArguments {
    fn default() -> Self {
        Self { passes: 3, every: None, deadline: Duration::from_secs(60), seed: None }
    }
}

/// Does the passes. An interrupt ends them, and what was found until then is given.
pub(super) fn passes(tracee: &Tracee, arguments: &PassArguments, say: bool) -> Result<Proven, Failure> {
    let cancel = interrupted()?;
    // One is left to the target.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
    let PassArguments { passes, every, deadline, seed } = *arguments;
    let pace = every.map_or(Pace::Considerate(REST), Pace::Every);
    let plan = Plan { passes, pace, deadline, threads, seed: seed.unwrap_or_else(proving::any_seed) };
    let proven = proving::passes(tracee, &plan, &cancel, |prover, figures, rest| {
        if say {
            eprintln!(
                "pass {} of {passes}: {} of {} that wait on synchronisation are unreachable, {} of them leaked \
                 ({:.0} ms, {:.0} MiB of heap)",
                prover.passes(),
                figures.unreachable,
                figures.blocked,
                prover.proven(),
                figures.took.as_secs_f64() * 1e3,
                figures.heap_bytes as f64 / f64::from(1 << 20),
            );
            if let Some(rest) = rest.filter(|rest| *rest > REST && every.is_none()) {
                eprintln!(
                    "the next in {:.0} s, for others want the processors too (--every {}s insists)",
                    rest.as_secs_f64(),
                    REST.as_secs()
                );
            }
        }
    });
    Ok(proven?)
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

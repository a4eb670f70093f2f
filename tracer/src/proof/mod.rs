//! Which goroutines are leaked, decided as the collector would, from outside.
//!
//! In: a [`Source`], as for a snapshot. Out: [`Leak`]s with a [`Verdict`] each, which says how far the decision goes. A goroutine
//! is leaked when it waits on channels, mutexes, a condition, a group or a semaphore that nothing which can still run can
//! reach. Must not know commands, nor how anything is printed.
//!
//! ```text
//! pass:  blocked (who waits on what) -> heap (spans, bits) -> roots, stacks, registers -> mark -> fixpoint -> unreachable
//! all:   passes -> verdicts; retained (what they alone hold)
//! ```
//!
//! What is read wrongly for it changed must never make a leak of what is none: all that is not sure counts as a reference.
//! docs/proof.md says what the words promise and how it was measured.

mod blocked;
mod frames;
mod heap;
mod mark;
mod pass;
mod passes;
mod registers;
mod roots;
mod stacks;
mod types;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use blocked::Blocked;
pub use pass::{Figures, Pass};
pub use passes::{CONFIRMED_PASSES, LEAKED_PASSES, Verdict, Verdicts};

use crate::go_runtime::{GlobalError, Variable};
use crate::process::RegisterSamples;
use crate::process::memory::{MemoryError, MemoryRange};
use crate::snapshot::{SnapshotError, Source};
use crate::units::{Goid, RemoteAddr};

/// Why nothing is decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A variable of the runtime is not found.
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// The memory.
    #[error("cannot read the program's memory: {0}")]
    Memory(#[from] MemoryError),
    /// The list of goroutines.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What was read makes no sense.
    #[error("nothing can be proven: {why}; is this the program that the process runs?")]
    Corrupt {
        /// What.
        why: &'static str,
    },
    /// A Go version whose collector is not known.
    #[error(
        "nothing can be proven of {version} programs: this gotracer does not know how that version's heap is kept; update gotracer"
    )]
    Version {
        /// As in the build info.
        version: String,
    },
    /// A program of several modules.
    #[error(
        "nothing can be proven of a program that has loaded plugins, or was built with -buildmode=shared or -linkshared"
    )]
    Plugin,
    /// It took too long.
    #[error("a pass did not end in time; give it more with --deadline")]
    Deadline,
    /// Somebody did not want to wait.
    #[error("the pass was cancelled")]
    Cancelled,
}

impl ProofError {
    fn corrupt(why: &'static str) -> Self {
        Self::Corrupt { why }
    }
}

/// Finds variables in the process.
trait Locate {
    fn remote(&self, variable: Variable) -> Result<RemoteAddr, ProofError>;
}

impl Locate for Source<'_> {
    fn remote(&self, variable: Variable) -> Result<RemoteAddr, ProofError> {
        Ok(self.bias.remote(self.globals.get(variable)?.0))
    }
}

/// How passes are done.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Threads that read and mark.
    pub threads: usize,
    /// How long one pass may take.
    pub deadline: Duration,
    /// From the first to the last pass for [`Verdict::Leaked`].
    pub least_age: Duration,
    /// Ends a pass when set.
    pub cancel: &'a AtomicBool,
}

/// A goroutine that the last pass found unreachable.
#[derive(Clone, Debug)]
pub struct Leak {
    /// Its id.
    pub goid: Goid,
    /// Its `runtime.g`.
    pub address: RemoteAddr,
    /// What kind of thing it waits on.
    pub blocked: Blocked,
    /// The channels or semaphores it waits on; empty for what nothing can wake, and for a condition up to Go 1.25.
    pub objects: Vec<RemoteAddr>,
    /// In how many passes in a row it was unreachable.
    pub passes: u32,
    /// What that amounts to.
    pub verdict: Verdict,
}

/// Decides, pass by pass, which goroutines of one process are leaked.
pub struct Prover<'a> {
    source: &'a Source<'a>,
    options: Options<'a>,
    verdicts: Verdicts,
    began: Option<Instant>,
    last: Option<Pass>,
}

impl<'a> Prover<'a> {
    /// A prover of the program behind `source`.
    ///
    /// # Errors
    /// If nothing can be proven of such a program.
    pub fn new(source: &'a Source<'a>, options: Options<'a>) -> Result<Self, ProofError> {
        let version = source.binary.version();
        if !roots::is_known(version.minor()) {
            return Err(ProofError::Version { version: version.to_string() });
        }
        let verdicts = Verdicts::new(options.least_age);
        Ok(Self { source, options, verdicts, began: None, last: None })
    }

    /// Whether the program has memory that is not Go's.
    #[must_use]
    pub fn has_foreign_memory(&self) -> bool {
        roots::has_foreign(self.source)
    }

    /// Does one pass. `writable`: the process's private writable memory, of which what is C's may hold references; of use where
    /// [`Prover::has_foreign_memory`] says so. `registers`: samples from now on.
    ///
    /// # Errors
    /// If memory makes no sense or cannot be read, or the pass takes too long or is cancelled.
    pub fn pass(
        &mut self,
        writable: &[MemoryRange],
        registers: Option<RegisterSamples>,
    ) -> Result<Figures, ProofError> {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let bounds = mark::Bounds {
            deadline: now.checked_add(self.options.deadline),
            cancel: self.options.cancel,
            threads: self.options.threads,
        };
        let order = u64::from(self.verdicts.passes());
        let setting = pass::Setting { source: self.source, bounds, writable, order };
        let (pass, _) = pass::pass(&setting, &mut registers::Registers::new(registers))?;
        self.verdicts.add(&pass, now - began);
        let figures = pass.figures;
        self.last = Some(pass);
        Ok(figures)
    }

    /// The goroutines that the last pass found unreachable, by goid.
    #[must_use]
    pub fn leaks(&self) -> Vec<Leak> {
        let unreachable = self.last.iter().flat_map(|pass| &pass.unreachable);
        let leak = |candidate: &blocked::Candidate| Leak {
            goid: candidate.goid,
            address: candidate.address,
            blocked: candidate.blocked,
            objects: candidate.objects.iter().map(|object| RemoteAddr(*object)).collect(),
            passes: self.verdicts.row(candidate),
            verdict: self.verdicts.verdict(candidate),
        };
        unreachable.map(leak).collect()
    }
}

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
mod order;
mod pass;
mod passes;
mod registers;
mod retained;
mod roots;
mod spans;
mod stacks;
mod threads;
mod type_names;
mod types;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use blocked::Blocked;
pub use pass::{Figures, Pass};
pub use passes::{CONFIRMED_PASSES, LEAKED_PASSES, Verdict, Verdicts};
pub use retained::{Retained, RetainedType};

use crate::go_runtime::{GlobalError, Variable};
use crate::process::RegisterSamples;
use crate::process::memory::{MemoryError, MemoryRange};
use crate::snapshot::raw::ObjectBatch;
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

/// About how long a pass takes at most, on a processor of its own, over a heap of so many bytes and so many goroutines.
///
/// By `cargo xtask bench --only proof`: a heap whose pointers lead anywhere takes 2 ns a byte, one whose pointers lead to
/// neighbours a third of it; a goroutine 4 us.
#[must_use]
pub fn expected_time(heap_bytes: u64, goroutines: u64) -> Duration {
    Duration::from_nanos(heap_bytes.saturating_mul(2).saturating_add(goroutines.saturating_mul(4_000)))
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
    /// Chooses the order in which each pass reads heap and stacks.
    pub seed: u64,
    /// Ends a pass when set.
    pub cancel: &'a AtomicBool,
}

/// A channel or semaphore that a goroutine waits on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WaitedFor {
    /// Where it is.
    pub address: RemoteAddr,
    /// What is known of it if it is a channel.
    #[serde(flatten)]
    pub channel: Option<ChannelFacts>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChannelFacts {
    /// Elements it can hold.
    pub capacity: u64,
    /// Elements it holds.
    pub len: u64,
    /// The type of an element, where the program names it.
    pub element: Option<String>,
}

/// A goroutine that the last pass found unreachable.
#[derive(Clone, Debug)]
pub struct Leak {
    /// Its id.
    pub goid: Goid,
    /// Its `runtime.g`.
    pub address: RemoteAddr,
    /// The return address of its `go` statement.
    pub gopc: RemoteAddr,
    /// What kind of thing it waits on.
    pub blocked: Blocked,
    /// The channels or semaphores it waits on; empty for what nothing can wake, and for a condition up to Go 1.25.
    pub waits_for: Vec<WaitedFor>,
    /// In how many passes in a row it was unreachable.
    pub passes: u32,
    /// What that amounts to.
    pub verdict: Verdict,
}

/// The goroutines of one `go` statement that are unreachable.
#[derive(Clone, Debug)]
pub struct Site {
    /// The return address of the `go` statement.
    pub gopc: RemoteAddr,
    /// How many they are.
    pub count: usize,
    /// What they alone hold: an estimate.
    pub retained: Retained,
}

/// Decides, pass by pass, which goroutines of one process are leaked.
pub struct Prover<'a> {
    source: &'a Source<'a>,
    options: Options<'a>,
    verdicts: Verdicts,
    began: Option<Instant>,
    last: Option<Pass>,
    sites: Vec<Site>,
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
        Ok(Self { source, options, verdicts, began: None, last: None, sites: Vec::new() })
    }

    /// Whether the program has memory that is not Go's.
    #[must_use]
    pub fn has_foreign_memory(&self) -> bool {
        roots::has_foreign(self.source)
    }

    /// Does one pass. `writable`: the process's private writable memory, of which what is C's may hold references; of use where
    /// [`Prover::has_foreign_memory`] says so. `registers`: samples from now on. `weigh`: find out what the unreachable ones
    /// hold, too; it takes as long as marking that.
    ///
    /// # Errors
    /// If memory makes no sense or cannot be read, or the pass takes too long or is cancelled.
    pub fn pass(
        &mut self,
        writable: &[MemoryRange],
        registers: Option<RegisterSamples>,
        weigh: bool,
    ) -> Result<Figures, ProofError> {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let bounds = mark::Bounds {
            deadline: now.checked_add(self.options.deadline),
            cancel: self.options.cancel,
            threads: self.options.threads,
        };
        let memory = mark::Bounded { memory: self.source.memory, bounds };
        let source = Source { memory: &memory, ..*self.source };
        let order = order::Order::of_pass(self.options.seed, self.verdicts.passes());
        let setting = pass::Setting { source: &source, bounds, writable, order };
        let mut registers = registers::Registers::new(registers);
        let done = pass::pass(&setting, &mut registers).and_then(|(pass, mut marked)| {
            let sites = if weigh && !pass.unreachable.is_empty() { sites(&mut marked)? } else { Vec::new() };
            Ok((pass, sites))
        });
        // What the bounds cut off shows as memory that could not be read.
        let (pass, sites) = match (done, bounds.check()) {
            (Ok(done), _) => done,
            (Err(_), Err(bound)) => return Err(bound),
            (Err(error), Ok(())) => return Err(error),
        };
        self.verdicts.add(&pass, now - began);
        let figures = pass.figures;
        (self.last, self.sites) = (Some(pass), sites);
        Ok(figures)
    }

    /// How many passes there were.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.verdicts.passes()
    }

    /// How many goroutines the last pass found unreachable that are proven to be leaked.
    #[must_use]
    pub fn proven(&self) -> usize {
        let unreachable = self.last.iter().flat_map(|pass| &pass.unreachable);
        unreachable.filter(|candidate| self.verdicts.verdict(candidate).is_proven()).count()
    }

    /// The `go` statements whose goroutines the last weighed pass found unreachable, those with the most first.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The goroutines that the last pass found unreachable, by goid.
    ///
    /// # Errors
    /// If the process is over.
    pub fn leaks(&self) -> Result<Vec<Leak>, ProofError> {
        let unreachable = || self.last.iter().flat_map(|pass| &pass.unreachable);
        let of_channels = unreachable().filter(|candidate| candidate.blocked == Blocked::Channel);
        let addresses: Vec<RemoteAddr> =
            of_channels.flat_map(|candidate| &candidate.objects).map(|object| RemoteAddr(*object)).collect();
        let mut facts = ChannelReader::new(self.source)?;
        let channels = facts.read(&addresses)?;
        let leak = |candidate: &blocked::Candidate| Leak {
            goid: candidate.goid,
            address: candidate.address,
            gopc: candidate.gopc,
            blocked: candidate.blocked,
            waits_for: candidate
                .objects
                .iter()
                .map(|object| WaitedFor { address: RemoteAddr(*object), channel: channels.get(object).cloned() })
                .collect(),
            passes: self.verdicts.row(candidate),
            verdict: self.verdicts.verdict(candidate),
        };
        Ok(unreachable().map(leak).collect())
    }
}

/// Groups the unreachable candidates by `go` statement, and weighs them.
fn sites(marked: &mut pass::Marked<'_>) -> Result<Vec<Site>, ProofError> {
    let mut by_site: hashbrown::HashMap<RemoteAddr, Vec<u32>> = hashbrown::HashMap::new();
    for (number, candidate) in marked.look.candidates.iter().enumerate() {
        if !marked.is_live(number as u32) && !candidate.resigned {
            by_site.entry(candidate.gopc).or_default().push(number as u32);
        }
    }
    let mut groups: Vec<(RemoteAddr, Vec<u32>)> = by_site.into_iter().collect();
    groups.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(&b.0)));
    let counted: Vec<(RemoteAddr, usize)> = groups.iter().map(|(gopc, group)| (*gopc, group.len())).collect();
    groups.truncate(retained::GROUP_LIMIT);
    let groups: Vec<Vec<u32>> = groups.into_iter().map(|(_, group)| group).collect();
    let retained = marked.retained(&groups)?;
    let mut retained = retained.into_iter();
    let site = |(gopc, count)| Site { gopc, count, retained: retained.next().unwrap_or_default() };
    Ok(counted.into_iter().map(site).collect())
}

/// Reads what is known of channels.
struct ChannelReader<'a> {
    source: &'a Source<'a>,
    names: type_names::TypeNames<'a>,
}

impl<'a> ChannelReader<'a> {
    fn new(source: &'a Source<'a>) -> Result<Self, ProofError> {
        Ok(Self { source, names: type_names::TypeNames::new(source)? })
    }

    fn read(&mut self, addresses: &[RemoteAddr]) -> Result<hashbrown::HashMap<u64, ChannelFacts>, ProofError> {
        let layout = &self.source.layout.hchan;
        let (mut batch, mut found) = (ObjectBatch::default(), hashbrown::HashMap::new());
        for chunk in addresses.chunks(4096) {
            batch.read(self.source.memory, chunk, layout.size)?;
            for (i, &address) in chunk.iter().enumerate() {
                let names = &mut self.names;
                let facts = batch.with(self.source.memory, i, address, |bytes| {
                    let element = layout.elemtype.read(bytes)?;
                    let (capacity, len) = (layout.dataqsiz.read(bytes)?, layout.qcount.read(bytes)?);
                    Some(ChannelFacts { capacity, len, element: names.get(element) })
                });
                found.extend(facts.map(|facts| (address.0, facts)));
            }
        }
        Ok(found)
    }
}

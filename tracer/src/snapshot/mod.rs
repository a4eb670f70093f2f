//! A snapshot: every goroutine of a program, read from its memory while it runs on.
//!
//! In: [`ReadMemory`] and what is known of the program (binary, layout, load bias). Out: a [`Snapshot`]: goroutines with
//! stacks as program counters; [`Symbols`] gives them names. Must not know events, nor how anything is printed.
//!
//! The runtime keeps every `g` it ever made in `runtime.allgs`, and its structs are never freed. A goroutine that waits has
//! its registers in `g.sched`, one in a system call in `g.syscallsp`; so its stack can be walked from outside. Nothing is
//! stopped: what changes between two reads is read again, and what goes on moving is marked ([`Goroutine::moved`]).

pub(crate) mod allgs;
mod ancestors;
mod arguments;
mod bubbles;
pub(crate) mod collect;
mod godebug;
mod labels;
mod objects;
pub(crate) mod raw;
mod sites;
mod stacks;
mod stats;
mod symbols;
pub(crate) mod unwind;
mod waits;

use hashbrown::HashMap;

use crate::binary::Binary;
use crate::go_runtime::{GlobalError, Globals, Layout, Owner, Status, WaitReasons};
use crate::process::memory::{MemoryError, ReadMemory};
use crate::tracee::LoadBias;
use crate::units::{Goid, MonotonicNs, Pc, RemoteAddr};

pub use ancestors::Ancestor;
pub use objects::{Channel, Objects};
pub use sites::{SiteUse, Spread, site_uses};
pub use stacks::{Stack, StackId, Stacks};
pub use stats::{GcPause, RuntimeStats};
pub(crate) use symbols::is_injected;
pub use symbols::{CreatedBy, ShownFrame, Symbols};
pub use unwind::StackEnd;

/// Where a snapshot is taken from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The target's memory.
    pub memory: &'a dyn ReadMemory,
    /// Its executable's facts.
    pub binary: &'a Binary,
    /// The runtime's layout in it.
    pub layout: &'a Layout,
    /// Where the runtime's variables are.
    pub globals: &'a Globals,
    /// The names of its wait reasons.
    pub reasons: &'a WaitReasons,
    /// Where it was loaded.
    pub bias: LoadBias,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("bias", &self.bias).finish_non_exhaustive()
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The list of goroutines is not found.
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// The memory.
    #[error("cannot read the goroutines: {0}")]
    Memory(#[from] MemoryError),
    /// The memory is of another program.
    #[error("the memory is not of this program: where its module data should be there is something else")]
    OtherProgram,
    /// The list of goroutines makes no sense.
    #[error("the list of goroutines makes no sense ({why}); is this the program that the process runs?")]
    Corrupt {
        /// What is wrong.
        why: String,
    },
}

/// What is known of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackState {
    /// It was walked.
    Read(StackId),
    /// Its registers were in a processor: it was running.
    Running,
    /// It changed while it was read, each time it was tried.
    Moved,
}

/// What a goroutine waits for: one `runtime.sudog` of `g.waiting`. Up to Go 1.24 only channels are there; later also the
/// semaphores below mutexes and wait groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wait {
    /// The channel (`sudog.c`); 0 for a semaphore.
    pub channel: RemoteAddr,
    /// What is sent, or where to receive to (`sudog.elem`); 0 for neither. Of a semaphore, its address.
    pub element: RemoteAddr,
    /// Whether this is one case of a select.
    pub select: bool,
}

/// A goroutine as its `runtime.g` said.
#[derive(Clone, Debug)]
pub struct Goroutine {
    /// `g.goid`.
    pub goid: Goid,
    /// Where its `runtime.g` is.
    pub address: RemoteAddr,
    /// `g.atomicstatus`.
    pub status: Status,
    /// The collector was looking at its stack.
    pub scan: bool,
    /// `g.waitreason`: of use only in [`Status::Waiting`]. Its name is in [`crate::go_runtime::WaitReasons`].
    pub wait_reason: u8,
    /// `g.waitsince`, nanoseconds of the target's monotonic clock. The collector sets it when it comes across a goroutine
    /// that waits (`gcMarkTermination`, markroot), so it is late by up to a cycle, and often not set.
    pub wait_since: Option<MonotonicNs>,
    /// `wait_since` is the moment of its block, which was seen: see [`crate::session::Session::refine`].
    pub wait_seen: bool,
    /// `g.parentGoid`; 0 up to Go 1.20, which does not say, and for the first goroutines.
    pub parent: Goid,
    /// `g.gopc`: the return address of its `go` statement.
    pub gopc: RemoteAddr,
    /// `g.startpc`: the function it runs.
    pub startpc: RemoteAddr,
    /// `g.stack.lo`.
    pub stack_lo: RemoteAddr,
    /// `g.stack.hi`.
    pub stack_hi: RemoteAddr,
    /// Where it stands (from `g.sched`, or `g.syscallpc` in a system call); 0 while it runs.
    pub pc: RemoteAddr,
    /// Its stack pointer; 0 while it runs.
    pub sp: RemoteAddr,
    /// Its frame pointer; 0 while it runs.
    pub bp: RemoteAddr,
    /// `g.trackingSeq`, which counts how often it stopped running, modulo 256: who stands where it stood and has the same
    /// number has not moved in between.
    pub runs: u8,
    /// `g.m`: the thread it is on; 0 for none.
    pub m: RemoteAddr,
    /// Whether it is locked to a thread (`g.lockedm`).
    pub locked: bool,
    /// One of the runtime's own, which Go's tracebacks leave out.
    pub system: bool,
    /// `g.labels`: where its profiler labels are; 0 for none.
    pub labels: RemoteAddr,
    /// `g.ancestors`; 0 but for GODEBUG=tracebackancestors.
    pub ancestors: RemoteAddr,
    /// Its stack.
    pub stack: StackState,
    /// Its part of [`Snapshot::waits`].
    waits: (u32, u32),
    /// It did not stand still for the time of two reads, often enough to be given up: its fields may be of two moments.
    pub moved: bool,
}

impl Goroutine {
    /// Bytes of stack it holds.
    #[must_use]
    pub fn stack_size(&self) -> u64 {
        self.stack_hi.0.saturating_sub(self.stack_lo.0)
    }

    /// Whether it waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.status == Status::Waiting
    }

    /// Bytes of stack in use where that is known.
    #[must_use]
    pub fn stack_used(&self) -> Option<u64> {
        (self.sp.0 != 0).then(|| self.stack_hi.0.saturating_sub(self.sp.0))
    }
}

/// Why a snapshot is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// Nothing more could be read from here on: the process exited, as a rule.
    Ended {
        /// Of so many g structs ...
        listed: usize,
        /// ... and why.
        why: String,
    },
    /// Some structs could not be read.
    Unreadable {
        /// How many.
        count: usize,
        /// Where the first is.
        first: RemoteAddr,
        /// Why.
        why: String,
    },
    /// There are more goroutines than gotracer reads.
    TooMany {
        /// How many there are said to be.
        listed: u64,
    },
}

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended { listed, why } => write!(f, "{why} while {listed} goroutine structs were being read"),
            Self::Unreadable { count, first, why } => {
                write!(f, "{count} goroutine structs cannot be read, the first at {first}: {why}")
            }
            Self::TooMany { listed } => {
                write!(f, "{listed} goroutine structs are listed; the first {} were read", allgs::LIMIT)
            }
        }
    }
}

/// The goroutines of a program.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All of them, the runtime's own included, by goid.
    pub goroutines: Vec<Goroutine>,
    /// Their stacks.
    pub stacks: Stacks,
    waits: Vec<Wait>,
    labels: HashMap<RemoteAddr, Vec<(String, String)>>,
    ancestors: HashMap<RemoteAddr, Vec<Ancestor>>,
    /// Whether this program's own tracebacks tell profiler labels: GODEBUG=tracebacklabels, on from Go 1.27.
    pub traceback_labels: bool,
    bubbles: HashMap<RemoteAddr, u64>,
    with_arguments: bool,
    arguments: arguments::Arguments,
    /// When reading began, on the target's monotonic clock; `None` where time stands still.
    pub taken_from: Option<MonotonicNs>,
    /// When it ended.
    pub taken_to: Option<MonotonicNs>,
    /// How many g structs the runtime lists, dead ones included.
    pub listed: usize,
    /// Why some may be missing.
    pub incomplete: Option<Incomplete>,
}

impl Snapshot {
    /// What `goroutine`, one of this snapshot, waits for.
    #[must_use]
    pub fn waits(&self, goroutine: &Goroutine) -> &[Wait] {
        self.waits.get(goroutine.waits.0 as usize..goroutine.waits.1 as usize).unwrap_or_default()
    }

    /// The profiler labels of `goroutine`, by rising key; `None` for none, and for those that could not be read.
    #[must_use]
    pub fn labels(&self, goroutine: &Goroutine) -> Option<&[(String, String)]> {
        self.labels.get(&goroutine.labels).map(Vec::as_slice)
    }

    /// The number of the `testing/synctest` bubble that `goroutine` is in.
    #[must_use]
    pub fn bubble(&self, goroutine: &Goroutine) -> Option<u64> {
        self.bubbles.get(&goroutine.address).copied()
    }

    /// Who created `goroutine`, and who created them, with GODEBUG=tracebackancestors; else nobody.
    #[must_use]
    pub fn ancestors(&self, goroutine: &Goroutine) -> &[Ancestor] {
        self.ancestors.get(&goroutine.ancestors).map(Vec::as_slice).unwrap_or_default()
    }

    /// The stack of `goroutine`, if it was read.
    #[must_use]
    pub fn stack(&self, goroutine: &Goroutine) -> Option<&Stack> {
        match goroutine.stack {
            StackState::Read(id) => self.stacks.get(id),
            StackState::Running | StackState::Moved => None,
        }
    }

    /// How many of the program's own goroutines there are: what `runtime.NumGoroutine` says.
    #[must_use]
    pub fn user_goroutines(&self) -> usize {
        self.goroutines.iter().filter(|g| !g.system).count()
    }

    /// Gives the goroutines of these ids and structs, as far as they wait, the status that Go's collector gives to leaked ones.
    pub fn mark_leaked(&mut self, leaked: impl Iterator<Item = (Goid, RemoteAddr)>) {
        let leaked: HashMap<Goid, RemoteAddr> = leaked.collect();
        let waits = self.goroutines.iter_mut().filter(|g| g.status == Status::Waiting);
        waits.filter(|g| leaked.get(&g.goid) == Some(&g.address)).for_each(|g| g.status = Status::Leaked);
    }

    /// How many goroutines did not stand still.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.goroutines.iter().filter(|g| g.moved).count()
    }
}

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that read. By default as many as the machine has processors, four at most: beyond that the memory is the
    /// bound.
    pub threads: usize,
    /// Whether the arguments of calls are kept. By default not: see [`Snapshot::arguments`].
    pub arguments: bool,
}

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: processors.min(4), arguments: false }
    }
}

/// Takes a snapshot.
///
/// # Errors
///
/// If the list of goroutines cannot be found or read. If the process ends on the way, what was read comes back, marked
/// [`Snapshot::incomplete`].
pub fn take(source: &Source<'_>, options: Options) -> Result<Snapshot, SnapshotError> {
    let taken_from = source.memory.now();
    if !source.is_of_this_program() {
        return Err(SnapshotError::OtherProgram);
    }
    let list = allgs::read(source)?;
    let minor = source.binary.version().minor();
    let (found, error) = collect::collect(source, &list.addresses, options.threads, options.arguments);
    let mut snapshot = Snapshot { taken_from, listed: list.addresses.len(), ..Snapshot::default() };
    snapshot.with_arguments = options.arguments;
    let mut unreadable: Option<(usize, RemoteAddr)> = None;
    let mut bubbles = Vec::new();
    for mut part in found {
        bubbles.append(&mut part.bubbles);
        snapshot.absorb(part, &mut unreadable);
    }
    snapshot.goroutines.sort_unstable_by_key(|g| g.goid);
    snapshot.taken_to = source.memory.now();
    snapshot.ancestors = ancestors::read(source, snapshot.goroutines.iter().map(|g| g.ancestors));
    // Labels are never changed once they are set, so they need not be read in time with the rest.
    snapshot.labels = labels::read(source, snapshot.goroutines.iter().map(|g| g.labels));
    snapshot.bubbles = bubbles::read(source, &bubbles);
    // Go 1.26 can tell them, from 1.27 on it does unless told not to.
    let setting = if minor < 26 { None } else { godebug::setting(source, "tracebacklabels") };
    snapshot.traceback_labels = setting.map_or(minor >= 27, |value| value == 1);
    snapshot.incomplete = if let Some(error) = error {
        Some(Incomplete::Ended { listed: list.addresses.len(), why: error.to_string() })
    } else if let Some((count, first)) = unreadable {
        Some(Incomplete::Unreadable { count, first, why: source.memory.why_missing(first) })
    } else {
        list.beyond.map(|listed| Incomplete::TooMany { listed })
    };
    Ok(snapshot)
}

impl Snapshot {
    fn absorb(&mut self, part: collect::Collected, unreadable: &mut Option<(usize, RemoteAddr)>) {
        let ids: Vec<StackId> = part.stacks.iter().map(|(_, stack)| self.stacks.intern(stack.clone())).collect();
        let base = self.waits.len() as u32;
        self.waits.extend(part.waits);
        self.arguments.absorb(part.arguments);
        self.goroutines.extend(part.goroutines.into_iter().map(|mut g| {
            if let StackState::Read(id) = g.stack
                && let Some(&id) = ids.get(id.index())
            {
                g.stack = StackState::Read(id);
            }
            g.waits = (g.waits.0.saturating_add(base), g.waits.1.saturating_add(base));
            g
        }));
        if let Some(first) = part.first_unreadable {
            let (count, first) = unreadable.map_or((0, first), |(count, first)| (count, first));
            *unreadable = Some((count + part.unreadable, first));
        }
    }
}

impl Source<'_> {
    /// Whether the module data in memory speak of this binary's function table. Nothing speaks against it where they cannot
    /// be read.
    fn is_of_this_program(&self) -> bool {
        let at = self.binary.module().address;
        let found = self.memory.word(self.bias.remote(at)).ok().map(RemoteAddr);
        let expected = self.binary.image().pointer(at).ok().map(|pc| self.bias.remote(pc));
        found.is_none() || found == expected
    }

    /// Whether Go's traceback leaves it out: `isSystemGoroutine`,
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L1481-L1522>.
    pub(crate) fn is_system(&self, raw: &raw::RawG, status: Status) -> bool {
        let start: Pc = collect::start(self, raw);
        let Some(function) = self.binary.functions().find(start) else { return false };
        match Owner::of(function.name()) {
            Owner::Program => false,
            Owner::Runtime => true,
            // It is the program's while it runs a finalizer (`fingStatus`). Between them it does nothing but wait for the
            // next, under a reason of its own; that can be read for a stripped program too.
            Owner::Finalizers => {
                status == Status::Waiting && self.reasons.name(raw.waitreason) == Some("finalizer wait")
            }
            Owner::Cleanups => !raw.running_cleanups,
        }
    }
}

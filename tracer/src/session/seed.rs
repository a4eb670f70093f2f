//! Goroutines that lived before the probes did, read from the target's memory while events flow.
//!
//! In: a target. Out: when the time has come, what the [`GoroutineTable`] merges. The steps are the table's (see
//! [`goroutines`](crate::goroutines)): begin, let probes that were under way settle, read, apply a drain that began after
//! the reading ended, merge. Again after events were lost, which repairs what the loss left wrong.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::events::now;
use crate::go_runtime::Status;
use crate::goroutines::{Coverage, GoroutineTable, MergeReport, SnapshotGoroutine, State};
use crate::process::memory::LiveMemory;
use crate::process::{Process, ProcessError};
use crate::snapshot::{self, Snapshot, SnapshotError, Source};
use crate::tracee::{LoadBias, Program};
use crate::units::{MonotonicNs, Pid};

/// As long as a thread may stand between a probe and the change of status that it announces, and then some.
const SETTLE: Duration = Duration::from_millis(5);
/// After a reading, the next one waits so long: where events are lost the machine is busy enough.
const BETWEEN: Duration = Duration::from_secs(1);
/// And so many times as long as the reading took.
const READING_SHARE: u32 = 20;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the reader of goroutines ended badly: {0}")]
    Reader(#[from] tokio::task::JoinError),
    #[error("the process is another one by now")]
    Another,
}

/// Where the reading stands.
#[derive(Debug)]
pub(crate) enum Seeding {
    /// Nothing to do before this moment.
    Rest(Instant),
    /// Probes under way settle until this moment.
    Settling(Instant),
    /// A thread reads.
    Reading(JoinHandle<Result<Snapshot, SeedError>>),
    /// Read; to be merged when the events up to its end are in the table.
    Read(Box<Snapshot>),
    /// It cannot be done for this program; said once.
    Impossible,
}

/// What to read: everything that a thread of its own needs.
pub(crate) struct Subject {
    pub(crate) pid: Pid,
    pub(crate) start_ticks: u64,
    pub(crate) program: Program,
    pub(crate) bias: LoadBias,
}

impl Seeding {
    /// Begins: from here on the table remembers exits.
    pub(crate) fn begin(table: &mut GoroutineTable) -> Self {
        table.begin_snapshot(now());
        Self::Settling(Instant::now() + SETTLE)
    }

    /// Nothing to do until events are lost.
    pub(crate) fn rest() -> Self {
        Self::Rest(Instant::now())
    }

    /// Whether a reading may begin.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self, Self::Rest(_))
    }

    /// Whether the table waits for what is to be read.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self, Self::Settling(_) | Self::Reading(_) | Self::Read(_))
    }

    /// Goes on if it is time to: to be called between drains. `refresh`: states come from readings alone, so that the
    /// next is due even if nothing was lost.
    pub(crate) fn advance(
        &mut self,
        table: &mut GoroutineTable,
        refresh: bool,
        subject: impl FnOnce() -> Option<Subject>,
    ) {
        let time = Instant::now();
        match self {
            Self::Rest(until) if time >= *until && (refresh || table.uncertain_since().is_some()) => {
                *self = Self::begin(table)
            }
            Self::Settling(until) if time >= *until => {
                if let Some(subject) = subject() {
                    *self = Self::Reading(tokio::task::spawn_blocking(move || read(&subject)));
                }
            }
            _ => {}
        }
    }

    /// Waits for the reading thread; for ever where none reads.
    pub(crate) async fn read(&mut self) -> Result<Snapshot, SeedError> {
        match self {
            Self::Reading(thread) => thread.await?,
            _ => std::future::pending().await,
        }
    }

    /// Takes what the reading thread has read if it is through, without waiting: for who follows many processes.
    pub(crate) fn take_if_read(&mut self) {
        let Self::Reading(thread) = self else { return };
        if let Poll::Ready(read) = Pin::new(thread).poll(&mut Context::from_waker(Waker::noop())) {
            self.take(read.unwrap_or_else(|error| Err(error.into())));
        }
    }

    /// Takes what was read, to be merged in its time.
    pub(crate) fn take(&mut self, read: Result<Snapshot, SeedError>) {
        *self = match read {
            Ok(snapshot) => Self::Read(Box::new(snapshot)),
            Err(error) => {
                log::warn!("older goroutines are shown only once they do something: {error}");
                Self::Impossible
            }
        };
    }

    /// Whether there is something to merge: read, and all events up to the end of the reading are among those up to
    /// `applied`.
    pub(super) fn is_ready(&self, applied: MonotonicNs) -> bool {
        matches!(self, Self::Read(snapshot) if snapshot.taken_to.is_none_or(|to| to <= applied))
    }

    /// Merges what was read, if there is something and all events up to the end of the reading are in the table: all up
    /// to `applied` are. Gives what was merged, too.
    pub(crate) fn merge(
        &mut self,
        table: &mut GoroutineTable,
        applied: MonotonicNs,
    ) -> Option<(MergeReport, Box<Snapshot>)> {
        if !self.is_ready(applied) {
            return None;
        }
        let Self::Read(snapshot) = std::mem::replace(self, Self::Rest(Instant::now() + BETWEEN)) else { return None };
        let goroutines: Vec<SnapshotGoroutine> = snapshot.goroutines.iter().filter_map(entry).collect();
        let coverage = if snapshot.incomplete.is_none() { Coverage::Whole } else { Coverage::Part };
        let (from, to) = snapshot.taken_from.zip(snapshot.taken_to)?;
        let took = Duration::from_nanos(to.since(from));
        *self = Self::Rest(Instant::now() + BETWEEN.max(took * READING_SHARE));
        match table.merge_snapshot(from, to, &goroutines, coverage) {
            Ok(report) => Some((report, snapshot)),
            Err(why) => {
                log::info!("a reading of the goroutines was not used: {why:?}");
                None
            }
        }
    }
}

fn read(subject: &Subject) -> Result<Snapshot, SeedError> {
    let process = Process::open(subject.pid)?;
    if process.start_ticks() != subject.start_ticks {
        return Err(SeedError::Another);
    }
    let Program { binary, layout, wait_reasons, .. } = &subject.program;
    let globals = subject.program.globals();
    let memory = LiveMemory::new(&process);
    let source = Source { memory: &memory, binary, layout, globals, reasons: wait_reasons, bias: subject.bias };
    Ok(snapshot::take(&source, snapshot::Options::default())?)
}

/// The table's view of a goroutine; `None` for one that does not live (any more).
pub(crate) fn entry(goroutine: &snapshot::Goroutine) -> Option<SnapshotGoroutine> {
    let state = match goroutine.status {
        Status::Waiting => State::Blocked { reason: goroutine.wait_reason },
        Status::Runnable => State::Runnable,
        status if status.is_alive() => State::Running,
        _ => return None,
    };
    Some(SnapshotGoroutine {
        goid: goroutine.goid,
        parent: goroutine.parent,
        gopc: goroutine.gopc,
        startpc: goroutine.startpc,
        state,
        since: goroutine.wait_since,
    })
}

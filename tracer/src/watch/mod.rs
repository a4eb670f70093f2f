//! A process, looked at every few seconds: what analysis lives on.
//!
//! In: a process that runs a Go program; with it, if there is one, the table of a session. Out: a [`Look`] at a time: a
//! snapshot and the [`Sample`] made of it. Read by a thread of its own, gently: the more processor time a look takes, the rarer
//! they are, so that this thread stays below a twentieth of a processor. Must not know what is found, nor how it is
//! printed.

mod census;
mod closer;
mod code;
mod dump_file;
mod facts;
mod memory;
mod places;
mod replay;
mod stacks;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use census::Census;
pub use dump_file::DumpFile;
pub use replay::Sampler;

use crate::analysis::Sample;
use crate::events::{Event, Transition, now};
use crate::goroutines::GoroutineTable;
use crate::process::memory::LiveMemory;
use crate::process::{Process, ProcessError};
use crate::snapshot::{self, RuntimeStats, Snapshot, SnapshotError, Source};
use crate::thread_time::cpu_of_this_thread;
use crate::tracee::{LoadBias, Program, Tracee};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// The reading thread takes at most this part of a processor's time: for [`Pace::Soon`] in the first minute, and else.
const SHARE_AT_FIRST: u32 = 20;
const SHARE: u32 = 50;
/// Parents remembered, where the runtime does not know them.
const PARENTS: usize = 1 << 20;

/// Why there is no look.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its goroutines cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is over, and its PID is another's.
    #[error("process {pid} has exited")]
    Exited {
        /// The process.
        pid: Pid,
    },
    /// The thread that reads.
    #[error("the reader of goroutines ended badly: {0}")]
    Reader(#[from] tokio::task::JoinError),
    /// Where it is loaded is not known (yet).
    #[error("where process {pid} has loaded its program is not known")]
    NotLocated {
        /// The process.
        pid: Pid,
    },
}

/// One look.
#[derive(Debug)]
pub struct Look {
    /// What analysis takes. Without the table's counts: see [`Watch::add_counts`].
    pub sample: Sample,
    /// What it was made of.
    pub snapshot: Arc<Snapshot>,
    /// The runtime's own figures.
    pub runtime: RuntimeStats,
    /// How long it took to read and to count.
    pub took: Duration,
    /// Processor time of the thread that did; where the machine is busy, much less.
    pub cpu: Duration,
}

/// What is read and by whom it is counted.
#[derive(Debug)]
struct Reader {
    pid: Pid,
    start_ticks: u64,
    program: Program,
    bias: LoadBias,
    census: Census,
    parents: HashMap<Goid, Goid>,
}

/// How long it is from one look to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So long; the looks themselves not counted.
    Every(Duration),
    /// Half a second at first, five later; at most a twentieth of a processor in the first minute: somebody waits for an answer.
    Soon,
    /// The same, and at most a fiftieth of a processor at any time: somebody has it open.
    Gentle,
}

/// Looks at one process from time to time.
#[derive(Debug)]
pub struct Watch {
    state: Watching,
    began: Instant,
    pace: Pace,
    creators: Creators,
}

#[derive(Debug)]
enum Watching {
    /// The next look is due at this moment.
    Rest(Instant, Box<Reader>),
    /// A thread looks.
    Looking(JoinHandle<(Box<Reader>, Result<Look, WatchError>)>),
    /// The reader was lost with its thread.
    Over,
}

/// A site by gopc and startpc.
type SiteAddresses = (RemoteAddr, RemoteAddr);

/// Who creates whom, as events tell; handed to the census when it is not at work.
#[derive(Debug, Default)]
struct Creators {
    known: HashSet<SiteAddresses>,
    new: Vec<[SiteAddresses; 2]>,
    parents: Vec<(Goid, Goid)>,
}

impl Watch {
    /// Looks at `tracee`, for the first time at once.
    ///
    /// # Errors
    ///
    /// If it is not known where its program is loaded.
    pub fn new(tracee: &Tracee, pace: Pace) -> Result<Self, WatchError> {
        let pid = tracee.process().pid();
        let bias = tracee.bias().ok_or(WatchError::NotLocated { pid })?;
        let program = tracee.program().clone();
        let reader = Reader {
            pid,
            start_ticks: tracee.process().start_ticks(),
            census: Census::new(program.clone(), bias),
            program,
            bias,
            parents: HashMap::new(),
        };
        let began = Instant::now();
        Ok(Self { state: Watching::Rest(began, Box::new(reader)), began, pace, creators: Creators::default() })
    }

    /// Learns from events who creates whom. They are in `table` already.
    pub fn learn(&mut self, events: &[Event], table: &GoroutineTable) {
        for event in events {
            let Event::Goroutine { goid, transition: Transition::Created { parent, gopc, startpc }, .. } = *event
            else {
                continue;
            };
            if self.creators.parents.len() < PARENTS {
                self.creators.parents.push((goid, parent));
            }
            if !self.creators.known.contains(&(gopc, startpc))
                && let Some(site) = table.get(parent).and_then(|creator| table.site_addresses(creator.site))
                && site.1.0 != 0
            {
                self.creators.known.insert((gopc, startpc));
                self.creators.new.push([(gopc, startpc), site]);
            }
        }
    }

    /// Waits for the next look. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// If the process cannot be looked at; it may be worth to go on.
    pub async fn next(&mut self) -> Result<Look, WatchError> {
        if let Watching::Rest(due, _) = &self.state {
            tokio::time::sleep_until(*due).await;
            let Watching::Rest(_, mut reader) = std::mem::replace(&mut self.state, Watching::Over) else {
                return std::future::pending().await;
            };
            self.creators.hand_over(&mut reader);
            self.state = Watching::Looking(tokio::task::spawn_blocking(move || {
                let look = reader.look();
                (reader, look)
            }));
        }
        let Watching::Looking(thread) = &mut self.state else { return std::future::pending().await };
        let (reader, look) = match thread.await {
            Ok(done) => done,
            Err(error) => {
                self.state = Watching::Over;
                return Err(error.into());
            }
        };
        let took = look.as_ref().map_or(Duration::ZERO, |look| look.cpu);
        let rest = self.rest(took);
        self.state = Watching::Rest(Instant::now() + rest, reader);
        look
    }

    /// The time to the next look, where one takes so much of a processor.
    fn rest(&self, took: Duration) -> Duration {
        let at_first = if self.pace == Pace::Soon { SHARE_AT_FIRST } else { SHARE };
        let (least, share) = match (self.pace, self.began.elapsed().as_secs()) {
            (Pace::Every(interval), _) => return interval,
            (_, 0..20) => (Duration::from_millis(500), at_first),
            (_, 20..60) => (Duration::from_secs(1), at_first),
            (_, 60..300) => (Duration::from_secs(2), SHARE),
            _ => (Duration::from_secs(5), SHARE),
        };
        least.max(took * share)
    }

    /// Adds the births and deaths that `table` counted to a look's sample.
    pub fn add_counts(&mut self, sample: &mut Sample, table: &GoroutineTable) {
        if let Watching::Rest(_, reader) = &mut self.state {
            reader.census.add_counts(sample, table);
        }
    }
}

impl Creators {
    fn hand_over(&mut self, reader: &mut Reader) {
        for [site, creator] in self.new.drain(..) {
            reader.census.created_by(site, creator);
        }
        // From Go 1.21 on the runtime knows the parent itself.
        if reader.program.binary.version().minor() < 21 {
            if reader.parents.len() > PARENTS {
                reader.parents.clear();
            }
            reader.parents.extend(self.parents.drain(..));
        }
        self.parents.clear();
    }
}

impl Reader {
    fn look(&mut self) -> Result<Look, WatchError> {
        let process = Process::open(self.pid)?;
        if process.start_ticks() != self.start_ticks {
            return Err(WatchError::Exited { pid: self.pid });
        }
        let (began, cpu) = (std::time::Instant::now(), cpu_of_this_thread());
        let memory = LiveMemory::new(&process);
        let program = self.program.clone();
        let source = Source {
            memory: &memory,
            binary: &program.binary,
            layout: &program.layout,
            globals: self.program.globals(),
            reasons: &program.wait_reasons,
            bias: self.bias,
        };
        let snapshot = snapshot::take(&source, snapshot::Options::default())?;
        let runtime = RuntimeStats::read(&source, &snapshot);
        let time = snapshot.taken_to.unwrap_or_else(now);
        let mut sample = observe(&source, &snapshot, &runtime, time, &mut self.census, &self.parents);
        memory::read(self.pid, &mut sample.memory);
        Ok(Look {
            sample,
            snapshot: Arc::new(snapshot),
            runtime,
            took: began.elapsed(),
            cpu: cpu_of_this_thread().saturating_sub(cpu),
        })
    }
}

/// The sample of one snapshot, of `time`; of a core file too. The kernel's figures of memory are not in it.
pub fn observe(
    source: &Source<'_>,
    snapshot: &Snapshot,
    runtime: &RuntimeStats,
    time: MonotonicNs,
    census: &mut Census,
    parents: &HashMap<Goid, Goid>,
) -> Sample {
    let mut counted = census.count(snapshot, time);
    closer::look(source, snapshot, census, &mut counted, parents);
    let memory = memory::of_runtime(runtime);
    Sample { time, sites: counted.sites, whole: snapshot.incomplete.is_none(), memory, lost: 0 }
}

//! A live session: one tracee, attached, its table kept up to date.
//!
//! In: a process. Out, batch by batch: its events, already in the [`GoroutineTable`]; in the end, what ended it.
//! Follows the process through `execve`. Must not know how anything is printed.

mod births;
mod dial;
mod meter;
mod options;
mod readings;
mod refine;
pub(crate) mod seed;

use std::path::Path;
use std::time::Duration;

use crate::binary::Binary;
use crate::events::{Event, EventStream, KeptStates, StreamError, Transition, now};
use crate::go_runtime::{Layout, Variable};
use crate::goroutines::{GoroutineTable, MergeReport};
use crate::governor::{Change, Level, Overhead, Quality};
use crate::probes::catalogue::PROBES;
use crate::probes::{AttachError, Capacity, Detail, Execs, KernelPrograms, Nops, Placement, Verdict, place};
use crate::process::memory::{LiveMemory, ReadMemory as _};
use crate::process::{Process, ProcessError};
use crate::snapshot::Snapshot;
use crate::tracee::{Program, Tracee, TraceeError, TraceeNames};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

pub use options::Options;
pub(crate) use seed::entry as snapshot_entry;

use dial::Dial;
use meter::Meter;
use readings::Readings;
use seed::{Seeding, Subject};

/// Where nothing is attached, so long is waited between two looks for what is to be done.
const IDLE: Duration = Duration::from_millis(100);

/// Why a session cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The process is no tracee.
    #[error(transparent)]
    Tracee(#[from] TraceeError),
    /// The kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Events cannot be read.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A probe without which tracing makes no sense has no place in the executable.
    #[error("no place for a probe in {function} of {exe}: {reason}; please report this with the Go version, {version}")]
    Unplaceable {
        /// The function.
        function: &'static str,
        /// The executable.
        exe: String,
        /// Why.
        reason: String,
        /// The executable's Go version.
        version: String,
    },
    /// The end of the process cannot be waited for.
    #[error("cannot wait for the end of process {pid}")]
    Wait {
        /// The process.
        pid: Pid,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<ProcessError> for SessionError {
    fn from(error: ProcessError) -> Self {
        Self::Tracee(error.into())
    }
}

/// How a session goes.
#[derive(Debug)]
pub enum Progress {
    /// On.
    Running,
    /// On, and the goroutines that were read from the tracee's memory are in the table now.
    Merged(MergeReport),
    /// The process had replaced its program; the new one is attached to. There are no events with this.
    Followed,
    /// To its end.
    Ended(End),
}

/// What ended a session from the tracee's side.
#[derive(Debug)]
pub enum End {
    /// The process exited.
    Exited,
    /// It replaced its program by one that we cannot trace.
    Replaced(Box<SessionError>),
}

/// One traced process.
pub struct Session {
    programs: KernelPrograms,
    stream: EventStream,
    /// `None` only while the session changes from one program to the next.
    tracee: Option<Tracee>,
    dial: Dial,
    verdicts: Vec<Verdict>,
    table: GoroutineTable,
    /// Of each program the process has run, by the table's generation.
    names: Vec<TraceeNames>,
    started: MonotonicNs,
    ended: Option<MonotonicNs>,
    /// The `execve` by which the first program starts is still to come.
    starting: bool,
    /// The process has replaced its program, and we have not followed yet.
    replaced: bool,
    /// Events that have been read and not given out yet.
    pending: Vec<Event>,
    /// How far we are with the goroutines that are older than the probes.
    seeding: Seeding,
    readings: Readings,
    meter: Meter,
}

impl Session {
    /// Attaches to a running process, for every event. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// If it is no tracee or the kernel refuses; then nothing stays attached.
    pub fn attach(process: Process) -> Result<Self, SessionError> {
        Self::attach_with(process, Options::default())
    }

    /// Attaches to a running process, for what `options` ask. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn attach_with(process: Process, options: Options) -> Result<Self, SessionError> {
        let tracee = Tracee::open(process)?;
        Self::new(tracee, false, options)
    }

    /// Attaches to a child that is held before it becomes the program at `path`, for every event.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn before_start(pid: Pid, path: &Path) -> Result<Self, SessionError> {
        Self::before_start_with(pid, path, Options::default())
    }

    /// Attaches to a child that is held before it becomes the program at `path`, for what `options` ask.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn before_start_with(pid: Pid, path: &Path, options: Options) -> Result<Self, SessionError> {
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|source| ProcessError::Read { path: name.clone(), source })?;
        let program = Program::open(name, file)?;
        let tracee = Tracee::before_start(Process::open(pid)?, program)?;
        Self::new(tracee, true, options)
    }

    fn new(tracee: Tracee, starting: bool, options: Options) -> Result<Self, SessionError> {
        let verdicts = verdicts(tracee.program())?;
        let keeps = options.detail == Detail::States || options.budget.is_some();
        let capacity = if keeps { Capacity::for_goroutines(gs(&tracee).unwrap_or(0)) } else { Capacity::NONE };
        let (programs, maps) = KernelPrograms::load_with(capacity, Execs::Traced)?;
        let stream = EventStream::open(maps.events, maps.counts)?;
        let pid = tracee.process().pid();
        let program = tracee.program();
        let placements: Vec<Placement> = verdicts.iter().filter_map(Verdict::placement).cloned().collect();
        let mut meter = Meter::new(options, placements.clone());
        meter.count_births(&tracee);
        let level = meter.first_level(tracee.process());
        let kept = KeptStates::new(maps.kept);
        let dial = Dial::new(pid, program, placements, kept);
        let mut session = Self {
            programs,
            stream,
            names: vec![TraceeNames::new(tracee.program().clone(), tracee.bias())],
            tracee: Some(tracee),
            dial,
            verdicts,
            table: GoroutineTable::new(pid),
            started: now(),
            ended: None,
            starting,
            replaced: false,
            pending: Vec::new(),
            seeding: Seeding::rest(),
            readings: Readings::default(),
            meter,
        };
        session.attach_probes(level)?;
        session.started = now();
        session.meter.calibrate();
        if !starting {
            session.seeding = Seeding::begin(&mut session.table);
        }
        Ok(session)
    }

    fn attach_probes(&mut self, level: Level) -> Result<(), SessionError> {
        let Some(tracee) = &self.tracee else { return Ok(()) };
        self.dial.begin(&mut self.programs, &mut self.table, level)?;
        // A process is attached to by its PID: if it has exited meanwhile, they may be another's.
        if tracee.process().has_exited() {
            let pid = tracee.process().pid();
            self.dial.detach(&mut self.programs)?;
            return Err(AttachError::Exited { pid }.into());
        }
        Ok(())
    }

    /// The traced process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.table.pid()
    }

    /// What is traced; `None` only while the session changes from one program to the next.
    #[must_use]
    pub fn tracee(&self) -> Option<&Tracee> {
        self.tracee.as_ref()
    }

    /// How many probes are attached.
    #[must_use]
    pub fn probes(&self) -> usize {
        self.dial.probes()
    }

    /// What became of each probe.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// When all probes were attached.
    #[must_use]
    pub fn started(&self) -> MonotonicNs {
        self.started
    }

    /// The Go version of the program that runs now.
    #[must_use]
    pub fn go_version(&self) -> Option<String> {
        self.tracee.as_ref().map(|tracee| tracee.program().binary.version().to_string())
    }

    /// Events that came after a later one had been given out.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.stream.late()
    }

    /// How full the fullest buffer was ever found.
    #[must_use]
    pub fn fullest(&self) -> f64 {
        self.stream.fullest()
    }

    /// How much is told at present.
    #[must_use]
    pub fn level(&self) -> Level {
        self.dial.level()
    }

    /// For how many seconds each level held, in the order in which they were first taken.
    #[must_use]
    pub fn levels(&self) -> Vec<(Level, f64)> {
        self.dial.levels(self.ended.unwrap_or_else(now))
    }

    /// What the figures of births and ends, and those of states, parks and blocked time are worth: the least that they
    /// were worth at any time.
    #[must_use]
    pub fn quality(&self) -> (Quality, Quality) {
        let levels = self.levels();
        let worst = |of: fn(Level) -> Quality| levels.iter().map(|(level, _)| of(*level)).max();
        (worst(Level::lives).unwrap_or(Quality::Exact), worst(Level::states).unwrap_or(Quality::Exact))
    }

    /// What tracing cost the target in the last period; `None` before the end of the first.
    #[must_use]
    pub fn overhead(&self) -> Option<&Overhead> {
        self.meter.overhead()
    }

    /// The share of the target's CPU time that tracing cost it in all periods so far; `None` before the end of the first.
    #[must_use]
    pub fn mean_overhead(&self) -> Option<f64> {
        self.meter.mean()
    }

    /// About how many goroutines were made so far, by the runtime's own count, which goes on where nothing is attached: a tenth of
    /// a second may be missing, and 16 for each P. `None` without a budget, and where the count is not found.
    #[must_use]
    pub fn made(&self) -> Option<u64> {
        self.meter.made()
    }

    /// The changes of level since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.meter.take_changes()
    }

    /// From now on all goroutines are read so often, with their stacks; more rarely where a reading takes long.
    pub fn read_every(&mut self, interval: Duration) {
        self.readings.every(interval);
    }

    /// The next of these readings begins at once.
    pub fn read_soon(&mut self) {
        self.readings.now();
    }

    /// The reading that [`Progress::Merged`] was about, once; `None` without [`Self::read_every`].
    pub fn take_reading(&mut self) -> Option<Box<Snapshot>> {
        self.readings.take()
    }

    /// Whether the goroutines that are older than the probes are in the table: a moment after attaching they are.
    #[must_use]
    pub fn is_seeded(&self) -> bool {
        !self.seeding.is_under_way()
    }

    /// Nanoseconds from the moment at which all probes were attached to the end, or to now.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.ended.unwrap_or_else(now).since(self.started)
    }

    /// The goroutines.
    #[must_use]
    pub fn table(&self) -> &GoroutineTable {
        &self.table
    }

    /// Names for what the table and the events hold now.
    pub fn names(&mut self) -> &mut TraceeNames {
        let last = self.names.len() - 1;
        &mut self.names[last]
    }

    /// The table, and names for each of its generations.
    pub fn table_and_names(&mut self) -> (&GoroutineTable, &mut [TraceeNames]) {
        (&self.table, &mut self.names)
    }

    /// Appends the next events to `events`: waits for them, for `interval` at most, or for a tenth of a second where nothing
    /// is attached that could make any. They are in the table already.
    ///
    /// A batch never spans an `execve`: [`Self::names`] is right for all of it.
    ///
    /// # Errors
    ///
    /// If the kernel can no longer be read.
    pub async fn next(&mut self, interval: Duration, events: &mut Vec<Event>) -> Result<Progress, SessionError> {
        if std::mem::take(&mut self.replaced) {
            return Ok(match self.follow_exec() {
                Ok(()) => Progress::Followed,
                Err(error) => Progress::Ended(End::Replaced(Box::new(error))),
            });
        }
        let from = events.len();
        if self.pending.is_empty() {
            let Some(tracee) = &self.tracee else { return Ok(Progress::Ended(End::Exited)) };
            if self.readings.is_due() && self.seeding.is_at_rest() {
                self.seeding = Seeding::begin(&mut self.table);
                self.readings.begun();
            }
            // What a slice of time shows grows old in the next gap.
            let refresh = self.dial.level().states() != Quality::Exact;
            self.seeding.advance(&mut self.table, refresh, || subject(tracee));
            let pid = tracee.process().pid();
            let interval = if self.dial.level() == Level::Snapshots { interval.max(IDLE) } else { interval };
            tokio::select! {
                read = self.stream.next_batch(interval, events) => read?,
                exited = tracee.process().exited() => {
                    exited.map_err(|source| SessionError::Wait { pid, source })?;
                    self.ended = Some(now());
                    return Ok(Progress::Ended(End::Exited));
                }
                read = self.seeding.read() => {
                    self.seeding.take(read);
                    return Ok(Progress::Running);
                }
            }
            // What the first probes saw before the last was attached is half of a story.
            if events.get(from).is_some_and(|event| event.time() < self.started) {
                keep(events, from, |event| event.time() >= self.started);
            }
        } else {
            events.append(&mut self.pending);
        }
        self.programs.flush_log();
        self.take_in(events, from);
        self.dial.advance(&mut self.programs, &mut self.table, self.stream.released())?;
        if let Some(tracee) = &self.tracee {
            self.meter.advance(tracee.process(), &mut self.dial, &mut self.programs, &mut self.table)?;
        }
        if self.pending.is_empty() && self.seeding.is_ready(self.stream.released()) {
            // What the kernel has kept is newer than the snapshot; what it lacks was so before.
            self.dial.read(&mut self.table)?;
        }
        if self.pending.is_empty()
            && let Some((report, snapshot)) = self.seeding.merge(&mut self.table, self.stream.released())
        {
            self.readings.merged(snapshot);
            return Ok(Progress::Merged(report));
        }
        Ok(Progress::Running)
    }

    /// Detaches, and appends the events that were still on their way.
    ///
    /// The trace ends now: probes are detached one after the other, and what the last of them still sees is left out.
    ///
    /// # Errors
    ///
    /// If the kernel can no longer be read.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), SessionError> {
        let ended = *self.ended.get_or_insert_with(now);
        let mut from = events.len();
        self.dial.detach(&mut self.programs)?;
        events.append(&mut self.pending);
        self.stream.finish(events)?;
        // A loss is noticed later than it happens.
        let wanted =
            |event: &Event| matches!(event, Event::Lost { .. }) || (self.started..=ended).contains(&event.time());
        keep(events, from, wanted);
        self.take_in(events, from);
        while !self.pending.is_empty() {
            from = events.len();
            events.append(&mut self.pending);
            self.take_in(events, from);
        }
        self.dial.read(&mut self.table)?;
        Ok(())
    }

    /// Takes `events` into the table, from the one at `from` on: all, or up to the first `execve`, behind which addresses
    /// have other names; the rest is pending.
    fn take_in(&mut self, events: &mut Vec<Event>, from: usize) {
        if self.starting && matches!(events.get(from), Some(Event::Exec { .. })) {
            // The program's own start: nothing was before it.
            self.starting = false;
            events.remove(from);
            self.locate(None);
        }
        let new = events.get(from..).unwrap_or_default();
        if let Some(at) = new.iter().position(|event| matches!(event, Event::Exec { .. })) {
            self.replaced = true;
            self.pending = events.split_off(from + at + 1);
        }
        self.apply(events.get(from..).unwrap_or_default());
    }

    fn apply(&mut self, events: &[Event]) {
        if self.tracee.as_ref().is_some_and(|tracee| tracee.bias().is_none()) {
            let main = events.iter().find_map(|event| match *event {
                Event::Goroutine { transition: Transition::Created { startpc, .. }, goid: Goid(1), .. } => {
                    Some(startpc)
                }
                _ => None,
            });
            self.locate(main);
        }
        self.table.apply_all(events);
    }

    /// Finds out where the program is loaded, if that is not known yet.
    fn locate(&mut self, main: Option<RemoteAddr>) {
        let Some(tracee) = self.tracee.as_mut().filter(|tracee| tracee.bias().is_none()) else { return };
        // A process that has ended has no maps; then its main goroutine's start tells.
        if tracee.locate().is_err()
            && let Some(startpc) = main
        {
            tracee.locate_by_main(startpc);
        }
        let bias = tracee.bias();
        self.meter.count_births(tracee);
        self.names().set_bias(bias);
    }

    /// The process has replaced its program: attach to the new one.
    fn follow_exec(&mut self) -> Result<(), SessionError> {
        let level = self.dial.level();
        self.dial.detach(&mut self.programs)?;
        let Some(old) = self.tracee.take() else { return Ok(()) };
        let tracee = Tracee::open(old.into_process())?;
        self.verdicts = verdicts(tracee.program())?;
        self.names.push(TraceeNames::new(tracee.program().clone(), tracee.bias()));
        let placements: Vec<Placement> = self.verdicts.iter().filter_map(Verdict::placement).cloned().collect();
        self.meter.follow(placements.clone());
        self.meter.count_births(&tracee);
        self.dial.follow(tracee.program(), placements);
        self.tracee = Some(tracee);
        self.attach_probes(level)?;
        self.seeding = Seeding::begin(&mut self.table);
        Ok(())
    }
}

/// Drops those of `events`, from the one at `from` on, that are not `wanted`.
fn keep(events: &mut Vec<Event>, from: usize, wanted: impl Fn(&Event) -> bool) {
    let mut index = 0;
    events.retain(|event| {
        index += 1;
        index <= from || wanted(event)
    });
}

/// How many g structs a running process has: as many as it ever had goroutines at a time.
fn gs(tracee: &Tracee) -> Option<u64> {
    let at = tracee.bias()?.remote(tracee.program().globals().pc(Variable::Allglen)?);
    LiveMemory::new(tracee.process()).word(at).ok()
}

/// What to read of `tracee`, once it is known where it is loaded.
fn subject(tracee: &Tracee) -> Option<Subject> {
    Some(Subject {
        pid: tracee.process().pid(),
        start_ticks: tracee.process().start_ticks(),
        program: tracee.program().clone(),
        bias: tracee.bias()?,
    })
}

/// Where each probe goes.
pub(crate) fn verdicts(program: &Program) -> Result<Vec<Verdict>, SessionError> {
    let binary: &Binary = &program.binary;
    let verdicts: Vec<Verdict> = PROBES.iter().map(|probe| place(binary, probe, Nops::of_this_kernel())).collect();
    for verdict in &verdicts {
        if let Verdict::Unplaceable { function, required: true, reason, .. } = verdict {
            return Err(SessionError::Unplaceable {
                function,
                exe: program.name.clone(),
                reason: reason.clone(),
                version: binary.version().to_string(),
            });
        }
    }
    Ok(verdicts)
}

/// What the kernel programs must know of a runtime.
#[must_use]
pub fn entry(program: &Program) -> gotracer_ebpf::Target {
    let Layout { g, m, .. } = program.layout.as_ref();
    let together = |parent: u32| {
        let at = |bytes| parent.checked_add(bytes);
        (Some(g.gopc.offset), Some(g.startpc.offset)) == (at(8), at(24))
    };
    gotracer_ebpf::Target {
        birth_together: u32::from(g.parent_goid.is_some_and(|field| together(field.offset))),
        g_goid: g.goid.offset,
        g_parent_goid: g.parent_goid.map_or(gotracer_ebpf::NO_FIELD, |field| field.offset),
        g_gopc: g.gopc.offset,
        g_startpc: g.startpc.offset,
        g_waitreason: g.waitreason.offset,
        // sp is the first field of sched.
        g_sched: g.sched_sp.offset,
        g_m: g.m.offset,
        m_curg: m.curg.offset,
        coroutine_reason: program.wait_reasons.number("coroutine").map_or(0, u32::from),
        ..Default::default()
    }
}

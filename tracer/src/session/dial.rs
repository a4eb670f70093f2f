//! The dial of detail: what is attached, what is wanted of it, and when the kernel's records are read.
//!
//! In: a [`Level`]. Out: kernel programs that tell just that, and a table that gets it. Nothing here waits for the
//! kernel: probes are attached and detached on threads of their own.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use gotracer_ebpf::{Control, MODE_EVENTS, MODE_LIFECYCLE, MODE_OFF, MODE_STATES, Target};

use super::{SessionError, entry};
use crate::events::{Hits, KeptStates, StreamError, now};
use crate::goroutines::{GoroutineTable, StatesFrom, Window};
use crate::governor::{Level, round_seconds, slice_seconds};
use crate::probes::catalogue::Event;
use crate::probes::placement::anchor;
use crate::probes::{AttachError, Attachment, KernelPrograms, Placement, Probes};
use crate::tracee::Program;
use crate::units::{FileOffset, MonotonicNs, Pid};

/// Records are read so often, or as seldom as it takes for reading to use a fiftieth of a CPU.
const READ_EVERY: Duration = Duration::from_millis(100);
const READING_SHARE: u32 = 50;

/// Some of the probes of one process, attached and detached together.
#[derive(Default)]
struct Group {
    attached: Option<Probes>,
    attaching: Option<Receiver<Result<Probes, AttachError>>>,
    /// Tells, by its end, that the last ones are gone. Until then no new ones may be there: both would be hit.
    detaching: Option<Receiver<()>>,
}

/// Where slices are.
#[derive(Clone, Copy, Debug)]
enum Slice {
    /// The next begins then.
    Between(Instant),
    /// The probes are being attached for one.
    Attaching,
    /// It lasts until then.
    Within(Instant, MonotonicNs),
}

/// What is attached to one process.
pub(super) struct Dial {
    pid: Pid,
    exe: PathBuf,
    entry: Target,
    placements: Vec<Placement>,
    anchored_at: Option<FileOffset>,
    kept: KeptStates,
    level: Level,
    control: Control,
    lives: Group,
    transitions: Group,
    /// Stays when the others go.
    anchor: Option<Probes>,
    slice: Slice,
    /// The end of the time that slices so far stand for.
    sliced_to: MonotonicNs,
    /// Since when the present control holds.
    since: MonotonicNs,
    next_reading: Instant,
    /// Hits that are in the table's totals.
    counted: Hits,
    /// Levels that held, and for how many nanoseconds before the present one began.
    held: Vec<(Level, u64)>,
    level_since: MonotonicNs,
    /// Slices that have ended, and parks and runs a second in the last.
    slices: u64,
    transitions_in_slice: Option<f64>,
}

impl Group {
    fn is_idle(&self) -> bool {
        self.attached.is_none() && self.attaching.is_none()
    }

    /// Begins to attach, on a thread of its own.
    fn attach(&mut self, attachment: Attachment) {
        let (send, receive) = sync_channel(1);
        let detaching = self.detaching.take();
        std::thread::spawn(move || {
            if let Some(detaching) = detaching {
                let _ended = detaching.recv();
            }
            // Whoever waited may have gone: then the probes go, too.
            let _ = send.send(attachment.attach());
        });
        self.attaching = Some(receive);
    }

    /// Attaches, and waits for it.
    fn attach_now(&mut self, attachment: Attachment) -> Result<(), AttachError> {
        self.attached = Some(attachment.attach()?);
        Ok(())
    }

    /// Whether all is attached; takes note of what a thread has done.
    fn poll(&mut self) -> Result<bool, AttachError> {
        if let Some(attaching) = &self.attaching {
            match attaching.try_recv() {
                Ok(done) => {
                    self.attaching = None;
                    self.attached = Some(done?);
                }
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => self.attaching = None,
            }
        }
        Ok(self.attached.is_some())
    }

    /// Takes the probes away, on a thread of its own.
    fn detach(&mut self) {
        let Self { attached, attaching, detaching } = std::mem::take(self);
        if attached.is_none() && attaching.is_none() {
            self.detaching = detaching;
            return;
        }
        let (ended, receive) = sync_channel::<()>(0);
        std::thread::spawn(move || {
            drop(attached);
            if let Some(attaching) = attaching {
                drop(attaching.recv());
            }
            drop(ended);
        });
        self.detaching = Some(receive);
    }

    /// Waits until probes that are not wanted any more are gone.
    fn await_detached(&mut self) {
        if let Some(detaching) = self.detaching.take() {
            let _ended = detaching.recv();
        }
    }

    /// Whether probes that are not wanted any more may still be hit.
    fn is_detaching(&mut self) -> bool {
        if let Some(detaching) = &self.detaching
            && detaching.try_recv() == Err(TryRecvError::Disconnected)
        {
            self.detaching = None;
        }
        self.detaching.is_some()
    }

    fn count(&self) -> usize {
        self.attached.as_ref().map_or(0, Probes::count)
    }
}

impl Dial {
    /// For a process with nothing attached.
    pub(super) fn new(pid: Pid, program: &Program, placements: Vec<Placement>, kept: KeptStates) -> Self {
        Self {
            pid,
            exe: program.exe.clone(),
            entry: entry(program),
            placements,
            anchored_at: anchor(&program.binary),
            kept,
            level: Level::Snapshots,
            control: Control::default(),
            lives: Group::default(),
            transitions: Group::default(),
            anchor: None,
            slice: Slice::Between(Instant::now()),
            sliced_to: MonotonicNs(0),
            since: MonotonicNs(0),
            next_reading: Instant::now(),
            counted: Hits::default(),
            held: Vec::new(),
            level_since: MonotonicNs(0),
            slices: 0,
            transitions_in_slice: None,
        }
    }

    /// The level that holds.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    fn levels_ns(&self, until: MonotonicNs) -> Vec<(Level, u64)> {
        let now = |level| if level == self.level { until.since(self.level_since) } else { 0 };
        self.held.iter().map(|&(level, ns)| (level, ns + now(level))).collect()
    }

    /// For how many seconds each level has held.
    pub(super) fn levels(&self, until: MonotonicNs) -> Vec<(Level, f64)> {
        self.levels_ns(until).into_iter().map(|(level, ns)| (level, ns as f64 / 1e9)).collect()
    }

    /// How many probes are attached.
    pub(super) fn probes(&self) -> usize {
        self.lives.count() + self.transitions.count()
    }

    /// Attaches what `level` needs, waiting for it, and lets it tell.
    pub(super) fn begin(
        &mut self,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
        level: Level,
    ) -> Result<(), AttachError> {
        programs.know(self.pid, self.entry)?;
        self.anchor = self.anchored_at.map(|at| programs.anchor(self.pid, &self.exe, at)).transpose()?;
        // Births first: what a goroutine does is of no use without it.
        if level > Level::Snapshots {
            let lives = placements(&self.placements, true);
            self.lives.attach_now(programs.attachment(self.pid, &self.exe, lives)?)?;
        }
        if level >= Level::States {
            let transitions = placements(&self.placements, false);
            self.transitions.attach_now(programs.attachment(self.pid, &self.exe, transitions)?)?;
        }
        self.set(programs, table, level)
    }

    /// The process runs another program now; nothing is attached.
    pub(super) fn follow(&mut self, program: &Program, placements: Vec<Placement>) {
        let generation = self.entry.generation + 1;
        self.entry = Target { generation, ..entry(program) };
        (self.exe, self.placements, self.anchored_at) = (program.exe.clone(), placements, anchor(&program.binary));
    }

    /// Turns to another level. What it needs is attached in time; what it does not need is detached.
    pub(super) fn turn(
        &mut self,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
        level: Level,
    ) -> Result<(), SessionError> {
        if level == self.level {
            return Ok(());
        }
        self.settle(programs, table)?;
        if level == Level::Snapshots {
            self.lives.detach();
        } else if self.lives.is_idle() {
            self.lives.attach(programs.attachment(self.pid, &self.exe, placements(&self.placements, true))?);
        }
        if level < Level::States {
            self.transitions.detach();
        } else if self.transitions.is_idle() {
            self.transitions.attach(programs.attachment(self.pid, &self.exe, placements(&self.placements, false))?);
        }
        self.set(programs, table, level)?;
        Ok(())
    }

    /// Has the programs do what `level` wants, from now on.
    fn set(
        &mut self,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
        level: Level,
    ) -> Result<(), AttachError> {
        let (mode, states, shift) = match level {
            Level::Events => (MODE_EVENTS, StatesFrom::Events, 0),
            Level::States => (MODE_STATES, StatesFrom::Kept, 0),
            Level::SlicedStates { .. } => (MODE_LIFECYCLE, StatesFrom::Kept, 0),
            Level::Lifecycle => (MODE_LIFECYCLE, StatesFrom::Snapshots, 0),
            Level::SampledLifecycle { of } => (MODE_LIFECYCLE, StatesFrom::Snapshots, of.0.trailing_zeros() as u8),
            Level::Snapshots => (MODE_OFF, StatesFrom::Snapshots, 0),
        };
        self.held = self.levels_ns(now());
        self.level_since = now();
        if !self.held.iter().any(|(held, _)| *held == level) {
            self.held.push((level, 0));
        }
        self.level = level;
        self.slice = Slice::Between(Instant::now());
        table.take_states_from(states);
        if mode == MODE_STATES {
            table.begin_epoch();
        }
        self.want(programs, mode, shift)?;
        table.sample(self.since, 1 << shift);
        self.sliced_to = self.since;
        self.next_reading = Instant::now() + READ_EVERY;
        Ok(())
    }

    fn want(&mut self, programs: &mut KernelPrograms, mode: u8, sample_shift: u8) -> Result<(), AttachError> {
        let epoch = self.control.epoch.wrapping_add(u32::from(mode == MODE_STATES));
        self.control = Control { mode, sample_shift, epoch };
        programs.want(self.pid, self.control)?;
        self.since = now();
        Ok(())
    }

    /// What is to be done now and then, without waiting: events up to `released` are in the table.
    pub(super) fn advance(
        &mut self,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
        released: MonotonicNs,
    ) -> Result<(), SessionError> {
        self.lives.poll()?;
        let attached = self.transitions.poll()?;
        if Instant::now() >= self.next_reading && released >= self.since {
            self.read(table)?;
        }
        let Level::SlicedStates { permille } = self.level else { return Ok(()) };
        match self.slice {
            Slice::Between(until) if Instant::now() >= until && !self.transitions.is_detaching() => {
                let transitions = placements(&self.placements, false);
                self.transitions.attach(programs.attachment(self.pid, &self.exe, transitions)?);
                self.slice = Slice::Attaching;
            }
            Slice::Attaching if attached => {
                table.begin_epoch();
                self.want(programs, MODE_STATES, 0)?;
                self.slice = Slice::Within(Instant::now() + slice(permille).0, self.since);
            }
            Slice::Within(until, from) if Instant::now() >= until => {
                self.end_slice(programs, table, from)?;
                let (within, round) = slice(permille);
                self.slice = Slice::Between(Instant::now() + round.saturating_sub(within));
            }
            _ => {}
        }
        Ok(())
    }

    /// The slice that began at `from` ends: it stands for the time since the one before.
    fn end_slice(
        &mut self,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
        from: MonotonicNs,
    ) -> Result<(), SessionError> {
        let epoch = self.control.epoch;
        self.want(programs, MODE_LIFECYCLE, 0)?;
        let to = self.since;
        let length = to.since(from).max(1);
        let scale = (to.since(self.sliced_to) as f64 / length as f64).max(1.0);
        let window = Window::Slice { from, scale };
        self.transitions.detach();
        let reading = self.kept.read(self.pid, self.entry.generation, epoch)?;
        table.apply_kept(&reading, window);
        let before = self.counted;
        self.count(table, window)?;
        let Hits { blocked, running, .. } = self.counted.since(before);
        self.transitions_in_slice = Some((blocked + running) as f64 * 1e9 / length as f64);
        self.slices += 1;
        self.sliced_to = to;
        Ok(())
    }

    /// Reads the kernel's records into the table, where it keeps any all the time.
    pub(super) fn read(&mut self, table: &mut GoroutineTable) -> Result<(), StreamError> {
        match self.level {
            Level::States => {}
            Level::SampledLifecycle { .. } => {
                self.next_reading = Instant::now() + READ_EVERY;
                return self.count(table, Window::Whole);
            }
            _ => return Ok(()),
        }
        let begin = Instant::now();
        let reading = self.kept.read(self.pid, self.entry.generation, self.control.epoch)?;
        table.apply_kept(&reading, Window::Whole);
        self.count(table, Window::Whole)?;
        self.next_reading = Instant::now() + READ_EVERY.max(begin.elapsed() * READING_SHARE);
        Ok(())
    }

    /// Brings the transitions that were no events into the totals.
    fn count(&mut self, table: &mut GoroutineTable, window: Window) -> Result<(), StreamError> {
        let hits = self.kept.hits()?;
        let Hits { blocked, running, created_left_out, exited_left_out, .. } = hits.since(self.counted);
        table.count_transitions(blocked, running, window);
        table.count_left_out(created_left_out, exited_left_out);
        self.counted = hits;
        Ok(())
    }

    /// Hits since the programs were loaded.
    pub(super) fn hits(&self) -> Result<Hits, StreamError> {
        self.kept.hits()
    }

    /// Whether probes that are not wanted any more may still be hit.
    pub(super) fn is_detaching(&mut self) -> bool {
        self.lives.is_detaching() || self.transitions.is_detaching()
    }

    /// How many slices have ended.
    pub(super) fn slices(&self) -> u64 {
        self.slices
    }

    /// Parks and runs a second in the last slice.
    pub(super) fn transitions_in_slice(&self) -> Option<f64> {
        self.transitions_in_slice
    }

    /// The last of what the present level tells.
    fn settle(&mut self, programs: &mut KernelPrograms, table: &mut GoroutineTable) -> Result<(), SessionError> {
        match (self.level, self.slice) {
            (Level::States, _) => {
                // What programs under way still do to records is left out.
                self.want(programs, MODE_LIFECYCLE, 0)?;
                self.read(table)?;
            }
            (Level::SlicedStates { .. }, Slice::Within(_, from)) => self.end_slice(programs, table, from)?,
            (Level::SlicedStates { .. }, Slice::Attaching) => self.transitions.detach(),
            // Hits that were events are counted as such.
            (Level::Events, _) => self.counted = self.kept.hits()?,
            (Level::SampledLifecycle { .. }, _) => self.count(table, Window::Whole)?,
            _ => {}
        }
        Ok(())
    }

    /// Takes all probes away, and waits for it. Then nothing is under way any more, and [`Self::read`] gives the last
    /// of what the kernel has kept.
    pub(super) fn detach(&mut self, programs: &mut KernelPrograms) -> Result<(), AttachError> {
        let forgotten = programs.forget(self.pid);
        self.lives.detach();
        self.transitions.detach();
        self.lives.await_detached();
        self.transitions.await_detached();
        self.anchor = None;
        forgotten
    }
}

fn placements(all: &[Placement], lives: bool) -> impl Iterator<Item = &Placement> {
    all.iter().filter(move |placement| matches!(placement.event, Event::Created | Event::Exited) == lives)
}

/// How long a slice is, and how long it is from the begin of one to the next's.
fn slice(permille: u16) -> (Duration, Duration) {
    (Duration::from_secs_f64(slice_seconds(permille)), Duration::from_secs_f64(round_seconds(permille)))
}

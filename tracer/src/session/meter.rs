//! The meter: what tracing costs the target, period by period, and the governor that acts on it.
//!
//! In: hits of the probes, the target's CPU time, what a hit costs on this machine. Out: the [`Overhead`], and levels for
//! the [`Dial`](super::dial::Dial). What a hit costs is found out once, on a thread of its own while the session runs.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::births::Births;
use super::dial::Dial;
use super::{Options, SessionError};
use crate::events::now;
use crate::events::{EventStream, Hits};
use crate::goroutines::GoroutineTable;
use crate::governor::{Change, Governor, HitCost, HitCosts, Level, Overhead, Period, ProbeRate, round_seconds};
use crate::probes::calibration::{Cost, calibrate};
use crate::probes::catalogue::Event;
use crate::probes::instruction::Execution;
use crate::probes::{Capacity, Execs, KernelPrograms, Placement};
use crate::process::Process;
use crate::tracee::Tracee;

/// How long a period is, but for levels whose slices are further apart.
const PERIOD: Duration = Duration::from_secs(1);
/// Within a period, how often to look whether its budget is spent already.
const GLANCE: Duration = Duration::from_millis(100);
/// For so long a target is looked at before anything is attached to it, where a budget is to be kept.
const LOOK: Duration = Duration::from_millis(100);
/// For so long the second of two probes is expected to be hit after a slice: the kernel takes them away one after the other.
const LINGERS_S: f64 = 0.1;

/// Of this machine; it does not change while we run.
static COST: OnceLock<Option<Cost>> = OnceLock::new();

/// What was counted by a moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    hits: Hits,
    cpu: Duration,
    /// Slices that had ended.
    slices: u64,
    /// Goroutines that had been made, where that can be read.
    born: Option<u64>,
}

impl Mark {
    /// What happened since `begun`.
    fn since(&self, begun: &Self, transitions: Option<f64>) -> Period {
        let seconds = self.at.duration_since(begun.at).as_secs_f64();
        let born = self.born.zip(begun.born).map(|(now, then)| now.saturating_sub(then));
        Period {
            seconds,
            cpu_seconds: self.cpu.saturating_sub(begun.cpu).as_secs_f64(),
            hits: self.hits.since(begun.hits),
            transitions,
            slices: self.slices.saturating_sub(begun.slices),
            created: born.map(|born| born as f64 / seconds.max(1e-3)),
        }
    }
}

/// The meter of one session.
pub(super) struct Meter {
    options: Options,
    placements: Vec<Placement>,
    births: Births,
    calibrating: Option<Receiver<Option<Cost>>>,
    costs: Option<HitCosts>,
    governor: Option<Governor>,
    begun: Option<Mark>,
    /// The level was changed, and what was given up may still be hit: its price is of no period.
    turning: bool,
    next_glance: Instant,
    overhead: Option<Overhead>,
    changes: Vec<Change>,
    /// The sum over all periods: nanoseconds of probes, and of the target's CPU time.
    total: (f64, f64),
}

impl Meter {
    /// For a session that is beginning.
    pub(super) fn new(options: Options, placements: Vec<Placement>) -> Self {
        Self {
            options,
            placements,
            births: Births::default(),
            calibrating: None,
            costs: None,
            governor: None,
            begun: None,
            turning: false,
            next_glance: Instant::now(),
            overhead: None,
            changes: Vec::new(),
            total: (0.0, 0.0),
        }
    }

    /// The level to begin at. With a budget it is found out here what a hit costs and how much the target does, which
    /// takes a tenth of a second; without, the first on a thread of its own from [`Self::calibrate`] on.
    pub(super) fn first_level(&mut self, process: &Process) -> Level {
        let most = Level::of(self.options.detail);
        let Some(budget) = self.options.budget else { return most };
        let begun = self.glimpse(process);
        let cost = *COST.get_or_init(measure);
        let seen = begun.and_then(|begun| {
            std::thread::sleep(LOOK.saturating_sub(begun.at.elapsed()));
            Some(self.glimpse(process)?.since(&begun, None))
        });
        match cost {
            Some(cost) => {
                let costs = hit_costs(&cost, &self.placements);
                let governor = Governor::new(budget, costs, most, seen.as_ref());
                let level = governor.level();
                (self.costs, self.governor) = (Some(costs), Some(governor));
                level
            }
            None => {
                log::warn!("without knowing what a probe costs, no budget can be kept: detail is lifecycle at most");
                Level::Lifecycle.min(most)
            }
        }
    }

    /// What can be counted before anything is attached.
    fn glimpse(&self, process: &Process) -> Option<Mark> {
        let (cpu, born) = (process.cpu_time().ok()?, self.births.so_far(process)?);
        Some(Mark { at: Instant::now(), hits: Hits::default(), cpu, slices: 0, born: Some(born) })
    }

    /// Begins to find out what a hit costs, unless that is known.
    pub(super) fn calibrate(&mut self) {
        if self.costs.is_some() {
            return;
        }
        let (send, receive) = sync_channel(1);
        std::thread::spawn(move || {
            // Whoever waited may have gone.
            let _ = send.send(*COST.get_or_init(measure));
        });
        self.calibrating = Some(receive);
    }

    /// The program changed: its probes stand elsewhere.
    pub(super) fn follow(&mut self, placements: Vec<Placement>) {
        self.placements = placements;
        self.begun = None;
        if let Some(cost) = COST.get().copied().flatten() {
            self.costs = Some(hit_costs(&cost, &self.placements));
        }
    }

    /// From now on the births of this program are counted, where there is a budget: for that alone they are of use.
    pub(super) fn count_births(&mut self, tracee: &Tracee) {
        if self.options.budget.is_some() {
            self.births.follow(tracee);
        }
    }

    pub(super) fn overhead(&self) -> Option<&Overhead> {
        self.overhead.as_ref()
    }

    /// The share of the target's CPU time that all periods together took; `None` before the end of the first.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.total.1 > 0.0).then(|| self.total.0 / self.total.1)
    }

    pub(super) fn made(&self) -> Option<u64> {
        self.births.made()
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Goes on if it is time to: to be called between drains.
    pub(super) fn advance(
        &mut self,
        process: &Process,
        dial: &mut Dial,
        programs: &mut KernelPrograms,
        table: &mut GoroutineTable,
    ) -> Result<(), SessionError> {
        self.poll();
        let Some(costs) = self.costs else { return Ok(()) };
        if Instant::now() < self.next_glance {
            return Ok(());
        }
        self.next_glance = Instant::now() + GLANCE;
        // A process that is gone has no clock; its end is told elsewhere.
        let Ok(cpu) = process.cpu_time() else { return Ok(()) };
        let born = self.births.count(process);
        let mark = Mark { at: Instant::now(), hits: dial.hits()?, cpu, slices: dial.slices(), born };
        let Some(begun) = self.begun else {
            self.begun = Some(mark);
            return Ok(());
        };
        let level = dial.level();
        let period = mark.since(&begun, dial.transitions_in_slice());
        let length = match level {
            Level::SlicedStates { permille } => Duration::from_secs_f64(round_seconds(permille)),
            _ => PERIOD,
        };
        if self.turning {
            if !dial.is_detaching() {
                self.turning = false;
                self.begun = Some(mark);
                self.count(&overhead(&costs, level, &period), &period);
            }
            return Ok(());
        }
        if matches!(level, Level::SlicedStates { .. }) && dial.is_detaching() {
            // What lingers belongs to the slice that it comes from, and no change of level would spare it.
            return Ok(());
        }
        let is_over = period.seconds >= length.as_secs_f64()
            && (period.slices > 0 || !matches!(level, Level::SlicedStates { .. }));
        let is_spent = self.governor.as_ref().is_some_and(|governor| governor.is_spent(&period, length.as_secs_f64()));
        if !is_over && !is_spent {
            return Ok(());
        }
        self.begun = Some(mark);
        let overhead = overhead(&costs, level, &period);
        self.count(&overhead, &period);
        self.overhead = Some(overhead);
        if let Some(governor) = &mut self.governor
            && let Some((to, why)) = governor.step(&period)
        {
            dial.turn(programs, table, to)?;
            self.turning = true;
            self.changes.push(Change { time_ns: now(), from: level, to, why });
        }
        Ok(())
    }

    fn count(&mut self, overhead: &Overhead, period: &Period) {
        self.total.0 += overhead.ns_per_second() * period.seconds;
        self.total.1 += period.cpu_seconds * 1e9;
    }

    /// Takes note of what a hit costs, once that is known.
    fn poll(&mut self) {
        let Some(calibrating) = &self.calibrating else { return };
        match calibrating.try_recv() {
            Ok(cost) => self.costs = cost.map(|cost| hit_costs(&cost, &self.placements)),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {}
        }
        self.calibrating = None;
    }
}

/// The price of a period.
fn overhead(costs: &HitCosts, level: Level, period: &Period) -> Overhead {
    let seconds = period.seconds.max(1e-3);
    let Hits { created, blocked, running, exited, .. } = period.hits;
    let kinds = [Event::Created, Event::Blocked, Event::Running, Event::Exited];
    let ns = costs.of_hits(level, &period.hits);
    let probes = kinds
        .into_iter()
        .zip([created, blocked, running, exited])
        .zip(ns)
        .map(|((event, hits), ns)| ProbeRate {
            event,
            hits_per_second: hits as f64 / seconds,
            ns_per_second: ns / seconds,
        })
        .collect();
    let ns: f64 = ns.iter().sum();
    let share = |of: f64| if of > 0.0 { ns / 1e9 / of } else { 0.0 };
    let host_cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Overhead {
        of_target: share(period.cpu_seconds),
        of_host: share(seconds * host_cpus),
        target_cpus: period.cpu_seconds / seconds,
        probes,
    }
}

/// What hits cost where the probes stand.
fn hit_costs(cost: &Cost, placements: &[Placement]) -> HitCosts {
    let of = |event: Event| {
        // Of several probes for one kind, the first is the one that every goroutine hits.
        let placement = placements.iter().find(|placement| placement.event == event);
        let execution = placement.map_or(Execution::Emulated, |placement| placement.execution);
        let trap = cost.trap.of(execution).unwrap_or(cost.trap.emulated_ns);
        let (event_ns, kept_ns) = match event {
            Event::Created => (cost.created_event_ns, cost.created_kept_ns),
            // An end is an event, whatever else is kept.
            Event::Exited => (cost.event_ns, cost.event_ns),
            Event::Blocked | Event::Running => (cost.event_ns, cost.kept_ns),
        };
        HitCost { unwanted_ns: trap, event_ns: trap + event_ns, kept_ns: trap + kept_ns }
    };
    HitCosts {
        created: of(Event::Created),
        blocked: of(Event::Blocked),
        running: of(Event::Running),
        exited: of(Event::Exited),
        lingers_s: LINGERS_S,
    }
}

/// Measures on kernel programs of its own: no event of it is among the session's.
///
/// On a thread of its own, for it needs a runtime, which cannot be in another.
fn measure() -> Option<Cost> {
    std::thread::spawn(measure_here).join().ok().flatten()
}

fn measure_here() -> Option<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let _entered = runtime.enter();
    let measured = || -> Result<Cost, Box<dyn std::error::Error>> {
        let (mut programs, maps) =
            KernelPrograms::load_with(Capacity { goroutines: 16, sites: 16, ..Capacity::NONE }, Execs::Traced)?;
        let _stream = EventStream::open(maps.events, maps.counts)?;
        let _kept = maps.kept;
        let (cost, probes) = calibrate(&mut programs)?;
        // Taking them away takes longer than all the rest.
        std::thread::spawn(move || drop(probes));
        Ok(cost)
    };
    measured().inspect_err(|error| log::warn!("what a probe costs could not be measured: {error}")).ok()
}

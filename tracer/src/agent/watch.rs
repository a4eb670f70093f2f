//! One watched process: its table, and what is known beside it.
//!
//! In: its events, readings of its memory, the clock. Out: what alarms look at, findings, the last hour ([`series`]), and
//! what is exported ([`metrics`]). Whatever goes wrong here is this process's alone.

mod metrics;
pub mod series;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::series::{Point, Series};
use super::budget::Level;
use super::clock::unix_ms;
use super::config::Figure;
use super::container::{Container, PodNames};
use super::discovery::FileKey;
use super::flight_recorder::FlightRecorder;
use super::growth::Growth;
use super::notice::Notice;
use super::pace::Pace;
use super::procfs::read_kernel;
use super::programs::{GoProgram, Use};
use super::reading::Subject;
use super::rules::Traits;
use super::verdicts::{Proven, Turn};
use crate::analysis::{Analysis, Finding, Thresholds};
use crate::events::Event;
use crate::go_runtime::Owner;
use crate::goroutines::{GoroutineTable, Limits, State};
use crate::output::Names;
use crate::output::metrics::{Forecast, Identity, KernelMetrics};
use crate::process::Process;
use crate::session::seed::{self, Seeding};
use crate::snapshot::RuntimeStats;
use crate::tracee::{Tracee, TraceeNames};
use crate::units::{MonotonicNs, Pid};
use crate::watch::{self, Look, WatchError};

/// What one target may make of our memory: a million goroutines, and more creation sites than programs have.
const LIMITS: Limits = Limits { live: 1 << 22, sites: 1 << 14, exits_while_read: 1 << 20 };

/// One watched process.
pub struct Watch {
    /// The process and its program.
    pub tracee: Arc<Tracee>,
    /// What it is known by.
    pub identity: Arc<Identity>,
    /// What rules and alarms look at.
    pub traits: Traits,
    /// Where it runs.
    pub container: Container,
    go: Arc<GoProgram>,
    key: FileKey,
    table: GoroutineTable,
    names: TraceeNames,
    seeding: Seeding,
    growth: Growth,
    /// Up to when the last reading of its goroutines that is in the table went.
    read_to: MonotonicNs,
    sampled: Option<(Instant, Counts)>,
    /// Blocked goroutines by reason and by site, at the last sample.
    blocked_by_reason: Vec<u64>,
    kernel: KernelMetrics,
    runtime: Option<RuntimeStats>,
    stack_bytes: Option<u64>,
    /// Reads its memory from time to time; `None` if it is not known where its program is loaded.
    looker: Option<watch::Watch>,
    pace: Pace,
    /// A look is under way.
    looking: bool,
    analysis: Analysis,
    /// What is proven of it.
    pub proven: Proven,
    /// A turn of the prover that is under way.
    pub turn: Option<Turn>,
    /// The findings that were told.
    told: Vec<Finding>,
    events: u64,
    overhead: Overhead,
    since_unix_ms: u64,
    level: Level,
    series: Series,
    recorder: FlightRecorder,
    /// Ends the task that waits for the process's end.
    pub exit: Option<tokio::task::AbortHandle>,
    /// Its share in the probes.
    _in_use: Use,
}

/// Steps of its goroutines, as the table counts them.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    events: u64,
    cpu_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Overhead {
    share: f64,
    /// CPU seconds a second.
    cpus: f64,
}

/// All goroutines of the program, by state.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    runnable: u64,
    running: u64,
    blocked: u64,
    system: u64,
}

impl Watch {
    /// Begins with a process whose events come from now on.
    #[must_use]
    pub fn new(
        tracee: Tracee,
        go: Arc<GoProgram>,
        traits: Traits,
        container: Container,
        in_use: Use,
        looks: Duration,
        key: FileKey,
    ) -> Self {
        let names = TraceeNames::new(tracee.program().clone(), tracee.bias());
        let pid = tracee.process().pid();
        let program = tracee.program();
        let process = traits.exe.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default().to_owned();
        let identity = Identity {
            process,
            pid: pid.0,
            binary: traits.exe.clone(),
            build_id: go.build_id.clone(),
            go_version: program.binary.version().to_string(),
            container: container.id.clone(),
            pod_uid: container.pod_uid.clone(),
            namespace: None,
            pod: None,
        };
        Self {
            identity: Arc::new(identity),
            traits,
            container,
            go,
            key,
            table: GoroutineTable::with_limits(pid, LIMITS),
            names,
            seeding: Seeding::rest(),
            growth: Growth::default(),
            read_to: MonotonicNs(0),
            sampled: None,
            blocked_by_reason: Vec::new(),
            kernel: KernelMetrics::default(),
            runtime: None,
            stack_bytes: None,
            // When is the pace's to say.
            looker: watch::Watch::new(&tracee, watch::Pace::Every(Duration::ZERO)).ok(),
            pace: Pace::new(looks, Instant::now()),
            looking: false,
            analysis: Analysis::new(Thresholds::default()),
            proven: Proven::default(),
            turn: None,
            told: Vec::new(),
            events: 0,
            overhead: Overhead::default(),
            since_unix_ms: unix_ms(),
            level: Level::Events,
            series: Series::default(),
            recorder: FlightRecorder::new(pid, program, tracee.bias()),
            exit: None,
            tracee: Arc::new(tracee),
            _in_use: in_use,
        }
    }

    /// Its pod's names, where the kubelet's folders tell them.
    pub fn name_pod(&mut self, pods: &mut PodNames) {
        if self.identity.pod.is_none()
            && let Some(uid) = &self.container.pod_uid
            && let Some((namespace, pod)) = pods.of(uid)
        {
            let identity = Identity { namespace: Some(namespace), pod: Some(pod), ..(*self.identity).clone() };
            self.identity = Arc::new(identity);
        }
    }

    /// Its events come: goroutines that are older are looked for from here on.
    pub fn begin(&mut self) {
        self.seeding = Seeding::begin(&mut self.table);
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.table.pid()
    }

    /// Its goroutines.
    #[must_use]
    pub fn table(&self) -> &GoroutineTable {
        &self.table
    }

    /// What a reading of its memory needs; `None` if it is not known where its program is loaded.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        Some(Subject {
            pid: self.pid(),
            start_ticks: self.process().start_ticks(),
            program: self.go.program.clone(),
            bias: self.tracee.bias()?,
        })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.tracee.process()
    }

    /// Takes in its events, and losses.
    pub fn apply(&mut self, events: &[Event]) {
        self.events += events.iter().filter(|event| matches!(event, Event::Goroutine { .. })).count() as u64;
        self.table.apply_all(events);
        if let Some(looker) = &mut self.looker {
            looker.learn(events, &self.table);
        }
        self.recorder.take(events, &mut self.names);
    }

    /// Goes on with the goroutines that are older than the probes, or that a loss has left uncertain; all events up to
    /// `released` are in the table.
    pub fn advance(&mut self, released: MonotonicNs) {
        let tracee = &self.tracee;
        self.seeding.advance(&mut self.table, false, || {
            let (process, program) = (tracee.process(), tracee.program().clone());
            let (pid, start_ticks) = (process.pid(), process.start_ticks());
            Some(seed::Subject { pid, start_ticks, program, bias: tracee.bias()? })
        });
        self.seeding.take_if_read();
        if let Some((report, snapshot)) = self.seeding.merge(&mut self.table, released) {
            if self.read_to.0 == 0 {
                log::info!("process {}: {} goroutines were there already", self.pid(), report.added);
            }
            self.read_to = snapshot.taken_to.unwrap_or(released);
        }
    }

    /// Whether the goroutines that are older than the probes are in the table.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.seeding.is_under_way()
    }

    /// A look into its memory, if one is through; begins the next one when it is time to.
    ///
    /// # Errors
    ///
    /// If it could not be read; it is tried again.
    pub fn look(&mut self) -> Option<Result<Look, WatchError>> {
        let looker = self.looker.as_mut()?;
        let now = Instant::now();
        if !self.looking {
            let process = self.tracee.process();
            self.looking = self.pace.is_due(now, || process.cpu_time().ok());
            if !self.looking {
                return None;
            }
        }
        // Followed by the clock, as everything of so many processes: nobody need be woken.
        let look = {
            let next = std::pin::pin!(looker.next());
            next.poll(&mut Context::from_waker(Waker::noop()))
        };
        let Poll::Ready(look) = look else { return None };
        self.looking = false;
        self.pace.looked(now, look.as_ref().map_or(Duration::ZERO, |look| look.cpu));
        Some(look.map(|mut look| {
            looker.add_counts(&mut look.sample, &self.table);
            self.analysis.observe(&look.sample);
            self.stack_bytes = Some(look.snapshot.goroutines.iter().map(|g| g.stack_size()).sum());
            self.runtime = Some(look.runtime.clone());
            self.kernel.cgroup_limit_bytes = look.sample.memory.cgroup_limit;
            if self.level != Level::Events && !self.seeding.is_under_way() {
                self.seeding = Seeding::begin(&mut self.table);
            }
            look
        }))
    }

    /// What is suspected of it, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        self.analysis.findings()
    }

    /// Tells which findings have come and gone since the last time.
    pub fn tell_findings(&mut self, notices: &mut Vec<Notice>) {
        let same = |a: &Finding, b: &Finding| a.kind == b.kind && a.site == b.site;
        let now = self.analysis.findings();
        for finding in now.iter().filter(|finding| !self.told.iter().any(|told| same(told, finding))) {
            notices.push(Notice::finding(finding, &self.identity));
        }
        for finding in self.told.iter().filter(|told| !now.iter().any(|finding| same(told, finding))) {
            notices.push(Notice::finding_gone(finding, &self.identity));
        }
        self.told = now.to_vec();
        for at in self.proven.untold() {
            if let Some(site) = self.proven.report().and_then(|report| report.sites.get(at)) {
                notices.push(Notice::leaked(site, &self.identity));
            }
        }
    }

    /// Its heap, as of the last look.
    #[must_use]
    pub fn heap_bytes(&self) -> Option<u64> {
        self.runtime.as_ref()?.heap_spans_bytes
    }

    /// What analysis knows.
    #[must_use]
    pub fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// Looks at what changes over time; all events up to `released` are in the table. `hit_ns`: what an event costs the
    /// process.
    pub fn sample(&mut self, now: Instant, released: MonotonicNs, hit_ns: f64) {
        if let Some(kernel) = read_kernel(self.pid()) {
            // The limit is known from looks.
            self.kernel = KernelMetrics { cgroup_limit_bytes: self.kernel.cgroup_limit_bytes, ..kernel };
        }
        self.blocked_by_reason.clear();
        for goroutine in self.table.iter() {
            if let State::Blocked { reason } = goroutine.state {
                let at = usize::from(reason);
                if at >= self.blocked_by_reason.len() {
                    self.blocked_by_reason.resize(at + 1, 0);
                }
                self.blocked_by_reason[at] += 1;
            }
        }
        let as_of = self.as_of(released);
        self.growth.take(as_of, self.table.sites().iter().map(|site| site.live.total()));
        let counts = Counts { events: self.events, cpu_seconds: self.kernel.cpu_seconds };
        if let Some((at, before)) = self.sampled {
            let seconds = now.duration_since(at).as_secs_f64();
            let cost = (counts.events - before.events) as f64 * hit_ns / 1e9;
            let used = counts.cpu_seconds - before.cpu_seconds;
            self.overhead.cpus = cost / seconds.max(1e-3);
            // The kernel counts in hundredths of a second: below one, nothing can be said of a share.
            // What the probes cost is in what it used.
            self.overhead.share = if used > cost { cost / (used - cost) } else { f64::from(u8::from(used > 0.0)) };
        }
        self.note_point();
        self.sampled = Some((now, counts));
    }

    /// As of when the table's counts are; `None` while they are not whole.
    fn as_of(&self, released: MonotonicNs) -> Option<MonotonicNs> {
        let whole = self.is_complete() && self.table.uncertain_since().is_none();
        // Without births and ends the last reading is all that is known.
        whole.then_some(if self.level == Level::Snapshots { self.read_to } else { released })
    }

    fn note_point(&mut self) {
        let (live, totals) = (self.live(), self.table.totals());
        let runtime = self.runtime.as_ref();
        let point = Point {
            unix_ms: unix_ms(),
            goroutines: live.runnable + live.running + live.blocked,
            blocked: live.blocked,
            created: totals.created,
            ended: totals.exited + totals.ended_unseen,
            stack_bytes: self.stack_bytes,
            kernel: self.kernel,
            heap_live_bytes: runtime.and_then(|r| r.heap_live_bytes),
            heap_goal_bytes: runtime.and_then(|r| r.heap_goal_bytes),
            gc_cycles: runtime.and_then(|r| r.gc_cycles),
            gc_pause_total_ns: runtime.and_then(|r| r.gc_pause_total_ns),
            timers: runtime.and_then(|r| r.timers),
            forecast: self.forecast(),
        };
        self.series.push(point);
    }

    /// The last hour.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// What an alarm looks at; `None` where it is not known, or not yet.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let point = self.series.last()?;
        let runtime = || self.runtime.as_ref();
        Some(match figure {
            Figure::Goroutines => point.goroutines as f64,
            Figure::BlockedShare => (point.goroutines > 0).then(|| point.blocked as f64 / point.goroutines as f64)?,
            Figure::GrowthPerSecond => self.growth.per_second()?,
            Figure::MemoryForecastSeconds => self.forecast()?.low_seconds,
            Figure::MemoryShare => {
                let limits = [self.kernel.cgroup_limit_bytes, runtime().and_then(|r| r.memory_limit_bytes)];
                self.kernel.resident_bytes as f64 / limits.into_iter().flatten().min()? as f64
            }
            Figure::ResidentBytes => self.kernel.resident_bytes as f64,
            Figure::StackBytes => self.stack_bytes? as f64,
            Figure::BlockedChannels => runtime()?.blocked_channels as f64,
            Figure::ActiveTimers => runtime()?.timers? as f64,
            Figure::LeakedGoroutines => self.proven.leaked()? as f64,
        })
    }

    /// The last minutes of its events, as a .gtr file.
    ///
    /// # Errors
    ///
    /// If the compressor fails.
    pub fn recording(&mut self, released: MonotonicNs) -> std::io::Result<Vec<u8>> {
        self.recorder.write(&self.table, &mut self.names, released)
    }

    /// The flight recorder.
    pub fn recorder(&mut self) -> &mut FlightRecorder {
        &mut self.recorder
    }

    /// Lets the flight recorder note who lives, where it is time to.
    pub fn record_reading(&mut self, released: MonotonicNs) {
        self.recorder.note_readings(&self.table, &mut self.names, released);
    }

    /// Its cost in the last sample, as a share of its CPU time; 0 where that is too little to say.
    #[must_use]
    pub fn overhead(&self) -> f64 {
        self.overhead.share
    }

    /// What its file has attached from now on. States that no event tells any more come from readings.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
        self.recorder.take_level(level);
        self.read_again();
    }

    /// Has the goroutines read anew, where events do not tell all.
    fn read_again(&mut self) {
        if !self.seeding.is_under_way() {
            self.seeding = Seeding::begin(&mut self.table);
        }
    }

    /// The file that it runs, by its place among the programs.
    #[must_use]
    pub fn key(&self) -> FileKey {
        self.key
    }

    /// CPU seconds a second that the probes cost it; estimated.
    #[must_use]
    pub fn overhead_cpus(&self) -> f64 {
        self.overhead.cpus
    }

    /// The program's own goroutines.
    pub fn goroutines(&mut self) -> u64 {
        let live = self.live();
        live.runnable + live.running + live.blocked
    }

    fn live(&mut self) -> Live {
        let mut live = Live::default();
        for site in self.table.sites() {
            let of_site = site.live;
            if of_site.total() == 0 {
                continue;
            }
            if Owner::of(&self.names.function(site.startpc)).is_system() {
                live.system += of_site.total();
            } else {
                live.runnable += of_site.runnable;
                live.running += of_site.running;
                live.blocked += of_site.blocked;
            }
        }
        live
    }

    /// How long memory lasts, while it grows.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let forecast = self.analysis.forecast()?;
        let high_seconds = forecast.latest_s.unwrap_or(f64::INFINITY);
        Some(Forecast { low_seconds: forecast.soonest_s, high_seconds })
    }
}

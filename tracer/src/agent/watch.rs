//! One watched process: its table, and what is known beside it.
//!
//! In: its events, readings of its memory, the clock. Out: [`ProcessMetrics`]. Whatever goes wrong here is this process's
//! alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::budget::Level;
use super::config::{Figure, Metrics};
use super::container::{Container, PodNames};
use super::discovery::FileKey;
use super::flight_recorder::FlightRecorder;
use super::growth::Growth;
use super::notice::Notice;
use super::pace::Pace;
use super::programs::{GoProgram, Use};
use super::reading::Subject;
use super::rules::Traits;
use super::verdicts::{Proven, Turn};
use crate::analysis::{Analysis, Finding, Thresholds};
use crate::events::Event;
use crate::go_runtime::Owner;
use crate::goroutines::{GoroutineTable, Limits, Log2Histogram, SiteId, State};
use crate::kernel::{page_bytes, ticks_per_second};
use crate::output::Names;
use crate::output::metrics::{
    BLOCK_BOUNDS_LOG2_NS, BlockMetrics, Forecast, Identity, KernelMetrics, ProcessMetrics, ProofMetrics, SiteMetrics,
};
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
    series: VecDeque<Point>,
    recorder: FlightRecorder,
    /// Ends the task that waits for the process's end.
    pub exit: Option<tokio::task::AbortHandle>,
    /// Its share in the probes.
    _in_use: Use,
}

/// What is kept of the last hour: a point for each sample.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The program's own goroutines.
    pub goroutines: u64,
    /// Of them, blocked.
    pub blocked: u64,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines that ended.
    pub ended: u64,
    /// Bytes of goroutines' stacks.
    pub stack_bytes: Option<u64>,
    /// What the kernel says.
    #[serde(flatten)]
    pub kernel: KernelMetrics,
    /// Heap that is live or was allocated since the last collection.
    pub heap_live_bytes: Option<u64>,
    /// Where the next collection should end.
    pub heap_goal_bytes: Option<u64>,
    /// Collections.
    pub gc_cycles: Option<u64>,
    /// Nanoseconds that the collector stopped the world.
    pub gc_pause_total_ns: Option<u64>,
    /// Timers that are set.
    pub timers: Option<u64>,
    /// How long memory lasts.
    pub forecast: Option<Forecast>,
}

/// Points kept: an hour of samples of five seconds.
const POINTS: usize = 720;

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
            series: VecDeque::new(),
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
        if self.series.len() >= POINTS {
            self.series.pop_front();
        }
        self.series.push_back(point);
    }

    /// The last hour.
    #[must_use]
    pub fn series(&self) -> &VecDeque<Point> {
        &self.series
    }

    /// What an alarm looks at; `None` where it is not known, or not yet.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let point = self.series.back()?;
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

    /// All its figures.
    pub fn metrics(&mut self, config: &Metrics) -> ProcessMetrics {
        let live = self.live();
        let totals = self.table.totals();
        ProcessMetrics {
            identity: Arc::clone(&self.identity),
            since_unix_ns: self.since_unix_ms * 1_000_000,
            detail: self.level.name(),
            goroutines: live.runnable + live.running + live.blocked,
            system_goroutines: live.system,
            runnable: live.runnable,
            running: live.running,
            blocked: live.blocked,
            created: totals.created,
            ended: totals.exited + totals.ended_unseen,
            growth: self.growth.per_second().unwrap_or_default(),
            blocks: self.blocks(config.top_reasons),
            sites: self.sites(config),
            runtime: self.runtime.clone(),
            stack_bytes: self.stack_bytes,
            kernel: self.kernel,
            forecast: self.forecast(),
            findings: self.findings_by_kind(),
            proof: self
                .proven
                .report()
                .map(|report| ProofMetrics::of(report, self.proven.unix_ms, config.top_sites_by_size)),
            events: self.events,
            lost: totals.lost,
            uncertain: self.table.uncertain_since().is_some(),
            complete: self.is_complete(),
            overhead: self.overhead.share,
        }
    }

    /// How long memory lasts, while it grows.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let forecast = self.analysis.forecast()?;
        let high_seconds = forecast.latest_s.unwrap_or(f64::INFINITY);
        Some(Forecast { low_seconds: forecast.soonest_s, high_seconds })
    }

    fn findings_by_kind(&self) -> Vec<(String, String, u64)> {
        let mut counts = std::collections::BTreeMap::new();
        for finding in self.findings() {
            *counts.entry((finding.kind, finding.severity)).or_default() += 1;
        }
        counts.into_iter().map(|((kind, severity), n)| (kind.to_string(), severity.to_string(), n)).collect()
    }

    /// The reasons with the most blocks; the others as one.
    fn blocks(&self, top: usize) -> Vec<BlockMetrics> {
        let mut all: Vec<(u64, BlockMetrics)> = self
            .table
            .reasons()
            .map(|(reason, stats)| {
                let block = BlockMetrics {
                    reason: self.names.reason(reason).into_owned(),
                    blocked: self.blocked_by_reason.get(usize::from(reason)).copied().unwrap_or_default(),
                    seconds: stats.blocked_ns as f64 / 1e9,
                    buckets: buckets(&stats.blocks),
                };
                (stats.parks + block.blocked, block)
            })
            .collect();
        // Equal ones by name: whoever has a series keeps it.
        all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.reason.cmp(&b.1.reason)));
        let rest = all.split_off(top.min(all.len()));
        let mut shown: Vec<BlockMetrics> = all.into_iter().map(|(_, block)| block).collect();
        if !rest.is_empty() {
            let mut others = BlockMetrics { reason: "(others)".into(), ..BlockMetrics::default() };
            for (_, block) in rest {
                others.blocked += block.blocked;
                others.seconds += block.seconds;
                for (sum, count) in others.buckets.iter_mut().zip(block.buckets) {
                    *sum += count;
                }
            }
            shown.push(others);
        }
        shown
    }

    /// The largest sites, then those that grow most; the others as one. The runtime's own are left out.
    fn sites(&mut self, config: &Metrics) -> Vec<SiteMetrics> {
        let mut program: Vec<usize> = Vec::new();
        for (at, site) in self.table.sites().iter().enumerate() {
            let seen = site.created + site.first_seen > 0;
            if seen && !Owner::of(&self.names.function(site.startpc)).is_system() {
                program.push(at);
            }
        }
        let growth = |at: usize| self.growth.of_site(at);
        let sites = self.table.sites();
        let live = |at: usize| sites.get(at).map_or(0, |site| site.live.total());
        program.sort_by_key(|&at| (std::cmp::Reverse(live(at)), at));
        let mut rest = program.split_off(config.top_sites_by_size.min(program.len()));
        rest.sort_by(|&a, &b| growth(b).total_cmp(&growth(a)).then(a.cmp(&b)));
        let growing = rest.iter().take(config.top_sites_by_growth).take_while(|&&at| growth(at) > 0.0).count();
        let summed = rest.split_off(growing);
        program.extend(rest);

        let names = &mut self.names;
        let figures = |at: usize| {
            let site = sites.get(at)?;
            Some(SiteMetrics {
                live: site.live.total(),
                blocked: site.live.blocked,
                created: site.created,
                ended: site.exited + site.ended_unseen,
                growth: growth(at),
                ..SiteMetrics::default()
            })
        };
        let mut shown: Vec<SiteMetrics> = Vec::with_capacity(program.len() + 1);
        for at in program {
            let (Some(metrics), Some(site)) = (figures(at), sites.get(at)) else { continue };
            let unknown = SiteId(at as u32) == SiteId::UNKNOWN;
            let start = if unknown { "(unknown)".into() } else { names.function(site.startpc) };
            // The main goroutine has no `go` statement.
            let name = if site.gopc.0 == 0 { None } else { Some(names.site(site.gopc)) };
            let (function, file, line) =
                name.map_or_else(|| ("(none)".into(), "".into(), 0), |name| (name.function, name.file, name.line));
            shown.push(SiteMetrics { function, file, line, start, ..metrics });
        }
        if !summed.is_empty() {
            let mut others = SiteMetrics { function: "(others)".into(), ..SiteMetrics::default() };
            for metrics in summed.into_iter().filter_map(figures) {
                others.live += metrics.live;
                others.blocked += metrics.blocked;
                others.created += metrics.created;
                others.ended += metrics.ended;
                others.growth += metrics.growth;
            }
            shown.push(others);
        }
        merge_equal(shown)
    }
}

/// Sites whose names are equal are one series: generics, or the same code inlined in several places.
fn merge_equal(sites: Vec<SiteMetrics>) -> Vec<SiteMetrics> {
    let mut merged: Vec<SiteMetrics> = Vec::with_capacity(sites.len());
    let mut seen = hashbrown::HashMap::new();
    for site in sites {
        let key = (Arc::clone(&site.function), Arc::clone(&site.file), site.line, Arc::clone(&site.start));
        let at = *seen.entry(key).or_insert(merged.len());
        match merged.get_mut(at) {
            None => merged.push(site),
            Some(same) => {
                same.live += site.live;
                same.blocked += site.blocked;
                same.created += site.created;
                same.ended += site.ended;
                same.growth += site.growth;
            }
        }
    }
    merged
}

/// Sixty-four powers of two as the few bounds that are shown.
fn buckets(histogram: &Log2Histogram) -> [u64; BLOCK_BOUNDS_LOG2_NS.len() + 1] {
    let mut shown = [0; BLOCK_BOUNDS_LOG2_NS.len() + 1];
    for (log2, count) in (0_u32..).zip(histogram.buckets()) {
        let at = BLOCK_BOUNDS_LOG2_NS.iter().position(|bound| log2 < *bound).unwrap_or(BLOCK_BOUNDS_LOG2_NS.len());
        shown[at] += count;
    }
    shown
}

/// What the kernel says of a process, but for its memory limit; `None` if it is gone.
pub(super) fn read_kernel(pid: Pid) -> Option<KernelMetrics> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: count from its end.
    let behind_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
    // The first of these is field 3 of proc(5).
    let fields: Vec<u64> = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let (ticks, page) = (ticks_per_second() as f64, page_bytes() as u64);
    Some(KernelMetrics {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start_seconds: boot_seconds() + field(22)? as f64 / ticks,
        resident_bytes: field(24)? * page,
        cgroup_limit_bytes: None,
    })
}

/// The present, in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// When the machine was started, in seconds since 1970.
fn boot_seconds() -> f64 {
    static BOOT: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_shown_hold_all_that_was_counted() {
        let mut histogram = Log2Histogram::default();
        for ns in [1, 1023, 1024, 16_383, 1 << 37, 1 << 38, u64::MAX] {
            histogram.add(ns);
        }
        assert_eq!(buckets(&histogram), [2, 2, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn the_kernel_tells_of_us() {
        let us = Pid(std::process::id());
        let kernel = read_kernel(us).expect("we run");
        assert!(kernel.resident_bytes > 1 << 20 && kernel.threads > 0 && kernel.start_seconds > 1e9, "{kernel:?}");
    }

    #[test]
    fn sites_of_one_name_are_one_series() {
        let site = |line, live| SiteMetrics { function: "f".into(), line, live, ..SiteMetrics::default() };
        let merged = merge_equal(vec![site(1, 2), site(2, 3), site(1, 4)]);
        assert_eq!(merged.iter().map(|site| (site.line, site.live)).collect::<Vec<_>>(), [(1, 6), (2, 3)]);
    }
}

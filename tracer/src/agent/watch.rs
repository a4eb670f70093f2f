//! One watched process: its table, and what is known beside it.
//!
//! In: its events, readings of its memory, the clock. Out: [`ProcessMetrics`]. Whatever goes wrong here is this process's
//! alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Metrics;
use super::container::{Container, PodNames};
use super::discovery::ticks_per_second;
use super::programs::{GoProgram, Use};
use super::reading::{Reading, Subject};
use super::rules::Traits;
use crate::events::Event;
use crate::go_runtime::Owner;
use crate::goroutines::{GoroutineTable, Limits, Log2Histogram, SiteId, State};
use crate::output::Names;
use crate::output::metrics::{
    BLOCK_BOUNDS_LOG2_NS, BlockMetrics, Identity, KernelMetrics, ProcessMetrics, SiteMetrics,
};
use crate::process::Process;
use crate::session::seed::{self, Seeding};
use crate::snapshot::RuntimeStats;
use crate::tracee::{Tracee, TraceeNames};
use crate::units::{MonotonicNs, Pid};

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
    table: GoroutineTable,
    names: TraceeNames,
    seeding: Seeding,
    /// Live goroutines by site at the last sample, and what they grew by a second.
    before: Vec<(u64, f64)>,
    sampled: Option<(Instant, Counts)>,
    growth: f64,
    /// Blocked goroutines by reason and by site, at the last sample.
    blocked_by_reason: Vec<u64>,
    kernel: KernelMetrics,
    runtime: Option<RuntimeStats>,
    stack_bytes: Option<u64>,
    /// When to read its memory next; none while that is being done.
    read_next: Option<Instant>,
    events: u64,
    overhead: Overhead,
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
    pub fn new(tracee: Tracee, go: Arc<GoProgram>, traits: Traits, container: Container, in_use: Use) -> Self {
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
            table: GoroutineTable::with_limits(pid, LIMITS),
            names,
            seeding: Seeding::rest(),
            before: Vec::new(),
            sampled: None,
            growth: 0.0,
            blocked_by_reason: Vec::new(),
            kernel: KernelMetrics::default(),
            runtime: None,
            stack_bytes: None,
            read_next: Some(Instant::now()),
            events: 0,
            overhead: Overhead::default(),
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
    }

    /// Goes on with the goroutines that are older than the probes, or that a loss has left uncertain; all events up to
    /// `released` are in the table.
    pub fn advance(&mut self, released: MonotonicNs) {
        let subject = self.subject();
        self.seeding.advance(&mut self.table, || {
            let Subject { pid, start_ticks, program, bias } = subject?;
            Some(seed::Subject { pid, start_ticks, program, bias })
        });
        self.seeding.take_if_read();
        if let Some(report) = self.seeding.merge(&mut self.table, released)
            && self.sampled.is_none()
        {
            log::info!("process {}: {} goroutines were there already", self.pid(), report.added);
        }
    }

    /// Whether the goroutines that are older than the probes are in the table.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.seeding.is_under_way()
    }

    /// Whether it is time to read its memory; it is not again until [`Watch::take`] or [`Watch::read_failed`].
    pub fn is_to_be_read(&mut self, now: Instant) -> bool {
        let due = self.read_next.is_some_and(|at| at <= now);
        if due {
            self.read_next = None;
        }
        due
    }

    /// Takes what was read of its memory.
    pub fn take(&mut self, reading: Reading, interval: Duration) {
        // No more than a hundredth of a core for one process.
        self.read_next = Some(Instant::now() + interval.max(reading.took * 100));
        self.stack_bytes = Some(reading.stack_bytes);
        self.runtime = Some(reading.runtime);
    }

    /// Its memory could not be read.
    pub fn read_failed(&mut self, interval: Duration) {
        self.read_next = Some(Instant::now() + interval);
    }

    /// Looks at what changes over time. `hit_ns`: what an event costs the process.
    pub fn sample(&mut self, now: Instant, hit_ns: f64) {
        if let Some(kernel) = read_kernel(self.pid(), &self.container) {
            self.kernel = kernel;
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
        let counts = Counts { events: self.events, cpu_seconds: self.kernel.cpu_seconds };
        let seconds = self.sampled.map(|(at, _)| now.duration_since(at).as_secs_f64()).filter(|s| *s > 0.0);
        let (mut live_before, mut live_now) = (0, 0);
        for (at, site) in self.table.sites().iter().enumerate() {
            let live = site.live.total();
            let is_new = at >= self.before.len();
            if is_new {
                self.before.push((0, 0.0));
            }
            let Some((before, growth)) = self.before.get_mut(at) else { continue };
            live_before += *before;
            live_now += live;
            *growth = seconds.map_or(0.0, |seconds| (live as f64 - *before as f64) / seconds);
            *before = live;
        }
        self.growth = seconds.map_or(0.0, |seconds| (live_now as f64 - live_before as f64) / seconds);
        if let (Some(seconds), Some((_, before))) = (seconds, self.sampled) {
            let cost = (counts.events - before.events) as f64 * hit_ns / 1e9;
            let used = counts.cpu_seconds - before.cpu_seconds;
            self.overhead.cpus = cost / seconds;
            // The kernel counts in hundredths of a second: below one, nothing can be said of a share.
            self.overhead.share = if used > 0.0 { (cost / used).min(1.0) } else { 0.0 };
        }
        // What the older goroutines are is not growth.
        self.sampled = if self.is_complete() { Some((now, counts)) } else { None };
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
            goroutines: live.runnable + live.running + live.blocked,
            system_goroutines: live.system,
            runnable: live.runnable,
            running: live.running,
            blocked: live.blocked,
            created: totals.created,
            ended: totals.exited + totals.ended_unseen,
            growth: self.growth,
            blocks: self.blocks(config.top_reasons),
            sites: self.sites(config),
            runtime: self.runtime.clone(),
            stack_bytes: self.stack_bytes,
            kernel: self.kernel,
            forecast: None,
            findings: Vec::new(),
            events: self.events,
            lost: totals.lost,
            uncertain: self.table.uncertain_since().is_some(),
            complete: self.is_complete(),
            overhead: self.overhead.share,
        }
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
        let growth = |at: usize| self.before.get(at).map_or(0.0, |(_, growth)| *growth);
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

/// What the kernel says of a process; `None` if it is gone.
pub(super) fn read_kernel(pid: Pid, container: &Container) -> Option<KernelMetrics> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: count from its end.
    let behind_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
    // The first of these is field 3 of proc(5).
    let fields: Vec<u64> = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = ticks_per_second();
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    Some(KernelMetrics {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start_seconds: boot_seconds() + field(22)? as f64 / ticks,
        resident_bytes: field(24)? * page,
        cgroup_limit_bytes: container.memory_limit(pid),
    })
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
        let kernel = read_kernel(us, &Container::of(us)).expect("we run");
        assert!(kernel.resident_bytes > 1 << 20 && kernel.threads > 0 && kernel.start_seconds > 1e9, "{kernel:?}");
    }

    #[test]
    fn sites_of_one_name_are_one_series() {
        let site = |line, live| SiteMetrics { function: "f".into(), line, live, ..SiteMetrics::default() };
        let merged = merge_equal(vec![site(1, 2), site(2, 3), site(1, 4)]);
        assert_eq!(merged.iter().map(|site| (site.line, site.live)).collect::<Vec<_>>(), [(1, 6), (2, 3)]);
    }
}

//! All that the agent knows, on one thread.
//!
//! Events go to the process that they are of; what a process's end or `execve` means is decided here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::Semaphore;

use super::allocator;
use super::budget::Level;
use super::circuit_breaker::Breaker;
use super::clock::unix_ms;
use super::config::Config;
use super::container::PodNames;
use super::discovery::FileKey;
use super::kernel::Kernel;
use super::notice::Notice;
use super::procfs::read_kernel;
use super::programs::{Known, Programs, Slot};
use super::registry::Registry;
use super::verdicts::{self, Candidate, Turns};
use super::watch::Watch;
use super::{reading, take_on};
use crate::events::{Event, LossCause};
use crate::output::metrics::{AgentMetrics, ProcessMetrics};
use crate::units::{MonotonicNs, Pid};

/// The state, shared by the tasks of one thread. Nobody holds it across an `await`.
pub type Shared = Rc<RefCell<State>>;

/// All that the agent knows.
pub struct State {
    /// What it was told.
    pub config: Rc<Config>,
    /// The way to the kernel programs.
    pub kernel: Rc<Kernel>,
    /// Executables.
    pub programs: Programs,
    /// What became of each Go process.
    pub registry: Registry,
    /// The watched ones.
    pub watches: HashMap<Pid, Watch>,
    /// Those that are being looked at: since when.
    pub(super) looked_at: HashMap<Pid, MonotonicNs>,
    /// Names of pods.
    pub pods: PodNames,
    /// Bounds how many processes are looked at, and how many memories are read, at the same time.
    pub(super) lookers: Rc<Semaphore>,
    pub(super) readers: Rc<Semaphore>,
    /// One folder of evidence at a time.
    pub(super) evidence_turn: Rc<Semaphore>,
    /// When alarms fire.
    pub breaker: Breaker,
    /// What is to be said, and was not yet.
    pub notices: Vec<Notice>,
    /// Folders of evidence that were written and read back.
    pub evidence_written: u64,
    /// What an event costs the process, in nanoseconds.
    pub hit_ns: f64,
    /// What went wrong, by what was being done.
    pub errors: BTreeMap<&'static str, u64>,
    /// How full the fullest buffer was ever found.
    pub fullest: f64,
    /// Processes watched since the start.
    pub watched_total: u64,
    /// Notices that the collector has not got yet.
    pub unsent: Vec<crate::output::otlp::Log>,
    /// Up to when all events are in the tables.
    pub released: MonotonicNs,
    /// Whose turn it is to have proven what it leaks.
    pub turns: Turns,
    events: u64,
    lost: BTreeMap<LossCause, u64>,
    sampled: Instant,
}

impl State {
    /// Nothing known yet.
    #[must_use]
    pub fn new(config: Config, kernel: Kernel, hit_ns: f64) -> Self {
        Self {
            config: Rc::new(config),
            kernel: Rc::new(kernel),
            programs: Programs::default(),
            registry: Registry::default(),
            watches: HashMap::new(),
            looked_at: HashMap::new(),
            pods: PodNames::default(),
            lookers: Rc::new(Semaphore::new(32)),
            readers: Rc::new(Semaphore::new(2)),
            evidence_turn: Rc::new(Semaphore::new(1)),
            breaker: Breaker::default(),
            notices: Vec::new(),
            evidence_written: 0,
            hit_ns,
            errors: BTreeMap::new(),
            fullest: 0.0,
            watched_total: 0,
            unsent: Vec::new(),
            released: MonotonicNs(0),
            turns: Turns::default(),
            events: 0,
            lost: BTreeMap::new(),
            sampled: Instant::now(),
        }
    }

    /// Counts something that went wrong.
    pub fn count_error(&mut self, doing: &'static str) {
        *self.errors.entry(doing).or_default() += 1;
    }

    /// Gives each event to its process. Returns those processes that have replaced their program and are to be looked at.
    pub fn dispatch(&mut self, events: &[Event]) -> Vec<Pid> {
        let mut replaced = Vec::new();
        let mut rest = events;
        while let Some(first) = rest.first() {
            match *first {
                Event::Goroutine { pid, .. } => {
                    // One process's events come in runs.
                    let same = |event: &Event| matches!(event, Event::Goroutine { pid: of, .. } if *of == pid);
                    let run = rest.iter().take_while(|event| same(event)).count();
                    let (run, behind) = rest.split_at(run);
                    self.events += run.len() as u64;
                    if let Some(watch) = self.watches.get_mut(&pid) {
                        watch.apply(run);
                    }
                    rest = behind;
                    continue;
                }
                Event::Exec { time, pid } => {
                    if self.is_news(pid, time) {
                        self.end(pid);
                        replaced.push(pid);
                    }
                }
                Event::Lost { count, cause, .. } => {
                    *self.lost.entry(cause).or_default() += count;
                    // Whose it was is not known.
                    for watch in self.watches.values_mut() {
                        watch.apply(std::slice::from_ref(first));
                    }
                }
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        replaced
    }

    /// Whether the `execve` came after we looked at the process.
    fn is_news(&self, pid: Pid, time: MonotonicNs) -> bool {
        self.looked_at.get(&pid).is_none_or(|looked| time > *looked)
    }

    /// A process is no more, or no longer the same.
    pub fn end(&mut self, pid: Pid) {
        self.looked_at.remove(&pid);
        self.registry.remove(pid);
        if let Some(watch) = self.watches.remove(&pid) {
            self.kernel.forget(pid);
            if let Some(exit) = &watch.exit {
                exit.abort();
            }
            log::info!("process {pid} ({}) is no longer watched", watch.identity.process);
        }
    }

    /// Takes a look at everything that changes over time, if it is time to. All events up to `released` are in the tables.
    pub fn sample(&mut self, released: MonotonicNs, now: Instant) -> bool {
        if now.duration_since(self.sampled) < self.config.metrics.sample_interval.0 {
            return false;
        }
        self.sampled = now;
        let hit_ns = self.hit_ns;
        for watch in self.watches.values_mut() {
            watch.sample(now, released, hit_ns);
            watch.name_pod(&mut self.pods);
            watch.tell_findings(&mut self.notices);
        }
        self.share_flight_recorder(released);
        let (watches, config) = (&self.watches, Rc::clone(&self.config));
        self.breaker.forget(|pid, start| watches.get(&pid).is_none_or(|watch| watch.process().start_ticks() != start));
        self.breaker.keep(&config.alarm);
        let keep = self.config.discovery.keep_probes.0;
        if self.programs.tidy(keep, &self.kernel) {
            allocator::give_back();
        }
        true
    }

    /// Takes all probes away, on the thread that does so: the end is near.
    pub fn detach(&self) {
        self.programs.detach(&self.kernel);
    }

    /// What the probes cost all processes, as a share of the host's CPUs; estimated.
    fn overhead(&self) -> f64 {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        self.watches.values().map(Watch::overhead_cpus).sum::<f64>() / cpus
    }

    /// Keeps each file's processes, and all together, within what they may cost. Returns those files whose level changes.
    pub fn govern(&mut self, now: Instant) -> Vec<(Rc<Slot>, FileKey)> {
        let budget = &self.config.budget;
        let of_host = self.overhead() * 100.0 / budget.host_percent;
        // By file: the dearest process's share, and what all of them take of the CPUs.
        let mut files: HashMap<FileKey, (f64, f64)> = HashMap::new();
        for watch in self.watches.values() {
            let (share, cpus) = files.entry(watch.key()).or_default();
            *share = share.max(watch.overhead() * 100.0 / budget.process_percent);
            *cpus += watch.overhead_cpus();
        }
        let dearest = files.iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(key, _)| *key);
        let mut changed = Vec::new();
        for (key, (share, _)) in files {
            let Some(slot) = self.programs.find(key) else { continue };
            // Over the host's budget the dearest falls first; none rises while that is used up by half.
            let of_budget = if Some(key) == dearest { share.max(of_host) } else { share };
            if of_host > 0.5 && of_budget <= 1.0 && slot.level() < Level::Events {
                continue;
            }
            if let Some(level) = slot.govern(of_budget, now) {
                for watch in self.watches.values_mut().filter(|watch| watch.key() == key) {
                    log::warn!("process {} ({}): {} from now on", watch.pid(), watch.identity.process, level.name());
                    watch.set_level(level);
                }
                changed.push((slot, key));
            }
        }
        changed
    }

    /// Gives each process its share of the flight recorder's memory: those with many events the same.
    fn share_flight_recorder(&mut self, released: MonotonicNs) {
        let (memory, keep) = (self.config.flight_recorder.memory.0 as usize, self.config.flight_recorder.keep.0);
        let busy: usize = self.watches.values_mut().map(|watch| usize::from(watch.recorder().is_busy())).sum();
        for watch in self.watches.values_mut() {
            watch.recorder().limit(memory / busy.max(1), keep);
            watch.record_reading(released);
        }
    }

    /// The figures of those processes that have series of their own, and of the agent.
    pub fn metrics(&mut self) -> (Vec<ProcessMetrics>, AgentMetrics) {
        let config = Rc::clone(&self.config);
        let mut sizes: Vec<(u64, Pid)> =
            self.watches.values_mut().map(|watch| (watch.goroutines(), watch.pid())).collect();
        sizes.sort_unstable_by_key(|(size, pid)| (std::cmp::Reverse(*size), *pid));
        let others = sizes.split_off(config.metrics.max_processes.min(sizes.len()));
        let mut processes: Vec<ProcessMetrics> = Vec::with_capacity(sizes.len());
        for (_, pid) in sizes {
            if let Some(watch) = self.watches.get_mut(&pid) {
                processes.push(watch.metrics(&config.metrics));
            }
        }
        processes.sort_by_key(|process| process.identity.pid);
        let flight_recorder_bytes = self.watches.values_mut().map(|watch| watch.recorder().bytes() as u64).sum();
        let firing = self.breaker.firing();
        let mut firing: Vec<_> = firing
            .filter_map(|(alarm, pid)| Some((alarm.to_owned(), Arc::clone(&self.watches.get(&pid)?.identity))))
            .collect();
        firing.sort_by(|a, b| (&a.0, a.1.pid).cmp(&(&b.0, b.1.pid)));
        // Known from the beginning, so that their first time is a rise.
        let alarms = config.alarm.iter().map(|alarm| {
            let name = alarm.name.as_str();
            (name.to_owned(), self.breaker.totals().get(name).copied().unwrap_or_default())
        });
        let alarms = alarms.collect();
        let us = read_kernel(Pid(std::process::id())).unwrap_or_default();
        let agent = AgentMetrics {
            processes: self.registry.counts(),
            watched_total: self.watched_total,
            executables: self.programs.probed() as u64,
            events: self.events,
            lost: self.lost.iter().map(|(cause, n)| (*cause, *n)).collect(),
            fullest: self.fullest,
            overhead: self.overhead(),
            resident_bytes: us.resident_bytes,
            cpu_seconds: us.cpu_seconds,
            errors: self.errors.iter().map(|(doing, n)| (*doing, *n)).collect(),
            others: (others.len() as u64, others.iter().map(|(size, _)| size).sum()),
            firing,
            alarms,
            evidence: self.evidence_written,
            flight_recorder_bytes,
            proof: (self.turns.passes, self.turns.cpu.as_secs_f64()),
        };
        (processes, agent)
    }
}

/// Goes on with what each process waits for: the goroutines that are older than its probes, a look into its memory.
pub fn advance(shared: &Shared, released: MonotonicNs) {
    let state = &mut *shared.borrow_mut();
    for watch in state.watches.values_mut() {
        watch.advance(released);
        if !watch.is_complete() {
            continue;
        }
        match watch.look() {
            None | Some(Ok(_)) => {}
            // A process that has just ended is no error.
            Some(Err(_)) if watch.process().has_exited() => {}
            Some(Err(error)) => {
                log::warn!("the memory of process {} could not be read: {error}", watch.pid());
                *state.errors.entry("reading_memory").or_default() += 1;
            }
        }
    }
}

/// Brings what is attached in line with the budget.
pub fn keep_budget(shared: &Shared, now: Instant) {
    let changed = shared.borrow_mut().govern(now);
    for (slot, _) in changed {
        let shared = Rc::clone(shared);
        tokio::task::spawn_local(async move {
            let Some(Known::Go(go)) = slot.known().cloned() else { return };
            let kernel = Rc::clone(&shared.borrow().kernel);
            if let Err(error) = slot.settle(&go, &kernel).await {
                log::warn!("{}: {error}", go.program.name);
                shared.borrow_mut().count_error("attaching");
            }
        });
    }
}

/// Has it proven which goroutines of one process are leaked, where it is somebody's turn and the budget leaves room.
pub fn prove(shared: &Shared, now: Instant) {
    let state = &mut *shared.borrow_mut();
    let config = Rc::clone(&state.config);
    if state.overhead() * 100.0 > config.budget.host_percent {
        return;
    }
    let watches = state.watches.values().filter(|watch| watch.is_complete());
    let candidates = watches.map(|watch| Candidate {
        pid: watch.pid(),
        proven: &watch.proven,
        findings: watch.findings().len(),
        heap_bytes: watch.heap_bytes(),
        ran: watch.process().cpu_time().ok(),
    });
    let Some(pid) = state.turns.next(&config.proof, candidates, now) else { return };
    let Some(watch) = state.watches.get_mut(&pid) else { return };
    let (findings, ran, start_ticks) =
        (watch.findings().len(), watch.process().cpu_time().ok(), watch.process().start_ticks());
    let done = match verdicts::begin(Arc::clone(&watch.tracee), &config.proof) {
        Ok((turn, done)) => {
            watch.turn = Some(turn);
            done
        }
        Err(error) => {
            log::warn!("process {pid}: nothing can be proven: {error}");
            state.turns.over(&config.proof, 0, Duration::ZERO, now);
            *state.errors.entry("proving").or_default() += 1;
            return;
        }
    };
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        let done = done.await;
        let state = &mut *shared.borrow_mut();
        let config = Rc::clone(&state.config);
        // The thread ended badly, which a pass does not.
        let done = done.unwrap_or_else(|error| verdicts::Done {
            outcome: Err(error.to_string().into()),
            passes: 0,
            cpu: Duration::ZERO,
        });
        let now = Instant::now();
        state.turns.over(&config.proof, done.passes, done.cpu, now);
        let watch = state.watches.get_mut(&pid).filter(|watch| watch.process().start_ticks() == start_ticks);
        let Some(watch) = watch else { return };
        watch.turn = None;
        allocator::give_back();
        match &done.outcome {
            Ok(report) => log::info!("process {pid}: {:?} in {} passes", report.counts(), report.passes),
            Err(_) if watch.process().has_exited() => {}
            Err(why) => {
                log::warn!("process {pid}: what is leaked is not proven: {why}");
                *state.errors.entry("proving").or_default() += 1;
            }
        }
        watch.proven.take(done.outcome, now, unix_ms(), findings, ran);
    });
}

/// Looks at every process that the kernel's events did not tell of, and forgets those that are gone.
pub fn scan(shared: &Shared) {
    let pids = super::discovery::all_pids();
    let new: Vec<Pid> = {
        let mut state = shared.borrow_mut();
        let there: hashbrown::HashSet<Pid> = pids.iter().copied().collect();
        // Watched ones are told of by their pidfd.
        let gone: Vec<Pid> = state.registry.iter().map(|entry| entry.pid).filter(|pid| !there.contains(pid)).collect();
        for pid in gone {
            state.end(pid);
        }
        pids.into_iter().filter(|pid| state.registry.is_open(*pid)).collect()
    };
    for pid in new {
        take_on::start(shared, pid);
    }
}

/// Takes over a new configuration: rules hold for all processes, also for those that are watched.
pub fn reload(shared: &Shared, config: Config) {
    {
        let mut state = shared.borrow_mut();
        let listen = state.config.http.listen;
        if listen != config.http.listen {
            log::warn!("[http] listen stays {listen} until the agent is restarted");
        }
        state.config = Rc::new(config);
        let config = Rc::clone(&state.config);
        let denied: Vec<Pid> = state
            .watches
            .values()
            .filter(|watch| super::rules::denied_by(&config, &watch.traits).is_some())
            .map(Watch::pid)
            .collect();
        for pid in denied {
            state.end(pid);
        }
        // Whoever was denied or one too many may be welcome now.
        state.registry.forget(|entry| matches!(entry.verdict.name(), "denied" | "too_many" | "failed"));
    }
    scan(shared);
}

/// So often events are read and given out, one reading late. Each takes 0.2 ms, whatever happens.
pub const TICK: Duration = Duration::from_millis(200);

/// A watched process by its PID.
#[must_use]
pub fn tracee_of(shared: &Shared, pid: Pid) -> Option<(Arc<crate::tracee::Tracee>, reading::Subject)> {
    let state = shared.borrow();
    let watch = state.watches.get(&pid)?;
    Some((Arc::clone(&watch.tracee), watch.subject()?))
}

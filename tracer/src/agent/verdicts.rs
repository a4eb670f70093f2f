//! Which goroutines of the watched processes are leaked: the prover's passes, one process at a time, in the time that is left.
//!
//! In: who is watched, what is suspected of whom, what passes have cost. Out: whose turn it is, and a [`Report`]. Passes are
//! done by a thread of the lowest priority; all of them together keep below a share of one processor. [`Turns`] is pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::config::Proof;
use crate::output::proof::Report;
use crate::proving::{self, Pace, Plan};
use crate::thread_time::cpu_of_this_thread;
use crate::tracee::Tracee;
use crate::units::Pid;

/// Between two passes of a turn.
const EVERY: Duration = Duration::from_secs(1);
/// What is newly suspected waits for this part of the interval.
const SOONER: u32 = 10;

/// What the passes gave.
pub type Outcome = Result<Arc<Report>, Arc<str>>;

/// What is known of one process's goroutines.
#[derive(Clone, Debug, Default)]
pub struct Proven {
    /// What the last passes gave; before the first, nothing.
    pub last: Option<Outcome>,
    /// When that was, in milliseconds since 1970.
    pub unix_ms: u64,
    at: Option<Instant>,
    /// The process's processor time then.
    ran: Option<Duration>,
    /// How many findings there were then.
    findings: usize,
    /// `go` statements whose leak was told.
    told: Vec<(String, String, u32)>,
}

/// Somebody who may be next.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The process.
    pub pid: Pid,
    /// What is known of it.
    pub proven: &'a Proven,
    /// Findings at present.
    pub findings: usize,
    /// Its heap; `None` before the first look, or where the runtime does not tell.
    pub heap_bytes: Option<u64>,
    /// Its processor time.
    pub ran: Option<Duration>,
}

impl Proven {
    /// The last report; `None` while there is none, or where the last passes failed.
    #[must_use]
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.last.as_ref()?.as_ref().ok()
    }

    /// Goroutines that are proven to be leaked.
    #[must_use]
    pub fn leaked(&self) -> Option<u64> {
        Some(self.report()?.counts().proven() as u64)
    }

    /// Takes what passes gave that began when there were so many findings, and the process had run for so long.
    pub fn take(&mut self, outcome: Outcome, now: Instant, unix_ms: u64, findings: usize, ran: Option<Duration>) {
        (self.at, self.unix_ms, self.findings, self.ran) = (Some(now), unix_ms, findings, ran);
        self.last = Some(outcome);
    }

    /// Places in the report that are proven to leak and were not told yet.
    pub fn untold(&mut self) -> Vec<usize> {
        let Some(report) = self.report().cloned() else { return Vec::new() };
        let mut untold = Vec::new();
        for (at, site) in report.sites.iter().enumerate().filter(|(_, site)| site.counts.proven() > 0) {
            let key = (site.function.clone(), site.file.clone(), site.line);
            if !self.told.contains(&key) {
                self.told.push(key);
                untold.push(at);
            }
        }
        untold
    }
}

/// Whose turn it is, and what all turns have cost.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// Not before this moment.
    rest_until: Option<Instant>,
    running: bool,
    /// Processor time that passes took.
    pub cpu: Duration,
    /// Passes that were done.
    pub passes: u64,
}

impl Turns {
    /// The process whose turn it is: of those that are due, one with findings first, then the one that has waited longest.
    /// Who has not run since its last turn is as it was.
    pub fn next<'a>(
        &mut self,
        config: &Proof,
        candidates: impl Iterator<Item = Candidate<'a>>,
        now: Instant,
    ) -> Option<Pid> {
        if !config.enabled || self.running || self.rest_until.is_some_and(|until| now < until) {
            return None;
        }
        let interval = config.interval.0;
        let due = candidates.filter(|one| {
            let Some(at) = one.proven.at else { return true };
            let since = now.duration_since(at);
            let changed = one.ran.is_none() || one.ran != one.proven.ran || matches!(one.proven.last, Some(Err(_)));
            let newly = one.findings > one.proven.findings && since >= interval / SOONER;
            changed && (since >= interval || newly)
        });
        let fits = due.filter(|one| one.heap_bytes.is_some_and(|bytes| bytes <= config.max_heap.0));
        let next = fits.min_by_key(|one| (one.findings == 0, one.proven.at, one.pid))?;
        self.running = true;
        Some(next.pid)
    }

    /// A turn is over that took so much processor time.
    pub fn over(&mut self, config: &Proof, passes: u64, cpu: Duration, now: Instant) {
        self.running = false;
        self.cpu += cpu;
        self.passes += passes;
        let rest = cpu.as_secs_f64() * 100.0 / config.cpu_percent;
        self.rest_until = Duration::try_from_secs_f64(rest).ok().and_then(|rest| now.checked_add(rest));
    }
}

/// A turn that is under way; ended early when this is dropped.
#[derive(Debug)]
pub struct Turn {
    cancel: Arc<AtomicBool>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

/// What a turn gave, and the processor time it took.
#[derive(Debug)]
pub struct Done {
    /// Verdicts, or why there are none.
    pub outcome: Outcome,
    /// Passes done.
    pub passes: u64,
    /// Processor time.
    pub cpu: Duration,
}

/// Begins with a process, on a thread of its own.
///
/// # Errors
///
/// If there can be none.
pub fn begin(tracee: Arc<Tracee>, config: &Proof) -> std::io::Result<(Turn, tokio::sync::oneshot::Receiver<Done>)> {
    let plan = Plan {
        passes: config.passes,
        pace: Pace::Every(EVERY),
        deadline: config.deadline.0,
        threads: 1,
        seed: proving::any_seed(),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let (send, receive) = tokio::sync::oneshot::channel();
    let turn = Turn { cancel: Arc::clone(&cancel) };
    std::thread::Builder::new().name("prove".to_owned()).spawn(move || {
        give_way();
        let mut passes = 0;
        let report = proving::passes(&tracee, &plan, &cancel, |prover, _, _| passes = u64::from(prover.passes()))
            .and_then(|proven| proving::report(&tracee, &proven));
        let outcome = report.map(Arc::new).map_err(|error| error.to_string().into());
        // Whoever waited may have gone.
        let _ = send.send(Done { outcome, passes, cpu: cpu_of_this_thread() });
    })?;
    Ok((turn, receive))
}

/// From here on the calling thread takes what others leave.
fn give_way() {
    // SAFETY: no memory of ours. On Linux 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } != 0 {
        log::info!("passes have the priority of everything else: {}", std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pid: u32, proven: &Proven, findings: usize) -> Candidate<'_> {
        let ran = Some(Duration::from_secs(u64::from(pid) + proven.unix_ms));
        Candidate { pid: Pid(pid), proven, findings, heap_bytes: Some(1 << 20), ran }
    }

    fn at(start: Instant, second: u64) -> Instant {
        start + Duration::from_secs(second)
    }

    /// Proven at `now`, with so many findings; `ran` as it was then.
    fn proven(now: Instant, findings: usize, ran: Option<Duration>) -> Proven {
        Proven { at: Some(now), unix_ms: 1, findings, ran, ..Proven::default() }
    }

    #[test]
    fn who_is_suspected_comes_first_then_who_has_waited_longest() {
        let (config, start) = (Proof::default(), Instant::now());
        let (never, early, late) = (Proven::default(), proven(start, 0, None), proven(at(start, 5), 0, None));
        let now = at(start, 10_000);
        let next = |all: &[(u32, &Proven, usize)]| {
            Turns::default().next(&config, all.iter().map(|&(pid, proven, n)| candidate(pid, proven, n)), now)
        };
        assert_eq!(next(&[(1, &never, 0), (2, &late, 1), (3, &early, 1)]), Some(Pid(3)));
        assert_eq!(next(&[(2, &late, 0), (3, &early, 0)]), Some(Pid(3)));
        assert_eq!(next(&[(1, &never, 0), (2, &late, 0)]), Some(Pid(1)));
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn each_waits_its_interval_and_a_tenth_of_it_when_something_new_is_suspected() {
        let (config, start) = (Proof::default(), Instant::now());
        let (done, interval) = (proven(start, 1, None), Proof::default().interval.0);
        let next = |findings: usize, after: Duration| {
            Turns::default().next(&config, std::iter::once(candidate(7, &done, findings)), start + after)
        };
        assert_eq!(next(1, interval / 2), None);
        assert_eq!(next(2, interval / 20), None);
        assert_eq!(next(2, interval / 2), Some(Pid(7)));
        assert_eq!(next(1, interval), Some(Pid(7)));
    }

    #[test]
    fn who_has_not_run_and_who_is_too_large_is_left_out() {
        let (config, start) = (Proof::default(), Instant::now());
        let now = at(start, 100_000);
        let next = |one: Candidate<'_>| Turns::default().next(&config, std::iter::once(one), now);
        let done = proven(start, 0, Some(Duration::from_secs(8)));
        assert_eq!(next(candidate(7, &done, 0)), None, "it has not run");
        assert_eq!(next(Candidate { ran: Some(Duration::from_secs(9)), ..candidate(7, &done, 0) }), Some(Pid(7)));
        let failed = Proven { last: Some(Err("no time".into())), ..done };
        assert_eq!(next(candidate(7, &failed, 0)), Some(Pid(7)), "nothing came of it");
        let never = Proven::default();
        let large = Candidate { heap_bytes: Some(config.max_heap.0 + 1), ..candidate(7, &never, 0) };
        assert_eq!(next(large), None, "too large");
        let off = Proof { enabled: false, ..config.clone() };
        assert_eq!(Turns::default().next(&off, std::iter::once(candidate(7, &never, 0)), now), None);
    }

    #[test]
    fn turns_keep_below_their_share() {
        let (config, start) = (Proof { cpu_percent: 2.0, ..Proof::default() }, Instant::now());
        let (mut turns, never) = (Turns::default(), Proven::default());
        let next = |turns: &mut Turns, now| turns.next(&config, std::iter::once(candidate(7, &never, 0)), now);
        assert_eq!(next(&mut turns, start), Some(Pid(7)));
        assert_eq!(next(&mut turns, start), None, "one at a time");
        turns.over(&config, 3, Duration::from_millis(100), at(start, 3));
        assert_eq!(next(&mut turns, at(start, 7)), None, "5 s of rest for 0.1 s of work");
        assert_eq!(next(&mut turns, at(start, 8)), Some(Pid(7)));
        assert_eq!((turns.passes, turns.cpu), (3, Duration::from_millis(100)));
    }
}

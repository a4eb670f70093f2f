//! What is said of a process in figures, for those that collect them: [`prometheus`](super::prometheus) and
//! [`otlp`](super::otlp) give it their names.
//!
//! Plain values. Bounded: so many sites and reasons have figures of their own, the rest is one sum.

use std::sync::Arc;

use super::proof::{Counts, Report};
use crate::snapshot::RuntimeStats;

/// What a process is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// The executable's file name.
    pub process: String,
    /// The process.
    pub pid: u32,
    /// The executable's path.
    pub binary: String,
    /// GNU's build id, else the last part of Go's.
    pub build_id: String,
    /// The Go version.
    pub go_version: String,
    /// The container's id.
    pub container: Option<String>,
    /// The pod's uid.
    pub pod_uid: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
}

/// One `go` statement with one start function, or the sum of those that are not shown.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct SiteMetrics {
    /// The function of the `go` statement; `(others)` for the sum.
    pub function: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
    /// Its line.
    pub line: u32,
    /// The function that runs.
    pub start: Arc<str>,
    /// Live goroutines.
    pub live: u64,
    /// Of them, blocked.
    pub blocked: u64,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines that ended, seen or not.
    pub ended: u64,
    /// Live goroutines more or less a second, over the last samples.
    pub growth: f64,
}

/// The blocks of one wait reason that have ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockMetrics {
    /// The runtime's wait reason; `(others)` for the sum of those not shown.
    pub reason: String,
    /// Goroutines that are blocked so now.
    pub blocked: u64,
    /// Seconds of all blocks.
    pub seconds: f64,
    /// How many blocks there were up to each of [`BLOCK_BOUNDS_LOG2_NS`], each counted once, and those beyond last.
    pub buckets: [u64; BLOCK_BOUNDS_LOG2_NS.len() + 1],
}

/// Upper bounds of the histogram of block times, as powers of two of nanoseconds: 1 us, 16 us, 262 us, 4 ms, 67 ms, 1.07 s,
/// 17 s, 275 s.
pub const BLOCK_BOUNDS_LOG2_NS: [u32; 8] = [10, 14, 18, 22, 26, 30, 34, 38];

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct KernelMetrics {
    /// Resident bytes.
    pub resident_bytes: u64,
    /// CPU seconds used since its start.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// When it started, in seconds since 1970.
    pub start_seconds: f64,
    /// The limit of its cgroup, the lowest on the way up.
    pub cgroup_limit_bytes: Option<u64>,
}

/// How long memory lasts, as a range in seconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Forecast {
    /// If it goes badly.
    pub low_seconds: f64,
    /// If it goes well; infinite where it need not end.
    pub high_seconds: f64,
}

/// What the prover's last passes said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProofMetrics {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How long the last pass took, in seconds.
    pub pass_seconds: f64,
    /// By creation site, those with the most first; the others as one.
    pub sites: Vec<ProofSiteMetrics>,
}

/// Goroutines of one `go` statement that nothing reaches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProofSiteMetrics {
    /// The function of the `go` statement; `(others)` for the sum.
    pub function: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// By verdict.
    pub counts: Counts,
    /// What they alone keep alive, stacks included: an estimate.
    pub retained_bytes: u64,
}

impl ProofMetrics {
    /// Of a report, with so many sites.
    #[must_use]
    pub fn of(report: &Report, unix_ms: u64, top: usize) -> Self {
        let mut sites: Vec<ProofSiteMetrics> = Vec::new();
        for (at, site) in report.sites.iter().enumerate() {
            let retained = site.retained_estimate.heap_bytes + site.retained_estimate.stack_bytes;
            let (function, file) = if at < top { (&*site.function, &*site.file) } else { ("(others)", "") };
            let line = if at < top { site.line } else { 0 };
            // Equal names are one series: the same line inlined in several places.
            let same =
                |known: &&mut ProofSiteMetrics| (&*known.function, &*known.file, known.line) == (function, file, line);
            match sites.iter_mut().find(same) {
                Some(known) => {
                    known.counts.add_all(site.counts);
                    known.retained_bytes += retained;
                }
                None => sites.push(ProofSiteMetrics {
                    function: function.to_owned(),
                    file: file.to_owned(),
                    line,
                    counts: site.counts,
                    retained_bytes: retained,
                }),
            }
        }
        Self { unix_ms, pass_seconds: report.last_pass.took.as_secs_f64(), sites }
    }
}

/// All figures of one process.
#[derive(Clone, Debug, Default)]
pub struct ProcessMetrics {
    /// What it is known by.
    pub identity: Arc<Identity>,
    /// Since when it is watched, in nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// What is attached to it: `events`, `lifecycle` or `snapshots`.
    pub detail: &'static str,
    /// The program's own goroutines: what `runtime.NumGoroutine` says.
    pub goroutines: u64,
    /// The runtime's own.
    pub system_goroutines: u64,
    /// The program's own that have not run yet.
    pub runnable: u64,
    /// That are running, in a system call, or preempted.
    pub running: u64,
    /// That are blocked.
    pub blocked: u64,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines that ended, seen or not.
    pub ended: u64,
    /// Live goroutines more or less a second, over the last samples.
    pub growth: f64,
    /// By wait reason; the most frequent first.
    pub blocks: Vec<BlockMetrics>,
    /// By creation site.
    pub sites: Vec<SiteMetrics>,
    /// What the runtime knows of itself, as of the last reading.
    pub runtime: Option<RuntimeStats>,
    /// Bytes of goroutines' stacks, as of the last reading.
    pub stack_bytes: Option<u64>,
    /// What the kernel says, as of the last sample.
    pub kernel: KernelMetrics,
    /// How long memory lasts, while it grows.
    pub forecast: Option<Forecast>,
    /// Findings by kind and severity.
    pub findings: Vec<(String, String, u64)>,
    /// What the prover said; `None` before it has.
    pub proof: Option<ProofMetrics>,
    /// Events that came up for it.
    pub events: u64,
    /// Events that were lost, for it or another process.
    pub lost: u64,
    /// Whether lost events have not been made up for by a reading.
    pub uncertain: bool,
    /// Whether the goroutines that are older than the probes are in the figures.
    pub complete: bool,
    /// What the probes add to its CPU time, as a share of it; estimated.
    pub overhead: f64,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct AgentMetrics {
    /// Go processes by verdict.
    pub processes: Vec<(&'static str, u64)>,
    /// Processes that were watched since the start.
    pub watched_total: u64,
    /// Executables with probes in them.
    pub executables: u64,
    /// Events read since the start.
    pub events: u64,
    /// Events lost, by cause.
    pub lost: Vec<(crate::events::LossCause, u64)>,
    /// How full the fullest buffer was ever found, 0 to 1.
    pub fullest: f64,
    /// What probes cost all processes, as a share of the host's CPUs; estimated.
    pub overhead: f64,
    /// Own resident bytes.
    pub resident_bytes: u64,
    /// Own CPU seconds.
    pub cpu_seconds: f64,
    /// What went wrong, by what.
    pub errors: Vec<(&'static str, u64)>,
    /// Alarms that fire now, by alarm and process.
    pub firing: Vec<(String, Arc<Identity>)>,
    /// Times that an alarm has fired.
    pub alarms: Vec<(String, u64)>,
    /// Folders of evidence that were written and read back.
    pub evidence: u64,
    /// Bytes that the flight recorder holds.
    pub flight_recorder_bytes: u64,
    /// Passes that the prover has done, and CPU seconds that they took.
    pub proof: (u64, f64),
    /// Processes that have no series of their own, and their goroutines.
    pub others: (u64, u64),
}

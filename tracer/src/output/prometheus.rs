//! Figures as Prometheus reads them: OpenMetrics, or the classic text format for who does not ask for it.
//!
//! Conventional names have their conventional meaning (`go_*`, `process_*` as of the Go client library); all else is
//! `gotracer_*`. The format is the crate's; of the classic one it knows nothing, so its headers are rewritten.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::metrics::{AgentMetrics, BLOCK_BOUNDS_LOG2_NS, Identity, ProcessMetrics};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The classic text format, 0.0.4.
    Classic,
}

impl Format {
    /// What an `Accept` header asks for.
    #[must_use]
    pub fn asked(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Classic }
    }

    /// The `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The figures of all processes and of the agent.
///
/// # Errors
///
/// Never, as far as the crate goes: writing to a `String` does not fail.
pub fn write(processes: Vec<ProcessMetrics>, agent: AgentMetrics, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { families: families(&processes, &agent) }));
    let mut out = String::with_capacity(1 << 16);
    text::encode(&mut out, &registry)?;
    Ok(match format {
        Format::OpenMetrics => out,
        Format::Classic => classic(&out),
    })
}

/// OpenMetrics as the classic text format: a counter's header has its suffix, `unknown` is `untyped`, and there is no end.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some(header) = line.strip_prefix("# HELP ") else {
            match line.strip_prefix("# TYPE ").and_then(|header| header.rsplit_once(' ')) {
                Some((name, "counter")) => {
                    let _ = writeln!(out, "# TYPE {name}_total counter");
                }
                Some((name, "unknown")) => {
                    let _ = writeln!(out, "# TYPE {name} untyped");
                }
                _ => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
            continue;
        };
        let counter = lines.peek().is_some_and(|next| next.ends_with(" counter"));
        match header.split_once(' ') {
            Some((name, help)) if counter => {
                let _ = writeln!(out, "# HELP {name}_total {help}");
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Counter(f64),
    Histogram { sum: f64, buckets: Vec<(f64, u64)> },
}

#[derive(Debug)]
struct Row {
    identity: Option<Arc<Identity>>,
    own: Vec<(&'static str, Cow<'static, str>)>,
    value: Value,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Exposition {
    families: Vec<Family>,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.families.iter().filter(|family| !family.rows.is_empty()) {
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for row in &family.rows {
                let mut sample = metric.encode_family(row)?;
                match &row.value {
                    Value::Gauge(value) => sample.encode_gauge(value)?,
                    Value::Counter(value) => sample.encode_counter::<NoLabelSet, f64, f64>(value, None)?,
                    Value::Histogram { sum, buckets } => {
                        let count = buckets.iter().map(|(_, count)| count).sum();
                        sample.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl EncodeLabelSet for Row {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let mut label = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        if let Some(identity) = &self.identity {
            label("process", &identity.process)?;
            label("pid", itoa(identity.pid).as_str())?;
            label("binary", &identity.binary)?;
            label("build_id", &identity.build_id)?;
            label("go_version", &identity.go_version)?;
            let where_it_runs = [
                ("container", &identity.container),
                ("pod_uid", &identity.pod_uid),
                ("namespace", &identity.namespace),
                ("pod", &identity.pod),
            ];
            for (name, value) in where_it_runs {
                if let Some(value) = value {
                    label(name, value)?;
                }
            }
        }
        for (name, value) in &self.own {
            label(name, value)?;
        }
        Ok(())
    }
}

fn itoa(number: u32) -> String {
    number.to_string()
}

/// A metric of a process that is one number.
type One = (&'static str, &'static str, MetricType, fn(&ProcessMetrics) -> Option<f64>);

/// Metrics of a process that are one number each.
const ONES: &[One] = &[
    ("go_goroutines", "Number of goroutines that currently exist.", MetricType::Gauge, |p| Some(p.goroutines as f64)),
    ("go_threads", "Number of OS threads created.", MetricType::Gauge, |p| Some(p.runtime.as_ref()?.threads? as f64)),
    (
        "go_sched_gomaxprocs_threads",
        "The current runtime.GOMAXPROCS setting, or the number of operating system threads that can execute user-level Go code simultaneously.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.gomaxprocs? as f64),
    ),
    (
        "go_gc_gogc_percent",
        "Heap size target percentage configured by the user, otherwise 100.",
        MetricType::Gauge,
        |p| Some(f64::from(p.runtime.as_ref()?.gc_percent?)),
    ),
    (
        "go_gc_gomemlimit_bytes",
        "Go runtime memory limit configured by the user, otherwise math.MaxInt64.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.memory_limit_bytes.map_or(i64::MAX as f64, |bytes| bytes as f64)),
    ),
    ("go_memstats_heap_inuse_bytes", "Number of heap bytes that are in use.", MetricType::Gauge, |p| {
        Some(p.runtime.as_ref()?.heap_spans_bytes? as f64)
    }),
    (
        "go_memstats_stack_inuse_bytes",
        "Number of bytes obtained from system for stack allocator in non-CGO environments.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.stack_spans_bytes? as f64),
    ),
    (
        // With a memory limit the runtime's next collection may begin sooner; then this is not told.
        "go_memstats_next_gc_bytes",
        "Number of heap bytes when next garbage collection will take place.",
        MetricType::Gauge,
        |p| {
            let runtime = p.runtime.as_ref()?;
            runtime.heap_goal_bytes.filter(|_| runtime.memory_limit_bytes.is_none()).map(|bytes| bytes as f64)
        },
    ),
    (
        "go_memstats_last_gc_time_seconds",
        "Number of seconds since 1970 of last garbage collection.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.gc_pauses.first()?.ended_unix_ns as f64 / 1e9),
    ),
    ("process_resident_memory_bytes", "Resident memory size in bytes.", MetricType::Gauge, |p| {
        Some(p.kernel.resident_bytes as f64)
    }),
    ("process_cpu_seconds", "Total user and system CPU time spent in seconds.", MetricType::Counter, |p| {
        Some(p.kernel.cpu_seconds)
    }),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", MetricType::Gauge, |p| {
        Some(p.kernel.start_seconds)
    }),
    (
        "gotracer_system_goroutines",
        "The runtime's own goroutines, which go_goroutines leaves out.",
        MetricType::Gauge,
        |p| Some(p.system_goroutines as f64),
    ),
    (
        "gotracer_goroutines_created",
        "Goroutines seen at their creation since watching began.",
        MetricType::Counter,
        |p| Some(p.created as f64),
    ),
    ("gotracer_goroutines_exited", "Goroutines that ended since watching began.", MetricType::Counter, |p| {
        Some(p.ended as f64)
    }),
    (
        "gotracer_goroutines_growth_per_second",
        "Live goroutines more or less a second, over the last sample.",
        MetricType::Gauge,
        |p| Some(p.growth),
    ),
    ("gotracer_blocked_channels", "Distinct channels that goroutines are blocked on.", MetricType::Gauge, |p| {
        Some(p.runtime.as_ref()?.blocked_channels as f64)
    }),
    ("gotracer_active_timers", "Timers that are set.", MetricType::Gauge, |p| Some(p.runtime.as_ref()?.timers? as f64)),
    ("gotracer_goroutine_stack_bytes", "Bytes of the stacks of live goroutines.", MetricType::Gauge, |p| {
        Some(p.stack_bytes? as f64)
    }),
    (
        "gotracer_heap_live_bytes",
        "Heap bytes that the last collection kept or that were allocated since.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.heap_live_bytes? as f64),
    ),
    (
        "gotracer_heap_goal_bytes",
        "Heap bytes at which the next collection should end by GOGC.",
        MetricType::Gauge,
        |p| Some(p.runtime.as_ref()?.heap_goal_bytes? as f64),
    ),
    ("gotracer_gc_cycles", "Collections that were completed since the program's start.", MetricType::Counter, |p| {
        Some(p.runtime.as_ref()?.gc_cycles? as f64)
    }),
    (
        "gotracer_gc_pause_seconds",
        "Seconds that the collector stopped the world since the program's start.",
        MetricType::Counter,
        |p| Some(p.runtime.as_ref()?.gc_pause_total_ns? as f64 / 1e9),
    ),
    (
        "gotracer_gc_cpu_share",
        "Share of processor time that the collector took since the program's start.",
        MetricType::Gauge,
        |p| p.runtime.as_ref()?.gc_cpu_fraction,
    ),
    ("gotracer_events", "Events that came from the process.", MetricType::Counter, |p| Some(p.events as f64)),
    (
        "gotracer_events_lost_around",
        "Events lost while the process was watched, its own or another's: its figures are exact only while this stands still.",
        MetricType::Counter,
        |p| Some(p.lost as f64),
    ),
    (
        "gotracer_uncertain",
        "1 while lost events have not been made up for by a reading of the process's memory.",
        MetricType::Gauge,
        |p| Some(f64::from(u8::from(p.uncertain))),
    ),
    (
        "gotracer_complete",
        "1 once the goroutines that are older than the probes are in the figures.",
        MetricType::Gauge,
        |p| Some(f64::from(u8::from(p.complete))),
    ),
    (
        "gotracer_overhead_share",
        "What the probes add to the process's CPU time, as a share of it; estimated.",
        MetricType::Gauge,
        |p| Some(p.overhead),
    ),
];

fn families(processes: &[ProcessMetrics], agent: &AgentMetrics) -> Vec<Family> {
    let mut all = Vec::with_capacity(ONES.len() + 30);
    for &(name, help, kind, value) in ONES {
        let number =
            |value| if matches!(kind, MetricType::Counter) { Value::Counter(value) } else { Value::Gauge(value) };
        let row = |p: &ProcessMetrics| Some(row(p, vec![], number(value(p)?)));
        all.push(Family { name, help, kind, rows: processes.iter().filter_map(row).collect() });
    }
    states(processes, &mut all);
    sites(processes, &mut all);
    memory(processes, &mut all);
    proofs(processes, &mut all);
    itself(agent, &mut all);
    all
}

fn row(process: &ProcessMetrics, own: Vec<(&'static str, Cow<'static, str>)>, value: Value) -> Row {
    Row { identity: Some(Arc::clone(&process.identity)), own, value }
}

fn own(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

fn gauge(name: &'static str, help: &'static str, rows: Vec<Row>) -> Family {
    Family { name, help, kind: MetricType::Gauge, rows }
}

fn states(processes: &[ProcessMetrics], all: &mut Vec<Family>) {
    let by_state = |p: &ProcessMetrics| {
        [("runnable", p.runnable), ("running", p.running), ("blocked", p.blocked)]
            .map(|(state, n)| row(p, vec![("state", state.into())], Value::Gauge(n as f64)))
    };
    all.push(gauge(
        "gotracer_goroutines",
        "The program's goroutines by state; running includes system calls and preempted ones.",
        processes.iter().flat_map(by_state).collect(),
    ));
    all.push(gauge(
        "gotracer_detail",
        "1, with what is attached to the process: events, lifecycle (births and ends) or snapshots (nothing).",
        processes.iter().map(|p| row(p, vec![("detail", p.detail.into())], Value::Gauge(1.0))).collect(),
    ));
    let reasons = || processes.iter().flat_map(|p| p.blocks.iter().map(move |block| (p, block)));
    all.push(gauge(
        "gotracer_goroutines_blocked",
        "Blocked goroutines by the runtime's wait reason, the runtime's own included.",
        reasons()
            .map(|(p, block)| row(p, vec![("reason", own(&block.reason))], Value::Gauge(block.blocked as f64)))
            .collect(),
    ));
    let bound = |at: usize| BLOCK_BOUNDS_LOG2_NS.get(at).map_or(f64::INFINITY, |log2| (1_u64 << log2) as f64 / 1e9);
    all.push(Family {
        name: "gotracer_block_seconds",
        help: "How long blocks lasted that have ended, by wait reason.",
        kind: MetricType::Histogram,
        rows: reasons()
            .map(|(p, block)| {
                let buckets = block.buckets.iter().enumerate().map(|(at, count)| (bound(at), *count)).collect();
                let value = Value::Histogram { sum: block.seconds, buckets };
                row(p, vec![("reason", own(&block.reason))], value)
            })
            .collect(),
    });
}

fn sites(processes: &[ProcessMetrics], all: &mut Vec<Family>) {
    type Figure = (&'static str, &'static str, MetricType, fn(&super::metrics::SiteMetrics) -> f64);
    const FIGURES: [Figure; 5] = [
        ("gotracer_site_goroutines", "Live goroutines by creation site.", MetricType::Gauge, |s| s.live as f64),
        ("gotracer_site_goroutines_blocked", "Blocked goroutines by creation site.", MetricType::Gauge, |s| {
            s.blocked as f64
        }),
        ("gotracer_site_created", "Goroutines created by creation site.", MetricType::Counter, |s| s.created as f64),
        ("gotracer_site_exited", "Goroutines ended by creation site.", MetricType::Counter, |s| s.ended as f64),
        (
            "gotracer_site_growth_per_second",
            "Live goroutines more or less a second by creation site.",
            MetricType::Gauge,
            |s| s.growth,
        ),
    ];
    for (name, help, kind, value) in FIGURES {
        let mut rows = Vec::new();
        for process in processes {
            for site in &process.sites {
                let labels = vec![
                    ("site", own(&site.function)),
                    ("file", own(&site.file)),
                    ("line", Cow::Owned(site.line.to_string())),
                    ("start", own(&site.start)),
                ];
                let number = value(site);
                let value =
                    if matches!(kind, MetricType::Counter) { Value::Counter(number) } else { Value::Gauge(number) };
                rows.push(row(process, labels, value));
            }
        }
        all.push(Family { name, help, kind, rows });
    }
}

fn memory(processes: &[ProcessMetrics], all: &mut Vec<Family>) {
    // The crate has no summaries: three families, which together read as one.
    let (mut quantiles, mut sums, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for process in processes {
        let Some(runtime) = &process.runtime else { continue };
        let mut pauses: Vec<u64> = runtime.gc_pauses.iter().map(|pause| pause.ns).collect();
        pauses.sort_unstable();
        // As debug.ReadGCStats has them, of the pauses that the runtime remembers.
        for (name, share) in [("0", 0.0), ("0.25", 0.25), ("0.5", 0.5), ("0.75", 0.75), ("1", 1.0)] {
            let at = (pauses.len().saturating_sub(1) as f64 * share).floor() as usize;
            let ns = pauses.get(at).copied().unwrap_or_default();
            quantiles.push(row(process, vec![("quantile", name.into())], Value::Gauge(ns as f64 / 1e9)));
        }
        let total = runtime.gc_pause_total_ns.unwrap_or_default() as f64 / 1e9;
        sums.push(row(process, vec![], Value::Gauge(total)));
        counts.push(row(process, vec![], Value::Gauge(runtime.gc_cycles.unwrap_or_default() as f64)));
    }
    for (name, help, rows) in [
        (
            "go_gc_duration_seconds",
            "A summary of the wall-time pause (stop-the-world) duration in garbage collection cycles.",
            quantiles,
        ),
        ("go_gc_duration_seconds_sum", "Of go_gc_duration_seconds.", sums),
        ("go_gc_duration_seconds_count", "Of go_gc_duration_seconds.", counts),
    ] {
        all.push(Family { name, help, kind: MetricType::Unknown, rows });
    }
    let limits = |p: &ProcessMetrics| {
        let go = p.runtime.as_ref().and_then(|runtime| runtime.memory_limit_bytes);
        [("cgroup", p.kernel.cgroup_limit_bytes), ("gomemlimit", go)]
            .into_iter()
            .filter_map(|(kind, bytes)| Some(row(p, vec![("limit", kind.into())], Value::Gauge(bytes? as f64))))
            .collect::<Vec<_>>()
    };
    all.push(gauge(
        "gotracer_memory_limit_bytes",
        "Limits of the process's memory that are set.",
        processes.iter().flat_map(limits).collect(),
    ));
    let forecast = |p: &ProcessMetrics| {
        let bounds = p.forecast.map(|f| [("low", f.low_seconds), ("high", f.high_seconds)]);
        let rows = bounds.into_iter().flatten();
        rows.map(|(bound, s)| row(p, vec![("bound", bound.into())], Value::Gauge(s))).collect::<Vec<_>>()
    };
    all.push(gauge(
        "gotracer_memory_forecast_seconds",
        "Seconds until the memory limit is reached, as a range; nothing while memory does not grow.",
        processes.iter().flat_map(forecast).collect(),
    ));
    let findings = |p: &ProcessMetrics| {
        let rows = p.findings.iter().map(|(kind, severity, n)| {
            row(p, vec![("kind", own(kind)), ("severity", own(severity))], Value::Gauge(*n as f64))
        });
        rows.collect::<Vec<_>>()
    };
    all.push(gauge(
        "gotracer_findings",
        "Suspected leaks and other findings, by kind and severity.",
        processes.iter().flat_map(findings).collect(),
    ));
}

/// What the prover says: figures as of its last passes over each process.
fn proofs(processes: &[ProcessMetrics], all: &mut Vec<Family>) {
    let proofs = || processes.iter().filter_map(|p| Some((p, p.proof.as_ref()?)));
    let (mut goroutines, mut retained) = (Vec::new(), Vec::new());
    for (process, site) in proofs().flat_map(|(p, proof)| proof.sites.iter().map(move |site| (p, site))) {
        let labels = || {
            let line = Cow::Owned(site.line.to_string());
            vec![("site", own(&site.function)), ("file", own(&site.file)), ("line", line)]
        };
        let counts = site.counts;
        for (verdict, n) in [
            ("confirmed", counts.confirmed),
            ("leaked", counts.leaked),
            ("suspected", counts.suspected),
            ("unknown", counts.unknown),
        ] {
            let labels = [labels(), vec![("verdict", verdict.into())]].concat();
            goroutines.push(row(process, labels, Value::Gauge(n as f64)));
        }
        retained.push(row(process, labels(), Value::Gauge(site.retained_bytes as f64)));
    }
    all.push(gauge(
        "gotracer_proof_goroutines",
        "Goroutines that nothing which can still run reaches, by creation site and verdict: leaked and confirmed are proven.",
        goroutines,
    ));
    all.push(gauge(
        "gotracer_proof_retained_bytes",
        "What they alone keep alive, by creation site; estimated.",
        retained,
    ));
    let one = |value: fn(&super::metrics::ProofMetrics) -> f64| {
        proofs().map(|(p, proof)| row(p, vec![], Value::Gauge(value(proof)))).collect()
    };
    all.push(gauge("gotracer_proof_pass_seconds", "How long the last pass took.", one(|proof| proof.pass_seconds)));
    all.push(gauge(
        "gotracer_proof_time_seconds",
        "Number of seconds since 1970 of the last proof.",
        one(|proof| proof.unix_ms as f64 / 1e3),
    ));
}

/// What the agent says of itself.
fn itself(agent: &AgentMetrics, all: &mut Vec<Family>) {
    let plain = |own: Vec<(&'static str, Cow<'static, str>)>, value| Row { identity: None, own, value };
    let labelled = |label: &'static str, values: &[(&'static str, u64)], counter: bool| -> Vec<Row> {
        let value = |n: u64| if counter { Value::Counter(n as f64) } else { Value::Gauge(n as f64) };
        values.iter().map(|(name, n)| plain(vec![(label, (*name).into())], value(*n))).collect()
    };
    let counter = |name, help, rows| Family { name, help, kind: MetricType::Counter, rows };
    let count = |n: u64| vec![plain(vec![], Value::Counter(n as f64))];
    let one = |n: f64| vec![plain(vec![], Value::Gauge(n))];
    all.push(gauge(
        "gotracer_agent_processes",
        "Go processes on this host by what became of them.",
        labelled("verdict", &agent.processes, false),
    ));
    all.push(counter(
        "gotracer_agent_processes_watched",
        "Processes that were watched since the agent's start.",
        count(agent.watched_total),
    ));
    all.push(gauge("gotracer_agent_executables", "Executables with probes in them.", one(agent.executables as f64)));
    all.push(gauge(
        "gotracer_agent_processes_without_series",
        "Watched processes beyond metrics.max_processes.",
        one(agent.others.0 as f64),
    ));
    all.push(gauge(
        "gotracer_agent_goroutines_without_series",
        "Goroutines of watched processes beyond metrics.max_processes.",
        one(agent.others.1 as f64),
    ));
    all.push(counter("gotracer_agent_events", "Events read.", count(agent.events)));
    all.push(counter(
        "gotracer_agent_events_lost",
        "Events that did not reach the agent, by cause.",
        agent
            .lost
            .iter()
            .map(|(cause, n)| plain(vec![("cause", super::cause_name(*cause).into())], Value::Counter(*n as f64)))
            .collect(),
    ));
    all.push(gauge(
        "gotracer_agent_buffer_fullest_share",
        "How full the fullest buffer was ever found.",
        one(agent.fullest),
    ));
    all.push(gauge(
        "gotracer_agent_overhead_share",
        "What probes cost all processes, as a share of the host's CPUs; estimated.",
        one(agent.overhead),
    ));
    all.push(gauge(
        "gotracer_agent_resident_memory_bytes",
        "The agent's own resident memory.",
        one(agent.resident_bytes as f64),
    ));
    all.push(counter(
        "gotracer_agent_cpu_seconds",
        "CPU time that the agent itself has used.",
        vec![plain(vec![], Value::Counter(agent.cpu_seconds))],
    ));
    all.push(counter(
        "gotracer_agent_errors",
        "What went wrong, by what was being done.",
        labelled("doing", &agent.errors, true),
    ));
    all.push(gauge(
        "gotracer_agent_flight_recorder_bytes",
        "Bytes of events that the flight recorder holds.",
        one(agent.flight_recorder_bytes as f64),
    ));
    all.push(counter("gotracer_agent_proof_passes", "Passes of the prover.", count(agent.proof.0)));
    all.push(counter(
        "gotracer_agent_proof_cpu_seconds",
        "CPU time that the prover has used.",
        vec![plain(vec![], Value::Counter(agent.proof.1))],
    ));
    all.push(counter(
        "gotracer_agent_evidence",
        "Folders of evidence that were written and read back.",
        count(agent.evidence),
    ));
    all.push(gauge(
        "gotracer_alarm_firing",
        "1 while an alarm fires for a process.",
        agent
            .firing
            .iter()
            .map(|(alarm, identity)| Row {
                identity: Some(Arc::clone(identity)),
                own: vec![("alarm", own(alarm))],
                value: Value::Gauge(1.0),
            })
            .collect(),
    ));
    all.push(counter(
        "gotracer_alarms",
        "Times that an alarm has fired.",
        agent.alarms.iter().map(|(alarm, n)| plain(vec![("alarm", own(alarm))], Value::Counter(*n as f64))).collect(),
    ));
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{BlockMetrics, SiteMetrics};
    use super::*;

    fn process() -> ProcessMetrics {
        ProcessMetrics {
            identity: Arc::new(Identity {
                process: "shop".into(),
                pid: 7,
                binary: "/srv/\"shop\"\n".into(),
                build_id: "b".into(),
                go_version: "go1.27.3".into(),
                pod: Some("p".into()),
                ..Identity::default()
            }),
            goroutines: 12,
            created: 30,
            blocks: vec![BlockMetrics {
                reason: "chan receive".into(),
                blocked: 3,
                seconds: 0.5,
                buckets: [1, 0, 0, 0, 2, 0, 0, 0, 1],
            }],
            sites: vec![SiteMetrics { function: "main.a".into(), line: 3, live: 5, ..SiteMetrics::default() }],
            ..ProcessMetrics::default()
        }
    }

    #[test]
    fn both_formats_say_the_same_figures() {
        let open = write(vec![process()], AgentMetrics::default(), Format::OpenMetrics).expect("writes");
        let classic = write(vec![process()], AgentMetrics::default(), Format::Classic).expect("writes");
        assert!(open.ends_with("# EOF\n"));
        assert!(open.contains("# TYPE gotracer_goroutines_created counter\n"), "{open}");
        assert!(classic.contains("# TYPE gotracer_goroutines_created_total counter\n"), "{classic}");
        assert!(classic.contains("# HELP gotracer_goroutines_created_total "), "{classic}");
        assert!(!classic.contains("EOF") && !classic.contains(" unknown"));
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(&open), samples(&classic));
        let labels = r#"process="shop",pid="7",binary="/srv/\"shop\"\n",build_id="b",go_version="go1.27.3",pod="p""#;
        assert!(open.contains(&format!("go_goroutines{{{labels}}} 12.0\n")), "{open}");
        let bucket = format!("gotracer_block_seconds_bucket{{le=\"+Inf\",{labels},reason=\"chan receive\"}} 4\n");
        assert!(open.contains(&bucket), "{open}");
    }
}

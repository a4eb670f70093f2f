//! Figures and logs as OpenTelemetry has them: the protobuf messages of OTLP.
//!
//! In: what [`metrics`](super::metrics) holds, and lines of log. Out: bytes for `v1/metrics` and `v1/logs`. Go's runtime has
//! the names of OpenTelemetry's conventions where there are any, <https://opentelemetry.io/docs/specs/semconv/runtime/go-metrics/>;
//! all else is `gotracer.*`. Sends nothing itself.
//!
//! The messages are those of `opentelemetry-proto`. Its SDK is not used: that measures the process it is in, and these are
//! the figures of others, each a resource of its own.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::metrics::{BLOCK_BOUNDS_LOG2_NS, Identity, ProcessMetrics};

/// One line of log.
#[derive(Clone, Debug)]
pub struct Log {
    /// When, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// 9 for information, 13 for a warning, 17 for an error: `SeverityNumber`.
    pub severity: i32,
    /// In words.
    pub words: String,
    /// What it is, and its details as JSON.
    pub attributes: Vec<(&'static str, String)>,
    /// Whom it is about.
    pub identity: std::sync::Arc<Identity>,
}

/// The figures of all processes at one time, as the body of a request to `v1/metrics`.
#[must_use]
pub fn metrics(processes: &[ProcessMetrics], unix_ns: u64, host: &str) -> Vec<u8> {
    let resource_metrics = processes
        .iter()
        .map(|process| ResourceMetrics {
            resource: Some(resource(&process.identity, host)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics: of_process(process, unix_ns),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        })
        .collect();
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

/// Lines of log, as the body of a request to `v1/logs`.
#[must_use]
pub fn logs(lines: &[Log], host: &str) -> Vec<u8> {
    let resource_logs = lines
        .iter()
        .map(|line| ResourceLogs {
            resource: Some(resource(&line.identity, host)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: vec![LogRecord {
                    time_unix_nano: line.unix_ns,
                    observed_time_unix_nano: line.unix_ns,
                    severity_number: line.severity,
                    body: Some(text(&line.words)),
                    attributes: line.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
                    ..LogRecord::default()
                }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        })
        .collect();
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "gotracer".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn resource(identity: &Identity, host: &str) -> Resource {
    let pid = any_value::Value::IntValue(i64::from(identity.pid));
    let mut attributes = vec![
        attribute("service.name", &identity.process),
        attribute("service.instance.id", &format!("{host}:{}", identity.pid)),
        attribute("host.name", host),
        KeyValue { key: "process.pid".to_owned(), value: Some(AnyValue { value: Some(pid) }), ..KeyValue::default() },
        attribute("process.executable.name", &identity.process),
        attribute("process.executable.path", &identity.binary),
        attribute("process.executable.build_id", &identity.build_id),
        attribute("process.runtime.name", "go"),
        attribute("process.runtime.version", &identity.go_version),
    ];
    let where_it_runs = [
        ("container.id", &identity.container),
        ("k8s.pod.uid", &identity.pod_uid),
        ("k8s.namespace.name", &identity.namespace),
        ("k8s.pod.name", &identity.pod),
    ];
    attributes.extend(where_it_runs.into_iter().filter_map(|(key, value)| Some(attribute(key, value.as_ref()?))));
    Resource { attributes, ..Resource::default() }
}

type Attributes = Vec<(&'static str, String)>;
type Points = Vec<(Attributes, f64)>;

/// What kind of figure it is.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    /// A sum that goes up and down.
    UpDown,
    /// One that only goes up.
    Counter,
}

fn of_process(process: &ProcessMetrics, unix_ns: u64) -> Vec<Metric> {
    let mut all = Vec::new();
    let times = (process.since_unix_ns, unix_ns);
    let mut put = |name: &str, unit: &str, kind: Kind, points: Points| {
        if !points.is_empty() {
            all.push(numbers(name, unit, kind, points, times));
        }
    };
    let one = |value: Option<f64>| value.map(|value| (vec![], value)).into_iter().collect::<Points>();
    let count = |value: u64| one(Some(value as f64));
    let runtime = process.runtime.as_ref();
    let of_runtime = |value: Option<u64>| one(value.map(|value| value as f64));

    put("go.goroutine.count", "{goroutine}", Kind::UpDown, count(process.goroutines));
    let stack = runtime.and_then(|r| r.stack_spans_bytes);
    let stack = stack.map(|bytes| (vec![("go.memory.type", "stack".to_owned())], bytes as f64));
    put("go.memory.used", "By", Kind::UpDown, stack.into_iter().collect());
    put("go.memory.limit", "By", Kind::UpDown, of_runtime(runtime.and_then(|r| r.memory_limit_bytes)));
    put("go.memory.gc.goal", "By", Kind::UpDown, of_runtime(runtime.and_then(|r| r.heap_goal_bytes)));
    put("go.processor.limit", "{thread}", Kind::UpDown, of_runtime(runtime.and_then(|r| r.gomaxprocs)));
    put("go.config.gogc", "%", Kind::UpDown, one(runtime.and_then(|r| r.gc_percent).map(f64::from)));

    let states = [("runnable", process.runnable), ("running", process.running), ("blocked", process.blocked)];
    let states = states.map(|(state, n)| (vec![("state", state.to_owned())], n as f64));
    put("gotracer.goroutines", "{goroutine}", Kind::UpDown, states.to_vec());
    let blocked = process.blocks.iter().map(|block| (vec![("reason", block.reason.clone())], block.blocked as f64));
    put("gotracer.goroutines.blocked", "{goroutine}", Kind::UpDown, blocked.collect());
    put("gotracer.goroutines.created", "{goroutine}", Kind::Counter, count(process.created));
    put("gotracer.goroutines.exited", "{goroutine}", Kind::Counter, count(process.ended));
    put("gotracer.goroutines.growth", "{goroutine}/s", Kind::Gauge, one(Some(process.growth)));
    let site = |value: fn(&super::metrics::SiteMetrics) -> u64| -> Points {
        let attributes = |site: &super::metrics::SiteMetrics| {
            vec![
                ("code.function.name", site.function.to_string()),
                ("code.file.path", site.file.to_string()),
                ("code.line.number", site.line.to_string()),
                ("start", site.start.to_string()),
            ]
        };
        process.sites.iter().map(|site| (attributes(site), value(site) as f64)).collect()
    };
    put("gotracer.site.goroutines", "{goroutine}", Kind::UpDown, site(|s| s.live));
    put("gotracer.site.created", "{goroutine}", Kind::Counter, site(|s| s.created));
    put("gotracer.site.exited", "{goroutine}", Kind::Counter, site(|s| s.ended));
    let channels = runtime.map(|r| r.blocked_channels as u64);
    put("gotracer.blocked_channels", "{channel}", Kind::UpDown, of_runtime(channels));
    put("gotracer.timers", "{timer}", Kind::UpDown, of_runtime(runtime.and_then(|r| r.timers)));
    put("gotracer.goroutines.stack", "By", Kind::UpDown, of_runtime(process.stack_bytes));
    put("gotracer.gc.cycles", "{cycle}", Kind::Counter, of_runtime(runtime.and_then(|r| r.gc_cycles)));
    let pauses = runtime.and_then(|r| r.gc_pause_total_ns).map(|ns| ns as f64 / 1e9);
    put("gotracer.gc.pause", "s", Kind::Counter, one(pauses));
    put("process.memory.usage", "By", Kind::UpDown, count(process.kernel.resident_bytes));
    put("process.cpu.time", "s", Kind::Counter, one(Some(process.kernel.cpu_seconds)));
    let forecast = process.forecast.map(|f| [("low", f.low_seconds), ("high", f.high_seconds)]);
    let forecast = forecast.into_iter().flatten().filter(|(_, s)| s.is_finite());
    let forecast = forecast.map(|(bound, s)| (vec![("bound", bound.to_owned())], s)).collect();
    put("gotracer.memory.forecast", "s", Kind::Gauge, forecast);
    let findings = process
        .findings
        .iter()
        .map(|(kind, severity, n)| (vec![("kind", kind.clone()), ("severity", severity.clone())], *n as f64));
    put("gotracer.findings", "{finding}", Kind::UpDown, findings.collect());
    put("gotracer.overhead", "1", Kind::Gauge, one(Some(process.overhead)));
    put("gotracer.events.lost", "{event}", Kind::Counter, count(process.lost));
    if !process.blocks.is_empty() {
        all.push(blocks(process, times));
    }
    all
}

fn attributes(own: Attributes) -> Vec<KeyValue> {
    own.into_iter().map(|(key, value)| attribute(key, &value)).collect()
}

fn numbers(name: &str, unit: &str, kind: Kind, points: Points, (since, now): (u64, u64)) -> Metric {
    let data_points = points
        .into_iter()
        .map(|(own, value)| NumberDataPoint {
            attributes: attributes(own),
            start_time_unix_nano: since,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..NumberDataPoint::default()
        })
        .collect();
    let cumulative = AggregationTemporality::Cumulative as i32;
    let data = match kind {
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points }),
        Kind::UpDown => {
            metric::Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic: false })
        }
        Kind::Counter => {
            metric::Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic: true })
        }
    };
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

fn blocks(process: &ProcessMetrics, (since, now): (u64, u64)) -> Metric {
    let bounds: Vec<f64> = BLOCK_BOUNDS_LOG2_NS.iter().map(|log2| (1_u64 << log2) as f64 / 1e9).collect();
    let data_points = process
        .blocks
        .iter()
        .map(|block| HistogramDataPoint {
            attributes: attributes(vec![("reason", block.reason.clone())]),
            start_time_unix_nano: since,
            time_unix_nano: now,
            count: block.buckets.iter().sum(),
            sum: Some(block.seconds),
            bucket_counts: block.buckets.to_vec(),
            explicit_bounds: bounds.clone(),
            ..HistogramDataPoint::default()
        })
        .collect();
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let data = metric::Data::Histogram(Histogram { data_points, aggregation_temporality });
    let name = "gotracer.block.duration".to_owned();
    Metric { name, unit: "s".to_owned(), data: Some(data), ..Metric::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_out_as_they_went_in() {
        let process = ProcessMetrics { goroutines: 12, created: 30, since_unix_ns: 5, ..ProcessMetrics::default() };
        let bytes = metrics(&[process], 9, "host");
        let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).expect("decodes");
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let find =
            |name: &str| metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.clone());
        let Some(metric::Data::Sum(goroutines)) = find("go.goroutine.count") else { panic!("{metrics:?}") };
        assert_eq!(goroutines.data_points[0].value, Some(number_data_point::Value::AsDouble(12.0)));
        assert!(!goroutines.is_monotonic);
        let Some(metric::Data::Sum(created)) = find("gotracer.goroutines.created") else { panic!("{metrics:?}") };
        assert!(created.is_monotonic && created.data_points[0].start_time_unix_nano == 5);
        assert!(find("go.memory.limit").is_none(), "what is not known is not told");
    }

    #[test]
    fn a_line_of_log_has_its_process_as_resource() {
        let identity = Identity { process: "shop".into(), pid: 7, ..Identity::default() };
        let line = Log {
            unix_ns: 3,
            severity: 17,
            words: "alarm".into(),
            attributes: vec![("notice", "alarm".into())],
            identity: identity.into(),
        };
        let request = ExportLogsServiceRequest::decode(logs(&[line], "h").as_slice()).expect("decodes");
        let resource = request.resource_logs[0].resource.clone().expect("a resource");
        assert!(resource.attributes.contains(&attribute("service.name", "shop")), "{resource:?}");
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records[0].severity_number, 17);
    }
}

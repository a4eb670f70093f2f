//! What reaches a collector?

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::environment::{patience, require_root_and_bpf};
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::otlp_reaches_a_collector", otlp)]
}

/// A collector that refuses the first logs: they come again, and nothing twice. Figures and logs are read as any collector reads
/// them.
fn otlp() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("otlp")?;
    let path = folder.copy(&newest("idle")?)?;
    let program = Program::start(&path, &["-n", "2"])?;
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = collector.local_addr()?;
    let more = format!(
        "{QUICK}[otlp]\nendpoint = \"http://{endpoint}\"\ninterval = \"300ms\"\nheaders = {{ x-test = \"yes\" }}\n\
         [[alarm]]\nname = \"some\"\nfigure = \"goroutines\"\nabove = 5\nsamples = 1\ndry_run = true\n"
    );
    let agent = Agent::start(&folder, &more)?;
    let deadline = Instant::now() + patience();
    let (mut figures, mut logs, mut refused) = (None, Vec::new(), None);
    while figures.is_none() || !logs.iter().any(|(event, _): &(String, String)| event == "gotracer.evidence") {
        ensure!(Instant::now() < deadline, "figures {figures:?}, logs {logs:?}");
        let (mut stream, _) = collector.accept()?;
        let (head, body) = read_request(&mut stream)?;
        let lower = head.to_lowercase();
        ensure!(lower.contains("x-test: yes") && lower.contains("content-type: application/x-protobuf"), "{head}");
        let mut status = "200 OK";
        if head.starts_with("POST /v1/metrics ") {
            figures = goroutines(&ExportMetricsServiceRequest::decode(&*body)?, program.pid()).or(figures);
        } else {
            ensure!(head.starts_with("POST /v1/logs "), "{head}");
            let events = events(&ExportLogsServiceRequest::decode(&*body)?, program.pid())?;
            match &refused {
                None => {
                    status = "503 Service Unavailable";
                    refused = Some(events);
                }
                Some(before) => {
                    if logs.is_empty() {
                        ensure!(events.starts_with(before), "{before:?} were refused, then came {events:?}");
                    }
                    logs.extend(events);
                }
            }
        }
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
    }
    let told = agent.metrics()?.of(program.pid(), "go_goroutines").context("no go_goroutines")?;
    ensure!(figures == Some(told as i64), "{figures:?} by OTLP, {told} by Prometheus");
    let alarms: Vec<&str> =
        logs.iter().filter(|(event, _)| event == "gotracer.alarm").map(|(_, words)| &**words).collect();
    let expected = format!("alarm some for idle ({})", program.pid());
    ensure!(matches!(alarms[..], [words] if words.starts_with(&expected)), "{logs:?}");
    drop(program);
    agent.stop()
}

/// An attribute in words.
fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_of(resource: Option<&Resource>, pid: u32) -> bool {
    resource.is_some_and(|resource| {
        attribute(&resource.attributes, "process.pid") == Some(pid.to_string())
            && attribute(&resource.attributes, "service.name").is_some_and(|name| name == "idle")
            && attribute(&resource.attributes, "process.runtime.version").is_some_and(|v| v.starts_with("go1."))
    })
}

/// `go.goroutine.count` of the process.
fn goroutines(request: &ExportMetricsServiceRequest, pid: u32) -> Option<i64> {
    let ours = request.resource_metrics.iter().find(|one| is_of(one.resource.as_ref(), pid))?;
    let metric = ours.scope_metrics.iter().flat_map(|scope| &scope.metrics).find(|m| m.name == "go.goroutine.count")?;
    let Some(metric::Data::Sum(sum)) = &metric.data else { return None };
    match sum.data_points.first()?.value? {
        number_data_point::Value::AsInt(number) => Some(number),
        number_data_point::Value::AsDouble(number) => Some(number as i64),
    }
}

/// Name and words of each line; all are of the process.
fn events(request: &ExportLogsServiceRequest, pid: u32) -> Result<Vec<(String, String)>> {
    let mut events = Vec::new();
    for ours in &request.resource_logs {
        ensure!(is_of(ours.resource.as_ref(), pid), "of another process: {ours:?}");
        for record in ours.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            ensure!(record.time_unix_nano > 0 && record.severity_number > 0, "{record:?}");
            let name = attribute(&record.attributes, "event.name").context("no event.name")?;
            let body = record.body.as_ref().and_then(|body| body.value.clone());
            let Some(Value::StringValue(words)) = body else { bail!("no words: {record:?}") };
            events.push((name, words));
        }
    }
    Ok(events)
}

fn read_request(stream: &mut impl std::io::Read) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the request ends in its head");
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes)?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.context("no length")?.trim().parse()?;
    let mut rest = vec![0; length - body.len()];
    stream.read_exact(&mut rest)?;
    Ok((head, [body, rest].concat()))
}

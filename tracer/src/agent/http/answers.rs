//! What each address answers.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{Request, StatusCode};
use tokio::task::spawn_blocking;

use super::{Answer, body, text};
use crate::agent::reading::{Subject, with_source};
use crate::agent::state::{Shared, tracee_of};
use crate::agent::verdicts::Proven;
use crate::output::dump::{DumpFilter, Meta, View, groups, write_json, write_text};
use crate::output::{pprof, prometheus};
use crate::snapshot::{self, RuntimeStats, Symbols};
use crate::tracee::Tracee;
use crate::units::Pid;

const JSON: &str = "application/json";
const USAGE: &str = "\
gotracer agent
  /metrics                   figures, for Prometheus
  /healthz                   is the agent well
  /processes                 every Go process on this host and what became of it
  /findings                  what is suspected and what is proven of each process, or with ?pid=PID of one
  /goroutines?pid=PID        every goroutine of a process, JSON
  /dump?pid=PID              the same as Go's own traceback; &form=pprof for `go tool pprof`
  /flightrecorder?pid=PID    the last minutes of its events, for `gotracer report`
";

pub(super) async fn answer<B>(request: &Request<B>, shared: &Shared) -> Answer {
    let query = Query(request.uri().query().unwrap_or_default());
    match request.uri().path() {
        "/" => text(StatusCode::OK, USAGE),
        "/metrics" => metrics(request, shared),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/processes" => processes(shared),
        "/findings" => findings(&query, shared),
        "/flightrecorder" => recording(&query, shared),
        "/goroutines" => dump(&query, shared, Form::Json).await,
        "/dump" => match query.get("form") {
            None | Some("text") => dump(&query, shared, Form::Text).await,
            Some("pprof") => dump(&query, shared, Form::Pprof).await,
            Some(other) => text(StatusCode::BAD_REQUEST, format!("no form `{other}`; there are text and pprof\n")),
        },
        other => text(StatusCode::NOT_FOUND, format!("nothing is at {other}\n{USAGE}")),
    }
}

/// The part of an address behind `?`. Values are names and numbers: nothing in them is escaped.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The process that is asked for, or what to answer who names none.
    fn pid(&self) -> Result<Pid, Box<Answer>> {
        let Some(pid) = self.get("pid") else {
            let usage = "which process? add ?pid=PID; /processes lists them\n";
            return Err(Box::new(text(StatusCode::BAD_REQUEST, usage)));
        };
        pid.parse().map(Pid).map_err(|_| Box::new(text(StatusCode::BAD_REQUEST, format!("`{pid}` is no PID\n"))))
    }
}

fn metrics<B>(request: &Request<B>, shared: &Shared) -> Answer {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let format = prometheus::Format::asked(header(ACCEPT).unwrap_or_default());
    let (processes, agent) = shared.borrow_mut().metrics();
    let Ok(written) = prometheus::write(processes, agent, format) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n");
    };
    let gzip = header(ACCEPT_ENCODING).is_some_and(|accepted| accepted.contains("gzip"));
    let compressed = || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(written.len() / 8), Compression::fast());
        encoder.write_all(written.as_bytes()).ok()?;
        encoder.finish().ok()
    };
    let mut answer = match gzip.then(compressed).flatten() {
        Some(bytes) => {
            let mut answer = body(StatusCode::OK, format.content_type(), bytes);
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer
        }
        None => body(StatusCode::OK, format.content_type(), written),
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    answer
}

fn processes(shared: &Shared) -> Answer {
    let mut state = shared.borrow_mut();
    let goroutines: hashbrown::HashMap<Pid, u64> =
        state.watches.values_mut().map(|watch| (watch.pid(), watch.goroutines())).collect();
    let rows: Vec<serde_json::Value> = state
        .registry
        .iter()
        .map(|entry| {
            let mut row = serde_json::to_value(entry).unwrap_or_default();
            if let (Some(row), Some(n)) = (row.as_object_mut(), goroutines.get(&entry.pid)) {
                row.insert("goroutines".to_owned(), (*n).into());
            }
            row
        })
        .collect();
    json(&serde_json::json!({ "processes": rows }))
}

fn findings(query: &Query<'_>, shared: &Shared) -> Answer {
    let state = shared.borrow();
    let wanted = |pid: Pid| query.get("pid").is_none_or(|asked| asked.parse() == Ok(pid.0));
    let mut watches: Vec<_> = state.watches.values().filter(|watch| wanted(watch.pid())).collect();
    watches.sort_by_key(|watch| watch.pid());
    let rows: Vec<serde_json::Value> = watches
        .into_iter()
        .map(|watch| {
            serde_json::json!({
                "process": *watch.identity,
                "verdict": watch.analysis().verdict(),
                "findings": watch.findings(),
                "forecast": watch.analysis().forecast(),
                "proof": proof(&watch.proven),
            })
        })
        .collect();
    json(&serde_json::json!({ "processes": rows }))
}

/// What is proven of a process; null before anything is.
fn proof(proven: &Proven) -> serde_json::Value {
    match &proven.last {
        None => serde_json::Value::Null,
        Some(Ok(report)) => serde_json::json!({
            "unix_ms": proven.unix_ms,
            "passes": report.passes,
            "counts": report.counts(),
            "sites": report.sites,
        }),
        Some(Err(why)) => serde_json::json!({ "unix_ms": proven.unix_ms, "failed": **why }),
    }
}

fn recording(query: &Query<'_>, shared: &Shared) -> Answer {
    let state = &mut *shared.borrow_mut();
    let pid = match query.pid() {
        Ok(pid) => pid,
        Err(answer) => return *answer,
    };
    let Some(watch) = state.watches.get_mut(&pid) else { return not_watched(pid) };
    match watch.recording(state.released) {
        Ok(bytes) if bytes.is_empty() => {
            text(StatusCode::NOT_FOUND, "nothing is kept: [flight_recorder] memory is \"0\"\n")
        }
        Ok(bytes) => body(StatusCode::OK, "application/octet-stream", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn not_watched(pid: Pid) -> Answer {
    text(StatusCode::NOT_FOUND, format!("process {pid} is not watched; /processes tells why\n"))
}

fn json(value: &serde_json::Value) -> Answer {
    body(StatusCode::OK, JSON, format!("{value}\n"))
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
    Pprof,
}

async fn dump(query: &Query<'_>, shared: &Shared, form: Form) -> Answer {
    let pid = match query.pid() {
        Ok(pid) => pid,
        Err(answer) => return *answer,
    };
    let Some((tracee, subject)) = tracee_of(shared, pid) else { return not_watched(pid) };
    let readers = std::rc::Rc::clone(&shared.borrow().readers);
    let Ok(_permit) = readers.acquire().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the agent ends\n");
    };
    match spawn_blocking(move || write(&tracee, &subject, form)).await {
        Ok(Ok(bytes)) => match form {
            Form::Text => body(StatusCode::OK, "text/plain; charset=utf-8", bytes),
            Form::Json => body(StatusCode::OK, JSON, bytes),
            Form::Pprof => body(StatusCode::OK, "application/octet-stream", bytes),
        },
        Ok(Err(why)) => text(StatusCode::CONFLICT, format!("process {pid} could not be read: {why}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn write(tracee: &Tracee, subject: &Subject, form: Form) -> Result<Vec<u8>, String> {
    with_source(tracee.process(), subject, |source| {
        let snapshot = snapshot::take(source, snapshot::Options { threads: 1, ..Default::default() })
            .map_err(|error| error.to_string())?;
        let program = &subject.program;
        let binary = &*program.binary;
        let view = View::new(&snapshot, Symbols::new(binary), &program.wait_reasons, subject.bias);
        let selected = view.select(&DumpFilter::default());
        let mut out = Vec::new();
        let written = match form {
            Form::Text => write_text(&mut out, &view, &selected),
            Form::Json => {
                let stats = RuntimeStats::read(source, &snapshot);
                let go_version = binary.version().to_string();
                let meta = Meta {
                    pid: Some(subject.pid.0),
                    exe: &program.name,
                    go_version: &go_version,
                    runtime: Some(&stats),
                };
                write_json(&mut out, &view, &selected, &meta)
            }
            Form::Pprof => {
                let executable = pprof::Executable::of(program, subject.bias);
                pprof::write_pprof(&mut out, &view, &groups(&view, &selected), executable)
            }
        };
        written.map(|()| out).map_err(|error| error.to_string())
    })
}

//! Figures and notices on their way to a collector, by OTLP over HTTP.
//!
//! A collector that does not answer costs nothing but its data: figures are sent anew the next time, notices are kept up to
//! a bound.

use std::rc::Rc;
use std::time::Duration;

use super::clock::unix_ms;
use super::config::Otlp;
use super::notice::{Level, Notice};
use super::post;
use super::state::Shared;
use crate::output::otlp::{self, Log};

/// Notices kept for a collector that does not answer; the oldest go first.
const KEPT: usize = 1000;
const PROTOBUF: &str = "application/x-protobuf";

/// Keeps a notice until it is sent, if there is somebody to send it to.
pub(super) fn keep(shared: &Shared, notices: &[Notice]) {
    let mut state = shared.borrow_mut();
    if state.config.otlp.endpoint.is_none() {
        state.unsent.clear();
        return;
    }
    state.unsent.extend(notices.iter().map(log));
    let beyond = state.unsent.len().saturating_sub(KEPT);
    state.unsent.drain(..beyond);
}

fn log(notice: &Notice) -> Log {
    Log {
        unix_ns: notice.unix_ms * 1_000_000,
        severity: match notice.level {
            Level::Info => 9,
            Level::Warning => 13,
            Level::Error => 17,
        },
        words: notice.words.clone(),
        attributes: vec![
            ("event.name", format!("gotracer.{}", notice.notice)),
            ("details", notice.details.to_string()),
        ],
        identity: std::sync::Arc::clone(&notice.process),
    }
}

/// Sends, for as long as the agent runs.
pub(super) async fn run(shared: Shared) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let mut answered = true;
    loop {
        let otlp = shared.borrow().config.otlp.clone();
        tokio::time::sleep(otlp.interval.0).await;
        let Some(endpoint) = otlp.endpoint.as_deref() else { continue };
        match send(&shared, &otlp, endpoint.trim_end_matches('/'), &host).await {
            Ok(()) if answered => {}
            Ok(()) => {
                log::warn!("the collector at {endpoint} answers again");
                answered = true;
            }
            Err(error) => {
                shared.borrow_mut().count_error("sending_otlp");
                // Once, not every fifteen seconds.
                if std::mem::replace(&mut answered, false) {
                    log::warn!("nothing reaches the collector at {endpoint}: {error}");
                }
            }
        }
    }
}

async fn send(shared: &Shared, otlp: &Otlp, endpoint: &str, host: &str) -> std::io::Result<()> {
    let headers: Vec<(String, String)> = otlp.headers.clone().into_iter().collect();
    let timeout: Duration = otlp.timeout.0;
    let (processes, _) = shared.borrow_mut().metrics();
    let body = otlp::metrics(&processes, unix_ms() * 1_000_000, host);
    post::post(&format!("{endpoint}/v1/metrics"), PROTOBUF, &headers, body, timeout, &otlp.ca_file).await?;
    let logs = std::mem::take(&mut shared.borrow_mut().unsent);
    if logs.is_empty() {
        return Ok(());
    }
    let body = otlp::logs(&logs, host);
    let sent = post::post(&format!("{endpoint}/v1/logs"), PROTOBUF, &headers, body, timeout, &otlp.ca_file).await;
    if sent.is_err() {
        let state = &mut *shared.borrow_mut();
        let newer = std::mem::replace(&mut state.unsent, logs);
        state.unsent.extend(newer);
    }
    sent.map(drop)
}

/// Begins to send.
pub(super) fn start(shared: &Shared) {
    tokio::task::spawn_local(run(Rc::clone(shared)));
}

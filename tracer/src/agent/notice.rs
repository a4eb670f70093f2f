//! What the agent has to say: findings as they come and go, alarms, what was done. JSON lines, and OTLP logs.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::circuit_breaker::incident::{Done, Incident};
use super::clock::unix_ms;
use crate::analysis::{Finding, Severity};
use crate::output::metrics::Identity;
use crate::output::proof::SiteReport;

/// How bad it is, as OTLP has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For the record.
    Info,
    /// To be looked at.
    Warning,
    /// Something does not work, or a process is in trouble.
    Error,
}

/// One thing to say.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How bad.
    pub level: Level,
    /// What: `finding`, `finding_gone`, `leaked`, `alarm`, `alarm_suppressed`, `alarm_cleared`, `evidence`, `no_evidence`, `action`.
    pub notice: &'static str,
    /// In words.
    pub words: String,
    /// Whom it is about.
    pub process: Arc<Identity>,
    /// The rest, by kind of notice.
    #[serde(flatten)]
    pub details: Value,
}

impl Notice {
    fn new(level: Level, notice: &'static str, words: String, process: &Arc<Identity>, details: Value) -> Self {
        Self { unix_ms: unix_ms(), level, notice, words, process: Arc::clone(process), details }
    }

    /// A finding that was not there before.
    #[must_use]
    pub fn finding(finding: &Finding, process: &Arc<Identity>) -> Self {
        let level = match finding.severity {
            Severity::Notice => Level::Info,
            Severity::Warning => Level::Warning,
            Severity::Critical => Level::Error,
        };
        Self::new(level, "finding", words_of(finding), process, json!({ "finding": finding }))
    }

    /// A finding that is no more.
    #[must_use]
    pub fn finding_gone(finding: &Finding, process: &Arc<Identity>) -> Self {
        Self::new(Level::Info, "finding_gone", words_of(finding), process, json!({ "finding": finding }))
    }

    /// Goroutines that are proven to be leaked.
    #[must_use]
    pub fn leaked(site: &SiteReport, process: &Arc<Identity>) -> Self {
        let words = format!(
            "leaked: {} goroutines started in {} at {}:{} can never be woken again",
            site.counts.proven(),
            site.function,
            site.file,
            site.line
        );
        Self::new(Level::Error, "leaked", words, process, json!({ "leak": site }))
    }

    /// An alarm fired.
    #[must_use]
    pub fn fired(incident: &Incident) -> Self {
        let words = format!(
            "alarm {} for {} ({}): {} for {} samples",
            incident.alarm,
            incident.process.process,
            incident.process.pid,
            compared(incident),
            incident.samples
        );
        Self::new(Level::Error, "alarm", words, &incident.process, json!({ "incident": incident }))
    }

    /// An alarm would have fired.
    #[must_use]
    pub fn suppressed(alarm: &str, process: &Arc<Identity>, value: f64, why: &str) -> Self {
        let words = format!("alarm {alarm} for {} ({}) does nothing: {why}", process.process, process.pid);
        let details = json!({ "alarm": alarm, "value": value, "why": why });
        Self::new(Level::Warning, "alarm_suppressed", words, process, details)
    }

    /// An alarm's threshold no longer holds.
    #[must_use]
    pub fn cleared(alarm: &str, process: &Arc<Identity>) -> Self {
        let words = format!("alarm {alarm} for {} ({}) is over", process.process, process.pid);
        Self::new(Level::Info, "alarm_cleared", words, process, json!({ "alarm": alarm }))
    }

    /// Evidence was written and read back.
    #[must_use]
    pub fn evidence(incident: &Incident) -> Self {
        let folder = incident.evidence.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let words = format!("the evidence of alarm {} is in {folder}", incident.alarm);
        let details = json!({ "alarm": incident.alarm, "evidence": folder });
        Self::new(Level::Info, "evidence", words, &incident.process, details)
    }

    /// There is no evidence.
    #[must_use]
    pub fn no_evidence(incident: &Incident, why: &str) -> Self {
        let words = format!("there is no evidence of alarm {}: {why}", incident.alarm);
        let details = json!({ "alarm": incident.alarm, "why": why });
        Self::new(Level::Error, "no_evidence", words, &incident.process, details)
    }

    /// Something was done, or was to be.
    #[must_use]
    pub fn action(incident: &Incident, done: &Done) -> Self {
        let (level, outcome) = match &done.failed {
            Some(why) => (Level::Error, format!("failed: {why}")),
            None if done.dry_run => (Level::Info, "dry run".to_owned()),
            None => (Level::Info, "done".to_owned()),
        };
        let words = format!("alarm {}: {} {}: {outcome}", incident.alarm, done.action, done.with);
        let details = json!({ "alarm": incident.alarm, "action": done });
        Self::new(level, "action", words, &incident.process, details)
    }
}

fn words_of(finding: &Finding) -> String {
    let site =
        finding.site.as_ref().map(|site| format!(" started in {} at {}:{}", site.function, site.file, site.line));
    let site = site.unwrap_or_default();
    format!("suspected: {}, {} goroutines{site}", finding.kind.title(), finding.count)
}

fn compared(incident: &Incident) -> String {
    let figure = serde_json::to_value(incident.figure).ok().and_then(|name| name.as_str().map(str::to_owned));
    let figure = figure.unwrap_or_default();
    match (incident.above, incident.below) {
        (Some(above), _) => format!("{figure} {} is above {above}", incident.value),
        (_, Some(below)) => format!("{figure} {} is below {below}", incident.value),
        (None, None) => format!("{figure} {}", incident.value),
    }
}

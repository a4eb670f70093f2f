//! The report of `gotracer leaks`: an [`Analysis`] for people and for programs.
//!
//! In: an analysis, and what it is of. Out: text that is read in half a minute, or one JSON object. Prints nothing itself.

mod diff;
mod text;

use std::sync::Arc;

use serde::Serialize;

use crate::analysis::{Analysis, Finding, Forecast, MemoryTrend, SiteState, SiteTrend, Thresholds, Verdict};

pub use diff::write_diff;
pub use text::{write_finding, write_text};

/// What is reported on.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// The process; `None` for a file.
    pub pid: Option<u32>,
    /// The executable, or the file.
    pub name: String,
    /// The Go version that built the program.
    pub go_version: Option<String>,
    /// How it was observed: `probes` and snapshots, `snapshots` alone, a `recording`, a `dump`.
    pub by: &'static str,
    /// Why observation ended before its time, if it did.
    pub ended: Option<String>,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// What is reported on.
    #[serde(flatten)]
    pub subject: &'a Subject,
    /// Seconds observed.
    pub seconds: f64,
    /// Snapshots taken.
    pub looks: u64,
    /// Whether that was enough.
    pub verdict: Verdict,
    /// The program's goroutines at the end.
    pub goroutines: u64,
    /// Of them parked.
    pub parked: u64,
    /// Events that did not reach gotracer.
    pub lost: u64,
    /// The findings, the worst first.
    pub findings: &'a [Finding],
    /// All creation sites, those with the most goroutines first.
    pub sites: &'a [SiteTrend],
    /// How memory moves.
    pub memory: &'a MemoryTrend,
    /// When it ends.
    pub forecast: Option<&'a Forecast>,
    /// What the findings were judged by.
    pub thresholds: &'a Thresholds,
}

impl<'a> Report<'a> {
    /// The report of `analysis`.
    #[must_use]
    pub fn of(analysis: &'a Analysis, subject: &'a Subject, lost: u64) -> Self {
        Self {
            subject,
            seconds: analysis.seconds(),
            looks: analysis.samples(),
            verdict: analysis.verdict(),
            goroutines: analysis.sites().iter().map(|site| site.live).sum(),
            parked: analysis.sites().iter().map(|site| site.parked).sum(),
            lost,
            findings: analysis.findings(),
            sites: analysis.sites(),
            memory: analysis.memory(),
            forecast: analysis.forecast(),
            thresholds: analysis.thresholds(),
        }
    }

    /// The sites in this state that have goroutines.
    fn in_state(&self, state: SiteState) -> impl Iterator<Item = &'a SiteTrend> {
        self.sites.iter().filter(move |site| site.state == state && site.live > 0)
    }
}

/// A site in one line: `function file:line`.
#[must_use]
pub fn place(key: &crate::analysis::SiteKey) -> String {
    if key.function.is_empty() {
        return format!("(start of {})", key.start);
    }
    super::text::place(&super::SiteName {
        function: Arc::clone(&key.function),
        file: Arc::clone(&key.file),
        line: key.line,
    })
}

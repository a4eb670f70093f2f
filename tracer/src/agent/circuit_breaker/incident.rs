//! An alarm that fired, and what was done: as evidence, hooks and notices have them.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::agent::config::Figure;
use crate::output::metrics::Identity;

/// What fired, for whom, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The alarm.
    pub alarm: String,
    /// What it looks at.
    pub figure: Figure,
    /// What that was.
    pub value: f64,
    /// Fires above this ...
    pub above: Option<f64>,
    /// ... or below.
    pub below: Option<f64>,
    /// For so many samples.
    pub samples: u32,
    /// The process.
    pub process: Arc<Identity>,
    /// Its goroutines.
    pub goroutines: u64,
    /// Nothing is done but the evidence.
    pub dry_run: bool,
    /// Where the evidence is, once it is there.
    pub evidence: Option<PathBuf>,
}

/// What came of one action.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// `touch`, `signal`, `memory_high`, `hook` or `webhook`.
    pub action: &'static str,
    /// With what: a file, a signal, a size, a program, an address.
    pub with: String,
    /// It was only said, not done.
    pub dry_run: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why it failed; `None` if it did not.
    pub failed: Option<String>,
    /// What the hook printed, up to 4 KiB, or the webhook's status.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

//! A sample out of the output of `gotracer dump --json`.
//!
//! In: the JSON. Out: one [`Sample`] and who is in it. Unknown fields are passed over, missing ones have no value.

use std::io::Read;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;

use super::memory;
use super::stacks::{of_reason, waits_of};
use super::tally::{One, Tally};
use crate::analysis::{Block, FrameName, Sample, SiteKey};
use crate::snapshot::RuntimeStats;
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// A dump, read back.
#[derive(Debug)]
pub struct DumpFile {
    /// The process.
    pub pid: Option<u32>,
    /// Its executable.
    pub exe: String,
    /// The Go version that built it.
    pub go_version: String,
    /// What analysis takes.
    pub sample: Sample,
    /// Each goroutine's site.
    pub sites_of: HashMap<Goid, SiteKey>,
    /// Why goroutines may be missing.
    pub incomplete: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    exe: String,
    #[serde(default)]
    go_version: String,
    #[serde(default)]
    taken_to_ns: Option<u64>,
    #[serde(default)]
    incomplete: Option<String>,
    #[serde(default)]
    runtime: Option<RuntimeStats>,
    goroutines: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    goid: u64,
    #[serde(default)]
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    waited_ns: Option<u64>,
    #[serde(default)]
    parent: Option<u64>,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    created_by: Option<By>,
    #[serde(default)]
    waits: Vec<Wait>,
    #[serde(default)]
    stack_bytes: u64,
    #[serde(default)]
    frames: Option<Vec<FrameRow>>,
}

#[derive(Deserialize)]
struct By {
    function: Arc<str>,
    file: Arc<str>,
    line: u32,
}

#[derive(Deserialize)]
struct Wait {
    channel: u64,
}

#[derive(Deserialize)]
struct FrameRow {
    function: Arc<str>,
    file: Arc<str>,
    line: u32,
}

impl DumpFile {
    /// Reads a dump.
    ///
    /// # Errors
    ///
    /// If it is no such JSON; the error has the line and what was expected there.
    pub fn read(from: impl Read) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_reader(from)?;
        let functions: HashMap<u64, HashSet<Arc<str>>> = {
            let frames = |row: &Row| Some(row.frames.as_ref()?.iter().map(|f| Arc::clone(&f.function)).collect());
            document.goroutines.iter().map(|row| (row.goid, frames(row).unwrap_or_default())).collect()
        };
        let mut tally = Tally::default();
        let mut sites_of = HashMap::new();
        for row in document.goroutines.into_iter().filter(|row| !row.system) {
            let start: Arc<str> = row.start.as_deref().unwrap_or("(unknown)").into();
            let none = || By { function: "".into(), file: "".into(), line: 0 };
            let by = row.created_by.unwrap_or_else(none);
            let orphan = row.parent.and_then(|parent| match functions.get(&parent) {
                None => Some(true),
                Some(stack) if stack.is_empty() => None,
                Some(stack) => Some(!stack.contains(&by.function)),
            });
            let key = SiteKey { function: by.function, file: by.file, line: by.line, start };
            let frame = |f: FrameRow| FrameName { function: f.function, file: f.file, line: f.line };
            let stack: Arc<[FrameName]> = row.frames.unwrap_or_default().into_iter().map(frame).collect();
            let reason = row.reason.unwrap_or_else(|| row.state.clone());
            let of_stack = || waits_of(stack.iter().map(|frame| frame.function.as_ref()));
            let block = match row.state.as_str() {
                "waiting" | "leaked" => of_reason(&reason).or_else(of_stack).unwrap_or(Block::Other),
                "syscall" => of_stack().unwrap_or(Block::Syscall),
                _ => Block::Runs,
            };
            sites_of.insert(Goid(row.goid), key.clone());
            tally.add(One {
                goid: Goid(row.goid),
                key: &key,
                block,
                reason: reason.into(),
                stack,
                lives_ns: row.waited_ns.unwrap_or_default(),
                stands_ns: row.waited_ns,
                young: false,
                stack_bytes: row.stack_bytes,
                orphan,
                channels: row.waits.iter().map(|wait| RemoteAddr(wait.channel)).filter(|c| c.0 != 0).collect(),
                period_ns: None,
            });
        }
        let memory = memory::of_runtime(&document.runtime.unwrap_or_default());
        let time = MonotonicNs(document.taken_to_ns.unwrap_or(1));
        Ok(Self {
            pid: document.pid,
            exe: document.exe,
            go_version: document.go_version,
            sample: Sample { time, sites: tally.finish(), whole: true, memory, lost: 0 },
            sites_of,
            incomplete: document.incomplete,
        })
    }
}

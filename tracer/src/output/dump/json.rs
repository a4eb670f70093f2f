//! A snapshot as one JSON object, written as it goes: a hundred thousand goroutines are not held as text.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::{View, state_name};
use crate::snapshot::{Goroutine, RuntimeStats, ShownFrame, StackEnd, StackState, Wait};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// What is said of the snapshot as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct Meta<'a> {
    /// The process; `None` for a core file.
    pub pid: Option<u32>,
    /// Its executable.
    pub exe: &'a str,
    /// The Go version that built it.
    pub go_version: &'a str,
    /// The runtime's own figures.
    pub runtime: Option<&'a RuntimeStats>,
}

#[derive(Serialize)]
struct Document<'r, 'v> {
    #[serde(flatten)]
    meta: &'r Meta<'r>,
    taken_from_ns: Option<MonotonicNs>,
    taken_to_ns: Option<MonotonicNs>,
    /// Why goroutines may be missing.
    incomplete: Option<String>,
    /// Goroutines that did not stand still.
    moved: usize,
    goroutines: Rows<'r, 'v>,
}

struct Rows<'r, 'v> {
    view: &'r View<'v>,
    goroutines: &'r [&'r Goroutine],
}

impl Serialize for Rows<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.goroutines.iter().map(|g| row(self.view, g)))
    }
}

#[derive(Serialize)]
struct Row<'a> {
    goid: Goid,
    state: &'static str,
    reason: Option<&'a str>,
    waited_ns: Option<u64>,
    /// The block was seen: `waited_ns` is exact. Else it is what the runtime noted, late by up to a cycle of its collector.
    waited_exact: bool,
    parent: Option<Goid>,
    locked: bool,
    system: bool,
    scan: bool,
    moved: bool,
    start: Option<&'a str>,
    created_by: Option<Site<'a>>,
    labels: Option<&'a [(String, String)]>,
    synctest_bubble: Option<u64>,
    waits: &'a [Wait],
    address: RemoteAddr,
    stack_bytes: u64,
    stack_used_bytes: Option<u64>,
    stack_end: Option<StackEnd>,
    /// Frames that were left out behind the 1,024th.
    frames_elided: u32,
    frames: Option<Vec<FrameRow<'a>>>,
}

#[derive(Serialize)]
struct Site<'a> {
    function: Cow<'a, str>,
    file: &'a str,
    line: u32,
}

#[derive(Serialize)]
struct FrameRow<'a> {
    function: Cow<'a, str>,
    file: &'a str,
    line: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inlined: bool,
    /// As Go prints them; only where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Cow<'static, str>>,
    pc: RemoteAddr,
}

fn row<'r>(view: &'r View<'_>, g: &'r Goroutine) -> Row<'r> {
    let stack = view.snapshot.stack(g);
    let frame = |f: &ShownFrame<'r>| FrameRow {
        function: f.function.clone(),
        file: f.file,
        line: f.line,
        inlined: f.inlined,
        arguments: view.snapshot.has_arguments().then(|| view.arguments(g, f)),
        pc: view.remote(f.pc),
    };
    Row {
        goid: g.goid,
        state: state_name(g.status),
        reason: view.reason(g),
        waited_ns: view.waited(g),
        waited_exact: g.wait_seen,
        parent: (g.parent.0 != 0).then_some(g.parent),
        locked: g.locked,
        system: g.system,
        scan: g.scan,
        moved: g.stack == StackState::Moved || g.moved,
        start: view.start_function(g),
        created_by: view.created_by(g).map(|by| Site { function: by.function, file: by.file, line: by.line }),
        labels: view.snapshot.labels(g),
        synctest_bubble: view.snapshot.bubble(g),
        waits: view.snapshot.waits(g),
        address: g.address,
        stack_bytes: g.stack_size(),
        stack_used_bytes: g.stack_used(),
        stack_end: stack.map(|stack| stack.end),
        frames_elided: stack.map_or(0, |stack| stack.elided),
        frames: view.frames(g).map(|named| named.0.iter().map(frame).collect()),
    }
}

/// Writes one JSON object and a line feed.
///
/// # Errors
///
/// If `out` fails.
pub fn write_json(out: &mut impl Write, view: &View<'_>, goroutines: &[&Goroutine], meta: &Meta<'_>) -> io::Result<()> {
    let document = Document {
        meta,
        taken_from_ns: view.snapshot.taken_from,
        taken_to_ns: view.snapshot.taken_to,
        incomplete: view.snapshot.incomplete.as_ref().map(ToString::to_string),
        moved: view.snapshot.moved(),
        goroutines: Rows { view, goroutines },
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

//! What was proven, for people and for programs.
//!
//! In: a [`Prover`]'s verdicts, and a snapshot for the stacks. Out: text that leads with the line that leaks, or one JSON object.
//! Prints nothing itself.

mod text;

use std::time::Duration;

use hashbrown::HashMap;
use serde::Serialize;

use super::dump::View;
use crate::proof::{Blocked, Figures, Leak, Retained, Site, Verdict, WaitedFor};
use crate::snapshot::Goroutine;
use crate::units::{Goid, RemoteAddr};

pub use text::{SITES, write_text};

/// What was proven of one process.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// The executable.
    pub name: String,
    /// The Go version that built it.
    pub go_version: String,
    /// Passes done.
    pub passes: u32,
    /// From the first to the end of the last.
    pub seconds: f64,
    /// Chose the order in which they read heap and stacks.
    pub seed: u64,
    /// Of the last pass.
    pub last_pass: Figures,
    /// Unreachable goroutines by `go` statement, those with the most first.
    pub sites: Vec<SiteReport>,
    /// Each of them, by goid.
    pub goroutines: Vec<LeakReport>,
}

/// How many goroutines have which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Seen unreachable in eight passes or more.
    pub confirmed: usize,
    /// In three or more.
    pub leaked: usize,
    /// In fewer.
    pub suspected: usize,
    /// Not to be decided.
    pub unknown: usize,
}

/// A `go` statement.
#[derive(Debug, Serialize)]
pub struct SiteReport {
    /// The function it stands in; its address where that has no name.
    pub function: String,
    /// The source file; empty where not known.
    pub file: String,
    /// The line; 0 where not known.
    pub line: u32,
    /// By verdict.
    pub counts: Counts,
    /// What they alone keep alive: an estimate.
    pub retained_estimate: Retained,
    /// One of them: its place in `goroutines`.
    pub example: Option<usize>,
}

/// An unreachable goroutine.
#[derive(Debug, Serialize)]
pub struct LeakReport {
    /// Its id.
    pub goid: Goid,
    /// What is to be said of it.
    pub verdict: Verdict,
    /// Passes in a row that found it unreachable.
    pub passes: u32,
    /// The runtime's wait reason.
    pub reason: String,
    /// What kind of thing it waits for.
    pub blocked: Blocked,
    /// What it waits for.
    pub waits_for: Vec<WaitedFor>,
    /// The function of its `go` statement.
    pub created_by: String,
    /// And where that is.
    pub created_at: String,
    /// Nanoseconds it has waited, as far as the runtime knows.
    pub waited_ns: Option<u64>,
    /// The frames of its stack that Go's traceback shows, innermost first.
    pub stack: Vec<FrameReport>,
}

/// A frame.
#[derive(Debug, Serialize)]
pub struct FrameReport {
    /// The function.
    pub function: String,
    /// The source file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// What the passes gave.
#[derive(Clone, Debug, Default)]
pub struct Proven {
    /// The goroutines that the last pass found unreachable.
    pub leaks: Vec<Leak>,
    /// By `go` statement.
    pub sites: Vec<Site>,
    /// Of the last pass.
    pub figures: Figures,
    /// How many there were.
    pub passes: u32,
    /// From the first to the end of the last.
    pub took: Duration,
    /// Chose the order in which they read heap and stacks.
    pub seed: u64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Confirmed => self.confirmed += 1,
            Verdict::Leaked => self.leaked += 1,
            Verdict::Suspected => self.suspected += 1,
            Verdict::Unknown => self.unknown += 1,
        }
    }

    /// Takes in those of another place.
    pub fn add_all(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.leaked += other.leaked;
        self.suspected += other.suspected;
        self.unknown += other.unknown;
    }

    /// Those that are proven.
    #[must_use]
    pub fn proven(self) -> usize {
        self.confirmed + self.leaked
    }

    /// All of them.
    #[must_use]
    pub fn all(self) -> usize {
        self.proven() + self.suspected + self.unknown
    }
}

impl Report {
    /// Puts names to what was proven. `view` is of a snapshot taken after the passes.
    #[must_use]
    pub fn new(pid: u32, name: &str, go_version: &str, proven: &Proven, view: &View<'_>) -> Self {
        let by_goid: HashMap<Goid, &Goroutine> = view.snapshot.goroutines.iter().map(|g| (g.goid, g)).collect();
        let mut counts: HashMap<RemoteAddr, (Counts, Option<usize>)> = HashMap::new();
        let mut goroutines = Vec::new();
        for leak in &proven.leaks {
            let (count, example) = counts.entry(leak.gopc).or_default();
            count.add(leak.verdict);
            // One that has gone since the last pass was none; it is left out, and its site's count says so.
            let Some(g) = by_goid.get(&leak.goid) else { continue };
            example.get_or_insert(goroutines.len());
            goroutines.push(leak_report(leak, g, view));
        }
        let site = |site: &Site| {
            let (counts, example) = counts.get(&site.gopc).copied().unwrap_or_default();
            let created = view.site(site.gopc);
            SiteReport {
                function: created.as_ref().map_or_else(|| site.gopc.to_string(), |c| c.function.to_string()),
                file: created.as_ref().map_or("", |c| c.file).to_owned(),
                line: created.as_ref().map_or(0, |c| c.line),
                counts,
                retained_estimate: site.retained.clone(),
                example,
            }
        };
        Self {
            pid,
            name: name.to_owned(),
            go_version: go_version.to_owned(),
            passes: proven.passes,
            seconds: proven.took.as_secs_f64(),
            seed: proven.seed,
            last_pass: proven.figures,
            sites: proven.sites.iter().map(site).collect(),
            goroutines,
        }
    }

    /// By verdict, of the whole process.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.goroutines.iter().for_each(|leak| sum.add(leak.verdict));
        sum
    }
}

fn leak_report(leak: &Leak, g: &Goroutine, view: &View<'_>) -> LeakReport {
    let created = view.site(leak.gopc);
    let frames = view.frames(g);
    let frame = |frame: &crate::snapshot::ShownFrame<'_>| FrameReport {
        function: frame.function.to_string(),
        file: frame.file.to_owned(),
        line: frame.line,
    };
    LeakReport {
        goid: leak.goid,
        verdict: leak.verdict,
        passes: leak.passes,
        reason: view.status(g).to_owned(),
        blocked: leak.blocked,
        waits_for: leak.waits_for.clone(),
        created_by: created.as_ref().map_or_else(|| leak.gopc.to_string(), |c| c.function.to_string()),
        created_at: created.map_or_else(String::new, |c| format!("{}:{}", c.file, c.line)),
        waited_ns: view.waited(g),
        stack: frames.iter().flat_map(|named| named.0.iter().map(frame)).collect(),
    }
}

//! A running gotracer, and what it has printed once it has ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::child::Running;
use crate::environment::gotracer;
use crate::tally::Place;

/// A gotracer that traces. Killed when dropped.
pub struct Gotracer {
    running: Running,
}

impl Gotracer {
    /// `gotracer trace --json --pid PID` and more arguments; back when all probes are attached.
    ///
    /// # Errors
    /// When it does not start to trace, with what it said.
    pub fn trace(pid: u32, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(gotracer()?);
        command.args(["trace", "--json", "--pid", &pid.to_string()]).args(args);
        Self::start(&mut command)
    }

    /// Starts a gotracer command, and waits until it traces.
    ///
    /// # Errors
    /// As [`Gotracer::trace`].
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut running = Running::start("gotracer", command)?;
        if let Err(error) = running.stderr.await_start("tracing") {
            let status = running.try_exit()?.map_or("still runs".into(), |status| status.to_string());
            bail!("gotracer did not begin to trace ({status}): {error:#}");
        }
        Ok(Self { running })
    }

    /// The process.
    pub fn child(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Ctrl-C, and all that it printed.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(self) -> Result<Trace> {
        self.running.signal(libc::SIGINT)?;
        self.finish()
    }

    /// Waits until it ends by itself, and gives all that it printed.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn finish(mut self) -> Result<Trace> {
        let lines = self.running.stdout.to_end()?;
        let status = self.running.await_exit()?;
        let said = self.running.stderr.to_end()?;
        ensure!(status.success(), "gotracer ended with {status}:\n{}", said.join("\n"));
        Trace::parse(lines, said)
    }

    /// Ctrl-C, where it prints to a file (`--output`).
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop_with_file(mut self) -> Result<()> {
        self.running.signal(libc::SIGINT)?;
        let status = self.running.await_exit()?;
        ensure!(status.success(), "gotracer ended with {status}:\n{}", self.running.stderr.to_end()?.join("\n"));
        Ok(())
    }

    /// Runs gotracer to its end, where it is not to trace.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn refuse(args: &[&str]) -> Result<Refusal> {
        Refusal::of(Command::new(gotracer()?).args(args))
    }
}

/// How a gotracer ended that was given something that it must refuse.
#[derive(Debug)]
pub struct Refusal {
    /// Its end.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: Vec<String>,
    /// Its stderr.
    pub stderr: Vec<String>,
}

impl Refusal {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let mut running = Running::start("gotracer", command)?;
        // A program that is run after all finds its test gone, and ends.
        running.close_stdin();
        Self::end(running)
    }

    /// Waits for the end of a gotracer that runs.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut running: Running) -> Result<Self> {
        let (stdout, stderr) = (running.stdout.to_end()?, running.stderr.to_end()?);
        Ok(Self { status: running.await_exit()?, stdout, stderr })
    }
}

/// One line of `--json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// created, blocked, running, exited, lost, exec.
    pub event: String,
    /// The goroutine, where it is about one.
    pub goid: Option<u64>,
    /// When, on CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Of created: the goroutine that ran the `go` statement.
    pub parent: Option<u64>,
    /// Of created: the `go` statement.
    pub site: Option<Place>,
    /// Of created: the function that runs.
    pub start: Option<String>,
    /// Of blocked: the runtime's wait reason.
    pub reason: Option<String>,
}

/// What was counted at one `go` statement.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct SiteCounts {
    /// Goroutines started.
    pub created: u64,
    /// Goroutines ended.
    pub exited: u64,
    /// Goroutines left.
    pub live: u64,
    /// Parks.
    pub blocked: u64,
}

/// The summary's totals; see [`Trace::sites`] for the sites.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Goroutines started while it traced.
    pub created: u64,
    /// Goroutines ended.
    pub exited: u64,
    /// Parks.
    pub blocked: u64,
    /// Times a goroutine was put on a processor.
    pub running: u64,
    /// Goroutines that it knows of and that have not ended, without the runtime's own.
    pub live: u64,
    /// The runtime's own goroutines.
    pub system: u64,
    /// Events that were lost.
    pub lost: u64,
    /// Events that stand behind later ones.
    pub late: u64,
    sites: Vec<SummarySite>,
}

#[derive(Clone, Debug, Deserialize)]
struct SummarySite {
    site: Option<Place>,
    #[serde(flatten)]
    counts: SiteCounts,
}

/// All that a gotracer printed.
pub struct Trace {
    /// The lines before the last.
    pub events: Vec<Event>,
    /// The last line.
    pub summary: Summary,
    /// Its stderr.
    pub said: Vec<String>,
}

impl Trace {
    /// Reads the file of `gotracer run --json --output FILE`.
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(text.lines().map(str::to_owned).collect(), Vec::new())
    }

    fn parse(mut lines: Vec<String>, said: Vec<String>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Last {
            summary: Summary,
        }
        let last = lines.pop().with_context(|| format!("gotracer printed nothing, but said\n{}", said.join("\n")))?;
        let Last { summary } = serde_json::from_str(&last).with_context(|| format!("no summary: {last}"))?;
        let events: Result<Vec<Event>> =
            lines.iter().map(|line| serde_json::from_str(line).with_context(|| format!("no event: {line}"))).collect();
        Ok(Self { events: events?, summary, said })
    }

    /// The counts of each `go` statement, whatever functions it starts.
    pub fn sites(&self) -> BTreeMap<Place, SiteCounts> {
        let mut sites: BTreeMap<Place, SiteCounts> = BTreeMap::new();
        for row in &self.summary.sites {
            let Some(place) = &row.site else { continue };
            let sum = sites.entry(place.clone()).or_default();
            sum.created += row.counts.created;
            sum.exited += row.counts.exited;
            sum.live += row.counts.live;
            sum.blocked += row.counts.blocked;
        }
        sites
    }

    /// The events of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.event == kind)
    }
}

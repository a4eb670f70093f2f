//! A gotracer that records, and what it has recorded.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::gotracer;
use gotracer_tests::{Program, Tally, Trace};
use serde_json::Value;

/// A gotracer that records. Killed when dropped.
pub(crate) struct Recorder {
    running: Running,
}

/// How a gotracer that recorded has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: Vec<String>,
}

impl Recorder {
    /// Records to `file`; back when all probes are attached.
    pub(crate) fn start(pid: u32, file: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(gotracer()?);
        command.args(["record", "--pid", &pid.to_string(), "-o"]).arg(file).args(args);
        let mut running = Running::start("gotracer", &mut command)?;
        running.stderr.await_start("recording process").context("gotracer did not begin to record")?;
        Ok(Self { running })
    }

    pub(crate) fn child(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Ctrl-C, and waits for its end.
    pub(crate) fn stop(self) -> Result<Ended> {
        self.running.signal(libc::SIGINT)?;
        self.finish()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Ended> {
        let said = self.running.stderr.to_end()?;
        Ok(Ended { code: self.running.await_exit()?.code(), said })
    }
}

impl Ended {
    pub(crate) fn well(self) -> Result<Self> {
        ensure!(self.code == Some(0), "gotracer ended with {:?}:\n{}", self.code, self.said.join("\n"));
        Ok(self)
    }
}

/// Records all that a program does once it is told to go; gives its tally.
pub(crate) fn recorded_whole(mut program: Program, file: &Path) -> Result<Tally> {
    let recorder = Recorder::start(program.pid(), file, &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    recorder.stop()?.well()?;
    program.quit_in_peace()?;
    Ok(tally)
}

/// Runs a gotracer command to its end.
pub(crate) fn run(args: &[&str]) -> Result<Output> {
    Ok(Command::new(gotracer()?).args(args).output()?)
}

/// Runs a gotracer command that must succeed; its stdout.
pub(crate) fn output(args: &[&str]) -> Result<String> {
    let output = run(args)?;
    if !output.status.success() {
        bail!("gotracer {args:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// `gotracer convert`; the new file beside the old one.
pub(crate) fn convert(file: &Path, extension: &str) -> Result<PathBuf> {
    let to = file.with_extension(extension);
    output(&["convert", &text(file), &text(&to), "--force"])?;
    Ok(to)
}

/// `gotracer report --json`.
pub(crate) fn report(file: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&output(&["report", "--json", &text(file)])?)?)
}

/// The recording as a trace: its events, and what a report counts in it.
pub(crate) fn trace(file: &Path) -> Result<Trace> {
    let lines = convert(file, "events.jsonl")?;
    let events = std::fs::read_to_string(&lines)?;
    let mut all: String =
        events.lines().filter(|line| line.starts_with("{\"event\"")).map(|line| format!("{line}\n")).collect();
    let report = report(file)?;
    let mut summary = report["totals"].clone();
    summary["sites"] = report["sites"].clone();
    all += &serde_json::json!({ "summary": summary }).to_string();
    let joined = file.with_extension("trace.jsonl");
    std::fs::write(&joined, all)?;
    Trace::read(&joined)
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A number in a report.
pub(crate) fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no count"))
}

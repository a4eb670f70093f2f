//! Is what was recorded all that happened, whoever reads it, and whatever becomes of who wrote it?

mod failures;
mod levels;
mod readers;
pub(crate) mod recording;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::executables::Folder;
use crate::trial;
use recording::Recorder;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("record::counts::go{version}"), move || counts(version)))
        .collect();
    let over_exec = |&version| trial(format!("record::over_exec::go{version}"), move || over_exec(version));
    trials.extend(GO_VERSIONS.iter().map(over_exec));
    trials.extend(levels::trials());
    trials.extend(readers::trials());
    trials.extend(failures::trials());
    trials
}

/// The process becomes a new run of its program while it is recorded: both are in the recording, each with its own goroutines,
/// however often it is converted.
fn over_exec(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("record-exec")?;
    let file = folder.path("exec.gtr");
    let mut program = Program::start(&Program::find(version, "plain", "forkexec")?, &["-mode", "reexec", "-n", "20"])?;
    let mut recorder = Recorder::start(program.pid(), &file, &[])?;
    program.send("go")?;
    let before = program.tally()?;
    program.send("exec")?;
    program.await_line("READY")?;
    // It says again that it records when it has attached to what the process runs now: what comes after it is seen.
    recorder.child().stderr.await_start("recording process")?;
    program.send("go")?;
    let after = program.tally()?;
    recorder.stop()?.well()?;
    program.quit_in_peace()?;

    let lines = recording::convert(&file, "jsonl")?;
    let back = recording::convert(&lines, "back.gtr")?;
    let place = &before.sites.first().context("no site")?.site;
    let mut findings = Findings::default();
    findings.equal("site after and before", &after.sites.first().context("no site")?.site, place);
    for form in [&file, &lines, &back] {
        let name = form.display();
        let report = recording::report(form)?;
        findings.equal(format!("{name}: programs"), report["programs"].as_array().map(Vec::len), Some(2));
        findings.equal(format!("{name}: lost"), report["totals"]["lost"].as_u64(), Some(0));
        // A row for each run, for their addresses are not the same.
        let mut rows = Vec::new();
        for row in report["sites"].as_array().into_iter().flatten() {
            if (&row["site"]["function"], &row["site"]["line"]) == (&place.function.as_str().into(), &place.line.into())
            {
                rows.push((recording::number(&row["created"])?, recording::number(&row["exited"])?));
            }
        }
        rows.sort_unstable();
        let mut runs = [(before.created, before.exited), (after.created, after.exited)];
        runs.sort_unstable();
        findings.equal(format!("{name}: created, exited of each run"), rows, runs.to_vec());
    }
    let trace = recording::trace(&file)?;
    findings.equal("exec events", trace.of_kind("exec").count(), 1);
    findings.report(&trace)
}

pub(crate) fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

/// Each goroutine of the tally, event by event, out of a .gtr file: the same as out of a trace.
fn counts(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("record-counts")?;
    let file = folder.path("tally.gtr");
    let mut program = Program::start(&Program::find(version, "stripped", "tally")?, &[])?;
    let recorder = Recorder::start(program.pid(), &file, &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    let ended = recorder.stop()?.well()?;
    program.quit_in_peace()?;
    ensure!(ended.said.iter().any(|line| line.contains("0 events lost")), "{:?}", ended.said);
    let trace = recording::trace(&file)?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.report(&trace)?;
    // Those who wait at the end were read where they wait, in the program's own words.
    let report = recording::report(&file)?;
    let waits = report["waits"].as_array().context("no waits")?;
    for (function, workers) in [("main.emptySelect", 8), ("main.nilChannel", 8)] {
        let of_site = |wait: &&serde_json::Value| {
            wait["site"]["function"].as_str().is_some_and(|name| name.starts_with(function)) && wait["waiting"] != 0
        };
        let found: Vec<_> = waits.iter().filter(of_site).collect();
        let waiting: u64 = found.iter().filter_map(|wait| wait["waiting"].as_u64()).sum();
        ensure!(waiting == workers, "{waiting} wait at {function}, not {workers}: {found:?}");
        ensure!(
            found.iter().all(|wait| wait["known"] == "seen" && wait["stack"][0]["function"] == "runtime.gopark"),
            "their stacks were not read: {found:?}"
        );
    }
    Ok(())
}

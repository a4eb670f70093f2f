//! Is what was recorded all that happened, whoever reads it, and whatever becomes of who wrote it?

mod failures;
mod readers;
mod recording;

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
    trials.extend(readers::trials());
    trials.extend(failures::trials());
    trials
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

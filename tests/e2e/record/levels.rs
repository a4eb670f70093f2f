//! Is a recording with less than every event marked so, and right in what it has?

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;

use super::newest;
use super::recording::{self, Recorder, text};
use crate::check::Findings;
use crate::executables::Folder;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("record::states::go{version}"), move || births_and_ends(version, "states")))
        .collect();
    trials.push(trial("record::lifecycle", || births_and_ends(newest()?, "lifecycle")));
    trials.push(trial("record::budget", budget));
    trials
}

/// Births and ends are exact, site by site; of parks nothing is said, and it is said why.
fn births_and_ends(version: &str, level: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new(&format!("record-{level}"))?;
    let file = folder.path("level.gtr");
    let mut program = Program::start(&Program::find(version, "plain", "tally")?, &[])?;
    let recorder = Recorder::start(program.pid(), &file, &["--detail", level])?;
    program.send("go")?;
    let tally = program.tally()?;
    recorder.stop()?.well()?;
    program.quit_in_peace()?;

    let trace = recording::trace(&file)?;
    let lines = recording::convert(&file, "jsonl")?;
    let back = recording::convert(&lines, "back.gtr")?;
    let mut findings = Findings::default();
    for form in [&file, &lines, &back] {
        let (name, report) = (form.display(), recording::report(form)?);
        findings.equal(format!("{name}: detail"), report["recording"]["detail"].as_str(), Some(level));
        let worth = (report["quality"]["lives"].as_str(), report["quality"]["states"].as_str());
        findings.equal(format!("{name}: worth"), worth, (Some("exact"), Some("snapshot")));
        let totals = &report["totals"];
        let counts = ["created", "exited", "blocked", "running", "lost"].map(|count| totals[count].as_u64());
        let told = [tally.created, tally.exited, 0, 0, 0].map(Some);
        findings.equal(format!("{name}: created, exited, blocked, running, lost"), counts, told);
        findings.equal(format!("{name}: events"), totals["events"].as_u64(), Some(tally.created + tally.exited));
        findings.equal(format!("{name}: events as its end says"), &report["end"]["events"], &totals["events"]);
        let said = recording::output(&["report", &text(form)])?;
        findings.holds(
            format!("{name} is not said to lack parks:\n{said}"),
            said.contains(&format!("recorded with detail {level}: not every park")) && !said.contains(" 0 blocked"),
        );
    }
    let sites = trace.sites();
    for told in &tally.sites {
        let seen = sites.get(&told.site).with_context(|| format!("no row for {:?}", told.site))?;
        let seen = (seen.created, seen.exited, seen.live);
        let told_counts = (told.created, told.exited, told.created - told.exited);
        findings.equal(format!("{:?}: created, exited, live", told.site), seen, told_counts);
    }
    findings.report(&trace)
}

/// Under a budget detail changes, and the recording says when.
fn budget() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("record-budget")?;
    let file = folder.path("budget.gtr");
    let mut program = Program::start(&Program::find(newest()?, "plain", "surge")?, &["-seconds", "1"])?;
    let recorder = Recorder::start(program.pid(), &file, &["--max-overhead", "2%"])?;
    program.send("go")?;
    // A quiet program is told of in full, once that is known to fit.
    let levels = |report: &serde_json::Value| -> Vec<String> {
        let each = report["details"].as_array().into_iter().flatten();
        each.filter_map(|detail| detail["level"].as_str().map(str::to_owned)).collect()
    };
    poll(|| {
        let report = recording::report(&file).ok();
        Ok(report.filter(|report| levels(report).iter().any(|level| level == "events")).map(|_| ()))
    })
    .context("every event of a quiet program would have fitted the budget")?;
    recorder.stop()?.well()?;
    program.send("surge")?;
    program.tally()?;
    program.quit_in_peace()?;
    let report = recording::report(&file)?;
    ensure!(report["recording"]["detail"] != "events", "it began with {}", report["recording"]["detail"]);
    ensure!(levels(&report).last().is_some_and(|level| level == "events"), "{:?}", levels(&report));
    ensure!(report["quality"]["states"] == "snapshot", "{}", report["quality"]);
    let lines = recording::convert(&file, "jsonl")?;
    ensure!(levels(&recording::report(&lines)?) == levels(&report), "converting has changed the levels");
    Ok(())
}

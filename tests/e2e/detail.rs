//! Is what is told at each level of detail right, and does a budget hold?

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program, Tally, Trace};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::check::{self, Findings};
use crate::executables::Folder;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        trials.push(trial(format!("detail::states::go{version}"), move || states(version)));
        trials.push(trial(format!("detail::states_of_coroutines::go{version}"), move || coroutines(version)));
        trials.push(trial(format!("detail::lifecycle::go{version}"), move || lifecycle(version)));
    }
    if let Some(&newest) = GO_VERSIONS.last() {
        trials.push(trial(format!("detail::states_in_a_storm::go{newest}"), move || storm(newest)));
        // Without a version in its name, by which tests are chosen for virtual machines: where a trap takes fifty times as
        // long, no budget leaves room for births.
        trials.push(trial("detail::budget", move || budget(newest)));
        trials.push(trial("detail::budget_of_a_busy_server", move || busy_server(newest)));
    }
    trials
}

fn traced(version: &str, name: &str, arguments: &[&str]) -> Result<(Trace, Tally)> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", name)?, &[])?;
    let tracer = Gotracer::trace(program.pid(), arguments)?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    Ok((trace, tally))
}

/// Parks are counted in the kernel, by site, and none is missing; births and ends are events, and nothing else is.
fn states(version: &str) -> Result<()> {
    let (trace, tally) = traced(version, "tally", &["--detail", "states"])?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.equal("created events", trace.of_kind("created").count() as u64, tally.created);
    findings.equal("exited events", trace.of_kind("exited").count() as u64, tally.exited);
    findings.equal("other events", trace.of_kind("blocked").count() + trace.of_kind("running").count(), 0);
    findings.report(&trace)
}

/// A million births and ends, each of which begins and ends a record in the kernel, on gs that are used again and again.
fn storm(version: &str) -> Result<()> {
    // The events are counted but not printed.
    let (trace, tally) = traced(version, "storm", &["--detail", "states", "--only", "exec"])?;
    ensure!(tally.created > 990_000, "the program started only {} goroutines", tally.created);
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)
}

/// Coroutines park and run at other places than goroutines do.
fn coroutines(version: &str) -> Result<()> {
    let (kept, tally) = traced(version, "coroutines", &["--detail", "states"])?;
    let mut findings = Findings::default();
    check::totals(&mut findings, &kept, &tally);
    findings.equal("events lost", kept.summary.lost, 0);
    if !tally.unsupported {
        findings.holds("no park was counted", kept.summary.blocked > 0);
    }
    findings.report(&kept)
}

/// Births and ends are exact, and states are those that the process's memory shows.
fn lifecycle(version: &str) -> Result<()> {
    let (trace, tally) = traced(version, "tally", &["--detail", "lifecycle"])?;
    let mut findings = Findings::default();
    check::totals(&mut findings, &trace, &tally);
    findings.equal("events lost", trace.summary.lost, 0);
    findings.equal("parks", trace.summary.blocked, 0);
    let sites = trace.sites();
    for told in &tally.sites {
        let seen = sites.get(&told.site).cloned().unwrap_or_default();
        let (seen, told_counts) =
            ((seen.created, seen.exited, seen.live), (told.created, told.exited, told.created - told.exited));
        findings.equal(format!("{:?}: created, exited, live", told.site), seen, told_counts);
    }
    findings.report(&trace)
}

/// A load that rises ten thousandfold at once: what tracing costs is above the budget for two periods at most, births and
/// ends are exact all the time, and the table has the right goroutines in the end.
fn budget(version: &str) -> Result<()> {
    const BUDGET: f64 = 0.02;
    require_root_and_bpf()?;
    let folder = Folder::new("budget")?;
    let file = folder.path("trace.jsonl");
    let mut program = Program::start(&Program::find(version, "plain", "surge")?, &["-seconds", "6"])?;
    let output = file.to_string_lossy().into_owned();
    let arguments = ["--max-overhead", "2%", "--output", &output];
    let tracer = Gotracer::trace(program.pid(), &arguments)?;
    program.send("go")?;
    // A quiet program is told of in full, once that is known to fit.
    poll(|| Ok(fs::read_to_string(&file)?.contains(r#""to":{"level":"events"}"#).then_some(())))
        .context("every event of a quiet program would have fitted the budget")?;
    program.send("surge")?;
    let tally = program.tally()?;
    tracer.stop_with_file()?;
    program.quit_in_peace()?;

    let trace = Trace::read(&file)?;
    let lines: Vec<Value> = fs::read_to_string(&file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut findings = Findings::default();
    check::totals(&mut findings, &trace, &tally);
    check::sites(&mut findings, &trace, &tally);
    let of_kind = |kind: &'static str| lines.iter().filter(move |line| line["event"] == kind);
    let mut over = 0;
    for line in of_kind("overhead") {
        let figure = |name: &str| line[name].as_f64().with_context(|| format!("no {name} in {line}"));
        // Below a twentieth of a CPU, a budget is a share of that.
        let cpus = figure("target_cpus")?;
        let share = figure("of_target")? * cpus / cpus.max(0.05);
        over = if share > BUDGET { over + 1 } else { 0 };
        findings.holds(format!("above the budget for {over} periods: {line}"), over <= 2);
    }
    let levels: Vec<&str> = of_kind("detail").filter_map(|line| line["to"]["level"].as_str()).collect();
    findings.holds(format!("detail was not given up: {levels:?}"), levels.last() == Some(&"sliced_states"));
    let Some(summary) = lines.last().map(|line| &line["summary"]) else { bail!("no summary") };
    findings.equal("worth of lives", summary["quality"]["lives"].as_str(), Some("exact"));
    findings.equal("worth of states", summary["quality"]["states"].as_str(), Some("estimated"));
    let mean = summary["overhead"].as_f64().context("no overhead in the summary")?;
    ensure!(mean > 0.0, "tracing is said to have cost nothing");
    findings.report(&trace)
}

/// A server whose births alone are too dear is known to be one before anything is attached, and stays so: goroutines that no
/// snapshot meets are counted, too.
fn busy_server(version: &str) -> Result<()> {
    const PERIODS: usize = 6;
    require_root_and_bpf()?;
    let folder = Folder::new("busy-server")?;
    let file = folder.path("trace.jsonl");
    let mut program = Program::start(&Program::find(version, "plain", "httpload")?, &[])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let output = file.to_string_lossy().into_owned();
    let tracer = Gotracer::trace(program.pid(), &["--max-overhead", "0.2%", "--output", &output])?;
    let periods = || Ok::<_, anyhow::Error>(fs::read_to_string(&file)?.matches(r#""event":"overhead""#).count());
    poll(|| Ok((periods()? >= PERIODS).then_some(())))?;
    tracer.stop_with_file()?;
    program.send("stop")?;
    let tally = program.tally()?;
    program.quit_in_peace()?;
    ensure!(tally.requests > 10_000, "only {} requests: this was no load", tally.requests);

    let lines: Vec<Value> = fs::read_to_string(&file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let changes: Vec<&Value> = lines.iter().filter(|line| line["event"] == "detail").collect();
    ensure!(changes.is_empty(), "detail was raised: {changes:?}");
    let Some(summary) = lines.last().map(|line| &line["summary"]) else { bail!("no summary") };
    let levels: Vec<Option<&str>> =
        summary["levels"].as_array().into_iter().flatten().map(|level| level["level"].as_str()).collect();
    ensure!(levels == [Some("snapshots")], "levels {levels:?}");
    ensure!(summary["overhead"] == 0.0 && summary["created"] == 0, "something was attached: {summary}");
    let made = summary["made"].as_u64().context("the runtime's own count is not told")?;
    // Two goroutines a request, net/http's and its own; the trace saw a part of the requests.
    ensure!((5_000..=2 * tally.requests + 1_000).contains(&made), "{made} made, {} requests", tally.requests);
    ensure!(summary["first_seen"].as_u64() > Some(8), "the snapshots saw nobody: {summary}");
    Ok(())
}

//! Are children of the target, and what the target becomes, kept apart from what it was?

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        trials.push(trial(format!("exec::children_of_the_same_binary::go{version}"), move || children(version)));
        trials.push(trial(format!("exec::over_itself::go{version}"), move || over_itself(version)));
    }
    trials
}

/// The children run the same file and so hit the same breakpoints: none of their goroutines may be counted.
fn children(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "forkexec")?, &[])?;
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    ensure!(tally.started_by_children > 0, "no child started goroutines");

    let mut findings = Findings::default();
    check::sites(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.report(&trace)
}

/// The same process becomes a new run of the same file, with goroutine numbers that begin again.
fn over_itself(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "forkexec")?, &["-mode", "reexec", "-n", "20"])?;
    let mut tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let before = program.tally()?;
    program.send("exec")?;
    program.await_line("READY")?;
    // It says again that it traces when it has attached to what the process runs now: what comes after it is seen.
    tracer.child().stderr.await_start("tracing")?;
    program.send("go")?;
    let after = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;

    let mut findings = Findings::default();
    findings.equal("events lost", trace.summary.lost, 0);
    findings.equal("exec events", trace.of_kind("exec").count(), 1);
    let place = &before.sites.first().context("no site")?.site;
    findings.equal("site after and before", &after.sites.first().context("no site")?.site, place);
    let counts = trace.sites().remove(place).unwrap_or_default();
    findings.equal("created by both runs", counts.created, before.created + after.created);
    findings.equal("exited in both runs", counts.exited, before.exited + after.exited);
    findings.report(&trace)
}

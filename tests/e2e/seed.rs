//! Is the table complete from the first second: goroutines older than the probes in it, none twice?

use anyhow::{Context as _, Result};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::check::Findings;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("seed::while_busy::go{version}"), move || while_busy(version)))
        .collect();
    trials.push(trial("seed::at_rest", at_rest));
    trials.push(trial("seed::after_a_loss", after_a_loss));
    trials
}

/// Nothing happens while we look: all that is known comes from the process's memory.
fn at_rest() -> Result<()> {
    require_root_and_bpf()?;
    let newest = GO_VERSIONS.last().copied().context("no Go versions")?;
    let mut program = Program::start(&Program::find(newest, "plain", "idle")?, &["-n", "1000"])?;
    let trace = Gotracer::trace(program.pid(), &["--for", "500ms"])?.finish()?;
    program.send("go")?;
    let tally = program.tally()?;
    program.quit_in_peace()?;

    let mut findings = Findings::default();
    findings.equal("events lost", trace.summary.lost, 0);
    findings.equal("goroutines created", trace.summary.created, 0);
    // Main and the HTTP server's accept loop beside those of the tally.
    findings.equal("live goroutines", trace.summary.live, tally.created + 2);
    let site = &tally.sites.first().context("no site")?.site;
    let seen = trace.sites().remove(site).unwrap_or_default();
    findings.equal("live at the site", seen.live, tally.created);
    findings.report(&trace)
}

/// The same goroutines are read from memory and seen in events, over and over: none may count twice.
fn while_busy(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    const PAIRS: u64 = 50;
    let pairs = PAIRS.to_string();
    let mut program = Program::start(&Program::find(version, "plain", "pingpong")?, &["-pairs", &pairs])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let trace = Gotracer::trace(program.pid(), &["--only", "exec", "--for", "700ms"])?.finish()?;
    program.send("stop")?;
    let tally = program.tally()?;
    program.quit_in_peace()?;

    let mut findings = Findings::default();
    findings.equal("events lost", trace.summary.lost, 0);
    findings.equal("goroutines of the tally", tally.created, 2 * PAIRS);
    // And main.
    findings.equal("live goroutines", trace.summary.live, 2 * PAIRS + 1);
    findings.equal("goroutines created", trace.summary.created, 0);
    findings.report(&trace)
}

/// gotracer is stopped while a million goroutines come and go: most events are lost. Once it goes on it must say how many
/// and, with the goroutines read anew, hold no ghost of those whose end it has missed.
fn after_a_loss() -> Result<()> {
    require_root_and_bpf()?;
    let newest = GO_VERSIONS.last().copied().context("no Go versions")?;
    let mut program = Program::start(&Program::find(newest, "plain", "storm")?, &[])?;
    let mut tracer = Gotracer::trace(program.pid(), &["--only", "exec"])?;
    tracer.child().signal(libc::SIGSTOP)?;
    program.send("go")?;
    let tally = program.tally()?;
    tracer.child().signal(libc::SIGCONT)?;
    tracer.child().stderr.await_start("repaired after lost events")?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;

    let summary = &trace.summary;
    let mut findings = Findings::default();
    findings.holds("nothing was lost: the test tests nothing", summary.lost > 0);
    findings.holds("more was seen than there was", summary.created <= tally.created);
    // A goroutine of the storm has three events: its creation, its first run, its end.
    let told = summary.created + summary.exited + summary.running + summary.blocked + summary.lost;
    findings.holds(format!("{told} events seen and lost are too few"), told >= 3 * tally.created);
    // Only main is left.
    findings.equal("live goroutines", summary.live, 1);
    findings.report(&trace)
}

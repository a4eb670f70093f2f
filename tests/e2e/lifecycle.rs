//! Are the uncommon lives seen right: a million short ones, stacks that grow under the probes, every way to end,
//! coroutines, goroutines wired to threads?

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program, Tally, Trace};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        trials.push(trial(format!("lifecycle::storm::go{version}"), move || storm(version)));
        trials.push(trial(format!("lifecycle::deepstack::go{version}"), move || each_event_once(version, "deepstack")));
        trials
            .push(trial(format!("lifecycle::lockthread::go{version}"), move || each_event_once(version, "lockthread")));
        trials.push(trial(format!("lifecycle::goexit::go{version}"), move || goexit(version)));
        trials.push(trial(format!("lifecycle::main_by_goexit::go{version}"), move || main_by_goexit(version)));
        trials.push(trial(format!("lifecycle::panic_ends_program::go{version}"), move || panic_ends_program(version)));
        trials.push(trial(format!("lifecycle::coroutines::go{version}"), move || coroutines(version)));
    }
    trials
}

/// Traces the program's work from `go` to its tally.
fn traced(version: &str, name: &str, program_args: &[&str], tracer_args: &[&str]) -> Result<(Trace, Tally)> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", name)?, program_args)?;
    let tracer = Gotracer::trace(program.pid(), tracer_args)?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    Ok((trace, tally))
}

/// The events are counted but not printed: there are three million of them.
const ONLY_EXEC: &[&str] = &["--only", "exec"];

fn storm(version: &str) -> Result<()> {
    let (trace, tally) = traced(version, "storm", &[], ONLY_EXEC)?;
    ensure!(tally.created > 990_000, "the program started only {} goroutines", tally.created);
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)
}

fn each_event_once(version: &str, name: &str) -> Result<()> {
    let (trace, tally) = traced(version, name, &[], &[])?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    // The sites of deepstack's children tell one parent of many.
    if name != "deepstack" {
        check::events(&mut findings, &trace, &tally);
    }
    findings.report(&trace)
}

fn goexit(version: &str) -> Result<()> {
    let (trace, tally) = traced(version, "goexit", &[], &[])?;
    let mut findings = Findings::default();
    check::totals(&mut findings, &trace, &tally);
    // A runtime.Gosched and a recovered panic are no parks.
    check::sites(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.report(&trace)
}

fn main_by_goexit(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "goexit")?, &["-mode", "main"])?;
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    // Main ends beside the goroutine that tells, before or after it has told: its end is awaited where it is seen.
    program.send("quit")?;
    program.child().await_exit()?;
    let trace = tracer.finish()?;
    let mut findings = Findings::default();
    check::totals(&mut findings, &trace, &tally);
    findings.equal("ends of main", trace.of_kind("exited").filter(|event| event.goid == Some(1)).count(), 1);
    findings.report(&trace)
}

/// A panic that nobody recovers: gotracer ends as the program does, with all that was counted until then.
fn panic_ends_program(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "goexit")?, &["-mode", "panic"])?;
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    let status = program.quit()?;
    ensure!(status.code() == Some(2), "the program was to end by its panic, but {status}");
    let trace = tracer.finish()?;
    let mut findings = Findings::default();
    check::sites(&mut findings, &trace, &tally);
    findings.report(&trace)
}

fn coroutines(version: &str) -> Result<()> {
    let (trace, tally) = traced(version, "coroutines", &[], &[])?;
    if tally.unsupported {
        // Not a skip: this is all there is to see in a version without package iter.
        ensure!(version_minor(version)? < 23, "Go {version} has package iter");
        return Ok(());
    }
    let mut findings = Findings::default();
    check::totals(&mut findings, &trace, &tally);
    findings.equal("events lost", trace.summary.lost, 0);
    let by_function = |function: &str| -> (u64, u64) {
        let sites = trace.sites();
        let of_function = sites.iter().filter(|(place, _)| place.function.starts_with(function));
        of_function.fold((0, 0), |sum, (_, counts)| (sum.0 + counts.created, sum.1 + counts.exited))
    };
    for told in &tally.sites {
        // Generic functions' names carry their type arguments in brackets, where they do.
        let function = told.site.function.split('[').next().unwrap_or_default();
        findings.equal(function, by_function(function), (told.created, told.exited));
    }
    findings.report(&trace)
}

fn version_minor(version: &str) -> Result<u32> {
    let minor = version.split('.').nth(1).with_context(|| format!("{version:?} has no minor version"))?;
    Ok(minor.parse()?)
}

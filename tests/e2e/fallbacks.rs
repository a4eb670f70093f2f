//! Is all as right where the kernel lacks what gotracer would rather use? Each feature is left out in turn; what is gotracer's
//! second choice counts as exactly as the first.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::{gotracer, require_root_and_bpf};
use gotracer_tests::{GO_VERSIONS, Gotracer, Program, Tally, Trace};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let Some(&newest) = GO_VERSIONS.last() else { return Vec::new() };
    vec![
        trial(format!("fallbacks::perf_buffers::go{newest}"), move || perf_buffers(newest)),
        trial(format!("fallbacks::records_one_by_one::go{newest}"), move || records_one_by_one(newest)),
        trial(format!("fallbacks::probes_one_by_one::go{newest}"), move || probes_one_by_one(newest)),
        trial(format!("fallbacks::traps_for_nops::go{newest}"), move || traps_for_nops(newest)),
    ]
}

fn without(feature: &str) -> Result<Command> {
    let mut command = Command::new(gotracer()?);
    command.env("GOTRACER_WITHOUT", feature);
    Ok(command)
}

fn traced_without(feature: &str, version: &str, arguments: &[&str]) -> Result<(Trace, Tally)> {
    let (trace, tally, ()) = looked_at_without(feature, version, arguments, |_| Ok(()))?;
    Ok((trace, tally))
}

/// The same, with a look at gotracer while it traces.
fn looked_at_without<T>(
    feature: &str,
    version: &str,
    arguments: &[&str],
    look: impl FnOnce(&mut Gotracer) -> Result<T>,
) -> Result<(Trace, Tally, T)> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "tally")?, &[])?;
    let pid = program.pid().to_string();
    let mut tracer = Gotracer::start(without(feature)?.args(["trace", "--json", "--pid", &pid]).args(arguments))?;
    let seen = look(&mut tracer)?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    Ok((trace, tally, seen))
}

/// Events by perf buffers instead of mapped rings.
fn perf_buffers(version: &str) -> Result<()> {
    let (trace, tally) = traced_without("mapped rings", version, &[])?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.report(&trace)
}

/// What the kernel keeps, read by two system calls a goroutine instead of in batches.
fn records_one_by_one(version: &str) -> Result<()> {
    let (trace, tally) = traced_without("batch lookup", version, &["--detail", "states"])?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)
}

/// Probes by perf events instead of multi-uprobe links. Which of the two it is, the kernel tells of gotracer's descriptors.
fn probes_one_by_one(version: &str) -> Result<()> {
    let links = |without: &str| -> Result<usize> {
        let (trace, tally, links) = looked_at_without(without, version, &[], links_of)?;
        let mut findings = Findings::default();
        check::counts(&mut findings, &trace, &tally);
        check::events(&mut findings, &trace, &tally);
        findings.report(&trace)?;
        Ok(links)
    };
    ensure!(links("multi-uprobe links")? == 0, "links without the feature");
    let doctor = Gotracer::refuse(&["doctor", "--json"])?;
    let report: Value = serde_json::from_str(&doctor.stdout.join("\n"))?;
    let features = report["features"].as_array().context("no features")?;
    let feature = features.iter().find(|feature| feature["feature"] == "uprobe_multi").context("no such feature")?;
    let links = links("")?;
    ensure!((links >= 4) == (feature["found"] == true), "{links} links, and the feature is {feature}");
    Ok(())
}

fn links_of(tracer: &mut Gotracer) -> Result<usize> {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", tracer.child().pid()))?;
    // Descriptors come and go while we look.
    let texts = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.filter(|text| text.contains("uprobe_multi")).count())
}

/// No probe stands on a nop, and the counts are the same.
fn traps_for_nops(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let program = Program::start(&Program::find(version, "plain", "tally")?, &[])?;
    let report = without("calls for nops")?.args(["doctor", "--json", "--pid", &program.pid().to_string()]).output()?;
    let report: Value = serde_json::from_slice(&report.stdout).context("doctor's JSON")?;
    let probes = report["process"]["probes"].as_array().context("no probes")?;
    let called = probes.iter().filter(|probe| probe["execution"] == "called").count();
    ensure!(called == 0, "{called} probes stand on nops: {probes:?}");
    program.quit()?;
    let (trace, tally) = traced_without("calls for nops", version, &[])?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)
}

//! `gotracer dump --for`: are the times of the blocks that it has seen those at which they happened?
//!
//! The oracle is another gotracer that traces the same process: it prints each block with its time.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::gotracer;
use gotracer_tests::traceback::parse;
use gotracer_tests::tracer::{Gotracer, Refusal};
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let last = GO_VERSIONS.last().copied().unwrap_or_default();
    vec![
        trial("dump_watched::blocks_that_were_seen_have_exact_times", move || exact_times(last)),
        trial("dump_watched::text_and_filter", move || text_and_filter(last)),
        trial("dump_watched::the_process_exits", move || exits(last)),
    ]
}

/// The same instruction is hit by both tracers' probes, one after the other.
const APART_NS: u64 = 20_000_000;

fn leaky(version: &str) -> Result<Program> {
    Program::start(&Program::find(version, "plain", "leakyserver")?, &["-load", "60"])
}

fn watched(pid: u32, args: &[&str]) -> Result<Refusal> {
    let ended = Refusal::of(Command::new(gotracer()?).args(["dump", "--pid", &pid.to_string()]).args(args))?;
    ensure!(ended.status.success(), "ended with {}: {}", ended.status, ended.stderr.join("\n"));
    Ok(ended)
}

fn exact_times(version: &str) -> Result<()> {
    let program = leaky(version)?;
    let trace = Gotracer::trace(program.pid(), &[])?;
    let dumped = watched(program.pid(), &["--for", "1s", "--json"])?;
    let trace = trace.stop()?;
    ensure!(trace.summary.lost == 0, "{} events lost", trace.summary.lost);
    let mut blocks: HashMap<u64, Vec<u64>> = HashMap::new();
    for event in trace.of_kind("blocked") {
        blocks.entry(event.goid.unwrap_or_default()).or_default().push(event.time_ns);
    }
    let json: Value = serde_json::from_str(&dumped.stdout.join("\n"))?;
    let taken = json["taken_to_ns"].as_u64().context("no taken_to_ns")?;
    let goroutines = json["goroutines"].as_array().context("no goroutines")?;
    let (mut exact, mut other) = (0, 0);
    for g in goroutines.iter().filter(|g| g["state"] == "waiting") {
        if g["waited_exact"] != true {
            other += 1;
            continue;
        }
        let goid = g["goid"].as_u64().context("no goid")?;
        let since = taken - g["waited_ns"].as_u64().context("no waited_ns")?;
        let seen = blocks.get(&goid).with_context(|| format!("goroutine {goid} did not block: {g}"))?;
        let nearest = seen.iter().map(|block| block.abs_diff(since)).min().unwrap_or(u64::MAX);
        ensure!(nearest < APART_NS, "goroutine {goid} blocked {nearest} ns from {since}: {g}");
        exact += 1;
    }
    // Some 20 searches a second leave one behind each; those from before it watched stand where they stood.
    ensure!(exact >= 5, "{exact} goroutines of {} with an exact time, {other} without", goroutines.len());
    let said = format!("of {} goroutines that wait, {exact} were seen to block", exact + other);
    ensure!(dumped.stderr.iter().any(|line| line.starts_with(&said)), "{said:?} is not in {:?}", dumped.stderr);
    // Without watching, none has.
    let json: Value = serde_json::from_str(&watched(program.pid(), &["--json"])?.stdout.join("\n"))?;
    let exact = json["goroutines"].as_array().map(|all| all.iter().filter(|g| g["waited_exact"] == true).count());
    ensure!(exact == Some(0), "{exact:?} exact times from nobody who watched");
    Ok(())
}

fn text_and_filter(version: &str) -> Result<()> {
    let program = leaky(version)?;
    let text = watched(program.pid(), &["--for", "1s", "--older-than", "300ms"])?.stdout.join("\n");
    let seen = parse(&text)?;
    ensure!(!seen.is_empty(), "none has waited for 300 ms");
    for (goid, g) in &seen {
        let seconds = g.state.split(", ").find_map(|part| part.strip_suffix(" seconds")?.parse::<f64>().ok());
        ensure!(seconds.is_some_and(|s| (0.3..60.0).contains(&s)), "goroutine {goid} [{}]", g.state);
    }
    Ok(())
}

fn exits(version: &str) -> Result<()> {
    let mut program = leaky(version)?;
    let pid = program.pid().to_string();
    let mut dump = Command::new(gotracer()?);
    let mut dump = Running::start("gotracer", dump.args(["dump", "--for", "1h", "--pid", &pid]))?;
    dump.stderr.await_start("watching")?;
    program.child().signal(libc::SIGKILL)?;
    let ended = Refusal::end(dump)?;
    ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
    ensure!(ended.stderr.iter().any(|line| line.contains("exited while it was watched")), "{ended:?}");
    Ok(())
}

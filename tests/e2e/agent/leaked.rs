//! Is said to be leaked what is leaked, and nothing else, in figures, findings and evidence alike?

use std::fs;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use libtest_mimic::Trial;
use serde_json::Value;

use super::{QUICK, check_evidence, count_folders, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::leaked_is_what_is_leaked", leaked),
        trial("agent::a_heap_that_is_too_large_is_not_proven", too_large),
    ]
}

const PROOF: &str = "[proof]\ninterval = \"1s\"\ncpu_percent = 100\n";

/// How many goroutines the program says are `which`.
fn told(program: &Program, which: &str) -> Result<usize> {
    let kinds = program.ready()[which].as_object().context("not in READY")?;
    Ok(kinds.values().filter_map(Value::as_array).map(Vec::len).sum())
}

fn leaked() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("leaked")?;
    let program = Program::start(&folder.copy(&newest("reach")?)?, &[])?;
    let (leaked, live) = (told(&program, "leaked")?, told(&program, "live")?);
    ensure!(leaked > 50 && live > leaked, "{leaked} leaked, {live} live");
    let alarm = format!("[[alarm]]\nname = \"leaked\"\nfigure = \"leaked_goroutines\"\nabove = {}\n", leaked - 1);
    let mut agent = Agent::start(&folder, &format!("{QUICK}{PROOF}{alarm}"))?;
    let pid = program.pid();
    let label = pid.to_string();
    let of = |verdict| [("pid", label.as_str()), ("verdict", verdict)];
    let metrics = poll(|| {
        let metrics = agent.metrics()?;
        let proven = metrics.sum("gotracer_proof_goroutines", &of("leaked"));
        Ok((proven == leaked as f64).then_some(metrics))
    })
    .with_context(|| {
        format!("{leaked} are leaked, and the agent says\n{}", findings(&agent, pid).unwrap_or_default())
    })?;
    for verdict in ["confirmed", "suspected", "unknown"] {
        let others = metrics.sum("gotracer_proof_goroutines", &of(verdict));
        ensure!(others == 0.0, "{others} are {verdict}: {}", findings(&agent, pid)?);
    }
    ensure!(metrics.sum("gotracer_proof_retained_bytes", &[("pid", &label)]) > 0.0, "they hold nothing");
    ensure!(metrics.of(pid, "gotracer_proof_pass_seconds").is_some_and(|seconds| seconds > 0.0));
    ensure!(metrics.sum("gotracer_agent_proof_passes_total", &[]) >= 3.0);

    // The same by site, and in the evidence.
    let proof = &findings(&agent, pid)?;
    let sites = proof["sites"].as_array().context("no sites")?;
    let by_site: u64 = sites.iter().filter_map(|site| site["counts"]["leaked"].as_u64()).sum();
    ensure!(by_site == leaked as u64, "{by_site} by site: {proof:#}");
    let evidence = folder.path().join("evidence");
    poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
    let entry = fs::read_dir(&evidence)?.next().context("no evidence")??.path();
    check_evidence(&entry)?;
    let report: Value = serde_json::from_slice(&fs::read(entry.join("proof.json"))?)?;
    let goroutines = report["report"]["goroutines"].as_array().context("no goroutines")?;
    let in_evidence = goroutines.iter().filter(|g| g["verdict"] == "leaked").count();
    ensure!(in_evidence == leaked, "{in_evidence} in the evidence");
    let text = fs::read_to_string(entry.join("proof.txt"))?;
    ensure!(text.contains(&format!("{leaked} leaked")), "{text}");
    let mut said = String::new();
    while !said.contains("\"notice\":\"leaked\"") {
        said = agent.child().stdout.await_start("{\"unix_ms\"")?;
        ensure!(!said.contains("\"words\":\"leaked") || said.contains("\"notice\":\"leaked\""), "{said}");
    }
    agent.stop()?;
    // It takes its profile before it ends.
    let mut program = program;
    program.send("profile")?;
    program.await_line("PROFILE ")?;
    program.quit_in_peace()
}

fn findings(agent: &Agent, pid: u32) -> Result<Value> {
    Ok(agent.json(&format!("/findings?pid={pid}"))?["processes"][0]["proof"].clone())
}

fn too_large() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("too-large")?;
    let path = folder.copy(&newest("reach")?)?;
    let other = folder.copy(&newest("leakyserver")?)?;
    let (large, small) = (Program::start(&path, &[])?, Program::start(&other, &["-load", "50"])?);
    let heap = |agent: &Agent, pid| agent.metrics().map(|m| m.of(pid, "go_memstats_heap_inuse_bytes"));
    let agent = Agent::start(&folder, &format!("{QUICK}{PROOF}max_heap = \"1\"\n"))?;
    agent.await_watched(large.pid())?;
    agent.await_watched(small.pid())?;
    poll(|| Ok(heap(&agent, large.pid())?.zip(heap(&agent, small.pid())?)))?;
    // Three more looks at it: its turn would have come.
    let series = agent.metrics()?.of(small.pid(), "process_cpu_seconds_total");
    poll(|| {
        let metrics = agent.metrics()?;
        Ok((metrics.of(small.pid(), "process_cpu_seconds_total") > series.map(|s| s + 0.2)).then_some(()))
    })?;
    let metrics = agent.metrics()?;
    ensure!(metrics.all("gotracer_proof_goroutines", &[]).is_empty(), "something was proven");
    agent.stop()
}

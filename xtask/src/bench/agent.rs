//! The host agent: what it takes while nothing happens, how soon a process has figures, what a scrape takes, and whether
//! the host's budget is kept. Each beside its baseline: the agent with nothing to watch, an answer without figures.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gotracer::units::Pid;
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;

use super::stats::{Spread, shown};
use super::{Goal, Plan, cpu_time, report};
use crate::programs;
use crate::workspace::{cargo, execute, say};

const QUIET: usize = 50;
const BUSY: usize = 20;

pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    execute(cargo().args(["build", "--quiet", "--release", "--package", "gotracer"]))?;
    let folder = Folder::new("bench")?;
    let idle = folder.copy(&programs::build_with("idle", version)?)?;
    let (mut text, mut goals) = (String::new(), Vec::new());

    say("agent: nothing to watch");
    let mut agent = Agent::start(&folder, "")?;
    let (nothing_cpu, nothing_memory) = rest(&mut agent, plan)?;
    let answers = times(plan, || agent.get("/healthz").map(drop))?;
    say(format!("agent: from a process's start to its figures, {QUIET} times"));
    let (mut programs, mut discovery) = (Vec::new(), Vec::new());
    for _ in 0..QUIET {
        let begin = Instant::now();
        let program = Program::start(&idle, &["-n", "5"])?;
        agent.await_watched(program.pid())?;
        discovery.push(begin.elapsed().as_secs_f64());
        programs.push(program);
    }
    say(format!("agent: {QUIET} quiet processes"));
    let (cpu, memory) = rest(&mut agent, plan)?;
    let series = agent.metrics()?.len();
    let scrapes = times(plan, || agent.get("/metrics").map(drop))?;
    drop(programs);
    agent.stop()?;

    let _ = writeln!(text, "| | nothing watched | {QUIET} quiet processes |\n| --- | --- | --- |");
    let _ = writeln!(text, "| CPU, % of one | {:.3} | {:.3} |", nothing_cpu * 100.0, cpu * 100.0);
    let _ = writeln!(text, "| resident, MiB | {nothing_memory:.1} | {memory:.1} |");
    let (healthz, scrape) = (Spread::of(answers), Spread::of(scrapes.iter().copied()));
    let _ = writeln!(
        text,
        "| an answer, ms | {} (`/healthz`) | {} (`/metrics`, {series} series) |",
        shown(healthz, 2),
        shown(scrape, 2)
    );
    let per_2000 = 2000.0 / series.max(1) as f64;
    goals.push(Goal::at_most("% of a core, 50 quiet processes".into(), Spread::of([cpu * 100.0]), 0.5));
    goals.push(Goal::at_most("MiB resident, 50 quiet processes".into(), Spread::of([memory]), 60.0));
    goals.push(Goal::at_most("seconds to the first figures".into(), Spread::of(discovery), 2.0));
    let scaled = Spread::of(scrapes.iter().map(|ms| ms * per_2000));
    goals.push(Goal::at_most("ms for a scrape of 2,000 series, by proportion".into(), scaled, 20.0));

    say(format!("agent: {BUSY} busy processes"));
    let pingpong = folder.copy(&programs::build_with("pingpong", version)?)?;
    let agent = Agent::start(&folder, "[metrics]\nsample_interval = \"1s\"\n")?;
    let mut busy = Vec::new();
    for _ in 0..BUSY {
        let mut program = Program::start(&pingpong, &["-pairs", "1"])?;
        program.send("go")?;
        program.await_line("RUNNING")?;
        busy.push(program);
    }
    let overhead = || -> Result<f64> { Ok(agent.metrics()?.sum("gotracer_agent_overhead_share", &[]) * 100.0) };
    // The level falls at the first sample that is too dear; then detaching takes a while.
    let first = poll(|| Ok(Some(overhead()?).filter(|share| *share > 0.0)))?;
    poll(|| Ok(Some(overhead()?).filter(|share| *share <= 2.0)))?;
    // And it stays so: a sample a second, over the time in which more detail is tried again once.
    let seconds = if plan.rounds > 2 { 90 } else { 20 };
    let mut kept = Vec::new();
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        kept.push(overhead()?);
    }
    let (mean, most) = (kept.iter().sum::<f64>() / kept.len() as f64, kept.iter().copied().fold(0.0, f64::max));
    let _ = writeln!(
        text,
        "\n{BUSY} busy processes: {first:.1} % of the host at first; in the {seconds} s after the budget has worked {mean:.2} % on \
         average, {most:.2} % at most."
    );
    goals.push(Goal::at_most(
        "% of the host, 20 busy processes, budget 2 %, on average".into(),
        Spread::of([mean]),
        2.0,
    ));
    drop(busy);
    agent.stop()?;
    text += &format!("\n{}", report::goals(&goals));
    Ok(text)
}

/// The agent's share of a CPU, and its resident MiB.
fn rest(agent: &mut Agent, plan: &Plan) -> Result<(f64, f64)> {
    // Readings come each quarter of a minute: some of them are in it.
    let time = Duration::from_secs(if plan.rounds > 2 { 60 } else { 20 });
    let pid = Pid(agent.child().pid());
    let (before, begin) = (cpu_time::of_process(pid)?, Instant::now());
    std::thread::sleep(time);
    let used = cpu_time::of_process(pid)? - before;
    let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok((share, kib.context("no VmRSS")? / 1024.0))
}

/// Milliseconds that something takes, again and again.
fn times(plan: &Plan, mut what: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..plan.rounds.max(5) * 4)
        .map(|_| {
            let begin = Instant::now();
            what()?;
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

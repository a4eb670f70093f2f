//! Is what tracing costs kept below what it may?

use std::time::Duration;

use anyhow::{Context as _, Result};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::budget_is_kept", budget)]
}

/// A program that switches as fast as it can costs too much: states are left out, births stay exact.
fn budget() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("budget")?;
    let path = folder.copy(&newest("pingpong")?)?;
    let mut program = Program::start(&path, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let agent = Agent::start(&folder, QUICK)?;
    let pid = program.pid();
    let label = pid.to_string();
    poll(|| {
        let metrics = agent.metrics()?;
        Ok((metrics.all("gotracer_detail", &[("pid", &label), ("detail", "lifecycle")]).len() == 1).then_some(()))
    })?;
    let events = || -> Result<f64> { agent.metrics()?.of(pid, "gotracer_events_total").context("no events") };
    // Detaching takes its time; then no transition is an event any more.
    let mut before = events()?;
    poll(|| {
        std::thread::sleep(Duration::from_millis(200));
        let now = events()?;
        Ok((std::mem::replace(&mut before, now) == now).then_some(()))
    })?;
    program.send("stop")?;
    let tally = program.tally()?;
    let exited: f64 = tally.exited as f64;
    poll(|| Ok((agent.metrics()?.of(pid, "gotracer_goroutines_exited_total") >= Some(exited)).then_some(())))
        .context("the ends of its goroutines were not seen")?;
    program.quit_in_peace()?;
    agent.stop()
}

//! Is every figure the program's own, and is the number of series bounded?

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    let versions = GO_VERSIONS.iter();
    let figures = versions
        .map(|&version| trial(format!("agent::figures_are_the_program's::go{version}"), move || figures(version)));
    let bounded = trial("agent::ten_thousand_sites_are_a_bounded_number_of_series", bounded_series);
    figures.chain([bounded]).collect()
}

/// Every figure that the program counts itself.
fn figures(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new(&format!("figures-{version}"))?;
    let path = folder.copy(&Program::find(version, "plain", "tally")?)?;
    let mut program = Program::start(&path, &["-workers", "6", "-rounds", "3"])?;
    let agent = Agent::start(&folder, QUICK)?;
    let pid = program.pid();
    agent.await_watched(pid)?;
    program.send("go")?;
    let tally = program.tally()?;
    let (created, exited) = (tally.created, tally.exited);
    // Events are given out a drain late.
    let metrics = poll(|| {
        let metrics = agent.metrics()?;
        let seen = |name| metrics.of(pid, name).unwrap_or_default();
        let all = seen("gotracer_goroutines_created_total") >= created as f64
            && seen("gotracer_goroutines_exited_total") >= exited as f64;
        Ok(all.then_some(metrics))
    })?;
    let label = pid.to_string();
    for site in &tally.sites {
        let line = site.site.line.to_string();
        let labels = [("pid", label.as_str()), ("site", site.site.function.as_str()), ("line", line.as_str())];
        let (created, exited) =
            (metrics.sum("gotracer_site_created_total", &labels), metrics.sum("gotracer_site_exited_total", &labels));
        ensure!(created == site.created as f64, "{:?}: {created} created, {}", site.site, site.created);
        ensure!(exited == site.exited as f64, "{:?}: {exited} exited, {}", site.site, site.exited);
    }
    let sites: f64 = metrics.sum("gotracer_site_created_total", &[("pid", &label)]);
    ensure!(sites == created as f64, "{sites} created at all sites, and the program says {created}");
    let goroutines = metrics.of(pid, "go_goroutines").context("no go_goroutines")?;
    ensure!(goroutines == (created - exited + 1) as f64, "{goroutines} goroutines, {created} - {exited} + main");
    ensure!(metrics.of(pid, "gotracer_events_lost_around_total") == Some(0.0), "events were lost");
    // What only the runtime knows.
    for name in ["go_threads", "go_memstats_heap_inuse_bytes", "gotracer_goroutine_stack_bytes"] {
        ensure!(metrics.of(pid, name).is_some_and(|value| value > 0.0), "no {name}");
    }
    program.quit_in_peace()?;
    poll(|| Ok(agent.metrics()?.of(pid, "go_goroutines").is_none().then_some(())))?;
    agent.stop()
}

fn bounded_series() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("series")?;
    let path = folder.copy(&newest("manysites")?)?;
    let mut program = Program::start(&path, &[])?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    program.send("go")?;
    let tally = program.tally()?;
    let created = tally.created;
    let label = program.pid().to_string();
    let of = [("pid", label.as_str())];
    let metrics = poll(|| {
        let metrics = agent.metrics()?;
        Ok((metrics.sum("gotracer_site_created_total", &of) == created as f64).then_some(metrics))
    })
    .with_context(|| format!("{created} were created"))?;
    let sites = metrics.all("gotracer_site_goroutines", &of).len();
    ensure!(sites <= 31, "{sites} sites have series of their own, and 30 and the rest are allowed");
    ensure!(metrics.len() < 1_000, "{} series", metrics.len());
    program.quit_in_peace()?;
    agent.stop()
}

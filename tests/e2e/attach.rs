//! Does attaching work at any time, for several at once, for as long as is asked, and for what is asked?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("attach::while_busy::go{version}"), move || while_busy(version)))
        .collect();
    trials.push(trial("attach::several_to_several_processes_of_one_binary", several));
    trials.push(trial("attach::for_ends_by_itself", for_ends_by_itself));
    trials.push(trial("attach::sigterm_ends_like_ctrl_c", sigterm));
    trials.push(trial("attach::ends_with_the_target", ends_with_the_target));
    trials.push(trial("attach::only_prints_what_is_asked_for", only));
    trials.push(trial("attach::a_server_under_load", a_server_under_load));
    trials
}

fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

/// Comes and goes while goroutines switch as fast as they can; they go on before, during and after.
fn while_busy(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "pingpong")?, &["-pairs", "4"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    // Printing is not what is asked here.
    let first = Gotracer::trace(program.pid(), &["--only", "exec", "--for", "300ms"])?.finish()?;
    let second = Gotracer::trace(program.pid(), &["--only", "exec"])?;
    // This one sees the end of all of them, which it has not seen begin.
    program.send("stop")?;
    let tally = program.tally()?;
    let second = second.stop()?;
    program.quit_in_peace()?;

    for trace in [&first, &second] {
        let mut findings = Findings::default();
        findings.equal("events lost", trace.summary.lost, 0);
        findings.equal("goroutines created", trace.summary.created, 0);
        findings.report(trace)?;
    }
    let mut findings = Findings::default();
    findings.equal("ended in the first", first.summary.exited, 0);
    findings.holds("too few parks in 300 ms of ping-pong", first.summary.blocked > 1_000);
    // What blocks has run before, and what runs blocks or goes on: main's own few waits are on either side.
    let difference = first.summary.blocked.abs_diff(first.summary.running);
    findings.holds(
        format!("parks and runs are {difference} apart for 8 goroutines"),
        difference < first.summary.blocked / 10,
    );
    findings.report(&first)?;
    let mut findings = Findings::default();
    findings.equal("ended in the second", second.summary.exited, tally.exited);
    findings.holds("too few iterations", tally.iterations > 1_000);
    findings.report(&second)
}

/// Probes belong to the file, and so are hit by every process of it: each gotracer must see its own alone.
fn several() -> Result<()> {
    require_root_and_bpf()?;
    let path = Program::find(newest()?, "plain", "tally")?;
    let counts = [("3", "4"), ("5", "2"), ("2", "7")];
    let mut programs = Vec::new();
    for (workers, rounds) in counts {
        programs.push(Program::start(&path, &["-workers", workers, "-rounds", rounds])?);
    }
    // Two to the first process, one to each other, all at the same time.
    let pids: Vec<u32> = programs.iter().map(Program::pid).chain([programs[0].pid()]).collect();
    let tracers: Vec<Gotracer> = std::thread::scope(|scope| {
        let attaching: Vec<_> = pids.iter().map(|&pid| scope.spawn(move || Gotracer::trace(pid, &[]))).collect();
        attaching
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_>>()
    })?;
    for program in &mut programs {
        program.send("go")?;
    }
    let mut tallies = Vec::new();
    for program in &mut programs {
        tallies.push(program.tally()?);
    }
    tallies.push(tallies[0].clone());
    for (tracer, tally) in tracers.into_iter().zip(&tallies) {
        let trace = tracer.stop()?;
        let mut findings = Findings::default();
        check::counts(&mut findings, &trace, tally);
        check::events(&mut findings, &trace, tally);
        findings.report(&trace)?;
    }
    programs.into_iter().try_for_each(Program::quit_in_peace)
}

fn for_ends_by_itself() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "tally")?, &[])?;
    let tracer = Gotracer::trace(program.pid(), &["--for", "200ms"])?;
    let begun = Instant::now();
    let trace = tracer.finish()?;
    ensure!(begun.elapsed() >= Duration::from_millis(150), "--for 200ms ended after {:?}", begun.elapsed());
    ensure!(trace.summary.created == 0, "an idle program created goroutines: {:?}", trace.summary);
    program.send("go")?;
    program.tally()?;
    program.quit_in_peace()
}

fn sigterm() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "tally")?, &[])?;
    let mut tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    tracer.child().signal(libc::SIGTERM)?;
    let trace = tracer.finish()?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)?;
    program.quit_in_peace()
}

fn ends_with_the_target() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "tally")?, &[])?;
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    program.quit_in_peace()?;
    let trace = tracer.finish()?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.report(&trace)
}

/// A filter changes what is printed, not what is counted.
fn only() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "tally")?, &[])?;
    let all = Gotracer::trace(program.pid(), &[])?;
    let some = Gotracer::trace(program.pid(), &["--only", "created,exited"])?;
    let main_alone = Gotracer::trace(program.pid(), &["--goid", "1"])?;
    program.send("go")?;
    let tally = program.tally()?;
    let (all, some, main_alone) = (all.stop()?, some.stop()?, main_alone.stop()?);
    for trace in [&all, &some, &main_alone] {
        let mut findings = Findings::default();
        check::counts(&mut findings, trace, &tally);
        findings.report(trace)?;
    }
    let mut findings = Findings::default();
    let expected = (tally.created + tally.exited) as usize;
    findings.equal("lines with --only created,exited", some.events.len(), expected);
    findings.equal("of another kind", some.of_kind("running").chain(some.of_kind("blocked")).count(), 0);
    findings.report(&some)?;
    let mut findings = Findings::default();
    findings.equal(
        "lines of other goroutines",
        main_alone.events.iter().filter(|event| event.goid != Some(1)).count(),
        0,
    );
    findings.holds("no line of main", !main_alone.events.is_empty());
    findings.report(&main_alone)?;
    program.quit_in_peace()
}

/// A net/http server and its clients in one process: its own goroutine for each request, beside net/http's.
fn a_server_under_load() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "httpload")?, &[])?;
    let mut tracer = Gotracer::trace(program.pid(), &["--only", "exec"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let until = Instant::now() + Duration::from_secs(1);
    poll(|| {
        let ended = tracer.child().try_exit()?;
        ensure!(ended.is_none(), "gotracer ended under load: {ended:?}");
        Ok((Instant::now() > until).then_some(()))
    })?;
    program.send("stop")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    ensure!(tally.requests > 100, "only {} requests", tally.requests);
    let mut findings = Findings::default();
    check::sites(&mut findings, &trace, &tally);
    findings.report(&trace)
}

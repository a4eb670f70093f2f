//! What one look costs after the reading: a snapshot of a million goroutines at ten thousand `go` statements, counted by site
//! and place, and analysed.
//!
//! The snapshot is a real one of a small program, whose goroutines are multiplied under addresses of their own; so all but the
//! number is as in life.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gotracer::analysis::{Analysis, Thresholds};
use gotracer::process::Process;
use gotracer::process::memory::LiveMemory;
use gotracer::snapshot::{self, RuntimeStats, Source};
use gotracer::tracee::Tracee;
use gotracer::units::{Goid, MonotonicNs, Pid, RemoteAddr};
use gotracer::watch::{Census, observe};
use gotracer_tests::Program;

use super::stats::Spread;
use super::subject::with_us;
use super::{Goal, report};
use crate::programs;
use crate::workspace::say;

/// Goroutines and sites of each case; the last has the goal.
const CASES: [(usize, usize); 3] = [(10_000, 100), (100_000, 1_000), (1_000_000, 10_000)];
/// A tick of the goal's case, in milliseconds.
const GOAL_MS: f64 = 100.0;
/// Of so many goroutines one is another at the next look.
const CHANGING: usize = 50;

pub fn measure(version: &str, quick: bool) -> Result<String> {
    let path = programs::build_with("leaks", version)?;
    let program = Program::start_as(with_us(Command::new(path).args(["-kind", "send", "-rate", "100"])))?;
    std::thread::sleep(Duration::from_millis(500));
    let ticks = if quick { 6 } else { 30 };
    let mut table = String::from(
        "| goroutines | sites | census, ms | analysis, ms | together |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut goal = None;
    for (goroutines, sites) in CASES {
        say(format!("analysis of {goroutines} goroutines at {sites} sites"));
        let (census, analysis) = ticks_of(Pid(program.pid()), goroutines, sites, ticks)?;
        let together = Spread::of(census.iter().zip(&analysis).map(|(a, b)| a + b));
        let (census, analysis) = (Spread::of(census), Spread::of(analysis));
        let text = |spread: Option<Spread>| super::stats::shown(spread, 1);
        let _ =
            writeln!(table, "| {goroutines} | {sites} | {} | {} | {} |", text(census), text(analysis), text(together));
        goal = Some(Goal::at_most(format!("ms a tick, {goroutines} goroutines at {sites} sites"), together, GOAL_MS));
    }
    Ok(format!("{table}\n{}", report::goals(&goal.into_iter().collect::<Vec<_>>())))
}

/// Milliseconds of census and analysis, tick by tick, without the first, in which all is new.
fn ticks_of(pid: Pid, goroutines: usize, sites: usize, ticks: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let tracee = Tracee::open(Process::open(pid)?)?;
    let bias = tracee.bias().context("it is not known where the program is loaded")?;
    let program = tracee.program();
    let (binary, layout) = (&*program.binary, &*program.layout);
    let globals = program.globals();
    let memory = LiveMemory::new(tracee.process());
    let source = Source { memory: &memory, binary, layout, globals, reasons: &program.wait_reasons, bias };
    let mut snapshot = snapshot::take(&source, snapshot::Options::default())?;
    let runtime = RuntimeStats::read(&source, &snapshot);
    let few = std::mem::take(&mut snapshot.goroutines);
    let few: Vec<_> = few.into_iter().filter(|g| !g.system && g.goid.0 > 1).collect();
    let mut next_goid = 0;
    let mut another = |i: usize| {
        next_goid += 1;
        let mut g = few[i % few.len()].clone();
        g.goid = Goid(next_goid);
        // Addresses of no function: their names are numbers.
        g.gopc = RemoteAddr(0x10_0000_0000 + (i % sites) as u64 * 64);
        g.startpc = RemoteAddr(0x20_0000_0000 + (i % sites) as u64 * 64);
        g
    };
    snapshot.goroutines = (0..goroutines).map(&mut another).collect();
    let mut census = Census::new(program.clone(), bias);
    let mut analysis = Analysis::new(Thresholds::default());
    let (mut counted, mut analysed) = (Vec::new(), Vec::new());
    for tick in 0..ticks {
        let time = MonotonicNs(1_000_000_000 * (tick as u64 + 10));
        let begin = Instant::now();
        let sample = observe(&source, &snapshot, &runtime, time, &mut census, &Default::default());
        let census_took = begin.elapsed();
        let begin = Instant::now();
        analysis.observe(&sample);
        let analysis_took = begin.elapsed();
        if tick > 0 {
            counted.push(census_took.as_secs_f64() * 1e3);
            analysed.push(analysis_took.as_secs_f64() * 1e3);
        }
        // Some end, others begin.
        let kept: Vec<_> = std::mem::take(&mut snapshot.goroutines);
        let gone = goroutines / CHANGING;
        snapshot.goroutines = kept.into_iter().skip(gone).collect();
        snapshot.goroutines.extend((0..gone).map(|i| another(i * 7919)));
    }
    Ok((counted, analysed))
}

//! What a server loses to a small budget: less than its rate changes by itself from one minute to the next.
//!
//! So the load goes on without a pause, and is measured in many short pieces, with a session and without one in turn. Each
//! with one is held against those right before and behind it; of these ratios the mean is told, and how sure it is. The
//! server itself counts the requests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gotracer::governor::Budget;
use gotracer::probes::Detail;
use gotracer::session::Options;
use gotracer::units::Pid;
use gotracer_tests::Program;
use gotracer_tests::child::Running;

use super::load::Load;
use super::traced::beside;
use crate::bench::stats::{Spread, shown};
use crate::bench::{Goal, Plan, cpu_time};
use crate::workspace::say;

/// The budget, in percent.
const BUDGET: f64 = 1.0;
/// After attaching and after detaching, so long until it is measured.
const SETTLING: Duration = Duration::from_secs(1);

/// One piece of the time.
#[derive(Clone, Copy)]
struct Piece {
    per_second: f64,
    /// Nanoseconds of the server's CPU time that a request took.
    cpu_ns: f64,
}

/// All pieces.
struct Pairs {
    /// One more than of the others: before the first, between them, behind the last.
    alone: Vec<Piece>,
    traced: Vec<Piece>,
    /// What gotracer said that tracing took of the server's CPU time, each time.
    told: Vec<f64>,
}

/// The table, and its goal.
pub fn measure(server: &mut Program, port: u64, plan: &Plan) -> Result<(String, Vec<Goal>)> {
    say(format!("a server with --max-overhead {BUDGET}%, {} pairs", plan.pairs));
    let pairs = Pairs::measure(server, port, plan)?;
    let name = format!("requests/s with --max-overhead {BUDGET}%, of undisturbed: the mean, and where it lies by 95 %");
    Ok((pairs.table(), vec![Goal::at_least(name, pairs.kept(), 0.985)]))
}

impl Pairs {
    fn measure(server: &mut Program, port: u64, plan: &Plan) -> Result<Self> {
        let pid = Pid(server.pid());
        let options = Options { detail: Detail::Events, budget: Budget::new(BUDGET / 100.0) };
        let begun = Instant::now();
        // It is killed at the end.
        let load = Running::start("wrk", &mut Load::Saturating.wrk(port, 24 * 3600)?)?;
        let piece = |server: &mut Program| {
            std::thread::sleep(SETTLING);
            Piece::measure(server, plan.piece)
        };
        let mut pairs = Self { alone: vec![piece(server)?], traced: Vec::new(), told: Vec::new() };
        for done in 1..=plan.pairs {
            let (traced, told) = beside(pid, options, || piece(server))?;
            pairs.traced.push(traced);
            pairs.told.extend(told);
            pairs.alone.push(piece(server)?);
            if done % 20 == 0 {
                say(format!("{done} pairs, {:.0} s: {}", begun.elapsed().as_secs_f64(), shown(pairs.kept(), 3)));
            }
        }
        drop(load);
        Ok(pairs)
    }

    /// Of each piece with a session, `figure` beside the mean of those around it: the mean of all.
    fn beside(&self, figure: fn(&Piece) -> f64) -> Option<Spread> {
        let around = self.alone.iter().zip(self.alone.iter().skip(1));
        Spread::of_mean(
            self.traced
                .iter()
                .zip(around)
                .map(|(traced, (before, behind))| figure(traced) / f64::midpoint(figure(before), figure(behind))),
        )
    }

    fn kept(&self) -> Option<Spread> {
        self.beside(|piece| piece.per_second)
    }

    fn table(&self) -> String {
        format!(
            "| attached | pieces | requests/s, alone | of undisturbed | CPU a request, of undisturbed | as gotracer tells it, % |\n\
             | --- | --- | --- | --- | --- | --- |\n\
             | **ours, --max-overhead {BUDGET}%** | {} | {} | {} | {} | {} |\n",
            self.traced.len(),
            shown(Spread::of(self.alone.iter().map(|piece| piece.per_second)), 0),
            shown(self.kept(), 4),
            shown(self.beside(|piece| piece.cpu_ns), 4),
            shown(Spread::of(self.told.iter().map(|share| share * 100.0)), 2),
        )
    }
}

impl Piece {
    fn measure(server: &mut Program, length: Duration) -> Result<Self> {
        let pid = Pid(server.pid());
        let (begun, before, cpu) = (Instant::now(), requests(server)?, cpu_time::of_process(pid)?);
        std::thread::sleep(length);
        let count = requests(server)?.saturating_sub(before) as f64;
        let cpu = cpu_time::of_process(pid)?.saturating_sub(cpu);
        Ok(Self { per_second: count / begun.elapsed().as_secs_f64(), cpu_ns: cpu.as_nanos() as f64 / count.max(1.0) })
    }
}

/// How many the server has had.
fn requests(server: &mut Program) -> Result<u64> {
    server.send("requests")?;
    let count = server.await_line("REQUESTS ")?;
    count.trim().parse().with_context(|| format!("the server has had {count:?} requests"))
}

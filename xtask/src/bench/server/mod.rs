//! A net/http server under load from wrk: what it serves, how fast, and what a request takes of it, with nothing attached
//! and with each level of detail, with budgets, and with what others probe.
//!
//! Rounds in turn, as in [`super::hits`]. The server is tests/programs/httpload without clients of its own: a goroutine
//! and a channel for each request beside what net/http itself starts. Target, load and collector share the machine.
//!
//! - [`load`]: wrk; [`traced`]: a session beside it; [`pairs`]: a budget, at length.
//!
//! Two loads, for two questions. What a server loses is seen when it is asked for all that it can give. What tracing
//! takes of a request is not: the fewer requests come, the less is done at each wake-up, and the CPU time of a request
//! rises by itself, in wrk as well. gotracer's own figure is held against a load whose rate is the same with and
//! without probes.

mod load;
mod pairs;
mod traced;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gotracer::governor::Budget;
use gotracer::probes::Detail;
use gotracer::process::Process;
use gotracer::session::Options;
use gotracer::tracee;
use gotracer::units::Pid;
use gotracer_tests::Program;

use self::load::{Answers, Load};
use self::traced::beside;
use super::bpftrace::{Bpftrace, GMON, XGOTOP, XGOTOP_GOROUTINES};
use super::stats::{Spread, shown};
use super::subject::with_us;
use super::{Goal, Plan, cpu_time, report};
use crate::programs;
use crate::toolchains::install_debian_packages;
use crate::workspace::{on_path, say};

/// What is attached to the server.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Nothing,
    Ours(Detail),
    /// Ours for every event, with a budget in percent.
    Budget(f64),
    Bpftrace(&'static str, &'static [&'static str]),
}

const SATURATING: [Kind; 10] = [
    Kind::Nothing,
    Kind::Ours(Detail::Events),
    Kind::Ours(Detail::States),
    Kind::Ours(Detail::Lifecycle),
    Kind::Budget(5.0),
    Kind::Budget(1.0),
    Kind::Bpftrace("at gopark's entry", &["runtime.gopark"]),
    Kind::Bpftrace("where gmon's probes are", GMON),
    Kind::Bpftrace("where xgotop's goroutine probes are", XGOTOP_GOROUTINES),
    Kind::Bpftrace("where all of xgotop's probes are", XGOTOP),
];

const PACED: [Kind; 4] =
    [Kind::Nothing, Kind::Ours(Detail::Events), Kind::Ours(Detail::States), Kind::Ours(Detail::Lifecycle)];

fn kinds(load: Load) -> &'static [Kind] {
    match load {
        Load::Saturating => &SATURATING,
        Load::Paced => &PACED,
    }
}

/// One run of wrk.
#[derive(Clone, Copy, Debug)]
struct Served {
    answers: Answers,
    /// Nanoseconds of the server's CPU time that a request took.
    cpu_ns: f64,
    /// What gotracer says that tracing took, as a share of the server's CPU time.
    told: Option<f64>,
}

/// All of the section, its goals included.
pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    let (running, port) = start(version)?;
    let pid = Pid(running.pid());
    let path = programs::build_with("httpload", version)?;
    let server = Server { pid, port, path: &path, program: &tracee::Program::of(&Process::open(pid)?)?, plan };

    let mut text = String::new();
    let mut goals = Vec::new();
    for load in [Load::Saturating, Load::Paced] {
        let measured = server.rounds(load, version)?;
        let _ = write!(text, "\n### A net/http server, Go {version}, {}\n\n{}", load.title(), measured.table());
        goals.extend(measured.goals(load));
    }
    Ok(format!("{text}\n{}", report::goals(&goals)))
}

/// What a budget costs, alone.
pub fn measure_budgets(version: &str, plan: &Plan) -> Result<String> {
    let (mut running, port) = start(version)?;
    let (pairs, goals) = pairs::measure(&mut running, port, plan)?;
    Ok(format!("\n### A net/http server with a budget, Go {version}, in pairs\n\n{pairs}\n{}", report::goals(&goals)))
}

/// The server, and where it listens.
fn start(version: &str) -> Result<(Program, u64)> {
    if !on_path("wrk") {
        install_debian_packages(&["wrk"], "the bench's load")?;
    }
    let path = programs::build_with("httpload", version)?;
    let mut running = Program::start_as(with_us(Command::new(&path).args(["-clients", "0"])))?;
    let port = running.ready()["port"].as_u64().context("the server has no port")?;
    running.send("go")?;
    running.await_line("RUNNING")?;
    Ok((running, port))
}

/// The server, and how it is measured.
struct Server<'a> {
    pid: Pid,
    port: u64,
    path: &'a Path,
    program: &'a tracee::Program,
    plan: &'a Plan,
}

impl Server<'_> {
    /// Every other round goes through the kinds from the last to the first: what warms up or wears out favours none.
    fn rounds(&self, load: Load, version: &str) -> Result<Measured> {
        let kinds = kinds(load).iter().filter(|kind| self.plan.bpftrace || !matches!(kind, Kind::Bpftrace(..)));
        let mut runs: Vec<(Kind, Vec<Served>)> = kinds.map(|kind| (*kind, Vec::new())).collect();
        for round in 0..self.plan.servings {
            for (kind, served) in &mut runs {
                say(format!("Go {version}: a server, {}, round {}, {}", load.title(), round + 1, name(*kind)));
                served.push(self.run(*kind, load)?);
            }
            runs.reverse();
        }
        if self.plan.servings % 2 == 1 {
            runs.reverse();
        }
        Ok(Measured { runs })
    }

    fn run(&self, kind: Kind, load: Load) -> Result<Served> {
        match kind {
            Kind::Nothing => self.load(load, self.plan.settling),
            Kind::Ours(detail) => self.traced(load, self.plan.settling, Options { detail, budget: None }),
            Kind::Budget(percent) => {
                let budget = Budget::new(percent / 100.0);
                self.traced(load, self.plan.warm_up, Options { detail: Detail::Events, budget })
            }
            Kind::Bpftrace(_, functions) => {
                let bpftrace = Bpftrace::attach(self.pid, self.path, self.program, functions)?;
                let served = self.load(load, self.plan.settling)?;
                ensure!(bpftrace.stop()? > 0, "bpftrace counted nothing");
                Ok(served)
            }
        }
    }

    /// Loads the server for some seconds, then measures.
    fn load(&self, load: Load, settling: u64) -> Result<Served> {
        load.run(self.port, settling)?;
        let before = cpu_time::of_process(self.pid)?;
        let answers = load.run(self.port, self.plan.serving)?;
        let cpu = cpu_time::of_process(self.pid)?.saturating_sub(before);
        Ok(Served { answers, cpu_ns: cpu.as_nanos() as f64 / answers.requests.max(1.0), told: None })
    }

    /// The same with a session beside it.
    fn traced(&self, load: Load, settling: u64, options: Options) -> Result<Served> {
        let (served, told) = beside(self.pid, options, || self.load(load, settling))?;
        Ok(Served { told, ..served })
    }
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Nothing => "nothing".to_owned(),
        Kind::Ours(detail) => format!("**ours, --detail {detail}**"),
        Kind::Budget(percent) => format!("**ours, --max-overhead {percent}%**"),
        Kind::Bpftrace(what, _) => format!("bpftrace, count() {what}"),
    }
}

/// The figures of all kinds, by round.
struct Measured {
    runs: Vec<(Kind, Vec<Served>)>,
}

impl Measured {
    fn of(&self, kind: Kind) -> &[Served] {
        self.runs.iter().find(|(of, _)| *of == kind).map_or(&[], |(_, served)| served)
    }

    /// Of each round, what `figure` gives for `kind` and for nothing attached.
    fn beside(&self, kind: Kind, figure: impl Fn(&Served, &Served) -> f64) -> Option<Spread> {
        Spread::of(self.of(kind).iter().zip(self.of(Kind::Nothing)).map(|(served, bare)| figure(served, bare)))
    }

    /// What tracing took of the server's CPU time, as this bench finds it.
    fn measured(served: &Served, bare: &Served) -> f64 {
        1.0 - bare.cpu_ns / served.cpu_ns
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "| attached | requests/s | of undisturbed | p50, us | p99, us | CPU a request, us | of it tracing, % | \
             as gotracer tells it, % |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (kind, served) in &self.runs {
            let column = |of: fn(&Served) -> f64| Spread::of(served.iter().map(of));
            let told = Spread::of(served.iter().filter_map(|served| served.told).map(|share| share * 100.0));
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                name(*kind),
                shown(column(|served| served.answers.per_second), 0),
                shown(self.beside(*kind, |served, bare| served.answers.per_second / bare.answers.per_second), 3),
                shown(column(|served| served.answers.p50_us), 0),
                shown(column(|served| served.answers.p99_us), 0),
                shown(column(|served| served.cpu_ns / 1e3), 1),
                shown(self.beside(*kind, |served, bare| Self::measured(served, bare) * 100.0), 1),
                shown(told, 2),
            );
        }
        table
    }

    fn goals(&self, load: Load) -> Vec<Goal> {
        match load {
            // What a budget costs is less than what this can tell: see `pairs`.
            Load::Saturating => Vec::new(),
            Load::Paced => {
                let told = |detail| {
                    let told = self.beside(Kind::Ours(detail), |served, bare| {
                        served.told.unwrap_or(0.0) / Self::measured(served, bare)
                    });
                    Goal::within(format!("gotracer's own figure, of the measured, --detail {detail}"), told, 0.8, 1.2)
                };
                [Detail::Events, Detail::States, Detail::Lifecycle].map(told).into()
            }
        }
    }
}

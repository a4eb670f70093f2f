//! A net/http server under load from wrk: what it serves, how fast, and what a request takes of it, with nothing attached
//! and with each level of detail, with budgets, and with what others probe.
//!
//! Rounds in turn, as in [`super::hits`]. The server is tests/programs/httpload without clients of its own: a goroutine
//! and a channel for each request beside what net/http itself starts. Target, load and collector share the machine.
//!
//! Two loads, for two questions. What a server loses is seen when it is asked for all that it can give. What tracing
//! takes of a request is not: the fewer requests come, the less is done at each wake-up, and the CPU time of a request
//! rises by itself, in wrk as well. gotracer's own figure is held against a load whose rate is the same with and
//! without probes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow, ensure};
use gotracer::governor::Budget;
use gotracer::probes::Detail;
use gotracer::process::Process;
use gotracer::session::{Options, Progress, Session};
use gotracer::tracee;
use gotracer::units::Pid;
use gotracer_tests::Program;

use super::bpftrace::{Bpftrace, GMON, XGOTOP, XGOTOP_GOROUTINES};
use super::reader::INTERVAL;
use super::stats::{Spread, shown};
use super::subject::with_us;
use super::{Goal, Plan, cpu_time, report};
use crate::programs;
use crate::toolchains::install_debian_packages;
use crate::workspace::{on_path, output, say, target};

/// How the requests come.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Load {
    /// Each connection asks again at once.
    Saturating,
    /// Each connection waits first: a rate that the server can serve with probes, too.
    Paced,
}

impl Load {
    const fn connections(self) -> u32 {
        match self {
            Self::Saturating => 32,
            Self::Paced => 40,
        }
    }

    /// wrk's script.
    const fn script(self) -> Option<&'static str> {
        match self {
            Self::Saturating => None,
            Self::Paced => Some("function delay() return 2 end\n"),
        }
    }

    /// What tells the two apart in a heading.
    fn title(self) -> String {
        let connections = self.connections();
        match self {
            Self::Saturating => format!("all that wrk's {connections} connections can ask"),
            Self::Paced => format!("{connections} connections that wait 2 ms before each request"),
        }
    }

    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Saturating => &SATURATING,
            Self::Paced => &PACED,
        }
    }
}

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

/// One run of wrk.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Nanoseconds of the server's CPU time that a request took.
    cpu_ns: f64,
    /// What gotracer says that tracing took, as a share of the server's CPU time.
    told: Option<f64>,
}

/// All of the section, its goals included.
pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    if !on_path("wrk") {
        install_debian_packages(&["wrk"], "the bench's load")?;
    }
    let path = programs::build_with("httpload", version)?;
    let mut running = Program::start_as(with_us(Command::new(&path).args(["-clients", "0"])))?;
    let port = running.ready()["port"].as_u64().context("the server has no port")?;
    running.send("go")?;
    running.await_line("RUNNING")?;
    let pid = Pid(running.pid());
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
        let kinds = load.kinds().iter().filter(|kind| self.plan.bpftrace || !matches!(kind, Kind::Bpftrace(..)));
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
        self.wrk(load, settling)?;
        let before = cpu_time::of_process(self.pid)?;
        let (requests, mut served) = self.wrk(load, self.plan.serving)?;
        served.cpu_ns = (cpu_time::of_process(self.pid)? - before).as_nanos() as f64 / requests.max(1.0);
        Ok(served)
    }

    /// The same with a session beside it, from before the load until behind it.
    fn traced(&self, load: Load, settling: u64, options: Options) -> Result<Served> {
        let stop = AtomicBool::new(false);
        let (attached, is_attached) = channel();
        std::thread::scope(|scope| {
            let stop = &stop;
            let session = scope.spawn(move || follow(self.pid, options, stop, attached));
            let served = match is_attached.recv() {
                Ok(()) => self.load(load, settling),
                Err(_) => Err(anyhow!("the session did not begin")),
            };
            stop.store(true, Ordering::Relaxed);
            let told = session.join().map_err(|_| anyhow!("the session panicked"))??;
            Ok(Served { told, ..served? })
        })
    }

    /// Runs wrk; gives how many requests it made.
    fn wrk(&self, load: Load, seconds: u64) -> Result<(f64, Served)> {
        let mut command = Command::new("wrk");
        command.args(["--latency", "-t", "1", "-c", &load.connections().to_string(), "-d", &format!("{seconds}s")]);
        if let Some(script) = load.script() {
            let path = target().join("wrk.lua");
            std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
            command.arg("-s").arg(path);
        }
        let said = output(with_us(&mut command).arg(format!("http://127.0.0.1:{}/", self.port)))?;
        let field = |start: &str| {
            let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix(start));
            line.map(str::trim).with_context(|| format!("wrk did not say {start:?}:\n{said}"))
        };
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")).map(|(count, _)| count);
        let requests =
            requests.and_then(|count| count.parse().ok()).with_context(|| format!("wrk made none:\n{said}"))?;
        let served = Served {
            per_second: field("Requests/sec:")?.parse()?,
            p50_us: microseconds(field("50%")?)?,
            p99_us: microseconds(field("99%")?)?,
            ..Served::default()
        };
        Ok((requests, served))
    }
}

fn follow(pid: Pid, options: Options, stop: &AtomicBool, attached: Sender<()>) -> Result<Option<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut session = Session::attach_with(Process::open(pid)?, options)?;
        attached.send(()).context("nobody waits for the session")?;
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            if let Progress::Ended(end) = session.next(INTERVAL, &mut events).await? {
                return Err(anyhow!("the server ended: {end:?}"));
            }
        }
        let told = session.mean_overhead();
        session.finish(&mut Vec::new())?;
        Ok(told)
    })
}

/// wrk's times: `12.3us`, `1.2ms`, `1.00s`.
fn microseconds(text: &str) -> Result<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return Err(anyhow!("wrk's time {text:?} is none")),
    };
    Ok(number.parse::<f64>()? * factor)
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
                shown(column(|served| served.per_second), 0),
                shown(self.beside(*kind, |served, bare| served.per_second / bare.per_second), 3),
                shown(column(|served| served.p50_us), 0),
                shown(column(|served| served.p99_us), 0),
                shown(column(|served| served.cpu_ns / 1e3), 1),
                shown(self.beside(*kind, |served, bare| Self::measured(served, bare) * 100.0), 1),
                shown(told, 2),
            );
        }
        table
    }

    fn goals(&self, load: Load) -> Vec<Goal> {
        match load {
            Load::Saturating => {
                let kept = self.beside(Kind::Budget(1.0), |served, bare| served.per_second / bare.per_second);
                vec![Goal::at_least("requests/s with --max-overhead 1%, of undisturbed".to_owned(), kept, 0.985)]
            }
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

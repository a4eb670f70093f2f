//! Passes of `gotracer prove`: what one takes of a large heap and of many goroutines, and what they cost the process that
//! they are of: at the pace that `prove` has, and back to back.
//!
//! Each pass is a run of the release binary; its own figure is from the first look at the memory to the last. The target's
//! throughput while passes go on is held against that of the round's undisturbed run, in turn.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use gotracer_tests::Program;
use serde_json::Value;

use super::child::Run;
use super::stats::{Spread, shown};
use super::subject::{Subject, Took, with_us};
use super::{Goal, Plan, report};
use crate::programs;
use crate::workspace::{cargo, execute, say, target};

/// Objects with pointers, in MiB.
const HEAP: u64 = 1024;
/// Goroutines that wait beside them, half of them leaked.
const FEW: u64 = 10_000;
/// And on a small heap.
const MANY: u64 = 100_000;
const SMALL: u64 = 16;
/// A list whose links lie anywhere is followed link by link.
const LIST: u64 = 128;
/// Clients of the server, which are in its own process.
const CLIENTS: &str = "8";

/// All of the section, its goals included.
pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    execute(cargo().args(["build", "--quiet", "--release", "--package", "gotracer"]))?;
    let gotracer = target().join("release/gotracer");
    let cases = [
        Case {
            name: format!("{HEAP} MiB of objects of 64 bytes, {FEW} goroutines"),
            mib: HEAP,
            goroutines: FEW,
            form: &["-ordered"],
        },
        Case { name: "the same, each pointer to anywhere in it".to_owned(), mib: HEAP, goroutines: FEW, form: &[] },
        Case { name: format!("{SMALL} MiB, {MANY} goroutines"), mib: SMALL, goroutines: MANY, form: &["-ordered"] },
        Case {
            name: format!("{HEAP} MiB that are one list, made in order, {FEW} goroutines"),
            mib: HEAP,
            goroutines: FEW,
            form: &["-list", "-ordered"],
        },
        Case {
            name: format!("{LIST} MiB that are one list, each link anywhere, {FEW} goroutines"),
            mib: LIST,
            goroutines: FEW,
            form: &["-list"],
        },
    ];
    let mut table = String::from(
        "| half of the goroutines leaked | a pass, ms | CPU of a run, ms | read, of the heap | peak memory, MiB |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    let mut passes = Vec::new();
    for case in &cases {
        say(format!("Go {version}: passes over {}", case.name));
        let measured = case.measure(&gotracer, version, plan)?;
        let column = |of: fn(&Taken) -> f64, precision| shown(Spread::of(measured.iter().map(of)), precision);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} |",
            case.name,
            column(|pass| pass.ms, 0),
            column(|pass| pass.cpu_ms, 0),
            column(|pass| pass.read, 1),
            column(|pass| pass.peak_mib, 1),
        );
        passes.push(measured);
    }
    let mut goals = Vec::new();
    if let [ordered, anywhere, many, list, _] = passes.as_slice() {
        let of = |passes: &[Taken], figure: fn(&Taken) -> f64| Spread::of(passes.iter().map(figure));
        let heap = "ms for a pass over a GiB of small objects";
        goals.push(Goal::at_most(heap.to_owned(), of(ordered, |pass| pass.ms), 1500.0));
        goals.push(Goal::at_most(format!("{heap}, pointers to anywhere"), of(anywhere, |pass| pass.ms), 1500.0));
        goals.push(Goal::at_most(format!("{heap}, one list"), of(list, |pass| pass.ms), 1500.0));
        goals.push(Goal::at_most(
            "MiB of ours for it, the report included".to_owned(),
            of(anywhere, |pass| pass.peak_mib),
            64.0,
        ));
        goals.push(Goal::at_most(format!("ms for a pass over {MANY} goroutines"), of(many, |pass| pass.ms), 400.0));
    }
    let mut disturbed = String::from(
        "| while passes go on | undisturbed, a second | at `prove`'s pace, of undisturbed | passes a second | back to back | \
         passes a second |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for mut load in Load::all(version)? {
        let name = load.name();
        say(format!("Go {version}: {name} while passes go on"));
        let rounds = load.measure(&gotracer, plan)?;
        let column = |of: fn(&Round) -> f64, precision| shown(Spread::of(rounds.iter().map(of)), precision);
        let ratio = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(|round| of(round) / round.alone));
        let paced = ratio(|round| round.paced.done);
        let _ = writeln!(
            disturbed,
            "| {name} | {} | {} | {} | {} | {} |",
            column(|round| round.alone, 0),
            shown(paced, 3),
            column(|round| round.paced.passes, 1),
            shown(ratio(|round| round.back_to_back.done), 3),
            column(|round| round.back_to_back.passes, 1),
        );
        goals.push(Goal::at_least(format!("{name} while `prove` goes on, of undisturbed"), paced, 0.95));
    }
    Ok(format!("{table}\n{disturbed}\n{}", report::goals(&goals)))
}

/// A heap to be gone through.
struct Case {
    name: String,
    mib: u64,
    goroutines: u64,
    /// How its objects point at each other, as the program is told.
    form: &'static [&'static str],
}

/// One run with one pass.
struct Taken {
    ms: f64,
    cpu_ms: f64,
    /// Bytes read, as a multiple of the heap.
    read: f64,
    peak_mib: f64,
}

impl Case {
    fn measure(&self, gotracer: &Path, version: &str, plan: &Plan) -> Result<Vec<Taken>> {
        let half = (self.goroutines / 2).to_string();
        let mib = self.mib.to_string();
        let mut program = heap(version, &["-mib", &mib, "-waiting", &half, "-leaked", &half], self.form)?;
        let mut taken = Vec::new();
        for _ in 0..plan.dumps {
            let pid = program.pid().to_string();
            let mut run =
                Run::of(Command::new(gotracer).args(["prove", "--json", "--passes", "1", "--pid", &pid]), "")?;
            let text = run.text()?;
            ensure!(run.success, "gotracer prove failed: {text}");
            let json = text.lines().find(|line| line.starts_with('{')).context("no report")?;
            let report: Value = serde_json::from_str(json)?;
            let pass = &report["last_pass"];
            let number = |name: &str| pass[name].as_u64().with_context(|| format!("no {name} in {pass}"));
            ensure!(number("unreachable")? == self.goroutines / 2, "a pass that is wrong: {pass}");
            let took = pass["took"]["secs"].as_f64().zip(pass["took"]["nanos"].as_f64());
            let (seconds, nanoseconds) = took.context("no time")?;
            taken.push(Taken {
                ms: seconds * 1e3 + nanoseconds / 1e6,
                cpu_ms: run.cpu.as_secs_f64() * 1e3,
                read: number("read_bytes")? as f64 / number("heap_bytes")? as f64,
                peak_mib: run.peak_bytes / f64::from(1 << 20),
            });
        }
        program.send("quit")?;
        Ok(taken)
    }
}

fn heap(version: &str, args: &[&str], form: &[&str]) -> Result<Program> {
    let path = programs::build_with("heap", version)?;
    Program::start_as(with_us(Command::new(path).args(args).args(form)))
}

/// Work whose throughput is measured, by who does it.
enum Load {
    PingPong(Subject),
    /// A server and its clients, of this Go version; new each time, for it tells what it did when it ends.
    Server(String),
    Allocation(Program),
}

/// Its runs, one after the other.
#[derive(Default)]
struct Round {
    /// Done in a second.
    alone: f64,
    paced: Beside,
    back_to_back: Beside,
}

/// A run of it while passes go on.
#[derive(Clone, Copy, Default)]
struct Beside {
    /// Of the work, in a second.
    done: f64,
    /// Passes in a second.
    passes: f64,
}

/// The arguments of `prove` that decide how passes follow each other.
const PACED: &[&str] = &[];
const BACK_TO_BACK: &[&str] = &["--every", "0s"];

impl Load {
    fn all(version: &str) -> Result<[Self; 3]> {
        let heap = heap(version, &["-mib", "256", "-waiting", "100", "-leaked", "100"], &["-ordered"])?;
        Ok([Self::PingPong(Subject::start(version)?), Self::Server(version.to_owned()), Self::Allocation(heap)])
    }

    fn name(&self) -> &'static str {
        match self {
            Self::PingPong(_) => "ping-pong",
            Self::Server(_) => "a net/http server and its clients",
            Self::Allocation(_) => "allocation on all processors, 256 MiB of heap",
        }
    }

    fn measure(&mut self, gotracer: &Path, plan: &Plan) -> Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for number in 0..plan.servings {
            let mut round = Round::default();
            // Each is the first as often as the others: what comes first may find the machine in another state.
            for turn in 0..3 {
                match (number + turn) % 3 {
                    0 => round.alone = self.run(plan, None)?.done,
                    1 => round.paced = self.run(plan, Some((gotracer, PACED)))?,
                    _ => round.back_to_back = self.run(plan, Some((gotracer, BACK_TO_BACK)))?,
                }
            }
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// How much of it is done in a second, and how many passes are.
    fn run(&mut self, plan: &Plan, gotracer: Option<(&Path, &[&str])>) -> Result<Beside> {
        let seconds = plan.serving;
        match self {
            Self::PingPong(subject) => {
                let trial = subject.run("park 100000")?;
                let count = (seconds as f64 * 1e9 / trial.ns.max(1.0) * 1e5).max(1e5);
                beside(gotracer, subject.pid().0, || {
                    let took = subject.run(&format!("park {count:.0}"))?;
                    Ok(took.count / took.ns * 1e9)
                })
            }
            Self::Server(version) => {
                let path = programs::build_with("httpload", version)?;
                let seconds = seconds.to_string();
                let mut server =
                    Program::start_as(with_us(Command::new(path).args(["-clients", CLIENTS, "-seconds", &seconds])))?;
                beside(gotracer, server.pid(), || {
                    server.send("go")?;
                    let tally: Value = serde_json::from_str(&server.await_line("TALLY ")?)?;
                    tally["requests_per_second"].as_f64().with_context(|| format!("no rate in {tally}"))
                })
            }
            Self::Allocation(program) => beside(gotracer, program.pid(), || {
                program.send(&format!("allocate {seconds}"))?;
                let took: Took = serde_json::from_str(&program.await_line("RESULT ")?)?;
                Ok(took.count / took.ns * 1e9)
            }),
        }
    }
}

/// Does the work while gotracer, if it is given, does passes over the process. The work gives how much of it was done in a second.
fn beside(gotracer: Option<(&Path, &[&str])>, pid: u32, work: impl FnOnce() -> Result<f64>) -> Result<Beside> {
    let Some((gotracer, pace)) = gotracer else { return Ok(Beside { done: work()?, passes: 0.0 }) };
    let mut command = Command::new(gotracer);
    command.args(["prove", "--passes", "100000000", "--pid", &pid.to_string()]).args(pace);
    let mut child = with_us(command.stdout(Stdio::null()).stderr(Stdio::piped())).spawn()?;
    let mut said = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    // The first tells that it has begun.
    let first = said.next().transpose()?.unwrap_or_default();
    let count = move || said.map_while(Result::ok).filter(|line| line.starts_with("pass ")).count();
    let (begun, counter) = (Instant::now(), std::thread::spawn(count));
    let done = work();
    let took = begun.elapsed();
    child.kill()?;
    child.wait()?;
    let passes = counter.join().map_err(|_| anyhow!("the counter of passes panicked"))?;
    ensure!(first.starts_with("pass ") && passes > 0, "no passes were done beside the work: {first}");
    Ok(Beside { done: done?, passes: passes as f64 / took.as_secs_f64() })
}

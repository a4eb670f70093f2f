//! `gotracer dump` of a crowd of blocked goroutines, beside what else tells them: the program's own profile over HTTP,
//! and Delve. And what dumps back to back cost the process that they are of.
//!
//! Rounds in turn, as in [`super::hits`]. Each dump is a run of the release binary, from start to end.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gotracer::units::Pid;
use gotracer_tests::Program;
use gotracer_tests::environment::patience;

use super::child::Run;
use super::stats::{Spread, shown};
use super::subject::{Subject, with_us};
use super::{Goal, Plan, cpu_time, delve, memory, report};
use crate::programs;
use crate::workspace::{cargo, execute, say, target};

const CROWD: u64 = 100_000;

/// All of the section, its goals included.
pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    execute(cargo().args(["build", "--quiet", "--release", "--package", "gotracer"]))?;
    let gotracer = target().join("release/gotracer");
    say(format!("Go {version}: dump of {CROWD} goroutines"));
    let rounds = Rounds::measure(&gotracer, version, plan)?;
    say(format!("Go {version}: a process while it is dumped"));
    let disturbed = Disturbed::measure(&gotracer, version, plan)?;
    let mut goals = rounds.goals();
    goals.push(disturbed.goal());
    Ok(format!("{}\n{}\n{}", rounds.table(), disturbed.table(), report::goals(&goals)))
}

/// The program with so many goroutines in one place, beside a few others.
pub fn crowd(version: &str, count: u64) -> Result<Program> {
    let path = programs::build_with("stacks", version)?;
    Program::start_as(with_us(Command::new(path).args(["-crowd", &count.to_string()])))
}

fn dump_of(gotracer: &Path, pid: Pid) -> Result<Run> {
    let mut run = Run::of(Command::new(gotracer).args(["dump", "--pid", &pid.to_string()]), "")?;
    ensure!(run.success, "gotracer dump failed: {}", run.text()?);
    Ok(run)
}

/// One telling of all goroutines.
struct Told {
    wall: Duration,
    /// Of who asks.
    cpu: Duration,
    /// Of the process that is asked about.
    target_cpu: Duration,
    peak_bytes: f64,
    printed: u64,
}

impl Told {
    fn by_dump(gotracer: &Path, pid: Pid) -> Result<Self> {
        let before = cpu_time::of_process(pid)?;
        let run = dump_of(gotracer, pid)?;
        let target_cpu = cpu_time::of_process(pid)?.saturating_sub(before);
        let printed = run.printed.metadata()?.len();
        Ok(Self { wall: run.wall, cpu: run.cpu, target_cpu, peak_bytes: run.peak_bytes, printed })
    }

    fn by_request(pid: Pid, port: u16) -> Result<Self> {
        let (begin, own) = (Instant::now(), cpu_time::of_this_thread());
        let before = cpu_time::of_process(pid)?;
        let printed = request(port).context("the program did not tell its own goroutines")?;
        let (wall, cpu) = (begin.elapsed(), cpu_time::of_this_thread().saturating_sub(own));
        let target_cpu = cpu_time::of_process(pid)?.saturating_sub(before);
        Ok(Self { wall, cpu, target_cpu, peak_bytes: 0.0, printed })
    }
}

/// The bytes that a server answers, of which nothing is kept: our memory shows in that of what we start.
fn request(port: u16) -> Result<u64> {
    const GOOD: &[u8] = b"HTTP/1.0 200 OK\r\n";
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience()))?;
    write!(stream, "GET /debug/pprof/goroutine?debug=2 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut head = [0; GOOD.len()];
    stream.read_exact(&mut head)?;
    ensure!(head == GOOD, "it answered {}", String::from_utf8_lossy(&head));
    let rest = std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(GOOD.len() as u64 + rest)
}

struct Rounds {
    goroutines: usize,
    small: Vec<Told>,
    dumps: Vec<Told>,
    requests: Vec<Told>,
    delve: Vec<String>,
}

impl Rounds {
    fn measure(gotracer: &Path, version: &str, plan: &Plan) -> Result<Self> {
        let (small, large) = (crowd(version, 0)?, crowd(version, CROWD)?);
        let port = large.ready()["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
        let (few, many) = (Pid(small.pid()), Pid(large.pid()));
        let goroutines = dump_of(gotracer, many)?.count_lines("goroutine ")?;
        ensure!(goroutines as u64 > CROWD, "only {goroutines} goroutines were dumped");
        let (mut all_small, mut dumps, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.dumps {
            all_small.push(Told::by_dump(gotracer, few)?);
            dumps.push(Told::by_dump(gotracer, many)?);
            requests.push(Told::by_request(many, port)?);
        }
        // Last, and its process is not used again: what a debugger has stopped may be left with breakpoints.
        let mut delve = vec![delve::row(&format!("Delve, Go {version}"), many)];
        drop((small, large));
        let older = crowd(delve::SUPPORTED_GO, delve::CROWD)?;
        let name = format!("Delve, Go {}, only {} goroutines", delve::SUPPORTED_GO, delve::CROWD);
        delve.push(delve::row(&name, Pid(older.pid())));
        Ok(Self { goroutines, small: all_small, dumps, requests, delve })
    }

    /// Of the dumps' peaks, over that of a dump of the same program with a few goroutines. Where ours shows through
    /// that one, it is not known.
    fn bytes_each(&self) -> Option<Spread> {
        let own = memory::resident().ok()? as f64;
        let pairs = self.dumps.iter().zip(&self.small).filter(|(_, small)| small.peak_bytes > own);
        Spread::of(pairs.map(|(dump, small)| (dump.peak_bytes - small.peak_bytes) / self.goroutines as f64))
    }

    fn wall(of: &[Told]) -> Option<Spread> {
        Spread::of(of.iter().map(|told| ms(told.wall)))
    }

    fn table(&self) -> String {
        let mut table = format!(
            "| {} goroutines told by | ms | its CPU, ms | the target's CPU, ms | peak memory, MB | bytes a goroutine over a small process | printed, MB |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            self.goroutines
        );
        let told = [
            ("**gotracer dump**", &self.dumps, true),
            ("gotracer dump, of the same program with a few", &self.small, true),
            ("the program's own `debug=2`", &self.requests, false),
        ];
        for (at, (name, of, with_memory)) in told.into_iter().enumerate() {
            let column = |value: fn(&Told) -> f64, precision| shown(Spread::of(of.iter().map(value)), precision);
            let peak = if with_memory { column(|told| told.peak_bytes / 1e6, 1) } else { "-".to_owned() };
            let each = if at == 0 { shown(self.bytes_each(), 0) } else { "-".to_owned() };
            let _ = writeln!(
                table,
                "| {name} | {} | {} | {} | {peak} | {each} | {} |",
                shown(Self::wall(of), 0),
                column(|told| ms(told.cpu), 0),
                column(|told| ms(told.target_cpu), 0),
                column(|told| told.printed as f64 / 1e6, 1),
            );
        }
        table + &self.delve.concat()
    }

    fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::at_most(format!("ms for a dump of {CROWD} goroutines"), Self::wall(&self.dumps), 250.0),
            Goal::at_most("bytes of the dump's memory a goroutine".to_owned(), self.bytes_each(), 300.0),
        ]
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Who is dumped, back to back, while the subject's goroutines play ping-pong.
#[derive(Clone, Copy)]
enum Dumped {
    Nobody,
    /// Another process of the same program: what sharing the machine with a dump costs, whoever it is of.
    Another,
    Subject,
}

/// One run of the game.
struct Game {
    parks_a_second: f64,
    cpu_ns: f64,
    dumps: u32,
}

#[derive(Default)]
struct Disturbed {
    nobody: Vec<Game>,
    another: Vec<Game>,
    subject: Vec<Game>,
}

impl Disturbed {
    fn measure(gotracer: &Path, version: &str, plan: &Plan) -> Result<Self> {
        const TRIAL: f64 = 100_000.0;
        let (mut subject, another) = (Subject::start(version)?, Subject::start(version)?);
        let trial = subject.run(&format!("park {TRIAL}"))?;
        let command = format!("park {:.0}", (plan.game.as_nanos() as f64 / trial.ns.max(1.0) * TRIAL).max(TRIAL));
        let mut disturbed = Self::default();
        for round in 0..plan.games {
            // Each is the first as often as the others: what comes first may find the machine in another state.
            for at in round..round + 3 {
                let (games, dumped) = match at % 3 {
                    0 => (&mut disturbed.nobody, Dumped::Nobody),
                    1 => (&mut disturbed.another, Dumped::Another),
                    _ => (&mut disturbed.subject, Dumped::Subject),
                };
                games.push(game(gotracer, dumped, &mut subject, another.pid(), &command)?);
            }
        }
        Ok(disturbed)
    }

    /// Throughput, of that of `base` in the same round.
    fn ratio(of: &[Game], base: &[Game]) -> Option<Spread> {
        Spread::of(of.iter().zip(base).map(|(game, base)| game.parks_a_second / base.parks_a_second))
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "| ping-pong while there is dumped | parks/s | of undisturbed | ns of CPU a park | dumps/s |\n| --- | --- | --- | --- | --- |\n",
        );
        for (name, games) in
            [("nobody", &self.nobody), ("another process", &self.another), ("**this process**", &self.subject)]
        {
            let column = |value: fn(&Game) -> f64, precision| shown(Spread::of(games.iter().map(value)), precision);
            let _ = writeln!(
                table,
                "| {name} | {} | {} | {} | {} |",
                column(|game| game.parks_a_second, 0),
                shown(Self::ratio(games, &self.nobody), 3),
                column(|game| game.cpu_ns, 0),
                column(|game| f64::from(game.dumps), 0),
            );
        }
        table
    }

    fn goal(&self) -> Goal {
        let ratio = Self::ratio(&self.subject, &self.nobody);
        Goal::at_least("ping-pong while dumped back to back, of undisturbed".to_owned(), ratio, 0.98)
    }
}

fn game(gotracer: &Path, dumped: Dumped, subject: &mut Subject, another: Pid, command: &str) -> Result<Game> {
    let whom = match dumped {
        Dumped::Nobody => None,
        Dumped::Another => Some(another),
        Dumped::Subject => Some(subject.pid()),
    };
    let stop = AtomicBool::new(false);
    let (took, dumps) = std::thread::scope(|scope| {
        let stop = &stop;
        let dumper = scope.spawn(move || -> Result<u32> {
            let mut dumps = 0;
            while let Some(pid) = whom
                && !stop.load(Ordering::Relaxed)
            {
                dump_of(gotracer, pid)?;
                dumps += 1;
            }
            Ok(dumps)
        });
        let took = subject.run(command);
        stop.store(true, Ordering::Relaxed);
        let dumps = dumper.join().map_err(|_| anyhow!("the dumper panicked"))??;
        anyhow::Ok((took?, dumps))
    })?;
    let seconds = took.ns / 1e9;
    let a_second = (f64::from(dumps) / seconds).round() as u32;
    Ok(Game { parks_a_second: took.count / seconds, cpu_ns: took.cpu_ns / took.count, dumps: a_second })
}

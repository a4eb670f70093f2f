//! How many events a second the whole way up stands without a loss, and what the collector pays for each.
//!
//! Pairs in round trips on every CPU, a whole [`Session`] on a thread beside them, as the command line has it: the
//! target and the reader share the machine's CPUs. Bare and traced in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};
use gotracer::process::Process;
use gotracer::session::{Progress, Session};
use gotracer::units::Pid;

use super::cpu_time;
use super::reader::{INTERVAL, Seen};
use super::stats::{Spread, shown};
use super::subject::Subject;
use super::{Goal, Plan};

const PAIRS: usize = 16;

/// One run with the session beside it.
struct Traced {
    seen: Seen,
    late: u64,
    fullest: f64,
    reader_ns: f64,
    /// The load's own figures.
    seconds: f64,
    cpu_ns: f64,
    trips: f64,
}

/// All runs.
pub struct Sustained {
    bare_trips: Vec<f64>,
    traced: Vec<Traced>,
}

pub fn measure(subject: &mut Subject, plan: &Plan) -> Result<Sustained> {
    let command = format!("load {} {PAIRS}", plan.load.as_secs_f64());
    let mut sustained = Sustained { bare_trips: Vec::new(), traced: Vec::new() };
    for _ in 0..plan.loads {
        let bare = subject.run(&command)?;
        sustained.bare_trips.push(bare.count / bare.ns * 1e9);
        sustained.traced.push(traced(subject, &command)?);
    }
    Ok(sustained)
}

fn traced(subject: &mut Subject, command: &str) -> Result<Traced> {
    let pid = subject.pid();
    let stop = AtomicBool::new(false);
    let (attached, is_attached) = channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        let session = scope.spawn(move || read(pid, stop, attached));
        let took = match is_attached.recv() {
            Ok(()) => subject.run(command),
            Err(_) => Err(anyhow!("the session did not begin")),
        };
        stop.store(true, Ordering::Relaxed);
        let traced = session.join().map_err(|_| anyhow!("the session panicked"))??;
        let took = took?;
        Ok(Traced { seconds: took.ns / 1e9, cpu_ns: took.cpu_ns, trips: took.count, ..traced })
    })
}

fn read(pid: Pid, stop: &AtomicBool, attached: Sender<()>) -> Result<Traced> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut session = Session::attach(Process::open(pid)?)?;
        attached.send(()).context("nobody waits for the session")?;
        let (mut seen, mut events) = (Seen::default(), Vec::new());
        let begin = cpu_time::of_this_thread();
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            if let Progress::Ended(end) = session.next(INTERVAL, &mut events).await? {
                return Err(anyhow!("the bench's program ended: {end:?}"));
            }
            seen.add(&events);
        }
        let reader_ns = (cpu_time::of_this_thread() - begin).as_nanos() as f64;
        events.clear();
        session.finish(&mut events)?;
        seen.add(&events);
        let (late, fullest) = (session.late(), session.fullest());
        Ok(Traced { seen, late, fullest, reader_ns, seconds: 0.0, cpu_ns: 0.0, trips: 0.0 })
    })
}

impl Sustained {
    fn rate(&self) -> Option<Spread> {
        Spread::of(self.traced.iter().map(|t| t.seen.events() as f64 / t.seconds))
    }

    fn reader_ns(&self) -> Option<Spread> {
        Spread::of(self.traced.iter().map(|t| t.reader_ns / t.seen.events().max(1) as f64))
    }

    /// Events a second at which target and collector would fill this machine's CPUs if they had them for themselves.
    fn capacity(&self) -> Option<Spread> {
        let cpus = std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64);
        Spread::of(self.traced.iter().map(|t| cpus * 1e9 * t.seen.events() as f64 / (t.cpu_ns + t.reader_ns)))
    }

    fn lost(&self) -> u64 {
        self.traced.iter().map(|t| t.seen.lost).sum()
    }

    pub fn table(&self) -> String {
        let trips = Spread::of(self.traced.iter().map(|t| t.trips / t.seconds));
        let late: u64 = self.traced.iter().map(|t| t.late).sum();
        let fullest = Spread::of(self.traced.iter().map(|t| t.fullest * 100.0));
        format!(
            "| {PAIRS} pairs on all CPUs, all probes | |\n| --- | --- |\n\
             | round trips/s, bare | {} |\n| round trips/s, traced | {} |\n\
             | events/s | {} |\n| events/s that the same CPU time allows without other load | {} |\n| lost | {} |\n| late | {late} |\n| fullest buffer, % | {} |\n\
             | collector, ns of CPU per event | {} |\n",
            shown(Spread::of(self.bare_trips.iter().copied()), 0),
            shown(trips, 0),
            shown(self.rate(), 0),
            shown(self.capacity(), 0),
            self.lost(),
            shown(fullest, 1),
            shown(self.reader_ns(), 0),
        )
    }

    pub fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::at_least("events/s sustained".to_owned(), self.rate(), 1_000_000.0),
            Goal::at_most("events lost".to_owned(), Spread::of([self.lost() as f64]), 0.0),
            Goal::at_most("collector ns per event, sustained".to_owned(), self.reader_ns(), 100.0),
        ]
    }
}

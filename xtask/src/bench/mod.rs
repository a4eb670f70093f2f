//! `cargo xtask bench`: what tracing costs the target and the collector, each figure beside its baseline from the same
//! run.
//!
//! - [`subject`]: the Go program that is measured;
//! - [`hits`]: a park and a spawn under each kind of probe, in rounds; [`bpftrace`] is one of them;
//! - [`sustained`]: events per second without loss, and the collector's CPU time;
//! - [`collector`], [`memory`]: the table in this process, without a kernel;
//! - [`server`]: a net/http server under load from wrk, at each level of detail, and with a budget;
//! - [`attach_time`]: attaching and detaching;
//! - [`dump`]: reading all goroutines from outside; [`delve`] is a baseline, [`child`] the measured run of a program;
//! - [`top`]: pictures of many goroutines;
//! - [`proof`]: passes over a large heap and over many goroutines, and what they cost their target;
//! - [`record`]: what a recorded event takes, in bytes and in time, in each form;
//! - [`agent`]: the host agent, idle and busy;
//! - [`report`] puts it in Markdown.
//!
//! No figure is a test: the machine may be busy. What fails is what cannot be measured.

mod agent;
mod analysis;
mod attach_time;
mod bpftrace;
mod child;
mod collector;
mod cpu_time;
mod delve;
mod dump;
mod hits;
mod memory;
mod proof;
mod reader;
mod record;
mod report;
mod server;
mod stats;
mod subject;
mod sustained;
mod top;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use gotracer::probes::{Capacity, Execs, KernelPrograms};

use self::hits::Tracing;
use self::reader::Reader;
use self::stats::Spread;
use self::subject::Subject;
use crate::workspace::{cargo, execute, say, target};

#[derive(clap::Args)]
pub struct Args {
    /// Go versions of the program that is measured (default: 1.26.6 and 1.27.3)
    #[arg(long = "go", value_name = "VERSION")]
    versions: Vec<String>,
    /// A short run, of the newest Go alone: shows that it works, its figures are rough
    #[arg(long)]
    quick: bool,
    /// Leave out the comparison with bpftrace
    #[arg(long)]
    no_bpftrace: bool,
    /// Measure only this
    #[arg(long, value_name = "SECTION", value_enum)]
    only: Option<Section>,
    /// Append the figures to docs/journal.md
    #[arg(long)]
    journal: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Section {
    /// A park, a spawn and a switch under each kind of probe
    Hits,
    /// Events a second without loss; attaching and detaching
    Load,
    /// The table and the order of events, without a kernel
    Collector,
    /// A net/http server under load, at each level of detail
    Server,
    /// What a budget costs a net/http server, in many short pieces
    Budget,
    /// `gotracer dump`
    Dump,
    /// Passes of `gotracer prove`
    Proof,
    /// `gotracer record` and `convert`
    Record,
    /// `gotracer top`
    Top,
    /// What one look of `gotracer leaks` costs
    Analysis,
    /// `gotracer agent`
    Agent,
}

/// What is measured, in this order, each for the Go versions that are asked for or for the newest of them.
const SECTIONS: &[(Section, Measure)] = &[
    // First: what we start counts our own memory in its peak.
    (Section::Dump, |versions, plan| {
        let newest = newest(versions);
        Ok(format!("\n### Dump, Go {newest}\n\n{}", dump::measure(newest, plan)?))
    }),
    // For the same reason.
    (Section::Proof, |versions, plan| {
        let newest = newest(versions);
        Ok(format!("\n### Proof, Go {newest}\n\n{}", proof::measure(newest, plan)?))
    }),
    (Section::Hits, hits_of),
    (Section::Load, load_of),
    (Section::Collector, |_, plan| collector_alone(plan)),
    (Section::Record, |versions, plan| {
        let newest = newest(versions);
        Ok(format!("\n### Recordings, Go {newest}\n{}", record::measure(newest, plan)?))
    }),
    (Section::Server, |versions, plan| server::measure(newest(versions), plan)),
    (Section::Budget, |versions, plan| server::measure_budgets(newest(versions), plan)),
    (Section::Top, |versions, plan| {
        let newest = newest(versions);
        Ok(format!("\n### Top, Go {newest}\n\n{}", top::measure(newest, plan)?))
    }),
    (Section::Analysis, |versions, plan| {
        Ok(format!("\n### Analysis, a tick\n\n{}", analysis::measure(newest(versions), plan.quick)?))
    }),
    (Section::Agent, |versions, plan| {
        let newest = newest(versions);
        Ok(format!("\n### Agent, Go {newest}\n\n{}", agent::measure(newest, plan)?))
    }),
];

type Measure = fn(&[String], &Plan) -> Result<String>;

fn newest(versions: &[String]) -> &str {
    versions.last().map_or("", String::as_str)
}

/// How long to measure.
struct Plan {
    quick: bool,
    bpftrace: bool,
    /// Rounds of [`hits`], and the time of one run in them.
    rounds: usize,
    run: Duration,
    /// Runs of [`sustained`], and the time of each.
    loads: usize,
    load: Duration,
    attaches: usize,
    collector_rounds: usize,
    collector_events: usize,
    /// Rounds of [`server`]; seconds that each of its loads goes on before it is measured, with a budget and without,
    /// and while.
    servings: usize,
    warm_up: u64,
    settling: u64,
    serving: u64,
    /// Pieces of the time with each budget, and how long each is.
    pairs: usize,
    piece: Duration,
    /// Rounds of [`dump`]; those of the ping-pong while there is dumped, and the time of one run in them.
    dumps: usize,
    games: usize,
    game: Duration,
    /// Pictures of each kind in [`top`], rounds of it in a terminal, and the time of one run in them.
    pictures: usize,
    tops: usize,
    top: Duration,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let bpftrace = !args.no_bpftrace && matches!(args.only, None | Some(Section::Hits | Section::Server));
        if args.quick {
            return Self {
                quick: true,
                bpftrace,
                rounds: 2,
                run: Duration::from_millis(100),
                loads: 1,
                load: Duration::from_secs(1),
                attaches: 1,
                collector_rounds: 1,
                collector_events: 500_000,
                servings: 1,
                warm_up: 3,
                settling: 1,
                serving: 3,
                pairs: 3,
                piece: Duration::from_secs(1),
                dumps: 2,
                games: 2,
                game: Duration::from_millis(500),
                pictures: 20,
                tops: 1,
                top: Duration::from_secs(10),
            };
        }
        Self {
            quick: false,
            bpftrace,
            rounds: 9,
            run: Duration::from_millis(300),
            loads: 5,
            load: Duration::from_secs(3),
            attaches: 5,
            collector_rounds: 5,
            collector_events: 2_000_000,
            servings: 5,
            // A governor takes some periods to find its level.
            warm_up: 12,
            settling: 3,
            serving: 10,
            pairs: 100,
            piece: Duration::from_secs(3),
            dumps: 9,
            games: 9,
            game: Duration::from_secs(1),
            pictures: 200,
            tops: 3,
            top: Duration::from_secs(30),
        }
    }
}

/// A figure that is to stay on one side of a bound, or between two.
struct Goal {
    name: String,
    measured: Option<Spread>,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Within(f64, f64),
}

impl Goal {
    fn at_most(name: String, measured: Option<Spread>, bound: f64) -> Self {
        Self { name, measured, bound: Bound::AtMost(bound) }
    }

    fn at_least(name: String, measured: Option<Spread>, bound: f64) -> Self {
        Self { name, measured, bound: Bound::AtLeast(bound) }
    }

    fn within(name: String, measured: Option<Spread>, least: f64, most: f64) -> Self {
        Self { name, measured, bound: Bound::Within(least, most) }
    }

    fn asked(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::Within(least, most) => format!("{least} to {most}"),
        }
    }

    /// By the middle.
    fn met(&self) -> Option<bool> {
        let middle = self.measured?.middle;
        Some(match self.bound {
            Bound::AtMost(bound) => middle <= bound,
            Bound::AtLeast(bound) => middle >= bound,
            Bound::Within(least, most) => (least..=most).contains(&middle),
        })
    }
}

pub fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return optimised();
    }
    let plan = Plan::of(args);
    let mut versions = args.versions.clone();
    if versions.is_empty() {
        versions = if args.quick { vec!["1.27.3".into()] } else { vec!["1.26.6".into(), "1.27.3".into()] };
    }
    if plan.bpftrace {
        bpftrace::ensure()?;
    }
    let mut text = report::environment(&versions)?;
    for (section, measure) in SECTIONS {
        if args.only.is_none_or(|only| only == *section) {
            text += &measure(&versions, &plan)?;
        }
    }
    println!("{text}");
    if args.journal {
        report::journal(&text)?;
    }
    Ok(())
}

/// What a hit costs, on a Go program of each version.
fn hits_of(versions: &[String], plan: &Plan) -> Result<String> {
    let mut text = String::new();
    for version in versions {
        let (table, goals) = hits(version, &mut subject(version)?, plan)?;
        text += &format!("\n### Hits, Go {version}\n\n{table}\n{}", report::goals(&goals));
    }
    Ok(text)
}

/// What comes through in the long run, and how long it takes to begin and to end, on a Go program of each version.
fn load_of(versions: &[String], plan: &Plan) -> Result<String> {
    let mut text = String::new();
    for version in versions {
        let mut subject = subject(version)?;
        say(format!("Go {version}: sustained rate"));
        let sustained = sustained::measure(&mut subject, plan)?;
        text += &format!("\n### Load, Go {version}\n\n{}", sustained.table());
        say(format!("Go {version}: attach and detach"));
        text += &format!("\n{}", attach_time::measure(&subject, plan)?);
        text += &format!("\n{}", report::goals(&sustained.goals()));
    }
    Ok(text)
}

/// The collector in this process.
fn collector_alone(plan: &Plan) -> Result<String> {
    say("memory of the table");
    let bytes = memory::measure()?;
    say("the collector without a kernel");
    let text = format!("\n### Collector\n\n{}\n{}", collector::measure(plan)?, memory::table(bytes));
    Ok(text + &format!("\n{}", report::goals(&[memory::goal(bytes)])))
}

fn subject(version: &str) -> Result<Subject> {
    Subject::start(version).with_context(|| format!("no program of Go {version} to measure"))
}

fn hits(version: &str, subject: &mut Subject, plan: &Plan) -> Result<(String, Vec<Goal>)> {
    let mut text = String::new();
    for placement in subject.probes() {
        let (function, at, execution) = (placement.function, placement.into_function, placement.execution);
        text += &format!("- `{function}+{at}`: `{}`, {execution:?}\n", placement.instruction);
    }
    let mut goals = Vec::new();
    let (programs, maps) = KernelPrograms::load_with(Capacity::for_goroutines(0), Execs::Traced)?;
    let reader = Reader::start(maps, subject.pid())?;
    let mut tracing = Tracing { programs, reader, epoch: 0 };
    for figure in [&hits::PARK, &hits::SPAWN, &hits::SWITCH] {
        say(format!("Go {version}: {}", figure.command()));
        let measured = hits::measure(figure, subject, &mut tracing, plan)?;
        text += &format!("\n{}", measured.table());
        goals.extend(measured.goals());
    }
    Ok((text, goals))
}

/// Goes on as an optimised build of ourselves: the reader is part of what is measured.
fn optimised() -> Result<()> {
    say("building with optimisations");
    execute(cargo().args(["build", "--quiet", "--release", "--package", "xtask"]))?;
    let program = target().join("release/xtask");
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

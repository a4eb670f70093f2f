//! What a park and a spawn cost the target under each kind of probe.
//!
//! One process, one command, and round by round: bare, each kind of probe in turn, then all again. So whatever the
//! machine does besides is shared by all kinds, and every ratio is taken within its round. Costs are the target's CPU
//! time, which other processes' time does not count into; the clock's is shown beside.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use gotracer::probes::catalogue::Event;
use gotracer::probes::{KernelPrograms, Placement, Probes};
use gotracer::session;
use gotracer_ebpf::{Control, MODE_EVENTS, MODE_LIFECYCLE, MODE_STATES};

use super::bpftrace::{Bpftrace, GMON, XGOTOP_GOROUTINES};
use super::reader::{Reader, Seen};
use super::stats::{Spread, shown};
use super::subject::{Subject, Took};
use super::{Goal, Plan};

/// A kind of probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bare,
    /// The empty program on the instruction where ours stands.
    Empty,
    /// The empty program at the function's entry.
    EmptyAtEntry,
    /// Ours, the one for this event, with its event read.
    One,
    /// As [`Kind::One`], where the kernel keeps states.
    OneKept,
    /// Ours, for every event.
    All,
    /// Ours, where the kernel keeps states.
    States,
    /// Ours for births and ends.
    Lifecycle,
    Bpftrace,
    /// What others probe, by bpftrace.
    Xgotop,
    Gmon,
}

const KINDS: [Kind; 11] = [
    Kind::Bare,
    Kind::Empty,
    Kind::EmptyAtEntry,
    Kind::One,
    Kind::OneKept,
    Kind::All,
    Kind::States,
    Kind::Lifecycle,
    Kind::Bpftrace,
    Kind::Xgotop,
    Kind::Gmon,
];

impl Kind {
    fn is_bpftrace(self) -> bool {
        matches!(self, Self::Bpftrace | Self::Xgotop | Self::Gmon)
    }
}

/// What is measured.
pub struct Figure {
    /// What the subject is told, before a number.
    command: &'static str,
    unit: &'static str,
    event: Event,
    /// What others probe to see the same.
    entry_of: &'static str,
}

pub const PARK: Figure = Figure { command: "park", unit: "park", event: Event::Blocked, entry_of: "runtime.gopark" };
/// A goroutine that yields to another: it does not park, so that only runs are seen.
pub const SWITCH: Figure =
    Figure { command: "switch", unit: "switch", event: Event::Running, entry_of: "runtime.execute" };
pub const SPAWN: Figure =
    Figure { command: "spawn", unit: "spawn", event: Event::Created, entry_of: "runtime.newproc1" };

/// One run of the command.
#[derive(Clone, Copy)]
struct Sample {
    took: Took,
    seen: Seen,
}

impl Figure {
    pub fn command(&self) -> &'static str {
        self.command
    }
}

impl Sample {
    fn cost(&self) -> f64 {
        self.took.cpu_ns / self.took.count
    }
}

/// All runs of one kind, by round.
struct Samples {
    kind: Kind,
    /// The command's argument: as much as fills the time of one run.
    argument: Option<u64>,
    rounds: Vec<Sample>,
}

/// Where the kernel programs and their events are.
pub struct Tracing {
    pub programs: KernelPrograms,
    pub reader: Reader,
    /// Of the kernel's records; another for each run.
    pub epoch: u32,
}

/// What is attached during one run.
enum Attached {
    Nothing,
    Probes(Probes),
    /// And whether it counts each of what the subject does.
    Bpftrace(Bpftrace, bool),
}

/// The figures of all kinds.
pub struct Measured {
    figure: &'static Figure,
    kinds: Vec<Samples>,
}

/// Measures in rounds.
pub fn measure(figure: &'static Figure, subject: &mut Subject, tracing: &mut Tracing, plan: &Plan) -> Result<Measured> {
    let kinds = KINDS.into_iter().filter(|kind| plan.bpftrace || !kind.is_bpftrace());
    let mut kinds: Vec<Samples> = kinds.map(|kind| Samples { kind, argument: None, rounds: Vec::new() }).collect();
    for _ in 0..plan.rounds {
        for samples in &mut kinds {
            let attached = attach(figure, samples.kind, subject, tracing)?;
            let argument = match samples.argument {
                Some(known) => known,
                None => *samples.argument.insert(argument_for(figure, subject, plan)?),
            };
            // Of the trial, and of other Go processes' `execve`.
            tracing.reader.take()?;
            let took = subject.run(&format!("{} {argument}", figure.command))?;
            let ran = took.count as u64;
            detach(figure, attached, ran, tracing)?;
            let seen = tracing.reader.take()?;
            samples.rounds.push(Sample { took, seen });
        }
    }
    Ok(Measured { figure, kinds })
}

/// How much of the command fills the time of one run, under what is attached now.
fn argument_for(figure: &Figure, subject: &mut Subject, plan: &Plan) -> Result<u64> {
    const TRIAL: u64 = 2_000;
    let command = format!("{} {TRIAL}", figure.command);
    subject.run(&command)?;
    let took = subject.run(&command)?;
    Ok(((plan.run.as_nanos() as f64 / took.ns.max(1.0)) * TRIAL as f64).max(TRIAL as f64) as u64)
}

fn attach(figure: &Figure, kind: Kind, subject: &Subject, tracing: &mut Tracing) -> Result<Attached> {
    let own = subject.probe(figure.event)?;
    let at_entry = subject.at_entry(figure.event, figure.entry_of)?;
    let placements: Vec<Placement> = match kind {
        Kind::Bare => return Ok(Attached::Nothing),
        Kind::Bpftrace | Kind::Xgotop | Kind::Gmon => {
            let functions = match kind {
                Kind::Xgotop => XGOTOP_GOROUTINES,
                Kind::Gmon => GMON,
                _ => &[figure.entry_of],
            };
            let bpftrace = Bpftrace::attach(subject.pid(), subject.path(), subject.program(), functions)?;
            // Others may have a function that this load does not call.
            let counts_all = kind == Kind::Bpftrace;
            return Ok(Attached::Bpftrace(bpftrace, counts_all));
        }
        Kind::Empty => vec![Placement { program: "nothing", ..own.clone() }],
        Kind::EmptyAtEntry => vec![at_entry],
        Kind::One | Kind::OneKept => vec![own.clone()],
        Kind::All | Kind::States => subject.probes().to_vec(),
        Kind::Lifecycle => subject.probes().iter().filter(|p| is_of_lives(p.event)).cloned().collect(),
    };
    let program = subject.program();
    let mode = match kind {
        Kind::OneKept | Kind::States => MODE_STATES,
        Kind::Lifecycle => MODE_LIFECYCLE,
        _ => MODE_EVENTS,
    };
    tracing.programs.know(subject.pid(), session::entry(program))?;
    tracing.epoch += 1;
    tracing.programs.want(subject.pid(), Control { mode, sample_shift: 0, epoch: tracing.epoch })?;
    let probes = tracing.programs.attachment(subject.pid(), &program.exe, &placements)?.attach()?;
    Ok(Attached::Probes(probes))
}

fn is_of_lives(event: Event) -> bool {
    matches!(event, Event::Created | Event::Exited)
}

fn detach(figure: &Figure, attached: Attached, ran: u64, tracing: &mut Tracing) -> Result<()> {
    match attached {
        Attached::Nothing => {}
        Attached::Probes(probes) => tracing.programs.detach(probes)?,
        Attached::Bpftrace(bpftrace, counts_all) => {
            let counted = bpftrace.stop()?;
            if counts_all && counted < ran {
                bail!("bpftrace counted {counted} calls of {} where at least {ran} were made", figure.entry_of);
            }
        }
    }
    Ok(())
}

impl Measured {
    fn of(&self, kind: Kind) -> &[Sample] {
        self.kinds.iter().find(|samples| samples.kind == kind).map_or(&[], |samples| &samples.rounds)
    }

    /// Costs over the bare program's of the same round.
    fn over_bare(&self, kind: Kind) -> Vec<f64> {
        let bare = self.of(Kind::Bare).iter();
        self.of(kind).iter().zip(bare).map(|(sample, bare)| sample.cost() - bare.cost()).collect()
    }

    /// `over_bare` of `kind` in terms of `of`'s, within each round, after dividing the first by `events`.
    fn ratio(&self, kind: Kind, of: Kind, events: f64) -> Option<Spread> {
        let (ours, theirs) = (self.over_bare(kind), self.over_bare(of));
        Spread::of(ours.iter().zip(&theirs).filter(|(_, theirs)| **theirs > 0.0).map(|(a, b)| a / events / b))
    }

    fn events_each(&self, kind: Kind) -> f64 {
        let each = self.of(kind).iter().map(|sample| sample.seen.events() as f64 / sample.took.count);
        Spread::of(each).map_or(0.0, |spread| spread.middle)
    }

    pub fn table(&self) -> String {
        let Figure { unit, .. } = self.figure;
        let mut table = format!(
            "| {unit} | ns of CPU | over bare | per event | of the empty probe | bpftrace's over this | ns by the clock | events/s | lost |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for Samples { kind, rounds, .. } in &self.kinds {
            let events = self.events_each(*kind);
            let over = self.over_bare(*kind);
            let with_events = matches!(kind, Kind::One | Kind::All | Kind::Lifecycle) && events > 0.0;
            let per_event = with_events.then(|| Spread::of(over.iter().map(|ns| ns / events))).flatten();
            let rate = rounds.iter().map(|s| s.seen.events() as f64 / s.took.ns * 1e9);
            let lost: u64 = rounds.iter().map(|sample| sample.seen.lost).sum();
            let bare = *kind == Kind::Bare;
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                self.name(*kind, events),
                shown(Spread::of(rounds.iter().map(Sample::cost)), 0),
                shown(Spread::of(over).filter(|_| !bare), 0),
                shown(per_event, 0),
                shown(self.ratio(*kind, Kind::Empty, 1.0).filter(|_| !bare), 2),
                shown(self.ratio(Kind::Bpftrace, *kind, 1.0).filter(|_| !bare), 1),
                shown(Spread::of(rounds.iter().map(|s| s.took.ns / s.took.count)), 0),
                shown(Spread::of(rate).filter(|_| with_events), 0),
                if with_events { lost.to_string() } else { "-".to_owned() },
            );
        }
        table
    }

    fn name(&self, kind: Kind, events: f64) -> String {
        let Figure { event, entry_of, .. } = self.figure;
        let event = format!("{event:?}").to_lowercase();
        match kind {
            Kind::Bare => "bare".to_owned(),
            Kind::Empty => format!("empty program where our {event} stands"),
            Kind::EmptyAtEntry => format!("empty program at the entry of {entry_of}"),
            Kind::One => format!("**ours, {event} alone**"),
            Kind::OneKept => format!("**ours, {event} alone, kept in the kernel**"),
            Kind::All => format!("**ours, --detail events** ({events:.2} events)"),
            Kind::States => format!("**ours, --detail states** ({events:.2} events)"),
            Kind::Lifecycle => format!("**ours, --detail lifecycle** ({events:.2} events)"),
            Kind::Bpftrace => format!("bpftrace, count() at the entry of {entry_of}"),
            Kind::Xgotop => "bpftrace, count() where xgotop's goroutine probes are".to_owned(),
            Kind::Gmon => "bpftrace, count() where gmon's probes are".to_owned(),
        }
    }

    /// What a park may cost; no bound is set for a spawn.
    pub fn goals(&self) -> Vec<Goal> {
        if self.figure.event != Event::Blocked {
            return Vec::new();
        }
        let events = self.events_each(Kind::All).max(1.0);
        let of_empty = |name: &str, kind, events| {
            Goal::at_most(format!("{name}, of the empty probe"), self.ratio(kind, Kind::Empty, events), 1.6)
        };
        let kept = |name: &str, kind, hits| {
            Goal::at_most(format!("{name}, of the empty probe"), self.ratio(kind, Kind::Empty, hits), 1.25)
        };
        let mut goals = vec![
            of_empty("a park with our probe for it", Kind::One, 1.0),
            of_empty("an event of a park with --detail events", Kind::All, events),
            kept("a park with our probe for it, kept in the kernel", Kind::OneKept, 1.0),
            kept("a hit of a park with --detail states", Kind::States, events),
        ];
        if !self.of(Kind::Bpftrace).is_empty() {
            for (name, kind) in [("our probe for it", Kind::One), ("all four of ours", Kind::All)] {
                let name = format!("bpftrace's park, of a park with {name}");
                goals.push(Goal::at_least(name, self.ratio(Kind::Bpftrace, kind, 1.0), 12.0));
            }
        }
        goals
    }
}

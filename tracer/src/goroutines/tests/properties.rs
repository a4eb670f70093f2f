//! Random processes, traced: what the table says must be what happened.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::simulation::{Life, PID, Process, Random, Reading, STEP_NS, Traced};
use crate::events::{Event, LossCause, Transition};
use crate::goroutines::{
    Coverage, End, Goroutine, GoroutineTable, Limits, Log2Histogram, SnapshotGoroutine, State, Totals,
};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

const END: u64 = 20_000;

/// A life's figures from its steps alone: the reference.
struct Figures {
    running_ns: u64,
    runnable_ns: u64,
    blocks: Vec<(u8, u64)>,
    parks: Vec<u8>,
}

fn figures(life: &Life) -> Figures {
    let mut figures = Figures { running_ns: 0, runnable_ns: 0, blocks: Vec::new(), parks: Vec::new() };
    let (mut state, mut since) = (State::Runnable, life.created());
    for step in &life.steps[1..] {
        let ns = step.time - since;
        match (state, step.transition) {
            (State::Running, Transition::Running) => continue,
            (State::Runnable, _) => figures.runnable_ns += ns,
            (State::Running, _) => figures.running_ns += ns,
            (State::Blocked { reason }, _) => figures.blocks.push((reason, ns)),
        }
        since = step.time;
        state = State::Running;
        if let Transition::Blocked { reason } = step.transition {
            figures.parks.push(reason);
            state = State::Blocked { reason };
        }
    }
    figures
}

/// All that the table should say of a goroutine that was traced from its creation. The site is compared by address.
fn whole(life: &Life, table: &GoroutineTable, said: &Goroutine) -> Goroutine {
    let figures = figures(life);
    let (state, since) = match life.final_state() {
        _ if life.exited() => (State::Running, life.steps[life.steps.len() - 1].time),
        state => state,
    };
    assert_eq!(table.site_addresses(said.site), Some((life.gopc, life.startpc)));
    Goroutine {
        goid: life.goid,
        parent: life.parent,
        site: said.site,
        state,
        since: MonotonicNs(since),
        since_estimated: false,
        created: MonotonicNs(life.created()),
        first_seen: false,
        estimated: false,
        last_event: life.steps.last().map(|step| MonotonicNs(step.time)),
        running_ns: figures.running_ns,
        blocked_ns: figures.blocks.iter().map(|&(_, ns)| ns).sum(),
        runnable_ns: figures.runnable_ns,
        longest_block_ns: figures.blocks.iter().map(|&(_, ns)| ns).max().unwrap_or(0),
        parks: figures.parks.len() as u64,
    }
}

/// The live set, each state, and each creation site are the truth.
fn assert_live(table: &GoroutineTable, lives: &[&Life]) {
    assert_live_but(table, lives, |_| false);
}

/// As [`assert_live`], but for the state of goroutines of which it cannot be known.
fn assert_live_but(table: &GoroutineTable, lives: &[&Life], unknowable: impl Fn(&Life) -> bool) {
    let truth: BTreeMap<_, _> = lives.iter().filter(|life| !life.exited()).map(|life| (life.goid, life)).collect();
    let said: BTreeMap<_, _> = table.iter().map(|goroutine| (goroutine.goid, goroutine)).collect();
    assert_eq!(said.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (goid, life) in truth {
        let said = &said[&goid];
        assert_eq!(table.site_addresses(said.site), Some((life.gopc, life.startpc)), "{said:?}");
        assert_eq!(said.parent, life.parent);
        let (state, _) = life.final_state();
        // A goroutine that a snapshot found queued, and that did nothing since, can be no better known.
        if !(said.state == State::Runnable && said.last_event.is_none() || unknowable(life)) {
            assert_eq!(said.state, state, "{said:?}");
        }
    }
}

/// What must hold after anything at all.
fn assert_consistent(table: &GoroutineTable) {
    let totals = table.totals();
    let begun = totals.created + totals.first_seen;
    let ended = totals.exited + totals.ended_unseen + totals.ended_by_exec;
    assert_eq!(begun - ended, table.live().total());
    assert_eq!(table.iter().count() as u64, table.live().total());
    let goids: BTreeSet<_> = table.iter().map(|goroutine| goroutine.goid).collect();
    assert_eq!(goids.len() as u64, table.live().total(), "a goid is live twice");
    let sum = |figure: fn(&crate::goroutines::Site) -> u64| table.sites().iter().map(figure).sum::<u64>();
    assert_eq!(sum(|site| site.created), totals.created);
    assert_eq!(sum(|site| site.first_seen), totals.first_seen);
    assert_eq!(sum(|site| site.exited), totals.exited);
    assert_eq!(sum(|site| site.ended_unseen), totals.ended_unseen);
    assert_eq!(sum(|site| site.ended_by_exec), totals.ended_by_exec);
    assert_eq!(sum(|site| site.blocked_events), totals.blocked);
    assert_eq!(sum(|site| site.live.runnable), table.live().runnable);
    assert_eq!(sum(|site| site.live.running), table.live().running);
    assert_eq!(sum(|site| site.live.blocked), table.live().blocked);
    assert_eq!(table.reasons().map(|(_, stats)| stats.parks).sum::<u64>(), totals.blocked);
    for (id, site) in table.sites().iter().enumerate() {
        let live = table.iter().filter(|goroutine| goroutine.site.0 as usize == id).count() as u64;
        assert_eq!(site.live.total(), live);
    }
}

/// Every figure of every goroutine traced from its creation is the truth; and the totals.
fn assert_exact(traced: &Traced, lives: &[&Life], attach: u64) {
    let table = &traced.table;
    for &life in lives.iter().filter(|life| life.created() >= attach) {
        if life.exited() {
            let ended: Vec<_> = traced.ended.iter().filter(|ended| ended.goroutine.goid == life.goid).collect();
            assert_eq!(ended.len(), 1);
            assert_eq!(ended[0].end, End::Exited);
            assert_eq!(ended[0].goroutine, whole(life, table, &ended[0].goroutine));
        } else {
            let said = table.get(life.goid).expect("live");
            assert_eq!(said, whole(life, table, &said));
        }
    }
    assert_totals(table, lives, attach);
}

fn assert_totals(table: &GoroutineTable, lives: &[&Life], attach: u64) {
    let steps = |wanted: fn(&Transition) -> bool| {
        let steps = lives.iter().flat_map(|life| &life.steps);
        steps.filter(|step| step.time >= attach && wanted(&step.transition)).count() as u64
    };
    let there = |life: &&&Life| life.created() < attach && life.steps.last().is_some_and(|step| step.time >= attach);
    let silent = |life: &&&Life| !life.exited() && life.steps.last().is_some_and(|step| step.time < attach);
    assert_eq!(
        table.totals(),
        Totals {
            created: steps(|t| matches!(t, Transition::Created { .. })),
            first_seen: (lives.iter().filter(there).count() + lives.iter().filter(silent).count()) as u64,
            exited: steps(|t| *t == Transition::Exited),
            blocked: steps(|t| matches!(t, Transition::Blocked { .. })),
            running: steps(|t| *t == Transition::Running),
            ..Totals::default()
        }
    );
    assert_eq!(table.uncertain_since(), None);
}

/// A reading that begins at or after `after` and is read some time later, slowly.
fn reading(random: &mut Random, after: u64, early: bool) -> Reading {
    let begin = after + random.below(500);
    let from = begin + STEP_NS + random.below(100);
    Reading { begin, from, to: from + random.below(3000), early }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn traced_from_the_start_every_figure_is_exact(seed in any::<u64>(), goroutines in 0u64..60) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, goroutines, END);
        let traced = process.trace(&mut random, 0, &[], 0..0);
        let lives: Vec<_> = process.lives.iter().collect();
        assert_live(&traced.table, &lives);
        assert_exact(&traced, &lives, 0);
        assert_consistent(&traced.table);
        // Sites and wait reasons add up the same lives.
        for site in &traced.table.sites()[1..] {
            let here = || lives.iter().filter(|life| (life.gopc, life.startpc) == (site.gopc, site.startpc));
            let mut lifetimes = Log2Histogram::default();
            here().filter(|life| life.exited()).for_each(|life| {
                lifetimes.add(life.steps[life.steps.len() - 1].time - life.created());
            });
            prop_assert_eq!(&site.lifetimes, &lifetimes);
            prop_assert_eq!(site.created, here().count() as u64);
            let ns: u64 = here().flat_map(|life| figures(life).blocks).map(|(_, ns)| ns).sum();
            prop_assert_eq!(site.blocked_ns, ns);
        }
        for (reason, stats) in traced.table.reasons() {
            let mut blocks = Log2Histogram::default();
            let mut blocked_ns = 0;
            for (_, ns) in lives.iter().flat_map(|life| figures(life).blocks).filter(|&(of, _)| of == reason) {
                blocks.add(ns);
                blocked_ns += ns;
            }
            prop_assert_eq!(&stats.blocks, &blocks);
            prop_assert_eq!(stats.blocked_ns, blocked_ns);
        }
    }

    #[test]
    fn attached_midway_nobody_is_missing_and_none_counts_twice(seed in any::<u64>(), goroutines in 0u64..60) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, goroutines, END);
        let attach = random.below(END / 2);
        let mut readings = vec![reading(&mut random, attach, false)];
        if random.below(2) == 0 {
            // A second one on a table that lacks nothing must change nothing.
            let after = readings[0].to + 1000;
            readings.push(reading(&mut random, after, false));
        }
        let traced = process.trace(&mut random, attach, &readings, 0..0);
        let lives: Vec<_> = process.lives.iter().collect();
        assert_live(&traced.table, &lives);
        assert_exact(&traced, &lives, attach);
        assert_consistent(&traced.table);
    }

    /// The caller did not wait for the events of the time of the reading.
    #[test]
    fn a_merge_that_comes_too_early_still_counts_right(seed in any::<u64>(), goroutines in 0u64..60) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, goroutines, END);
        let attach = random.below(END / 2);
        let readings = [reading(&mut random, attach, true)];
        let traced = process.trace(&mut random, attach, &readings, 0..0);
        let lives: Vec<_> = process.lives.iter().collect();
        assert_live(&traced.table, &lives);
        assert_totals(&traced.table, &lives, attach);
        assert_consistent(&traced.table);
    }

    #[test]
    fn after_loss_and_repair_the_live_set_is_the_truth(seed in any::<u64>(), goroutines in 0u64..60) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, goroutines, END);
        let attach = random.below(END / 4);
        let first = reading(&mut random, attach, false);
        let lossy_from = first.to + 400;
        let lossy_to = lossy_from + random.below(4000);
        // Noticed by the first drain after the last loss at the latest: some 300 ns later.
        let repair = reading(&mut random, lossy_to + 400, false);
        let traced = process.trace(&mut random, attach, &[first, repair], lossy_from..lossy_to);
        let lives: Vec<_> = process.lives.iter().collect();
        // Its block was lost and it was woken before it was read: "in a run queue" could be a preemption as well.
        let silent = |life: &Life| life.steps.last().is_none_or(|step| step.time < repair.begin);
        assert_live_but(&traced.table, &lives, |life| life.queued_during(repair) && silent(life));
        assert_consistent(&traced.table);
        prop_assert_eq!(traced.table.uncertain_since(), None);
        for life in lives.iter().filter(|life| life.created() > repair.to && !life.exited()) {
            let said = traced.table.get(life.goid).expect("live");
            prop_assert_eq!(&said, &whole(life, &traced.table, &said));
        }
    }

    #[test]
    fn a_loss_that_is_not_repaired_is_said(seed in any::<u64>()) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, 60, END);
        let traced = process.trace(&mut random, 0, &[], 3000..9000);
        assert_consistent(&traced.table);
        prop_assert_eq!(traced.table.totals().lost > 0, traced.table.uncertain_since().is_some());
    }

    #[test]
    fn goids_that_come_again_after_exec_are_other_goroutines(seed in any::<u64>(), goroutines in 1u64..30) {
        let mut random = Random(seed);
        let process = Process::generate(&mut random, goroutines, END).exec(&mut random, goroutines);
        let exec = process.exec.expect("made so");
        let traced = process.trace(&mut random, 0, &[], 0..0);
        let (old, new): (Vec<_>, Vec<_>) = process.lives.iter().partition(|life| life.created() < exec);
        assert_live(&traced.table, &new);
        assert_consistent(&traced.table);
        let totals = traced.table.totals();
        prop_assert_eq!(totals.created, 2 * goroutines);
        prop_assert_eq!(totals.ended_by_exec, old.iter().filter(|life| !life.exited()).count() as u64);
        prop_assert_eq!(totals.exited, process.lives.iter().filter(|life| life.exited()).count() as u64);
        prop_assert_eq!(traced.table.generation(), 1);
        prop_assert_eq!(totals.before_exec, 0);
        for life in new.iter().filter(|life| !life.exited()) {
            let said = traced.table.get(life.goid).expect("live");
            prop_assert_eq!(&said, &whole(life, &traced.table, &said));
        }
    }

    /// A hostile target: any event, any snapshot, any time, in any order.
    #[test]
    fn anything_at_all_leaves_the_table_consistent(
        steps in prop::collection::vec((0u8..12, 0u64..6, any_time(), any_time(), any::<u8>()), 0..200)
    ) {
        let mut table = GoroutineTable::with_limits(PID, Limits { live: 4, sites: 2, exits_while_read: 3 });
        for (kind, id, time, other, byte) in steps {
            let (goid, at) = (Goid(id), MonotonicNs(time));
            let (gopc, startpc) = (RemoteAddr(other % 4), RemoteAddr(u64::from(byte) % 2));
            let state = match byte % 3 { 0 => State::Runnable, 1 => State::Running, _ => State::Blocked { reason: byte } };
            let goroutine = |transition| Event::Goroutine { time: at, pid: PID, goid, transition };
            match kind {
                0 | 1 => table.apply(&goroutine(Transition::Created { parent: Goid(other), gopc, startpc })),
                2 | 3 => table.apply(&goroutine(Transition::Running)),
                4 | 5 => table.apply(&goroutine(Transition::Blocked { reason: byte })),
                6 => table.apply(&goroutine(Transition::Exited)),
                7 => table.apply(&Event::Lost { time: at, cpu: 0, count: other, cause: LossCause::BufferFull }),
                8 if byte < 60 => table.apply(&Event::Exec { time: at, pid: PID }),
                8 => table.apply(&Event::Exec { time: at, pid: Pid(other as u32) }),
                9 => table.begin_snapshot(at),
                _ => {
                    let since = (byte > 100).then_some(MonotonicNs(other));
                    let read = SnapshotGoroutine { goid, parent: goid, gopc, startpc, state, since };
                    let twin = SnapshotGoroutine { state: State::Running, ..read };
                    let more = SnapshotGoroutine { goid: Goid(id + 1), ..read };
                    let coverage = if kind == 10 { Coverage::Whole } else { Coverage::Part };
                    let _ = table.merge_snapshot(at, MonotonicNs(other), &[read, twin, more], coverage);
                }
            }
            assert_consistent(&table);
            prop_assert!(table.live().total() <= 4 && table.sites().len() <= 3);
        }
    }
}

fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..50, 0u64..50, any::<u64>(), Just(u64::MAX)]
}

/// The simulation is worth something only if it makes the hard cases.
#[test]
fn the_simulation_makes_late_events() {
    let late: u64 = (0..50)
        .map(|seed| {
            let mut random = Random(seed);
            Process::generate(&mut random, 50, END).trace(&mut random, 0, &[], 0..0).late
        })
        .sum();
    assert!(late > 50, "{late} late events in 50 runs");
}

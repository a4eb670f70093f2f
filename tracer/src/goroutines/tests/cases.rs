//! Single cases, by name.

use super::simulation::PID;
use crate::events::{Event, LossCause, Transition};
use crate::goroutines::{
    Coverage, End, GoroutineTable, Limits, LiveByState, MergeRefused, MergeReport, SiteId, SnapshotGoroutine, State,
};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

const CREATED: Transition = Transition::Created { parent: Goid(1), gopc: RemoteAddr(10), startpc: RemoteAddr(20) };
const BLOCKED: Transition = Transition::Blocked { reason: 14 };
const RUNNING: Transition = Transition::Running;
const EXITED: Transition = Transition::Exited;

fn event(time: u64, goid: u64, transition: Transition) -> Event {
    Event::Goroutine { time: MonotonicNs(time), pid: PID, goid: Goid(goid), transition }
}

fn lost(time: u64) -> Event {
    Event::Lost { time: MonotonicNs(time), cpu: 0, count: 5, cause: LossCause::BufferFull }
}

fn exec(time: u64) -> Event {
    Event::Exec { time: MonotonicNs(time), pid: PID }
}

fn table(steps: &[(u64, u64, Transition)]) -> GoroutineTable {
    let mut table = GoroutineTable::new(PID);
    apply(&mut table, steps);
    table
}

fn apply(table: &mut GoroutineTable, steps: &[(u64, u64, Transition)]) {
    for &(time, goid, transition) in steps {
        table.apply(&event(time, goid, transition));
    }
}

fn read(goid: u64, state: State) -> SnapshotGoroutine {
    let (parent, gopc, startpc) = (Goid(1), RemoteAddr(10), RemoteAddr(20));
    SnapshotGoroutine { goid: Goid(goid), parent, gopc, startpc, state, since: None }
}

fn merge(
    table: &mut GoroutineTable,
    (from, to): (u64, u64),
    goroutines: &[SnapshotGoroutine],
) -> Result<MergeReport, MergeRefused> {
    table.merge_snapshot(MonotonicNs(from), MonotonicNs(to), goroutines, Coverage::Whole)
}

fn state(table: &GoroutineTable, goid: u64) -> Option<State> {
    table.get(Goid(goid)).map(|goroutine| goroutine.state)
}

#[test]
fn a_life_in_full() {
    let mut table =
        table(&[(100, 5, CREATED), (130, 5, RUNNING), (200, 5, BLOCKED), (1200, 5, RUNNING), (1250, 5, BLOCKED)]);
    let now = table.get(Goid(5)).expect("live");
    assert_eq!((now.parent, now.created, now.since), (Goid(1), MonotonicNs(100), MonotonicNs(1250)));
    assert_eq!((now.runnable_ns, now.running_ns, now.blocked_ns), (30, 120, 1000));
    assert_eq!((now.longest_block_ns, now.parks, now.state), (1000, 2, State::Blocked { reason: 14 }));
    let later = now.at(MonotonicNs(5250));
    assert_eq!((later.blocked_ns, later.longest_block_ns, later.running_ns), (5000, 4000, 120));

    apply(&mut table, &[(1300, 5, RUNNING)]);
    let mut ended = Vec::new();
    table.apply_with(&event(1400, 5, EXITED), |life| ended.push(life.clone()));
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].end, ended[0].time, ended[0].lifetime_ns()), (End::Exited, MonotonicNs(1400), Some(1300)));
    assert_eq!((ended[0].goroutine.running_ns, ended[0].goroutine.blocked_ns), (220, 1050));

    let site = &table.sites()[1];
    assert_eq!((site.gopc, site.startpc), (RemoteAddr(10), RemoteAddr(20)));
    assert_eq!((site.created, site.exited, site.blocked_events, site.blocked_ns), (1, 1, 2, 1050));
    assert_eq!((site.live, site.lifetimes.buckets()[10]), (LiveByState::default(), 1));
    let (reason, stats) = table.reasons().next().expect("one");
    assert_eq!((reason, stats.parks, stats.blocked_ns, stats.blocks.count()), (14, 2, 1050, 2));
}

#[test]
fn two_runs_in_a_row_are_a_preemption_and_change_nothing() {
    let table = table(&[(1, 5, CREATED), (2, 5, RUNNING), (50, 5, RUNNING), (60, 5, BLOCKED)]);
    assert_eq!(table.get(Goid(5)).map(|g| (g.running_ns, g.estimated)), Some((58, false)));
    assert_eq!(table.totals().running, 2);
}

#[test]
fn an_exit_without_creation_is_a_whole_goroutine_of_unknown_site_and_lifetime() {
    let table = table(&[(10, 5, EXITED)]);
    let totals = table.totals();
    assert_eq!((totals.created, totals.first_seen, totals.exited, table.live().total()), (0, 1, 1, 0));
    let unknown = table.site(SiteId::UNKNOWN).expect("always there");
    assert_eq!((unknown.first_seen, unknown.exited, unknown.lifetimes.count()), (1, 1, 0));
}

#[test]
fn a_goid_created_twice_ended_unseen_in_between() {
    let table = table(&[(10, 5, CREATED), (20, 5, CREATED)]);
    let totals = table.totals();
    assert_eq!((totals.created, totals.ended_unseen, table.live().total()), (2, 1, 1));
    assert_eq!(table.get(Goid(5)).map(|g| g.created), Some(MonotonicNs(20)));
}

#[test]
fn a_step_that_lacks_the_one_before_is_an_estimate_and_no_measured_block() {
    let table = table(&[(1, 5, CREATED), (2, 5, RUNNING), (10, 5, BLOCKED), (90, 5, BLOCKED), (95, 5, RUNNING)]);
    assert_eq!(table.get(Goid(5)).map(|g| (g.blocked_ns, g.parks, g.estimated)), Some((85, 2, true)));
    // The second block was seen at both ends.
    assert_eq!(table.reasons().next().map(|(_, stats)| stats.blocks.count()), Some(1));
}

#[test]
fn other_processes_are_passed_over_but_their_losses_may_be_ours() {
    let mut table = table(&[(1, 5, CREATED)]);
    let pid = Pid(PID.0 + 1);
    table.apply(&Event::Goroutine { time: MonotonicNs(2), pid, goid: Goid(6), transition: CREATED });
    table.apply(&Event::Exec { time: MonotonicNs(3), pid });
    assert_eq!((table.live().total(), table.generation()), (1, 0));
    table.apply(&lost(4));
    assert_eq!((table.totals().lost, table.uncertain_since()), (5, Some(MonotonicNs(4))));
}

#[test]
fn exec_ends_all_and_says_how() {
    let mut table = table(&[(1, 5, CREATED), (2, 6, CREATED), (3, 6, EXITED)]);
    let mut ends = Vec::new();
    table.apply_with(&exec(10), |life| ends.push((life.goroutine.goid, life.end)));
    assert_eq!(ends, [(Goid(5), End::Exec)]);
    apply(&mut table, &[(9, 7, BLOCKED), (11, 5, CREATED)]);
    let totals = table.totals();
    assert_eq!((totals.created, totals.exited, totals.ended_by_exec, totals.before_exec), (3, 1, 1, 1));
    assert_eq!((table.generation(), table.live().total()), (1, 1));
    // The same addresses in another program are another site.
    let generations: Vec<_> = table.sites()[1..].iter().map(|site| (site.generation, site.created)).collect();
    assert_eq!(generations, [(0, 2), (1, 1)]);
}

#[test]
fn a_snapshot_brings_those_who_lived_before() {
    let mut table = GoroutineTable::new(PID);
    table.begin_snapshot(MonotonicNs(100));
    let slept = SnapshotGoroutine { since: Some(MonotonicNs(30)), ..read(5, State::Blocked { reason: 2 }) };
    let report = merge(&mut table, (110, 120), &[slept, read(6, State::Running)]);
    assert_eq!(report, Ok(MergeReport { added: 2, ..MergeReport::default() }));
    let five = table.get(Goid(5)).expect("added");
    assert!(five.first_seen && five.since_estimated && five.last_event.is_none());
    assert_eq!((five.created, five.since, five.parent), (MonotonicNs(30), MonotonicNs(30), Goid(1)));
    assert_eq!(table.sites()[1].first_seen, 2);
    // The block began unseen: it counts as blocked time, not as a measured block.
    apply(&mut table, &[(230, 5, RUNNING)]);
    let (_, stats) = table.reasons().next().expect("one");
    assert_eq!((stats.parks, stats.blocked_ns, stats.blocks.count()), (0, 200, 0));
}

#[test]
fn who_exits_while_the_snapshot_is_read_is_not_raised_from_the_dead() {
    let mut table = table(&[(1, 5, CREATED)]);
    table.begin_snapshot(MonotonicNs(100));
    apply(&mut table, &[(101, 5, EXITED), (102, 6, EXITED)]);
    let report = merge(&mut table, (110, 120), &[read(5, State::Running), read(6, State::Running)]);
    assert_eq!(report, Ok(MergeReport::default()));
    assert_eq!((table.live().total(), table.totals().exited), (0, 2));
}

#[test]
fn a_creation_that_comes_after_its_snapshot_is_not_counted_twice() {
    let mut table = GoroutineTable::new(PID);
    table.begin_snapshot(MonotonicNs(100));
    merge(&mut table, (110, 120), &[read(5, State::Runnable)]).expect("merged");
    apply(&mut table, &[(109, 5, CREATED), (125, 5, RUNNING)]);
    let totals = table.totals();
    assert_eq!((totals.created, totals.first_seen, table.live().total()), (1, 0, 1));
    let five = table.get(Goid(5)).expect("live");
    assert_eq!((five.created, five.first_seen, five.runnable_ns), (MonotonicNs(109), false, 16));
}

#[test]
fn a_goroutine_known_by_a_park_alone_gets_its_site_and_takes_its_parks_there() {
    let mut table = table(&[(90, 5, BLOCKED), (95, 5, RUNNING)]);
    table.begin_snapshot(MonotonicNs(100));
    let report = merge(&mut table, (110, 120), &[read(5, State::Running)]);
    assert_eq!(report, Ok(MergeReport { named: 1, ..MergeReport::default() }));
    assert_eq!((table.sites()[0].blocked_events, table.sites()[0].blocked_ns, table.sites()[0].first_seen), (0, 0, 0));
    assert_eq!((table.sites()[1].blocked_events, table.sites()[1].blocked_ns, table.sites()[1].first_seen), (1, 5, 1));
}

#[test]
fn the_snapshot_gives_the_state_where_events_are_older_than_its_begin() {
    let blocked = State::Blocked { reason: 14 };
    let mut table = table(&[(1, 5, CREATED), (2, 6, CREATED), (3, 6, RUNNING)]);
    table.begin_snapshot(MonotonicNs(100));
    apply(&mut table, &[(101, 6, RUNNING)]);
    let report = merge(&mut table, (110, 120), &[read(5, blocked), read(6, blocked)]);
    assert_eq!(report, Ok(MergeReport { corrected: 1, ..MergeReport::default() }));
    assert_eq!((state(&table, 5), state(&table, 6)), (Some(blocked), Some(State::Running)));
    let five = table.get(Goid(5)).expect("live");
    assert!(five.estimated && five.since_estimated && !five.first_seen);
    assert_eq!((five.since, five.parks), (MonotonicNs(110), 0));
}

#[test]
fn woken_or_preempted_is_still_blocked_or_running() {
    let mut table = table(&[(1, 5, RUNNING), (2, 5, BLOCKED), (3, 6, RUNNING)]);
    table.begin_snapshot(MonotonicNs(100));
    let report = merge(&mut table, (110, 120), &[read(5, State::Runnable), read(6, State::Runnable)]);
    assert_eq!(report.map(|report| report.corrected), Ok(0));
    assert_eq!((state(&table, 5), state(&table, 6)), (Some(State::Blocked { reason: 14 }), Some(State::Running)));
}

#[test]
fn a_snapshot_begun_after_the_loss_was_noticed_repairs_it() {
    let mut table = table(&[(1, 5, CREATED), (2, 6, CREATED)]);
    table.apply(&lost(50));
    table.begin_snapshot(MonotonicNs(100));
    let report = merge(&mut table, (110, 120), &[read(6, State::Running), read(7, State::Running)]);
    assert_eq!(report, Ok(MergeReport { added: 1, named: 0, corrected: 1, ended_unseen: 1 }));
    assert_eq!(table.uncertain_since(), None);
    assert_eq!((table.totals().ended_unseen, table.totals().lost, table.live().total()), (1, 5, 2));
    // It happened before the snapshot, whenever the word of it comes.
    table.apply(&lost(60));
    assert_eq!((table.totals().lost, table.uncertain_since()), (10, None));
}

#[test]
fn a_loss_noticed_after_the_begin_stays_open() {
    let mut table = table(&[(1, 5, CREATED)]);
    table.apply(&lost(50));
    table.begin_snapshot(MonotonicNs(100));
    table.apply(&lost(105));
    merge(&mut table, (110, 120), &[read(5, State::Running)]).expect("merged");
    assert_eq!(table.uncertain_since(), Some(MonotonicNs(100)));
}

#[test]
fn part_of_a_snapshot_removes_and_repairs_nothing() {
    let mut table = table(&[(1, 5, CREATED)]);
    table.apply(&lost(50));
    table.begin_snapshot(MonotonicNs(100));
    let read = [read(6, State::Running)];
    let report = table.merge_snapshot(MonotonicNs(110), MonotonicNs(120), &read, Coverage::Part);
    assert_eq!(report, Ok(MergeReport { added: 1, ..MergeReport::default() }));
    assert_eq!((table.live().total(), table.uncertain_since()), (2, Some(MonotonicNs(50))));
}

#[test]
fn what_a_hasty_merge_removed_comes_back_with_its_next_event_for_a_second() {
    let second = 1_000_000_000;
    for (time, comes_back) in [(115, true), (120 + second, true), (121 + second, false)] {
        let mut table = table(&[(1, 5, CREATED), (2, 5, RUNNING)]);
        table.begin_snapshot(MonotonicNs(100));
        assert_eq!(merge(&mut table, (110, 120), &[]).map(|report| report.ended_unseen), Ok(1));
        apply(&mut table, &[(time, 5, EXITED)]);
        let totals = table.totals();
        let counted = (totals.created, totals.first_seen, totals.exited, totals.ended_unseen);
        assert_eq!(counted, if comes_back { (1, 0, 1, 0) } else { (1, 1, 1, 1) });
    }
}

#[test]
fn a_snapshot_that_cannot_be_right_is_refused_and_changes_nothing() {
    let alive = [read(6, State::Running)];
    let mut table = table(&[(1, 5, CREATED)]);
    assert_eq!(merge(&mut table, (110, 120), &alive), Err(MergeRefused::NotBegun));
    table.begin_snapshot(MonotonicNs(100));
    assert_eq!(merge(&mut table, (99, 120), &alive), Err(MergeRefused::Times));
    table.begin_snapshot(MonotonicNs(100));
    assert_eq!(merge(&mut table, (110, 109), &alive), Err(MergeRefused::Times));
    assert_eq!(table.live().total(), 1);
    table.begin_snapshot(MonotonicNs(100));
    table.apply(&exec(105));
    assert_eq!(merge(&mut table, (110, 120), &alive), Err(MergeRefused::Exec));
    assert_eq!(table.live().total(), 0);
    // The word of an exec that was over before the begin comes late: the snapshot is of the new program.
    table.begin_snapshot(MonotonicNs(200));
    table.apply(&exec(199));
    assert_eq!(merge(&mut table, (210, 220), &alive).map(|report| report.added), Ok(1));
}

#[test]
fn limits_bound_what_is_kept_and_what_they_turn_away_is_counted() {
    let mut table = GoroutineTable::with_limits(PID, Limits { live: 2, sites: 1, exits_while_read: 1 });
    let elsewhere = Transition::Created { parent: Goid(1), gopc: RemoteAddr(11), startpc: RemoteAddr(20) };
    apply(&mut table, &[(1, 5, CREATED), (2, 6, elsewhere), (3, 7, CREATED)]);
    assert_eq!((table.live().total(), table.totals().refused), (2, 1));
    assert_eq!((table.sites().len(), table.sites()[0].created), (2, 1));
    table.begin_snapshot(MonotonicNs(100));
    apply(&mut table, &[(101, 5, EXITED), (102, 6, EXITED)]);
    assert_eq!(merge(&mut table, (110, 120), &[]), Err(MergeRefused::TooManyExits));
}

#[test]
fn who_was_removed_does_not_come_back_over_the_limit() {
    let mut table = GoroutineTable::with_limits(PID, Limits { live: 1, ..Limits::default() });
    apply(&mut table, &[(1, 5, CREATED)]);
    table.begin_snapshot(MonotonicNs(100));
    merge(&mut table, (110, 120), &[]).expect("merged");
    apply(&mut table, &[(130, 6, CREATED), (131, 5, RUNNING)]);
    assert_eq!((table.live().total(), table.totals().ended_unseen, table.totals().refused), (1, 1, 1));
}

#[test]
fn all_at_once_is_the_same_as_one_by_one() {
    let steps: Vec<_> = (0..2000u64)
        .map(|n| {
            let transition = match n % 4 {
                0 => CREATED,
                1 => RUNNING,
                2 => BLOCKED,
                _ => EXITED,
            };
            event(n, n * 7 % 100, transition)
        })
        .collect();
    let (mut one, mut all) = (GoroutineTable::new(PID), GoroutineTable::new(PID));
    steps.iter().for_each(|event| one.apply(event));
    all.apply_all(&steps);
    assert_eq!(one.totals(), all.totals());
    assert_eq!(one.iter().collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());
}

//! The governor against simulated targets: it sees what its level lets it see, and pays what its level costs.

use super::*;
use crate::governor::level::{round_seconds, slice_seconds};
use crate::governor::price::HitCost;

const COST: HitCost = HitCost { unwanted_ns: 640.0, event_ns: 1100.0, kept_ns: 740.0 };
const COSTS: HitCosts = HitCosts { created: COST, blocked: COST, running: COST, exited: COST, lingers_s: 0.1 };

/// What a target does by itself, a second.
#[derive(Clone, Copy)]
struct Load {
    lives: f64,
    transitions: f64,
    cpus: f64,
}

const QUIET: Load = Load { lives: 10.0, transitions: 100.0, cpus: 0.2 };
const BUSY: Load = Load { lives: 50_000.0, transitions: 800_000.0, cpus: 2.0 };

struct Simulation {
    governor: Governor,
    budget: f64,
    /// Seconds for which probes are really hit after a slice.
    lingers_s: f64,
    /// Periods over the budget in a row, now and at most.
    over: u32,
    longest_over: u32,
    changes: Vec<(usize, Level)>,
    periods: usize,
    /// The runtime's own count of goroutines cannot be read.
    blind: bool,
    /// What tracing took, in seconds of what the budget is a share of, and of how many.
    spent: f64,
    seconds: f64,
}

impl Simulation {
    fn new(percent: f64) -> Self {
        let budget = Budget::new(percent / 100.0).expect("a budget");
        Self {
            governor: Governor::new(budget, COSTS, Level::Events, None),
            budget: percent / 100.0,
            lingers_s: COSTS.lingers_s,
            over: 0,
            longest_over: 0,
            changes: Vec::new(),
            periods: 0,
            blind: false,
            spent: 0.0,
            seconds: 0.0,
        }
    }

    /// One period, seen as the level allows.
    fn period(&mut self, load: Load) {
        let level = self.governor.level();
        let (seconds, share, unwanted) = match level {
            Level::SlicedStates { permille } => {
                let round = round_seconds(permille);
                (round, slice_seconds(permille) / round, load.transitions / 2.0 * self.lingers_s)
            }
            Level::Events | Level::States => (1.0, 1.0, 0.0),
            _ => (1.0, 0.0, 0.0),
        };
        let attached = if level == Level::Snapshots { 0.0 } else { 1.0 };
        let count = |rate: f64| (rate * seconds) as u64;
        let hits = Hits {
            created: count(load.lives / 2.0 * attached),
            exited: count(load.lives / 2.0 * attached),
            blocked: count(load.transitions / 2.0 * share),
            running: count(load.transitions / 2.0 * share),
            unwanted: unwanted as u64,
            ..Hits::default()
        };
        let ns: f64 = COSTS.of_hits(level, &hits).iter().sum();
        let period = Period {
            seconds,
            cpu_seconds: load.cpus * seconds + ns / 1e9,
            hits,
            transitions: (share > 0.0).then_some(load.transitions),
            slices: u64::from(unwanted > 0.0),
            created: (!self.blind).then_some(load.lives / 2.0),
        };
        let cost = self.governor.cost(&period);
        self.spent += cost * seconds;
        self.seconds += seconds;
        self.over = if cost > self.budget { self.over + 1 } else { 0 };
        self.longest_over = self.longest_over.max(self.over);
        self.periods += 1;
        if let Some((to, _)) = self.governor.step(&period) {
            self.changes.push((self.periods, to));
        }
    }

    fn periods(&mut self, count: usize, load: impl Fn(usize) -> Load) {
        for n in 0..count {
            self.period(load(n));
        }
    }
}

#[test]
fn a_quiet_target_is_told_of_in_full() {
    let mut simulation = Simulation::new(1.0);
    simulation.periods(40, |_| QUIET);
    assert_eq!(simulation.governor.level(), Level::Events);
    assert_eq!(simulation.longest_over, 0);
}

#[test]
fn a_step_up_is_answered_within_two_periods_whatever_its_height() {
    for percent in [0.1, 1.0, 5.0, 20.0] {
        for factor in [2.0, 10.0, 100.0, 10_000.0] {
            for cpus in [0.01, 1.0, 8.0] {
                let mut simulation = Simulation::new(percent);
                simulation.periods(60, |_| QUIET);
                let load = Load { lives: QUIET.lives * factor, transitions: QUIET.transitions * factor, cpus };
                simulation.periods(200, |_| load);
                assert!(
                    simulation.longest_over <= 2,
                    "{percent} %, {factor} times, {cpus} CPUs: {} periods over, {:?}",
                    simulation.longest_over,
                    simulation.changes
                );
            }
        }
    }
}

#[test]
fn probes_that_linger_longer_than_expected_are_known_after_one_slice() {
    for lingers_s in [0.01, 0.1, 0.3, 0.6] {
        let mut simulation = Simulation::new(2.0);
        simulation.lingers_s = lingers_s;
        simulation.periods(60, |_| QUIET);
        simulation.periods(200, |_| Load { lives: 40.0, transitions: 400_000.0, cpus: 1.05 });
        assert!(simulation.longest_over <= 2, "{lingers_s} s: {:?}", simulation.changes);
        let slices = matches!(simulation.governor.level(), Level::SlicedStates { .. });
        assert!(slices, "{lingers_s} s: {:?}", simulation.changes);
    }
}

#[test]
fn births_and_ends_stay_exact_while_states_are_given_up() {
    let mut simulation = Simulation::new(5.0);
    simulation.periods(100, |_| Load { lives: 20_000.0, ..BUSY });
    let lives: Vec<Level> = simulation.changes.iter().map(|(_, level)| *level).collect();
    assert!(lives.iter().all(|level| *level >= Level::Lifecycle), "{lives:?}");
    assert!(matches!(simulation.governor.level(), Level::SlicedStates { .. }), "{:?}", simulation.governor.level());
}

#[test]
fn what_even_lives_are_too_dear_for_is_sampled_and_then_only_looked_at() {
    let mut simulation = Simulation::new(1.0);
    simulation.periods(100, |_| Load { lives: 20_500.0, transitions: 100_000.0, cpus: 2.0 });
    assert!(matches!(simulation.governor.level(), Level::SampledLifecycle { .. }), "{:?}", simulation.changes);
    simulation.periods(100, |_| Load { lives: 1_000_000.0, ..BUSY });
    assert_eq!(simulation.governor.level(), Level::Snapshots, "{:?}", simulation.changes);
    assert!(simulation.longest_over <= 2);
    simulation.periods(200, |_| QUIET);
    assert_eq!(simulation.governor.level(), Level::Events, "{:?}", simulation.changes);
}

#[test]
fn bursts_do_not_make_it_swing_for_ever() {
    let mut simulation = Simulation::new(1.0);
    // A burst of two periods in every ten.
    simulation.periods(600, |n| if n % 10 < 2 { BUSY } else { QUIET });
    assert!(simulation.longest_over <= 2, "{}", simulation.longest_over);
    let late = simulation.changes.iter().filter(|(at, _)| *at > 300).count();
    assert!(late <= 24, "{late} changes in the last 300 periods: {:?}", simulation.changes);
}

#[test]
fn an_oscillating_load_ends_on_a_level_that_fits_its_peak() {
    let mut simulation = Simulation::new(2.0);
    simulation.periods(800, |n| if n % 2 == 0 { BUSY } else { Load { transitions: BUSY.transitions / 2.0, ..BUSY } });
    assert!(simulation.longest_over <= 2, "{}", simulation.longest_over);
    let late = simulation.changes.iter().filter(|(at, _)| *at > 400).count();
    assert!(late <= 12, "{late} changes in the last 400 periods: {:?}", simulation.changes);
}

#[test]
fn what_was_spent_beyond_the_budget_is_saved_before_the_next_try() {
    for percent in [0.5, 1.0, 5.0] {
        let mut simulation = Simulation::new(percent);
        // With nothing attached it looks as if goroutines were never made: each rise is a mistake.
        simulation.blind = true;
        simulation.periods(2_000, |_| Load { lives: 200_000.0, ..BUSY });
        assert!(simulation.changes.len() > 10, "{percent} %: {:?}", simulation.changes);
        let mean = simulation.spent / simulation.seconds * 100.0;
        // The last mistake may not be saved yet.
        assert!(mean < percent * 1.2, "{percent} %: {mean} %, {:?}", simulation.changes);
    }
}

#[test]
fn what_a_target_does_before_anything_is_attached_decides_where_to_begin() {
    let first = |created| {
        let budget = Budget::new(0.01).expect("a budget");
        let seen = Period { seconds: 0.1, cpu_seconds: 0.1, created: Some(created), ..Period::default() };
        Governor::new(budget, COSTS, Level::Events, Some(&seen)).level()
    };
    // Of 1 % of one CPU half: 5 ms a second, for births and ends of 1.1 us each.
    assert!(matches!(first(100.0), Level::SlicedStates { .. }), "{}", first(100.0));
    assert_eq!(first(2_270.0), Level::Lifecycle);
    assert!(matches!(first(2_280.0), Level::SampledLifecycle { .. }), "{}", first(2_280.0));
    assert_eq!(first(100_000.0), Level::Snapshots);
}

#[test]
fn what_was_not_asked_for_is_not_given() {
    for most in [Level::Lifecycle, Level::States] {
        let budget = Budget::new(0.5).expect("a budget");
        let mut governor = Governor::new(budget, COSTS, most, None);
        let period = Period { seconds: 1.0, cpu_seconds: 1.0, transitions: Some(1.0), ..Period::default() };
        for _ in 0..100 {
            governor.step(&period);
            assert!(governor.level() <= most);
        }
        assert_eq!(governor.level(), most);
    }
}

#[test]
fn a_period_that_is_spent_before_its_end_is_known_to_be() {
    let governor = Governor::new(Budget::new(0.01).expect("a budget"), COSTS, Level::Lifecycle, None);
    let begun = |created| Period {
        seconds: 0.1,
        cpu_seconds: 0.1,
        hits: Hits { created, ..Hits::default() },
        ..Period::default()
    };
    // 1 % of a second of one CPU are 10 ms: 9,091 births.
    assert!(!governor.is_spent(&begun(9_000), 1.0));
    assert!(governor.is_spent(&begun(9_200), 1.0));
}

#[test]
fn births_have_no_more_than_a_second_of_a_long_period() {
    let governor = Governor::new(Budget::new(0.01).expect("a budget"), COSTS, Level::Events, None);
    assert!(matches!(governor.level(), Level::SlicedStates { .. }), "{}", governor.level());
    let begun = |hits| Period { seconds: 0.1, cpu_seconds: 0.1, hits, ..Period::default() };
    let born = |created| begun(Hits { created, ..Hits::default() });
    assert!(!governor.is_spent(&born(9_000), 10.0));
    assert!(governor.is_spent(&born(9_200), 10.0));
    // What a slice takes, at 740 ns a park, has the whole period: 100 ms are 135,135 parks.
    let parked = |blocked| begun(Hits { blocked, ..Hits::default() });
    assert!(!governor.is_spent(&parked(135_000), 10.0));
    assert!(governor.is_spent(&parked(135_200), 10.0));
}

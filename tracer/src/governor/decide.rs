//! The choice of the level.
//!
//! After each period: over the budget, the level falls at once to the richest that is expected to fit. Below it, the
//! level rises when a richer one is expected to fit with room to spare, for some periods in a row; each rise that has to
//! be taken back makes the next one wait twice as long. What was spent beyond the budget is a debt, and none rises before
//! that is saved again: so the mean of all periods stays in the budget, too. Births and ends stay exact as long as
//! anything does: all that can be given up of states is given up first.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::price::{HitCosts, Rates};
use super::{Budget, Level, Why};
use crate::events::Hits;

/// Below this, a target counts as using so much of a CPU: a share of next to nothing is of no use to anybody.
const LEAST_CPUS: f64 = 0.05;
/// What is expected must be so much of the budget at most: when falling, and when rising.
const WHEN_FALLING: f64 = 0.8;
const WHEN_RISING: f64 = 0.5;
/// Periods that a richer level must fit before it is taken, at first and at most.
const PATIENCE: u32 = 3;
const MOST_PATIENCE: u32 = 64;
/// A rise that lasted so many periods was no mistake.
const PROVEN: u32 = 10;
/// Periods after which a rate that nobody has seen since is forgotten.
const FORGET: u32 = 30;

/// What happened in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Period {
    /// How long it was.
    pub seconds: f64,
    /// CPU time that the target used, tracing included.
    pub cpu_seconds: f64,
    /// Hits of probes.
    pub hits: Hits,
    /// Parks and runs a second, where slices of the time were looked at.
    pub transitions: Option<f64>,
    /// Slices that ended in it.
    pub slices: u64,
    /// Goroutines created a second, by the runtime's own count where it can be read: it tells where nothing is attached.
    pub created: Option<f64>,
}

/// Keeps the price of tracing one target within a budget.
#[derive(Clone, Debug)]
pub struct Governor {
    budget: Budget,
    costs: HitCosts,
    most: Level,
    level: Level,
    /// Rates of the last periods, newest last.
    recent: VecDeque<Rates>,
    /// Periods since parks and runs were last counted.
    unseen: u32,
    /// Periods for which a richer level has been fitting.
    fitting: u32,
    patience: u32,
    /// What was spent beyond the budget and not saved since, in seconds of what the budget is a share of.
    debt: f64,
    /// Periods since the last rise; the most there is if it was followed by a fall.
    since_rise: u32,
}

impl Period {
    fn rates(&self, level: Level) -> Rates {
        let seconds = self.seconds.max(1e-3);
        let each = |count: u64| count as f64 / seconds;
        let lives = match level {
            // As many end as begin, in the long run.
            Level::Snapshots => self.created.unwrap_or(0.0) * 2.0,
            _ => each(self.hits.created + self.hits.exited),
        };
        let transitions = match level {
            Level::Events | Level::States => Some(each(self.hits.blocked + self.hits.running)),
            Level::SlicedStates { .. } => self.transitions,
            _ => None,
        };
        Rates { lives, transitions, cpus: (self.cpu_seconds / seconds).max(LEAST_CPUS) }
    }

    /// For how long one of the two probes of a slice was still hit after its end, where slices tell.
    fn lingers_s(&self) -> Option<f64> {
        let of_one = self.transitions.filter(|rate| *rate > 0.0)? / 2.0;
        (self.slices > 0).then(|| self.hits.unwanted as f64 / self.slices as f64 / of_one)
    }
}

impl Governor {
    /// Begins at what fits a target as it was `seen` with nothing attached; of states, which nobody has seen, with what
    /// is safe at any load. Of a target that is not known at all, at the least that tells of every goroutine. `most` is the
    /// level to rise to.
    #[must_use]
    pub fn new(budget: Budget, costs: HitCosts, most: Level, seen: Option<&Period>) -> Self {
        let mut governor = Self {
            budget,
            costs,
            most,
            level: Level::Lifecycle.min(most),
            recent: VecDeque::new(),
            unseen: 0,
            fitting: 0,
            patience: PATIENCE,
            debt: 0.0,
            since_rise: u32::MAX,
        };
        let unknown = Rates { lives: 0.0, transitions: None, cpus: LEAST_CPUS };
        let rates = seen.map_or(unknown, |period| period.rates(Level::Snapshots));
        governor.level = governor.richest(&rates, WHEN_RISING);
        governor
    }

    /// The level that holds.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The share of what the budget is a share of that hits took; above the budget's, this period was too dear.
    #[must_use]
    pub fn cost(&self, period: &Period) -> f64 {
        self.share_of(period, self.costs.of_hits(self.level, &period.hits).iter().sum())
    }

    fn share_of(&self, period: &Period, ns: f64) -> f64 {
        let cpus = period.rates(self.level).cpus;
        ns / 1e9 / (cpus * period.seconds.max(1e-3))
    }

    /// Whether a period that is not over is too dear already, whatever comes: it would be if it lasted `seconds`. Births and
    /// ends, which do not come in slices, may not take what slices are given so long for: they have a second.
    #[must_use]
    pub fn is_spent(&self, begun: &Period, seconds: f64) -> bool {
        let [created, _, _, exited] = self.costs.of_hits(self.level, &begun.hits);
        let lives = self.share_of(begun, created + exited);
        let beyond = |cost: f64, least: f64| cost * begun.seconds > self.budget.share() * begun.seconds.max(least);
        beyond(self.cost(begun), seconds) || beyond(lives, seconds.min(1.0))
    }

    /// A period is over: the level for the next, if it is another.
    pub fn step(&mut self, period: &Period) -> Option<(Level, Why)> {
        let cost = self.cost(period);
        let rates = self.learn(period);
        if let Some(lingers_s) = period.lingers_s() {
            // At once when they stay longer than was thought, bit by bit when shorter: the next time is as uncertain.
            self.costs.lingers_s = lingers_s.max((self.costs.lingers_s * 3.0 + lingers_s) / 4.0);
        }
        self.debt = (self.debt + (cost - self.budget.share()) * period.seconds).max(0.0);
        self.since_rise = self.since_rise.saturating_add(1);
        if cost > self.budget.share() {
            if self.since_rise <= PROVEN {
                self.patience = (self.patience * 2).min(MOST_PATIENCE);
            }
            self.since_rise = u32::MAX;
            self.fitting = 0;
            // Whatever was expected of this level was wrong.
            let level = self.richest(&rates, WHEN_FALLING).min(self.next_below());
            return self.change(level, Why::OverBudget { cost });
        }
        if self.since_rise == PROVEN {
            self.patience = PATIENCE;
        }
        let peak = self.peak();
        let richer = self.richest(&peak, WHEN_RISING);
        if richer <= self.level {
            self.fitting = 0;
            return None;
        }
        self.fitting += 1;
        if self.fitting < self.patience || self.debt > 0.0 {
            return None;
        }
        self.fitting = 0;
        self.since_rise = 0;
        let expected = self.costs.expected(richer, &peak) / peak.cpus;
        self.change(richer, Why::Fits { expected })
    }

    fn change(&mut self, level: Level, why: Why) -> Option<(Level, Why)> {
        let changed = level != self.level;
        self.level = level;
        changed.then_some((level, why))
    }

    /// Takes note of a period's rates, and fills in what it does not tell from those before.
    fn learn(&mut self, period: &Period) -> Rates {
        let mut rates = period.rates(self.level);
        if rates.transitions.is_some() {
            self.unseen = 0;
        } else {
            self.unseen = self.unseen.saturating_add(1);
            if self.unseen <= FORGET {
                rates.transitions = self.recent.back().and_then(|last| last.transitions);
            }
        }
        if self.recent.len() == PATIENCE as usize {
            self.recent.pop_front();
        }
        self.recent.push_back(rates);
        rates
    }

    /// The dearest of the last periods.
    fn peak(&self) -> Rates {
        let most = |of: fn(&Rates) -> f64| self.recent.iter().map(of).fold(0.0, f64::max);
        let transitions = self.recent.iter().map(|rates| rates.transitions).collect::<Option<Vec<f64>>>();
        Rates {
            lives: most(|rates| rates.lives),
            transitions: transitions.map(|all| all.into_iter().fold(0.0, f64::max)),
            cpus: self.recent.iter().map(|rates| rates.cpus).fold(f64::INFINITY, f64::min).max(LEAST_CPUS),
        }
    }

    /// The richest level that is expected to take at most `part` of the budget.
    fn richest(&self, rates: &Rates, part: f64) -> Level {
        let limit = self.budget.share() * part * rates.cpus;
        let fits = |level: &Level| *level <= self.most && self.costs.expected(*level, rates) <= limit;
        levels().find(fits).unwrap_or(Level::Snapshots)
    }

    fn next_below(&self) -> Level {
        levels().find(|level| *level < self.level).unwrap_or(Level::Snapshots)
    }
}

/// All levels that are chosen from, richest first.
fn levels() -> impl Iterator<Item = Level> {
    const SLICES: [u16; 9] = [500, 200, 100, 50, 20, 10, 5, 2, 1];
    const SAMPLES: [u32; 6] = [2, 4, 8, 16, 32, 64];
    [Level::Events, Level::States]
        .into_iter()
        .chain(SLICES.into_iter().map(|permille| Level::SlicedStates { permille }))
        .chain([Level::Lifecycle])
        .chain(SAMPLES.into_iter().map(|of| Level::SampledLifecycle { of: Reverse(of) }))
        .chain([Level::Snapshots])
}

#[cfg(test)]
mod tests;

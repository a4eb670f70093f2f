//! What hits cost, and what they would cost at another level.

use super::Level;
use super::level::{round_seconds, slice_seconds};
use crate::events::Hits;

/// Nanoseconds of the target's CPU time that one hit of one kind of probe takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HitCost {
    /// The trap alone: what it reports is not wanted.
    pub unwanted_ns: f64,
    /// With its event.
    pub event_ns: f64,
    /// Where the kernel keeps states.
    pub kept_ns: f64,
}

/// Of each kind, in this program on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HitCosts {
    /// A goroutine comes to be.
    pub created: HitCost,
    /// A goroutine parks.
    pub blocked: HitCost,
    /// A goroutine is given a thread.
    pub running: HitCost,
    /// A goroutine ends.
    pub exited: HitCost,
    /// Seconds for which one of the two probes of a slice is still hit after its end: as expected, until slices tell.
    pub lingers_s: f64,
}

/// How often things happen, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Goroutines that come to be, and those that end.
    pub lives: f64,
    /// Parks and runs; `None` where nobody has looked.
    pub transitions: Option<f64>,
    /// CPUs that the target uses; what a budget is a share of.
    pub cpus: f64,
}

impl HitCosts {
    /// Nanoseconds of CPU time that hits took at `level`, by kind: created, blocked, running, exited.
    #[must_use]
    pub fn of_hits(&self, level: Level, hits: &Hits) -> [f64; 4] {
        let of = |cost: &HitCost, hits: u64| {
            let each = match level {
                Level::Events | Level::Lifecycle => cost.event_ns,
                Level::States | Level::SlicedStates { .. } => cost.kept_ns,
                Level::SampledLifecycle { of } => sampled(cost, of.0),
                Level::Snapshots => cost.unwanted_ns,
            };
            each * hits as f64
        };
        let lives = |cost: &HitCost, hits: u64| {
            let sliced = matches!(level, Level::SlicedStates { .. });
            if sliced { cost.event_ns * hits as f64 } else { of(cost, hits) }
        };
        // Which of the two lingers is not counted apart.
        let unwanted = (self.blocked.unwanted_ns + self.running.unwanted_ns) / 4.0 * hits.unwanted as f64;
        [
            lives(&self.created, hits.created),
            of(&self.blocked, hits.blocked) + unwanted,
            of(&self.running, hits.running) + unwanted,
            lives(&self.exited, hits.exited),
        ]
    }

    /// CPUs that tracing at `level` is expected to take of a target with these rates.
    #[must_use]
    pub fn expected(&self, level: Level, rates: &Rates) -> f64 {
        let life = |of: fn(&HitCost) -> f64| (of(&self.created) + of(&self.exited)) / 2.0 * rates.lives / 1e9;
        let transition = |of: fn(&HitCost) -> f64| (of(&self.blocked) + of(&self.running)) / 2.0 / 1e9;
        // A probe cannot take more than all that the target has.
        let transitions = |cost: f64| rates.transitions.map_or(rates.cpus, |rate| (rate * cost).min(rates.cpus));
        match level {
            Level::Events => life(|cost| cost.event_ns) + transitions(transition(|cost| cost.event_ns)),
            Level::States => life(|cost| cost.kept_ns) + transitions(transition(|cost| cost.kept_ns)),
            Level::SlicedStates { permille } => {
                let within = slice_seconds(permille) * transitions(transition(|cost| cost.kept_ns));
                let after = self.lingers_s * transitions(transition(|cost| cost.unwanted_ns)) / 2.0;
                life(|cost| cost.event_ns) + (within + after) / round_seconds(permille)
            }
            Level::Lifecycle => life(|cost| cost.event_ns),
            Level::SampledLifecycle { of } => {
                (sampled(&self.created, of.0) + sampled(&self.exited, of.0)) / 2.0 * rates.lives / 1e9
            }
            Level::Snapshots => 0.0,
        }
    }
}

/// The id is read and looked at before a goroutine is passed over: taken for a fifth of what the rest takes.
fn sampled(cost: &HitCost, of: u32) -> f64 {
    const LOOK: f64 = 0.2;
    let rest = cost.event_ns - cost.unwanted_ns;
    cost.unwanted_ns + rest * (LOOK + (1.0 - LOOK) / f64::from(of.max(1)))
}

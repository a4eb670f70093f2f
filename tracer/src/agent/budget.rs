//! What watching may cost, and what is left out when it costs more. Pure: figures and times in, a level out.
//!
//! Probes stand in a file and serve all its processes, so it is a file whose level changes: all events; births and ends
//! alone, with states from readings of memory; or nothing attached. Down at once, up after a while that doubles with each
//! fall, so that a load at the edge does not make it swing.

use std::time::{Duration, Instant};

use serde::Serialize;

/// What is attached to a file: richest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing: goroutines are read from memory now and then.
    Snapshots,
    /// Births and ends of goroutines; what they do in between is read now and then.
    Lifecycle,
    /// Every transition.
    Events,
}

impl Level {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::Lifecycle => "lifecycle",
            Self::Events => "events",
        }
    }

    fn lower(self) -> Self {
        match self {
            Self::Events => Self::Lifecycle,
            Self::Lifecycle | Self::Snapshots => Self::Snapshots,
        }
    }

    fn higher(self) -> Self {
        match self {
            Self::Snapshots => Self::Lifecycle,
            Self::Lifecycle | Self::Events => Self::Events,
        }
    }
}

/// The first wait before more is tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// After so long without a fall the next one counts as the first.
const CALM: Duration = Duration::from_secs(7200);

/// The level of one file.
#[derive(Clone, Copy, Debug)]
pub struct Governor {
    level: Level,
    changed: Option<Instant>,
    wait: Duration,
}

impl Default for Governor {
    fn default() -> Self {
        Self { level: Level::Events, changed: None, wait: WAITS.0 }
    }
}

impl Governor {
    /// The level now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes the cost of the last sample, as a share of what it may be: above 1 is too much. Gives the new level, if it
    /// changes.
    pub fn take(&mut self, of_budget: f64, now: Instant) -> Option<Level> {
        let since = self.changed.map(|changed| now.duration_since(changed));
        if of_budget > 1.0 && self.level > Level::Snapshots {
            if since.is_some_and(|since| since > CALM) {
                self.wait = WAITS.0;
            } else if since.is_some() {
                self.wait = (self.wait * 2).min(WAITS.1);
            }
            self.level = self.level.lower();
        } else if of_budget <= 1.0 && self.level < Level::Events && since.is_some_and(|since| since >= self.wait) {
            self.level = self.level.higher();
        } else {
            return None;
        }
        self.changed = Some(now);
        Some(self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_budget_it_falls_at_once_and_rises_after_a_wait_that_doubles() {
        let (mut governor, start) = (Governor::default(), Instant::now());
        let mut at = |seconds: u64, cost: f64| governor.take(cost, start + Duration::from_secs(seconds));
        assert_eq!(at(0, 0.9), None);
        assert_eq!(at(5, 3.0), Some(Level::Lifecycle));
        assert_eq!(at(10, 0.5), None);
        assert_eq!(at(65, 0.5), Some(Level::Events));
        assert_eq!(at(70, 3.0), Some(Level::Lifecycle));
        assert_eq!(at(130, 0.5), None, "the wait has doubled");
        assert_eq!(at(190, 0.5), Some(Level::Events));
    }

    #[test]
    fn births_alone_can_be_too_much() {
        let (mut governor, start) = (Governor::default(), Instant::now());
        let mut at = |seconds: u64, cost: f64| governor.take(cost, start + Duration::from_secs(seconds));
        assert_eq!(at(0, 3.0), Some(Level::Lifecycle));
        assert_eq!(at(5, 2.0), Some(Level::Snapshots));
        assert_eq!(at(10, 2.0), None, "less than nothing cannot be attached");
    }

    #[test]
    fn a_storm_of_an_hour_is_tried_a_few_times() {
        let (mut governor, start) = (Governor::default(), Instant::now());
        let mut falls = 0;
        for second in (0..3600).step_by(5) {
            let cost = if governor.level() == Level::Events { 5.0 } else { 0.1 };
            let changed = governor.take(cost, start + Duration::from_secs(second));
            falls += u32::from(changed == Some(Level::Lifecycle));
        }
        assert!((2..=7).contains(&falls), "{falls}");
    }
}

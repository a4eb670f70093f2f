//! The levels of detail between which a governor chooses.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::probes::Detail;

/// What is attached, and what it tells: richest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is attached: goroutines are read from the process's memory now and then.
    Snapshots,
    /// Births and ends of one goroutine in `of`, chosen by their ids, so that a whole life is in or out. All are
    /// counted.
    SampledLifecycle {
        /// A power of two, 2 or more.
        of: std::cmp::Reverse<u32>,
    },
    /// Births and ends; states from snapshots.
    Lifecycle,
    /// Births and ends; states from records that the kernel keeps in slices of the time.
    SlicedStates {
        /// The slices' share of the time, in thousandths.
        permille: u16,
    },
    /// Births and ends; states from records that the kernel keeps.
    States,
    /// Each transition.
    Events,
}

impl Level {
    /// The level at which nothing is left out of `detail`.
    #[must_use]
    pub fn of(detail: Detail) -> Self {
        match detail {
            Detail::Events => Self::Events,
            Detail::States => Self::States,
            Detail::Lifecycle => Self::Lifecycle,
        }
    }

    /// Its name, without its figure.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::States => "states",
            Self::SlicedStates { .. } => "sliced_states",
            Self::Lifecycle => "lifecycle",
            Self::SampledLifecycle { .. } => "sampled_lifecycle",
            Self::Snapshots => "snapshots",
        }
    }

    /// The level of this name, as recordings have it; its figure, which the name does not tell, is the richest.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Events,
            Self::States,
            Self::SlicedStates { permille: 1000 },
            Self::Lifecycle,
            Self::SampledLifecycle { of: std::cmp::Reverse(2) },
            Self::Snapshots,
        ];
        all.into_iter().find(|level| level.name() == name)
    }

    /// What is known of births and ends.
    #[must_use]
    pub fn lives(self) -> Quality {
        match self {
            Self::Events | Self::States | Self::SlicedStates { .. } | Self::Lifecycle => Quality::Exact,
            Self::SampledLifecycle { .. } => Quality::Estimated,
            Self::Snapshots => Quality::Snapshot,
        }
    }

    /// What is known of states, parks and blocked time.
    #[must_use]
    pub fn states(self) -> Quality {
        match self {
            Self::Events | Self::States => Quality::Exact,
            Self::SlicedStates { .. } => Quality::Estimated,
            Self::Lifecycle | Self::SampledLifecycle { .. } | Self::Snapshots => Quality::Snapshot,
        }
    }
}

/// The shortest slice of time in which states are kept, and the shortest time from the begin of one to the next's.
const SLICE_S: f64 = 0.02;
const ROUND_S: f64 = 1.0;

/// How long a slice is that takes so many thousandths of the time, in seconds.
#[must_use]
pub fn slice_seconds(permille: u16) -> f64 {
    (ROUND_S * f64::from(permille) / 1000.0).max(SLICE_S)
}

/// How long it is from the begin of one slice to the next's, in seconds.
#[must_use]
pub fn round_seconds(permille: u16) -> f64 {
    slice_seconds(permille) * 1000.0 / f64::from(permille.max(1))
}

/// What a figure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Every one was counted.
    Exact,
    /// Scaled up from a part of the goroutines or of the time.
    Estimated,
    /// As the process's memory showed it now and then; what was between is not known.
    Snapshot,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("every event"),
            Self::States => f.write_str("states kept in the kernel"),
            Self::SlicedStates { permille } => {
                write!(f, "states kept in the kernel for {} % of the time", f64::from(*permille) / 10.0)
            }
            Self::Lifecycle => f.write_str("births and ends; states from snapshots"),
            Self::SampledLifecycle { of } => write!(f, "births and ends of 1 goroutine in {}; all counted", of.0),
            Self::Snapshots => f.write_str("snapshots alone, nothing attached"),
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            level: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            time_share: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            one_in: Option<u32>,
        }
        let (time_share, one_in) = match self {
            Self::SlicedStates { permille } => (Some(f64::from(*permille) / 1000.0), None),
            Self::SampledLifecycle { of } => (None, Some(of.0)),
            _ => (None, None),
        };
        Fields { level: self.name(), time_share, one_in }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;

    #[test]
    fn a_slice_is_long_enough_and_its_share_is_kept() {
        for permille in [1, 3, 10, 20, 100, 500] {
            let (slice, round) = (slice_seconds(permille), round_seconds(permille));
            assert!(slice >= SLICE_S && round >= ROUND_S - 1e-9, "{permille}");
            assert!((slice / round * 1000.0 - f64::from(permille)).abs() < 1e-6, "{permille}");
        }
    }

    #[test]
    fn a_level_is_found_by_its_name() {
        let all = [Level::Snapshots, Level::Lifecycle, Level::States, Level::Events];
        for level in
            all.into_iter().chain([Level::SampledLifecycle { of: Reverse(64) }, Level::SlicedStates { permille: 1 }])
        {
            assert_eq!(Level::named(level.name()).map(Level::name), Some(level.name()));
        }
        assert_eq!(Level::named("full"), None);
    }

    #[test]
    fn levels_are_in_order_of_what_they_tell() {
        let order = [
            Level::Snapshots,
            Level::SampledLifecycle { of: Reverse(64) },
            Level::SampledLifecycle { of: Reverse(2) },
            Level::Lifecycle,
            Level::SlicedStates { permille: 10 },
            Level::SlicedStates { permille: 500 },
            Level::States,
            Level::Events,
        ];
        assert!(order.is_sorted_by(|a, b| a < b));
    }
}

//! From where on something is worth a finding.

use std::time::Duration;

use serde::Serialize;

/// All thresholds, with defaults as experience gives them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Thresholds {
    /// More goroutines than this, ...
    pub goroutines: u64,
    /// ... of which more than this share is parked, are too many.
    pub parked_share: f64,
    /// Growth of a site, in goroutines a second, that is a storm ...
    pub storm_per_second: f64,
    /// ... when it holds for so many periods, one after the other, ...
    pub storm_periods: u32,
    /// ... of this length.
    pub storm_period: Duration,
    /// Fewer goroutines than this are no finding, where one alone does no harm.
    pub least: u64,
    /// So many goroutines that stand still without growing are a finding, where their wait has no visible end.
    pub standing: u64,
    /// The chance with which noise alone would look like the growth of a finding, at most.
    pub chance: f64,
    /// Findings with a lower score are not told.
    pub score: f64,
    /// A goroutine that runs for so long without parking is busy.
    pub busy: Duration,
    /// A finalizer that takes longer is blocked.
    pub finalizer: Duration,
    /// Memory that reaches its limit within this time is a finding.
    pub memory_within: Duration,
    /// Observation shorter than this gives no verdict on growth.
    pub observe: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            goroutines: 5_000,
            parked_share: 0.85,
            storm_per_second: 50.0,
            storm_periods: 3,
            storm_period: Duration::from_secs(5),
            least: 5,
            standing: 1_000,
            chance: 0.01,
            score: 0.5,
            busy: Duration::from_secs(5),
            finalizer: Duration::from_secs(5),
            memory_within: Duration::from_secs(3600),
            observe: Duration::from_secs(5),
        }
    }
}

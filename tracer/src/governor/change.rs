//! A change of level, as its users see it.

use serde::Serialize;

use super::Level;
use crate::units::MonotonicNs;

/// The level was changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// When.
    pub time_ns: MonotonicNs,
    /// From what.
    pub from: Level,
    /// To what.
    pub to: Level,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
}

/// Why a level was changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// The price was above the budget.
    OverBudget {
        /// The price of the last period, as a share of what the budget is a share of.
        cost: f64,
    },
    /// A richer level fits again.
    Fits {
        /// What it is expected to cost.
        expected: f64,
    },
}

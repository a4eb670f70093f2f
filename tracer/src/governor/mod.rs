//! The price of tracing, and keeping it within a budget.
//!
//! In: how often each probe was hit in a period, what a hit costs, how much CPU time the target used. Out: the
//! [`Overhead`], and the [`Level`] of detail for the next period. Pure: no clock, no kernel, no target.

mod budget;
mod change;
mod decide;
mod level;
mod overhead;
mod price;

pub use budget::{Budget, BudgetError};
pub use change::{Change, Why};
pub use decide::{Governor, Period};
pub use level::{Level, Quality, round_seconds, slice_seconds};
pub use overhead::{Overhead, ProbeRate};
pub use price::{HitCost, HitCosts, Rates};

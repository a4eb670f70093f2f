//! Help before the crash: when an alarm holds, evidence first, then what the configuration says.
//!
//! - [`state`] decides (pure): thresholds that hold for some samples, cool-downs, a maximum per hour;
//! - [`incident`] does it: evidence, then [`actions`], and says what came of each.

pub mod actions;
pub mod incident;
pub mod state;

pub use incident::evaluate;
pub use state::Breaker;

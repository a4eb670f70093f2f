//! Help before the crash: when an alarm holds, evidence first, then what the configuration says.
//!
//! - [`state`] decides (pure): thresholds that hold for some samples, cool-downs, a maximum per hour;
//! - [`respond`] does it: evidence, then [`actions`], and says what came of each;
//! - [`incident`] is what they tell of.

pub mod actions;
pub mod incident;
pub mod respond;
pub mod state;

pub use respond::evaluate;
pub use state::Breaker;

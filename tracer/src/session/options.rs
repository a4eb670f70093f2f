//! What a session is asked for.

use crate::governor::Budget;
use crate::probes::Detail;

/// How much a session tells, and what it may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// The most that is told; every event by default.
    pub detail: Detail,
    /// What it may cost the target: detail is given up to stay within. None by default: `detail` whatever it costs.
    pub budget: Option<Budget>,
}

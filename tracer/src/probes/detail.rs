//! How much the kernel programs tell of each goroutine.
//!
//! In: what the user asks for. Out: a name that every later stage shares. Knows nothing of budgets or loads.

use std::fmt;

use serde::Serialize;

/// What comes up from the kernel. Births and ends of goroutines are events at every detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Births and ends; what each goroutine does in between is read from the process's memory now and then.
    Lifecycle,
    /// The kernel keeps a record for each goroutine, which is read now and then: state, parks, blocked time.
    States,
    /// Each transition is an event.
    #[default]
    Events,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lifecycle => "lifecycle",
            Self::States => "states",
            Self::Events => "events",
        })
    }
}

//! The picture of `gotracer top`: a model and the views of it.
//!
//! ```text
//! table, events, readings, diagnosis --observe--> State --view::draw--> cells
//! keys, mouse ------------------keys::action----> State
//! ```
//!
//! In: the figures of a tick and what somebody wants. Out: the cells of a screen. Has no terminal, no clock and no process:
//! `cli/top` has.
//!
//! What a tick costs: the sums of each creation site, and one pass over all goroutines ([`census`]), another one over those
//! of an opened row ([`members`]). A drawing formats what is on the screen.

mod census;
mod columns;
mod cursor;
mod history;
mod json;
mod keys;
mod layout;
mod members;
mod proofs;
mod reading;
mod reasons;
mod rows;
mod sites;
mod state;
mod timeline;
mod view;
mod words;

pub use columns::Column;
pub use cursor::Motion;
pub use json::json;
pub use keys::{Action, Focus, action, apart};
pub use proofs::Proofs;
pub use reading::{Reading, Stack};
pub use rows::GroupBy;
pub use state::{Diagnosis, Effect, Facts, Hits, Pane, Price, State};
pub use view::{Look, draw, text};

use crate::goroutines;

/// A state without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// Created and not run yet.
    Runnable,
    /// Given a thread and not parked since.
    Running,
    /// Parked and not given a thread since.
    Blocked,
}

impl StateKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Runnable, Self::Running, Self::Blocked];

    /// Of a goroutine's state.
    #[must_use]
    pub fn of(state: goroutines::State) -> Self {
        match state {
            goroutines::State::Runnable => Self::Runnable,
            goroutines::State::Running => Self::Running,
            goroutines::State::Blocked { .. } => Self::Blocked,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Blocked => "blocked",
        }
    }
}

#[cfg(test)]
mod tests;

//! The objects that stand beside those of events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::output::SiteName;
use crate::recording::{End, Frame, Header, Program};
use crate::units::MonotonicNs;

/// A line that is no event; the key says what it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// What the recording says of itself: the first line.
    Recording(Header),
    Program(Program),
    Stack(Stack),
    ReadingBegun(Moment),
    Reading(Reading),
    Goroutine(Box<Parked>),
    Detail(Detail),
    /// The last line.
    End(End),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stack {
    pub(super) stack: u32,
    pub(super) frames: Vec<Frame>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) time_ns: MonotonicNs,
}

/// So many lines of goroutines follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) from_ns: MonotonicNs,
    pub(super) to_ns: MonotonicNs,
    pub(super) whole: bool,
    pub(super) goroutines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parked {
    pub(super) goid: u64,
    #[serde(default)]
    pub(super) parent: u64,
    pub(super) site: SiteName,
    pub(super) start: Arc<str>,
    pub(super) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since_ns: Option<MonotonicNs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stack: Option<u32>,
    #[serde(default)]
    pub(super) stack_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Runnable,
    Running,
    Blocked,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) time_ns: MonotonicNs,
    pub(super) level: String,
}

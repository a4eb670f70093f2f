//! Output: events and tables in the forms that people and programs read.
//!
//! In: events, tables, and [`Names`] for the addresses in them. Out: bytes. Prints nothing itself.

pub mod dump;
pub mod folded;
pub mod json;
pub mod leaks;
pub mod metrics;
pub mod otlp;
pub mod pprof;
pub mod prometheus;
pub mod proof;
pub mod recording;
pub mod report;
pub mod summary;
pub mod text;
pub mod tui;

use crate::units::{Goid, RemoteAddr};

/// Names for what a target's events hold as numbers.
pub trait Names {
    /// The `go` statement that returns to `gopc`.
    fn site(&mut self, gopc: RemoteAddr) -> SiteName;
    /// The function that begins at `startpc`.
    fn function(&mut self, startpc: RemoteAddr) -> std::sync::Arc<str>;
    /// The runtime's wait reason of this number.
    fn reason(&self, reason: u8) -> std::borrow::Cow<'_, str>;
}

/// A `go` statement: the function it stands in, and its line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SiteName {
    /// The function; its address in hexadecimal where the executable has no name for it.
    pub function: std::sync::Arc<str>,
    /// The source file as the compiler was given it; empty where not known.
    pub file: std::sync::Arc<str>,
    /// The line; 0 where not known.
    pub line: u32,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of events; empty means all.
    pub events: Vec<EventName>,
    /// One goroutine; `None` means all.
    pub goid: Option<Goid>,
}

/// The names of events, as `--only` takes them and JSON gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EventName {
    /// A goroutine came to be.
    Created,
    /// A goroutine parked.
    Blocked,
    /// A goroutine was given a thread.
    Running,
    /// A goroutine ended.
    Exited,
    /// The process replaced its program.
    Exec,
    /// Events did not reach us.
    Lost,
    /// How much is told has changed.
    Detail,
    /// What tracing cost the process in the last period.
    Overhead,
}

impl EventName {
    /// The name of an event.
    #[must_use]
    pub fn of(event: &crate::events::Event) -> Self {
        use crate::events::{Event, Transition};
        match event {
            Event::Goroutine { transition, .. } => match transition {
                Transition::Created { .. } => Self::Created,
                Transition::Blocked { .. } => Self::Blocked,
                Transition::Running => Self::Running,
                Transition::Exited => Self::Exited,
            },
            Event::Exec { .. } => Self::Exec,
            Event::Lost { .. } => Self::Lost,
        }
    }
}

/// The name of a cause of losses, as JSON has it: there is no other list of them.
#[must_use]
pub fn cause_name(cause: crate::events::LossCause) -> String {
    let name = serde_json::to_value(cause).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

impl Filter {
    /// Whether events of this name are wanted.
    fn wants_name(&self, name: EventName) -> bool {
        self.events.is_empty() || self.events.contains(&name)
    }

    /// Whether what tracing costs is wanted: it is of no goroutine, so that one's alone come without it.
    #[must_use]
    pub fn wants_overhead(&self) -> bool {
        self.wants_name(EventName::Overhead) && (self.goid.is_none() || !self.events.is_empty())
    }

    /// Whether `event` is wanted. Losses always are: they qualify everything else.
    #[must_use]
    pub fn wants(&self, event: &crate::events::Event) -> bool {
        use crate::events::Event;
        let named = self.wants_name(EventName::of(event));
        match *event {
            Event::Lost { .. } => true,
            Event::Exec { .. } => named,
            Event::Goroutine { goid, .. } => named && self.goid.is_none_or(|wanted| wanted == goid),
        }
    }
}

/// `1,204`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

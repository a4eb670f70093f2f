//! JSON lines: one object an event, as documented in docs/formats.md.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::{EventName, Names, SiteName};
use crate::events::{Event, LossCause, Transition};
use crate::governor::{Change, Overhead};
use crate::units::{Goid, MonotonicNs};

#[derive(Serialize)]
struct Line<'a> {
    event: EventName,
    time_ns: MonotonicNs,
    #[serde(skip_serializing_if = "Option::is_none")]
    goid: Option<Goid>,
    #[serde(flatten)]
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Created { parent: Goid, site: SiteName, start: Arc<str> },
    Blocked { reason: Cow<'a, str> },
    Lost { cpu: u32, count: u64, cause: LossCause },
    Nothing {},
}

/// Writes one event as one line.
///
/// # Errors
///
/// If `out` fails.
pub fn event(out: &mut impl Write, event: &Event, names: &mut impl Names) -> io::Result<()> {
    let (goid, detail) = match *event {
        Event::Goroutine { goid, transition, .. } => {
            let detail = match transition {
                Transition::Created { parent, gopc, startpc } => {
                    Detail::Created { parent, site: names.site(gopc), start: names.function(startpc) }
                }
                Transition::Blocked { reason } => Detail::Blocked { reason: names.reason(reason) },
                Transition::Running | Transition::Exited => Detail::Nothing {},
            };
            (Some(goid), detail)
        }
        Event::Exec { .. } => (None, Detail::Nothing {}),
        Event::Lost { cpu, count, cause, .. } => (None, Detail::Lost { cpu, count, cause }),
    };
    line(out, &Line { event: EventName::of(event), time_ns: event.time(), goid, detail })
}

/// Writes a change of the level of detail as one line.
///
/// # Errors
///
/// If `out` fails.
pub fn change(out: &mut impl Write, change: &Change) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'c> {
        event: EventName,
        #[serde(flatten)]
        change: &'c Change,
    }
    line(out, &Line { event: EventName::Detail, change })
}

/// Writes what tracing costs as one line.
///
/// # Errors
///
/// If `out` fails.
pub fn overhead(out: &mut impl Write, time_ns: MonotonicNs, overhead: &Overhead) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'o> {
        event: EventName,
        time_ns: MonotonicNs,
        #[serde(flatten)]
        overhead: &'o Overhead,
    }
    line(out, &Line { event: EventName::Overhead, time_ns, overhead })
}

/// Writes any value as one line.
///
/// # Errors
///
/// If `out` fails.
pub fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

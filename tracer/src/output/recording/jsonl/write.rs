//! Items into lines.
//!
//! Events are most of them, so theirs are put together from parts that were made once for each site and reason; a test
//! holds them to what `trace --json` writes.

use std::io;

use hashbrown::HashMap;
use zstd::bulk::Compressor;

use super::lines::{Detail, Line, Moment, Parked, Reading, Stack, State};
use crate::events::{Event, Transition};
use crate::goroutines::{self, Coverage};
use crate::output::{Names, json};
use crate::recording::{Encode, Header, Item, Parts, RecordedNames};
use crate::units::RemoteAddr;

/// Lines are compressed together up to so many bytes: each such part can be read by itself.
const PART: usize = 1 << 20;
/// Fast: it is to keep up.
const LEVEL: i32 = 1;

/// Writes JSON lines.
pub struct Encoder {
    names: RecordedNames,
    header: Option<Header>,
    births: HashMap<(RemoteAddr, RemoteAddr), Vec<u8>>,
    reasons: HashMap<u8, Vec<u8>>,
    lines: Vec<u8>,
    compressor: Option<Compressor<'static>>,
}

impl Encoder {
    /// Writes plain lines.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            names: RecordedNames::default(),
            header: Some(header),
            births: HashMap::new(),
            reasons: HashMap::new(),
            lines: Vec::new(),
            compressor: None,
        }
    }

    /// Writes them compressed by zstd.
    ///
    /// # Errors
    ///
    /// If zstd has no memory.
    pub fn compressed(header: Header) -> io::Result<Self> {
        Ok(Self { compressor: Some(Compressor::new(LEVEL)?), ..Self::new(header) })
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        json::line(&mut self.lines, line)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let out = &mut self.lines;
        let Event::Goroutine { time, goid, transition, .. } = *event else {
            return json::event(out, event, self.names.last());
        };
        out.extend_from_slice(match transition {
            Transition::Created { .. } => b"{\"event\":\"created\",\"time_ns\":",
            Transition::Blocked { .. } => b"{\"event\":\"blocked\",\"time_ns\":",
            Transition::Running => b"{\"event\":\"running\",\"time_ns\":",
            Transition::Exited => b"{\"event\":\"exited\",\"time_ns\":",
        });
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(time.0).as_bytes());
        out.extend_from_slice(b",\"goid\":");
        out.extend_from_slice(digits.format(goid.0).as_bytes());
        match transition {
            Transition::Created { parent, gopc, startpc } => {
                out.extend_from_slice(b",\"parent\":");
                out.extend_from_slice(digits.format(parent.0).as_bytes());
                if self.births.len() > 1 << 16 {
                    self.births.clear();
                }
                let names = self.names.last();
                let rest = self.births.entry((gopc, startpc)).or_insert_with(|| {
                    let (site, start) =
                        (serde_json::to_string(&names.site(gopc)), serde_json::to_string(&names.function(startpc)));
                    let (site, start) = (site.unwrap_or_default(), start.unwrap_or_default());
                    format!(",\"site\":{site},\"start\":{start}}}\n").into_bytes()
                });
                out.extend_from_slice(rest);
            }
            Transition::Blocked { reason } => {
                let names = self.names.last();
                let rest = self.reasons.entry(reason).or_insert_with(|| {
                    let reason = serde_json::to_string(&names.reason(reason)).unwrap_or_default();
                    format!(",\"reason\":{reason}}}\n").into_bytes()
                });
                out.extend_from_slice(rest);
            }
            Transition::Running | Transition::Exited => out.extend_from_slice(b"}\n"),
        }
        Ok(())
    }

    fn reading(&mut self, reading: &crate::recording::Reading) -> io::Result<()> {
        self.line(&Line::Reading(Reading {
            from_ns: reading.taken_from,
            to_ns: reading.taken_to,
            whole: reading.coverage == Coverage::Whole,
            goroutines: reading.goroutines.len() as u64,
        }))?;
        for parked in &reading.goroutines {
            let (g, names) = (&parked.goroutine, self.names.last());
            let (state, reason) = match g.state {
                goroutines::State::Runnable => (State::Runnable, None),
                goroutines::State::Running => (State::Running, None),
                goroutines::State::Blocked { reason } => (State::Blocked, Some(names.reason(reason).into_owned())),
            };
            let line = Line::Goroutine(Box::new(Parked {
                goid: g.goid.0,
                parent: g.parent.0,
                site: names.site(g.gopc),
                start: names.function(g.startpc),
                state,
                reason,
                since_ns: g.since,
                stack: parked.stack.map(|stack| stack.0),
                stack_bytes: parked.stack_bytes,
            }));
            self.line(&line)?;
        }
        Ok(())
    }

    /// Gives out the lines, once there are `least` bytes of them.
    fn give(&mut self, out: &mut Parts, least: usize) -> io::Result<()> {
        if self.lines.len() < least.max(1) {
            return Ok(());
        }
        match &mut self.compressor {
            Some(compressor) => out.main.extend(compressor.compress(&self.lines)?),
            None => out.main.extend_from_slice(&self.lines),
        }
        self.lines.clear();
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.header.take() {
            Some(header) => self.line(&Line::Recording(header)),
            None => Ok(()),
        }
    }
}

impl Encode for Encoder {
    fn put(&mut self, item: &Item, out: &mut Parts) -> io::Result<()> {
        self.begin()?;
        self.names.take(item);
        match item {
            Item::Events(events) => {
                for event in events {
                    self.event(event)?;
                }
            }
            Item::Program(program) => {
                self.births.clear();
                self.reasons.clear();
                self.line(&Line::Program(program.clone()))?;
            }
            Item::Definitions(definitions) => {
                self.births.clear();
                for (number, frames) in &definitions.stacks {
                    self.line(&Line::Stack(Stack { stack: number.0, frames: frames.clone() }))?;
                }
            }
            Item::ReadingBegun(time) => self.line(&Line::ReadingBegun(Moment { time_ns: *time }))?,
            Item::Reading(reading) => self.reading(reading)?,
            Item::Detail { time, level } => {
                self.line(&Line::Detail(Detail { time_ns: *time, level: level.clone() }))?;
            }
            Item::End(end) => self.line(&Line::End(end.clone()))?,
            Item::Damage(damage) => {
                if let Some(loss) = damage.as_loss(crate::units::MonotonicNs(0)) {
                    self.event(&loss)?;
                }
            }
        }
        self.give(out, if self.compressor.is_some() { PART } else { 1 })
    }

    fn flush(&mut self, out: &mut Parts) -> io::Result<()> {
        self.begin()?;
        self.give(out, 1)
    }

    fn finish(&mut self, out: &mut Parts) -> io::Result<()> {
        self.flush(out)
    }

    fn reserve(&self) -> usize {
        self.lines.len() + (4 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::samples::{any_event, header, small};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_are_as_trace_writes_them(events in prop::collection::vec(any_event(), 0..50)) {
            let mut encoder = Encoder::new(header());
            let mut parts = Parts::default();
            for item in &small(0)[..4] {
                encoder.put(item, &mut parts).expect("writes");
            }
            parts.main.clear();
            encoder.put(&Item::Events(events.clone()), &mut parts).expect("writes");
            let mut expected = Vec::new();
            for event in &events {
                json::event(&mut expected, event, encoder.names.last()).expect("writes");
            }
            prop_assert_eq!(String::from_utf8(parts.main), String::from_utf8(expected));
        }
    }
}

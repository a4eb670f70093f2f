//! The last minutes of a process's events, kept in memory until somebody wants them.
//!
//! In: events as they go into the table, and their names. Out: a whole .gtr file. A quiet process keeps its few events as
//! they are; a compressed [`Ring`], which takes a compressor's memory, is made for one that has many.

use std::time::Duration;

use hashbrown::HashSet;

use super::budget::Level;
use crate::events::{Event, Transition, now};
use crate::goroutines::{Coverage, GoroutineTable, SnapshotGoroutine};
use crate::output::Names;
use crate::recording::gtr::Ring;
use crate::recording::{Definitions, End, Header, Item, Parked, Program, Reading, wall_offset_ns};
use crate::tracee::{LoadBias, Program as TraceeProgram, TraceeNames};
use crate::units::{MonotonicNs, Pid, RemoteAddr};

/// Events kept as they are (48 bytes each) before a ring is made of them.
const PLAIN: usize = 1024;
/// Who lives is noted so often: a recording without it knows little of what was there before.
const READINGS: Duration = Duration::from_secs(20);
/// And of so many goroutines at most, but for the end of a file that is asked for.
const READ_AT_MOST: u64 = 20_000;

/// What is kept of one process.
pub struct FlightRecorder {
    header: Header,
    least: Level,
    program: Option<Program>,
    plain: Vec<Event>,
    ring: Option<Ring>,
    /// Addresses that the ring has names for.
    named: HashSet<RemoteAddr>,
    read: MonotonicNs,
    events: u64,
    lost: u64,
    most_bytes: usize,
    longest: Duration,
}

impl FlightRecorder {
    /// Begins with a process. Keeps nothing until [`FlightRecorder::limit`].
    #[must_use]
    pub fn new(pid: Pid, program: &TraceeProgram, bias: Option<LoadBias>) -> Self {
        Self {
            header: Header::here(pid, now(), Level::Events.name()),
            least: Level::Events,
            program: bias.map(|bias| Program::of(program, bias, 0)),
            plain: Vec::new(),
            ring: None,
            named: HashSet::new(),
            read: MonotonicNs(0),
            events: 0,
            lost: 0,
            most_bytes: 0,
            longest: Duration::ZERO,
        }
    }

    /// What may be kept from now on.
    pub fn limit(&mut self, most_bytes: usize, longest: Duration) {
        (self.most_bytes, self.longest) = (most_bytes, longest);
        if most_bytes == 0 {
            (self.plain, self.ring) = (Vec::new(), None);
            self.named.clear();
        }
        if let Some(ring) = &mut self.ring {
            ring.limit(most_bytes, longest);
        }
    }

    /// Events of this level come from now on. What is kept is worth what the least of all levels is.
    pub fn take_level(&mut self, level: Level) {
        self.least = self.least.min(level);
        self.header.detail = self.least.name().to_owned();
        if let Some(ring) = &mut self.ring {
            ring.set_detail(self.least.name());
        }
    }

    /// Whether it has a ring, which shares the memory with those of other processes.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.ring.is_some()
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.plain.capacity() * size_of::<Event>() + self.ring.as_ref().map_or(0, Ring::bytes)
    }

    /// Takes events. What fails is logged, and then nothing is kept of before.
    pub fn take(&mut self, events: &[Event], names: &mut TraceeNames) {
        if self.most_bytes == 0 {
            return;
        }
        for event in events {
            match event {
                Event::Lost { count, .. } => self.lost += count,
                _ => self.events += 1,
            }
        }
        for part in events.chunks(PLAIN) {
            if self.plain.len() + part.len() > PLAIN {
                self.seal(names);
            }
            self.plain.extend_from_slice(part);
        }
    }

    /// Brings the plain events into the ring.
    fn seal(&mut self, names: &mut TraceeNames) {
        let events = std::mem::take(&mut self.plain);
        let ring = match &mut self.ring {
            Some(ring) => Ok(ring),
            None => self.begin_ring().map(|ring| self.ring.insert(ring)),
        };
        let named = &mut self.named;
        let put = ring.and_then(|ring| {
            define(ring, named, created(&events), names)?;
            ring.put(&Item::Events(events))?;
            ring.flush()
        });
        if let Err(error) = put {
            log::warn!("process {}: the flight recorder begins anew: {error}", self.header.pid);
            self.ring = None;
            self.named.clear();
        }
    }

    fn begin_ring(&self) -> std::io::Result<Ring> {
        let mut ring = Ring::new(self.header.clone(), self.most_bytes, self.longest)?;
        if let Some(program) = &self.program {
            ring.put(&Item::Program(program.clone()))?;
        }
        Ok(ring)
    }

    /// Notes who lives, if it is time to: all events up to `released` are in `table`.
    pub fn note_readings(&mut self, table: &GoroutineTable, names: &mut TraceeNames, released: MonotonicNs) {
        let due = released.since(self.read) > READINGS.as_nanos() as u64;
        if !due || self.ring.is_none() || table.live().total() > READ_AT_MOST {
            return;
        }
        self.seal(names);
        let Some(ring) = &mut self.ring else { return };
        self.read = released;
        if let Err(error) = put_reading(ring, &mut self.named, table, names, released) {
            log::warn!("process {}: the flight recorder has no reading: {error}", self.header.pid);
        }
    }

    /// All that is kept, as a whole file; who lives now stands at its end.
    ///
    /// # Errors
    ///
    /// If the compressor fails.
    pub fn write(
        &mut self,
        table: &GoroutineTable,
        names: &mut TraceeNames,
        released: MonotonicNs,
    ) -> std::io::Result<Vec<u8>> {
        let quiet = self.ring.is_none();
        let plain = quiet.then(|| self.plain.clone());
        let oldest = MonotonicNs(released.0.saturating_sub(self.longest.as_nanos() as u64));
        self.plain.retain(|event| event.time() >= oldest);
        self.seal(names);
        let mut written = Vec::new();
        if let Some(ring) = &mut self.ring {
            put_reading(ring, &mut self.named, table, names, released)?;
            let end = End {
                time_ns: now(),
                why: "detached".to_owned(),
                events: self.events,
                lost: self.lost,
                late: 0,
                wall_offset_ns: wall_offset_ns(),
            };
            ring.write(&mut written, Some(&end))?;
        }
        if let Some(plain) = plain {
            (self.plain, self.ring) = (plain, None);
            self.named.clear();
        }
        Ok(written)
    }
}

/// The addresses in events that need names.
fn created(events: &[Event]) -> impl Iterator<Item = (RemoteAddr, RemoteAddr)> + '_ {
    events.iter().filter_map(|event| match *event {
        Event::Goroutine { transition: Transition::Created { gopc, startpc, .. }, .. } => Some((gopc, startpc)),
        _ => None,
    })
}

fn define(
    ring: &mut Ring,
    named: &mut HashSet<RemoteAddr>,
    addresses: impl Iterator<Item = (RemoteAddr, RemoteAddr)>,
    names: &mut TraceeNames,
) -> std::io::Result<()> {
    let mut definitions = Definitions::default();
    for (gopc, startpc) in addresses {
        if gopc.0 != 0 && named.insert(gopc) {
            definitions.sites.push((gopc, names.site(gopc)));
        }
        if startpc.0 != 0 && named.insert(startpc) {
            definitions.functions.push((startpc, names.function(startpc)));
        }
    }
    if definitions.is_empty() { Ok(()) } else { ring.put(&Item::Definitions(definitions)) }
}

/// Everybody in the table, as if read from memory at the moment up to which it has all events.
fn put_reading(
    ring: &mut Ring,
    named: &mut HashSet<RemoteAddr>,
    table: &GoroutineTable,
    names: &mut TraceeNames,
    released: MonotonicNs,
) -> std::io::Result<()> {
    define(ring, named, table.sites().iter().map(|site| (site.gopc, site.startpc)), names)?;
    let mut goroutines: Vec<Parked> = table
        .iter()
        .map(|g| {
            let (gopc, startpc) = table.site_addresses(g.site).unwrap_or_default();
            let since = Some(g.since);
            let goroutine = SnapshotGoroutine { goid: g.goid, parent: g.parent, gopc, startpc, state: g.state, since };
            Parked { goroutine, stack: None, stack_bytes: 0 }
        })
        .collect();
    goroutines.sort_unstable_by_key(|parked| parked.goroutine.goid);
    ring.put(&Item::ReadingBegun(released))?;
    ring.put(&Item::Reading(Reading {
        taken_from: released,
        taken_to: released,
        coverage: Coverage::Whole,
        goroutines,
    }))
}

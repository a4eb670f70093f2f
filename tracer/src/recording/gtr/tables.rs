//! The payloads of frames that are no events: definitions, readings, and what is JSON.
//!
//! In and out: values and bytes. A value that is too large for one frame becomes several.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bytes::{Cursor, Malformed, put, put_bytes, put_difference};
use crate::goroutines::{Coverage, SnapshotGoroutine, State};
use crate::output::SiteName;
use crate::recording::{Definitions, Frame, Parked, Reading, StackNumber};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// A longer name is cut: a frame holds only so much, and an executable may say anything.
const LONGEST_NAME: usize = 16 << 10;
/// So many definitions go into one frame, and so many frames into its stacks.
const DEFINITIONS: usize = 256;
/// So many goroutines of a reading go into one frame.
const GOROUTINES: usize = 1 << 16;
/// More goroutines than a reading can have.
const MOST_GOROUTINES: usize = 1 << 24;

/// The bytes of a value that is rare and small.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub(super) fn read_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(payload).map_err(|_| Malformed("its JSON does not say what it should"))
}

/// Parts of `definitions`, each small enough for a frame.
pub(super) fn write_definitions(definitions: &Definitions, mut part: impl FnMut(Vec<u8>)) {
    let generation = definitions.generation;
    for sites in definitions.sites.chunks(DEFINITIONS) {
        part(definitions_part(generation, sites, &[], &[]));
    }
    for functions in definitions.functions.chunks(DEFINITIONS) {
        part(definitions_part(generation, &[], functions, &[]));
    }
    let mut stacks = definitions.stacks.as_slice();
    while !stacks.is_empty() {
        let mut frames = 0;
        let fits = |(_, stack): &&(StackNumber, Vec<Frame>)| {
            frames += stack.len();
            frames <= DEFINITIONS
        };
        let (now, later) = stacks.split_at(stacks.iter().take_while(fits).count().max(1));
        part(definitions_part(generation, &[], &[], now));
        stacks = later;
    }
}

/// The names of one part, each once.
#[derive(Default)]
struct Names<'a> {
    numbers: HashMap<&'a str, u64>,
    bytes: Vec<u8>,
}

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> u64 {
        let next = self.numbers.len() as u64;
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            let mut end = name.len().min(LONGEST_NAME);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            put_bytes(&mut self.bytes, &name.as_bytes()[..end]);
        }
        number
    }
}

fn definitions_part(
    generation: u32,
    sites: &[(RemoteAddr, SiteName)],
    functions: &[(RemoteAddr, Arc<str>)],
    stacks: &[(StackNumber, Vec<Frame>)],
) -> Vec<u8> {
    let (mut names, mut body, mut last) = (Names::default(), Vec::new(), 0);
    put(&mut body, sites.len() as u64);
    for (address, site) in sites {
        put_difference(&mut body, last, address.0);
        put(&mut body, names.number(&site.function));
        put(&mut body, names.number(&site.file));
        put(&mut body, u64::from(site.line));
        last = address.0;
    }
    put(&mut body, functions.len() as u64);
    for (address, name) in functions {
        put_difference(&mut body, last, address.0);
        put(&mut body, names.number(name));
        last = address.0;
    }
    put(&mut body, stacks.len() as u64);
    for (number, frames) in stacks {
        put(&mut body, u64::from(number.0));
        // No stack of Go's is as deep as this; what is beyond is cut.
        let frames = &frames[..frames.len().min(DEFINITIONS * 16)];
        put(&mut body, frames.len() as u64);
        for frame in frames {
            put(&mut body, names.number(&frame.function));
            put(&mut body, names.number(&frame.file));
            put(&mut body, u64::from(frame.line) << 1 | u64::from(frame.inlined));
            put_difference(&mut body, last, frame.pc.0);
            last = frame.pc.0;
        }
    }
    let mut out = Vec::with_capacity(names.bytes.len() + body.len() + 16);
    put(&mut out, u64::from(generation));
    put(&mut out, names.numbers.len() as u64);
    out.append(&mut names.bytes);
    out.append(&mut body);
    out
}

pub(super) fn read_definitions(payload: &[u8]) -> Result<Definitions, Malformed> {
    let mut cursor = Cursor(payload);
    let mut definitions = Definitions { generation: cursor.number_u32()?, ..Definitions::default() };
    let count = cursor.count()?;
    let mut names: Vec<Arc<str>> = Vec::with_capacity(count);
    for _ in 0..count {
        names.push(cursor.text()?.into());
    }
    let name = |cursor: &mut Cursor<'_>| -> Result<Arc<str>, Malformed> {
        let index = usize::try_from(cursor.number()?).ok();
        let name = index.and_then(|index| names.get(index));
        name.map(Arc::clone).ok_or(Malformed("it speaks of a name that it does not hold"))
    };
    let mut last = 0;
    for _ in 0..cursor.count()? {
        last = cursor.difference(last)?;
        let site = SiteName { function: name(&mut cursor)?, file: name(&mut cursor)?, line: cursor.number_u32()? };
        definitions.sites.push((RemoteAddr(last), site));
    }
    for _ in 0..cursor.count()? {
        last = cursor.difference(last)?;
        definitions.functions.push((RemoteAddr(last), name(&mut cursor)?));
    }
    for _ in 0..cursor.count()? {
        let number = StackNumber(cursor.number_u32()?);
        let count = cursor.count()?;
        let mut frames = Vec::with_capacity(count.min(DEFINITIONS));
        for _ in 0..count {
            let (function, file) = (name(&mut cursor)?, name(&mut cursor)?);
            let line = cursor.number()?;
            last = cursor.difference(last)?;
            let too_large = |_| Malformed("a line is too large");
            let inlined = line & 1 != 0;
            let line = u32::try_from(line >> 1).map_err(too_large)?;
            frames.push(Frame { function, file, line, pc: RemoteAddr(last), inlined });
        }
        definitions.stacks.push((number, frames));
    }
    cursor.end()?;
    Ok(definitions)
}

/// Parts of `reading`, each small enough for a frame.
pub(super) fn write_reading(reading: &Reading, mut part: impl FnMut(Vec<u8>)) {
    let mut chunks = reading.goroutines.chunks(GOROUTINES).peekable();
    let mut number = 0;
    loop {
        let chunk = chunks.next().unwrap_or_default();
        let last = chunks.peek().is_none();
        part(reading_part(reading, chunk, number, last));
        number += 1;
        if last {
            return;
        }
    }
}

fn reading_part(reading: &Reading, goroutines: &[Parked], number: u64, last_part: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(goroutines.len() * 16 + 32);
    put(&mut out, number);
    out.push(u8::from(last_part));
    put(&mut out, reading.taken_from.0);
    put_difference(&mut out, reading.taken_from.0, reading.taken_to.0);
    out.push(u8::from(reading.coverage == Coverage::Whole));
    put(&mut out, goroutines.len() as u64);
    let mut sites: HashMap<(RemoteAddr, RemoteAddr), u64> = HashMap::new();
    let (mut goid, mut gopc, mut startpc, mut since) = (0, 0, 0, reading.taken_to.0);
    for parked in goroutines {
        let g = &parked.goroutine;
        put_difference(&mut out, goid, g.goid.0);
        goid = g.goid.0;
        put_difference(&mut out, goid, g.parent.0);
        let next = sites.len() as u64 + 1;
        match *sites.entry((g.gopc, g.startpc)).or_insert(next) {
            code if code == next => {
                put(&mut out, 0);
                put_difference(&mut out, gopc, g.gopc.0);
                put_difference(&mut out, startpc, g.startpc.0);
                (gopc, startpc) = (g.gopc.0, g.startpc.0);
            }
            code => put(&mut out, code),
        }
        match g.state {
            State::Runnable => out.push(0),
            State::Running => out.push(1),
            State::Blocked { reason } => out.extend([2, reason]),
        }
        out.push(u8::from(g.since.is_some()) | u8::from(parked.stack.is_some()) << 1);
        if let Some(time) = g.since {
            put_difference(&mut out, since, time.0);
            since = time.0;
        }
        if let Some(stack) = parked.stack {
            put(&mut out, u64::from(stack.0));
        }
        put(&mut out, parked.stack_bytes);
    }
    out
}

/// A reading on its way out of its frames.
#[derive(Debug, Default)]
pub(super) struct Parts {
    reading: Option<Reading>,
    next: u64,
    broken: bool,
}

impl Parts {
    /// A frame with a part of a reading could not be read.
    pub(super) fn damage(&mut self) {
        self.broken = true;
    }

    /// Takes in a part; gives the reading when it was the last. Of a reading with a part missing, what is there, and that it
    /// is not whole.
    pub(super) fn take(&mut self, payload: &[u8]) -> Result<Option<Reading>, Malformed> {
        let mut cursor = Cursor(payload);
        let number = cursor.number()?;
        let last_part = cursor.byte()? != 0;
        if number == 0 {
            self.reading = None;
            self.broken = false;
        } else if number != self.next {
            self.broken = true;
        }
        self.next = number.saturating_add(1);
        let taken_from = cursor.number()?;
        let taken_to = MonotonicNs(cursor.difference(taken_from)?);
        let coverage = if cursor.byte()? != 0 { Coverage::Whole } else { Coverage::Part };
        let taken_from = MonotonicNs(taken_from);
        let empty = || Reading { taken_from, taken_to, coverage, goroutines: Vec::new() };
        let reading = self.reading.get_or_insert_with(empty);
        read_goroutines(&mut cursor, taken_to, &mut reading.goroutines)?;
        cursor.end()?;
        if reading.goroutines.len() > MOST_GOROUTINES {
            self.reading = None;
            return Err(Malformed("a reading has too many goroutines"));
        }
        if !last_part {
            return Ok(None);
        }
        let broken = std::mem::take(&mut self.broken);
        Ok(self.reading.take().map(|reading| match broken {
            true => Reading { coverage: Coverage::Part, ..reading },
            false => reading,
        }))
    }
}

fn read_goroutines(cursor: &mut Cursor<'_>, taken_to: MonotonicNs, all: &mut Vec<Parked>) -> Result<(), Malformed> {
    let mut sites: Vec<(u64, u64)> = Vec::new();
    let (mut goid, mut last_since) = (0, taken_to.0);
    for _ in 0..cursor.count()? {
        goid = cursor.difference(goid)?;
        let parent = cursor.difference(goid)?;
        let site = match cursor.number()?.checked_sub(1) {
            Some(index) => {
                let known = usize::try_from(index).ok().and_then(|index| sites.get(index));
                *known.ok_or(Malformed("it speaks of a site that it does not name"))?
            }
            None => {
                let (gopc, startpc) = sites.last().copied().unwrap_or_default();
                let site = (cursor.difference(gopc)?, cursor.difference(startpc)?);
                sites.push(site);
                site
            }
        };
        let state = match cursor.byte()? {
            0 => State::Runnable,
            1 => State::Running,
            2 => State::Blocked { reason: cursor.byte()? },
            _ => return Err(Malformed("it has a goroutine in an unknown state")),
        };
        let there = cursor.byte()?;
        let since = if there & 1 != 0 {
            last_since = cursor.difference(last_since)?;
            Some(MonotonicNs(last_since))
        } else {
            None
        };
        let stack = if there & 2 != 0 { Some(StackNumber(cursor.number_u32()?)) } else { None };
        let goroutine = SnapshotGoroutine {
            goid: Goid(goid),
            parent: Goid(parent),
            gopc: RemoteAddr(site.0),
            startpc: RemoteAddr(site.1),
            state,
            since,
        };
        all.push(Parked { goroutine, stack, stack_bytes: cursor.number()? });
    }
    Ok(())
}

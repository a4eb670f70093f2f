//! Items into frames, and frames into a file.
//!
//! In: items. Out: bytes, frame by frame. Has no clock: whoever feeds it says when to flush.

use std::io::{self, Write};

use zstd::bulk::Compressor;

use super::events::{Columns, MOST};
use super::frame::{self, Kind};
use super::index::IndexBuilder;
use super::tables;
use crate::recording::{Encode, Header, Item, Parts};
use crate::units::MonotonicNs;

/// A fast level: an event takes some 20 ns, and the columns leave little for a higher one to gain.
const LEVEL: i32 = 1;
/// The end, its index and its head: what [`Encode::finish`] may append.
const END: usize = 64 << 10;

/// A frame, ready to be written.
pub(super) struct Sealed {
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
    /// The time of its first event, or of what it is about.
    pub(super) time: MonotonicNs,
    /// Events in all frames before it.
    pub(super) before: u64,
}

/// Items into frames.
pub(super) struct Frames {
    columns: Columns,
    generation: u32,
    /// Events in the frames so far.
    before: u64,
    newest: MonotonicNs,
    raw: Vec<u8>,
    compressor: Compressor<'static>,
}

impl Frames {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            columns: Columns::default(),
            generation: 0,
            before: 0,
            newest: MonotonicNs(0),
            raw: Vec::new(),
            compressor: Compressor::new(LEVEL)?,
        })
    }

    pub(super) fn put(&mut self, item: &Item, mut sealed: impl FnMut(Sealed)) -> io::Result<()> {
        if let Item::Events(events) = item {
            for event in events {
                self.columns.push(event);
                if self.columns.len() >= MOST {
                    self.cut(&mut sealed)?;
                }
            }
            return Ok(());
        }
        if let Item::Damage(damage) = item {
            if let Some(loss) = damage.as_loss(self.newest) {
                self.columns.push(&loss);
            }
            return Ok(());
        }
        // What is not an event stands where it came.
        self.cut(&mut sealed)?;
        let mut parts = Vec::new();
        let kind = match item {
            Item::Events(_) | Item::Damage(_) => return Ok(()),
            Item::Program(program) => {
                self.generation = program.generation;
                parts.push(tables::json(program));
                Kind::Program
            }
            Item::Definitions(definitions) => {
                tables::write_definitions(definitions, |part| parts.push(part));
                Kind::Definitions
            }
            Item::ReadingBegun(time) => {
                self.newest = self.newest.max(*time);
                parts.push(tables::json(time));
                Kind::ReadingBegun
            }
            Item::Reading(reading) => {
                tables::write_reading(reading, |part| parts.push(part));
                Kind::Reading
            }
            Item::Detail { time, level } => {
                parts.push(tables::json(&(time, level)));
                Kind::Detail
            }
            Item::End(end) => {
                parts.push(tables::json(end));
                Kind::End
            }
        };
        for part in parts {
            sealed(self.seal(kind, &part, self.newest)?);
        }
        Ok(())
    }

    /// Makes a frame of the events that wait for one.
    pub(super) fn cut(&mut self, mut sealed: impl FnMut(Sealed)) -> io::Result<()> {
        let count = self.columns.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let time = self.columns.first();
        self.newest = self.columns.last().max(self.newest);
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        self.columns.take(self.generation, &mut raw);
        let frame = self.seal(Kind::Events, &raw, time);
        self.raw = raw;
        sealed(frame?);
        self.before += count;
        Ok(())
    }

    pub(super) fn seal(&mut self, kind: Kind, raw: &[u8], time: MonotonicNs) -> io::Result<Sealed> {
        Ok(Sealed { time, ..self.seal_at(kind, raw, self.before)? })
    }

    /// Makes a frame that says that so many events were before it.
    pub(super) fn seal_at(&mut self, kind: Kind, raw: &[u8], before: u64) -> io::Result<Sealed> {
        let mut bytes = Vec::new();
        frame::seal(&mut bytes, kind, raw, before, &mut self.compressor)?;
        Ok(Sealed { kind, bytes, time: MonotonicNs(0), before })
    }
}

/// A whole .gtr file out of items.
pub struct Encoder {
    frames: Frames,
    index: IndexBuilder,
    header: Header,
    begun: bool,
    /// Bytes given out so far.
    offset: u64,
}

impl Encoder {
    /// A recording that begins with `header`.
    ///
    /// # Errors
    ///
    /// If zstd has no memory.
    pub fn new(header: Header) -> io::Result<Self> {
        Ok(Self { frames: Frames::new()?, index: IndexBuilder::default(), header, begun: false, offset: 0 })
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&frame::file_head());
            self.offset += frame::FILE_HEAD as u64;
            // Twice: without it, all else in a file would be of no known process.
            for _ in 0..2 {
                let header = self.frames.seal(Kind::Header, &tables::json(&self.header), self.header.started_ns)?;
                append(&mut self.index, &mut self.offset, out, header);
            }
        }
        Ok(())
    }
}

fn append(index: &mut IndexBuilder, offset: &mut u64, out: &mut Vec<u8>, frame: Sealed) {
    index.add(*offset, &frame);
    *offset += frame.bytes.len() as u64;
    out.extend_from_slice(&frame.bytes);
}

impl Encode for Encoder {
    fn put(&mut self, item: &Item, out: &mut Parts) -> io::Result<()> {
        self.begin(&mut out.main)?;
        self.frames.put(item, |frame| append(&mut self.index, &mut self.offset, &mut out.main, frame))
    }

    fn flush(&mut self, out: &mut Parts) -> io::Result<()> {
        self.begin(&mut out.main)?;
        self.frames.cut(|frame| append(&mut self.index, &mut self.offset, &mut out.main, frame))
    }

    fn finish(&mut self, out: &mut Parts) -> io::Result<()> {
        self.flush(out)?;
        let index = self.frames.seal(Kind::Index, &self.index.payload(), MonotonicNs(0))?;
        out.main.extend_from_slice(&index.bytes);
        out.main.extend_from_slice(&super::index::trailer(self.offset));
        Ok(())
    }

    fn reserve(&self) -> usize {
        END + self.index.longest()
    }
}

/// Writes a .gtr file as items come. For what needs more, such as a thread of its own, there is [`Encoder`].
pub struct Writer<W: Write> {
    encoder: Encoder,
    parts: Parts,
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// As [`Encoder::new`].
    pub fn new(out: W, header: Header) -> io::Result<Self> {
        Ok(Self { encoder: Encoder::new(header)?, parts: Parts::default(), out })
    }

    /// Writes an item, or keeps it for the next frame.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn put(&mut self, item: &Item) -> io::Result<()> {
        self.encoder.put(item, &mut self.parts)?;
        self.write()
    }

    /// Writes what was kept.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush(&mut self.parts)?;
        self.write()?;
        self.out.flush()
    }

    /// Writes the footer, and gives `out` back.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.encoder.finish(&mut self.parts)?;
        self.write()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.parts.main)?;
        self.parts.main.clear();
        Ok(())
    }
}

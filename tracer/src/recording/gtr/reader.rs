//! A .gtr file, or a part of one, into items.
//!
//! In: bytes from anywhere. Out: items. A file that was cut off ends early; what is damaged is passed over up to the next
//! frame, and said ([`Damage`]). Time and memory are bounded whatever the file says: no frame is longer than 16 MiB, and
//! no byte is looked at more than a few times.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use zstd::bulk::Decompressor;

use super::bytes::Malformed;
use super::frame::{self, FILE_HEAD, FileHead, HEAD, Head, Kind};
use super::index::{Index, TRAILER, read_trailer};
use super::{VERSION, events, tables};
use crate::recording::{Damage, Header, Item, ReadError, Source};
use crate::units::MonotonicNs;

/// Bytes asked for at a time.
const CHUNK: usize = 256 << 10;

/// Reads a recording.
pub struct Reader<R> {
    input: Input<R>,
    header: Header,
    decompressor: Decompressor<'static>,
    buffer: Vec<u8>,
    parts: tables::Parts,
    ready: VecDeque<Item>,
    damage: Option<Damage>,
    /// Events that stand before the next frame, if nothing is missing.
    expected: u64,
    over: bool,
}

/// What was read of a file and not used yet.
struct Input<R> {
    from: R,
    window: Vec<u8>,
    /// The part of `window` before this is used.
    used: usize,
    /// Where in the file the rest of `window` begins.
    offset: u64,
}

impl<R: Read> Input<R> {
    /// The next bytes: `wanted` of them, or fewer at the end of the file.
    fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.window.len() - self.used < wanted {
            if self.used > 0 {
                self.window.drain(..self.used);
                self.used = 0;
            }
            let chunk = CHUNK.max(wanted) as u64;
            if (&mut self.from).take(chunk).read_to_end(&mut self.window)? == 0 {
                break;
            }
        }
        let rest = &self.window[self.used..];
        Ok(&rest[..rest.len().min(wanted)])
    }

    fn skip(&mut self, bytes: usize) {
        self.used += bytes;
        self.offset += bytes as u64;
    }
}

impl<R: Read> Reader<R> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// If it is no recording, one of a later version, or cannot be read.
    pub fn new(from: R) -> Result<Self, ReadError> {
        let input = Input { from, window: Vec::new(), used: 0, offset: 0 };
        let mut reader = Self {
            input,
            header: Header::default(),
            decompressor: Decompressor::new()?,
            buffer: Vec::new(),
            parts: tables::Parts::default(),
            ready: VecDeque::new(),
            damage: None,
            expected: 0,
            over: false,
        };
        let head = reader.input.peek(FILE_HEAD)?;
        let Some(head) = head.first_chunk::<FILE_HEAD>() else {
            let why = if head.is_empty() { "the file is empty" } else { "the file is too short" };
            return Err(ReadError::Foreign { why: why.to_owned() });
        };
        match frame::read_file_head(head) {
            FileHead::Foreign => {
                return Err(ReadError::Foreign { why: "it does not begin as a .gtr file does".to_owned() });
            }
            FileHead::Version(found) if found > VERSION => return Err(ReadError::Newer { found, known: VERSION }),
            FileHead::Version(_) => {}
            FileHead::Damaged => reader.note(FILE_HEAD, "the head of the file is not as it was written"),
        }
        reader.input.skip(FILE_HEAD);
        // The header is the first frame; of a file that lacks it, all else is told all the same.
        reader.read_on()?;
        Ok(reader)
    }

    /// Notes that the next `bytes` cannot be used; they are still to be skipped.
    fn note(&mut self, bytes: usize, what: &str) {
        let offset = self.input.offset;
        let new = || Damage { offset, bytes: 0, events: None, what: what.to_owned() };
        self.damage.get_or_insert_with(new).bytes += bytes as u64;
    }

    /// Ends the file; damage up to here is told.
    fn end(&mut self) {
        self.over = true;
        self.ready.extend(self.damage.take().map(Item::Damage));
    }

    /// Goes on until there is something ready, or nothing more. One frame more than the header is never read ahead.
    fn read_on(&mut self) -> Result<(), ReadError> {
        while self.ready.is_empty() && !self.over {
            if self.read_frame()? == Some(Kind::Header) {
                break;
            }
        }
        Ok(())
    }

    fn read_frame(&mut self) -> Result<Option<Kind>, ReadError> {
        let Some(bytes) = self.input.peek(HEAD)?.first_chunk::<HEAD>() else {
            // What is left is too short for a frame: it was cut off while it was written.
            self.end();
            return Ok(None);
        };
        let Some(head) = frame::read_head(bytes) else {
            self.find_frame()?;
            return Ok(None);
        };
        let len = HEAD + head.stored as usize;
        let bytes = self.input.peek(len)?;
        if bytes.len() < len {
            self.end();
            return Ok(None);
        }
        let payload = frame::open(&head, &bytes[HEAD..], &mut self.decompressor, &mut self.buffer);
        let taken = payload.and_then(|payload| {
            let kind = Kind::of(head.kind);
            let taken = match kind {
                Some(kind) => take(kind, payload, &mut self.header, &mut self.parts)?,
                // Of a later minor version: something that can be done without.
                None => Taken::Nothing,
            };
            Ok((kind, taken))
        });
        match taken {
            Err(Malformed(what)) => {
                if head.kind == Kind::Reading as u8 {
                    self.parts.damage();
                }
                self.note(len, what);
                self.input.skip(len);
                Ok(None)
            }
            Ok((kind, taken)) => {
                self.account(&head, kind);
                let at = self.input.offset;
                self.input.skip(len);
                match taken {
                    Taken::Nothing => {}
                    Taken::Item(item) => {
                        if let Item::Events(events) = &item {
                            self.expected = self.expected.saturating_add(events.len() as u64);
                        }
                        self.ready.push_back(item);
                    }
                    Taken::Index => self.take_trailer(at)?,
                }
                Ok(kind)
            }
        }
    }

    /// A frame is good: says what is missing before it.
    fn account(&mut self, head: &Head, kind: Option<Kind>) {
        match kind {
            Some(Kind::Header) => self.expected = head.before,
            // In what a ring has kept these are older than all else.
            Some(Kind::Program | Kind::Definitions) => {}
            _ if head.before > self.expected => {
                self.note(0, "frames are missing");
                if let Some(damage) = &mut self.damage {
                    damage.events = Some(head.before - self.expected);
                }
                self.expected = head.before;
            }
            _ => {}
        }
        if let Some(damage) = self.damage.take() {
            self.ready.push_back(Item::Damage(damage));
        }
    }

    /// Skips to where the next frame may begin.
    fn find_frame(&mut self) -> Result<(), ReadError> {
        let bytes = self.input.peek(CHUNK)?;
        let (len, at) = (bytes.len(), frame::next_sync(bytes));
        let skipped = at.unwrap_or(len);
        self.note(skipped, "there is no frame where one should begin");
        self.input.skip(skipped);
        if self.input.peek(HEAD)?.len() < HEAD {
            let rest = self.input.peek(HEAD)?.len();
            self.note(rest, "");
            self.input.skip(rest);
            self.end();
        }
        Ok(())
    }

    /// Behind the index stands where it begins, and nothing more.
    fn take_trailer(&mut self, index: u64) -> Result<(), ReadError> {
        let rest = self.input.peek(TRAILER + 1)?;
        let len = rest.len();
        let right = rest.first_chunk::<TRAILER>().is_none_or(|trailer| read_trailer(trailer) == Some(index));
        if !right {
            self.note(TRAILER, "its last bytes are not as they were written");
        } else if len > TRAILER {
            self.note(len, "there is something behind its end");
        }
        self.end();
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes on at the last place in the file before which nothing happened after `time`, where the file has an index: then
    /// all names are given first. What comes next may be older than `time`, and says nothing of the goroutines that lived
    /// there already before the next [`Item::Reading`]. Does nothing where there is no index.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn skip_to(&mut self, time: MonotonicNs) -> Result<(), ReadError> {
        let index = Index::read(&mut self.input.from)?;
        let place = index.as_ref().and_then(|index| index.before(time));
        let (Some(index), Some((offset, before))) = (index, place) else {
            // Where it was.
            let read = self.input.offset + (self.input.window.len() - self.input.used) as u64;
            self.input.from.seek(SeekFrom::Start(read))?;
            return Ok(());
        };
        self.ready.clear();
        for &names in index.names() {
            // Those behind are given when it comes to them.
            if names >= offset {
                break;
            }
            self.go_to(names)?;
            self.read_frame()?;
        }
        self.go_to(offset)?;
        self.expected = before;
        Ok(())
    }

    fn go_to(&mut self, offset: u64) -> Result<(), ReadError> {
        self.input.from.seek(SeekFrom::Start(offset))?;
        self.input.window.clear();
        (self.input.used, self.input.offset) = (0, offset);
        Ok(())
    }
}

/// What a frame held.
enum Taken {
    Nothing,
    Item(Item),
    Index,
}

fn take(kind: Kind, payload: &[u8], header: &mut Header, parts: &mut tables::Parts) -> Result<Taken, Malformed> {
    Ok(Taken::Item(match kind {
        Kind::Header => {
            *header = tables::read_json(payload)?;
            return Ok(Taken::Nothing);
        }
        Kind::Index => {
            Index::parse(payload)?;
            return Ok(Taken::Index);
        }
        Kind::Program => Item::Program(tables::read_json(payload)?),
        Kind::Definitions => Item::Definitions(tables::read_definitions(payload)?),
        Kind::Events => Item::Events(events::read(payload, header.pid)?),
        Kind::ReadingBegun => Item::ReadingBegun(tables::read_json(payload)?),
        Kind::Reading => match parts.take(payload)? {
            Some(reading) => Item::Reading(reading),
            None => return Ok(Taken::Nothing),
        },
        Kind::Detail => {
            let (time, level) = tables::read_json(payload)?;
            Item::Detail { time, level }
        }
        Kind::End => Item::End(tables::read_json(payload)?),
    }))
}

impl<R: Read> Source for Reader<R> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        while self.ready.is_empty() && !self.over {
            self.read_frame()?;
        }
        Ok(self.ready.pop_front())
    }
}

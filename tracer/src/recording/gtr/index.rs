//! The footer: where in a file which moment is, so that a reader need not read all before it.
//!
//! A file without one (it was cut off) is read from its beginning, and gives the same.

use std::io::{self, Read, Seek, SeekFrom};

use super::bytes::{Cursor, Malformed, put, put_difference};
use super::encode::Sealed;
use super::frame::{self, HEAD, Kind};
use crate::units::MonotonicNs;

/// Entries of each kind are kept down to this: a longer file has a coarser index.
const MOST: usize = 1 << 15;
/// Behind the index: where it begins, CRC-32 of that, and these.
const TRAILER_MAGIC: [u8; 4] = *b"GTRX";
pub(super) const TRAILER: usize = 16;

/// A place in a file at which reading can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    offset: u64,
    time: u64,
    before: u64,
}

/// Gathers the index while a file is written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    /// Frames that give names: all, or else the index is of no use.
    names: Vec<u64>,
    /// Some of the frames of events, and those before a reading.
    places: Vec<Entry>,
    /// One frame in so many is noted.
    step: u64,
    count: u64,
}

impl IndexBuilder {
    pub(super) fn add(&mut self, offset: u64, frame: &Sealed) {
        if frame.kind.names() {
            if self.names.len() <= MOST {
                self.names.push(offset);
            }
        } else if frame.kind == Kind::Events {
            if self.count.is_multiple_of(self.step.max(1)) {
                self.places.push(Entry { offset, time: frame.time.0, before: frame.before });
            }
            self.count += 1;
            if self.places.len() > MOST {
                let mut index = 0;
                self.places.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.step = self.step.max(1) * 2;
            }
        }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Without all names there is no use in it.
        let (names, places) =
            if self.names.len() > MOST { (&[][..], &[][..]) } else { (self.names.as_slice(), self.places.as_slice()) };
        put(&mut out, names.len() as u64);
        let mut last = 0;
        for &offset in names {
            put_difference(&mut out, last, offset);
            last = offset;
        }
        put(&mut out, places.len() as u64);
        let mut last = Entry { offset: 0, time: 0, before: 0 };
        for entry in places {
            put_difference(&mut out, last.offset, entry.offset);
            put_difference(&mut out, last.time, entry.time);
            put_difference(&mut out, last.before, entry.before);
            last = *entry;
        }
        out
    }

    /// How long the payload may get at most, as things stand.
    pub(super) fn longest(&self) -> usize {
        64 + self.names.len() * 10 + self.places.len() * 30
    }
}

/// The last bytes of a file: where its index begins.
pub(super) fn trailer(offset: u64) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..8].copy_from_slice(&offset.to_le_bytes());
    trailer[8..12].copy_from_slice(&crc32fast::hash(&offset.to_le_bytes()).to_le_bytes());
    trailer[12..].copy_from_slice(&TRAILER_MAGIC);
    trailer
}

/// Where a trailer says that the index begins; `None` if it is not as it was written.
pub(super) fn read_trailer(trailer: &[u8; TRAILER]) -> Option<u64> {
    let [o0, o1, o2, o3, o4, o5, o6, o7, c0, c1, c2, c3, magic @ ..] = *trailer;
    let offset = [o0, o1, o2, o3, o4, o5, o6, o7];
    let whole = crc32fast::hash(&offset) == u32::from_le_bytes([c0, c1, c2, c3]) && magic == TRAILER_MAGIC;
    whole.then(|| u64::from_le_bytes(offset))
}

/// The index of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    names: Vec<u64>,
    places: Vec<Entry>,
}

impl Index {
    /// Reads the index at the end of a file; `None` where there is none that can be used. Moves the file's position.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Self>> {
        let len = file.seek(SeekFrom::End(0))?;
        let Some(at) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
        file.seek(SeekFrom::Start(at))?;
        let mut trailer = [0; TRAILER];
        file.read_exact(&mut trailer)?;
        let Some(offset) = read_trailer(&trailer).filter(|&offset| offset < at) else { return Ok(None) };
        file.seek(SeekFrom::Start(offset))?;
        let mut head = [0; HEAD];
        let room = at - offset;
        if room < HEAD as u64 {
            return Ok(None);
        }
        file.read_exact(&mut head)?;
        let Some(head) = frame::read_head(&head) else { return Ok(None) };
        if head.kind != Kind::Index as u8 || u64::from(head.stored) != room - HEAD as u64 {
            return Ok(None);
        }
        let mut stored = vec![0; head.stored as usize];
        file.read_exact(&mut stored)?;
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        let mut buffer = Vec::new();
        let payload = frame::open(&head, &stored, &mut decompressor, &mut buffer);
        Ok(payload.and_then(Self::parse).ok().filter(|index| !index.names.is_empty()))
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(payload);
        let mut index = Self::default();
        let mut last = 0;
        for _ in 0..cursor.count()? {
            last = cursor.difference(last)?;
            index.names.push(last);
        }
        let mut last = Entry { offset: 0, time: 0, before: 0 };
        for _ in 0..cursor.count()? {
            last = Entry {
                offset: cursor.difference(last.offset)?,
                time: cursor.difference(last.time)?,
                before: cursor.difference(last.before)?,
            };
            index.places.push(last);
        }
        cursor.end()?;
        Ok(index)
    }

    /// The last place at which nothing after `time` has been passed over: its offset, and the events before it. `None`:
    /// the beginning.
    #[must_use]
    pub fn before(&self, time: MonotonicNs) -> Option<(u64, u64)> {
        let at = self.places.partition_point(|entry| entry.time <= time.0);
        // One earlier: an event may be late.
        self.places.get(at.checked_sub(2)?).map(|entry| (entry.offset, entry.before))
    }

    /// Where the frames are that give names.
    #[must_use]
    pub fn names(&self) -> &[u64] {
        &self.names
    }
}

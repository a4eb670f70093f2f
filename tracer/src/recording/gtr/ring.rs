//! The newest minutes of a recording, in memory: what a flight recorder keeps until somebody wants it.
//!
//! In: items. Out, when asked: a .gtr file of what is kept. Names are kept for all that ever was, as they may be needed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use super::encode::{Frames, Sealed};
use super::frame::{self, Kind};
use super::index::{IndexBuilder, trailer};
use super::tables;
use crate::recording::{End, Header, Item};
use crate::units::MonotonicNs;

/// The newest frames of a recording. What it keeps is bounded by bytes and by age; readings should come often enough that
/// one is always in it, for before the first of them little is known of the goroutines that live.
pub struct Ring {
    header: Header,
    frames: Frames,
    names: Vec<Sealed>,
    kept: VecDeque<Sealed>,
    bytes: usize,
    most_bytes: usize,
    longest_ns: u64,
    newest: MonotonicNs,
}

impl Ring {
    /// A ring of at most `most_bytes`, and of events no older than `longest` before the newest.
    ///
    /// # Errors
    ///
    /// If zstd has no memory.
    pub fn new(header: Header, most_bytes: usize, longest: Duration) -> io::Result<Self> {
        Ok(Self {
            header,
            frames: Frames::new()?,
            names: Vec::new(),
            kept: VecDeque::new(),
            bytes: 0,
            most_bytes,
            longest_ns: u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX),
            newest: MonotonicNs(0),
        })
    }

    /// What is kept is said to be of this level of detail.
    pub fn set_detail(&mut self, level: &str) {
        level.clone_into(&mut self.header.detail);
    }

    /// Other bounds from now on.
    pub fn limit(&mut self, most_bytes: usize, longest: Duration) {
        self.most_bytes = most_bytes;
        self.longest_ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        self.forget();
    }

    /// Takes an item, and forgets the oldest ones.
    ///
    /// # Errors
    ///
    /// If zstd fails.
    pub fn put(&mut self, item: &Item) -> io::Result<()> {
        let Self { frames, names, kept, bytes, newest, .. } = self;
        frames.put(item, |frame| keep(frame, names, kept, bytes, newest))?;
        self.forget();
        Ok(())
    }

    /// Makes a frame of what waits for one: to be called each second or so, for age is forgotten by frames.
    ///
    /// # Errors
    ///
    /// If zstd fails.
    pub fn flush(&mut self) -> io::Result<()> {
        let Self { frames, names, kept, bytes, newest, .. } = self;
        frames.cut(|frame| keep(frame, names, kept, bytes, newest))?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        while let Some(oldest) = self.kept.front() {
            let too_old = self.newest.since(oldest.time) > self.longest_ns;
            if !too_old && self.bytes <= self.most_bytes {
                return;
            }
            self.bytes -= oldest.bytes.len();
            self.kept.pop_front();
        }
    }

    /// Bytes kept, those of names included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From when on everything is kept; `None` if nothing is.
    #[must_use]
    pub fn oldest(&self) -> Option<MonotonicNs> {
        self.kept.front().map(|frame| frame.time)
    }

    /// Writes what is kept as a whole .gtr file. The ring goes on.
    ///
    /// # Errors
    ///
    /// If `out` fails.
    pub fn write(&mut self, mut out: impl Write, end: Option<&End>) -> io::Result<()> {
        self.flush()?;
        let mut index = IndexBuilder::default();
        let mut offset = frame::FILE_HEAD as u64;
        out.write_all(&frame::file_head())?;
        let header = Header { started_ns: self.oldest().unwrap_or(self.header.started_ns), ..self.header.clone() };
        // The header says how many events are no more in it.
        let before = self.kept.front().map_or(0, |frame| frame.before);
        let header = self.frames.seal_at(Kind::Header, &tables::json(&header), before)?;
        let end = end.map(|end| self.frames.seal(Kind::End, &tables::json(end), self.newest)).transpose()?;
        for frame in [&header, &header].into_iter().chain(&self.names).chain(&self.kept).chain(&end) {
            index.add(offset, frame);
            offset += frame.bytes.len() as u64;
            out.write_all(&frame.bytes)?;
        }
        out.write_all(&self.frames.seal(Kind::Index, &index.payload(), self.newest)?.bytes)?;
        out.write_all(&trailer(offset))?;
        out.flush()
    }
}

fn keep(
    frame: Sealed,
    names: &mut Vec<Sealed>,
    kept: &mut VecDeque<Sealed>,
    bytes: &mut usize,
    newest: &mut MonotonicNs,
) {
    *bytes += frame.bytes.len();
    *newest = (*newest).max(frame.time);
    if frame.kind.names() {
        names.push(frame);
    } else {
        kept.push_back(frame);
    }
}

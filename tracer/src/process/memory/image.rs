//! A recording of memory: what was read once, to be read again.
//!
//! The form, for tests and for bug reports: the eight bytes `gtmem\0\0\x01`, then regions, each an address, a length
//! (both `u64`, little-endian) and its bytes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{MemoryError, MemoryRange, ReadMemory};
use crate::units::{MonotonicNs, RemoteAddr};

const MAGIC: &[u8; 8] = b"gtmem\0\0\x01";

/// Sparse memory, held in ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryImage {
    /// Disjoint, and none touches the next.
    regions: BTreeMap<u64, Vec<u8>>,
}

impl MemoryImage {
    /// Reads the form that [`MemoryImage::to_bytes`] writes; `None` if these are not such bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut image = Self::default();
        while !rest.is_empty() {
            let (start, after) = rest.split_first_chunk::<8>()?;
            let (len, after) = after.split_first_chunk::<8>()?;
            let (bytes, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            image.insert(RemoteAddr(u64::from_le_bytes(*start)), bytes);
            rest = after;
        }
        Some(image)
    }

    /// The image in its own form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (start, bytes) in &self.regions {
            out.extend(start.to_le_bytes());
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        out
    }

    /// Puts `bytes` at `start`, over what was there. What would reach past the last address is cut off.
    pub fn insert(&mut self, start: RemoteAddr, bytes: &[u8]) {
        let room = usize::try_from(u64::MAX - start.0).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        if bytes.is_empty() {
            return;
        }
        let end = start.0 + bytes.len() as u64;
        // All regions that overlap or touch become one with it.
        let (mut first, mut joined) = (start.0, Vec::new());
        let before = self.regions.range(..=start.0).next_back().map(|(&at, held)| (at, at + held.len() as u64));
        if let Some((at, held_end)) = before
            && held_end >= start.0
            && let Some(held) = self.regions.remove(&at)
        {
            (first, joined) = (at, held);
        }
        let within = (start.0 - first) as usize;
        let over = joined.len().min(within + bytes.len());
        joined.splice(within.min(over)..over, bytes.iter().copied());
        while let Some((&at, _)) = self.regions.range(start.0..=end).next() {
            let Some(held) = self.regions.remove(&at) else { break };
            let known = (first + joined.len() as u64).saturating_sub(at);
            joined.extend(held.iter().skip(known as usize));
        }
        self.regions.insert(first, joined);
    }

    /// The regions by rising address.
    pub fn regions(&self) -> impl Iterator<Item = (RemoteAddr, &[u8])> {
        self.regions.iter().map(|(&start, bytes)| (RemoteAddr(start), bytes.as_slice()))
    }

    /// The bytes, to be changed; for tests of what hostile memory does.
    pub fn regions_mut(&mut self) -> impl Iterator<Item = (RemoteAddr, &mut [u8])> {
        self.regions.iter_mut().map(|(&start, bytes)| (RemoteAddr(start), bytes.as_mut_slice()))
    }

    fn get(&self, range: MemoryRange) -> Option<&[u8]> {
        if range.len == 0 {
            return Some(&[]);
        }
        let (&start, bytes) = self.regions.range(..=range.start.0).next_back()?;
        let at = usize::try_from(range.start.0 - start).ok()?;
        bytes.get(at..at.checked_add(range.len)?)
    }
}

impl ReadMemory for MemoryImage {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        fill_from(ranges, into, missing, |range| self.get(range))
    }

    fn why_missing(&self, _: RemoteAddr) -> String {
        "it was not recorded".to_owned()
    }
}

/// [`ReadMemory::fill`] for memory that we hold as slices.
pub(super) fn fill_from<'a>(
    ranges: &[MemoryRange],
    into: &mut [u8],
    missing: &mut Vec<usize>,
    get: impl Fn(MemoryRange) -> Option<&'a [u8]>,
) -> Result<(), MemoryError> {
    let mut rest = into;
    for (i, range) in ranges.iter().enumerate() {
        let Some((buffer, after)) = rest.split_at_mut_checked(range.len) else {
            return Err(MemoryError::TooMuch { len: range.len });
        };
        match get(*range) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => missing.push(i),
        }
        rest = after;
    }
    Ok(())
}

/// Reads through to other memory and keeps what was read.
pub struct Recorder<'a> {
    memory: &'a dyn ReadMemory,
    image: Mutex<MemoryImage>,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("image", &self.image).finish_non_exhaustive()
    }
}

impl<'a> Recorder<'a> {
    /// Records what is read from `memory`.
    #[must_use]
    pub fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { memory, image: Mutex::default() }
    }

    /// What was read; of what was read twice, the later.
    #[must_use]
    pub fn into_image(self) -> MemoryImage {
        self.image.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadMemory for Recorder<'_> {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        let before = missing.len();
        self.memory.fill(ranges, into, missing)?;
        let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = missing.get(before..).unwrap_or_default();
        let mut at = 0;
        for (i, range) in ranges.iter().enumerate() {
            if let (true, Some(bytes)) = (absent.binary_search(&i).is_err(), into.get(at..at + range.len)) {
                image.insert(range.start, bytes);
            }
            at += range.len;
        }
        Ok(())
    }

    fn why_missing(&self, address: RemoteAddr) -> String {
        self.memory.why_missing(address)
    }

    fn now(&self) -> Option<MonotonicNs> {
        self.memory.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_touches_becomes_one() {
        let mut image = MemoryImage::default();
        image.insert(RemoteAddr(10), b"abc");
        image.insert(RemoteAddr(20), b"xyz");
        image.insert(RemoteAddr(12), b"CDEFGHIJX");
        let all: Vec<_> = image.regions().collect();
        assert_eq!(all, [(RemoteAddr(10), &b"abCDEFGHIJXyz"[..])]);
        assert_eq!(image.bytes(RemoteAddr(11), 2).expect("there"), b"bC");
        assert!(image.bytes(RemoteAddr(22), 2).is_err());
        assert!(image.bytes(RemoteAddr(9), 2).is_err());
    }

    #[test]
    fn the_form_is_read_back_and_nonsense_refused() {
        let mut image = MemoryImage::default();
        image.insert(RemoteAddr(u64::MAX - 2), b"end");
        image.insert(RemoteAddr(7), b"x");
        let bytes = image.to_bytes();
        assert_eq!(MemoryImage::parse(&bytes), Some(image));
        assert_eq!(MemoryImage::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(MemoryImage::parse(b"nonsense"), None);
    }

    proptest! {
        /// However pieces overlap, the image is what writing them to an array gives.
        #[test]
        fn as_an_array(pieces in prop::collection::vec((0..200_u64, prop::collection::vec(any::<u8>(), 0..40)), 0..40)) {
            let (mut image, mut array) = (MemoryImage::default(), [None; 240]);
            for (start, bytes) in &pieces {
                image.insert(RemoteAddr(*start), bytes);
                for (slot, byte) in array.iter_mut().skip(*start as usize).zip(bytes) {
                    *slot = Some(*byte);
                }
            }
            for (at, expected) in array.iter().enumerate() {
                let got = image.bytes(RemoteAddr(at as u64), 1).ok().map(|b| b[0]);
                prop_assert_eq!(got, *expected);
            }
        }
    }
}

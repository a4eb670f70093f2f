//! The memory of a target, read in batches.
//!
//! In: ranges of addresses. Out: their bytes, or which of them are not there. Behind [`ReadMemory`] stands a live process
//! ([`LiveMemory`]), a core file ([`CoreFile`]) or a recording ([`MemoryImage`]). Must not know what the bytes mean.
//!
//! A goroutine's parts are scattered: a hundred thousand of them are half a million small reads. So the unit is the
//! batch, and what cannot be read is a value ([`Batch::get`] is `None`), for the target goes on while we read.

mod core;
mod image;
mod live;

pub use self::core::{CoreError, CoreFile};
pub use image::{MemoryImage, Recorder};
pub use live::LiveMemory;

use crate::units::{MonotonicNs, RemoteAddr};

/// The most bytes one batch may ask for: hostile lengths must not become our memory.
pub const BATCH_LIMIT: usize = 256 << 20;

/// Some bytes of the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// The first one's address.
    pub start: RemoteAddr,
    /// How many.
    pub len: usize,
}

/// Why memory cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The process is over.
    #[error("the process has exited")]
    Exited,
    /// We may not.
    #[error("no permission to read the memory of process {pid}: {}", super::permission::way_out())]
    Permission {
        /// The process.
        pid: crate::units::Pid,
    },
    /// Nothing is there.
    #[error("no memory at {address}: {why}")]
    Missing {
        /// The first address that was wanted.
        address: RemoteAddr,
        /// What is known of it.
        why: String,
    },
    /// So much is never read at once.
    #[error("{len} bytes of memory were to be read at once, more than gotracer takes ({BATCH_LIMIT})")]
    TooMuch {
        /// How much was asked for.
        len: usize,
    },
    /// Something else.
    #[error("cannot read the memory of the process")]
    Read(#[source] std::io::Error),
}

/// Memory that can be read by address.
pub trait ReadMemory: Sync {
    /// Reads `ranges` one behind the other into `into`, which is as long as they are together. The indices of those that
    /// are not wholly there are added to `missing`, in rising order; their bytes in `into` mean nothing.
    ///
    /// # Errors
    ///
    /// If nothing more can be read at all.
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError>;

    /// Why nothing can be read at `address`, for a person.
    fn why_missing(&self, address: RemoteAddr) -> String;

    /// The target's monotonic clock; `None` where time stands still.
    fn now(&self) -> Option<MonotonicNs> {
        None
    }

    /// Fills `into` from `address`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Missing`] if not all of it is there, or as [`ReadMemory::fill`].
    fn read(&self, address: RemoteAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut missing = Vec::new();
        self.fill(&[MemoryRange { start: address, len: into.len() }], into, &mut missing)?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(MemoryError::Missing { address, why: self.why_missing(address) })
    }

    /// `len` bytes from `address`.
    ///
    /// # Errors
    ///
    /// As [`ReadMemory::read`], and [`MemoryError::TooMuch`].
    fn bytes(&self, address: RemoteAddr, len: usize) -> Result<Vec<u8>, MemoryError> {
        if len > BATCH_LIMIT {
            return Err(MemoryError::TooMuch { len });
        }
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The little-endian word at `address`.
    ///
    /// # Errors
    ///
    /// As [`ReadMemory::read`].
    fn word(&self, address: RemoteAddr) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The result of one batch, in a buffer to be used again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each range begins in `bytes`, and the end of the last.
    starts: Vec<usize>,
    /// Sorted.
    missing: Vec<usize>,
}

impl Batch {
    /// Reads `ranges`, in place of what was there before.
    ///
    /// # Errors
    ///
    /// As [`ReadMemory::fill`], and [`MemoryError::TooMuch`] before anything is read.
    pub fn read(&mut self, memory: &dyn ReadMemory, ranges: &[MemoryRange]) -> Result<(), MemoryError> {
        self.starts.clear();
        self.missing.clear();
        let mut len = 0_usize;
        for range in ranges {
            self.starts.push(len);
            len = len.saturating_add(range.len);
        }
        if len > BATCH_LIMIT {
            self.starts.clear();
            return Err(MemoryError::TooMuch { len });
        }
        self.starts.push(len);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        let into = self.bytes.get_mut(..len).unwrap_or_default();
        let done = memory.fill(ranges, into, &mut self.missing);
        if done.is_err() {
            self.starts.clear();
        }
        done
    }

    /// The bytes of range `index`; `None` where they are not all there.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.missing.binary_search(&index).is_ok() {
            return None;
        }
        self.bytes.get(*self.starts.get(index)?..*self.starts.get(index.checked_add(1)?)?)
    }
}

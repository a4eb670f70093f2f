//! Positioned reads of the executable file: no mmap, no shared cursor.
//!
//! A mapping of a file that is truncated under us would kill the tracer with SIGBUS; a `pread` gives an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::read::ReadCacheOps;

use super::error::BinaryError;

/// Reads exactly `len` bytes at `offset`.
///
/// # Errors
/// [`BinaryError::Corrupt`] where the file ends before, [`BinaryError::Io`] where the system refuses.
pub(crate) fn read_at(file: &File, offset: u64, len: usize, what: &'static str) -> Result<Vec<u8>, BinaryError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| BinaryError::corrupt(what, "larger than our memory"))?;
    bytes.resize(len, 0);
    file.read_exact_at(&mut bytes, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => BinaryError::corrupt(what, "the file ends before it does"),
        _ => BinaryError::Io { what, source },
    })?;
    Ok(bytes)
}

/// A cursor of our own over a shared file, so that `object`'s cache can be used from several threads.
pub(crate) struct Cursor<'a> {
    file: &'a File,
    len: u64,
    position: u64,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `file`, which is `len` bytes long.
    pub(crate) fn new(file: &'a File, len: u64) -> Self {
        Self { file, len, position: 0 }
    }
}

// The unit errors are `object`'s trait's.
impl ReadCacheOps for Cursor<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.len)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let n = self.file.read_at(buffer, self.position).map_err(|_| ())?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        self.file.read_exact_at(buffer, self.position).map_err(|_| ())?;
        self.position = self.position.saturating_add(buffer.len() as u64);
        Ok(())
    }
}

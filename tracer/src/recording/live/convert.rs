//! Items into a file without a session: what converts recordings. The file is written as one of a session is.

use std::io;

use super::files::{Files, FilesError, Limits, Paths};
use crate::recording::{Encode, Item, Parts};

/// Bytes that are written at a time.
const CHUNK: usize = 1 << 20;

/// Writes items to a file.
pub struct Convert {
    files: Files,
    encoder: Box<dyn Encode>,
    parts: Parts,
}

impl Convert {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// If it is there already, or cannot be created.
    pub fn begin(paths: Paths, encoder: Box<dyn Encode>) -> Result<Self, FilesError> {
        Ok(Self { files: Files::create(paths, Limits::default())?, encoder, parts: Parts::default() })
    }

    /// Writes one item.
    ///
    /// # Errors
    ///
    /// If that fails; then the file is taken away again, for it is not what was asked for.
    pub fn put(&mut self, item: &Item) -> io::Result<()> {
        let done = self.encoder.put(item, &mut self.parts).and_then(|()| {
            if self.parts.main.len() + self.parts.beside.len() >= CHUNK {
                self.files.write(&mut self.parts)
            } else {
                Ok(())
            }
        });
        done.inspect_err(|_| self.files.remove())
    }

    /// Writes the end.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    pub fn finish(mut self) -> io::Result<()> {
        let done = self.encoder.finish(&mut self.parts).and_then(|()| self.files.finish(&mut self.parts));
        done.inspect_err(|_| self.files.remove())
    }
}

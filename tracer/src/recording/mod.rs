//! A recording: what a session saw, complete without the process and its executable.
//!
//! In: events, names, snapshots. Out: [`Item`]s, in the order in which the table took them, so that a table fed with them is
//! the table that the session had. [`gtr`] writes and reads them as a compact file; the forms that other programs read are
//! in [`output::recording`](crate::output::recording). Must not know how anything is shown.
//!
//! - [`Item`] is the noun of this stage. A [`Source`] gives items, an [`Encode`] turns them into bytes: recording is
//!   session -> items -> bytes, converting is source -> items -> bytes, reporting is source -> items -> figures;
//! - [`names`] keeps the definitions among the items and gives names by them;
//! - [`live`] records a session, in a thread of its own;
//! - [`replay`] brings items into a [`GoroutineTable`](crate::goroutines::GoroutineTable) again, step by step;
//!   [`waits`] sums up blocked time on the way.

pub mod gtr;
mod header;
mod item;
pub mod live;
pub mod names;
pub mod replay;
#[cfg(test)]
pub(crate) mod samples;
pub mod waits;

pub use header::{Header, Program, wall_offset_ns};
pub use item::{Damage, Definitions, End, Frame, Item, Parked, Reading, StackNumber};
pub use names::RecordedNames;

use std::io;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file.
    #[error("cannot read the recording")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("this is no recording by gotracer: {why}")]
    Foreign {
        /// What was found, or was not.
        why: String,
    },
    /// A later version of the format.
    #[error("this recording has format version {found}, and this gotracer reads up to {known}: use a newer gotracer")]
    Newer {
        /// The file's version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// A recording, but nothing of it is left to read.
    #[error("this recording is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
}

/// Where items come from.
pub trait Source {
    /// What the recording says of itself.
    fn header(&self) -> &Header;

    /// The next item; `None` at the end. Where the end is not an [`Item::End`], the recording was cut off: whoever wrote it
    /// was killed, or is still writing. What is read up to there is right.
    ///
    /// # Errors
    ///
    /// If the file cannot be read on. Damage within it is no error but an [`Item::Damage`].
    fn next(&mut self) -> Result<Option<Item>, ReadError>;
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn header(&self) -> &Header {
        (**self).header()
    }

    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        (**self).next()
    }
}

/// Turns items into the bytes of a file, or of two that belong together.
///
/// What is appended to a buffer is whole: a file that ends behind it can be read as far as its form allows that at all. So
/// whoever writes the bytes, writes all that one call gave, or nothing of it.
pub trait Encode: Send {
    /// Takes one item. May append nothing for now.
    ///
    /// # Errors
    ///
    /// If a library that makes the form fails.
    fn put(&mut self, item: &Item, out: &mut Parts) -> io::Result<()>;

    /// Appends what was held back, as far as the form can do that before the end. Called at least once a second.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    fn flush(&mut self, out: &mut Parts) -> io::Result<()>;

    /// Appends the end. Nothing is put after it.
    ///
    /// # Errors
    ///
    /// As [`Self::put`].
    fn finish(&mut self, out: &mut Parts) -> io::Result<()>;

    /// At most so many bytes go to each part in [`Self::finish`], as things stand: what is to be kept free on the disk.
    fn reserve(&self) -> usize;
}

/// Bytes for the files of a recording: the one that was asked for, and the one beside it that some forms need.
#[derive(Debug, Default)]
pub struct Parts {
    /// The file.
    pub main: Vec<u8>,
    /// The one beside it.
    pub beside: Vec<u8>,
}

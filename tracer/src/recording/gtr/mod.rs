//! The .gtr form: a file that keeps up with a million events a second, and of which a crash leaves all but the end.
//!
//! In and out: [`Item`](super::Item)s and bytes. docs/formats.md describes the bytes.
//!
//! A file is a head and frames. Each frame is decoded by itself: goids, sites and times begin anew in it. So a reader can go
//! on behind a damaged one, and a [`Ring`] of the newest frames is a recording once the frames that define names are put
//! before it. Frames have a checksum each; what a crash cuts off is the last one.
//!
//! - [`frame`] is the envelope: kind, lengths, checksums;
//! - [`bytes`], [`events`], [`tables`] are what is inside;
//! - [`encode`] and [`Reader`] make and read whole files; [`Ring`] keeps the newest minutes in memory; [`index`] finds a
//!   moment in a file without reading all that is before it.

mod bytes;
mod encode;
mod events;
mod frame;
mod index;
mod reader;
mod ring;
mod tables;

#[cfg(test)]
mod tests;

pub use encode::{Encoder, Writer};
pub use index::Index;
pub use reader::Reader;
pub use ring::Ring;

/// The version of the format. A change that an older reader cannot pass over makes it one more.
pub const VERSION: u16 = 1;
/// Fields that an older reader passes over have been added so often.
pub const MINOR_VERSION: u16 = 0;

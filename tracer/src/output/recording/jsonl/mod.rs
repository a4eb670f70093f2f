//! JSON lines, written and read again: the objects of `gotracer trace --json`, and a few more for what else a recording
//! holds. docs/formats.md describes them.

mod lines;
mod read;
mod write;

pub use read::{Reader, ZSTD};
pub use write::Encoder;

//! Recordings in the forms that other programs read.
//!
//! In: [`Item`](crate::recording::Item)s. Out: bytes of JSON lines, Parquet, a Perfetto trace, a pprof profile. Knows
//! nothing of files: where bytes go is for [`recording::live`](crate::recording::live) or the command line to say.

mod format;
pub mod jsonl;
pub mod parquet;
pub mod perfetto;
pub mod pprof;

pub use format::{Format, FormatError};

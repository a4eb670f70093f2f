//! gotracer: every goroutine of a running Go program, seen from outside.
//!
//! One pipeline, and the file tree shows it. A module may use those to its left:
//!
//! ```text
//! live:  process -> binary -> go_runtime -> tracee -> probes -> (kernel) -> events -> goroutines -> governor -> session
//!        -> recording -> output
//! dump:  process -> binary -> go_runtime -> tracee -> snapshot -> output
//! prove: process -> binary -> go_runtime -> tracee -> snapshot -> proof -> output -> proving
//! ```
//!
//! - what is true of a file ([`binary`], [`go_runtime`]) is kept apart from what is true of a process ([`process`]);
//!   [`tracee`] brings the two together: one process that runs one Go program;
//! - [`session`] is the live half put together: one target, attached, its table kept;
//! - [`recording`] is what a session saw, in a file, and read from there again;
//! - [`agent`] does that for every Go process of a host, with one set of kernel programs, for as long as it runs;
//! - [`cli`] stands at the end: the only place that prints, reads flags, or decides an exit code;
//! - [`units`] lies under all: the newtypes for addresses, ids and times; and `kernel`, memory shared with it and perf
//!   events; and `thread_time`, the clock of our own threads.

pub mod agent;
pub mod analysis;
pub mod binary;
pub mod cli;
pub mod events;
pub mod go_runtime;
pub mod goroutines;
pub mod governor;
mod kernel;
pub mod output;
pub mod probes;
pub mod process;
pub mod proof;
pub mod proving;
pub mod recording;
pub mod session;
pub mod snapshot;
mod thread_time;
pub mod tracee;
pub mod units;
pub mod watch;

//! gotracer: every goroutine of a running Go program, seen from outside.
//!
//! One pipeline, and the file tree shows it. A module may use those to its left:
//!
//! ```text
//! live:  process -> binary -> go_runtime -> probes -> (kernel) -> events -> goroutines -> analysis -> output
//! dump:  process -> binary -> go_runtime -> snapshot -> output
//! ```
//!
//! [`cli`] stands at the end of both: the only place that prints, reads flags, or decides an exit code.
//! [`units`] lies under all: the newtypes for addresses, ids and times.

pub mod binary;
pub mod cli;
pub mod events;
pub mod go_runtime;
pub mod goroutines;
pub mod output;
pub mod probes;
pub mod process;
pub mod units;

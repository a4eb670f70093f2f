//! Harness of the end-to-end tests: real Go programs that tell what they did, beside a gotracer that tells what it saw.
//!
//! ```text
//! Program --READY--> Gotracer::trace --"tracing"--> Program.send("go") --> Tally
//!                    Gotracer::stop  --> Trace      compared with the Tally in tests/e2e
//! ```
//!
//! Nothing sleeps in place of a condition: every wait has a condition and a deadline. Everything that is started is
//! killed when its handle is dropped.

pub mod agent;
pub mod child;
pub mod environment;
pub mod program;
pub mod servers;
pub mod tally;
pub mod terminal;
pub mod text;
pub mod traceback;
pub mod tracer;
mod versions;

pub use program::Program;
pub use tally::Tally;
pub use tracer::{Gotracer, Trace};
pub use versions::{GO_VERSIONS, VARIANTS};

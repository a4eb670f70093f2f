//! The host agent: every Go process of a machine, watched at a bounded price.
//!
//! In: a [`Config`](config::Config). Out: metrics, dumps and findings over HTTP and OTLP; when an alarm fires, evidence,
//! and then help. Stands after `session` and `analysis`, and must not know how a command line looks.
//!
//! ```text
//! discovery -> rules -> programs (read and probed once a file) -> watch (one process) -> metrics -> http, otlp
//!                                     kernel (attaches)             |-> circuit_breaker -> evidence -> actions
//! ```
//!
//! - one set of kernel programs and buffers for all processes; probes stand in a *file*, and serve all that run it;
//! - [`state`] is all of it, on one thread; what takes long (reading files and memory, attaching) is done elsewhere;
//! - [`verdicts`] has the prover say which goroutines are leaked, now and then, at the lowest priority;
//! - what fails for one process is noted in the [`registry`] with its reason and touches no other.

mod allocator;
pub mod budget;
pub mod circuit_breaker;
pub mod clock;
pub mod config;
pub mod container;
pub mod discovery;
pub mod evidence;
mod export;
pub mod flight_recorder;
pub mod growth;
pub mod http;
pub mod kernel;
pub mod notice;
mod pace;
pub mod post;
pub mod procfs;
pub mod programs;
pub mod reading;
pub mod registry;
pub mod rules;
pub mod run;
pub mod state;
pub mod systemd;
mod take_on;
pub mod verdicts;
pub mod watch;

pub use run::{AgentError, run};

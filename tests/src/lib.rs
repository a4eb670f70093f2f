//! Harness of the end-to-end tests.

pub mod environment;
mod versions;

pub use versions::GO_VERSIONS;

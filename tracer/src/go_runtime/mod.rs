//! What the facts of a binary mean: the Go runtime's version, struct layouts, statuses, wait reasons, variables.
//!
//! In: a [`crate::binary::Binary`]. Out: [`Layout`], [`WaitReasons`], [`Status`], [`Owner`]. Knows how the runtime is
//! built, version by version; must not know any process.

mod globals;
mod layout;
#[rustfmt::skip]
mod layouts_generated;
mod references;
mod status;
mod structs;
mod system_goroutine;
mod wait_reason;

pub use globals::{Evidence, GlobalError, Globals, Located, Variable};
pub use layout::{Field, LayoutError, LayoutSource, known_versions};
pub use status::{SCAN_BIT, Status};
pub use structs::*;
pub use system_goroutine::Owner;
pub use wait_reason::WaitReasons;

pub use crate::binary::GoVersion;

//! The Go versions, and the ways of linking, that gotracer is tested against.

/// Oldest first: the oldest that Debian still carries, then a late patch release of every later minor version that
/// can be had. "1.19" has no third number: Debian's security updates change it.
pub const GO_VERSIONS: &[&str] = &["1.19", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];

/// By name, as in the paths of the test programs. `cargo xtask programs --help` says what each is.
pub const VARIANTS: &[&str] = &["plain", "stripped", "pie", "cgo"];

//! Newtypes for the numbers that must not be mixed.
//!
//! Three address spaces meet in a tracer: what the file says ([`Pc`]), where the kernel puts it in one process
//! ([`RemoteAddr`]), and where it lies in the file ([`FileOffset`]). Only `process` knows the load bias that turns
//! one of the first two into the other, and only `binary` the segments that give the third.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! hex_unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

hex_unit! {
    /// A link-time virtual address: what the executable's own tables speak of, before any load bias.
    Pc
}
hex_unit! {
    /// An address in the memory of the target, load bias included.
    RemoteAddr
}
hex_unit! {
    /// A byte offset in the executable file; what a uprobe is attached by.
    FileOffset
}

/// A goroutine's id, `g.goid`: unique within one run of one program, never reused there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Goid(pub u64);

impl fmt::Display for Goid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment on `CLOCK_MONOTONIC`, in nanoseconds: the clock of `bpf_ktime_get_ns` and of Go's `nanotime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A process as the kernel numbers it in the tracer's PID namespace (the thread group id).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses a duration as people write it: `500ms`, `5s`, `2m`, `1h`, or seconds without a unit.
///
/// # Errors
///
/// If it is none; the text says what one looks like.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is no duration; write 500ms, 5s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    std::time::Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "5x", "1.2.3s", "-1s", "1e400h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}

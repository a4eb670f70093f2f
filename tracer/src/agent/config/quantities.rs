//! What people write in a configuration: durations, sizes, patterns, signals, memory bounds. Each knows what is wrong with it.

use std::fmt;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::parse_duration;

/// A duration: `500ms`, `5s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(input)?).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&format!("{}ms", self.0.as_millis()))
    }
}

/// A number of bytes: `512KiB`, `16MiB`, `1GiB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size; write 512KiB, 16MiB, 1GiB or a number of bytes");
        let (number, unit) =
            UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.0.to_string())
    }
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Regex::new(&text).map(Self).map_err(|error| de::Error::custom(format!("no regular expression: {error}")))
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(self.0.as_str())
    }
}

/// A signal, by name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

const SIGNALS: [(&str, i32); 10] = [
    ("SIGHUP", libc::SIGHUP),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGABRT", libc::SIGABRT),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGTERM", libc::SIGTERM),
    ("SIGCONT", libc::SIGCONT),
    ("SIGURG", libc::SIGURG),
    ("SIGWINCH", libc::SIGWINCH),
];

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let names = || SIGNALS.map(|(name, _)| name).join(", ");
        SIGNALS.iter().find(|(name, _)| *name == text).map(|(_, number)| Self(*number)).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no signal that can be sent; write one of {}", names()))
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIGNALS.iter().find(|(_, number)| *number == self.0).map_or("?", |(name, _)| name))
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

/// What `memory.high` is to be set to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryHigh {
    /// So many bytes.
    Bytes(u64),
    /// This share of the cgroup's `memory.max`, in per cent.
    Percent(f64),
}

impl<'de> Deserialize<'de> for MemoryHigh {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let Some(percent) = text.strip_suffix('%') else {
            return Size::parse(&text).map(|size| Self::Bytes(size.0)).map_err(de::Error::custom);
        };
        let percent = percent.trim().parse().ok().filter(|percent| (1.0..=100.0).contains(percent));
        percent.map(Self::Percent).ok_or_else(|| de::Error::custom(format!("`{text}` is not between 1% and 100%")))
    }
}

impl Serialize for MemoryHigh {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => output.collect_str(bytes),
            Self::Percent(percent) => output.collect_str(&format_args!("{percent}%")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(Size::parse("16MiB"), Ok(Size(16 << 20)));
        assert_eq!(Size::parse("12"), Ok(Size(12)));
        for wrong in ["", "MiB", "1.5MiB", "-1", "99999999999TiB", "1MB"] {
            assert!(Size::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The Go version in a binary, as text and as numbers.
//!
//! In: the string the linker put in the build info. Out: [`GoVersion`]. Knows nothing of what a version means; that is
//! `go_runtime`.

use std::fmt;

/// A Go release, as far as its build info tells it.
///
/// Vendors append what they like (`go1.21.13 (Red Hat ...)`, `go1.24.1-google`); development builds prepend
/// `devel`. Only the numbers count here, and [`GoVersion::text`] keeps the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoVersion {
    minor: u16,
    patch: Option<u16>,
    devel: bool,
    text: String,
}

impl GoVersion {
    /// Reads `go1.27.3`, `go1.27rc1`, `go1.27.3 X:exp`, `devel go1.28-abc Tue ...`, and these with vendor suffixes;
    /// `None` where no `go1.` with a number stands at the start (after `devel`), `devel +abc` of Go 1.16 included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (devel, rest) = match text.strip_prefix("devel ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let rest = rest.strip_prefix("go1.")?;
        let (minor, rest) = number(rest)?;
        let patch = rest.strip_prefix('.').and_then(number).map(|(n, _)| n);
        Some(Self { minor, patch, devel: devel || rest.starts_with("-devel"), text: text.to_owned() })
    }

    /// The N of Go 1.N.
    #[must_use]
    pub fn minor(&self) -> u16 {
        self.minor
    }

    /// The P of Go 1.N.P; `None` for a release candidate, a development build, or 1.N.0 before 1.21.
    #[must_use]
    pub fn patch(&self) -> Option<u16> {
        self.patch
    }

    /// Whether it was built from a development tree, whose layouts may be on the way to the next release's.
    #[must_use]
    pub fn is_devel(&self) -> bool {
        self.devel
    }

    /// The whole string of the build info.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The experiments named behind `X:`, such as `goroutineleakprofile`.
    pub fn experiments(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace().filter_map(|word| word.strip_prefix("X:")).flat_map(|list| list.split(','))
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Option<(u16, Option<u16>, bool)> {
        GoVersion::parse(text).map(|v| (v.minor(), v.patch(), v.is_devel()))
    }

    #[test]
    fn releases_candidates_and_vendors() {
        assert_eq!(numbers("go1.27.3"), Some((27, Some(3), false)));
        assert_eq!(numbers("go1.18"), Some((18, None, false)));
        assert_eq!(numbers("go1.27rc1"), Some((27, None, false)));
        assert_eq!(numbers("go1.27.3 X:goroutineleakprofile"), Some((27, Some(3), false)));
        assert_eq!(numbers("devel go1.28-abcdef012 Tue Jan 6 10:00:00 2026 +0000"), Some((28, None, true)));
        assert_eq!(numbers("go1.27-devel_0123456789 Tue Jan 6"), Some((27, None, true)));
        assert_eq!(numbers("go1.21.13 (Red Hat 1.21.13-3.el9)"), Some((21, Some(13), false)));
        assert_eq!(numbers("go1.24.1-google cl/12345"), Some((24, Some(1), false)));
        assert_eq!(numbers("go1.18.3b7"), Some((18, Some(3), false)));
    }

    #[test]
    fn what_is_no_version() {
        for text in ["", "go", "go2.1", "unknown", "devel +abc", "go1.", "go1.x", "go1.99999999"] {
            assert_eq!(numbers(text), None, "{text:?}");
        }
    }

    #[test]
    fn experiments_are_listed() {
        let version = GoVersion::parse("go1.26.6 X:greenteagc,simd").expect("a version");
        assert_eq!(version.experiments().collect::<Vec<_>>(), ["greenteagc", "simd"]);
    }
}

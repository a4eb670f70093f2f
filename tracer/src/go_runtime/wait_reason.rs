//! What `g.waitreason` and gopark's third argument mean: a number, and a name for it that changes between versions.
//!
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1273-L1321>. Match by name, never by number.

use super::layout::Table;
use crate::binary::{Binary, GoVersion};
use crate::units::Pc;

/// More reasons than any version has (Go 1.27 has 44).
const LIMIT: u64 = 256;
/// Longer than any name, in bytes.
const NAME_LIMIT: u64 = 256;

/// The names of the wait reasons of one binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitReasons {
    names: Vec<String>,
}

impl WaitReasons {
    /// The names in `binary` itself, where its symbols tell the place of `runtime.waitReasonStrings`; else those of the
    /// table for its version. `None` where there is neither.
    #[must_use]
    pub fn of(binary: &Binary) -> Option<Self> {
        Self::of_symbols(binary).or_else(|| Self::of_table(binary.version()))
    }

    /// The names in `binary` itself; `None` where its symbols are stripped or do not add up.
    #[must_use]
    pub fn of_symbols(binary: &Binary) -> Option<Self> {
        let symbol = binary.symbol("runtime.waitReasonStrings").ok()??;
        // An array of strings, each a pointer and a length.
        let count = symbol.size / 16;
        if count == 0 || count > LIMIT {
            return None;
        }
        let words = binary.image().pointers(symbol.pc, usize::try_from(count).ok()? * 2).ok()?;
        let names = words.chunks_exact(2).map(|string| match string {
            // A number that no reason has any more.
            [_, Pc(0)] => Some(String::new()),
            [start, Pc(len)] if *len <= NAME_LIMIT => String::from_utf8(binary.image().read(*start, *len).ok()?).ok(),
            _ => None,
        });
        Some(Self { names: names.collect::<Option<_>>()? })
    }

    /// The names that Go 1.N had when the table was made.
    #[must_use]
    pub fn of_table(version: &GoVersion) -> Option<Self> {
        let table = super::layout::TABLES.iter().find(|table: &&Table| table.minor == version.minor())?;
        Some(Self { names: table.wait_reasons.iter().map(|&name| name.to_owned()).collect() })
    }

    /// The name of `number`; `None` for one that this version does not have. Number 0 is the empty name.
    #[must_use]
    pub fn name(&self, number: u8) -> Option<&str> {
        self.names.get(usize::from(number)).map(String::as_str)
    }

    /// The number of the reason called `name`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u8> {
        self.names.iter().position(|n| n == name).and_then(|i| u8::try_from(i).ok())
    }

    /// All names, by number.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

//! The symbol table, where the program kept it: names to addresses.
//!
//! In: the image. Out: [`Symbol`]s. Nothing is kept: a lookup streams the table once, so ask for many names at a time.

use object::elf;

use super::bytes::{u32_at, u64_at};
use super::error::BinaryError;
use super::file::read_at;
use super::image::Image;
use crate::units::Pc;

/// The largest string table read, in bytes (Kubernetes' largest binary has 20 MB).
const STRINGS_LIMIT: u64 = 1 << 30;
/// The longest name given out, in bytes; longer ones are cut.
const NAME_LIMIT: usize = 4096;
/// Entries of 24 bytes read at a time.
const BATCH: u64 = 4096;
const ENTRY: u64 = 24;

/// A function or variable by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it is.
    pub pc: Pc,
    /// Its length, in bytes; 0 where the linker does not say.
    pub size: u64,
}

impl Image {
    /// Whether a symbol table is there.
    #[must_use]
    pub fn has_symbols(&self) -> bool {
        self.sections().iter().any(|s| s.kind == elf::SHT_SYMTAB)
    }

    /// The first symbol of each of `names`, in one pass over the table; `None` for one that is not there.
    ///
    /// # Errors
    /// [`BinaryError::Corrupt`] or [`BinaryError::TooLarge`] for a table that is there and cannot be read.
    pub fn symbols<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Symbol>; N], BinaryError> {
        let mut found = [None; N];
        self.scan_symbols(|text, symbol| {
            let is = |wanted: &&str| text.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
            if let Some(i) = names.iter().position(is)
                && let Some(slot) = found.get_mut(i)
                && slot.is_none()
            {
                *slot = Some(symbol);
            }
            found.iter().any(Option::is_none)
        })?;
        Ok(found)
    }

    /// The first symbol called `name`.
    ///
    /// # Errors
    /// As [`Image::symbols`].
    pub fn symbol(&self, name: &str) -> Result<Option<Symbol>, BinaryError> {
        self.symbols([name]).map(|[symbol]| symbol)
    }

    /// Calls `take` with every defined symbol until it answers false.
    ///
    /// # Errors
    /// As [`Image::symbols`].
    pub fn each_symbol(&self, mut take: impl FnMut(&[u8], Symbol) -> bool) -> Result<(), BinaryError> {
        // A name without end would make the pass quadratic.
        self.scan_symbols(|text, symbol| {
            let text = text.get(..NAME_LIMIT).unwrap_or(text);
            take(text.split(|&b| b == 0).next().unwrap_or_default(), symbol)
        })
    }

    /// Calls `take` with the string table from each defined symbol's name on, until it answers false.
    fn scan_symbols(&self, mut take: impl FnMut(&[u8], Symbol) -> bool) -> Result<(), BinaryError> {
        let Some(table) = self.sections().iter().find(|s| s.kind == elf::SHT_SYMTAB) else { return Ok(()) };
        let Some(strings) = self.sections().get(table.link as usize) else {
            return Err(BinaryError::corrupt(".symtab", "its string table is not there"));
        };
        if strings.size > STRINGS_LIMIT {
            return Err(BinaryError::TooLarge { what: ".strtab", size: strings.size, limit: STRINGS_LIMIT });
        }
        self.check_range(table.offset, table.size, ".symtab")?;
        self.check_range(strings.offset, strings.size, ".strtab")?;
        let names = read_at(self.file(), strings.offset, strings.size as usize, ".strtab")?;
        let count = table.size / ENTRY;
        for first in (0..count).step_by(BATCH as usize) {
            let len = (count - first).min(BATCH) * ENTRY;
            let batch = read_at(self.file(), table.offset + first * ENTRY, len as usize, ".symtab")?;
            for entry in batch.chunks_exact(ENTRY as usize) {
                let (Some(name), Some(info)) = (u32_at(entry, 0), u32_at(entry, 4)) else { continue };
                let (Some(pc), Some(size)) = (u64_at(entry, 8), u64_at(entry, 16)) else { continue };
                if info >> 16 == u32::from(elf::SHN_UNDEF) {
                    continue;
                }
                let Some(rest) = names.get(name as usize..) else { continue };
                if !take(rest, Symbol { pc: Pc(pc), size }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether `size` bytes at `offset` lie within the file.
    pub(crate) fn check_range(&self, offset: u64, size: u64, what: &'static str) -> Result<(), BinaryError> {
        match offset.checked_add(size) {
            Some(end) if end <= self.file_len() => Ok(()),
            _ => Err(BinaryError::corrupt(what, "it reaches past the end of the file")),
        }
    }
}

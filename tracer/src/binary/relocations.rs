//! Dynamic relocations: what the loader writes into pointers of a position-independent program.
//!
//! In: the dynamic section. Out: [`Relocations`], link-time address -> value without load bias. Knows nothing of Go.
//!
//! Only what fills whole words from the program itself matters: `RELATIVE`, and `ABS64` against a symbol defined here.
//! The compact `DT_RELR` form leaves the values in place, so it needs no entry.

use object::elf;

use super::bytes::{u32_at, u64_at};
use super::error::BinaryError;
use super::file::read_at;
use super::image::{Arch, Image};
use crate::units::Pc;

/// The largest relocation table we read, in bytes: 10 million entries.
const TABLE_LIMIT: u64 = 240 << 20;

/// How many relocations against symbols we look up: each costs a read of the file, and a Go executable has a handful.
const SYMBOL_LIMIT: u32 = 100_000;

/// Bytes of an `Elf64_Rela`, `Elf64_Sym`.
const ENTRY: usize = 24;

/// Values by address, sorted.
#[derive(Debug, Default)]
pub(crate) struct Relocations {
    values: Vec<(u64, u64)>,
}

impl Relocations {
    /// Reads `DT_RELA`; `dynamic` is the file range of the dynamic section.
    pub(crate) fn read(image: &Image, dynamic: Option<(u64, u64)>) -> Result<Self, BinaryError> {
        let what = "dynamic relocations";
        let Some((offset, size)) = dynamic else { return Ok(Self::default()) };
        if size > 1 << 20 {
            return Err(BinaryError::TooLarge { what: "dynamic section", size, limit: 1 << 20 });
        }
        let entries = read_at(image.file(), offset, size as usize, "dynamic section")?;
        let (mut table, mut size, mut symbols) = (None, 0, None);
        for entry in entries.chunks_exact(16) {
            let (Some(tag), Some(value)) = (u64_at(entry, 0), u64_at(entry, 8)) else { continue };
            match tag as i64 {
                elf::DT_NULL => break,
                elf::DT_RELA => table = Some(Pc(value)),
                elf::DT_RELASZ => size = value,
                elf::DT_SYMTAB => symbols = Some(Pc(value)),
                _ => {}
            }
        }
        let Some(table) = table else { return Ok(Self::default()) };
        if size > TABLE_LIMIT {
            return Err(BinaryError::TooLarge { what, size, limit: TABLE_LIMIT });
        }
        let bytes = image.read(table, size).map_err(|_| BinaryError::corrupt(what, "they lie outside the segments"))?;
        let (relative, absolute) = match image.arch() {
            Arch::Amd64 => (elf::R_X86_64_RELATIVE, elf::R_X86_64_64),
            Arch::Arm64 => (elf::R_AARCH64_RELATIVE, elf::R_AARCH64_ABS64),
        };
        let mut values = Vec::with_capacity(bytes.len() / ENTRY);
        let mut lookups = 0;
        for entry in bytes.chunks_exact(ENTRY) {
            let (Some(at), Some(info), Some(addend)) = (u64_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16)) else {
                continue;
            };
            let (kind, symbol) = (info as u32, info >> 32);
            if kind == relative {
                values.push((at, addend));
            } else if kind == absolute
                && lookups < SYMBOL_LIMIT
                && let Some(symbols) = symbols
            {
                lookups += 1;
                let Some(value) = symbol_value(image, symbols, symbol) else { continue };
                values.push((at, value.wrapping_add(addend)));
            }
        }
        values.sort_unstable();
        Ok(Self { values })
    }

    /// What the loader writes at `at`.
    pub(crate) fn value(&self, at: u64) -> Option<u64> {
        let i = self.values.binary_search_by_key(&at, |&(a, _)| a).ok()?;
        self.values.get(i).map(|&(_, value)| value)
    }

    /// The addresses at which the loader writes `value`.
    pub(crate) fn places_of(&self, value: u64) -> impl Iterator<Item = Pc> {
        self.values.iter().filter(move |&&(_, v)| v == value).map(|&(at, _)| Pc(at))
    }
}

/// The value of entry `index` of the dynamic symbol table, where the program itself defines it.
fn symbol_value(image: &Image, symbols: Pc, index: u64) -> Option<u64> {
    let at = symbols.0.checked_add(index.checked_mul(ENTRY as u64)?)?;
    let entry = image.read(Pc(at), ENTRY as u64).ok()?;
    // st_name, st_info and st_other come before st_shndx.
    let section = u32_at(&entry, 4)? >> 16;
    (section != u32::from(elf::SHN_UNDEF)).then(|| u64_at(&entry, 8)).flatten()
}

//! The function table (pclntab): addresses to functions, files and lines, and back.
//!
//! In: the image and the Go version. Out: [`Functions`]. No strip removes it, for the runtime itself lives by it: stack
//! growth, the collector and panics read it. So it is what gotracer builds upon, symbol table or not.
//!
//! One copy of its bytes is kept and every answer is read from there; names are borrowed. Lookups by address are a binary
//! search, by name a binary search over hashes that are computed at the first call.

mod arguments;
mod frames;
mod header;
mod lines;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use arguments::{Argument, LiveArguments};
pub use frames::Frame;
pub(crate) use header::{Format, Header};

use super::bytes::{text_at, u32_at};
use super::error::BinaryError;
use super::image::Image;
use super::moduledata::ModuleData;
use super::version::GoVersion;
use crate::units::Pc;

/// Bytes of names hashed for lookups by name (Kubernetes' largest binary has 10 MB of them).
const INDEX_LIMIT: usize = 512 << 20;

/// All Go functions of an executable.
#[derive(Debug)]
pub struct Functions {
    image: Arc<Image>,
    header: Header,
    module: ModuleData,
    /// The whole table, from its header on.
    bytes: Vec<u8>,
    /// Hash of a function's name and its index, sorted.
    by_name: OnceLock<Vec<(u32, u32)>>,
}

/// One function: a body in the text with its tables.
///
/// Several may share a name: an assembly function's ABI0 and ABIInternal entries, and wrappers between them.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    functions: &'a Functions,
    /// Where its `_func` record begins in the table's bytes.
    record: usize,
    entry: Pc,
    end: Pc,
}

impl Functions {
    /// Locates and checks the function table and the module data it belongs to.
    ///
    /// # Errors
    /// [`BinaryError::NoPclntab`], [`BinaryError::PclntabMagic`], [`BinaryError::NoModuleData`], or
    /// [`BinaryError::Corrupt`] where the header contradicts itself.
    pub(crate) fn open(image: Arc<Image>, version: &GoVersion) -> Result<Self, BinaryError> {
        let mut first_error = None;
        for candidate in header::locate(&image, version)? {
            let (pc, header) = candidate;
            match ModuleData::find(&image, pc, &header, version) {
                Ok(module) => {
                    let len = module.pclntab_end.0.saturating_sub(pc.0);
                    let bytes = image
                        .read(pc, len)
                        .map_err(|_| BinaryError::corrupt(".gopclntab", "it reaches past its segment"))?;
                    header.check(bytes.len() as u64)?;
                    return Ok(Self { image, header, module, bytes, by_name: OnceLock::new() });
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| BinaryError::NoPclntab { version: version.to_string() }))
    }

    /// The module data found with the table.
    #[must_use]
    pub fn module(&self) -> &ModuleData {
        &self.module
    }

    /// How many functions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The functions by rising address.
    pub fn iter(&self) -> impl Iterator<Item = Function<'_>> {
        (0..self.len()).filter_map(|i| self.at(i))
    }

    /// The function that holds `pc`; `None` outside Go's text.
    #[must_use]
    pub fn find(&self, pc: Pc) -> Option<Function<'_>> {
        let offset = self.module.text_offset(pc)?;
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_offset(middle)? <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.at(low.checked_sub(1)?)
    }

    /// Every function called `name`, as pclntab writes it (`runtime.gopark`, `main.(*T).Run`, `main.Map[...]`), by
    /// rising address.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Vec<Function<'_>> {
        let index = self.by_name.get_or_init(|| {
            let mut left = INDEX_LIMIT;
            let hashed = |i| {
                let name = self.at(i)?.name();
                left = left.checked_sub(name.len())?;
                Some((hash(name.as_bytes()), u32::try_from(i).ok()?))
            };
            let mut index: Vec<(u32, u32)> = (0..self.len()).filter_map(hashed).collect();
            index.sort_unstable();
            index
        });
        let wanted = hash(name.as_bytes());
        let first = index.partition_point(|&(h, _)| h.cmp(&wanted) == Ordering::Less);
        let same = index.iter().skip(first).take_while(|&&(h, _)| h == wanted);
        same.filter_map(|&(_, i)| self.at(i as usize)).filter(|f| f.name() == name).collect()
    }

    /// The file and line of the instruction at `pc`, of the innermost inlined call there.
    #[must_use]
    pub fn line(&self, pc: Pc) -> Option<(&str, u32)> {
        self.find(pc)?.line(pc)
    }

    fn entry_offset(&self, index: usize) -> Option<u32> {
        u32_at(&self.bytes, self.header.functab_at(index)?)
    }

    fn at(&self, index: usize) -> Option<Function<'_>> {
        if index >= self.len() {
            return None;
        }
        let at = self.header.functab_at(index)?;
        let (start, record, end) =
            (u32_at(&self.bytes, at)?, u32_at(&self.bytes, at + 4)?, u32_at(&self.bytes, at + 8)?);
        let record = usize::try_from(self.header.functions).ok()?.checked_add(record as usize)?;
        // The offset of all ones marks a hole that an external linker left.
        self.bytes.get(record..record.checked_add(self.header.format.record_len())?)?;
        let (entry, end) = (self.module.text_address(start), self.module.text_address(end));
        Some(Function { functions: self, record, entry, end: end.max(entry) })
    }

    fn text(&self, base: u64, offset: u32) -> Option<&str> {
        text_at(&self.bytes, usize::try_from(base).ok()?.checked_add(offset as usize)?)
    }
}

/// FNV-1a; the hash is of our own making and never leaves the process.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// The fields of `_func`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1047-L1090>; Go 1.18 and
/// 1.19 lack `startLine`.
impl<'a> Function<'a> {
    /// Its name; empty where the table is corrupt.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.field(4).and_then(|offset| self.functions.text(self.functions.header.names, offset)).unwrap_or_default()
    }

    /// Its first instruction.
    #[must_use]
    pub fn entry(&self) -> Pc {
        self.entry
    }

    /// The entry of the next function: padding belongs to this one.
    #[must_use]
    pub fn end(&self) -> Pc {
        self.end
    }

    /// From entry to end.
    #[must_use]
    pub fn range(&self) -> Range<Pc> {
        self.entry..self.end
    }

    /// The runtime's `funcID`, whose numbers change between Go versions; 0 is an ordinary function.
    #[must_use]
    pub fn func_id(&self) -> u8 {
        self.tail(0)
    }

    /// `funcFlag`: 1 top of a stack, 2 writes SP, 4 assembly.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L37-L60>
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.tail(1)
    }

    /// Bytes of arguments and results on the stack; negative where not known.
    #[must_use]
    pub fn args_size(&self) -> i32 {
        self.field(8).unwrap_or_default() as i32
    }

    /// Where its call of `deferreturn` stands.
    #[must_use]
    pub fn deferreturn(&self) -> Option<Pc> {
        self.field(12).filter(|&offset| offset != 0).map(|offset| Pc(self.entry.0.wrapping_add(u64::from(offset))))
    }

    /// The line of its `func` keyword; `None` in Go 1.18 and 1.19, which do not say.
    #[must_use]
    pub fn start_line(&self) -> Option<u32> {
        match self.functions.header.format {
            Format::Go118 => None,
            Format::Go120 => self.field(36),
        }
    }

    /// The file and line of the instruction at `pc`, of the innermost inlined call there.
    #[must_use]
    pub fn line(&self, pc: Pc) -> Option<(&'a str, u32)> {
        let file = u32::try_from(self.pc_value(self.field(20)?, pc)?).ok()?;
        let line = u32::try_from(self.pc_value(self.field(24)?, pc)?).ok()?;
        let header = &self.functions.header;
        let unit = usize::try_from(self.field(32)?.checked_add(file)?).ok()?;
        let at = usize::try_from(header.units).ok()?.checked_add(unit.checked_mul(4)?)?;
        let offset = u32_at(&self.functions.bytes, at).filter(|&offset| offset != u32::MAX)?;
        Some((self.functions.text(header.files, offset)?, line))
    }

    /// How far SP lies below its value at the entry (where it points at the return address on amd64), in bytes, at `pc`.
    #[must_use]
    pub fn sp_delta(&self, pc: Pc) -> Option<i32> {
        self.pc_value(self.field(16)?, pc)
    }

    /// The value of PCDATA table `table` at `pc`; `None` where the function has no such table.
    ///
    /// The tables: <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L109-L113>
    #[must_use]
    pub fn pcdata(&self, table: u32, pc: Pc) -> Option<i32> {
        if table >= self.field(28)? {
            return None;
        }
        let at = self.functions.header.format.record_len().checked_add(table as usize * 4)?;
        self.pc_value(self.field(at)?, pc)
    }

    /// The address of FUNCDATA `index`; `None` where the function has none, or the Go version's layout is not known.
    ///
    /// The kinds: <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L115-L122>
    #[must_use]
    pub fn funcdata(&self, index: u8) -> Option<Pc> {
        if index >= self.tail(3) {
            return None;
        }
        let tables = usize::try_from(self.field(28)?).ok()?.checked_add(usize::from(index))?;
        let at = self.functions.header.format.record_len().checked_add(tables.checked_mul(4)?)?;
        let offset = self.field(at).filter(|&offset| offset != u32::MAX)?;
        Some(Pc(self.functions.module.gofunc?.0.wrapping_add(u64::from(offset))))
    }

    fn field(&self, at: usize) -> Option<u32> {
        u32_at(&self.functions.bytes, self.record.checked_add(at)?)
    }

    /// The four bytes that end the fixed part: funcID, flag, padding, nfuncdata.
    fn tail(&self, byte: usize) -> u8 {
        let at = self.record + self.functions.header.format.record_len() - 4 + byte;
        self.functions.bytes.get(at).copied().unwrap_or_default()
    }
}

//! The module data: the linker's table of where everything of the program lies.
//!
//! In: the image, where the function table starts, the Go version. Out: [`ModuleData`]. It is found by what it holds,
//! not by name, so stripped programs have it too: its first word points at the function table, and its first nine
//! fields must agree with that table's own header.

use super::bytes::u64_at;
use super::error::BinaryError;
use super::image::Image;
use super::pclntab::Header;
use super::version::GoVersion;
use crate::units::Pc;

/// Bytes searched at a time for a pointer to the function table.
const CHUNK: u64 = 1 << 20;
/// Places that point at the function table and are examined; a real program has one to three.
const CANDIDATE_LIMIT: usize = 64;
/// Text sections of one module believed; amd64 and arm64 have one.
const TEXT_SECTION_LIMIT: u64 = 4096;

/// A piece of the text that the linker moved as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextSection {
    /// Its offsets as the tables have them.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where it really lies.
    pub(crate) base: u64,
}

/// The fields of `runtime.moduledata` that are set at link time and that we use.
///
/// <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L402-L450>; the fields up to `etext` stand alike
/// since Go 1.18, those behind move (see `Offsets`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleData {
    /// Where the module data itself lies: `runtime.firstmoduledata`.
    pub address: Pc,
    /// The first function's entry.
    pub min_pc: Pc,
    /// The end of the last function.
    pub max_pc: Pc,
    /// The start of Go's text, the base of all function offsets; behind the start of `.text` in a cgo program.
    pub text: Pc,
    /// The end of Go's text.
    pub etext: Pc,
    /// The base of all function data (`go:func.*`); `None` for a Go version whose layout is not known.
    pub gofunc: Option<Pc>,
    /// The pieces of the text, where there is more than one.
    pub(crate) text_sections: Vec<TextSection>,
    /// The end of the function table.
    pub(crate) pclntab_end: Pc,
}

/// Where the fields behind `etext` stand, in bytes.
struct Offsets {
    gofunc: u64,
    text_sections: u64,
}

/// By Go version; each line checked against the DWARF of that release by `tests/binaries.rs`.
///
/// - 1.18, 1.19: <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go#L415-L457>
/// - 1.20 to 1.25 (`covctrs` came): <https://github.com/golang/go/blob/go1.21.13/src/runtime/symtab.go#L334-L383>
/// - 1.26 (`epclntab` came): <https://github.com/golang/go/blob/go1.26.6/src/runtime/symtab.go#L402-L451>
/// - 1.27 (`typedesclen`, `itaboffset`, `itabsize` came):
///   <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L402-L450>
fn offsets(version: &GoVersion) -> Option<Offsets> {
    match version.minor() {
        18 | 19 => Some(Offsets { gofunc: 304, text_sections: 312 }),
        20..=25 => Some(Offsets { gofunc: 320, text_sections: 328 }),
        26 => Some(Offsets { gofunc: 320, text_sections: 336 }),
        27 => Some(Offsets { gofunc: 344, text_sections: 360 }),
        _ => None,
    }
}

impl ModuleData {
    /// Finds the module data that belongs to the function table at `pclntab`.
    ///
    /// # Errors
    /// [`BinaryError::NoModuleData`] where nothing fits.
    pub(crate) fn find(image: &Image, pclntab: Pc, header: &Header, version: &GoVersion) -> Result<Self, BinaryError> {
        for address in candidates(image, pclntab)? {
            if let Some(found) = Self::read(image, address, pclntab, header, version) {
                return Ok(found);
            }
        }
        Err(BinaryError::NoModuleData { version: version.to_string() })
    }

    /// Reads the module data at `address`; `None` where what stands there does not agree with the function table.
    fn read(image: &Image, address: Pc, pclntab: Pc, header: &Header, version: &GoVersion) -> Option<Self> {
        let words = image.pointers(address, 24).ok()?;
        let word = |byte: usize| words.get(byte / 8).copied();
        let part = |offset: u64| pclntab.0.checked_add(offset).map(Pc);
        let agrees = word(0)? == pclntab
            && word(8)? == part(header.names)?
            && word(32)? == part(header.units)?
            && word(56)? == part(header.files)?
            && word(80)? == part(header.pcs)?
            && word(104)? == part(header.functions)?
            && word(128)? == part(header.functions)?
            && word(136)?.0 == header.count + 1;
        let (min_pc, max_pc, text, etext) = (word(160)?, word(168)?, word(176)?, word(184)?);
        let in_text = image.segment(text).is_some_and(|s| s.executable);
        if !agrees || !in_text || min_pc < text || max_pc < min_pc || etext < text {
            return None;
        }
        let pclntab_end = Pc(word(104)?.0.checked_add(word(112)?.0)?);
        let (mut gofunc, mut text_sections) = (None, Vec::new());
        if let Some(offsets) = offsets(version) {
            gofunc = image.pointer(Pc(address.0.checked_add(offsets.gofunc)?)).ok().filter(|pc| pc.0 != 0);
            text_sections = read_text_sections(image, Pc(address.0.checked_add(offsets.text_sections)?))?;
        }
        Some(Self { address, min_pc, max_pc, text, etext, gofunc, text_sections, pclntab_end })
    }

    /// The address of the function `offset` bytes into the text.
    ///
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L684-L709>
    pub(crate) fn text_address(&self, offset: u32) -> Pc {
        let offset = u64::from(offset);
        let section = self.text_sections.iter().find(|s| s.start <= offset && offset < s.end);
        let base = section.or(self.text_sections.last()).map_or(self.text.0, |s| s.base.wrapping_sub(s.start));
        Pc(base.wrapping_add(offset))
    }

    /// The reverse of [`ModuleData::text_address`]; `None` outside Go's text.
    pub(crate) fn text_offset(&self, pc: Pc) -> Option<u32> {
        if pc < self.min_pc || pc >= self.max_pc {
            return None;
        }
        if self.text_sections.is_empty() {
            return u32::try_from(pc.0.checked_sub(self.text.0)?).ok();
        }
        let section = self.text_sections.iter().rfind(|s| s.base <= pc.0)?;
        let within = pc.0 - section.base;
        (within < section.end.checked_sub(section.start)?).then(|| u32::try_from(section.start + within).ok())?
    }
}

/// `textsectmap`: empty unless the text is in several pieces.
fn read_text_sections(image: &Image, slice: Pc) -> Option<Vec<TextSection>> {
    let header = image.pointers(slice, 2).ok()?;
    let (start, count) = (*header.first()?, header.get(1)?.0);
    if count < 2 {
        return Some(Vec::new());
    }
    if count > TEXT_SECTION_LIMIT {
        return None;
    }
    let words = image.pointers(start, count as usize * 3).ok()?;
    let section = |w: &[Pc]| match w {
        [start, end, base] => Some(TextSection { start: start.0, end: end.0, base: base.0 }),
        _ => None,
    };
    words.chunks_exact(3).map(section).collect()
}

/// Every place whose word, once loaded, is the address of the function table.
fn candidates(image: &Image, pclntab: Pc) -> Result<Vec<Pc>, BinaryError> {
    let mut found: Vec<Pc> = image.relocations()?.places_of(pclntab.0).take(CANDIDATE_LIMIT).collect();
    for segment in image.segments().iter().filter(|s| !s.executable) {
        // The linker aligns pointers, whatever the segment's start.
        let mut at = segment.start.0.wrapping_neg() % 8;
        while at < segment.file_size && found.len() < CANDIDATE_LIMIT {
            let len = (segment.file_size - at).min(CHUNK);
            let bytes = image.read(Pc(segment.start.0 + at), len)?;
            let hits = bytes.chunks_exact(8).enumerate().filter(|(_, word)| u64_at(word, 0) == Some(pclntab.0));
            found.extend(hits.map(|(i, _)| Pc(segment.start.0 + at + 8 * i as u64)).take(CANDIDATE_LIMIT));
            at += len;
        }
    }
    Ok(found)
}

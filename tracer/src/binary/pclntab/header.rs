//! The header of the function table: where it is, its format, and where its parts begin.

use super::super::bytes::{u32_at, u64_at};
use super::super::error::BinaryError;
use super::super::image::{Arch, Image, Segment};
use super::super::version::GoVersion;
use crate::units::Pc;

/// Bytes of the header: <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L376-L397>.
const LEN: u64 = 72;
/// Bytes searched at a time where no section names the table.
const CHUNK: u64 = 1 << 20;
/// Places that look like a header and are examined; a real program has one.
const CANDIDATE_LIMIT: usize = 16;

/// The two formats we read.
///
/// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L14-L35>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Go 1.18 and 1.19.
    Go118,
    /// Go 1.20 and later: `_func.startLine` came, and inlined calls were told otherwise.
    Go120,
}

impl Format {
    fn of(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fff0 => Some(Format::Go118),
            0xffff_fff1 => Some(Format::Go120),
            _ => None,
        }
    }

    /// Bytes of `_func` before its PCDATA offsets.
    pub(crate) fn record_len(self) -> usize {
        match self {
            Format::Go118 => 40,
            Format::Go120 => 44,
        }
    }
}

/// The parts, as byte offsets from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) format: Format,
    /// What a step in a pc-value table is multiplied by: 1 on amd64, 4 on arm64.
    pub(crate) quantum: u8,
    /// How many functions.
    pub(crate) count: u64,
    pub(crate) names: u64,
    /// Indices of files by compile unit (`cutab`).
    pub(crate) units: u64,
    pub(crate) files: u64,
    /// The pc-value tables.
    pub(crate) pcs: u64,
    /// `ftab`, and behind it the `_func` records.
    pub(crate) functions: u64,
}

impl Header {
    /// Reads a header of a known format for `arch`; `None` where the bytes are no such header.
    pub(crate) fn parse(bytes: &[u8], arch: Arch) -> Option<Self> {
        let format = Format::of(u32_at(bytes, 0)?)?;
        let quantum = match arch {
            Arch::Amd64 => 1,
            Arch::Arm64 => 4,
        };
        if bytes.get(4..8)? != [0, 0, quantum, 8] {
            return None;
        }
        // The word at 24 is textStart, zero since Go 1.26; the module data tells the truth for every version.
        let header = Self {
            format,
            quantum,
            count: u64_at(bytes, 8)?,
            names: u64_at(bytes, 32)?,
            units: u64_at(bytes, 40)?,
            files: u64_at(bytes, 48)?,
            pcs: u64_at(bytes, 56)?,
            functions: u64_at(bytes, 64)?,
        };
        let rising = [LEN, header.names, header.units, header.files, header.pcs, header.functions];
        (rising.is_sorted() && header.count < u64::from(u32::MAX)).then_some(header)
    }

    /// Whether all parts lie within a table of `len` bytes.
    pub(crate) fn check(&self, len: u64) -> Result<(), BinaryError> {
        // Each entry of ftab is two u32; one more u32 ends it.
        let end = self.count.checked_mul(8).and_then(|n| n.checked_add(self.functions)?.checked_add(4));
        if self.count == 0 || end.is_none_or(|end| end > len) {
            return Err(BinaryError::corrupt(".gopclntab", "it has fewer functions than its header says"));
        }
        Ok(())
    }

    /// The place of entry `index` of `ftab`.
    pub(crate) fn functab_at(&self, index: usize) -> Option<usize> {
        usize::try_from(self.functions).ok()?.checked_add(index.checked_mul(8)?)
    }
}

/// Where the function table may be: at its section, or, where the sections are gone, at everything that looks like its
/// header. Which of them it is, the module data decides.
pub(crate) fn locate(image: &Image, version: &GoVersion) -> Result<Vec<(Pc, Header)>, BinaryError> {
    let named = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|name| image.section(name));
    if let Some(section) = named {
        let bytes = image
            .read(section.start, LEN)
            .map_err(|_| BinaryError::corrupt(".gopclntab", "it is shorter than its own header"))?;
        if let Some(header) = Header::parse(&bytes, image.arch()) {
            return Ok(vec![(section.start, header)]);
        }
        return Err(match u32_at(&bytes, 0) {
            // Go 1.16 and Go 1.2.
            Some(0xffff_fffa | 0xffff_fffb) => BinaryError::GoTooOld { version: version.to_string() },
            Some(magic) if Format::of(magic).is_none() => {
                BinaryError::PclntabMagic { magic, version: version.to_string() }
            }
            _ => BinaryError::corrupt(".gopclntab", "its header contradicts itself or the processor"),
        });
    }
    let mut found = Vec::new();
    for segment in image.segments() {
        scan(image, segment, &mut found)?;
    }
    match found.is_empty() {
        true => Err(BinaryError::NoPclntab { version: version.to_string() }),
        false => Ok(found),
    }
}

/// Adds what looks like a header in `segment`. Headers are 8-aligned, so none straddles the magic's word.
fn scan(image: &Image, segment: &Segment, found: &mut Vec<(Pc, Header)>) -> Result<(), BinaryError> {
    let mut at = segment.start.0.wrapping_neg() % 8;
    while at < segment.file_size {
        let len = (segment.file_size - at).min(CHUNK);
        let bytes = image.read(Pc(segment.start.0 + at), len)?;
        for (i, word) in bytes.chunks_exact(8).enumerate() {
            if u32_at(word, 0).and_then(Format::of).is_none() || found.len() >= CANDIDATE_LIMIT {
                continue;
            }
            let pc = Pc(segment.start.0 + at + 8 * i as u64);
            if let Some(header) = image.read(pc, LEN).ok().and_then(|b| Header::parse(&b, image.arch())) {
                found.push((pc, header));
            }
        }
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: u32, quantum: u8, parts: [u64; 7]) -> Vec<u8> {
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, quantum, 8]);
        let [count, names, units, files, pcs, functions, _] = parts;
        for word in [count, 1, 0, names, units, files, pcs, functions] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    const PARTS: [u64; 7] = [3, 72, 100, 120, 140, 160, 0];

    #[test]
    fn both_formats() {
        let parsed = Header::parse(&header(0xffff_fff1, 1, PARTS), Arch::Amd64).expect("a header");
        assert_eq!((parsed.format, parsed.count, parsed.functions), (Format::Go120, 3, 160));
        let parsed = Header::parse(&header(0xffff_fff0, 4, PARTS), Arch::Arm64).expect("a header");
        assert_eq!((parsed.format, parsed.quantum), (Format::Go118, 4));
    }

    #[test]
    fn what_is_no_header() {
        assert_eq!(Header::parse(&header(0xffff_fffa, 1, PARTS), Arch::Amd64), None, "Go 1.16");
        assert_eq!(Header::parse(&header(0xffff_fff1, 1, PARTS), Arch::Arm64), None, "the other processor");
        assert_eq!(Header::parse(&header(0xffff_fff1, 1, [3, 72, 60, 120, 140, 160, 0]), Arch::Amd64), None, "order");
        let whole = header(0xffff_fff1, 1, PARTS);
        for len in 0..whole.len() {
            assert_eq!(Header::parse(whole.get(..len).unwrap_or_default(), Arch::Amd64), None, "{len} bytes");
        }
    }

    #[test]
    fn a_count_beyond_the_table() {
        let parsed = Header::parse(&header(0xffff_fff1, 1, PARTS), Arch::Amd64).expect("a header");
        assert!(parsed.check(160 + 3 * 8 + 4).is_ok());
        assert!(parsed.check(160 + 3 * 8 + 3).is_err());
        let huge = Header { count: u64::MAX / 2, ..parsed };
        assert!(huge.check(u64::MAX).is_err());
    }
}

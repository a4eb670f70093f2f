//! The DWARF sections, read and decompressed.

use object::elf;
use object::read::{CompressedData, CompressionFormat};

use super::super::bytes::{u32_at, u64_at};
use super::super::error::BinaryError;
use super::super::file::read_at;
use super::super::image::{Image, Section};

/// The largest section read or decompressed, in bytes (Kubernetes' largest binary has 110 MB of `.debug_info`).
const LIMIT: u64 = 1 << 30;

pub(super) type Reader<'a> = gimli::EndianSlice<'a, gimli::LittleEndian>;
pub(super) type Dwarf<'a> = gimli::Dwarf<Reader<'a>>;

/// The bytes of those sections that describe types.
pub(super) struct Sections {
    loaded: Vec<(gimli::SectionId, Vec<u8>)>,
}

/// Types need no line tables, ranges or addresses.
const WANTED: [gimli::SectionId; 4] = [
    gimli::SectionId::DebugInfo,
    gimli::SectionId::DebugAbbrev,
    gimli::SectionId::DebugStr,
    gimli::SectionId::DebugLineStr,
];

/// Loads what [`WANTED`] names; `None` where there is no `.debug_info`.
pub(super) fn load(image: &Image) -> Result<Option<Sections>, BinaryError> {
    let mut loaded = Vec::new();
    for id in WANTED {
        if let Some(bytes) = section(image, id)? {
            loaded.push((id, bytes));
        }
    }
    let has_info = loaded.iter().any(|(id, bytes)| *id == gimli::SectionId::DebugInfo && !bytes.is_empty());
    Ok(has_info.then_some(Sections { loaded }))
}

impl Sections {
    pub(super) fn dwarf(&self) -> Dwarf<'_> {
        let bytes = |id| self.loaded.iter().find(|(i, _)| *i == id).map_or(&[][..], |(_, b)| b.as_slice());
        let slice = |id| Ok::<_, std::convert::Infallible>(Reader::new(bytes(id), gimli::LittleEndian));
        match Dwarf::load(slice) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }
}

fn section(image: &Image, id: gimli::SectionId) -> Result<Option<Vec<u8>>, BinaryError> {
    let what = id.name();
    if let Some(section) = image.section(what) {
        let bytes = raw(image, section, what)?;
        // An Elf64_Chdr: type, reserved, size, alignment.
        return match section.compressed {
            false => Ok(Some(bytes)),
            true => match (u32_at(&bytes, 0), u64_at(&bytes, 8), bytes.get(24..)) {
                (Some(elf::ELFCOMPRESS_ZLIB), Some(size), Some(data)) => inflate(data, size, what).map(Some),
                // Its decoder cannot be told where to stop, and no Go tool writes it.
                _ => Err(BinaryError::corrupt(what, "compressed by another method than zlib")),
            },
        };
    }
    // Linkers before 2016's wrote `.zdebug_*`: "ZLIB", the size in big-endian, the data.
    let old = what.replacen(".debug", ".zdebug", 1);
    let Some(section) = image.section(&old) else { return Ok(None) };
    let bytes = raw(image, section, what)?;
    let size = bytes.get(4..12).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    match (bytes.starts_with(b"ZLIB"), size, bytes.get(12..)) {
        (true, Some(size), Some(data)) => inflate(data, size, what).map(Some),
        _ => Err(BinaryError::corrupt(what, "its compression header is cut short")),
    }
}

fn raw(image: &Image, section: &Section, what: &'static str) -> Result<Vec<u8>, BinaryError> {
    if section.kind == elf::SHT_NOBITS {
        return Ok(Vec::new());
    }
    if section.size > LIMIT {
        return Err(BinaryError::TooLarge { what, size: section.size, limit: LIMIT });
    }
    image.check_range(section.offset, section.size, what)?;
    read_at(image.file(), section.offset, section.size as usize, what)
}

fn inflate(data: &[u8], size: u64, what: &'static str) -> Result<Vec<u8>, BinaryError> {
    if size > LIMIT {
        return Err(BinaryError::TooLarge { what, size, limit: LIMIT });
    }
    let compressed = CompressedData { format: CompressionFormat::Zlib, data, uncompressed_size: size };
    let bytes = compressed.decompress().map_err(|_| BinaryError::corrupt(what, "it cannot be decompressed"))?;
    Ok(bytes.into_owned())
}

//! The executable as the loader sees it: segments, sections, relocations; addresses to bytes and to file offsets.
//!
//! In: an open file. Out: [`Image`], which answers by link-time address ([`Pc`]). Knows nothing of Go.

use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

use object::LittleEndian;
use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use serde::Serialize;

use super::bytes::u64_at;
use super::error::BinaryError;
use super::file::{Cursor, read_at};
use super::relocations::Relocations;
use crate::units::{FileOffset, Pc};

/// The most a single read by address may ask for, in bytes: above any function or table of a real program (the
/// function table of Kubernetes' largest binary is 40 MB).
const READ_LIMIT: u64 = 1 << 30;

/// Loaded segments, section headers and notes read at most; a linker writes a dozen, some dozens, and two.
const SEGMENT_LIMIT: usize = 256;
const SECTION_LIMIT: usize = 65_536;
const NOTE_LIMIT: u64 = 64 << 10;

/// The processor a program was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86_64, Go's `amd64`.
    Amd64,
    /// aarch64, Go's `arm64`.
    Arm64,
}

impl Arch {
    /// GOARCH's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// Bytes between the end of a frame and the arguments in its caller's: on arm64 the saved link register.
    ///
    /// `MinFrameSize`: <https://github.com/golang/go/blob/go1.27.3/src/internal/goarch/goarch_arm64.go>
    #[must_use]
    pub fn min_frame_bytes(self) -> u8 {
        match self {
            Arch::Amd64 => 0,
            Arch::Arm64 => 8,
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first address.
    pub start: Pc,
    /// Its bytes in memory; those past [`Segment::file_size`] are zero.
    pub size: u64,
    /// Where it lies in the file.
    pub offset: FileOffset,
    /// Its bytes in the file.
    pub file_size: u64,
    /// `PF_W`.
    pub writable: bool,
    /// `PF_X`.
    pub executable: bool,
}

/// An entry of the section header table.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) compressed: bool,
    pub(crate) start: Pc,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
}

/// The build ids of the file, as lower-case text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BuildIds {
    /// Go's own (`go tool buildid`): actionID/.../contentID.
    pub go: Option<String>,
    /// GNU's, in hex; written by external linkers always, by Go's since 1.24.
    pub gnu: Option<String>,
}

/// The file and what its headers say.
#[derive(Debug)]
pub struct Image {
    file: File,
    file_len: u64,
    arch: Arch,
    pie: bool,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    build_ids: BuildIds,
    dynamic: Option<(u64, u64)>,
    relocations: OnceLock<Relocations>,
}

impl Image {
    /// Reads the headers of `file`.
    ///
    /// A section header table that cannot be read counts as absent, for the kernel runs such programs.
    ///
    /// # Errors
    /// Any file that is not a little-endian 64-bit ELF executable for a processor we know, or whose segments do not
    /// lie within it.
    pub fn open(file: File) -> Result<Self, BinaryError> {
        let what = "ELF header";
        let file_len = file.metadata().map_err(|source| BinaryError::Io { what, source })?.len();
        check_ident(&file, file_len)?;
        let cache = ReadCache::new(Cursor::new(&file, file_len));
        let header = elf::FileHeader64::<LittleEndian>::parse(&cache)
            .map_err(|_| BinaryError::corrupt(what, "its fields are not those of ELF version 1"))?;
        let arch = match header.e_machine(LittleEndian) {
            elf::EM_X86_64 => Arch::Amd64,
            elf::EM_AARCH64 => Arch::Arm64,
            machine => return Err(BinaryError::Machine { machine }),
        };
        let pie = match header.e_type(LittleEndian) {
            elf::ET_EXEC => false,
            elf::ET_DYN => true,
            kind => return Err(BinaryError::NotExecutable { kind }),
        };
        let programs = header
            .program_headers(LittleEndian, &cache)
            .map_err(|_| BinaryError::corrupt("program headers", "they lie outside the file"))?;
        let mut segments = Vec::new();
        let mut build_ids = BuildIds::default();
        let mut dynamic = None;
        for program in programs {
            match program.p_type(LittleEndian) {
                elf::PT_LOAD => segments.extend(segment(program, file_len)?),
                elf::PT_NOTE if program.p_filesz(LittleEndian) <= NOTE_LIMIT => build_ids.take(program, &cache),
                elf::PT_DYNAMIC => {
                    dynamic = Some((program.p_offset(LittleEndian), program.p_filesz(LittleEndian)));
                }
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(BinaryError::corrupt("program headers", "no segment is to be loaded"));
        }
        // The kernel maps at most whole pages twice; what overlaps more is made to keep readers busy.
        let loaded: u64 = segments.iter().fold(0, |sum, s| sum.saturating_add(s.file_size));
        if segments.len() > SEGMENT_LIMIT || loaded > file_len.saturating_add(1 << 24) {
            return Err(BinaryError::corrupt("program headers", "the segments overlap, or are too many"));
        }
        segments.sort_by_key(|s| s.start);
        let sections = sections(header, &cache).unwrap_or_default();
        drop(cache);
        let relocations = OnceLock::new();
        Ok(Self { file, file_len, arch, pie, segments, sections, build_ids, dynamic, relocations })
    }

    /// The processor.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Whether the kernel chooses where to load it (ELF type DYN).
    #[must_use]
    pub fn is_pie(&self) -> bool {
        self.pie
    }

    /// The build ids of the notes.
    #[must_use]
    pub fn build_ids(&self) -> &BuildIds {
        &self.build_ids
    }

    /// The loaded segments by rising address.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The length of the file, in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The open file itself, for `/proc/self/fd` and for a comparison by inode.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The segment that holds `pc`.
    #[must_use]
    pub fn segment(&self, pc: Pc) -> Option<&Segment> {
        let after = self.segments.partition_point(|s| s.start <= pc);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (pc.0 - segment.start.0 < segment.size).then_some(segment)
    }

    /// Where the byte at `pc` lies in the file; `None` for `.bss` and for what is not loaded.
    #[must_use]
    pub fn file_offset(&self, pc: Pc) -> Option<FileOffset> {
        let segment = self.segment(pc)?;
        let within = pc.0 - segment.start.0;
        (within < segment.file_size).then(|| FileOffset(segment.offset.0 + within))
    }

    /// The address of the byte at `offset`, where a segment loads it.
    #[must_use]
    pub fn pc_at(&self, offset: FileOffset) -> Option<Pc> {
        let held = |s: &&Segment| offset >= s.offset && offset.0 - s.offset.0 < s.file_size;
        self.segments.iter().find(held).map(|s| Pc(s.start.0 + (offset.0 - s.offset.0)))
    }

    /// `len` bytes at `pc` as the file has them: before relocation, `.bss` as zeros.
    ///
    /// # Errors
    /// Where no one segment holds them all, the file has been cut, or more than a gigabyte is asked for.
    pub fn read(&self, pc: Pc, len: u64) -> Result<Vec<u8>, BinaryError> {
        let what = "a loaded segment";
        let unmapped = BinaryError::Unmapped { pc, len };
        let Some(segment) = self.segment(pc) else { return Err(unmapped) };
        let within = pc.0 - segment.start.0;
        if len > segment.size - within {
            return Err(unmapped);
        }
        if len > READ_LIMIT {
            return Err(BinaryError::TooLarge { what, size: len, limit: READ_LIMIT });
        }
        let in_file = len.min(segment.file_size.saturating_sub(within));
        let mut bytes = match in_file {
            0 => Vec::new(),
            n => read_at(&self.file, segment.offset.0 + within, n as usize, what)?,
        };
        bytes.resize(len as usize, 0);
        Ok(bytes)
    }

    /// The machine code of `range`.
    ///
    /// # Errors
    /// As [`Image::read`], and where the bytes are not executable.
    pub fn code(&self, range: Range<Pc>) -> Result<Vec<u8>, BinaryError> {
        let len = range.end.0.saturating_sub(range.start.0);
        match self.segment(range.start) {
            Some(segment) if segment.executable => self.read(range.start, len),
            _ => Err(BinaryError::Unmapped { pc: range.start, len }),
        }
    }

    /// The pointer at `pc` as it is after loading, without the load bias: in a position-independent program the file's
    /// word may be zero and the value stand in a relocation.
    ///
    /// # Errors
    /// As [`Image::read`], and where the relocation tables are corrupt.
    pub fn pointer(&self, pc: Pc) -> Result<Pc, BinaryError> {
        self.pointers(pc, 1).map(|words| words.first().copied().unwrap_or_default())
    }

    /// `count` pointers from `pc` on, as [`Image::pointer`].
    ///
    /// # Errors
    /// As [`Image::pointer`].
    pub fn pointers(&self, pc: Pc, count: usize) -> Result<Vec<Pc>, BinaryError> {
        let bytes = self.read(pc, (count as u64).saturating_mul(8))?;
        let relocations = self.relocations()?;
        let word = |i: usize| {
            let at = pc.0.wrapping_add(8 * i as u64);
            relocations.value(at).or_else(|| u64_at(&bytes, 8 * i)).map(Pc).unwrap_or_default()
        };
        Ok((0..count).map(word).collect())
    }

    /// The sections, where the table of them has been kept.
    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of that name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The dynamic relocations; read at the first call.
    pub(crate) fn relocations(&self) -> Result<&Relocations, BinaryError> {
        if let Some(relocations) = self.relocations.get() {
            return Ok(relocations);
        }
        let relocations = Relocations::read(self, self.dynamic)?;
        Ok(self.relocations.get_or_init(|| relocations))
    }
}

/// Looks at the first bytes, for errors that say what the file is instead.
fn check_ident(file: &File, file_len: u64) -> Result<(), BinaryError> {
    if file_len < 64 {
        return Err(BinaryError::NotElf);
    }
    let ident = read_at(file, 0, 16, "ELF header")?;
    if !ident.starts_with(&elf::ELFMAG) {
        return Err(BinaryError::NotElf);
    }
    match (ident.get(4), ident.get(5)) {
        (Some(&elf::ELFCLASS32), _) => Err(BinaryError::Bits32),
        (_, Some(&elf::ELFDATA2MSB)) => Err(BinaryError::BigEndian),
        _ => Ok(()),
    }
}

/// A segment checked against the length of the file; `None` for an empty one.
fn segment(program: &elf::ProgramHeader64<LittleEndian>, file_len: u64) -> Result<Option<Segment>, BinaryError> {
    let (offset, file_size) = (program.p_offset(LittleEndian), program.p_filesz(LittleEndian));
    let (start, size) = (program.p_vaddr(LittleEndian), program.p_memsz(LittleEndian));
    if size == 0 {
        return Ok(None);
    }
    if offset.checked_add(file_size).is_none_or(|end| end > file_len) {
        return Err(BinaryError::corrupt("program headers", "a segment reaches past the end of the file"));
    }
    if start.checked_add(size).is_none() || file_size > size {
        return Err(BinaryError::corrupt("program headers", "a segment's sizes contradict each other"));
    }
    let flags = program.p_flags(LittleEndian);
    Ok(Some(Segment {
        start: Pc(start),
        size,
        offset: FileOffset(offset),
        file_size,
        writable: flags & elf::PF_W != 0,
        executable: flags & elf::PF_X != 0,
    }))
}

type Cache<'a> = ReadCache<Cursor<'a>>;

fn sections(header: &elf::FileHeader64<LittleEndian>, cache: &Cache<'_>) -> Option<Vec<Section>> {
    if header.shnum(LittleEndian, cache).ok()? > SECTION_LIMIT {
        return None;
    }
    let table = header.sections(LittleEndian, cache).ok()?;
    let section = |s: &elf::SectionHeader64<LittleEndian>| Section {
        name: String::from_utf8_lossy(table.section_name(LittleEndian, s).unwrap_or_default()).into_owned(),
        kind: s.sh_type(LittleEndian),
        compressed: s.sh_flags(LittleEndian) & u64::from(elf::SHF_COMPRESSED) != 0,
        start: Pc(s.sh_addr(LittleEndian)),
        offset: s.sh_offset(LittleEndian),
        size: s.sh_size(LittleEndian),
        link: s.sh_link(LittleEndian),
    };
    Some(table.iter().map(section).collect())
}

impl BuildIds {
    /// Notes are an extra: a corrupt one is passed over.
    fn take(&mut self, program: &elf::ProgramHeader64<LittleEndian>, cache: &Cache<'_>) {
        const NT_GO_BUILD_ID: u32 = 4;
        let Ok(Some(mut notes)) = program.notes(LittleEndian, cache) else { return };
        while let Ok(Some(note)) = notes.next() {
            match (note.name(), note.n_type(LittleEndian)) {
                (b"Go", NT_GO_BUILD_ID) => self.go = String::from_utf8(note.desc().to_vec()).ok(),
                (b"GNU", elf::NT_GNU_BUILD_ID) => {
                    self.gnu = Some(note.desc().iter().map(|b| format!("{b:02x}")).collect());
                }
                _ => {}
            }
        }
    }
}

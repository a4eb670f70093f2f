//! An ELF core file: the memory of a process as it was when it died, or when `gcore` copied it.
//!
//! In: an open core. Out: memory by address, and where the executable was loaded. A core is seldom whole: what the kernel
//! leaves out (coredump_filter: file-backed pages, as a rule) and what a limit cut off is told apart.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadCacheRange, ReadRef};

use super::{MemoryError, MemoryRange, ReadMemory};
use crate::units::RemoteAddr;

/// Mappings of one core believed: Linux has no more (`vm.max_map_count` is 65,530, and `e_phnum` has 16 bits).
const SEGMENT_LIMIT: usize = 1 << 17;
/// `AT_PHDR` of the auxiliary vector: where the program headers are in memory.
const AT_PHDR: u64 = 3;

/// Why a file is no core that we can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// Not a core.
    #[error("{file} is not an ELF core file ({why}); `gcore PID` makes one")]
    NotCore {
        /// Its name.
        file: String,
        /// What it is.
        why: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Its name.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct CoreSegment {
    start: u64,
    /// Bytes of memory it stands for.
    size: u64,
    /// Bytes of them in the file, by its headers.
    held: u64,
    offset: u64,
}

/// A core file.
#[derive(Debug)]
pub struct CoreFile {
    file: File,
    len: u64,
    machine: u16,
    segments: Vec<CoreSegment>,
    program_headers: Option<RemoteAddr>,
}

impl CoreFile {
    /// Reads the headers of `file`; `name` is for messages.
    ///
    /// # Errors
    ///
    /// If it is no little-endian 64-bit ELF core.
    pub fn open(file: File, name: &str) -> Result<Self, CoreError> {
        let not_core = |why| CoreError::NotCore { file: name.to_owned(), why };
        let len = file.metadata().map_err(|source| CoreError::Read { file: name.to_owned(), source })?.len();
        let cache = ReadCache::new(&file);
        let header = elf::FileHeader64::<LittleEndian>::parse(&cache).map_err(|_| not_core("it is no 64-bit ELF"))?;
        if header.e_type(LittleEndian) != elf::ET_CORE {
            return Err(not_core("it is an executable or a library"));
        }
        let machine = header.e_machine(LittleEndian);
        let programs = header
            .program_headers(LittleEndian, &cache)
            .map_err(|_| not_core("its program headers lie outside the file"))?;
        let mut segments = Vec::new();
        let mut program_headers = None;
        for program in programs.iter().take(SEGMENT_LIMIT) {
            match program.p_type(LittleEndian) {
                elf::PT_LOAD => segments.push(CoreSegment {
                    start: program.p_vaddr(LittleEndian),
                    size: program.p_memsz(LittleEndian),
                    held: program.p_filesz(LittleEndian).min(program.p_memsz(LittleEndian)),
                    offset: program.p_offset(LittleEndian),
                }),
                elf::PT_NOTE => program_headers = program_headers.or_else(|| auxiliary_phdr(program, &cache)),
                _ => {}
            }
        }
        segments.sort_by_key(|s| s.start);
        drop(cache);
        Ok(Self { file, len, machine, segments, program_headers })
    }

    /// Where the executable's program headers were in memory: what tells its load bias.
    #[must_use]
    pub fn program_headers(&self) -> Option<RemoteAddr> {
        self.program_headers
    }

    /// The ELF machine number of the process.
    #[must_use]
    pub fn machine(&self) -> u16 {
        self.machine
    }

    fn segment(&self, address: u64) -> Option<&CoreSegment> {
        let after = self.segments.partition_point(|s| s.start <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address - segment.start < segment.size).then_some(segment)
    }

    fn read_range(&self, range: MemoryRange, into: &mut [u8]) -> bool {
        let (mut at, mut rest) = (range.start.0, into);
        // One object may lie across two mappings that touch.
        while !rest.is_empty() {
            let Some(segment) = self.segment(at) else { return false };
            let within = at - segment.start;
            let here = usize::try_from(segment.held.saturating_sub(within)).unwrap_or(usize::MAX).min(rest.len());
            let Some(offset) = segment.offset.checked_add(within) else { return false };
            let Some((buffer, after)) = rest.split_at_mut_checked(here) else { return false };
            if here == 0 || self.file.read_exact_at(buffer, offset).is_err() {
                return false;
            }
            at = at.wrapping_add(here as u64);
            rest = after;
        }
        true
    }
}

type Programs = elf::ProgramHeader64<LittleEndian>;

/// `AT_PHDR` of the note `NT_AUXV`.
fn auxiliary_phdr<'a>(program: &Programs, cache: &'a ReadCache<&File>) -> Option<RemoteAddr>
where
    ReadCacheRange<'a, &'a File>: ReadRef<'a>,
{
    let mut notes = program.notes(LittleEndian, cache).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.n_type(LittleEndian) == elf::NT_AUXV {
            let found = note.desc().chunks_exact(16).find_map(|entry| {
                let (kind, value) = entry.split_first_chunk::<8>()?;
                let value = u64::from_le_bytes(*value.first_chunk()?);
                (u64::from_le_bytes(*kind) == AT_PHDR).then_some(RemoteAddr(value))
            });
            return found;
        }
    }
    None
}

impl ReadMemory for CoreFile {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        let mut rest = into;
        for (i, range) in ranges.iter().enumerate() {
            let Some((buffer, after)) = rest.split_at_mut_checked(range.len) else {
                return Err(MemoryError::TooMuch { len: range.len });
            };
            if !self.read_range(*range, buffer) {
                missing.push(i);
            }
            rest = after;
        }
        Ok(())
    }

    fn why_missing(&self, address: RemoteAddr) -> String {
        match self.segment(address.0) {
            None => "the core file has no mapping there".to_owned(),
            Some(s) if address.0 - s.start >= s.held => format!(
                "the core file was written without the pages of {:#x}-{:#x} (see coredump_filter in core(5))",
                s.start + s.held,
                s.start.saturating_add(s.size)
            ),
            Some(s) => format!(
                "the core file is cut off: it has {} bytes and its headers promise {}",
                self.len,
                s.offset.saturating_add(s.held)
            ),
        }
    }
}

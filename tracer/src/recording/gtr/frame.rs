//! The envelope: what stands around each frame, and at a file's beginning.
//!
//! In and out: a payload with its kind. Knows nothing of what is in it.

use std::io;

use super::bytes::Malformed;
use super::{MINOR_VERSION, VERSION};

/// The first bytes of a file: no text, and not what a transfer as text leaves as it was.
const MAGIC: [u8; 8] = *b"\x89GTR\r\n\x1a\n";
/// Magic, version, minor version, CRC-32 of these.
pub(super) const FILE_HEAD: usize = 16;
/// The first bytes of a frame.
const SYNC: [u8; 4] = *b"GTRF";
/// Sync, kind, flags, 2 bytes of 0, stored length, raw length, events before, CRC-32 of the stored payload, CRC-32 of the
/// 28 bytes before it.
pub(super) const HEAD: usize = 32;
/// No payload is longer, stored or raw.
pub(super) const LONGEST: usize = 16 << 20;
/// The payload is compressed by zstd.
const ZSTD: u8 = 1;

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Header = 1,
    Program = 2,
    Definitions = 3,
    Events = 4,
    ReadingBegun = 5,
    Reading = 6,
    Detail = 7,
    End = 8,
    Index = 9,
}

impl Kind {
    /// `None` for one of a later version.
    pub(super) fn of(byte: u8) -> Option<Self> {
        use Kind::{Definitions, Detail, End, Events, Header, Index, Program, Reading, ReadingBegun};
        let all = [Header, Program, Definitions, Events, ReadingBegun, Reading, Detail, End, Index];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether all that follow may need it: it gives names.
    pub(super) fn names(self) -> bool {
        matches!(self, Kind::Header | Kind::Program | Kind::Definitions)
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its kind, perhaps one that we do not know.
    pub(super) kind: u8,
    flags: u8,
    /// Bytes of the payload in the file.
    pub(super) stored: u32,
    /// Bytes of the payload once it is decompressed.
    pub(super) raw: u32,
    /// Events in all frames before this one.
    pub(super) before: u64,
    crc: u32,
}

pub(super) fn file_head() -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head[10..12].copy_from_slice(&MINOR_VERSION.to_le_bytes());
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What a file's first bytes say.
pub(super) enum FileHead {
    /// It is ours, of this version.
    Version(u16),
    /// It begins as ours do, and is not as it was written.
    Damaged,
    /// It is something else.
    Foreign,
}

pub(super) fn read_file_head(head: &[u8; FILE_HEAD]) -> FileHead {
    let [.., c0, c1, c2, c3] = *head;
    let whole = crc32fast::hash(&head[..12]) == u32::from_le_bytes([c0, c1, c2, c3]);
    match head[..8] == MAGIC {
        true if whole => FileHead::Version(u16::from_le_bytes([head[8], head[9]])),
        true => FileHead::Damaged,
        // One flipped bit in the magic is damage; more is another file.
        false if whole || head[..8].iter().zip(MAGIC).filter(|(a, b)| **a != *b).count() == 1 => FileHead::Damaged,
        false => FileHead::Foreign,
    }
}

/// Appends a frame, compressed where that makes it smaller.
pub(super) fn seal(
    out: &mut Vec<u8>,
    kind: Kind,
    raw: &[u8],
    before: u64,
    compressor: &mut zstd::bulk::Compressor<'_>,
) -> io::Result<()> {
    if raw.len() > LONGEST {
        return Err(io::Error::other("a frame of the recording is too long: this is a bug in gotracer"));
    }
    let compressed = compressor.compress(raw)?;
    let (stored, flags) = if compressed.len() < raw.len() { (&*compressed, ZSTD) } else { (raw, 0) };
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&SYNC);
    head[4] = kind as u8;
    head[5] = flags;
    head[8..12].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    head[16..24].copy_from_slice(&before.to_le_bytes());
    head[24..28].copy_from_slice(&crc32fast::hash(stored).to_le_bytes());
    let crc = crc32fast::hash(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(stored);
    Ok(())
}

/// Reads the head of a frame; `None` if these bytes are none.
pub(super) fn read_head(bytes: &[u8; HEAD]) -> Option<Head> {
    let [s0, s1, s2, s3, kind, flags, _, _, a0, a1, a2, a3, b0, b1, b2, b3, n @ .., c0, c1, c2, c3, d0, d1, d2, d3] =
        *bytes;
    let whole = crc32fast::hash(&bytes[..28]) == u32::from_le_bytes([d0, d1, d2, d3]);
    let head = Head {
        kind,
        flags,
        stored: u32::from_le_bytes([a0, a1, a2, a3]),
        raw: u32::from_le_bytes([b0, b1, b2, b3]),
        before: u64::from_le_bytes(n),
        crc: u32::from_le_bytes([c0, c1, c2, c3]),
    };
    let bounded = head.stored as usize <= LONGEST && head.raw as usize <= LONGEST;
    ([s0, s1, s2, s3] == SYNC && whole && bounded).then_some(head)
}

/// The payload as it was before compression.
pub(super) fn open<'a>(
    head: &Head,
    stored: &'a [u8],
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], Malformed> {
    if crc32fast::hash(stored) != head.crc {
        return Err(Malformed("its checksum is wrong"));
    }
    if head.flags & !ZSTD != 0 {
        return Err(Malformed("it is packed in a way that this gotracer does not know"));
    }
    let raw = if head.flags & ZSTD == 0 {
        stored
    } else {
        buffer.clear();
        buffer.reserve(head.raw as usize);
        decompressor.decompress_to_buffer(stored, buffer).map_err(|_| Malformed("it cannot be decompressed"))?;
        buffer.as_slice()
    };
    if raw.len() == head.raw as usize { Ok(raw) } else { Err(Malformed("its length is wrong")) }
}

/// Where a frame may begin in `bytes`, after the first one.
pub(super) fn next_sync(bytes: &[u8]) -> Option<usize> {
    // The last bytes may be the beginning of one.
    (1..bytes.len()).find(|&at| bytes[at..].starts_with(&SYNC) || SYNC.starts_with(&bytes[at..]))
}

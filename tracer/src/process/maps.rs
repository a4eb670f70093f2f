//! /proc/PID/maps: what is mapped where.

use super::memory::MemoryRange;
use crate::units::{FileOffset, RemoteAddr};

/// One mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: RemoteAddr,
    /// Address behind the last.
    pub end: RemoteAddr,
    /// Where in the file it begins.
    pub offset: FileOffset,
    /// Whether its code may be executed.
    pub executable: bool,
    /// The file's device, as `stat` gives it.
    pub device: u64,
    /// The file's inode.
    pub inode: u64,
}

/// The file mappings in the text of /proc/PID/maps, each with its path; lines that do not parse are passed over.
pub fn parse_maps(text: &str) -> impl Iterator<Item = (Mapping, &str)> {
    text.lines().filter_map(parse_line)
}

/// The private writable memory in the text of /proc/PID/maps, but for the kernel's own mappings (`[vvar]`): where a program
/// keeps its data, C's heap and stacks included.
pub fn parse_writable(text: &str) -> impl Iterator<Item = MemoryRange> {
    text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_data = fields.next()?.starts_with("rw-p");
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        let len = usize::try_from(end.checked_sub(start)?).ok()?;
        is_data.then_some(MemoryRange { start: RemoteAddr(start), len })
    })
}

fn parse_line(line: &str) -> Option<(Mapping, &str)> {
    // One blank between fields, then blanks up to a column, then the path, which may hold blanks itself.
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_start();
    if inode == 0 {
        return None;
    }
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let mapping = Mapping {
        start: RemoteAddr(hex(start)?),
        end: RemoteAddr(hex(end)?),
        offset: FileOffset(hex(offset)?),
        executable: permissions.contains('x'),
        device,
        inode,
    };
    Some((mapping, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writable_memory_is_private_and_readable() {
        let text = "\
00400000-0047d000 r-xp 00000000 08:10 1234                               /bin/go
0058d000-0058e000 rw-p 0018c000 08:10 1234                               /bin/go
c000000000-c000400000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 rw-s 00000000 00:01 7                          /dev/shm/x
7f0000002000-7f0000003000 -w-p 00000000 00:00 0
nonsense
7ffd3b9e8000-7ffd3ba09000 rw-p 00000000 00:00 0                          [stack]";
        let found: Vec<_> = parse_writable(text).map(|range| (range.start.0, range.len)).collect();
        assert_eq!(found, [(0x58d000, 0x1000), (0xc0_0000_0000, 0x40_0000), (0x7ffd_3b9e_8000, 0x21000)]);
    }

    #[test]
    fn file_mappings_are_read_and_others_passed_over() {
        let text = "\
00400000-0047d000 r-xp 00000000 08:10 1234                               /bin/with space (deleted)
7ffd3b9e8000-7ffd3ba09000 rw-p 00000000 00:00 0                          [stack]
nonsense
";
        let found: Vec<_> = parse_maps(text).collect();
        assert_eq!(
            found,
            [(
                Mapping {
                    start: RemoteAddr(0x40_0000),
                    end: RemoteAddr(0x47_d000),
                    offset: FileOffset(0),
                    executable: true,
                    device: libc::makedev(8, 0x10),
                    inode: 1234,
                },
                "/bin/with space (deleted)"
            )]
        );
    }
}

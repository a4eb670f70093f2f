//! /proc/PID/pagemap: which pages a process has ever touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::memory::MemoryRange;
use crate::kernel::page_bytes;
use crate::units::RemoteAddr;

/// Entries read at a time.
const ENTRIES: usize = 8192;
/// Bits 63 and 62 of an entry: in memory, or swapped out.
/// <https://github.com/torvalds/linux/blob/v6.18/Documentation/admin-guide/mm/pagemap.rst>
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;

/// Adds to `found` the parts of `range` that have pages.
pub(super) fn touched(pagemap: &File, range: MemoryRange, found: &mut Vec<MemoryRange>) -> io::Result<()> {
    let page = page_bytes() as u64;
    let (mut at, end) = (range.start.0 / page * page, range.start.0.saturating_add(range.len as u64));
    let mut buffer = vec![0; ENTRIES * 8];
    while at < end {
        let wanted = ((end - at).div_ceil(page) as usize).min(ENTRIES) * 8;
        let Some(entries) = buffer.get_mut(..wanted) else { break };
        let read = pagemap.read_at(entries, at / page * 8)?;
        if read < 8 {
            break;
        }
        for entry in entries.get(..read).unwrap_or_default().chunks_exact(8) {
            let is_there =
                entry.first_chunk().is_some_and(|entry| u64::from_le_bytes(*entry) & PRESENT_OR_SWAPPED != 0);
            if is_there {
                match found.last_mut() {
                    Some(last) if last.start.0 + last.len as u64 == at => last.len += page as usize,
                    _ => found.push(MemoryRange { start: RemoteAddr(at), len: page as usize }),
                }
            }
            at += page;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_touched() {
        let bytes = vec![7_u8; 1 << 20];
        let pagemap = File::open("/proc/self/pagemap").expect("opens");
        let mut found = Vec::new();
        let range = MemoryRange { start: RemoteAddr(bytes.as_ptr() as u64), len: bytes.len() };
        touched(&pagemap, range, &mut found).expect("reads");
        let total: usize = found.iter().map(|range| range.len).sum();
        assert!(total >= bytes.len(), "{total}");
    }
}

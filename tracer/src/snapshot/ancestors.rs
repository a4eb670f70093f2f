//! The creators of goroutines, which the runtime keeps with GODEBUG=tracebackancestors=N.
//!
//! `saveAncestors`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L5415-L5445>, alike in all versions.

use hashbrown::HashMap;

use super::Source;
use crate::process::memory::ReadMemory;
use crate::units::{Goid, RemoteAddr};

/// Lists read; so many goroutines can have one each, and each costs some reads.
const LIST_LIMIT: usize = 1 << 16;
/// Creators of one goroutine believed.
const ANCESTOR_LIMIT: u64 = 64;
/// Frames of one creator: `tracebackInnerFrames`, or 100 before Go 1.21.
const FRAME_LIMIT: u64 = 100;

/// A creator, as it was when it created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its goid.
    pub goid: Goid,
    /// The return address of the `go` statement that created itself.
    pub gopc: RemoteAddr,
    /// Its stack: return addresses, innermost first.
    pub pcs: Vec<RemoteAddr>,
}

/// Reads the lists at `addresses`; 0 is none. Those that cannot be read are left out.
pub(super) fn read(
    source: &Source<'_>,
    addresses: impl Iterator<Item = RemoteAddr>,
) -> HashMap<RemoteAddr, Vec<Ancestor>> {
    let mut lists = HashMap::new();
    for address in addresses.filter(|address| address.0 != 0) {
        if lists.len() >= LIST_LIMIT {
            break;
        }
        lists.entry(address).or_insert_with(|| list(source, address).unwrap_or_default());
    }
    lists.retain(|_, list| !list.is_empty());
    lists
}

fn slice(memory: &dyn ReadMemory, bytes: &[u8], at: u32, size: u64, limit: u64) -> Option<Vec<u8>> {
    let header = bytes.get(at as usize..)?;
    let start = u64::from_le_bytes(*header.first_chunk()?);
    let len = u64::from_le_bytes(*header.get(8..)?.first_chunk()?).min(limit);
    memory.bytes(RemoteAddr(start), usize::try_from(len.checked_mul(size)?).ok()?).ok()
}

fn list(source: &Source<'_>, at: RemoteAddr) -> Option<Vec<Ancestor>> {
    let (memory, layout) = (source.memory, &source.layout.ancestor);
    let header = memory.bytes(at, 16).ok()?;
    let size = layout.size.max(1);
    let infos = slice(memory, &header, 0, u64::from(size), ANCESTOR_LIMIT)?;
    let ancestor = |info: &[u8]| {
        let pcs = slice(memory, info, layout.pcs.offset, 8, FRAME_LIMIT)?;
        let words = pcs.chunks_exact(8).filter_map(|word| word.first_chunk().map(|w| u64::from_le_bytes(*w)));
        Some(Ancestor {
            goid: Goid(layout.goid.read(info)?),
            gopc: RemoteAddr(layout.gopc.read(info)?),
            pcs: words.map(RemoteAddr).collect(),
        })
    };
    infos.chunks_exact(size as usize).map(ancestor).collect()
}

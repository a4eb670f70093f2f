//! The profiler labels of goroutines (`runtime/pprof.Do`).
//!
//! - from Go 1.24: a slice of key and value,
//!   <https://github.com/golang/go/blob/go1.27.3/src/internal/runtime/pprof/label/labelset.go>
//! - before: a `map[string]string`, in the buckets of the old maps,
//!   <https://github.com/golang/go/blob/go1.23.9/src/runtime/map.go#L113-L160>

use hashbrown::HashMap;

use super::Source;
use crate::process::memory::{Batch, MemoryRange, ReadMemory};
use crate::units::RemoteAddr;

/// Label sets read; programs have as many as kinds of work, or one a request.
const SET_LIMIT: usize = 1 << 17;
/// Labels of one set believed.
const LABEL_LIMIT: u64 = 64;
/// Bytes of a key or value; what is longer is cut off.
const TEXT_LIMIT: u64 = 256;
/// Bytes of a bucket of a `map[string]string`: eight hash bytes, eight keys, eight values, the next bucket.
const BUCKET: usize = 8 + 8 * 16 + 8 * 16 + 8;
/// The smallest hash byte of a slot in use: <https://github.com/golang/go/blob/go1.23.9/src/runtime/map.go#L86-L92>.
const IN_USE: u8 = 5;

/// A set's labels.
pub(super) type LabelSet = Vec<(String, String)>;

/// Reads the label sets at `addresses`; 0 is none. Those that cannot be read are left out.
pub(super) fn read(source: &Source<'_>, addresses: impl Iterator<Item = RemoteAddr>) -> HashMap<RemoteAddr, LabelSet> {
    let mut sets = HashMap::new();
    for address in addresses.filter(|address| address.0 != 0) {
        if sets.len() >= SET_LIMIT {
            break;
        }
        sets.entry(address).or_insert_with(|| {
            let strings = if source.binary.version().minor() >= 24 {
                slice(source.memory, address)
            } else {
                map(source.memory, address)
            };
            let mut set = strings.and_then(|strings| texts(source.memory, &strings)).unwrap_or_default();
            set.sort_unstable();
            set
        });
    }
    sets.retain(|_, set| !set.is_empty());
    sets
}

/// A Go string: pointer and length.
type Text = (u64, u64);

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn text(bytes: &[u8], at: usize) -> Option<Text> {
    Some((word(bytes, at)?, word(bytes, at.checked_add(8)?)?))
}

fn slice(memory: &dyn ReadMemory, at: RemoteAddr) -> Option<Vec<(Text, Text)>> {
    let header = memory.bytes(at, 16).ok()?;
    let (start, len) = text(&header, 0)?;
    let bytes = memory.bytes(RemoteAddr(start), len.min(LABEL_LIMIT) as usize * 32).ok()?;
    bytes.chunks_exact(32).map(|label| Some((text(label, 0)?, text(label, 16)?))).collect()
}

/// The map behind a pointer to it. While it grows its labels are in two places; nobody writes to it any more once it is a
/// goroutine's, so it has grown.
fn map(memory: &dyn ReadMemory, at: RemoteAddr) -> Option<Vec<(Text, Text)>> {
    let header = memory.bytes(RemoteAddr(memory.word(at).ok()?), 32).ok()?;
    let (count, log_buckets, start) = (word(&header, 0)?, *header.get(9)?, word(&header, 16)?);
    let mut found = Vec::new();
    let buckets = 1_u64.checked_shl(u32::from(log_buckets))?.min(LABEL_LIMIT);
    for i in 0..buckets {
        let mut next = start.checked_add(i * BUCKET as u64)?;
        for _ in 0..LABEL_LIMIT {
            if next == 0 || found.len() as u64 >= count.min(LABEL_LIMIT) {
                break;
            }
            let bucket = memory.bytes(RemoteAddr(next), BUCKET).ok()?;
            for slot in (0..8).filter(|slot| bucket.get(*slot).is_some_and(|hash| *hash >= IN_USE)) {
                found.push((text(&bucket, 8 + slot * 16)?, text(&bucket, 8 + 128 + slot * 16)?));
            }
            next = word(&bucket, BUCKET - 8)?;
        }
    }
    Some(found)
}

fn texts(memory: &dyn ReadMemory, strings: &[(Text, Text)]) -> Option<LabelSet> {
    let range = |(start, len): Text| MemoryRange { start: RemoteAddr(start), len: len.min(TEXT_LIMIT) as usize };
    let ranges: Vec<MemoryRange> = strings.iter().flat_map(|(key, value)| [range(*key), range(*value)]).collect();
    let mut batch = Batch::default();
    batch.read(memory, &ranges).ok()?;
    let text = |i: usize| Some(String::from_utf8_lossy(batch.get(i)?).into_owned());
    (0..strings.len()).map(|i| Some((text(2 * i)?, text(2 * i + 1)?))).collect()
}

//! The list of all goroutines: `runtime.allgs`.
//!
//! It only grows. `allglen` is raised after the slot behind it was written, and after `allgptr` when the array moved, so the
//! length is read first and belongs to every array seen after it:
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L713-L759>. An array that was left behind may be freed
//! while we read it; then `allgptr` has changed, and we begin again.

use super::{SnapshotError, Source};
use crate::go_runtime::Variable;
use crate::process::memory::{MemoryError, ReadMemory};
use crate::units::RemoteAddr;

/// g structs read at most: 16 million, 8 GB in the target.
pub(super) const LIMIT: usize = 1 << 24;
/// Words read at a time: a length that is a lie costs no more memory than this.
const PIECE: usize = 1 << 20;
/// How often the list may move under us.
const ATTEMPTS: usize = 10;

/// The addresses of g structs.
pub(crate) struct AllGs {
    pub(crate) addresses: Vec<RemoteAddr>,
    /// How many there are said to be, if that is above [`LIMIT`].
    pub(super) beyond: Option<u64>,
}

pub(crate) fn read(source: &Source<'_>) -> Result<AllGs, SnapshotError> {
    let remote = |variable| source.globals.get(variable).map(|(pc, _)| source.bias.remote(pc));
    let len_at = remote(Variable::Allglen)?;
    let pointer_at = remote(Variable::Allgptr)?;
    for _ in 0..ATTEMPTS {
        let listed = source.memory.word(len_at)?;
        let pointer = source.memory.word(pointer_at)?;
        if listed == 0 || pointer == 0 || pointer % 8 != 0 {
            let why = format!("{listed} of them at {pointer:#x}");
            return Err(SnapshotError::Corrupt { why });
        }
        let len = usize::try_from(listed).unwrap_or(usize::MAX).min(LIMIT);
        let words = match words(source.memory, RemoteAddr(pointer), len) {
            Ok(words) => words,
            Err(MemoryError::Missing { .. }) if source.memory.word(pointer_at)? != pointer => continue,
            Err(error) => return Err(error.into()),
        };
        if source.memory.word(pointer_at)? != pointer {
            continue;
        }
        let addresses = words.into_iter().filter(|&g| g != 0 && g % 8 == 0).map(RemoteAddr).collect();
        return Ok(AllGs { addresses, beyond: (listed > LIMIT as u64).then_some(listed) });
    }
    Err(SnapshotError::Corrupt { why: "it moved each time it was read".to_owned() })
}

/// `len` words from `start`.
fn words(memory: &dyn ReadMemory, start: RemoteAddr, len: usize) -> Result<Vec<u64>, MemoryError> {
    let mut words = Vec::new();
    while words.len() < len {
        let at = RemoteAddr(start.0.wrapping_add(8 * words.len() as u64));
        let bytes = memory.bytes(at, (len - words.len()).min(PIECE) * 8)?;
        words.extend(bytes.chunks_exact(8).filter_map(|word| word.first_chunk().map(|w| u64::from_le_bytes(*w))));
    }
    Ok(words)
}

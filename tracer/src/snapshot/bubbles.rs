//! The `testing/synctest` bubbles that goroutines are in.

use hashbrown::HashMap;

use super::Source;
use crate::units::RemoteAddr;

/// Bubbles read; a test has one.
const LIMIT: usize = 1 << 12;

/// The numbers of the bubbles of goroutines, by address of the g, out of pairs of a g and its bubble.
pub(super) fn read(source: &Source<'_>, pairs: &[(RemoteAddr, RemoteAddr)]) -> HashMap<RemoteAddr, u64> {
    let mut numbers = HashMap::new();
    for (_, bubble) in pairs {
        if numbers.len() < LIMIT {
            numbers.entry(*bubble).or_insert_with(|| number(source, *bubble));
        }
    }
    pairs.iter().filter_map(|(g, bubble)| Some((*g, (*numbers.get(bubble)?)?))).collect()
}

/// - from Go 1.25: a number of its own, <https://github.com/golang/go/blob/go1.27.3/src/runtime/synctest.go#L14-L44>
/// - Go 1.24: that of the goroutine that made it, <https://github.com/golang/go/blob/go1.24.11/src/runtime/synctest.go>
fn number(source: &Source<'_>, bubble: RemoteAddr) -> Option<u64> {
    let layout = source.layout.synctest_bubble.as_ref()?;
    let bytes = source.memory.bytes(bubble, layout.size as usize).ok()?;
    match layout.id {
        Some(id) => id.read(&bytes),
        None => source.memory.word(source.layout.g.goid.at(RemoteAddr(layout.root.read(&bytes)?))).ok(),
    }
}

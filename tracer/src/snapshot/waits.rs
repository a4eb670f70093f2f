//! What goroutines wait on: the sudogs of `g.waiting` and their channels.

use super::Wait;
use super::raw::ObjectBatch;
use crate::go_runtime::SudogLayout;
use crate::process::memory::{MemoryError, ReadMemory};
use crate::units::RemoteAddr;

/// Cases of one select believed; Go's own bound:
/// <https://github.com/golang/go/blob/go1.27.3/src/runtime/select.go#L119-L123>.
const CASE_LIMIT: usize = 1 << 16;
/// Sudogs read for one chunk of goroutines.
const TOTAL_LIMIT: usize = 1 << 20;

/// The waits of several goroutines.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) all: Vec<Wait>,
    /// For each goroutine its part of `all`.
    pub(super) ranges: Vec<(u32, u32)>,
}

/// Follows the lists that begin at `heads` (0: none), all of them a step at a time.
pub(super) fn read_waits(memory: &dyn ReadMemory, layout: &SudogLayout, heads: &[u64]) -> Result<Waits, MemoryError> {
    // (goroutine, step, wait), brought into order at the end.
    let mut found: Vec<(u32, u32, Wait)> = Vec::new();
    let mut at: Vec<(u32, RemoteAddr)> = Vec::new();
    at.extend(heads.iter().enumerate().filter(|(_, head)| **head != 0).map(|(i, head)| (i as u32, RemoteAddr(*head))));
    let mut batch = ObjectBatch::default();
    for step in 0..CASE_LIMIT {
        if at.is_empty() || found.len().saturating_add(at.len()) > TOTAL_LIMIT {
            break;
        }
        let addresses: Vec<RemoteAddr> = at.iter().map(|(_, address)| *address).collect();
        batch.read(memory, &addresses, layout.size)?;
        let mut next = Vec::new();
        for (i, &(goroutine, address)) in at.iter().enumerate() {
            let read = batch.with(memory, i, address, |bytes| {
                let wait = Wait {
                    channel: RemoteAddr(layout.c.read(bytes)?),
                    element: RemoteAddr(layout.elem.read(bytes)?),
                    select: layout.is_select.read(bytes)? != 0,
                };
                Some((wait, layout.waitlink.read(bytes)?))
            });
            let Some((wait, link)) = read else { continue };
            found.push((goroutine, step as u32, wait));
            // Of a semaphore's sudog `waitlink` leads to the next waiter, another goroutine.
            if link != 0 && wait.channel.0 != 0 {
                next.push((goroutine, RemoteAddr(link)));
            }
        }
        at = next;
    }
    found.sort_unstable_by_key(|(goroutine, step, _)| (*goroutine, *step));
    let mut waits = Waits { all: found.iter().map(|(_, _, wait)| *wait).collect(), ranges: vec![(0, 0); heads.len()] };
    for (at, (goroutine, ..)) in found.iter().enumerate() {
        if let Some(range) = waits.ranges.get_mut(*goroutine as usize) {
            if range.1 == 0 {
                range.0 = at as u32;
            }
            range.1 = at as u32 + 1;
        }
    }
    Ok(waits)
}

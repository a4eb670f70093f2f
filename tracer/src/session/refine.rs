//! How long the goroutines of a snapshot have waited, to the nanosecond where the block was seen.
//!
//! The runtime itself notes since when a goroutine waits only when its collector comes across it (`g.waitsince`), so it knows
//! nothing of short waits, and is late by up to a cycle for long ones.

use super::Session;
use crate::go_runtime::Status;
use crate::goroutines::{GoroutineTable, State};
use crate::snapshot::Snapshot;

impl Session {
    /// Gives the goroutines of `snapshot`, which was taken of the session's process while it went on, the moment of their
    /// block ([`wait_since`](crate::snapshot::Goroutine::wait_since)) where it was seen. Says how many got it.
    ///
    /// To be called when the events up to the end of the snapshot are in the table, after [`Session::finish`] for one. None
    /// gets it while events that were lost leave it open whether one has run since: then the runtime's word stands.
    pub fn refine(&self, snapshot: &mut Snapshot) -> usize {
        refine(&self.table, snapshot)
    }
}

fn refine(table: &GoroutineTable, snapshot: &mut Snapshot) -> usize {
    let (Some(taken), None) = (snapshot.taken_to, table.uncertain_since()) else { return 0 };
    let mut refined = 0;
    for goroutine in snapshot.goroutines.iter_mut().filter(|g| g.status == Status::Waiting && !g.moved) {
        let Some(known) = table.get(goroutine.goid) else { continue };
        let blocked = matches!(known.state, State::Blocked { reason } if reason == goroutine.wait_reason);
        // One that has blocked since was not read in this block.
        if blocked && !known.since_estimated && known.since <= taken {
            goroutine.wait_since = Some(known.since);
            goroutine.wait_seen = true;
            refined += 1;
        }
    }
    refined
}

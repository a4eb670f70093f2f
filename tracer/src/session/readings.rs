//! Readings of all goroutines that are wanted beside those that the table needs: a recording has stacks from them.

use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::Snapshot;

/// A reading takes at most this part of the time.
const SHARE: u32 = 50;

/// When the next reading is due, and the newest.
#[derive(Debug, Default)]
pub(super) struct Readings {
    every: Option<Duration>,
    due: Option<Instant>,
    newest: Option<Box<Snapshot>>,
}

impl Readings {
    /// From now on one is due so often, and kept until it is taken.
    pub(super) fn every(&mut self, interval: Duration) {
        self.every = Some(interval);
        self.due = Some(Instant::now() + interval);
    }

    /// One is due at once, if they are wanted at all.
    pub(super) fn now(&mut self) {
        if self.every.is_some() {
            self.due = Some(Instant::now());
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| Instant::now() >= due)
    }

    /// One was begun, for whatever reason.
    pub(super) fn begun(&mut self) {
        self.due = self.every.map(|every| Instant::now() + every);
    }

    /// One was merged.
    pub(super) fn merged(&mut self, snapshot: Box<Snapshot>) {
        let Some(every) = self.every else { return };
        let took = snapshot.taken_to.zip(snapshot.taken_from).map_or(0, |(to, from)| to.since(from));
        let gentle = Duration::from_nanos(took).saturating_mul(SHARE);
        self.due = Some(Instant::now() + every.max(gentle));
        self.newest = Some(snapshot);
    }

    pub(super) fn take(&mut self) -> Option<Box<Snapshot>> {
        self.newest.take()
    }
}

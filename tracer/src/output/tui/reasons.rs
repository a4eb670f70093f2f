//! The wait reasons that occurred, with their names and how often they begin.

use std::sync::Arc;

use crate::goroutines::GoroutineTable;
use crate::output::Names;
use crate::units::MonotonicNs;

#[derive(Clone, Debug, Default)]
struct Reason {
    name: Option<Arc<str>>,
    parks: u64,
    per_second: Option<f64>,
    seen: bool,
}

/// Reasons by their number.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons {
    known: Vec<Reason>,
    last: Option<MonotonicNs>,
    generation: u32,
}

impl Reasons {
    /// Takes in the table's figures of the moment `at`. `names` are those of each generation.
    pub(super) fn observe<N: Names>(&mut self, at: MonotonicNs, table: &GoroutineTable, names: &mut [N]) {
        if self.generation != table.generation() {
            // Another program may be of another Go version: its numbers mean something else.
            *self = Self { generation: table.generation(), last: self.last, known: Vec::new() };
        }
        let seconds = self.last.map(|last| at.since(last) as f64 / 1e9).filter(|seconds| *seconds > 0.0);
        self.last = Some(at);
        if self.known.is_empty() {
            let names = names.get(self.generation as usize);
            let name = |number| names.map(|names| Arc::from(names.reason(number).as_ref()));
            self.known = (0..=u8::MAX).map(|number| Reason { name: name(number), ..Reason::default() }).collect();
        }
        for (number, stats) in table.reasons() {
            let Some(reason) = self.known.get_mut(usize::from(number)) else { continue };
            reason.per_second = seconds.map(|seconds| stats.parks.saturating_sub(reason.parks) as f64 / seconds);
            reason.parks = stats.parks;
            reason.seen = true;
        }
    }

    /// Its name.
    pub(super) fn name(&self, reason: u8) -> Arc<str> {
        let name = self.known.get(usize::from(reason)).and_then(|reason| reason.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("reason {reason}").into())
    }

    /// Those that occurred, with parks a second.
    pub(super) fn seen(&self) -> impl Iterator<Item = (u8, Option<f64>)> + '_ {
        let numbered = (0..=u8::MAX).zip(&self.known);
        numbered.filter(|(_, reason)| reason.seen).map(|(number, reason)| (number, reason.per_second))
    }

    /// Marks one as there: a snapshot shows goroutines that waited before there was an event of it.
    pub(super) fn mark(&mut self, reason: u8) {
        if let Some(reason) = self.known.get_mut(usize::from(reason)) {
            reason.seen = true;
        }
    }
}

//! What goroutines waited for, summed over all of them.
//!
//! In: wait reasons as the runtime numbers them. Out: figures per number. Knows nothing of their names.

use super::histogram::Log2Histogram;

/// The blocks of one wait reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonStats {
    /// Blocks that began.
    pub parks: u64,
    /// Nanoseconds of the blocks that have ended, as far as known: one begun unseen counts from when it was found.
    pub blocked_ns: u64,
    /// Nanoseconds of the blocks seen at both begin and end.
    pub blocks: Log2Histogram,
}

/// Figures by wait reason; grows to the highest reason seen (the runtime has some 40).
#[derive(Debug, Default)]
pub(super) struct Reasons(Vec<ReasonStats>);

impl Reasons {
    pub(super) fn at(&mut self, reason: u8) -> &mut ReasonStats {
        let at = usize::from(reason);
        if at >= self.0.len() {
            self.0.resize_with(at + 1, ReasonStats::default);
        }
        &mut self.0[at]
    }

    /// The reasons that occurred.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &ReasonStats)> {
        (0u8..=u8::MAX).zip(&self.0).filter(|(_, stats)| stats.parks != 0 || stats.blocked_ns != 0)
    }
}

//! The last values of a figure, one a tick: what a sparkline shows.

use std::collections::VecDeque;

/// Ticks kept: the widest sparkline, and four minutes at one a second.
pub(super) const LENGTH: usize = 256;

/// A ring of the last values.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<u64>);

impl History {
    /// Adds a value; the oldest goes where there are `length`.
    pub(super) fn push(&mut self, value: u64, length: usize) {
        while self.0.len() >= length {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The newest `width` values, oldest first.
    pub(super) fn newest(&self, width: usize) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().skip(self.0.len().saturating_sub(width)).copied()
    }

    /// The value of `back` ticks before the newest, or the oldest there is, with how far back it is.
    pub(super) fn back(&self, back: usize) -> Option<(usize, u64)> {
        let back = back.min(self.0.len().checked_sub(1)?);
        self.0.get(self.0.len() - 1 - back).map(|value| (back, *value))
    }
}

/// The moments of the last ticks, which all histories share.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(History);

impl Moments {
    pub(super) fn push(&mut self, ns: u64) {
        self.0.push(ns, LENGTH);
    }

    /// Growth a second of what `history` tells, over `ticks` at most; `None` before there are two values.
    pub(super) fn growth(&self, history: &History, ticks: usize) -> Option<f64> {
        let (_, now) = history.back(0)?;
        let (back, then) = history.back(ticks)?;
        let (_, to) = self.0.back(0)?;
        let (_, from) = self.0.back(back)?;
        let seconds = to.saturating_sub(from) as f64 / 1e9;
        (seconds > 0.0).then(|| (now as f64 - then as f64) / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_growth_is_of_what_is_left() {
        let (mut history, mut moments) = (History::default(), Moments::default());
        assert_eq!(moments.growth(&history, 10), None);
        for tick in 0..5u64 {
            history.push(100 + 20 * tick, 4);
            moments.push(tick * 2_000_000_000);
        }
        assert_eq!(history.newest(10).collect::<Vec<_>>(), [120, 140, 160, 180]);
        assert_eq!(history.newest(2).collect::<Vec<_>>(), [160, 180]);
        assert_eq!(moments.growth(&history, 10), Some(10.0));
        assert_eq!(moments.growth(&history, 1), Some(10.0));
    }
}

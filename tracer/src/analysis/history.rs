//! A series of bounded length over any length of time.
//!
//! In: values at rising times. Out: at most [`HISTORY`] means. When there are more, each two neighbours become one, and from
//! then on each value stands for twice the time.

use super::HISTORY;

/// Values that can be averaged.
pub(super) trait Mean: Copy {
    /// The mean of `self`, which stands for `weight` values, and of `other`, which is one.
    #[must_use]
    fn with(self, weight: u32, other: Self) -> Self;
}

impl<const N: usize> Mean for [f32; N] {
    fn with(self, weight: u32, other: Self) -> Self {
        let weight = weight as f32;
        std::array::from_fn(|i| self[i] + (other[i] - self[i]) / (weight + 1.0))
    }
}

/// The series.
#[derive(Clone, Debug)]
pub(super) struct History<V> {
    values: Vec<(f64, V)>,
    /// How many values one of `values` stands for.
    stride: u32,
    /// The next one, and of how many it is the mean so far.
    next: Option<(f64, V, u32)>,
}

impl<V> Default for History<V> {
    fn default() -> Self {
        Self { values: Vec::new(), stride: 1, next: None }
    }
}

impl<V: Mean> History<V> {
    /// Takes the value at `seconds`.
    pub(super) fn push(&mut self, seconds: f64, value: V) {
        let (time, mean, count) = match self.next.take() {
            None => (seconds, value, 1),
            Some((time, mean, n)) => (time + (seconds - time) / f64::from(n + 1), mean.with(n, value), n + 1),
        };
        if count < self.stride {
            self.next = Some((time, mean, count));
            return;
        }
        self.values.push((time, mean));
        if self.values.len() >= HISTORY {
            let pairs = self.values.chunks_exact(2).filter_map(|pair| <&[(f64, V); 2]>::try_from(pair).ok());
            self.values = pairs.map(|[a, b]| ((a.0 + b.0) / 2.0, a.1.with(1, b.1))).collect();
            self.stride = self.stride.saturating_mul(2);
        }
    }

    /// The means, by rising time.
    pub(super) fn values(&self) -> &[(f64, V)] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line_however_long() {
        let mut history: History<[f32; 1]> = History::default();
        for i in 0..10_000 {
            history.push(f64::from(i), [i as f32 * 2.0]);
            assert!(history.values().len() < HISTORY);
        }
        assert!(history.values().len() >= HISTORY / 2 - 1);
        for (time, [value]) in history.values() {
            assert!((f64::from(*value) - 2.0 * time).abs() < 0.01, "{time} {value}");
        }
    }
}

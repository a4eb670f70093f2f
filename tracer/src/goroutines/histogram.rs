//! Durations in powers of two.
//!
//! In: nanoseconds. Out: how many fell in `[2^i, 2^(i+1))`. Knows nothing of what lasted so long.

/// Counts of durations by the power of two they fall in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log2Histogram {
    buckets: [u64; 64],
}

impl Default for Log2Histogram {
    fn default() -> Self {
        Self { buckets: [0; 64] }
    }
}

impl Log2Histogram {
    /// Counts one duration. 0 ns goes with 1 ns in bucket 0.
    pub fn add(&mut self, ns: u64) {
        self.buckets[(ns | 1).ilog2() as usize] += 1;
    }

    /// Counts all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count = count.saturating_add(*more);
        }
    }

    /// Counts `count` durations of bucket `bucket`; those beyond the last go into the last.
    pub fn add_many(&mut self, bucket: usize, count: u64) {
        let last = self.buckets.len() - 1;
        let bucket = &mut self.buckets[bucket.min(last)];
        *bucket = bucket.saturating_add(count);
    }

    /// Bucket `i` counts the durations from 2^i to 2^(i+1) - 1 nanoseconds.
    #[must_use]
    pub fn buckets(&self) -> &[u64; 64] {
        &self.buckets
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The first nanosecond *above* the bucket that holds the `share` (0.0 to 1.0) quantile: the true quantile lies
    /// below it, at half of it or more. `None` when nothing was counted.
    #[must_use]
    pub fn quantile_below_ns(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|n| {
            seen += n;
            seen >= wanted
        })?;
        Some(2u64.checked_shl(bucket as u32).filter(|&ns| ns != 0).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_of_its_highest_bit() {
        let mut histogram = Log2Histogram::default();
        for ns in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            histogram.add(ns);
        }
        let expected = [(0, 2), (1, 2), (2, 1), (9, 1), (10, 1), (63, 1)];
        for (bucket, &count) in histogram.buckets().iter().enumerate() {
            let wanted = expected.iter().find(|&&(b, _)| b == bucket).map_or(0, |&(_, n)| n);
            assert_eq!(count, wanted, "bucket {bucket}");
        }
        assert_eq!(histogram.count(), 8);
    }

    #[test]
    fn a_quantile_names_the_end_of_its_bucket() {
        let mut histogram = Log2Histogram::default();
        assert_eq!(histogram.quantile_below_ns(0.5), None);
        for ns in [10, 10, 10, 1000] {
            histogram.add(ns);
        }
        assert_eq!(histogram.quantile_below_ns(0.5), Some(16));
        assert_eq!(histogram.quantile_below_ns(1.0), Some(1024));
        histogram.add(u64::MAX);
        assert_eq!(histogram.quantile_below_ns(1.0), Some(u64::MAX));
    }
}

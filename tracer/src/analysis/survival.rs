//! How long goroutines of a site live, those that have not ended yet counted in.
//!
//! In: lifetimes of those that have ended, ages of those that live on. Out: the share that lives longer than a time, by
//! Kaplan and Meier ("Nonparametric estimation from incomplete observations", 1958), in buckets as an actuary's life table:
//! who is censored within a bucket counts as half at risk.

use super::sample::Ages;
use crate::goroutines::Log2Histogram;

/// The share that lives longer than each time, at the ends of the buckets in which somebody died.
#[must_use]
pub(super) fn survival(ended: &Log2Histogram, living: &Ages) -> Vec<(u64, f64)> {
    let deaths = ended.buckets();
    let mut at_risk = (ended.count() + living.count()) as f64;
    let mut share = 1.0;
    let mut curve = Vec::new();
    for (bucket, &died) in deaths.iter().enumerate() {
        let censored = censored(living, bucket) as f64;
        let exposed = at_risk - censored / 2.0;
        if died > 0 && exposed > 0.0 {
            share *= (1.0 - died as f64 / exposed).max(0.0);
            curve.push((2_u64.checked_shl(bucket as u32).filter(|end| *end != 0).unwrap_or(u64::MAX), share));
        }
        at_risk -= died as f64 + censored;
    }
    curve
}

/// Living ones whose age falls in bucket `bucket` of a [`Log2Histogram`]. The first bucket of [`Ages`] has all the young.
fn censored(living: &Ages, bucket: usize) -> u64 {
    let at = match bucket {
        24 => 0,
        25.. => bucket - 24,
        _ => return 0,
    };
    living.buckets().get(at).copied().unwrap_or_default().into()
}

/// How many have died at an age at which bucket `level` of [`Ages`] begins, or later.
#[must_use]
pub(super) fn deaths_beyond(ended: &Log2Histogram, level: usize) -> u64 {
    ended.buckets().iter().skip(if level == 0 { 0 } else { level + 24 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn without_living_it_is_the_share_that_lived_longer() {
        let mut ended = Log2Histogram::default();
        (0..75).for_each(|_| ended.add(SECOND));
        (0..25).for_each(|_| ended.add(10 * SECOND));
        let curve = survival(&ended, &Ages::default());
        assert_eq!(curve.len(), 2);
        assert!((curve[0].1 - 0.25).abs() < 1e-9 && curve[1].1 == 0.0, "{curve:?}");
    }

    #[test]
    fn those_who_live_on_keep_it_up() {
        let (mut ended, mut living) = (Log2Histogram::default(), Ages::default());
        (0..90).for_each(|_| ended.add(SECOND / 1000));
        (0..10).for_each(|_| living.add(20 * SECOND));
        let curve = survival(&ended, &living);
        assert_eq!(curve.len(), 1);
        assert!((curve[0].1 - 0.1).abs() < 1e-9, "{curve:?}");
        // Young ones say nothing of later: the share stays what the old ones make it.
        let mut young = living.clone();
        (0..1000).for_each(|_| young.add(0));
        assert!(survival(&ended, &young)[0].1 > 0.9);
    }

    #[test]
    fn deaths_are_found_by_age() {
        let mut ended = Log2Histogram::default();
        ended.add(SECOND);
        ended.add(3 * SECOND);
        let level = (0..Ages::BUCKETS).find(|i| Ages::begin_ns(*i) >= 2 * SECOND).expect("a level");
        assert_eq!(deaths_beyond(&ended, level), 1);
        assert_eq!(deaths_beyond(&ended, 0), 2);
        assert_eq!(deaths_beyond(&Log2Histogram::default(), 3), 0);
    }
}

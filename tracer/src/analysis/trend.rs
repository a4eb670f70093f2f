//! Does a series rise, and how fast? Robust against noise: no single value, however wild, decides.
//!
//! In: times and values. Out: a [`Trend`]: the slope by Theil and Sen (the median of the slopes of all pairs) with its
//! confidence interval, and the test of Mann and Kendall for a trend. Knows nothing of goroutines.
//!
//! H. Theil, "A rank-invariant method of linear and polynomial regression analysis" (1950); P. K. Sen, "Estimates of the
//! regression coefficient based on Kendall's tau" (1968); variance with ties: M. G. Kendall, "Rank Correlation Methods".

use serde::Serialize;

/// How a series moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Trend {
    /// The slope, a second.
    pub per_second: f64,
    /// With 90 % confidence it is at least this ...
    pub low: f64,
    /// ... and at most this.
    pub high: f64,
    /// The chance that noise without any trend rises as this does (Mann-Kendall, one-sided).
    pub chance: f64,
    /// Of how many values.
    pub values: usize,
    /// The seconds from the first value to the last.
    pub seconds: f64,
}

impl Trend {
    /// Whether it rises, but for a chance of at most `chance`.
    #[must_use]
    pub fn rises(&self, chance: f64) -> bool {
        self.values >= LEAST && self.per_second > 0.0 && self.chance <= chance
    }
}

/// With fewer values no trend can be told from noise at 5 %: the chance of four values in rising order is 1 in 24.
pub const LEAST: usize = 4;

/// The trend of `values` (each with its time in seconds, rising). `scratch` is memory to be used again.
#[must_use]
pub fn trend(values: &[(f64, f64)], scratch: &mut Vec<f64>) -> Trend {
    let n = values.len();
    let seconds = values.last().map_or(0.0, |last| last.0 - values[0].0);
    let flat = Trend { chance: 1.0, values: n, seconds, ..Trend::default() };
    if n < 2 || values.iter().all(|value| value.1 == values[0].1) {
        return flat;
    }
    scratch.clear();
    let mut score = 0_i64;
    for (i, &(time, value)) in values.iter().enumerate() {
        for &(later, then) in &values[i + 1..] {
            let (run, rise) = (later - time, then - value);
            score += i64::from(rise > 0.0) - i64::from(rise < 0.0);
            if run > 0.0 {
                scratch.push(rise / run);
            }
        }
    }
    if scratch.is_empty() {
        return flat;
    }
    let deviation = variance(values).sqrt();
    // The interval of the slope by Sen: as many ranks to each side of the median as the score varies by chance.
    let ranks = (1.645 * deviation / 2.0).ceil();
    let middle = (scratch.len() - 1) as f64 / 2.0;
    let mut at = |rank: f64| {
        let rank = rank.round().clamp(0.0, (scratch.len() - 1) as f64) as usize;
        *scratch.select_nth_unstable_by(rank, f64::total_cmp).1
    };
    let (low, per_second, high) = (at(middle - ranks), at(middle), at(middle + ranks));
    Trend { per_second, low, high, chance: chance(score, n, deviation), values: n, seconds }
}

/// The variance of Kendall's score, ties of values taken off.
fn variance(values: &[(f64, f64)]) -> f64 {
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted: Vec<f64> = values.iter().map(|value| value.1).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tie| term(tie.len() as f64)).sum();
    ((term(values.len() as f64) - ties) / 18.0).max(0.0)
}

/// The chance of a score as high as `score` without a trend: exact where all `n` values rise (1 in n!), for then the normal
/// distribution is much too careful; else by the normal distribution, with the correction for continuity.
fn chance(score: i64, n: usize, deviation: f64) -> f64 {
    if score <= 0 {
        return if score == 0 || deviation == 0.0 { 0.5 } else { 1.0 - above((-score - 1) as f64 / deviation) };
    }
    if score == (n * (n - 1) / 2) as i64 {
        return (1..=n).map(|i| 1.0 / i as f64).product();
    }
    if deviation == 0.0 { 0.5 } else { above((score - 1) as f64 / deviation) }
}

/// The chance of a standard normal variable above `z >= 0`: Abramowitz and Stegun 26.2.17, error below 7.5e-8.
fn above(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let powers = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = powers.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Trend {
        let timed: Vec<(f64, f64)> = values.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect();
        trend(&timed, &mut Vec::new())
    }

    /// Noise that is the same each time: a linear congruential generator, from -1 to 1.
    fn noise(n: usize, seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        (0..n).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
        })
    }

    #[test]
    fn a_line_has_its_slope() {
        let line = of(&[1.0, 3.0, 5.0, 7.0, 9.0]);
        assert_eq!((line.per_second, line.low, line.high), (2.0, 2.0, 2.0));
        assert!((line.chance - 1.0 / 120.0).abs() < 1e-9, "{line:?}");
        assert!(line.rises(0.01));
    }

    #[test]
    fn what_stands_still_or_is_too_short_has_no_trend() {
        assert!(!of(&[]).rises(0.5));
        assert!(!of(&[1.0]).rises(0.5));
        assert!(!of(&[1.0, 2.0, 3.0]).rises(0.5));
        let flat = of(&[7.0; 20]);
        assert_eq!((flat.per_second, flat.chance), (0.0, 1.0));
        assert!(of(&[5.0, 4.0, 3.0, 2.0, 1.0]).chance > 0.95);
    }

    #[test]
    fn one_wild_value_does_not_decide() {
        let mut values: Vec<f64> = vec![10.0; 20];
        values[19] = 1_000_000.0;
        assert!(!of(&values).rises(0.01));
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        values[10] = 1_000_000.0;
        assert!((of(&values).per_second - 1.0).abs() < 0.1);
    }

    #[test]
    fn noise_alone_rises_as_seldom_as_it_says() {
        let rises = (0..2000).filter(|seed| of(&noise(24, seed * 7919 + 1).collect::<Vec<_>>()).rises(0.01)).count();
        // One in a hundred is the promise; 20 of 2000 with a deviation of 4.5.
        assert!((5..=36).contains(&rises), "{rises} of 2000");
    }

    #[test]
    fn a_slow_rise_is_seen_under_noise() {
        let found = (0..200).filter(|seed| {
            let values: Vec<f64> = noise(30, seed * 104_729 + 3).enumerate().map(|(i, n)| 0.1 * i as f64 + n).collect();
            of(&values).rises(0.01)
        });
        assert!(found.count() > 190);
    }

    #[test]
    fn the_normal_distribution() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.158_655), (1.645, 0.049_985), (2.326, 0.010_009), (4.0, 3.167e-5)] {
            assert!((above(z) - expected).abs() < 1e-6, "{z}");
        }
    }
}

//! How memory moves, and when it will be used up.
//!
//! In: the memory figures of each sample, the number of goroutines. Out: [`MemoryTrend`] and [`Forecast`]. A forecast is a
//! straight line on: it holds as long as what grows goes on to grow as it did.

use super::history::{History, Mean};
use super::sample::MemorySample;
use super::trend::{Trend, trend};
use super::{Finding, Forecast, MemoryTrend};

/// Memory that grows by chance as often as this is not forecast.
const CHANCE: f64 = 0.05;
/// Shorter observation gives no forecast, in seconds: heaps breathe.
const LEAST_SECONDS: f64 = 10.0;

/// Used, heap, stacks, timers, goroutines.
#[derive(Clone, Copy, Debug)]
struct Figures([f32; 5]);

impl Mean for Figures {
    fn with(self, weight: u32, other: Self) -> Self {
        Self(self.0.with(weight, other.0))
    }
}

/// What is not known is in no series.
const UNKNOWN: f32 = f32::NAN;

/// Follows memory.
#[derive(Debug, Default)]
pub(super) struct FollowedMemory {
    history: History<Figures>,
    /// The collector's figures of some samples back.
    before: Vec<(f64, MemorySample)>,
}

/// The bytes that count against a limit.
fn used(sample: &MemorySample) -> Option<u64> {
    let own = || Some(sample.heap_live?.saturating_add(sample.stacks.unwrap_or_default()));
    sample.rss.or_else(own)
}

impl FollowedMemory {
    /// Takes the figures at `seconds`.
    pub(super) fn observe(
        &mut self,
        sample: &MemorySample,
        goroutines: u64,
        seconds: f64,
        slopes: &mut Vec<f64>,
    ) -> MemoryTrend {
        // f32 holds bytes to one part in 16 million: KiB of 16 GiB.
        let figure = |value: Option<u64>| value.map_or(UNKNOWN, |value| value as f32);
        let figures = [used(sample), sample.heap_marked, sample.stacks, sample.timers, Some(goroutines)];
        self.history.push(seconds, Figures(figures.map(figure)));
        self.before.push((seconds, *sample));
        while self.before.get(1).is_some_and(|second| seconds - second.0 >= LEAST_SECONDS) {
            self.before.remove(0);
        }
        let mut of = |at: usize| self.trend(at, slopes);
        let (used, heap, stacks, timers) = (of(0), of(1), of(2), of(3));
        MemoryTrend {
            now: *sample,
            used,
            heap,
            stacks,
            timers,
            gc_per_second: self.lately(seconds, |sample| sample.gc_cycles),
            gc_pause_ns: self.pause(sample),
        }
    }

    fn trend(&self, at: usize, slopes: &mut Vec<f64>) -> Trend {
        let values = self.history.values().iter().map(|(time, figures)| (*time, f64::from(figures.0[at])));
        let values: Vec<(f64, f64)> = values.filter(|value| value.1.is_finite()).collect();
        trend(&values, slopes)
    }

    fn lately(&self, seconds: f64, of: impl Fn(&MemorySample) -> Option<u64>) -> Option<f64> {
        let (first, last) = (self.before.first()?, self.before.last()?);
        let passed = seconds - first.0;
        let more = of(&last.1)?.saturating_sub(of(&first.1)?);
        (passed > 0.0).then(|| more as f64 / passed)
    }

    fn pause(&self, now: &MemorySample) -> Option<f64> {
        let first = self.before.first()?.1;
        let cycles = now.gc_cycles?.checked_sub(first.gc_cycles?).filter(|cycles| *cycles > 0)?;
        Some(now.gc_pause_ns?.saturating_sub(first.gc_pause_ns?) as f64 / cycles as f64)
    }

    /// When memory ends, and how much of its growth `findings` explain.
    pub(super) fn forecast(
        &self,
        memory: &MemoryTrend,
        findings: &[Finding],
        slopes: &mut Vec<f64>,
    ) -> Option<Forecast> {
        let growth = &memory.used;
        if !growth.rises(CHANCE) || growth.low <= 0.0 || growth.seconds < LEAST_SECONDS {
            return None;
        }
        let now = &memory.now;
        let resident = used(now)?;
        let candidates = [
            ("cgroup", now.cgroup_limit, now.cgroup_used.unwrap_or(resident)),
            ("GOMEMLIMIT", now.go_limit, now.heap_live.unwrap_or_default() + now.stacks.unwrap_or_default()),
            ("machine", now.machine, resident),
        ];
        let known = candidates.into_iter().filter_map(|(of, limit, used)| Some((of, limit?, used)));
        let (limit_of, limit, used) = known.min_by_key(|(_, limit, used)| limit.saturating_sub(*used))?;
        let left = limit.saturating_sub(used) as f64;
        let growing: Vec<&Finding> = findings.iter().filter(|f| f.per_second.is_some_and(|r| r > 0.0)).collect();
        let more: f64 = growing.iter().filter_map(|finding| finding.per_second).sum();
        let stack = |finding: &Finding| {
            let each = finding.stack_bytes as f64 / finding.count.max(1) as f64;
            each * finding.per_second.unwrap_or_default()
        };
        let stacks_per_second: f64 = growing.iter().map(|finding| stack(finding)).sum();
        let heap_per_second = self.heap_each(slopes).map(|each| each * more).filter(|_| more > 0.0);
        let explained = (!growing.is_empty())
            .then(|| ((stacks_per_second + heap_per_second.unwrap_or_default()) / growth.per_second).clamp(0.0, 1.0));
        Some(Forecast {
            limit,
            limit_of,
            used,
            soonest_s: left / growth.high,
            latest_s: Some(left / growth.low),
            confidence: 1.0 - growth.chance,
            explained,
            stacks_per_second,
            heap_per_second,
        })
    }

    /// Bytes of heap for each goroutine more: the median slope of the marked heap over their number.
    fn heap_each(&self, slopes: &mut Vec<f64>) -> Option<f64> {
        let pairs = self.history.values().iter().map(|(_, f)| (f64::from(f.0[4]), f64::from(f.0[1])));
        let mut pairs: Vec<(f64, f64)> = pairs.filter(|pair| pair.0.is_finite() && pair.1.is_finite()).collect();
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let distinct = pairs.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
        let each = trend(&pairs, slopes);
        (distinct >= 3 && each.per_second > 0.0).then_some(each.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(bytes: impl Fn(u32) -> u64, limit: u64) -> Option<Forecast> {
        let (mut memory, mut slopes) = (FollowedMemory::default(), Vec::new());
        let mut last = MemoryTrend::default();
        for second in 0..30 {
            let sample =
                MemorySample { rss: Some(bytes(second)), cgroup_limit: Some(limit), ..MemorySample::default() };
            last = memory.observe(&sample, 10, f64::from(second), &mut slopes);
        }
        memory.forecast(&last, &[], &mut slopes)
    }

    #[test]
    fn a_steady_rise_ends_at_the_limit() {
        let forecast = follow(|second| (100 << 20) + u64::from(second) * (1 << 20), 229 << 20).expect("it grows");
        assert_eq!((forecast.limit_of, forecast.limit), ("cgroup", 229 << 20));
        assert!((forecast.soonest_s - 100.0).abs() < 2.0, "{forecast:?}");
        assert!((forecast.latest_s.expect("it ends") - 100.0).abs() < 2.0);
        assert!(forecast.confidence > 0.99);
        assert_eq!(forecast.explained, None);
    }

    #[test]
    fn what_breathes_or_shrinks_is_not_forecast() {
        assert_eq!(follow(|_| 100 << 20, 200 << 20), None);
        assert_eq!(follow(|second| (100 << 20) + u64::from(second % 2) * (10 << 20), 200 << 20), None);
        assert_eq!(follow(|second| (100 << 20) - u64::from(second) * (1 << 20), 200 << 20), None);
    }

    #[test]
    fn noise_widens_the_range() {
        let noisy = follow(
            |second| (100 << 20) + u64::from(second) * (1 << 20) + u64::from(second * 7919 % 13) * (1 << 20),
            300 << 20,
        );
        let forecast = noisy.expect("it grows");
        assert!(forecast.soonest_s * 1.2 < forecast.latest_s.expect("it ends"), "{forecast:?}");
    }
}

//! One creation site over time.
//!
//! In: its samples. Out: whether its goroutines get more, and whether those that stay do: the ones older than nearly all of
//! their like ever got. That second series is what tells a leak from load: however many come and go, in a healthy site they
//! do not accumulate.

use super::history::{History, Mean};
use super::sample::{Ages, Sample, SiteSample};
use super::survival::{deaths_beyond, survival};
use super::thresholds::Thresholds;
use super::trend::{LEAST, Trend, trend};
use super::{SiteState, SiteTrend};
use crate::goroutines::Log2Histogram;

/// Ages from which on goroutines can count as old: buckets of [`Ages`] that begin at 2.1, 4.3, 8.6, 17, 34 and 69 seconds, 4.6
/// and 18 minutes.
pub(super) const LEVELS: [usize; 8] = [7, 8, 9, 10, 11, 12, 14, 16];
/// At a level at which old ones still die, being old says nothing: of ten at most one may have died later.
const DYING: f64 = 0.1;
/// The chance with which the last half of the series may look like growth by noise: what has stopped growing has no trend
/// there.
const LATELY: f64 = 0.06;

/// In fewer steps than this nothing accumulates; in the last half of the series, half as many.
const STEPS: usize = 4;

/// Live, parked, and at least as old as each of [`LEVELS`].
#[derive(Clone, Copy, Debug, Default)]
struct Counts([f32; 10]);

impl Mean for Counts {
    fn with(self, weight: u32, other: Self) -> Self {
        Self(self.0.with(weight, other.0))
    }
}

/// What was counted at a time, in seconds.
#[derive(Clone, Copy, Debug)]
struct Counted {
    time: f64,
    /// Created and exited, where somebody counts.
    moved: Option<(u64, u64)>,
    live: u64,
}

/// What accumulates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staying {
    /// How the old ones move.
    pub(super) trend: Trend,
    /// Old are those in this bucket of [`Ages`] or above.
    pub(super) level: usize,
    /// How many are old now.
    pub(super) old: u64,
    /// How many were when they could first be told.
    pub(super) old_at_first: u64,
    /// How many ended at such an age.
    pub(super) died_old: u64,
}

/// A site that is followed.
#[derive(Debug)]
pub(super) struct FollowedSite {
    history: History<Counts>,
    /// When it was first seen, in seconds.
    first: f64,
    /// Created and exited so far, with their time, of the last few samples.
    counts: Vec<Counted>,
    /// Goroutine seconds, and of these parked.
    time: (f64, f64),
    last: f64,
    /// The sample in which it was last seen.
    pub(super) tick: u64,
    pub(super) staying: Option<Staying>,
    /// Periods in a row in which it grew by more than the threshold.
    pub(super) storm: Option<f64>,
}

impl FollowedSite {
    /// A site that is first seen at `seconds`.
    pub(super) fn new(seconds: f64) -> Self {
        Self {
            history: History::default(),
            first: seconds,
            counts: Vec::new(),
            time: (0.0, 0.0),
            last: seconds,
            tick: 0,
            staying: None,
            storm: None,
        }
    }

    /// Takes a sample at `seconds`. `began`: when observation did.
    pub(super) fn observe(
        &mut self,
        site: &SiteSample,
        sample: &Sample,
        seconds: f64,
        began: f64,
        thresholds: &Thresholds,
        scratch: &mut Scratch,
    ) -> SiteTrend {
        let mut counts = Counts::default();
        counts.0[0] = site.live as f32;
        counts.0[1] = site.parked as f32;
        for (at, level) in LEVELS.iter().enumerate() {
            counts.0[2 + at] = site.ages.at_least(*level) as f32;
        }
        self.history.push(seconds, counts);
        let passed = seconds - self.last;
        self.time.0 += passed * site.live as f64;
        self.time.1 += passed * site.parked as f64;
        self.last = seconds;
        self.count(site, seconds, thresholds);

        scratch.values.clear();
        scratch.values.extend(self.history.values().iter().map(|(time, counts)| (*time, f64::from(counts.0[0]))));
        let growth = trend(&scratch.values, &mut scratch.slopes);
        let none = Log2Histogram::default();
        let ended = site.lifetimes.as_ref().unwrap_or(&none);
        self.staying = if sample.whole { self.staying(site, ended, began, scratch) } else { None };
        let seen = seconds - began;
        SiteTrend {
            key: site.key.clone(),
            live: site.live,
            parked: site.parked,
            created: site.created,
            exited: site.exited,
            born_per_second: self.rate(|(created, _)| created),
            died_per_second: self.rate(|(_, exited)| exited),
            growth,
            staying: self.staying.map(|staying| staying.trend),
            survival: if ended.count() > 0 { survival(ended, &site.young_ages) } else { Vec::new() },
            reason: site.places.iter().max_by_key(|place| place.count).map(|place| place.reason.clone()),
            parked_share: if self.time.0 > 0.0 { self.time.1 / self.time.0 } else { 0.0 },
            stack_bytes: site.stack_bytes,
            creators: site.creators.clone(),
            state: match seen < thresholds.observe.as_secs_f64() {
                true => SiteState::Unknown,
                false if growth.rises(thresholds.chance) && growth.low > 0.0 => SiteState::Growing,
                false => SiteState::Steady,
            },
        }
    }

    /// Whether it grew by more than the threshold in each of the last periods, and how fast then.
    fn count(&mut self, site: &SiteSample, seconds: f64, thresholds: &Thresholds) {
        self.counts.push(Counted { time: seconds, moved: site.created.zip(site.exited), live: site.live });
        let period = thresholds.storm_period.as_secs_f64().max(0.001);
        let periods = thresholds.storm_periods.max(1);
        let wanted = period * f64::from(periods);
        // One sample from before the first period is kept: it has the count at its begin.
        while self.counts.get(1).is_some_and(|second| second.time <= seconds - wanted) {
            self.counts.remove(0);
        }
        let at = |time: f64| self.counts.iter().rev().find(|count| count.time <= time + 0.001).map(|count| count.live);
        let rates = (0..periods).map(|i| {
            let end = seconds - period * f64::from(i);
            let (before, after) = (at(end - period)?, at(end)?);
            Some((after as f64 - before as f64) / period)
        });
        let rates: Option<Vec<f64>> = rates.collect();
        self.storm = rates
            .filter(|rates| rates.iter().all(|rate| *rate > thresholds.storm_per_second))
            .and_then(|rates| rates.first().copied());
    }

    fn rate(&self, of: impl Fn((u64, u64)) -> u64) -> Option<f64> {
        let (first, last) = (self.counts.first()?, self.counts.last()?);
        let passed = last.time - first.time;
        let more = of(last.moved?).saturating_sub(of(first.moved?));
        (passed > 0.0).then(|| more as f64 / passed)
    }

    /// The old ones: at the lowest level at which they no longer die.
    fn staying(&self, site: &SiteSample, ended: &Log2Histogram, began: f64, scratch: &mut Scratch) -> Option<Staying> {
        for (at, &level) in LEVELS.iter().enumerate() {
            let died_old = deaths_beyond(ended, level);
            let old = site.ages.at_least(level);
            if old == 0 {
                return None;
            }
            if died_old as f64 > DYING * (old + died_old) as f64 {
                continue;
            }
            // Who was there at the beginning is not known to be old before this. A site that came later has its first
            // goroutines in full view.
            let from = if self.first > began { self.first } else { began + Ages::begin_ns(level) as f64 / 1e9 + 0.05 };
            let values = self.history.values().iter().filter(|(time, _)| *time >= from);
            scratch.values.clear();
            scratch.values.extend(values.map(|(time, counts)| (*time, f64::from(counts.0[2 + at]))));
            if scratch.values.len() < LEAST {
                return None;
            }
            let mut trend_of = |values: &[(f64, f64)]| trend(values, &mut scratch.slopes);
            let mut all = trend_of(&scratch.values);
            let half = scratch.values.len() / 2;
            let lately = trend_of(scratch.values.get(half.min(scratch.values.len() - LEAST)..).unwrap_or_default());
            // One step, or two, is somebody who set up more workers, not a leak.
            let steps = |values: &[(f64, f64)]| values.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
            let (before, after) = scratch.values.split_at(half);
            let stepwise = steps(&scratch.values) < STEPS || steps(after) < STEPS / 2 || before.is_empty();
            if stepwise || !lately.rises(LATELY) {
                all.chance = 1.0;
            }
            let old_at_first = scratch.values.first().map_or(0, |first| first.1 as u64);
            return Some(Staying { trend: all, level, old, old_at_first, died_old });
        }
        None
    }
}

/// Memory to be used again from site to site.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) values: Vec<(f64, f64)>,
    pub(super) slopes: Vec<f64>,
}

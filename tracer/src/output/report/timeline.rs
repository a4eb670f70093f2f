//! Counts over time, in as many intervals as a picture can show, however long the recording gets.

use serde::Serialize;

use crate::goroutines::{LiveByState, SiteId};
use crate::output::SiteName;
use std::sync::Arc;

/// Intervals at most; with more they are put together, two and two.
const MOST: usize = 480;
/// The first width.
const FINEST_NS: u64 = 1_000_000;
/// Sites whose counts over time are kept.
const SITES: usize = 4096;

/// Counts over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// How long an interval is.
    pub interval_ns: u64,
    /// The intervals, the first at the beginning of the recording.
    pub buckets: Vec<Bucket>,
    /// Live goroutines at the end of each interval, of the sites with the most.
    pub sites: Vec<SiteLine>,
}

/// What happened in an interval, and what there was at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Goroutines created.
    pub created: u64,
    /// Goroutines that ended.
    pub exited: u64,
    /// Parks.
    pub blocked: u64,
    /// Runs.
    pub running: u64,
    /// Events lost.
    pub lost: u64,
    /// Live at its end, not run yet.
    pub live_runnable: u64,
    /// Live at its end, running.
    pub live_running: u64,
    /// Live at its end, blocked.
    pub live_blocked: u64,
}

/// Live goroutines of a site over time.
#[derive(Clone, Debug, Serialize)]
pub struct SiteLine {
    /// The `go` statement.
    pub site: SiteName,
    /// The function that runs.
    pub start: Arc<str>,
    /// At the end of each interval.
    pub live: Vec<i64>,
}

/// Gathers a timeline.
#[derive(Debug)]
pub(super) struct Gatherer {
    width: u64,
    buckets: Vec<Bucket>,
    /// Changes of live goroutines, by site.
    sites: Vec<Vec<i64>>,
}

impl Default for Gatherer {
    fn default() -> Self {
        Self { width: FINEST_NS, buckets: Vec::new(), sites: Vec::new() }
    }
}

impl Gatherer {
    /// The interval in which something happens that long after the beginning. Those before it that had nothing happen
    /// are as the last.
    pub(super) fn at(&mut self, ns: u64) -> usize {
        while ns / self.width >= MOST as u64 {
            self.width = self.width.saturating_mul(2);
            self.buckets = self.buckets.chunks(2).map(together).collect();
            for site in &mut self.sites {
                *site = site.chunks(2).map(|pair| pair.iter().sum()).collect();
            }
        }
        let at = usize::try_from(ns / self.width).unwrap_or(MOST - 1);
        while self.buckets.len() <= at {
            let last = self.buckets.last().copied().unwrap_or_default();
            let Bucket { live_runnable, live_running, live_blocked, .. } = last;
            self.buckets.push(Bucket { live_runnable, live_running, live_blocked, ..Bucket::default() });
        }
        at
    }

    pub(super) fn bucket(&mut self, ns: u64) -> &mut Bucket {
        let at = self.at(ns);
        &mut self.buckets[at]
    }

    /// What lives now.
    pub(super) fn live(&mut self, ns: u64, live: LiveByState) {
        let bucket = self.bucket(ns);
        (bucket.live_runnable, bucket.live_running, bucket.live_blocked) = (live.runnable, live.running, live.blocked);
    }

    /// So many more live of this site.
    pub(super) fn change(&mut self, ns: u64, site: SiteId, by: i64) {
        let (at, site) = (self.at(ns), site.0 as usize);
        if site >= SITES {
            return;
        }
        if self.sites.len() <= site {
            self.sites.resize_with(site + 1, Vec::new);
        }
        let line = &mut self.sites[site];
        if line.len() <= at {
            line.resize(at + 1, 0);
        }
        line[at] += by;
    }

    /// Live goroutines of a site at the end of each interval.
    pub(super) fn site(&self, site: SiteId) -> Vec<i64> {
        let changes = self.sites.get(site.0 as usize).map(Vec::as_slice).unwrap_or_default();
        let changes = changes.iter().copied().chain(std::iter::repeat(0)).take(self.buckets.len());
        let mut live = 0;
        changes
            .map(|change| {
                live += change;
                live
            })
            .collect()
    }

    /// The most that ever lived of a site at the end of an interval.
    pub(super) fn peak(&self, site: SiteId) -> i64 {
        self.site(site).into_iter().max().unwrap_or(0)
    }

    pub(super) fn finish(self, sites: Vec<SiteLine>) -> Timeline {
        Timeline { interval_ns: self.width, buckets: self.buckets, sites }
    }
}

fn together(pair: &[Bucket]) -> Bucket {
    let mut sum = Bucket::default();
    for bucket in pair {
        sum = Bucket {
            created: sum.created + bucket.created,
            exited: sum.exited + bucket.exited,
            blocked: sum.blocked + bucket.blocked,
            running: sum.running + bucket.running,
            lost: sum.lost.saturating_add(bucket.lost),
            ..*bucket
        };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_lost_when_intervals_are_put_together() {
        let mut gatherer = Gatherer::default();
        for n in 0..10_000_u64 {
            gatherer.bucket(n * 7_000_000).created += 1;
            gatherer.change(n * 7_000_000, SiteId(3), 1);
            gatherer.live(n * 7_000_000, LiveByState { blocked: n + 1, ..LiveByState::default() });
        }
        assert!(gatherer.buckets.len() <= MOST && gatherer.buckets.len() > MOST / 2);
        assert_eq!(gatherer.buckets.iter().map(|bucket| bucket.created).sum::<u64>(), 10_000);
        assert_eq!(gatherer.site(SiteId(3)).last(), Some(&10_000));
        let live: Vec<u64> = gatherer.buckets.iter().map(|bucket| bucket.live_blocked).collect();
        assert!(live.is_sorted() && live.last() == Some(&10_000));
        assert_eq!(gatherer.site(SiteId(9)), vec![0; gatherer.buckets.len()]);
    }

    #[test]
    fn intervals_in_which_nothing_happens_are_as_the_one_before() {
        let mut gatherer = Gatherer::default();
        gatherer.live(0, LiveByState { running: 4, ..LiveByState::default() });
        gatherer.bucket(9 * FINEST_NS).exited += 1;
        assert!(gatherer.buckets.iter().all(|bucket| bucket.live_running == 4));
        assert_eq!(gatherer.buckets.len(), 10);
    }
}

//! Two looks at a program, compared by site.
//!
//! In: two [`Sample`]s, of one process or of two that run the same program. Out: a [`Diff`]: who got more, who fewer, by how
//! much, and where the new ones stand.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

use super::sample::{FrameName, MemorySample, Sample, SiteKey, SiteSample};

/// What is different.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Seconds from the first to the second, where both are of one process.
    pub seconds: Option<f64>,
    /// Goroutines in the first.
    pub before: u64,
    /// Goroutines in the second.
    pub after: u64,
    /// The sites whose number differs, the greatest growth first.
    pub sites: Vec<SiteDiff>,
    /// Sites with as many as before.
    pub same: usize,
    /// Memory in the first.
    pub memory_before: MemorySample,
    /// Memory in the second.
    pub memory_after: MemorySample,
}

/// A site whose number differs.
#[derive(Clone, Debug, Serialize)]
pub struct SiteDiff {
    /// Which.
    pub key: SiteKey,
    /// How many there were.
    pub before: u64,
    /// How many there are.
    pub after: u64,
    /// How many more, or fewer if negative.
    pub more: i64,
    /// The same a second, where the time between is known.
    pub per_second: Option<f64>,
    /// Of those before, how many are still there, where both are of one process.
    pub stayed: Option<u64>,
    /// Bytes of stack more, or fewer if negative.
    pub stack_bytes: i64,
    /// What most of them wait for now.
    pub reason: Arc<str>,
    /// Where most of them stand now, innermost first.
    pub stack: Arc<[FrameName]>,
}

/// Compares `before` with `after`. `stayed` has for each site how many are in both, if goids of the two can be compared at
/// all.
#[must_use]
pub fn diff(before: &Sample, after: &Sample, stayed: Option<&HashMap<SiteKey, u64>>) -> Diff {
    let one_process = stayed.is_some() && after.time > before.time;
    let seconds = one_process.then(|| after.time.since(before.time) as f64 / 1e9);
    let mut old: HashMap<&SiteKey, &SiteSample> = before.sites.iter().map(|site| (&site.key, site)).collect();
    let mut sites = Vec::new();
    let mut same = 0;
    let mut compare = |key: &SiteKey, was: Option<&SiteSample>, is: Option<&SiteSample>| {
        let count = |site: Option<&SiteSample>| site.map_or(0, |site| site.live);
        let bytes = |site: Option<&SiteSample>| site.map_or(0, |site| site.stack_bytes as i64);
        let (before, after) = (count(was), count(is));
        if before == after {
            same += usize::from(after > 0);
            return;
        }
        let more = after as i64 - before as i64;
        let place = is.or(was).and_then(|site| site.places.iter().max_by_key(|place| place.count));
        sites.push(SiteDiff {
            key: key.clone(),
            before,
            after,
            more,
            per_second: seconds.map(|seconds| more as f64 / seconds),
            stayed: stayed.map(|stayed| stayed.get(key).copied().unwrap_or_default()),
            stack_bytes: bytes(is) - bytes(was),
            reason: place.map_or_else(|| "".into(), |place| Arc::clone(&place.reason)),
            stack: place.map_or_else(|| Arc::from([]), |place| Arc::clone(&place.stack)),
        });
    };
    for site in &after.sites {
        compare(&site.key, old.remove(&site.key), Some(site));
    }
    for (key, site) in old {
        compare(key, Some(site), None);
    }
    sites.sort_unstable_by(|a, b| b.more.cmp(&a.more).then_with(|| a.key.cmp(&b.key)));
    Diff {
        seconds,
        before: before.live(),
        after: after.live(),
        sites,
        same,
        memory_before: before.memory,
        memory_after: after.memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MonotonicNs;

    fn sample(seconds: u64, sites: &[(&str, u64)]) -> Sample {
        let site = |(name, live): &(&str, u64)| {
            let key = SiteKey { function: (*name).into(), file: "f.go".into(), line: 1, start: "s".into() };
            SiteSample { live: *live, ..SiteSample::empty(key) }
        };
        let sites = sites.iter().map(site).collect();
        Sample { time: MonotonicNs(seconds * 1_000_000_000), sites, ..Sample::default() }
    }

    #[test]
    fn the_greatest_growth_comes_first_and_nobody_is_missing() {
        let before = sample(10, &[("same", 3), ("fewer", 9), ("more", 1), ("gone", 4)]);
        let after = sample(20, &[("same", 3), ("fewer", 5), ("more", 101), ("new", 7)]);
        let stayed: HashMap<SiteKey, u64> = before.sites.iter().map(|site| (site.key.clone(), 1)).collect();
        let found = diff(&before, &after, Some(&stayed));
        let told: Vec<(&str, i64)> = found.sites.iter().map(|site| (site.key.function.as_ref(), site.more)).collect();
        assert_eq!(told, [("more", 100), ("new", 7), ("fewer", -4), ("gone", -4)]);
        assert_eq!((found.seconds, found.sites[0].per_second, found.same), (Some(10.0), Some(10.0), 1));
        assert_eq!((found.sites[0].stayed, found.sites[1].stayed), (Some(1), Some(0)));
        assert_eq!((found.before, found.after), (17, 116));
        // Of two processes there is no time between.
        assert_eq!(diff(&before, &after, None).seconds, None);
    }
}

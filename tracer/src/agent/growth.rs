//! How fast the goroutines of a process grow, in all and by creation site. Pure: counts and their times in, rates out.
//!
//! The time of a count is the one up to which events are in the table, not the one at which somebody looked: events come a
//! drain late, now more, now less, and over a short sample that would be a large part of the rate. Where a reading is under
//! way counts are not whole; the last rate stands, and the next is taken from the last whole counts on.

use crate::units::MonotonicNs;

/// Rates between the last two moments at which the counts were whole.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    as_of: Option<MonotonicNs>,
    /// Of each site: goroutines at that moment, and how many more they get a second.
    sites: Vec<(u64, f64)>,
    per_second: Option<f64>,
}

impl Growth {
    /// Takes the live goroutines of each site as they were at `as_of`; `None`: they are not whole.
    pub fn take(&mut self, as_of: Option<MonotonicNs>, live: impl Iterator<Item = u64>) {
        let Some(as_of) = as_of else { return };
        let seconds = match self.as_of {
            // Nothing new is known.
            Some(before) if as_of <= before => return,
            Some(before) => Some(as_of.since(before) as f64 / 1e9),
            // Who was there before it was watched is not growth.
            None => None,
        };
        self.as_of = Some(as_of);
        let mut more = 0.0;
        for (at, live) in live.enumerate() {
            if at >= self.sites.len() {
                self.sites.push((0, 0.0));
            }
            let Some((before, rate)) = self.sites.get_mut(at) else { continue };
            let difference = live as f64 - *before as f64;
            more += difference;
            (*before, *rate) = (live, seconds.map_or(0.0, |seconds| difference / seconds));
        }
        self.per_second = seconds.map(|seconds| more / seconds);
    }

    /// Goroutines more or less a second, of all sites; `None` until two counts are known.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        self.per_second
    }

    /// Of the site at this place.
    #[must_use]
    pub fn of_site(&self, at: usize) -> f64 {
        self.sites.get(at).map_or(0.0, |(_, rate)| *rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Option<MonotonicNs> {
        Some(MonotonicNs(1_000_000_000 + ms * 1_000_000))
    }

    /// A hundred and fifty a second, looked at every 300 ms by somebody whose events are now 100, now 280 ms late.
    #[test]
    fn a_steady_growth_is_steady_however_late_its_events_come() {
        let mut growth = Growth::default();
        for (look, late) in [(300, 100), (600, 280), (900, 110), (1200, 200), (1500, 100)] {
            let known = look - late;
            growth.take(ms(known), [known * 150 / 1000].into_iter());
            if look > 300 {
                let rate = growth.per_second().expect("two counts");
                assert!((rate - 150.0).abs() < 8.0, "{rate} at {look}");
            }
        }
    }

    #[test]
    fn while_a_reading_is_under_way_the_last_rate_stands_and_the_next_bridges_it() {
        let mut growth = Growth::default();
        growth.take(ms(0), [10, 0].into_iter());
        growth.take(ms(1000), [160, 5].into_iter());
        assert_eq!((growth.per_second(), growth.of_site(0), growth.of_site(1)), (Some(155.0), 150.0, 5.0));
        growth.take(None, [0, 0].into_iter());
        assert_eq!((growth.per_second(), growth.of_site(0)), (Some(155.0), 150.0));
        growth.take(ms(3000), [460, 5].into_iter());
        assert_eq!((growth.per_second(), growth.of_site(0), growth.of_site(1)), (Some(150.0), 150.0, 0.0));
    }

    #[test]
    fn counts_that_are_not_newer_change_nothing() {
        let mut growth = Growth::default();
        growth.take(ms(0), [10].into_iter());
        growth.take(ms(1000), [60].into_iter());
        growth.take(ms(1000), [60].into_iter());
        assert_eq!(growth.per_second(), Some(50.0));
    }

    #[test]
    fn who_was_there_before_is_not_growth_and_a_new_site_is() {
        let mut growth = Growth::default();
        growth.take(ms(0), [1000].into_iter());
        assert_eq!((growth.per_second(), growth.of_site(0)), (None, 0.0));
        growth.take(ms(2000), [1000, 30].into_iter());
        assert_eq!((growth.per_second(), growth.of_site(1)), (Some(15.0), 15.0));
        assert_eq!(growth.of_site(7), 0.0);
    }
}

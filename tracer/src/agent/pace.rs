//! When to look into a process's memory. Pure: times and processor time in, yes or no out.
//!
//! Not before its time; more rarely where a look takes long; and rarely while the process does nothing, for who has not run has
//! changed nothing. Not never: that a goroutine waits is told by how long it does.

use std::time::{Duration, Instant};

/// A look takes at most this part of the time to the next.
const SHARE: u32 = 100;
/// Looks left out in a row at most, of a process that has not run.
const LEFT_OUT: u32 = 4;

/// When the next look is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    every: Duration,
    due: Instant,
    /// The process's processor time at the last look.
    ran: Option<Duration>,
    left_out: u32,
}

impl Pace {
    /// The first look is due at once.
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self { every, due: now, ran: None, left_out: 0 }
    }

    /// Whether to look now; to be asked again and again. `ran`: the process's processor time, if it can be had.
    pub(super) fn is_due(&mut self, now: Instant, ran: impl FnOnce() -> Option<Duration>) -> bool {
        if now < self.due {
            return false;
        }
        let ran = ran();
        if ran.is_some() && ran == self.ran && self.left_out < LEFT_OUT {
            self.left_out += 1;
            self.due = now + self.every;
            return false;
        }
        (self.ran, self.left_out) = (ran, 0);
        true
    }

    /// A look has ended that took so much processor time.
    pub(super) fn looked(&mut self, now: Instant, took: Duration) {
        self.due = now + self.every.max(took * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    /// Seconds at which it is looked, if each look takes `took` and the process has run `ran(second)`.
    fn looks(took: Duration, ran: impl Fn(u64) -> u64) -> Vec<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(EVERY, start);
        let looked = (0..120).filter(|&second| {
            let now = start + Duration::from_secs(second);
            let due = pace.is_due(now, || Some(Duration::from_millis(ran(second))));
            if due {
                pace.looked(now, took);
            }
            due
        });
        looked.collect()
    }

    #[test]
    fn who_runs_is_looked_at_each_time() {
        assert_eq!(looks(Duration::from_millis(1), |second| second), [0, 15, 30, 45, 60, 75, 90, 105]);
    }

    #[test]
    fn who_does_nothing_is_looked_at_rarely_and_who_runs_again_at_its_time() {
        assert_eq!(looks(Duration::from_millis(1), |_| 7), [0, 75]);
        assert_eq!(
            looks(Duration::from_millis(1), |second| if second < 35 { 7 } else { second }),
            [0, 45, 60, 75, 90, 105]
        );
    }

    #[test]
    fn a_look_that_takes_long_is_done_rarely() {
        assert_eq!(looks(Duration::from_millis(400), |second| second), [0, 40, 80]);
    }

    #[test]
    fn who_cannot_be_asked_is_looked_at() {
        let start = Instant::now();
        let mut pace = Pace::new(EVERY, start);
        assert!(pace.is_due(start, || None));
        pace.looked(start, Duration::ZERO);
        assert!(!pace.is_due(start, || None) && pace.is_due(start + EVERY, || None));
    }
}

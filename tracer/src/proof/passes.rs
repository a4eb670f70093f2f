//! From passes to verdicts. Pure: knows neither memory nor clock.
//!
//! A leak is stable, a mistake is not: nothing is stopped while a pass reads, so a reference that is moved about can be
//! missed. A goroutine is leaked only if pass after pass finds it unreachable, waiting as it did.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::blocked::Candidate;
use super::pass::Pass;
use super::registers::Run;

/// Passes in a row for [`Verdict::Leaked`].
pub const LEAKED_PASSES: u32 = 3;
/// Passes in a row for [`Verdict::Confirmed`], and for [`Verdict::Leaked`] of one that was once seen reachable.
pub const CONFIRMED_PASSES: u32 = 8;

/// What the passes say of a goroutine that the last one found unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A register that could not be read may hold what would wake it.
    Unknown,
    /// Unreachable, but not seen often or long enough.
    Suspected,
    /// Unreachable in three passes or more, over the least age.
    Leaked,
    /// Unreachable in eight passes or more.
    Confirmed,
}

impl Verdict {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Suspected => "suspected",
            Self::Leaked => "leaked",
            Self::Confirmed => "confirmed",
        }
    }

    /// Whether it says that the goroutine is leaked.
    #[must_use]
    pub fn is_proven(self) -> bool {
        matches!(self, Self::Leaked | Self::Confirmed)
    }
}

/// What is known of one goroutine that waits.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Passes in a row that found it unreachable, this last one included.
    row: u32,
    /// When the first of them was, since the first pass of all.
    since: Duration,
    /// When the last was.
    until: Duration,
    /// A pass between others found it reachable.
    wavered: bool,
}

/// Verdicts over passes.
#[derive(Debug, Default)]
pub struct Verdicts {
    records: HashMap<u64, Record>,
    /// Goroutines that have not left their processor since so many passes, unread in each.
    unread: HashMap<Run, u32>,
    passes: u32,
    least_age: Duration,
}

impl Verdicts {
    /// Nothing seen yet; `least_age` is from the first to the last pass that finds a goroutine unreachable.
    #[must_use]
    pub fn new(least_age: Duration) -> Self {
        Self { least_age, ..Self::default() }
    }

    /// Takes in a pass, done at `at` since the first.
    pub(super) fn add(&mut self, pass: &Pass, at: Duration) {
        self.passes += 1;
        let unreachable: HashSet<u64> = pass.unreachable.iter().map(Candidate::identity).collect();
        self.records.retain(|identity, record| {
            if !unreachable.contains(identity) {
                record.row = 0;
                record.wavered = true;
            }
            pass.blocked.contains(identity)
        });
        for identity in unreachable {
            let record =
                self.records.entry(identity).or_insert(Record { row: 0, since: at, until: at, wavered: false });
            if record.row == 0 {
                record.since = at;
            }
            record.row += 1;
            record.until = at;
        }
        let unread = pass.unread.iter().map(|run| (*run, self.unread.get(run).copied().unwrap_or_default() + 1));
        self.unread = unread.collect();
    }

    /// How many passes there were.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// In how many passes in a row `candidate` was unreachable.
    pub(super) fn row(&self, candidate: &Candidate) -> u32 {
        self.records.get(&candidate.identity()).map_or(0, |record| record.row)
    }

    /// What is to be said of `candidate`, one of those that the last pass found unreachable.
    pub(super) fn verdict(&self, candidate: &Candidate) -> Verdict {
        let Some(record) = self.records.get(&candidate.identity()) else { return Verdict::Suspected };
        let needed = if record.wavered { CONFIRMED_PASSES } else { LEAKED_PASSES };
        if self.unread.values().any(|passes| *passes >= record.row) {
            return Verdict::Unknown;
        }
        if record.row < needed || record.until - record.since < self.least_age {
            Verdict::Suspected
        } else if record.row >= CONFIRMED_PASSES && !record.wavered {
            Verdict::Confirmed
        } else {
            Verdict::Leaked
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::blocked::Blocked;
    use crate::units::{Goid, RemoteAddr};

    fn candidate(goid: u64, tracking_seq: u8) -> Candidate {
        Candidate {
            address: RemoteAddr(0xc000_0000 + goid * 512),
            goid: Goid(goid),
            blocked: Blocked::Channel,
            reason: 14,
            tracking_seq,
            pc: 1,
            depth: 100,
            objects: vec![0xc000_1000],
            sudogs: Vec::new(),
            resigned: false,
            gopc: RemoteAddr(7),
            wait_since: 0,
            stack_size: 2048,
        }
    }

    fn pass(unreachable: &[&Candidate], reachable: &[&Candidate]) -> Pass {
        let blocked = unreachable.iter().chain(reachable).map(|c| c.identity()).collect();
        Pass { unreachable: unreachable.iter().map(|c| (*c).clone()).collect(), blocked, ..Pass::default() }
    }

    fn seconds(n: u32) -> Duration {
        Duration::from_secs(n.into())
    }

    #[test]
    fn three_passes_over_the_least_age() {
        let c = candidate(7, 0);
        let mut verdicts = Verdicts::new(seconds(2));
        for (at, expected) in [(0, Verdict::Suspected), (1, Verdict::Suspected), (2, Verdict::Leaked)] {
            verdicts.add(&pass(&[&c], &[]), seconds(at));
            assert_eq!(verdicts.verdict(&c), expected, "at {at}");
        }
        for at in 3..7 {
            verdicts.add(&pass(&[&c], &[]), seconds(at));
            assert_eq!(verdicts.verdict(&c), Verdict::Leaked, "at {at}");
        }
        verdicts.add(&pass(&[&c], &[]), seconds(7));
        assert_eq!(verdicts.verdict(&c), Verdict::Confirmed);
    }

    #[test]
    fn passes_too_close_to_each_other_are_not_enough() {
        let c = candidate(7, 0);
        let mut verdicts = Verdicts::new(seconds(2));
        (0..20).for_each(|_| verdicts.add(&pass(&[&c], &[]), seconds(1)));
        assert_eq!(verdicts.verdict(&c), Verdict::Suspected);
    }

    #[test]
    fn one_that_was_once_reachable_must_stand_longer() {
        let c = candidate(7, 0);
        let mut verdicts = Verdicts::new(seconds(2));
        verdicts.add(&pass(&[&c], &[]), seconds(0));
        verdicts.add(&pass(&[], &[&c]), seconds(1));
        for at in 2..9 {
            verdicts.add(&pass(&[&c], &[]), seconds(at));
            assert_eq!(verdicts.verdict(&c), Verdict::Suspected, "at {at}");
        }
        verdicts.add(&pass(&[&c], &[]), seconds(9));
        assert_eq!(verdicts.verdict(&c), Verdict::Leaked);
    }

    #[test]
    fn one_that_ran_in_between_is_another() {
        let (c, later) = (candidate(7, 0), candidate(7, 1));
        let mut verdicts = Verdicts::new(seconds(0));
        verdicts.add(&pass(&[&c], &[]), seconds(0));
        verdicts.add(&pass(&[&c], &[]), seconds(1));
        verdicts.add(&pass(&[&later], &[]), seconds(2));
        assert_eq!(verdicts.verdict(&later), Verdict::Suspected);
        assert_eq!(verdicts.row(&later), 1);
    }

    #[test]
    fn a_goroutine_that_never_stops_makes_it_unknown() {
        let c = candidate(7, 0);
        let run = Run { g: 1, goid: 1, tick: 5 };
        let mut verdicts = Verdicts::new(seconds(0));
        for at in 0..5 {
            verdicts.add(&Pass { unread: vec![run], ..pass(&[&c], &[]) }, seconds(at));
            assert_eq!(verdicts.verdict(&c), Verdict::Unknown);
        }
        // It was off its processor, and its registers on its stack.
        verdicts.add(&Pass { unread: vec![Run { tick: 6, ..run }], ..pass(&[&c], &[]) }, seconds(5));
        assert_eq!(verdicts.verdict(&c), Verdict::Leaked);
    }
}

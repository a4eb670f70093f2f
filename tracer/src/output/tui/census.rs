//! One pass over all goroutines: what the table's own sums do not tell.
//!
//! In: a [`GoroutineTable`]. Out: by site, by wait reason and by state, who is the oldest and what is waited for most.
//! It is the only thing here whose work grows with the number of goroutines, so it is not done at every tick when there
//! are very many ([`Census::is_due`]).

use hashbrown::HashMap;

use crate::goroutines::{Goroutine, GoroutineTable, SiteId, State};
use crate::units::MonotonicNs;

/// So many goroutines are looked at in a tick: some milliseconds.
const EACH_TICK: u64 = 200_000;

/// Since when, and whether it is known exactly or at least that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub time: MonotonicNs,
    pub at_least: bool,
}

impl Since {
    fn of_life(g: &Goroutine) -> Self {
        Self { time: g.created, at_least: g.first_seen }
    }

    fn of_state(g: &Goroutine) -> Self {
        Self { time: g.since, at_least: g.since_estimated }
    }

    /// The earliest of two. If one of them may be earlier than it says, so may the earliest.
    pub(super) fn earlier(was: &mut Option<Self>, new: Self) {
        *was =
            Some(was.map_or(new, |was| Self { time: was.time.min(new.time), at_least: was.at_least || new.at_least }));
    }
}

/// What is known of one creation site.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfSite {
    pub oldest: Option<Since>,
    /// The reason that most of its goroutines wait for, and how many do.
    pub waits: Option<(u8, u64)>,
}

/// What is known of goroutines in one state, or waiting for one reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfWait {
    pub count: u64,
    pub longest: Option<Since>,
}

/// The figures of one pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    sites: Vec<OfSite>,
    reasons: Vec<OfWait>,
    runnable: OfWait,
    running: OfWait,
    blocked: OfWait,
    /// Ticks since it was taken.
    age: u64,
    taken: bool,
}

impl Census {
    /// Whether this tick is one for a pass over `live` goroutines.
    pub(super) fn is_due(&mut self, live: u64) -> bool {
        self.age += 1;
        !self.taken || self.age > live / EACH_TICK
    }

    /// Passes over all goroutines. Those of sites for which `counts` does not hold are left out of the sums by reason and by
    /// state.
    pub(super) fn take(table: &GoroutineTable, counts: impl Fn(SiteId) -> bool) -> Self {
        let mut census = Self {
            sites: vec![OfSite::default(); table.sites().len()],
            reasons: vec![OfWait::default(); 256],
            taken: true,
            ..Self::default()
        };
        let counted: Vec<bool> = (0..table.sites().len()).map(|i| counts(SiteId(i as u32))).collect();
        let mut waits: HashMap<(u32, u8), u64> = HashMap::new();
        // Neighbours in the table are often of one site and wait for one thing.
        let mut run = ((u32::MAX, 0u8), 0u64);
        for g in table.iter() {
            let Some(site) = census.sites.get_mut(g.site.0 as usize) else { continue };
            Since::earlier(&mut site.oldest, Since::of_life(&g));
            if let State::Blocked { reason } = g.state {
                if run.0 == (g.site.0, reason) {
                    run.1 += 1;
                } else {
                    *waits.entry(run.0).or_default() += run.1;
                    run = ((g.site.0, reason), 1);
                }
            }
            if !counted.get(g.site.0 as usize).copied().unwrap_or_default() {
                continue;
            }
            let of_state = match g.state {
                State::Runnable => &mut census.runnable,
                State::Running => &mut census.running,
                State::Blocked { reason } => {
                    if let Some(of_reason) = census.reasons.get_mut(usize::from(reason)) {
                        of_reason.count += 1;
                        Since::earlier(&mut of_reason.longest, Since::of_state(&g));
                    }
                    &mut census.blocked
                }
            };
            of_state.count += 1;
            Since::earlier(&mut of_state.longest, Since::of_state(&g));
        }
        *waits.entry(run.0).or_default() += run.1;
        for ((site, reason), count) in waits {
            let Some(site) = census.sites.get_mut(site as usize) else { continue };
            // Of two that are as many the lower number, that it may not change from tick to tick.
            if count > 0 && site.waits.is_none_or(|(r, n)| (count, r) > (n, reason)) {
                site.waits = Some((reason, count));
            }
        }
        census
    }

    pub(super) fn site(&self, id: SiteId) -> OfSite {
        self.sites.get(id.0 as usize).copied().unwrap_or_default()
    }

    pub(super) fn reason(&self, reason: u8) -> OfWait {
        self.reasons.get(usize::from(reason)).copied().unwrap_or_default()
    }

    pub(super) fn state(&self, state: super::StateKind) -> OfWait {
        match state {
            super::StateKind::Runnable => self.runnable,
            super::StateKind::Running => self.running,
            super::StateKind::Blocked => self.blocked,
        }
    }
}

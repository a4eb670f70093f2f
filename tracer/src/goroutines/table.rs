//! Events into the table, and the table's figures out.

use super::index::{GoidIndex, Slot};
use super::kept::{Epoch, Sampling, StatesFrom};
use super::merge::{Reading, Removed};
use super::reasons::{ReasonStats, Reasons};
use super::sites::{LiveByState, Site, SiteId, Sites};
use super::slab::{Cold, FIRST_SEEN, GAP, Hot, SINCE_ESTIMATED, Slab};
use super::view::{End, Ended, Goroutine, State};
use crate::events::{Event, Transition};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// How far ahead of an event its entry in the index is fetched, and how far its record: with a million goroutines each
/// is a cache miss of about the time that this many events take.
const FETCH_ENTRY: usize = 16;
const FETCH_RECORD: usize = 8;

/// What a target may cost, however it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most live goroutines. Those beyond are not followed; [`Totals::refused`] counts their events.
    pub live: u32,
    /// Most creation sites. Goroutines of those beyond count under [`SiteId::UNKNOWN`].
    pub sites: u32,
    /// Most exits remembered while a snapshot is read; with more of them the snapshot is refused.
    pub exits_while_read: u32,
}

impl Default for Limits {
    /// 16,777,216 goroutines (about 2 GiB), 65,536 sites (about 45 MiB), 4,194,304 exits (at a million a second, four
    /// seconds of reading; 72 MiB, for as long as it lasts).
    fn default() -> Self {
        Self { live: 1 << 24, sites: 1 << 16, exits_while_read: 1 << 22 }
    }
}

/// Counts over the whole life of a table, `execve`s included.
///
/// Always: `created + first_seen == exited + ended_unseen + ended_by_exec + live`, not counting what was left out of a
/// sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines first seen after their creation.
    pub first_seen: u64,
    /// Goroutines seen at their end.
    pub exited: u64,
    /// Goroutines found gone, their end lost.
    pub ended_unseen: u64,
    /// Goroutines that ended when the process replaced its program.
    pub ended_by_exec: u64,
    /// `Blocked` events.
    pub blocked: u64,
    /// `Running` events.
    pub running: u64,
    /// Events that did not reach us, of this process or another.
    pub lost: u64,
    /// Events of the program before an `execve` that came after it.
    pub before_exec: u64,
    /// Events and snapshot entries passed over because [`Limits::live`] was reached.
    pub refused: u64,
    /// Of `created`, those that were counted alone: their goroutines were left out of a sample.
    pub created_left_out: u64,
    /// Of `exited`, likewise.
    pub exited_left_out: u64,
}

/// The goroutines of one process. See the [module](super) for what its figures mean.
#[derive(Debug)]
pub struct GoroutineTable {
    pid: Pid,
    pub(super) limits: Limits,
    pub(super) slab: Slab,
    pub(super) index: GoidIndex,
    pub(super) sites: Sites,
    pub(super) reasons: Reasons,
    pub(super) totals: Totals,
    live: LiveByState,
    generation: u32,
    exec_time: MonotonicNs,
    pub(super) losses: Losses,
    pub(super) reading: Option<Reading>,
    pub(super) removed: Removed,
    /// What tells of states.
    pub(super) states: StatesFrom,
    pub(super) epoch: Epoch,
    /// The last but one, and the last.
    pub(super) sampling: (Sampling, Sampling),
}

/// Which losses are not repaired yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub uncertain_since: Option<MonotonicNs>,
    /// When the newest loss was noticed.
    pub newest: MonotonicNs,
    /// Losses noticed up to here are repaired.
    pub repaired: MonotonicNs,
}

impl GoroutineTable {
    /// An empty table for `pid`, with default limits.
    #[must_use]
    pub fn new(pid: Pid) -> Self {
        Self::with_limits(pid, Limits::default())
    }

    /// An empty table for `pid`.
    #[must_use]
    pub fn with_limits(pid: Pid, limits: Limits) -> Self {
        // Slot and site numbers are u32, and each has one value that means something else.
        let limits = Limits { live: limits.live.min(u32::MAX - 1), sites: limits.sites.min(u32::MAX - 1), ..limits };
        Self {
            pid,
            limits,
            slab: Slab::new(),
            index: GoidIndex::new(),
            sites: Sites::new(limits.sites),
            reasons: Reasons::default(),
            totals: Totals::default(),
            live: LiveByState::default(),
            generation: 0,
            exec_time: MonotonicNs(0),
            losses: Losses::default(),
            reading: None,
            removed: Removed::default(),
            states: StatesFrom::Events,
            epoch: Epoch::default(),
            sampling: Default::default(),
        }
    }

    /// Takes in one event. Events of other processes are passed over; losses concern every table.
    pub fn apply(&mut self, event: &Event) {
        self.apply_with(event, |_| {});
    }

    /// Takes in events in order: the same as [`GoroutineTable::apply`] on each, faster with many goroutines.
    pub fn apply_all(&mut self, events: &[Event]) {
        self.apply_all_with(events, |_| {});
    }

    /// As [`GoroutineTable::apply_all`], and hands each life that ends to `on_end`.
    pub fn apply_all_with(&mut self, events: &[Event], mut on_end: impl FnMut(&Ended)) {
        for (at, event) in events.iter().enumerate() {
            if let Some(Event::Goroutine { goid, .. }) = events.get(at + FETCH_ENTRY) {
                self.index.prefetch(self.index.hash(*goid));
            }
            if let Some(Event::Goroutine { goid, transition, .. }) = events.get(at + FETCH_RECORD) {
                // The first slot with the hash is the right one but for one in billions: good enough to fetch.
                if let Some(slot) = self.index.find(self.index.hash(*goid), |_| true) {
                    self.slab.prefetch(slot, *transition == Transition::Exited);
                }
            }
            self.apply_with(event, &mut on_end);
        }
    }

    /// As [`GoroutineTable::apply`], and hands each life that ends to `on_end`.
    #[inline]
    pub fn apply_with(&mut self, event: &Event, on_end: impl FnMut(&Ended)) {
        match *event {
            Event::Goroutine { time, pid, goid, transition } if pid == self.pid => {
                self.step(time, goid, transition, on_end);
            }
            Event::Exec { time, pid } if pid == self.pid => self.exec(time, on_end),
            Event::Lost { time, count, .. } => self.lose(time, count),
            Event::Goroutine { .. } | Event::Exec { .. } => {}
        }
    }

    fn step(&mut self, time: MonotonicNs, goid: Goid, transition: Transition, mut on_end: impl FnMut(&Ended)) {
        if time < self.exec_time {
            self.totals.before_exec += 1;
            return;
        }
        let slot = match self.find(goid).or_else(|| self.put_back(time, goid)) {
            Some(slot) => slot,
            None => {
                if self.is_full() {
                    self.totals.refused += 1;
                    return;
                }
                if let Transition::Created { parent, gopc, startpc } = transition {
                    let site = self.sites.intern(gopc, startpc);
                    self.sites.at(site).created_estimated += self.stands_for_more(time);
                    let hot = Hot { last_event: time, ..Hot::new(goid, site, State::Runnable, time, 0) };
                    self.add(hot, Cold { parent, created: time, runnable_ns: 0 });
                    return;
                }
                let hot = Hot::new(goid, SiteId::UNKNOWN, State::Running, time, FIRST_SEEN);
                self.add(hot, Cold { parent: Goid(0), created: time, runnable_ns: 0 })
            }
        };
        let hot = self.slab.hot_mut(slot);
        let only_in_snapshots = hot.last_event.0 == 0;
        hot.last_event = hot.last_event.max(time);
        match transition {
            Transition::Running => {
                self.totals.running += 1;
                if hot.state != State::Running {
                    self.change(slot, State::Running, time, true);
                }
            }
            Transition::Blocked { reason } => {
                hot.parks += 1;
                let site = hot.site;
                self.totals.blocked += 1;
                self.sites.at(site).blocked_events += 1;
                self.reasons.at(reason).parks += 1;
                if hot.state != State::Running {
                    hot.flags |= GAP;
                }
                self.change(slot, State::Blocked { reason }, time, false);
            }
            Transition::Exited => {
                let was_running = hot.state == State::Running;
                if !was_running {
                    hot.flags |= GAP;
                }
                // Where transitions are no events, it ran at some moment that nobody told.
                if was_running || self.states == StatesFrom::Events {
                    self.change(slot, State::Running, time, false);
                }
                self.remember_exit(goid);
                let (site, more) = (self.slab.hot(slot).site, self.stands_for_more(time));
                self.sites.at(site).exited_estimated += more;
                self.end(slot, End::Exited, time, on_end);
            }
            Transition::Created { parent, gopc, startpc } => {
                let site = self.sites.intern(gopc, startpc);
                if hot.flags & FIRST_SEEN != 0 {
                    self.adopt_creation(slot, parent, site, time, only_in_snapshots);
                } else {
                    // goids are not reused within a program, so the end of the older one was lost.
                    self.end(slot, End::Unseen, time, &mut on_end);
                    self.step(time, goid, transition, on_end);
                }
            }
        }
    }

    /// A goroutine that was seen before its creation turns out to be newly created.
    fn adopt_creation(&mut self, slot: Slot, parent: Goid, site: SiteId, time: MonotonicNs, only_in_snapshots: bool) {
        self.move_to_site(slot, site);
        self.totals.first_seen -= 1;
        self.totals.created += 1;
        let to = self.sites.at(site);
        to.first_seen -= 1;
        to.created += 1;
        let cold = self.slab.cold_mut(slot);
        cold.parent = parent;
        cold.created = time;
        let hot = self.slab.hot_mut(slot);
        hot.flags &= !FIRST_SEEN;
        if only_in_snapshots {
            // From here on its events tell all, from the beginning.
            hot.since = time;
            hot.flags &= !SINCE_ESTIMATED;
            self.set_state(slot, State::Runnable);
        } else {
            hot.flags |= GAP;
        }
    }

    /// Ends the interval in the present state and begins the next, by an event. `exact`: the event is the one that
    /// ends such an interval, none is missing between.
    fn change(&mut self, slot: Slot, state: State, time: MonotonicNs, exact: bool) {
        self.close_interval(slot, time, exact);
        let hot = self.slab.hot_mut(slot);
        hot.since = time;
        hot.flags &= !SINCE_ESTIMATED;
        self.set_state(slot, state);
    }

    /// Books the time from `since` to `time` under the present state. `exact`: `time` is when it ended.
    pub(super) fn close_interval(&mut self, slot: Slot, time: MonotonicNs, exact: bool) {
        let hot = self.slab.hot_mut(slot);
        let ns = time.since(hot.since);
        match hot.state {
            State::Running => hot.running_ns = hot.running_ns.saturating_add(ns),
            State::Blocked { reason } => {
                hot.blocked_ns = hot.blocked_ns.saturating_add(ns);
                hot.longest_block_ns = hot.longest_block_ns.max(ns);
                if self.states == StatesFrom::Kept && !exact {
                    // The kernel's own figures for site and reason have it.
                    return;
                }
                let (site, exact) = (hot.site, exact && hot.flags & SINCE_ESTIMATED == 0);
                let site = self.sites.at(site);
                site.blocked_ns = site.blocked_ns.saturating_add(ns);
                if exact {
                    site.blocks.add(ns);
                }
                let stats = self.reasons.at(reason);
                stats.blocked_ns = stats.blocked_ns.saturating_add(ns);
                if exact {
                    stats.blocks.add(ns);
                }
            }
            State::Runnable => {
                let cold = self.slab.cold_mut(slot);
                cold.runnable_ns = cold.runnable_ns.saturating_add(ns);
            }
        }
    }

    pub(super) fn set_state(&mut self, slot: Slot, state: State) {
        let hot = self.slab.hot_mut(slot);
        let was = std::mem::replace(&mut hot.state, state);
        let site = self.sites.at(hot.site);
        *site.live.of(was) -= 1;
        *site.live.of(state) += 1;
        *self.live.of(was) -= 1;
        *self.live.of(state) += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.slab.live() >= self.limits.live as usize
    }

    /// Adds a goroutine that is not in the table, and counts it.
    pub(super) fn add(&mut self, hot: Hot, cold: Cold) -> Slot {
        let site = self.sites.at(hot.site);
        if hot.flags & FIRST_SEEN == 0 {
            site.created += 1;
            self.totals.created += 1;
        } else {
            site.first_seen += 1;
            self.totals.first_seen += 1;
        }
        self.place(hot, cold)
    }

    /// Puts a goroutine among the live ones.
    pub(super) fn place(&mut self, hot: Hot, cold: Cold) -> Slot {
        *self.sites.at(hot.site).live.of(hot.state) += 1;
        *self.live.of(hot.state) += 1;
        let hash = self.index.hash(hot.goid);
        let slot = self.slab.insert(hot, cold);
        self.index.insert(hash, slot);
        slot
    }

    /// Takes a goroutine out of the live ones, and counts its end.
    pub(super) fn end(&mut self, slot: Slot, end: End, time: MonotonicNs, mut on_end: impl FnMut(&Ended)) {
        let ended = Ended { time, end, goroutine: self.view(slot) };
        let hot = self.slab.hot(slot);
        let site = self.sites.at(hot.site);
        *site.live.of(hot.state) -= 1;
        *self.live.of(hot.state) -= 1;
        match end {
            End::Exited => {
                self.totals.exited += 1;
                site.exited += 1;
                if let Some(ns) = ended.lifetime_ns() {
                    site.lifetimes.add(ns);
                }
            }
            End::Unseen => {
                self.totals.ended_unseen += 1;
                site.ended_unseen += 1;
            }
            End::Exec => {
                self.totals.ended_by_exec += 1;
                site.ended_by_exec += 1;
            }
        }
        self.index.remove(self.index.hash(hot.goid), slot);
        self.slab.remove(slot);
        on_end(&ended);
    }

    /// Its site becomes known: what it did so far moves there.
    pub(super) fn move_to_site(&mut self, slot: Slot, site: SiteId) {
        let hot = self.slab.hot_mut(slot);
        let (was, state, parks, ns) = (std::mem::replace(&mut hot.site, site), hot.state, hot.parks, hot.blocked_ns);
        if was == site {
            return;
        }
        let first_seen = u64::from(hot.flags & FIRST_SEEN != 0);
        let from = self.sites.at(was);
        from.first_seen -= first_seen;
        from.created -= 1 - first_seen;
        *from.live.of(state) -= 1;
        from.blocked_events = from.blocked_events.saturating_sub(parks);
        from.blocked_ns = from.blocked_ns.saturating_sub(ns);
        let to = self.sites.at(site);
        to.first_seen += first_seen;
        to.created += 1 - first_seen;
        *to.live.of(state) += 1;
        to.blocked_events += parks;
        to.blocked_ns = to.blocked_ns.saturating_add(ns);
    }

    fn exec(&mut self, time: MonotonicNs, mut on_end: impl FnMut(&Ended)) {
        for slot in 0..self.slab.end() {
            if self.slab.is_live(slot) {
                self.end(slot, End::Exec, time, &mut on_end);
            }
        }
        self.slab = Slab::new();
        self.index = GoidIndex::new();
        self.epoch = Epoch::default();
        self.generation += 1;
        self.sites.next_generation(self.generation);
        self.exec_time = self.exec_time.max(time);
        // What was lost of the old program touches the new one's goroutines in nothing.
        if self.losses.newest <= time {
            self.losses.uncertain_since = None;
        }
        self.forget_reading_before(time);
    }

    fn lose(&mut self, time: MonotonicNs, count: u64) {
        self.totals.lost = self.totals.lost.saturating_add(count);
        self.losses.newest = self.losses.newest.max(time);
        if time > self.losses.repaired {
            self.losses.uncertain_since.get_or_insert(time);
        }
    }

    pub(super) fn find(&self, goid: Goid) -> Option<Slot> {
        self.index.find(self.index.hash(goid), |slot| self.slab.hot(slot).goid == goid)
    }

    fn view(&self, slot: Slot) -> Goroutine {
        let (hot, cold) = (self.slab.hot(slot), self.slab.cold(slot));
        Goroutine {
            goid: hot.goid,
            parent: cold.parent,
            site: hot.site,
            state: hot.state,
            since: hot.since,
            since_estimated: hot.flags & SINCE_ESTIMATED != 0,
            created: cold.created,
            first_seen: hot.flags & FIRST_SEEN != 0,
            estimated: hot.flags & GAP != 0,
            last_event: (hot.last_event.0 != 0).then_some(hot.last_event),
            running_ns: hot.running_ns,
            blocked_ns: hot.blocked_ns,
            runnable_ns: cold.runnable_ns,
            longest_block_ns: hot.longest_block_ns,
            parks: hot.parks,
        }
    }

    /// The process whose goroutines these are.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How often the process replaced its program; addresses and goids belong to a generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Counts since the table began.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Live goroutines by state.
    #[must_use]
    pub fn live(&self) -> LiveByState {
        self.live
    }

    /// Since when events are missing that no snapshot has made up for; `None`: nothing is missing.
    #[must_use]
    pub fn uncertain_since(&self) -> Option<MonotonicNs> {
        self.losses.uncertain_since
    }

    /// One live goroutine.
    #[must_use]
    pub fn get(&self, goid: Goid) -> Option<Goroutine> {
        self.find(goid).map(|slot| self.view(slot))
    }

    /// The live goroutines, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Goroutine> + '_ {
        self.slab.slots().map(|slot| self.view(slot))
    }

    /// All sites; [`SiteId`] is the index, [`SiteId::UNKNOWN`] the first.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        self.sites.all()
    }

    /// One site.
    #[must_use]
    pub fn site(&self, id: SiteId) -> Option<&Site> {
        self.sites.all().get(id.0 as usize)
    }

    /// The addresses of a site; zeros for [`SiteId::UNKNOWN`].
    #[must_use]
    pub fn site_addresses(&self, id: SiteId) -> Option<(RemoteAddr, RemoteAddr)> {
        self.site(id).map(|site| (site.gopc, site.startpc))
    }

    /// The wait reasons that occurred, by number.
    pub fn reasons(&self) -> impl Iterator<Item = (u8, &ReasonStats)> {
        self.reasons.iter()
    }
}

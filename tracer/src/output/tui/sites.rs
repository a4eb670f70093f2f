//! The creation sites with their names, their rates and their recent past.
//!
//! In: the table's figures, once a tick. Out: for each site what a row shows. Names are looked up once.

use std::sync::Arc;

use super::history::{History, Moments};
use super::words::bounded;
use crate::go_runtime::Owner;
use crate::goroutines::{GoroutineTable, LiveByState, Site, SiteId};
use crate::output::{Names, SiteName};
use crate::units::{MonotonicNs, RemoteAddr};

/// Sites whose past is kept: more than a program has, and one MiB.
const WITH_PAST: usize = 4_096;
/// Ticks kept of each.
const PAST: usize = 64;
/// Ticks over which a site's growth is taken.
pub(super) const GROWTH_TICKS: usize = 30;

/// What happened in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub born: f64,
    pub died: f64,
    pub parks: f64,
}

/// Sums from which rates are made.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    born: u64,
    died: u64,
    parks: u64,
}

impl Sums {
    fn of(site: &Site) -> Self {
        Self { born: site.created, died: site.exited.saturating_add(site.ended_unseen), parks: site.blocked_events }
    }

    fn rates(self, was: Self, seconds: f64) -> Rates {
        let rate = |now: u64, was: u64| now.saturating_sub(was) as f64 / seconds;
        Rates { born: rate(self.born, was.born), died: rate(self.died, was.died), parks: rate(self.parks, was.parks) }
    }
}

/// One site.
#[derive(Clone, Debug)]
pub(super) struct KnownSite {
    pub name: SiteName,
    /// `gopc` and `startpc`.
    pub addresses: (RemoteAddr, RemoteAddr),
    /// The function that runs.
    pub start: Arc<str>,
    /// One of the runtime's own.
    pub system: bool,
    /// Of this generation, and with anything to tell.
    pub shown: bool,
    pub live: LiveByState,
    pub born: u64,
    pub died: u64,
    pub rates: Option<Rates>,
    pub past: History,
    /// What a filter looks at: the names in lower case.
    pub text: String,
    sums: Sums,
    generation: u32,
}

/// All sites, by [`SiteId`].
#[derive(Clone, Debug, Default)]
pub(super) struct Sites {
    known: Vec<KnownSite>,
    moments: Moments,
    last: Option<MonotonicNs>,
}

impl Sites {
    /// Takes in the table's figures of the moment `at`. `names` are those of each generation.
    pub(super) fn observe<N: Names>(&mut self, at: MonotonicNs, table: &GoroutineTable, names: &mut [N]) {
        let seconds = self.last.map(|last| at.since(last) as f64 / 1e9).filter(|seconds| *seconds > 0.0);
        self.last = Some(at);
        self.moments.push(at.0);
        for (index, site) in table.sites().iter().enumerate() {
            let sums = Sums::of(site);
            if index == self.known.len() {
                // What is new was not there a tick ago, but for the first.
                self.known.push(KnownSite::new(site, names));
            }
            let Some(known) = self.known.get_mut(index) else { continue };
            known.rates = seconds.map(|seconds| sums.rates(known.sums, seconds));
            known.sums = sums;
            (known.born, known.died, known.live) = (sums.born, sums.died, site.live);
            let any = site.live.total() > 0 || sums.born > 0 || sums.died > 0;
            known.shown = any && (known.generation == table.generation() || site.live.total() > 0);
            if index < WITH_PAST {
                known.past.push(site.live.total(), PAST);
            }
        }
    }

    pub(super) fn get(&self, id: SiteId) -> Option<&KnownSite> {
        self.known.get(id.0 as usize)
    }

    /// Those that have anything to tell.
    pub(super) fn shown(&self) -> impl Iterator<Item = (SiteId, &KnownSite)> {
        (0u32..).map(SiteId).zip(&self.known).filter(|(_, site)| site.shown)
    }

    pub(super) fn is_system(&self, id: SiteId) -> bool {
        self.get(id).is_some_and(|site| site.system)
    }

    /// Live goroutines of the runtime itself.
    pub(super) fn system_live(&self) -> LiveByState {
        let mut sum = LiveByState::default();
        for site in self.known.iter().filter(|site| site.system) {
            sum.runnable += site.live.runnable;
            sum.running += site.live.running;
            sum.blocked += site.live.blocked;
        }
        sum
    }

    /// Growth a second of a site's live goroutines over the last ticks.
    pub(super) fn growth(&self, site: &KnownSite) -> Option<f64> {
        self.moments.growth(&site.past, GROWTH_TICKS)
    }
}

impl KnownSite {
    fn new<N: Names>(site: &Site, names: &mut [N]) -> Self {
        let unknown = || SiteName { function: "(not known)".into(), file: "".into(), line: 0 };
        let (name, start): (SiteName, Arc<str>) = match names.get_mut(site.generation as usize) {
            Some(names) if (site.gopc.0, site.startpc.0) != (0, 0) => {
                (names.site(site.gopc), names.function(site.startpc))
            }
            _ => (unknown(), "(created before gotracer came)".into()),
        };
        let name = SiteName { function: bounded(name.function), file: bounded(name.file), line: name.line };
        let start = bounded(start);
        let text = format!("{} {}:{} {start}", name.function, name.file, name.line).to_lowercase();
        Self {
            system: Owner::of(&start).is_system(),
            name,
            addresses: (site.gopc, site.startpc),
            start,
            text,
            shown: false,
            live: LiveByState::default(),
            born: 0,
            died: 0,
            rates: None,
            past: History::default(),
            sums: Sums::default(),
            generation: site.generation,
        }
    }
}

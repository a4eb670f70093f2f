//! Goroutines that are described one by one, summed up by site and place.
//!
//! In: goroutines by name, of a table or of a file. Out: the sites of a [`Sample`](crate::analysis::Sample). For what is read
//! from a live process there is the [`Census`](super::Census), which is faster and knows more.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::analysis::{Block, FrameName, PLACES, Place, SiteKey, SiteSample};
use crate::units::{Goid, RemoteAddr};

/// Goroutines named of a place.
const NAMED: usize = 5;

/// One goroutine.
#[derive(Clone, Debug)]
pub(super) struct One<'a> {
    pub(super) goid: Goid,
    pub(super) key: &'a SiteKey,
    pub(super) block: Block,
    pub(super) reason: Arc<str>,
    pub(super) stack: Arc<[FrameName]>,
    /// Known to have lived, in nanoseconds.
    pub(super) lives_ns: u64,
    /// Known to have stood there; `None` where that is not known.
    pub(super) stands_ns: Option<u64>,
    /// It was seen to start.
    pub(super) young: bool,
    pub(super) stack_bytes: u64,
    /// Whether the call that created it is over, where that is known.
    pub(super) orphan: Option<bool>,
    /// The channels that it waits for.
    pub(super) channels: Vec<RemoteAddr>,
    /// It is woken again and again, this often.
    pub(super) period_ns: Option<u64>,
}

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sites: HashMap<SiteKey, Site>,
}

#[derive(Debug)]
struct Site {
    sample: SiteSample,
    /// With the channels that its goroutines wait for.
    places: HashMap<PlaceKey, (Place, HashSet<RemoteAddr>)>,
}

/// How, why and where goroutines stand.
type PlaceKey = (Block, Arc<str>, Arc<[FrameName]>);

impl Tally {
    pub(super) fn add(&mut self, one: One<'_>) {
        let new = || Site { sample: SiteSample::empty(one.key.clone()), places: HashMap::new() };
        let site = self.sites.entry(one.key.clone()).or_insert_with(new);
        let sample = &mut site.sample;
        sample.live += 1;
        sample.parked += u64::from(!matches!(one.block, Block::Runs | Block::Syscall | Block::Cgo));
        sample.stack_bytes = sample.stack_bytes.saturating_add(one.stack_bytes);
        sample.ages.add(one.lives_ns);
        if one.young {
            sample.young_ages.add(one.lives_ns);
        }
        let key = (one.block, Arc::clone(&one.reason), Arc::clone(&one.stack));
        let (place, channels) = site.places.entry(key).or_insert_with(|| {
            let place = Place {
                block: one.block,
                reason: one.reason,
                stack: one.stack,
                count: 0,
                stuck: 0,
                still: Default::default(),
                orphans: 0,
                orphans_of: 0,
                waits: Default::default(),
                examples: Vec::new(),
            };
            (place, HashSet::new())
        });
        place.count += 1;
        if let Some(ns) = one.stands_ns {
            place.still.add(ns);
            place.stuck += 1;
        }
        if let Some(orphan) = one.orphan {
            place.orphans_of += 1;
            place.orphans += u64::from(orphan);
        }
        // Of a select's channels one that nobody else waits for makes it another's.
        if let Some(&channel) = one.channels.iter().find(|c| !channels.contains(*c)).or(one.channels.first()) {
            channels.insert(channel);
            place.waits.of += 1;
            place.waits.objects = channels.len() as u64;
        } else if one.period_ns.is_some() {
            place.waits.of += 1;
        }
        if one.period_ns.is_some() {
            place.waits.timed += 1;
            place.waits.ticking += 1;
            place.waits.period_ns = place.waits.period_ns.or(one.period_ns);
        }
        if place.examples.len() < NAMED {
            place.examples.push(one.goid);
        }
    }

    pub(super) fn finish(self) -> Vec<SiteSample> {
        let sites = self.sites.into_values().map(|site| {
            let mut sample = site.sample;
            sample.places = site.places.into_values().map(|(place, _)| place).collect();
            sample.places.sort_unstable_by_key(|place| (std::cmp::Reverse(place.count), place.reason.clone()));
            sample.places.truncate(PLACES);
            sample
        });
        let mut sites: Vec<SiteSample> = sites.collect();
        sites.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        sites
    }
}

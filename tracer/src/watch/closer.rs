//! A closer look at places where goroutines stand still: what they wait for, and whether anybody else could end it.
//!
//! In: a snapshot and its census, the target's memory. Out: the [`WaitFacts`] and orphans of each place. Of each place a few
//! goroutines, the oldest, stand for all; the bounds keep the look shorter than the snapshot itself.

use hashbrown::{HashMap, HashSet};

use super::census::{Census, Counted};
use crate::analysis::{Block, WaitFacts};
use crate::snapshot::{Channel, Goroutine, Objects, Snapshot, Source};
use crate::units::{Goid, RemoteAddr};

/// So many channels are looked at in all.
const CHANNELS: usize = 1 << 14;
/// So many objects are searched for on stacks.
const SEARCHED: usize = 512;
/// Goroutines of a place whose creators are looked for.
const CREATORS: usize = 16;

/// Looks at each place of `counted`. `parents` tells the creator of a goroutine where the runtime does not (up to Go 1.20).
pub(super) fn look(
    source: &Source<'_>,
    snapshot: &Snapshot,
    census: &mut Census,
    counted: &mut Counted,
    parents: &HashMap<Goid, Goid>,
) {
    let objects = Objects::new(*source);
    let mut wanted: Vec<RemoteAddr> = Vec::new();
    let mut semaphores_wanted = false;
    for place in counted.places() {
        match place.place.block {
            Block::Send | Block::Receive | Block::Select if wanted.len() < CHANNELS => {
                let examples = place.examples.iter().filter_map(|i| snapshot.goroutines.get(*i as usize));
                wanted.extend(examples.flat_map(|g| snapshot.waits(g)).map(|wait| wait.channel).filter(|c| c.0 != 0));
            }
            Block::Mutex | Block::WaitGroup => semaphores_wanted |= place.place.stuck > 0,
            _ => {}
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted.truncate(CHANNELS);
    let channels = objects.channels(&wanted);
    let semaphores = if semaphores_wanted { objects.semaphores() } else { HashMap::new() };

    let mut searched: HashSet<RemoteAddr> = HashSet::new();
    let mut coded: Vec<u32> = Vec::new();
    for place in counted.places() {
        let examples: Vec<&Goroutine> =
            place.examples.iter().filter_map(|i| snapshot.goroutines.get(*i as usize)).collect();
        let known = examples.iter().filter_map(|g| {
            let parent = if g.parent.0 != 0 { g.parent } else { *parents.get(&g.goid)? };
            Some((g, parent))
        });
        for (g, parent) in known.take(CREATORS) {
            if let Some(orphan) = census.is_orphan(snapshot, g, parent) {
                place.place.orphans_of += 1;
                place.place.orphans += u64::from(orphan);
            }
        }
        let facts = &mut place.place.waits;
        match place.place.block {
            Block::Send | Block::Receive | Block::Select => {
                on_channels(facts, snapshot, &examples, &channels);
                if place.place.stuck > 0 && facts.timed < facts.of && searched.len() < SEARCHED {
                    let waits = examples.iter().flat_map(|g| snapshot.waits(g));
                    searched.extend(waits.map(|wait| wait.channel).filter(|c| c.0 != 0));
                }
            }
            Block::Mutex | Block::WaitGroup => {
                on_semaphores(facts, place.place.block, &objects, &examples, &semaphores);
                if place.place.block == Block::Mutex && place.place.stuck > 0 && searched.len() < SEARCHED {
                    let at = examples.iter().filter_map(|g| semaphores.get(&g.address));
                    searched.extend(at.flat_map(|semaphore| around(*semaphore)));
                }
            }
            _ => {}
        }
        if place.place.stuck > 0 && coded.last() != Some(&place.site) {
            coded.push(place.site);
        }
    }
    for site in coded {
        if let Some(sample) = counted.sites.get_mut(site as usize) {
            census.look_at_code(site, sample);
        }
    }
    if !searched.is_empty() {
        let stacks = objects.on_stacks(snapshot, &searched);
        others(snapshot, counted, &stacks, &semaphores);
    }
}

fn on_channels(
    facts: &mut WaitFacts,
    snapshot: &Snapshot,
    examples: &[&Goroutine],
    channels: &HashMap<RemoteAddr, Channel>,
) {
    let mut distinct: HashSet<RemoteAddr> = HashSet::new();
    for g in examples {
        let waits = snapshot.waits(g);
        let found: Vec<(RemoteAddr, &Channel)> =
            waits.iter().filter_map(|wait| Some((wait.channel, channels.get(&wait.channel)?))).collect();
        let Some(&(first, _)) = found.first() else { continue };
        facts.of += 1;
        // Of a select's channels one makes it another than its neighbours': that which the others do not have.
        distinct.insert(found.iter().map(|(at, _)| *at).find(|at| !distinct.contains(at)).unwrap_or(first));
        if let Some((_, timer)) = found.iter().find(|(_, channel)| channel.timed) {
            facts.timed += 1;
            facts.ticking += u64::from(timer.period_ns.is_some());
            facts.period_ns = facts.period_ns.or(timer.period_ns);
        }
        let is_done = |channel: &Channel| channel.element_size == 0 && channel.capacity == 0 && !channel.timed;
        facts.done += u64::from(found.iter().any(|(_, channel)| is_done(channel)));
    }
    facts.objects = distinct.len() as u64;
}

/// Where a lock can begin whose semaphore is at `semaphore`: `sync.Mutex` has it 4 bytes in, `sync.RWMutex` 8 (writers) and
/// 12 (readers), in all versions.
/// <https://github.com/golang/go/blob/go1.27.3/src/sync/rwmutex.go#L39-L45>
fn around(semaphore: RemoteAddr) -> impl Iterator<Item = RemoteAddr> {
    [4, 8, 12].into_iter().map(move |offset| RemoteAddr(semaphore.0.wrapping_sub(offset)))
}

fn on_semaphores(
    facts: &mut WaitFacts,
    block: Block,
    objects: &Objects<'_>,
    examples: &[&Goroutine],
    semaphores: &HashMap<RemoteAddr, RemoteAddr>,
) {
    let mut distinct: HashSet<RemoteAddr> = HashSet::new();
    for g in examples {
        let Some(&semaphore) = semaphores.get(&g.address) else { continue };
        facts.of += 1;
        if distinct.insert(semaphore) && block == Block::WaitGroup && facts.counter.is_none() {
            // The state stands 8 bytes before the semaphore, its upper half is the counter.
            // https://github.com/golang/go/blob/go1.27.3/src/sync/waitgroup.go#L48-L56
            let state = objects.word(RemoteAddr(semaphore.0.wrapping_sub(8)));
            facts.counter = state.map(|state| state >> 32);
        }
    }
    facts.objects = distinct.len() as u64;
}

/// Who else has what they wait for on its stack: the other side of a channel, the holder of a mutex.
fn others(
    snapshot: &Snapshot,
    counted: &mut Counted,
    stacks: &HashMap<RemoteAddr, Vec<Goid>>,
    semaphores: &HashMap<RemoteAddr, RemoteAddr>,
) {
    let by_goid = |goid: Goid| {
        let at = snapshot.goroutines.binary_search_by_key(&goid, |g| g.goid).ok()?;
        snapshot.goroutines.get(at)
    };
    // The first line of a goroutine's stack that is not the runtime's.
    let mut holders: Vec<(usize, usize, Goid)> = Vec::new();
    let mut place_index = (0, 0);
    for place in counted.places() {
        let site = place.site as usize;
        place_index = if place_index.0 == site { (site, place_index.1 + 1) } else { (site, 1) };
        let examples = place.examples.iter().filter_map(|i| snapshot.goroutines.get(*i as usize));
        for g in examples {
            match place.place.block {
                Block::Send | Block::Receive | Block::Select => {
                    let waits = snapshot.waits(g).iter().map(|wait| wait.channel);
                    let waits: Vec<RemoteAddr> = waits.filter(|c| stacks.contains_key(c)).collect();
                    let waits_too =
                        |other: &Goroutine| snapshot.waits(other).iter().any(|w| waits.contains(&w.channel));
                    let mut goids = waits.iter().filter_map(|channel| stacks.get(channel)).flatten();
                    let other = goids.any(|goid| by_goid(*goid).is_some_and(|o| o.goid != g.goid && !waits_too(o)));
                    place.place.waits.counterpart += u64::from(other);
                }
                Block::Mutex => {
                    let Some(semaphore) = semaphores.get(&g.address) else { continue };
                    let goids = around(*semaphore).filter_map(|at| stacks.get(&at)).flatten();
                    let other = goids.copied().find(|goid| {
                        by_goid(*goid).is_some_and(|other| semaphores.get(&other.address) != Some(semaphore))
                    });
                    if let Some(goid) = other {
                        holders.push((site, place_index.1 - 1, goid));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    for (site, place, goid) in holders {
        let example = by_goid(goid).map(|g| g.goid);
        if let Some(place) = counted.sites.get_mut(site).and_then(|site| site.places.get_mut(place)) {
            place.waits.holder = example;
        }
    }
}

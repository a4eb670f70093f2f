//! A closer look at places where goroutines stand still: what they wait for, and whether anybody else could end it.
//!
//! In: a snapshot and its census, the target's memory. Out: the [`WaitFacts`] and orphans of each place. Of each place a few
//! goroutines, the oldest, stand for all; the bounds keep the look shorter than the snapshot itself.

use hashbrown::{HashMap, HashSet};

use super::census::{Census, Counted, LookedAt};
use crate::analysis::{Block, SiteSample, WaitFacts};
use crate::snapshot::{Channel, Goroutine, Objects, Snapshot, Source};
use crate::units::{Goid, RemoteAddr};

/// So many channels are looked at in all.
const CHANNELS: usize = 1 << 14;
/// So many objects are searched for on stacks.
const SEARCHED: usize = 512;
/// Goroutines of a place whose creators are looked for.
const CREATORS: usize = 16;
/// Sites whose code is read at one look; the others' at the next ones.
const CODE: usize = 256;

/// Looks at each place of `counted`. `parents` tells the creator of a goroutine where the runtime does not (up to Go 1.20).
pub(super) fn look(
    source: &Source<'_>,
    snapshot: &Snapshot,
    census: &mut Census,
    counted: &mut Counted,
    parents: &HashMap<Goid, Goid>,
) {
    let objects = Objects::new(*source);
    let Counted { sites, looked_at } = counted;
    let mut wanted: Vec<RemoteAddr> = Vec::new();
    let mut semaphores_wanted = false;
    for at in looked_at.iter() {
        let Some(place) = at.place(sites) else { continue };
        match place.block {
            Block::Send | Block::Receive | Block::Select if wanted.len() < CHANNELS => {
                let waits = at.goroutines(snapshot).flat_map(|g| snapshot.waits(g));
                wanted.extend(waits.map(|wait| wait.channel).filter(|c| c.0 != 0));
            }
            Block::Mutex | Block::WaitGroup => semaphores_wanted |= place.stuck > 0,
            _ => {}
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted.truncate(CHANNELS);
    let channels = objects.channels(&wanted);
    let semaphores = if semaphores_wanted { objects.semaphores() } else { HashMap::new() };

    let mut searched: HashSet<RemoteAddr> = HashSet::new();
    let mut new_code = 0;
    let mut last = None;
    for at in looked_at.iter() {
        let Some(place) = at.place(sites) else { continue };
        let known = at.goroutines(snapshot).filter_map(|g| {
            let parent = if g.parent.0 != 0 { g.parent } else { *parents.get(&g.goid)? };
            Some((g, parent))
        });
        for (g, parent) in known.take(CREATORS) {
            if let Some(orphan) = census.is_orphan(snapshot, g, parent) {
                place.orphans_of += 1;
                place.orphans += u64::from(orphan);
            }
        }
        let facts = &mut place.waits;
        match place.block {
            Block::Send | Block::Receive | Block::Select => {
                on_channels(facts, snapshot, at, &channels);
                if place.stuck > 0 && facts.timed < facts.of && searched.len() < SEARCHED {
                    let waits = at.goroutines(snapshot).flat_map(|g| snapshot.waits(g));
                    searched.extend(waits.map(|wait| wait.channel).filter(|c| c.0 != 0));
                }
            }
            Block::Mutex | Block::WaitGroup => {
                on_semaphores(facts, place.block, &objects, at.goroutines(snapshot), &semaphores);
                if place.block == Block::Mutex && place.stuck > 0 && searched.len() < SEARCHED {
                    let held = at.goroutines(snapshot).filter_map(|g| semaphores.get(&g.address));
                    searched.extend(held.flat_map(|semaphore| around(*semaphore)));
                }
            }
            _ => {}
        }
        if place.stuck > 0
            && new_code < CODE
            && last.replace(at.site) != Some(at.site)
            && let Some(site) = sites.get_mut(usize::from(at.site))
        {
            new_code += usize::from(census.look_at_code(at.site, site));
        }
    }
    if !searched.is_empty() {
        // Whoever waits for a thing has it on its stack, and is nobody else.
        let waits = |g: &Goroutine, what: RemoteAddr| {
            let locks = semaphores.get(&g.address).into_iter().flat_map(|semaphore| around(*semaphore));
            snapshot.waits(g).iter().map(|wait| wait.channel).chain(locks).any(|of| of == what)
        };
        let holders = objects.on_stacks(snapshot, &searched, |g, what| !waits(g, what));
        others(snapshot, sites, looked_at, &holders, &semaphores);
    }
}

fn on_channels(facts: &mut WaitFacts, snapshot: &Snapshot, at: &LookedAt, channels: &HashMap<RemoteAddr, Channel>) {
    let mut distinct: HashSet<RemoteAddr> = HashSet::new();
    for g in at.goroutines(snapshot) {
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

fn on_semaphores<'g>(
    facts: &mut WaitFacts,
    block: Block,
    objects: &Objects<'_>,
    examples: impl Iterator<Item = &'g Goroutine>,
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

/// Who else has what they wait for on its stack: the other side of a channel, the holder of a mutex. `holders`: goroutines
/// that have a thing on their stacks and do not wait for it, as indices into the snapshot's.
fn others(
    snapshot: &Snapshot,
    sites: &mut [SiteSample],
    looked_at: &[LookedAt],
    holders: &HashMap<RemoteAddr, Vec<u32>>,
    semaphores: &HashMap<RemoteAddr, RemoteAddr>,
) {
    let of = |what: RemoteAddr| {
        let at = holders.get(&what).map(Vec::as_slice).unwrap_or_default();
        at.iter().filter_map(|at| snapshot.goroutines.get(*at as usize))
    };
    let waits = |g: &Goroutine| snapshot.waits(g).iter().map(|wait| wait.channel);
    for at in looked_at {
        let Some(place) = at.place(sites) else { continue };
        match place.block {
            Block::Send | Block::Receive | Block::Select => {
                // Who waits in a select for another of the same channels is no other side either.
                let has_other = |g: &&Goroutine| {
                    waits(g).flat_map(of).any(|other| !waits(other).any(|channel| waits(g).any(|c| c == channel)))
                };
                place.waits.counterpart = at.goroutines(snapshot).filter(has_other).count() as u64;
            }
            Block::Mutex => {
                let mut locks = at.goroutines(snapshot).filter_map(|g| semaphores.get(&g.address));
                place.waits.holder = locks.find_map(|lock| around(*lock).flat_map(of).next()).map(|holder| holder.goid);
            }
            _ => {}
        }
    }
}

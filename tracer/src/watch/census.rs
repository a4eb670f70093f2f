//! Counts goroutines by creation site and by where they stand, from snapshot to snapshot.
//!
//! In: snapshots of one program, in order. Out: the sites of a [`Sample`], and goroutines that stand for the others where
//! somebody wants to look closer. Remembers of each goroutine since when it is known and since when it has not moved: 24
//! bytes. Goroutines come sorted by goid and are compared with those of the snapshot before in one pass along both, in which
//! nothing is allocated for a goroutine and names are looked at only where a place is new.

use std::sync::Arc;

use hashbrown::HashMap;

use super::facts::{Code, SiteFacts};
use super::places::{NO_STACK, Place, Places};
use super::stacks::SeenStacks;
use crate::analysis::{self, Ages, Block, PLACES, Sample, SiteKey, SiteSample, WaitFacts};
use crate::go_runtime::Status;
use crate::goroutines::{GoroutineTable, Log2Histogram, State};
use crate::output::Names;
use crate::snapshot::{Goroutine, Snapshot, StackState, Symbols};
use crate::tracee::{LoadBias, Program, TraceeNames};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// So many sites are told apart; goroutines of those beyond are not looked at.
const SITE_LIMIT: usize = analysis::SITES;
/// Of each place so many goroutines, most of them the oldest, stand for the others when more is wanted of them, ...
const EXAMPLES: usize = 32;
/// ... and so many of these are the newest: of those that are older than the probes the creator may not be known.
const NEWEST: usize = 12;
/// So many examples in all, of the places with the most goroutines: a closer look must not take longer than the count.
const LOOKED_AT: usize = 1 << 15;
/// So many are named.
const NAMED: usize = 5;

/// What is remembered of a goroutine. Times in milliseconds since the census began, before it for those that the runtime
/// itself knows to have waited longer.
#[derive(Clone, Copy, Debug)]
struct Record {
    goid: Goid,
    place: u32,
    /// Known to have lived.
    lives: i32,
    /// Known to have stood in its place.
    stands: i32,
    site: u16,
    runs: u8,
    /// [`OLD`], [`ORPHAN`].
    flags: u8,
}

/// It was there when the census began.
const OLD: u8 = 1;
/// At one look the call that created it was over: it stays so, though its creator may be in another call of that function.
const ORPHAN: u8 = 2;

const _: () = assert!(size_of::<Record>() == 24 && SITE_LIMIT <= 1 << 16);

/// Times of one snapshot.
#[derive(Clone, Copy, Debug)]
struct Clock {
    began: MonotonicNs,
    now: i32,
}

impl Clock {
    fn new(began: MonotonicNs, now: MonotonicNs) -> Self {
        let mut clock = Self { began, now: 0 };
        clock.now = clock.millis(now);
        clock
    }

    /// A moment, in milliseconds since the census began.
    fn millis(self, time: MonotonicNs) -> i32 {
        let ms = time.0 as i64 / 1_000_000 - self.began.0 as i64 / 1_000_000;
        ms.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }

    /// How long ago that was, in nanoseconds.
    fn age(self, since: i32) -> u64 {
        (i64::from(self.now) - i64::from(since)).max(0) as u64 * 1_000_000
    }
}

/// What is summed up at a place in one snapshot.
#[derive(Debug)]
struct PlaceSum {
    number: u32,
    count: u32,
    stuck: u32,
    /// The first of them, as indices into the snapshot's goroutines.
    named: [u32; NAMED],
    still: Ages,
}

/// The same at a site.
#[derive(Clone, Debug, Default)]
struct SiteSum {
    live: u64,
    parked: u64,
    stack_bytes: u64,
    ages: Ages,
    young_ages: Ages,
    /// Indices into the sums of places.
    places: Vec<u32>,
}

/// What one snapshot sums up.
#[derive(Debug, Default)]
struct Sums {
    sites: Vec<SiteSum>,
    places: Vec<PlaceSum>,
    /// By the number of a place, one more than its index in `places`; 0 where nobody is.
    at: Vec<u32>,
    /// Of each of the census's records, the index of its goroutine in the snapshot.
    indices: Vec<u32>,
}

impl Sums {
    /// The sums of that place and of its site.
    fn of(&mut self, place: u32, site: u16) -> Option<(&mut SiteSum, &mut PlaceSum)> {
        let (number, site) = (place as usize, usize::from(site));
        if self.at.len() <= number {
            self.at.resize(number + 1, 0);
        }
        if self.sites.len() <= site {
            self.sites.resize(site + 1, SiteSum::default());
        }
        let (at, site) = (self.at.get_mut(number)?, self.sites.get_mut(site)?);
        if *at == 0 {
            site.places.push(self.places.len() as u32);
            let named = [0; NAMED];
            self.places.push(PlaceSum { number: place, count: 0, stuck: 0, named, still: Ages::default() });
            *at = self.places.len() as u32;
        }
        Some((site, self.places.get_mut(*at as usize - 1)?))
    }
}

/// Follows one program from snapshot to snapshot.
#[derive(Debug)]
pub struct Census {
    program: Program,
    bias: LoadBias,
    names: TraceeNames,
    began: Option<MonotonicNs>,
    site_ids: HashMap<(RemoteAddr, RemoteAddr), u16>,
    by_key: HashMap<SiteKey, u16>,
    sites: Vec<SiteFacts>,
    code: Code,
    stacks: SeenStacks,
    places: Places,
    records: Vec<Record>,
    /// Lifetimes, by site, of goroutines that came and went between snapshots: for who has no table.
    ended: Vec<Log2Histogram>,
}

/// A place at which to look closer.
#[derive(Debug)]
pub(super) struct LookedAt {
    /// Its site's number, which is its index in [`Counted::sites`], and its own index there.
    pub(super) site: u16,
    pub(super) place: usize,
    /// Who stands for all, as indices into the snapshot's goroutines.
    pub(super) examples: Vec<u32>,
}

/// What one snapshot gave.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// By the sites' numbers.
    pub(super) sites: Vec<SiteSample>,
    /// By site.
    pub(super) looked_at: Vec<LookedAt>,
}

impl LookedAt {
    /// The place, in `sites` of the same [`Counted`].
    pub(super) fn place<'s>(&self, sites: &'s mut [SiteSample]) -> Option<&'s mut analysis::Place> {
        sites.get_mut(usize::from(self.site))?.places.get_mut(self.place)
    }

    /// Who stands for all.
    pub(super) fn goroutines<'s>(&self, snapshot: &'s Snapshot) -> impl Iterator<Item = &'s Goroutine> {
        self.examples.iter().filter_map(|at| snapshot.goroutines.get(*at as usize))
    }
}

impl Census {
    /// Begins with `program`, loaded at `bias`.
    #[must_use]
    pub fn new(program: Program, bias: LoadBias) -> Self {
        Self {
            names: TraceeNames::new(program.clone(), Some(bias)),
            program,
            bias,
            began: None,
            site_ids: HashMap::new(),
            by_key: HashMap::new(),
            sites: Vec::new(),
            code: Code::default(),
            stacks: SeenStacks::default(),
            places: Places::default(),
            records: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The site of goroutines created by the `go` statement before `gopc` that run `startpc`.
    fn site(&mut self, gopc: RemoteAddr, startpc: RemoteAddr) -> Option<u16> {
        if let Some(&id) = self.site_ids.get(&(gopc, startpc)) {
            return Some(id);
        }
        if self.site_ids.len() >= 2 * SITE_LIMIT {
            return None;
        }
        let start = self.names.function(startpc);
        let key = if start.as_ref() == "runtime.main" || gopc.0 == 0 {
            SiteKey { function: "".into(), file: "".into(), line: 0, start }
        } else {
            let go = self.names.site(gopc);
            SiteKey { function: go.function, file: go.file, line: go.line, start }
        };
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None if self.sites.len() >= SITE_LIMIT => return None,
            None => {
                let id = self.sites.len() as u16;
                self.by_key.insert(key.clone(), id);
                self.sites.push(SiteFacts::new(key, gopc));
                self.ended.push(Log2Histogram::default());
                id
            }
        };
        self.site_ids.insert((gopc, startpc), id);
        Some(id)
    }

    /// Learns who creates: the creator of a goroutine of this site is of that one.
    pub fn created_by(&mut self, site: (RemoteAddr, RemoteAddr), creator: (RemoteAddr, RemoteAddr)) {
        if let (Some(site), Some(creator)) = (self.site(site.0, site.1), self.site(creator.0, creator.1))
            && let Some(facts) = self.sites.get_mut(usize::from(site))
        {
            facts.creator.get_or_insert(creator);
        }
    }

    /// Counts the program's own goroutines in `snapshot`. `now`: its time.
    pub(super) fn count(&mut self, snapshot: &Snapshot, now: MonotonicNs) -> Counted {
        let began = *self.began.get_or_insert(now);
        let sums = self.pass(snapshot, Clock::new(began, now), began == now);
        self.samples(snapshot, sums)
    }

    /// One pass along the goroutines of `snapshot` and what is remembered of those of the one before.
    fn pass(&mut self, snapshot: &Snapshot, clock: Clock, first: bool) -> Sums {
        if self.stacks.is_full() || self.places.is_full() {
            self.stacks.clear();
            self.places.clear();
            // No place has this number.
            self.records.iter_mut().for_each(|record| record.place = u32::MAX);
        }
        let program = self.program.clone();
        let mut symbols = Symbols::new(&program.binary);
        // What the snapshot's own numbers of stacks are here.
        let mut stacks: Vec<u32> = vec![NO_STACK; snapshot.stacks.len()];
        let mut sums = Sums::default();
        sums.indices.reserve(snapshot.goroutines.len());
        let mut records = Vec::with_capacity(snapshot.goroutines.len());
        let before = std::mem::take(&mut self.records);
        let mut before = before.iter().peekable();
        for (index, g) in snapshot.goroutines.iter().enumerate() {
            if g.system {
                continue;
            }
            while let Some(gone) = before.next_if(|record| record.goid < g.goid) {
                self.ended(gone, clock);
            }
            let earlier = before.next_if(|record| record.goid == g.goid);
            // A goroutine stays of the site that it was created at.
            let site = earlier.map(|record| record.site).or_else(|| self.site(g.gopc, g.startpc));
            let Some(site) = site else { continue };
            let mut here = Place::of(g, site);
            here.stack = match stacks.get_mut(here.stack as usize) {
                None => NO_STACK,
                Some(known) => {
                    if *known == NO_STACK
                        && let Some(stack) = snapshot.stack(g)
                    {
                        *known = self.stacks.id(stack, &mut symbols);
                    }
                    *known
                }
            };
            let stayed = earlier.filter(|record| self.places.get(record.place) == Some(here));
            let place = match stayed {
                Some(record) => record.place,
                None => self.places.number(here, &self.stacks, &self.names),
            };
            let stayed = stayed.filter(|record| record.runs == g.runs || here.runs());
            let waits = g.wait_since.filter(|_| matches!(g.status, Status::Waiting | Status::Syscall));
            let stood = stayed.map_or(clock.now, |record| record.stands);
            let stands = waits.map_or(stood, |since| clock.millis(since).min(stood)).min(clock.now);
            let lives = earlier.map_or(clock.now, |record| record.lives).min(stands);
            let flags = earlier.map_or(if first { OLD } else { 0 }, |record| record.flags);
            let Some((of_site, of_place)) = sums.of(place, site) else { continue };
            if let Some(named) = of_place.named.get_mut(of_place.count as usize) {
                *named = index as u32;
            }
            of_place.count += 1;
            of_place.stuck += u32::from(stayed.is_some());
            of_place.still.add(clock.age(stands));
            of_site.live += 1;
            of_site.parked += u64::from(g.status == Status::Waiting);
            of_site.stack_bytes = of_site.stack_bytes.saturating_add(g.stack_size());
            of_site.ages.add(clock.age(lives));
            if flags & OLD == 0 {
                of_site.young_ages.add(clock.age(lives));
            }
            records.push(Record { goid: g.goid, place, lives, stands, site, runs: g.runs, flags });
            sums.indices.push(index as u32);
        }
        before.for_each(|gone| self.ended(gone, clock));
        self.records = records;
        sums.sites.resize(self.sites.len(), SiteSum::default());
        sums
    }

    /// A goroutine is no more there.
    fn ended(&mut self, record: &Record, clock: Clock) {
        if record.flags & OLD == 0
            && let Some(histogram) = self.ended.get_mut(usize::from(record.site))
        {
            histogram.add(clock.age(record.lives));
        }
    }

    /// The sums by name, and who stands for the places.
    fn samples(&self, snapshot: &Snapshot, sums: Sums) -> Counted {
        let mut counted = Counted { sites: Vec::with_capacity(sums.sites.len()), looked_at: Vec::new() };
        // The places that are told, by index, with where they are.
        let mut told: Vec<(u32, u16, u16)> = Vec::with_capacity(sums.places.len());
        let mut order: Vec<(u32, u32, u32)> = Vec::new();
        for (id, (mut sum, facts)) in sums.sites.into_iter().zip(&self.sites).enumerate() {
            // Those with the most that stand still first; of those alike the one that was met first.
            order.clear();
            order.extend(sum.places.drain(..).filter_map(|at| {
                let place = sums.places.get(at as usize)?;
                Some((u32::MAX - place.stuck, u32::MAX - place.count, at))
            }));
            order.sort_unstable();
            order.truncate(PLACES);
            let mut places = Vec::with_capacity(order.len());
            for &(_, _, at) in &order {
                let Some(place) = sums.places.get(at as usize).and_then(|here| self.place(here, snapshot)) else {
                    continue;
                };
                told.push((at, id as u16, places.len() as u16));
                places.push(place);
            }
            counted.sites.push(SiteSample {
                key: facts.key.clone(),
                live: sum.live,
                parked: sum.parked,
                created: None,
                exited: None,
                lifetimes: self.ended.get(id).filter(|ended| ended.count() > 0).cloned(),
                ages: sum.ages,
                young_ages: sum.young_ages,
                stack_bytes: sum.stack_bytes,
                places,
                creators: self.creators(facts),
                deferred: facts.deferred.unwrap_or_default(),
                counts_down: facts.counts_down.unwrap_or_default(),
            });
        }
        counted.looked_at = self.look_at(&sums.places, &sums.indices, told);
        counted
    }

    fn place(&self, sum: &PlaceSum, snapshot: &Snapshot) -> Option<analysis::Place> {
        let doing = self.places.doing(sum.number)?;
        let stack = self.places.get(sum.number).and_then(|place| self.stacks.get(place.stack));
        let named = sum.named.iter().take(sum.count as usize);
        Some(analysis::Place {
            block: doing.block,
            reason: Arc::clone(&doing.reason),
            stack: stack.map_or_else(|| Arc::from([]), |stack| Arc::clone(&stack.frames)),
            count: u64::from(sum.count),
            stuck: u64::from(sum.stuck),
            never_parked: doing.never_parked,
            still: sum.still.clone(),
            orphans: 0,
            orphans_of: 0,
            waits: WaitFacts::default(),
            examples: named.filter_map(|at| Some(snapshot.goroutines.get(*at as usize)?.goid)).collect(),
        })
    }

    /// Chooses where to look closer, among the places that are `told` (by their sums, sites and places there), and who stands
    /// for them.
    fn look_at(&self, sums: &[PlaceSum], indices: &[u32], mut told: Vec<(u32, u16, u16)>) -> Vec<LookedAt> {
        let count = |sum: u32| sums.get(sum as usize).map_or(0, |place| place.count);
        let wanted = |sum: u32| (count(sum) as usize).min(EXAMPLES);
        if told.iter().map(|(sum, ..)| wanted(*sum)).sum::<usize>() > LOOKED_AT {
            told.sort_unstable_by_key(|(sum, site, place)| (u32::MAX - count(*sum), *site, *place));
            let mut left = LOOKED_AT;
            told.retain(|(sum, ..)| {
                let fits = left.checked_sub(wanted(*sum));
                left = fits.unwrap_or_default();
                fits.is_some()
            });
            told.sort_unstable_by_key(|(_, site, place)| (*site, *place));
        }
        let new = |&(sum, site, place): &(u32, u16, u16)| {
            let examples = Vec::with_capacity(wanted(sum));
            (LookedAt { site, place: usize::from(place), examples }, 0_usize)
        };
        let mut looked_at: Vec<(LookedAt, usize)> = told.iter().map(new).collect();
        // By the numbers of places.
        let mut chosen: Vec<u32> = vec![u32::MAX; self.places.len()];
        for (at, (sum, ..)) in told.iter().enumerate() {
            let number = sums.get(*sum as usize).map_or(u32::MAX, |place| place.number);
            if let Some(chosen) = chosen.get_mut(number as usize) {
                *chosen = at as u32;
            }
        }
        for (record, &index) in self.records.iter().zip(indices) {
            let at = chosen.get(record.place as usize).copied().unwrap_or(u32::MAX);
            let Some((LookedAt { examples, .. }, seen)) = looked_at.get_mut(at as usize) else { continue };
            *seen += 1;
            if examples.len() < EXAMPLES {
                examples.push(index);
            } else if let Some(example) = examples.get_mut(EXAMPLES - NEWEST + *seen % NEWEST) {
                *example = index;
            }
        }
        looked_at.into_iter().map(|(looked_at, _)| looked_at).collect()
    }

    /// The creators of a site, the nearest first; each once, however the circle goes on.
    fn creators(&self, facts: &SiteFacts) -> Vec<SiteKey> {
        const MOST: usize = 8;
        let mut found: Vec<SiteKey> = Vec::new();
        let mut next = facts.creator;
        while let Some(facts) = next.and_then(|id| self.sites.get(usize::from(id))) {
            if found.len() >= MOST || found.contains(&facts.key) {
                break;
            }
            found.push(facts.key.clone());
            next = facts.creator;
        }
        found
    }

    /// What the code of site `id`'s functions says; looked up once, when a place of it is worth it.
    /// Says whether that was new to find out.
    pub(super) fn look_at_code(&mut self, id: u16, sample: &mut SiteSample) -> bool {
        let Some(facts) = self.sites.get_mut(usize::from(id)) else { return false };
        let is_new = facts.deferred.is_none();
        if is_new {
            // The outermost function of a stack is what runs; the start function may be a wrapper that is not shown.
            let stack = sample.places.iter().find_map(|place| place.stack.last());
            let start = stack.map_or(&sample.key.start, |frame| &frame.function);
            let binary = &self.program.binary;
            facts.deferred = Some(self.code.runs_deferred(binary, self.bias.pc(facts.gopc)));
            facts.counts_down = Some(self.code.counts_down(binary, start));
        }
        sample.deferred = facts.deferred.unwrap_or_default();
        sample.counts_down = facts.counts_down.unwrap_or_default();
        is_new
    }

    /// Whether the call that created `g` is over: its creator has ended, or its stack no longer holds the function with the
    /// `go` statement. `None` where that cannot be told.
    pub(super) fn is_orphan(&mut self, snapshot: &Snapshot, g: &Goroutine, parent: Goid) -> Option<bool> {
        if parent.0 == 0 {
            return None;
        }
        let known = self.records.binary_search_by_key(&g.goid, |record| record.goid).ok();
        if known.and_then(|at| self.records.get(at)).is_some_and(|record| record.flags & ORPHAN != 0) {
            return Some(true);
        }
        let is_orphan = self.is_creator_gone(snapshot, g, parent)?;
        if is_orphan && let Some(record) = known.and_then(|at| self.records.get_mut(at)) {
            record.flags |= ORPHAN;
        }
        Some(is_orphan)
    }

    /// The same, as things are at this moment.
    fn is_creator_gone(&mut self, snapshot: &Snapshot, g: &Goroutine, parent: Goid) -> Option<bool> {
        let Ok(at) = snapshot.goroutines.binary_search_by_key(&parent, |g| g.goid) else { return Some(true) };
        let creator = snapshot.goroutines.get(at)?;
        if let (Some(site), Some(of)) = (self.site(g.gopc, g.startpc), self.site(creator.gopc, creator.startpc))
            && let Some(facts) = self.sites.get_mut(usize::from(site))
        {
            facts.creator = Some(of);
        }
        let StackState::Read(id) = creator.stack else { return None };
        let function = self.program.binary.functions().find(self.bias.pc(g.gopc))?;
        let stack = snapshot.stacks.get(id)?;
        Some(!stack.pcs.iter().any(|pc| function.range().contains(pc)))
    }

    /// Adds to `sample`, made of this census, what the table counted: births and deaths are exact there.
    pub fn add_counts(&mut self, sample: &mut Sample, table: &GoroutineTable) {
        let mut counts: Vec<(u64, u64, Log2Histogram)> = Vec::new();
        for site in table.sites().iter().filter(|site| site.generation == table.generation()) {
            if site.created + site.exited == 0 {
                continue;
            }
            let Some(id) = self.site(site.gopc, site.startpc) else { continue };
            let id = usize::from(id);
            if counts.len() <= id {
                counts.resize(id + 1, Default::default());
            }
            if let Some((created, exited, lifetimes)) = counts.get_mut(id) {
                *created += site.created;
                *exited += site.exited + site.ended_unseen;
                lifetimes.merge(&site.lifetimes);
            }
        }
        counts.resize(self.sites.len().max(counts.len()), Default::default());
        for (id, (created, exited, lifetimes)) in counts.into_iter().enumerate() {
            if sample.sites.len() <= id {
                // Born and gone between two snapshots.
                let Some(facts) = self.sites.get(id) else { break };
                sample.sites.push(SiteSample::empty(facts.key.clone()));
            }
            let Some(site) = sample.sites.get_mut(id) else { break };
            site.created = Some(created);
            site.exited = Some(exited);
            site.lifetimes = Some(lifetimes);
            site.places.iter_mut().filter(|place| place.block == Block::Runs).for_each(|place| {
                keep_busy(place, table, sample.time);
            });
        }
        sample.lost = table.totals().lost;
    }
}

/// Of goroutines that were seen running each time, those that did not park in between either: where parks are events, the
/// table knows.
fn keep_busy(place: &mut analysis::Place, table: &GoroutineTable, now: MonotonicNs) {
    if table.totals().blocked == 0 {
        return;
    }
    let mut still = Ages::default();
    place.examples.retain(|goid| {
        let Some(g) = table.get(*goid) else { return true };
        let busy = g.state == State::Running;
        if busy {
            still.add(now.since(g.since));
        }
        busy
    });
    place.stuck = place.examples.len() as u64;
    place.still = still;
}

//! Counts goroutines by creation site and by where they stand, from snapshot to snapshot.
//!
//! In: snapshots of one program, in order. Out: the sites of a [`Sample`]. Remembers of each goroutine since when it is
//! known and since when it has not moved: 24 bytes. Goroutines come sorted by goid and are compared with those of the
//! snapshot before in one pass along both.

use std::sync::Arc;

use hashbrown::HashMap;

use super::facts::{SiteFacts, counts_down, runs_deferred};
use super::stacks::{SeenStacks, of_reason};
use crate::analysis::{Ages, Block, PLACES, Place, Sample, SiteKey, SiteSample, WaitFacts};
use crate::go_runtime::Status;
use crate::goroutines::{GoroutineTable, Log2Histogram, State};
use crate::output::Names;
use crate::snapshot::{Goroutine, Snapshot, StackState, Symbols};
use crate::tracee::{LoadBias, Program, TraceeNames};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// So many sites are told apart; goroutines of those beyond are not looked at.
const SITE_LIMIT: usize = crate::analysis::SITES;
/// So many places are remembered; then all are forgotten, and everybody seems to have moved once.
const PLACE_LIMIT: usize = 1 << 18;
/// Of each place so many goroutines, most of them the oldest, stand for the others when more is wanted of them, ...
const EXAMPLES: usize = 32;
/// ... and so many of these are the newest: of those that are older than the probes the creator may not be known.
const NEWEST: usize = 12;
/// So many are named.
const NAMED: usize = 5;

/// What is remembered of a goroutine. Times in milliseconds since the census began, before it for those that the runtime
/// itself knows to have waited longer.
#[derive(Clone, Copy, Debug)]
struct Record {
    goid: Goid,
    place: u32,
    site: u32,
    /// Known to have lived.
    lives: i32,
    /// Known to have stood in its place.
    stands: i32,
    runs: u8,
    /// It was there when the census began.
    old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PlaceKey {
    site: u32,
    status: Status,
    reason: u8,
    /// [`NO_STACK`] while it runs.
    stack: u32,
}

/// A place by numbers of one snapshot: gopc, startpc, stack, status and reason.
type LocalPlace = (RemoteAddr, RemoteAddr, u32, Status, u8);

const NO_STACK: u32 = u32::MAX;

/// In place of a reason, of those that run.
const NEVER_PARKED: u8 = 1;

/// What is summed up at a place in one snapshot.
#[derive(Clone, Debug)]
struct Gathered {
    place: u32,
    count: u64,
    stuck: u64,
    still: Ages,
    /// Indices into the snapshot's goroutines.
    examples: Vec<u32>,
}

/// The same at a site.
#[derive(Clone, Debug, Default)]
struct SiteGathered {
    live: u64,
    parked: u64,
    stack_bytes: u64,
    ages: Ages,
    young_ages: Ages,
    /// Indices into the places that were gathered.
    places: Vec<u32>,
}

/// Follows one program from snapshot to snapshot.
#[derive(Debug)]
pub struct Census {
    program: Program,
    bias: LoadBias,
    names: TraceeNames,
    began: Option<MonotonicNs>,
    site_ids: HashMap<(RemoteAddr, RemoteAddr), u32>,
    by_key: HashMap<SiteKey, u32>,
    sites: Vec<SiteFacts>,
    stacks: SeenStacks,
    places: HashMap<PlaceKey, u32>,
    place_keys: Vec<PlaceKey>,
    records: Vec<Record>,
    /// Lifetimes, by site, of goroutines that came and went between snapshots: for who has no table.
    ended: Vec<Log2Histogram>,
}

/// A place with what the next step wants of it.
pub(super) struct PlaceOf<'a> {
    pub(super) site: u32,
    pub(super) place: &'a mut Place,
    /// Indices into the snapshot's goroutines.
    pub(super) examples: Vec<u32>,
}

/// What one snapshot gave.
pub(super) struct Counted {
    pub(super) sites: Vec<SiteSample>,
    /// For each site and place, examples as indices into the snapshot's goroutines.
    pub(super) examples: Vec<Vec<Vec<u32>>>,
}

impl Counted {
    /// All places.
    pub(super) fn places(&mut self) -> impl Iterator<Item = PlaceOf<'_>> {
        self.sites.iter_mut().zip(&self.examples).enumerate().flat_map(|(site, (sample, examples))| {
            let places = sample.places.iter_mut().zip(examples);
            places.map(move |(place, examples)| PlaceOf { site: site as u32, place, examples: examples.clone() })
        })
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
            stacks: SeenStacks::default(),
            places: HashMap::new(),
            place_keys: Vec::new(),
            records: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The site of goroutines created by the `go` statement before `gopc` that run `startpc`.
    fn site(&mut self, gopc: RemoteAddr, startpc: RemoteAddr) -> Option<u32> {
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
                let id = self.sites.len() as u32;
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
            && let Some(facts) = self.sites.get_mut(site as usize)
        {
            facts.creator.get_or_insert(creator);
        }
    }

    /// Counts the program's own goroutines in `snapshot`. `now`: its time.
    pub(super) fn count(&mut self, snapshot: &Snapshot, now: MonotonicNs) -> Counted {
        let began = *self.began.get_or_insert(now);
        let first = began == now;
        let millis = |time: MonotonicNs| -> i32 {
            let ms = time.0 as i64 / 1_000_000 - began.0 as i64 / 1_000_000;
            ms.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
        };
        let now_ms = millis(now);
        let age = |since: i32| (i64::from(now_ms) - i64::from(since)).max(0) as u64 * 1_000_000;

        if self.stacks.is_full() || self.places.len() > PLACE_LIMIT {
            self.stacks.clear();
            self.places.clear();
            self.place_keys.clear();
        }
        let program = self.program.clone();
        let mut symbols = Symbols::new(&program.binary);
        // What the snapshot's own numbers of stacks are here.
        let mut stack_ids: Vec<u32> = vec![NO_STACK; snapshot.stacks.len()];
        // A place is found by numbers of this snapshot, without a look at names.
        let mut known: HashMap<LocalPlace, (u32, u32)> = HashMap::new();
        let mut gathered: Vec<Gathered> = Vec::new();
        let mut gathered_at: HashMap<u32, u32> = HashMap::new();
        let mut sites: Vec<SiteGathered> = vec![SiteGathered::default(); self.sites.len()];
        let mut records = Vec::with_capacity(snapshot.goroutines.len());
        let before = std::mem::take(&mut self.records);
        let mut before = before.iter().peekable();
        let ended = |record: &Record, ended: &mut Vec<Log2Histogram>| {
            if !record.old
                && let Some(histogram) = ended.get_mut(record.site as usize)
            {
                histogram.add(age(record.lives));
            }
        };

        for (index, g) in snapshot.goroutines.iter().enumerate() {
            if g.system {
                continue;
            }
            while let Some(gone) = before.next_if(|record| record.goid < g.goid) {
                ended(gone, &mut self.ended);
            }
            let earlier = before.next_if(|record| record.goid == g.goid);
            let (status, reason, stack) = place_of(g);
            let local = (g.gopc, g.startpc, stack, status, reason);
            let (site, at) = match known.get(&local) {
                Some(&found) => found,
                None => {
                    let Some(site) = self.site(g.gopc, g.startpc) else { continue };
                    let stack = match snapshot.stack(g).filter(|_| stack != NO_STACK) {
                        None => NO_STACK,
                        Some(read) => {
                            let id = stack_ids.get(stack as usize).copied().unwrap_or(NO_STACK);
                            if id == NO_STACK { self.stacks.id(read, &mut symbols) } else { id }
                        }
                    };
                    if let Some(slot) = stack_ids.get_mut(local.2 as usize) {
                        *slot = stack;
                    }
                    let place = self.place(PlaceKey { site, status, reason, stack });
                    let at = *gathered_at.entry(place).or_insert_with(|| {
                        let new = Gathered { place, count: 0, stuck: 0, still: Ages::default(), examples: Vec::new() };
                        gathered.push(new);
                        gathered.len() as u32 - 1
                    });
                    if sites.len() <= site as usize {
                        sites.resize(site as usize + 1, SiteGathered::default());
                    }
                    if let Some(site) = sites.get_mut(site as usize)
                        && !site.places.contains(&at)
                    {
                        site.places.push(at);
                    }
                    known.insert(local, (site, at));
                    (site, at)
                }
            };
            let (Some(here), Some(sum)) = (gathered.get_mut(at as usize), sites.get_mut(site as usize)) else {
                continue;
            };
            // What runs has no place to leave: it stands where it runs until it is seen waiting.
            let stuck = earlier.is_some_and(|r| r.place == here.place && (r.runs == g.runs || stack == NO_STACK));
            let waits = g.wait_since.filter(|_| matches!(g.status, Status::Waiting | Status::Syscall)).map(millis);
            let stood = earlier.filter(|_| stuck).map_or(now_ms, |r| r.stands);
            let stands = waits.map_or(stood, |since| since.min(stood)).min(now_ms);
            let lives = earlier.map_or(now_ms, |r| r.lives).min(stands);
            let old = earlier.map_or(first, |r| r.old);
            records.push(Record { goid: g.goid, place: here.place, site, lives, stands, runs: g.runs, old });

            here.count += 1;
            here.stuck += u64::from(stuck);
            here.still.add(age(stands));
            if here.examples.len() < EXAMPLES {
                here.examples.push(index as u32);
            } else if let Some(slot) = here.examples.get_mut(EXAMPLES - NEWEST + here.count as usize % NEWEST) {
                *slot = index as u32;
            }
            sum.live += 1;
            sum.parked += u64::from(g.status == Status::Waiting);
            sum.stack_bytes = sum.stack_bytes.saturating_add(g.stack_size());
            sum.ages.add(age(lives));
            if !old {
                sum.young_ages.add(age(lives));
            }
        }
        before.for_each(|gone| ended(gone, &mut self.ended));
        self.records = records;
        sites.resize(self.sites.len(), SiteGathered::default());
        self.samples(snapshot, sites, gathered)
    }

    fn place(&mut self, key: PlaceKey) -> u32 {
        if let Some(&place) = self.places.get(&key) {
            return place;
        }
        let place = self.place_keys.len() as u32;
        self.place_keys.push(key);
        self.places.insert(key, place);
        place
    }

    fn samples(&mut self, snapshot: &Snapshot, sites: Vec<SiteGathered>, mut gathered: Vec<Gathered>) -> Counted {
        let mut counted = Counted { sites: Vec::with_capacity(sites.len()), examples: Vec::with_capacity(sites.len()) };
        for (id, mut sum) in sites.into_iter().enumerate() {
            sum.places.sort_unstable_by_key(|at| {
                let place = gathered.get(*at as usize);
                std::cmp::Reverse(place.map(|place| (place.stuck, place.count)))
            });
            sum.places.truncate(PLACES);
            let mut examples = Vec::with_capacity(sum.places.len());
            let mut places = Vec::with_capacity(sum.places.len());
            for at in &sum.places {
                let Some(here) = gathered.get_mut(*at as usize) else { continue };
                let Some(key) = self.place_keys.get(here.place as usize) else { continue };
                places.push(self.named(key, here, snapshot));
                examples.push(std::mem::take(&mut here.examples));
            }
            let Some(facts) = self.sites.get(id) else { continue };
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
            counted.examples.push(examples);
        }
        counted
    }

    fn named(&self, key: &PlaceKey, here: &Gathered, snapshot: &Snapshot) -> Place {
        let facts = self.stacks.get(key.stack);
        let reason = match key.status {
            Status::Waiting | Status::Leaked => self.names.reason(key.reason).into_owned(),
            status => crate::output::dump::state_name(status).to_owned(),
        };
        let block = match key.status {
            Status::Waiting | Status::Leaked => {
                of_reason(&reason).or_else(|| facts.and_then(|facts| facts.waits)).unwrap_or(Block::Other)
            }
            Status::Syscall => facts.and_then(|facts| facts.waits).unwrap_or(Block::Syscall),
            _ => Block::Runs,
        };
        let goids = here.examples.iter().take(NAMED).filter_map(|i| Some(snapshot.goroutines.get(*i as usize)?.goid));
        Place {
            block,
            reason: reason.into(),
            stack: facts.map_or_else(|| Arc::from([]), |facts| Arc::clone(&facts.frames)),
            count: here.count,
            stuck: here.stuck,
            never_parked: block == Block::Runs && key.reason == NEVER_PARKED,
            still: here.still.clone(),
            orphans: 0,
            orphans_of: 0,
            waits: WaitFacts::default(),
            examples: goids.collect(),
        }
    }

    /// The creators of a site, the nearest first; each once, however the circle goes on.
    fn creators(&self, facts: &SiteFacts) -> Vec<SiteKey> {
        const MOST: usize = 8;
        let mut found: Vec<SiteKey> = Vec::new();
        let mut next = facts.creator;
        while let Some(facts) = next.and_then(|id| self.sites.get(id as usize)) {
            if found.len() >= MOST || found.contains(&facts.key) {
                break;
            }
            found.push(facts.key.clone());
            next = facts.creator;
        }
        found
    }

    /// What the code of site `id`'s functions says; looked up once, when a place of it is worth it.
    pub(super) fn look_at_code(&mut self, id: u32, sample: &mut SiteSample) {
        let Some(facts) = self.sites.get_mut(id as usize) else { return };
        if facts.deferred.is_none() {
            // The outermost function of a stack is what runs; the start function may be a wrapper that is not shown.
            let stack = sample.places.iter().find_map(|place| place.stack.last());
            let start = stack.map_or(sample.key.start.as_ref(), |frame| frame.function.as_ref());
            facts.deferred = Some(runs_deferred(&self.program.binary, self.bias.pc(facts.gopc)));
            facts.counts_down = Some(counts_down(&self.program.binary, start));
        }
        sample.deferred = facts.deferred.unwrap_or_default();
        sample.counts_down = facts.counts_down.unwrap_or_default();
    }

    /// Whether the call that created `g` is over: its creator has ended, or its stack no longer holds the function with the
    /// `go` statement. `None` where that cannot be told.
    pub(super) fn is_orphan(&mut self, snapshot: &Snapshot, g: &Goroutine, parent: Goid) -> Option<bool> {
        if parent.0 == 0 {
            return None;
        }
        let Ok(at) = snapshot.goroutines.binary_search_by_key(&parent, |g| g.goid) else { return Some(true) };
        let creator = snapshot.goroutines.get(at)?;
        if let (Some(site), Some(of)) = (self.site(g.gopc, g.startpc), self.site(creator.gopc, creator.startpc))
            && let Some(facts) = self.sites.get_mut(site as usize)
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
            if counts.len() <= id as usize {
                counts.resize(id as usize + 1, Default::default());
            }
            if let Some((created, exited, lifetimes)) = counts.get_mut(id as usize) {
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

/// Where a goroutine stands, by numbers of its snapshot.
fn place_of(g: &Goroutine) -> (Status, u8, u32) {
    match g.status {
        Status::Waiting | Status::Leaked | Status::Syscall => {
            let stack = match g.stack {
                StackState::Read(id) => id.index() as u32,
                StackState::Running | StackState::Moved => NO_STACK,
            };
            let reason = if g.status == Status::Syscall { 0 } else { g.wait_reason };
            (g.status, reason, stack)
        }
        // gopark leaves its reason in the g, and the end of a goroutine clears it.
        // https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L4430-L4440
        _ => (Status::Running, if g.wait_reason == 0 { NEVER_PARKED } else { 0 }, NO_STACK),
    }
}

/// Of goroutines that were seen running each time, those that did not park in between either: where parks are events, the
/// table knows.
fn keep_busy(place: &mut Place, table: &GoroutineTable, now: MonotonicNs) {
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

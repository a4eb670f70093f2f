//! Samples out of a recording: the table as it was, every so often.
//!
//! In: the items of a recording, replayed. Out: [`Sample`]s. What only a live process can tell (the objects that goroutines
//! wait for) is not there; since when each one waits is known better, for each park is an event.

use std::sync::Arc;

use hashbrown::HashMap;

use super::stacks::of_reason;
use super::tally::{One, Tally};
use crate::analysis::{Block, FrameName, MemorySample, Sample, SiteKey};
use crate::go_runtime::Owner;
use crate::goroutines::{SiteId, State as GoroutineState};
use crate::output::Names;
use crate::recording::replay::{State, Visitor};
use crate::recording::{Item, Reading, StackNumber};
use crate::units::{Goid, MonotonicNs};

/// Between two samples, in nanoseconds: a sixtieth of the recording at least.
const BETWEEN: u64 = 500_000_000;
/// Parks from which on a goroutine is woken again and again.
const WAKES: u64 = 4;

/// Makes samples on the way, and hands them to `take`.
pub struct Sampler<F> {
    take: F,
    next: MonotonicNs,
    between: u64,
    taken: u64,
    /// Where goroutines stood at the last reading, and when that was.
    stacks: HashMap<Goid, StackNumber>,
    sizes: HashMap<Goid, u64>,
    read: MonotonicNs,
    named: HashMap<StackNumber, Arc<[FrameName]>>,
}

impl<F: FnMut(Sample)> Sampler<F> {
    /// Begins.
    pub fn new(take: F) -> Self {
        Self {
            take,
            next: MonotonicNs(0),
            between: BETWEEN,
            taken: 0,
            stacks: HashMap::new(),
            sizes: HashMap::new(),
            read: MonotonicNs(0),
            named: HashMap::new(),
        }
    }

    /// Takes the last sample, of the recording's end.
    pub fn finish(&mut self, state: &mut State) {
        self.sample(state);
    }

    fn stack(&mut self, goid: Goid, since: MonotonicNs, state: &State) -> Arc<[FrameName]> {
        // It has moved since it was read.
        let number = self.stacks.get(&goid).filter(|_| since <= self.read).copied();
        let Some(number) = number else { return Arc::from([]) };
        let named = self.named.entry(number).or_insert_with(|| {
            let frames = state.names.stack(number).unwrap_or_else(|| Arc::from([]));
            let frame = |f: &crate::recording::Frame| FrameName {
                function: Arc::clone(&f.function),
                file: Arc::clone(&f.file),
                line: f.line,
            };
            frames.iter().map(frame).collect()
        });
        Arc::clone(named)
    }

    fn sample(&mut self, state: &mut State) {
        let now = state.newest;
        let generation = state.table.generation();
        let mut keys: HashMap<SiteId, Option<SiteKey>> = HashMap::new();
        let mut tally = Tally::default();
        let goroutines: Vec<_> = state.table.iter().collect();
        for g in goroutines {
            let key = keys.entry(g.site).or_insert_with(|| key(state, g.site, generation));
            let Some(key) = key.as_ref() else { continue };
            let stack = self.stack(g.goid, g.since, state);
            let (block, reason): (Block, Arc<str>) = match g.state {
                GoroutineState::Blocked { reason } => {
                    let name = state.names.last().reason(reason).into_owned();
                    let of_stack = || super::stacks::waits_of(stack.iter().map(|frame| frame.function.as_ref()));
                    (of_reason(&name).or_else(of_stack).unwrap_or(Block::Other), name.into())
                }
                GoroutineState::Running => (Block::Runs, "running".into()),
                GoroutineState::Runnable => (Block::Runs, "runnable".into()),
            };
            // A ticker's receiver parks at each tick, and never for much longer than one period.
            let lived = now.since(g.created);
            let period = lived.checked_div(g.parks).filter(|_| g.parks >= WAKES && !g.first_seen);
            let steady = period.filter(|period| g.longest_block_ns < period.saturating_mul(3) && *period >= 1_000_000);
            let parent = state.table.get(g.parent);
            tally.add(One {
                goid: g.goid,
                key,
                block,
                reason,
                stack,
                lives_ns: lived,
                stands_ns: Some(now.since(g.since)),
                young: !g.first_seen,
                stack_bytes: self.sizes.get(&g.goid).copied().unwrap_or_default(),
                orphan: (g.parent.0 != 0).then_some(parent.is_none()),
                channels: Vec::new(),
                period_ns: steady.filter(|_| matches!(block, Block::Receive | Block::Select)),
            });
        }
        let mut sites = tally.finish();
        let mut by_key: HashMap<SiteKey, usize> =
            sites.iter().enumerate().map(|(at, site)| (site.key.clone(), at)).collect();
        let counted: Vec<_> = state.table.sites().to_vec();
        for (id, site) in counted.into_iter().enumerate() {
            if site.generation != generation || site.created + site.exited == 0 {
                continue;
            }
            let Some(key) = key(state, SiteId(id as u32), generation) else { continue };
            let at = *by_key.entry(key.clone()).or_insert_with(|| {
                sites.push(crate::analysis::SiteSample::empty(key));
                sites.len() - 1
            });
            if let Some(sample) = sites.get_mut(at) {
                sample.created = Some(sample.created.unwrap_or_default() + site.created);
                sample.exited = Some(sample.exited.unwrap_or_default() + site.exited + site.ended_unseen);
                sample.lifetimes.get_or_insert_default().merge(&site.lifetimes);
            }
        }
        let lost = state.table.totals().lost;
        (self.take)(Sample { time: now, sites, whole: true, memory: MemorySample::default(), lost });
        self.taken += 1;
        // However long the recording is, a few hundred samples tell it.
        if self.taken.is_multiple_of(120) {
            self.between = self.between.saturating_mul(2);
        }
        self.next = MonotonicNs(now.0.saturating_add(self.between));
    }
}

/// The site by name; `None` for the runtime's own and the unknown one.
fn key(state: &mut State, id: SiteId, generation: u32) -> Option<SiteKey> {
    let (gopc, startpc) = state.table.site_addresses(id).filter(|addresses| addresses.1.0 != 0)?;
    let names = state.names.of_generation(generation)?;
    let start = names.function(startpc);
    if Owner::of(&start).is_system() {
        return None;
    }
    if start.as_ref() == "runtime.main" {
        return Some(SiteKey { function: "".into(), file: "".into(), line: 0, start });
    }
    let go = names.site(gopc);
    Some(SiteKey { function: go.function, file: go.file, line: go.line, start })
}

impl<F: FnMut(Sample)> Visitor for Sampler<F> {
    fn reading(&mut self, reading: &Reading, _: &mut State) {
        self.read = reading.taken_from;
        self.stacks = reading.goroutines.iter().filter_map(|g| Some((g.goroutine.goid, g.stack?))).collect();
        self.sizes = reading.goroutines.iter().map(|g| (g.goroutine.goid, g.stack_bytes)).collect();
    }

    fn item(&mut self, item: &Item, state: &mut State) {
        if let Item::Events(events) = item
            && let Some(last) = events.last()
        {
            state.newest = state.newest.max(last.time());
        }
        if state.newest >= self.next && matches!(item, Item::Events(_) | Item::Reading(_)) {
            self.sample(state);
        }
    }
}

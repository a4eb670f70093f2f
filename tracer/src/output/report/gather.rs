//! Reading a recording once, and keeping what is to be told.

use hashbrown::HashMap;

use super::timeline::SiteLine;
use super::{
    BlockRow, Call, DamageLine, DetailLine, Lifetimes, ProgramLine, ReasonRow, Report, SiteRow, Totals, WaitRow, Worth,
};
use super::{creators, timeline};
use crate::events::{Event, Transition};
use crate::go_runtime::Owner;
use crate::goroutines::{self, Ended, Goroutine, Log2Histogram, SiteId};
use crate::output::{Names, SiteName};
use crate::recording::replay::{State, Visitor, play};
use crate::recording::waits::{Known, Place, Waits};
use crate::recording::{Item, ReadError, Reading, Source};
use crate::units::Goid;
use std::sync::Arc;

/// Rows of what may be many.
const WAITS: usize = 200;
const LONGEST: usize = 25;
/// Sites with a line of their own in the timeline.
const LINES: usize = 8;
/// Births before the first reading whose creator is looked for in it.
const EARLY: usize = 1 << 16;
/// Changes of detail that are told.
const DETAILS: usize = 100;

#[derive(Default)]
struct Gather {
    timeline: timeline::Gatherer,
    creators: creators::Gatherer,
    waits: Waits,
    lifetimes: Log2Histogram,
    readings: u64,
    details: Vec<DetailLine>,
    generation: u32,
    /// Goroutines whose creator is older than the recording, and who that is: the first reading will know its site.
    early: Vec<(Goid, Goid, SiteId)>,
}

impl Visitor for Gather {
    fn event(&mut self, event: &Event, before: Option<&Goroutine>, state: &mut State) {
        self.generation = state.table.generation();
        self.waits.event(event, before, state);
    }

    fn changed(&mut self, event: &Event, state: &mut State) {
        let at = event.time().since(state.started);
        let bucket = self.timeline.bucket(at);
        match *event {
            Event::Goroutine { goid, transition, .. } => match transition {
                Transition::Created { parent, .. } => {
                    bucket.created += 1;
                    // Its creator runs the `go` statement, so it lives.
                    let by = state.table.get(parent).map_or(SiteId::UNKNOWN, |parent| parent.site);
                    if let Some(goroutine) = state.table.get(goid) {
                        if by == SiteId::UNKNOWN && self.readings == 0 && self.early.len() < EARLY {
                            self.early.push((goid, parent, goroutine.site));
                        }
                        self.creators.created(goid, by, goroutine.site);
                        self.timeline.change(at, goroutine.site, 1);
                    }
                }
                Transition::Blocked { .. } => bucket.blocked += 1,
                Transition::Running => bucket.running += 1,
                Transition::Exited => bucket.exited += 1,
            },
            Event::Lost { count, .. } => bucket.lost = bucket.lost.saturating_add(count),
            Event::Exec { .. } => {}
        }
        self.timeline.live(at, state.table.live());
    }

    fn ended(&mut self, ended: &Ended, state: &mut State) {
        let goroutine = &ended.goroutine;
        self.waits.ended(ended, self.generation);
        if self.creators.knows(goroutine.goid) {
            self.timeline.change(ended.time.since(state.started), goroutine.site, -1);
        }
        self.creators.ended(goroutine.goid, goroutine.site);
        if let Some(ns) = ended.lifetime_ns() {
            self.lifetimes.add(ns);
        }
    }

    fn reading(&mut self, reading: &Reading, state: &mut State) {
        self.generation = state.table.generation();
        self.readings += 1;
        self.waits.reading(reading, state);
        let at = reading.taken_to.since(state.started);
        for (goid, parent, site) in std::mem::take(&mut self.early) {
            if let Some(parent) = state.table.get(parent) {
                self.creators.turns_out(goid, site, parent.site);
            }
        }
        // Those that the recording found there.
        let from = if self.readings == 1 { 0 } else { at };
        for parked in &reading.goroutines {
            let goid = parked.goroutine.goid;
            if self.creators.knows(goid) {
                continue;
            }
            let Some(goroutine) = state.table.get(goid) else { continue };
            let by = state.table.get(goroutine.parent).map_or(SiteId::UNKNOWN, |parent| parent.site);
            self.creators.created(goid, by, goroutine.site);
            self.timeline.change(from, goroutine.site, 1);
        }
        self.timeline.live(at, state.table.live());
    }

    fn item(&mut self, item: &Item, state: &mut State) {
        if let Item::Detail { time, level } = item
            && self.details.len() < DETAILS
        {
            self.details.push(DetailLine { at_ns: time.since(state.started), level: level.clone() });
        }
    }
}

pub(super) fn report(source: &mut impl Source) -> Result<Report, ReadError> {
    let mut gather = Gather::default();
    let mut state = play(source, &mut gather)?;
    let Gather { mut timeline, creators, waits, lifetimes, readings, details, .. } = gather;
    let duration_ns = state.newest.since(state.started);
    timeline.at(duration_ns);
    let mut sums = waits.finish(&state);
    let mut waiting: HashMap<u8, u64> = HashMap::new();
    for (place, waited) in &sums.places {
        *waiting.entry(place.reason).or_default() += waited.waiting;
    }
    let rows = sites(&mut state);
    // The runtime's own waits are nobody's trouble.
    sums.places.sort_by_key(|(place, _)| is_system(place.site, &rows));
    let totals = state.table.totals();
    let system = rows.iter().filter(|(_, row)| row.system).map(|(_, row)| row.live).sum();
    let mut reasons: Vec<ReasonRow> = state
        .table
        .reasons()
        .map(|(reason, stats)| ReasonRow {
            reason: state.names.last().reason(reason).into_owned(),
            blocks: stats.parks,
            // With what goes on at the end, and without what was before the recording.
            blocked_ns: sums.places.iter().filter(|(at, _)| at.reason == reason).map(|(_, waited)| waited.ns).sum(),
            median_ns: stats.blocks.quantile_below_ns(0.5),
            p99_ns: stats.blocks.quantile_below_ns(0.99),
            waiting: waiting.get(&reason).copied().unwrap_or(0),
        })
        .collect();
    reasons.sort_by_key(|row| std::cmp::Reverse((row.blocked_ns, row.blocks)));
    let more_waits = sums.places.len().saturating_sub(WAITS);
    let waits = sums.places.iter().take(WAITS).map(|(place, waited)| {
        let Told { reason, known, stack, site, start } = tell(place, &mut state);
        let (blocks, blocked_ns, waiting) = (waited.blocks, waited.ns, waited.waiting);
        WaitRow { reason, known, stack, site, start, blocks, blocked_ns, waiting }
    });
    let waits = waits.collect();
    let longest = sums.longest.iter().filter(|block| !is_system(block.place.site, &rows)).take(LONGEST);
    let longest: Vec<_> = longest.copied().collect();
    let longest = longest.into_iter().map(|block| {
        let Told { reason, known, stack, site, start } = tell(&block.place, &mut state);
        let at_ns = block.from.since(state.started);
        BlockRow { goid: block.goid, reason, at_ns, ns: block.ns, goes_on: block.goes_on, known, stack, site, start }
    });
    let longest = longest.collect();
    let lines = lines(&timeline, &rows);
    let creators = creators.finish(|site| name(site, &mut state));
    Ok(Report {
        recording: source.header().clone(),
        programs: state.names.programs().map(ProgramLine::of).collect(),
        end: state.end.clone(),
        damages: state.damages.iter().map(DamageLine::of).collect(),
        totals: Totals {
            duration_ns,
            events: state.events,
            created: totals.created,
            exited: totals.exited,
            blocked: totals.blocked,
            running: totals.running,
            first_seen: totals.first_seen,
            ended_unseen: totals.ended_unseen,
            live: state.table.live().total() - system,
            system,
            lost: totals.lost,
            late: state.late,
            readings,
        },
        quality: Worth::of(
            [source.header().detail.as_str()].into_iter().chain(details.iter().map(|d| d.level.as_str())),
        ),
        details,
        sites: rows.into_iter().map(|(_, row)| row).collect(),
        reasons,
        waits,
        more_waits,
        longest,
        lifetimes: Lifetimes::of(&lifetimes),
        timeline: timeline.finish(lines),
        creators,
    })
}

fn is_system(site: SiteId, rows: &[(SiteId, SiteRow)]) -> bool {
    rows.iter().any(|(id, row)| *id == site && row.system)
}

/// What a site is called.
fn name(site: SiteId, state: &mut State) -> (SiteName, Arc<str>) {
    let found = state.table.site(site).filter(|_| site != SiteId::UNKNOWN);
    let found = found.map(|site| (site.generation, site.gopc, site.startpc));
    match found.and_then(|(generation, gopc, startpc)| Some((state.names.of_generation(generation)?, gopc, startpc))) {
        Some((names, gopc, startpc)) => (names.site(gopc), names.function(startpc)),
        None => {
            let unknown = SiteName { function: "(unknown)".into(), file: "".into(), line: 0 };
            (unknown, "(creation not seen)".into())
        }
    }
}

fn sites(state: &mut State) -> Vec<(SiteId, SiteRow)> {
    let sites = (0..).map(SiteId).zip(state.table.sites().to_vec());
    let sites = sites.filter(|(_, site)| site.created + site.first_seen > 0);
    // What goes on at the end counts, as it does in all other times blocked.
    let mut going_on: HashMap<SiteId, u64> = HashMap::new();
    for goroutine in state.table.iter() {
        if matches!(goroutine.state, goroutines::State::Blocked { .. }) {
            *going_on.entry(goroutine.site).or_default() += state.newest.since(goroutine.since.max(state.started));
        }
    }
    let mut rows: Vec<(SiteId, SiteRow)> = sites
        .map(|(id, counts)| {
            let (site, start) = name(id, state);
            let row = SiteRow {
                site,
                system: Owner::of(&start).is_system(),
                start,
                created: counts.created,
                first_seen: counts.first_seen,
                exited: counts.exited,
                live: counts.live.total(),
                blocked: counts.blocked_events,
                blocked_ns: counts.blocked_ns.saturating_add(going_on.get(&id).copied().unwrap_or(0)),
                median_life_ns: counts.lifetimes.quantile_below_ns(0.5),
            };
            (id, row)
        })
        .collect();
    rows.sort_by_key(|(_, row)| (row.system, std::cmp::Reverse((row.live, row.created, row.blocked))));
    rows
}

/// The sites that ever had the most.
fn lines(timeline: &timeline::Gatherer, rows: &[(SiteId, SiteRow)]) -> Vec<SiteLine> {
    let mut peaks: Vec<(i64, SiteId, &SiteRow)> =
        rows.iter().filter(|(_, row)| !row.system).map(|(id, row)| (timeline.peak(*id), *id, row)).collect();
    peaks.sort_by_key(|(peak, id, _)| (std::cmp::Reverse(*peak), *id));
    let line = |&(_, id, row): &(i64, SiteId, &SiteRow)| SiteLine {
        site: row.site.clone(),
        start: Arc::clone(&row.start),
        live: timeline.site(id),
    };
    peaks.iter().take(LINES).map(line).collect()
}

struct Told {
    reason: String,
    known: &'static str,
    stack: Vec<Call>,
    site: SiteName,
    start: Arc<str>,
}

fn tell(place: &Place, state: &mut State) -> Told {
    let names = state.names.of_generation(place.generation);
    let reason =
        names.map_or_else(|| format!("wait reason {}", place.reason), |names| names.reason(place.reason).into_owned());
    let known = match place.known {
        Known::Seen => "seen",
        Known::SameGoroutine => "same_goroutine",
        Known::No => "no",
    };
    let frames = place.stack.and_then(|stack| state.names.stack(stack));
    let stack = frames.iter().flat_map(|frames| frames.iter()).map(Call::of).collect();
    let (site, start) = name(place.site, state);
    Told { reason, known, stack, site, start }
}

//! The rows of the table of groups: by creation site, start function, wait reason or state.
//!
//! In: the sites, the census, and what is asked for. Out: rows, filtered and sorted. Their number is that of sites, not of
//! goroutines.

use std::cmp::Ordering;
use std::sync::Arc;

use hashbrown::HashMap;

use super::StateKind;
use super::census::{Census, Since};
use super::columns::Column;
use super::history::History;
use super::reading::Reading;
use super::reasons::Reasons;
use super::sites::{KnownSite, Sites};
use crate::goroutines::{LiveByState, SiteId};

/// What rows are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The `go` statement and what it starts.
    Site,
    /// The function that runs, wherever it was started.
    Start,
    /// What is waited for.
    Reason,
    /// Runnable, running, blocked.
    State,
}

impl GroupBy {
    /// All of them, in the order of the menu.
    pub const ALL: [Self; 4] = [Self::Site, Self::Start, Self::Reason, Self::State];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Site => "creation site",
            Self::Start => "start function",
            Self::Reason => "wait reason",
            Self::State => "state",
        }
    }
}

/// What one row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowKey {
    /// A `go` statement with its start function.
    Site(SiteId),
    /// A start function.
    Start(Arc<str>),
    /// A wait reason by its number.
    Reason(u8),
    /// A state.
    State(StateKind),
}

/// One row. `None`: it makes no sense there, or is not known (yet).
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub key: RowKey,
    pub live: LiveByState,
    pub net: Option<f64>,
    pub born: Option<f64>,
    pub died: Option<f64>,
    pub parks: Option<f64>,
    pub oldest: Option<Since>,
    pub waits: Option<u8>,
    pub stack_bytes: Option<u64>,
    pub system: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub group_by: GroupBy,
    pub sort: Column,
    /// Largest first.
    pub descending: bool,
    /// Words that a row's names must all contain, in whatever case.
    pub filter: String,
    /// The runtime's own goroutines too.
    pub system: bool,
}

/// What rows are made from.
pub(super) struct Material<'a> {
    pub sites: &'a Sites,
    pub census: &'a Census,
    pub reading: Option<&'a Reading>,
    pub reasons: &'a Reasons,
}

/// The rows that `query` asks for.
pub(super) fn rows(material: &Material<'_>, query: &Query) -> Vec<Row> {
    let mut rows = match query.group_by {
        GroupBy::Site => by_site(material, query),
        GroupBy::Start => by_start(material, query),
        GroupBy::Reason => by_reason(material),
        GroupBy::State => by_state(material, query),
    };
    let words: Vec<String> = query.filter.to_lowercase().split_whitespace().map(str::to_owned).collect();
    if !words.is_empty() {
        rows.retain(|row| {
            let text = text_of(material, &row.key);
            words.iter().all(|word| text.contains(word.as_str()))
        });
    }
    rows.sort_by(|a, b| {
        let order = compare(material, query.sort, a, b);
        if query.descending { order.reverse() } else { order }.then_with(|| by_name(material, a, b))
    });
    rows
}

/// What a filter looks at.
fn text_of<'a>(material: &'a Material<'_>, key: &'a RowKey) -> std::borrow::Cow<'a, str> {
    match key {
        RowKey::Site(id) => material.sites.get(*id).map_or("", |site| site.text.as_str()).into(),
        RowKey::Start(name) => name.to_lowercase().into(),
        RowKey::Reason(reason) => material.reasons.name(*reason).to_lowercase().into(),
        RowKey::State(state) => state.name().into(),
    }
}

fn site_row(material: &Material<'_>, id: SiteId, site: &KnownSite) -> Row {
    let census = material.census.site(id);
    Row {
        key: RowKey::Site(id),
        live: site.live,
        net: material.sites.growth(site),
        born: site.rates.map(|rates| rates.born),
        died: site.rates.map(|rates| rates.died),
        parks: site.rates.map(|rates| rates.parks),
        oldest: census.oldest.filter(|_| site.live.total() > 0),
        waits: census.waits.filter(|_| site.live.blocked > 0).map(|(reason, _)| reason),
        stack_bytes: material.reading.and_then(|reading| reading.stack_bytes(site.addresses)),
        system: site.system,
    }
}

fn by_site(material: &Material<'_>, query: &Query) -> Vec<Row> {
    let wanted = material.sites.shown().filter(|(_, site)| query.system || !site.system);
    wanted.map(|(id, site)| site_row(material, id, site)).collect()
}

fn by_start(material: &Material<'_>, query: &Query) -> Vec<Row> {
    let mut found: HashMap<Arc<str>, (Row, u64)> = HashMap::new();
    let add = |a: &mut Option<f64>, b: Option<f64>| *a = a.zip(b).map(|(a, b)| a + b).or(*a).or(b);
    for (id, site) in material.sites.shown().filter(|(_, site)| query.system || !site.system) {
        let row = site_row(material, id, site);
        let largest = material.census.site(id).waits.map_or(0, |(_, count)| count);
        match found.entry(Arc::clone(&site.start)) {
            hashbrown::hash_map::Entry::Vacant(place) => {
                place.insert((Row { key: RowKey::Start(Arc::clone(&site.start)), ..row }, largest));
            }
            hashbrown::hash_map::Entry::Occupied(mut place) => {
                let (sum, most) = place.get_mut();
                sum.live.runnable += row.live.runnable;
                sum.live.running += row.live.running;
                sum.live.blocked += row.live.blocked;
                add(&mut sum.net, row.net);
                add(&mut sum.born, row.born);
                add(&mut sum.died, row.died);
                add(&mut sum.parks, row.parks);
                sum.stack_bytes = sum.stack_bytes.zip(row.stack_bytes).map(|(a, b)| a + b).or(row.stack_bytes);
                if let Some(oldest) = row.oldest {
                    Since::earlier(&mut sum.oldest, oldest);
                }
                if largest > *most {
                    (sum.waits, *most) = (row.waits, largest);
                }
            }
        }
    }
    found.into_values().map(|(row, _)| row).collect()
}

fn by_reason(material: &Material<'_>) -> Vec<Row> {
    let rows = material.reasons.seen().map(|(reason, parks)| {
        let census = material.census.reason(reason);
        Row {
            key: RowKey::Reason(reason),
            live: LiveByState { blocked: census.count, ..LiveByState::default() },
            net: None,
            born: None,
            died: None,
            parks,
            oldest: census.longest,
            waits: None,
            stack_bytes: None,
            system: false,
        }
    });
    rows.collect()
}

fn by_state(material: &Material<'_>, query: &Query) -> Vec<Row> {
    let mut live = LiveByState::default();
    for (_, site) in material.sites.shown().filter(|(_, site)| query.system || !site.system) {
        live.runnable += site.live.runnable;
        live.running += site.live.running;
        live.blocked += site.live.blocked;
    }
    let only = |state: StateKind| match state {
        StateKind::Runnable => LiveByState { runnable: live.runnable, ..LiveByState::default() },
        StateKind::Running => LiveByState { running: live.running, ..LiveByState::default() },
        StateKind::Blocked => LiveByState { blocked: live.blocked, ..LiveByState::default() },
    };
    let rows = StateKind::ALL.map(|state| Row {
        key: RowKey::State(state),
        live: only(state),
        net: None,
        born: None,
        died: None,
        parks: None,
        oldest: material.census.state(state).longest,
        waits: None,
        stack_bytes: None,
        system: false,
    });
    rows.into()
}

/// The smaller first; what is not known is smallest.
fn compare(material: &Material<'_>, column: Column, a: &Row, b: &Row) -> Ordering {
    let floats =
        |of: fn(&Row) -> Option<f64>| of(a).unwrap_or(f64::NEG_INFINITY).total_cmp(&of(b).unwrap_or(f64::NEG_INFINITY));
    match column {
        Column::Live => a.live.total().cmp(&b.live.total()),
        Column::Blocked => a.live.blocked.cmp(&b.live.blocked),
        Column::Running => (a.live.running + a.live.runnable).cmp(&(b.live.running + b.live.runnable)),
        Column::Net => floats(|row| row.net),
        Column::Born => floats(|row| row.born),
        Column::Died => floats(|row| row.died),
        Column::Parks => floats(|row| row.parks),
        Column::Stack => a.stack_bytes.cmp(&b.stack_bytes),
        // The oldest began first.
        Column::Oldest => match (a.oldest, b.oldest) {
            (Some(a), Some(b)) => b.time.cmp(&a.time),
            (a, b) => a.is_some().cmp(&b.is_some()),
        },
        Column::Waits => {
            let name = |row: &Row| row.waits.map(|reason| material.reasons.name(reason));
            name(a).cmp(&name(b))
        }
        Column::Runs => {
            let start = |row: &Row| match &row.key {
                RowKey::Site(id) => material.sites.get(*id).map(|site| Arc::clone(&site.start)),
                RowKey::Start(name) => Some(Arc::clone(name)),
                RowKey::Reason(_) | RowKey::State(_) => None,
            };
            start(a).cmp(&start(b))
        }
        Column::Name => by_name(material, a, b),
        _ => Ordering::Equal,
    }
}

/// The order of those that are otherwise equal: one that stays.
fn by_name(material: &Material<'_>, a: &Row, b: &Row) -> Ordering {
    match (&a.key, &b.key) {
        (RowKey::Site(a), RowKey::Site(b)) => {
            let name = |id: &SiteId| material.sites.get(*id).map(|s| (&s.name.function, &s.name.file, s.name.line));
            name(a).cmp(&name(b)).then(a.cmp(b))
        }
        (RowKey::Start(a), RowKey::Start(b)) => a.cmp(b),
        (RowKey::Reason(a), RowKey::Reason(b)) => material.reasons.name(*a).cmp(&material.reasons.name(*b)),
        (RowKey::State(a), RowKey::State(b)) => (*a as u8).cmp(&(*b as u8)),
        _ => Ordering::Equal,
    }
}

/// The recent course of a row's live goroutines, where there is one.
pub(super) fn past<'a>(sites: &'a Sites, key: &RowKey) -> Option<&'a History> {
    match key {
        RowKey::Site(id) => sites.get(*id).map(|site| &site.past),
        RowKey::Start(_) | RowKey::Reason(_) | RowKey::State(_) => None,
    }
}

//! What is shown and what is selected: the model of the picture, without any picture.
//!
//! In: figures of a tick ([`State::observe`]), events, readings, a diagnosis, and what somebody wants ([`Action`]). Out:
//! what the views draw. Pure: no clock, no terminal, no process; the same inputs give the same picture.

mod acting;
mod filling;

use std::sync::Arc;
use std::time::Duration;

use super::census::Census;
use super::columns::Column;
use super::cursor::Cursor;
use super::history::{History, LENGTH};
use super::layout::{self, Parts};
use super::members::{MemberQuery, Members};
use super::proofs::Proofs;
use super::reading::{Reading, Stack};
use super::reasons::Reasons;
use super::rows::{GroupBy, Query, Row, RowKey};
use super::sites::{Rates, Sites};
use super::timeline::Watched;
use crate::analysis::{Finding, Forecast, MemoryTrend, Verdict};
use crate::events::Event;
use crate::goroutines::{Goroutine, GoroutineTable, LiveByState, SiteId, Totals};
use crate::governor::Level;
use crate::output::Names;
use crate::units::{Goid, MonotonicNs, Pid};

pub use acting::Effect;

/// The three panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// The table of groups, and what is inside of one.
    Goroutines,
    /// What is suspected.
    Findings,
    /// Memory, collector, forecast.
    Memory,
}

impl Pane {
    /// In the order of their tabs.
    pub const ALL: [Self; 3] = [Self::Goroutines, Self::Findings, Self::Memory];
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Groups,
    Members,
    Goroutine,
    /// So many.
    Findings(u16),
    Memory,
}

/// What is known of the process from the beginning.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its id.
    pub pid: Pid,
    /// Its executable's name.
    pub name: String,
    /// The Go version that built it.
    pub go_version: String,
    /// When it started, on the monotonic clock, if that is known.
    pub started: Option<MonotonicNs>,
}

/// What the analysis says.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// What is suspected, the worst first.
    pub findings: Vec<Finding>,
    /// How memory moves.
    pub memory: MemoryTrend,
    /// When it ends.
    pub forecast: Option<Forecast>,
    /// Whether enough was seen; `None` before the first look.
    pub verdict: Option<Verdict>,
}

/// How much is told, and what that costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Price {
    /// The level of detail.
    pub level: Option<Level>,
    /// The share of the process's CPU time that the probes take.
    pub target: Option<f64>,
    /// The share of one processor that gotracer itself takes.
    pub own: Option<f64>,
}

/// The choices of a menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Menu {
    Group,
    Sort,
}

/// What lies over the panes and takes the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    Help {
        scroll: usize,
    },
    Menu(Menu, usize),
    /// The filter is being typed.
    Input,
}

/// The two halves of the view of one goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Stack,
    Timeline,
}

/// The goroutines of one row, opened.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub query: MemberQuery,
    pub members: Members,
    pub cursor: Cursor,
    /// Whom the cursor follows; `None`: it stays where it is.
    pub selected: Option<Goid>,
    /// Those on the screen.
    pub window: Vec<(Goid, Option<Goroutine>)>,
}

/// One goroutine, opened.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub watched: Watched,
    pub half: Half,
    pub stack_scroll: usize,
    pub timeline_scroll: usize,
}

/// The course of some figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    pub live: History,
    pub blocked: History,
    pub running: History,
    pub runnable: History,
    pub born: History,
    pub died: History,
    pub parks: History,
    pub rss: History,
    pub heap: History,
    pub stacks: History,
}

/// The rectangles that a mouse can hit, with what they stand for.
pub type Hits = Vec<(ratatui::layout::Rect, Hit)>;

/// What a click hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The row of this number, in what fills the body.
    Row(usize),
    /// A key's name in the footer, a tab, the title of a column.
    Do(super::keys::Action),
    /// The entry of this number in a menu.
    Entry(usize),
    /// One of the two halves of a goroutine's view: the upper or left one if `true`.
    Half(bool),
    /// What covers the rest: a click there is a click on nothing.
    Cover,
}

/// The model.
#[derive(Debug)]
pub struct State {
    pub(super) facts: Facts,
    pub(super) size: (u16, u16),
    pub(super) interval: Duration,
    pub(super) now: MonotonicNs,
    /// How often it was observed.
    pub(super) ticks: u64,
    pub(super) live: LiveByState,
    pub(super) system: LiveByState,
    pub(super) totals: Totals,
    pub(super) rates: Option<Rates>,
    pub(super) uncertain: bool,
    pub(super) course: Course,
    pub(super) sites: Sites,
    pub(super) census: Census,
    pub(super) reasons: Reasons,
    pub(super) reading: Option<Reading>,
    pub(super) diagnosis: Diagnosis,
    pub(super) proofs: Proofs,
    pub(super) price: Price,
    pub(super) pane: Pane,
    pub(super) query: Query,
    pub(super) rows: Vec<Row>,
    pub(super) groups: Cursor,
    /// The row that the cursor follows; `None`: it stays where it is.
    pub(super) selected: Option<RowKey>,
    pub(super) inside: Option<Inside>,
    pub(super) opened: Option<Opened>,
    pub(super) finding: Cursor,
    pub(super) finding_scroll: usize,
    pub(super) overlay: Option<Overlay>,
    pub(super) full_paths: bool,
    pub(super) paused: bool,
    /// Why there will be nothing new.
    pub(super) ended: Option<String>,
    pub(super) notice: Option<String>,
    pub(super) hits: Hits,
    open: Option<Goid>,
    stale_rows: bool,
    stale_members: bool,
}

impl State {
    /// Before the first look, on a screen of `size`.
    #[must_use]
    pub fn new(facts: Facts, size: (u16, u16), interval: Duration) -> Self {
        Self {
            facts,
            size,
            interval,
            now: MonotonicNs(0),
            ticks: 0,
            live: LiveByState::default(),
            system: LiveByState::default(),
            totals: Totals::default(),
            rates: None,
            uncertain: false,
            course: Course::default(),
            sites: Sites::default(),
            census: Census::default(),
            reasons: Reasons::default(),
            reading: None,
            diagnosis: Diagnosis::default(),
            proofs: Proofs::default(),
            price: Price::default(),
            pane: Pane::Goroutines,
            query: Query {
                group_by: GroupBy::Site,
                sort: Column::Live,
                descending: true,
                filter: String::new(),
                system: false,
            },
            rows: Vec::new(),
            groups: Cursor::default(),
            selected: None,
            inside: None,
            opened: None,
            finding: Cursor::default(),
            finding_scroll: 0,
            overlay: None,
            full_paths: false,
            paused: false,
            ended: None,
            notice: None,
            hits: Hits::new(),
            open: None,
            stale_rows: true,
            stale_members: true,
        }
    }

    /// Groups, sorts and filters from the beginning as asked for on a command line.
    pub fn arrange(&mut self, group_by: GroupBy, sort: Option<Column>, filter: Option<&str>) {
        self.query.group_by = group_by;
        self.query.sort = sort.unwrap_or(self.query.sort);
        self.query.filter = filter.unwrap_or_default().to_owned();
        self.stale_rows = true;
    }

    /// One look: the figures of the moment `at`. `names` are those of each generation of the table. Nothing changes while
    /// it is paused.
    pub fn observe<N: Names>(&mut self, at: MonotonicNs, table: &GoroutineTable, names: &mut [N]) {
        if self.paused {
            return;
        }
        let totals = table.totals();
        let seconds = (self.ticks > 0).then(|| at.since(self.now) as f64 / 1e9).filter(|seconds| *seconds > 0.0);
        let rate = |now: u64, was: u64, seconds: f64| now.saturating_sub(was) as f64 / seconds;
        self.rates = seconds.map(|seconds| Rates {
            born: rate(totals.created, self.totals.created, seconds),
            died: rate(totals.exited + totals.ended_unseen, self.totals.exited + self.totals.ended_unseen, seconds),
            parks: rate(totals.blocked, self.totals.blocked, seconds),
        });
        self.totals = totals;
        self.now = at;
        self.ticks += 1;
        self.uncertain = table.uncertain_since().is_some();
        self.sites.observe(at, table, names);
        self.reasons.observe(at, table, names);
        let all = table.live();
        if self.census.is_due(all.total()) {
            let sites = &self.sites;
            let system = self.query.system;
            self.census = Census::take(table, |id| system || !sites.is_system(id));
            for reason in (0..=u8::MAX).filter(|reason| self.census.reason(*reason).count > 0) {
                self.reasons.mark(reason);
            }
        }
        self.system = self.sites.system_live();
        self.live = LiveByState {
            runnable: all.runnable.saturating_sub(self.system.runnable),
            running: all.running.saturating_sub(self.system.running),
            blocked: all.blocked.saturating_sub(self.system.blocked),
        };
        let course = &mut self.course;
        course.live.push(self.live.total(), LENGTH);
        course.blocked.push(self.live.blocked, LENGTH);
        course.running.push(self.live.running, LENGTH);
        course.runnable.push(self.live.runnable, LENGTH);
        if let Some(rates) = self.rates {
            course.born.push(rates.born.round() as u64, LENGTH);
            course.died.push(rates.died.round() as u64, LENGTH);
            course.parks.push(rates.parks.round() as u64, LENGTH);
        }
        self.stale_rows = true;
        self.stale_members = true;
    }

    /// Takes in events, for the timeline of the goroutine that is open.
    pub fn take_in(&mut self, events: &[Event]) {
        if let Some(opened) = &mut self.opened {
            opened.watched.take_in(events);
        }
    }

    /// Takes what was read of the stacks.
    pub fn take_reading(&mut self, reading: Reading) {
        self.reading = Some(reading);
        self.stale_rows = true;
    }

    /// Takes what the analysis says.
    pub fn take_diagnosis(&mut self, diagnosis: Diagnosis) {
        if self.paused {
            return;
        }
        let now = &diagnosis.memory.now;
        let course = &mut self.course;
        for (history, value) in
            [(&mut course.rss, now.rss), (&mut course.heap, now.heap_live), (&mut course.stacks, now.stacks)]
        {
            if let Some(value) = value {
                history.push(value, LENGTH);
            }
        }
        self.diagnosis = diagnosis;
        self.finding.keep_within(self.diagnosis.findings.len(), self.page());
    }

    /// Takes what passes have proven.
    pub fn take_proofs(&mut self, proofs: Proofs) {
        if !self.paused {
            self.proofs = proofs;
        }
    }

    /// How many goroutines of a site are proven to be leaked.
    pub(super) fn leaked_of(&self, site: SiteId) -> u64 {
        self.sites.get(site).map_or(0, |site| self.proofs.of_site(site.addresses.0))
    }

    /// Takes what tracing costs.
    pub fn take_price(&mut self, price: Price) {
        if !self.paused {
            self.price = price;
        }
    }

    /// The process runs another program now.
    pub fn follow(&mut self, facts: Facts) {
        self.facts = facts;
        self.sites = Sites::default();
        self.reading = None;
        self.proofs = Proofs::default();
        self.inside = None;
        self.opened = None;
        self.selected = None;
        self.notice = Some("the process has replaced its program".to_owned());
    }

    /// There will be nothing new, for this reason; the last picture stays.
    pub fn end(&mut self, why: String) {
        self.ended = Some(why);
        self.paused = false;
    }

    /// Something to be told in a line.
    pub fn notify(&mut self, notice: Option<String>) {
        self.notice = notice;
    }

    /// The screen has this size now.
    pub fn resized(&mut self, width: u16, height: u16) {
        self.size = (width, height);
    }

    /// What the views found room for.
    pub fn drawn(&mut self, hits: Hits) {
        self.hits = hits;
    }

    /// How long ago it was observed.
    #[must_use]
    pub fn since_look(&self, at: MonotonicNs) -> Duration {
        Duration::from_nanos(at.since(self.now))
    }

    /// How long from look to look.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn screen(&self) -> Screen {
        match (self.pane, &self.inside, &self.opened) {
            (_, _, Some(_)) => Screen::Goroutine,
            (_, Some(_), None) => Screen::Members,
            (Pane::Goroutines, None, None) => Screen::Groups,
            (Pane::Findings, None, None) => {
                Screen::Findings(u16::try_from(self.diagnosis.findings.len()).unwrap_or(u16::MAX))
            }
            (Pane::Memory, None, None) => Screen::Memory,
        }
    }

    pub(super) fn parts(&self) -> Option<Parts> {
        layout::parts(self.size.0, self.size.1, self.screen())
    }

    /// Rows in the body.
    pub(super) fn page(&self) -> usize {
        self.parts().map_or(1, |parts| usize::from(parts.body.height))
    }

    /// What takes the keys.
    #[must_use]
    pub fn focus(&self) -> super::keys::Focus {
        match self.overlay {
            Some(Overlay::Input) => super::keys::Focus::Input,
            Some(Overlay::Help { .. } | Overlay::Menu(..)) => super::keys::Focus::Menu,
            None => super::keys::Focus::Panes,
        }
    }

    /// What is known of a goroutine's stack, with when it was read.
    pub(super) fn stack(&self, goid: Goid) -> Option<(Stack, MonotonicNs)> {
        let reading = self.reading.as_ref()?;
        Some((reading.stack(goid)?, reading.taken()))
    }

    pub(super) fn labels(&self, goid: Goid) -> &[(String, String)] {
        self.reading.as_ref().map(|reading| reading.labels(goid)).unwrap_or_default()
    }

    /// The site of a finding.
    pub(super) fn site_of(&self, finding: &Finding) -> Option<SiteId> {
        let key = finding.site.as_ref()?;
        let same = |site: &super::sites::KnownSite| {
            site.name.line == key.line
                && site.name.function == key.function
                && site.name.file == key.file
                && site.start == key.start
        };
        self.sites.shown().find(|(_, site)| same(site)).map(|(id, _)| id)
    }

    /// The name of a wait reason.
    pub(super) fn reason(&self, reason: u8) -> Arc<str> {
        self.reasons.name(reason)
    }
}

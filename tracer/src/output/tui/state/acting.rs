//! What somebody wants, done to the model.

use std::time::Duration;

use super::{Diagnosis, Half, Hit, Inside, Menu, Overlay, Pane, Screen, State};
use crate::output::tui::columns::{self, Column, MEMBERS, Spec};
use crate::output::tui::cursor::{Cursor, Motion};
use crate::output::tui::keys::Action;
use crate::output::tui::members::{MemberQuery, Members};
use crate::output::tui::rows::{GroupBy, RowKey};

/// The intervals to choose from.
const INTERVALS_MS: [u64; 7] = [250, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
/// A filter is no longer than this.
const FILTER_LENGTH: usize = 200;

/// What the model cannot do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Draw everything anew.
    Redraw,
}

impl State {
    /// Does what is wanted.
    pub fn act(&mut self, action: Action) -> Effect {
        self.notice = None;
        match action {
            Action::Quit => return Effect::Quit,
            Action::Redraw => return Effect::Redraw,
            Action::Resize { width, height } => {
                self.size = (width, height);
                return Effect::Redraw;
            }
            Action::Click { x, y } => return self.click(x, y),
            _ => {}
        }
        match self.overlay {
            Some(Overlay::Input) => self.act_in_input(action),
            Some(Overlay::Menu(menu, at)) => self.act_in_menu(action, menu, at),
            Some(Overlay::Help { scroll }) => self.act_in_help(action, scroll),
            None => self.act_in_panes(action),
        }
        Effect::None
    }

    fn act_in_panes(&mut self, action: Action) {
        match action {
            Action::Back => self.back(),
            Action::Enter => self.enter(),
            Action::Go(motion) => self.go(motion),
            Action::TurnPane(forward) => self.turn(forward),
            Action::Show(pane) => self.show(pane),
            Action::Help => self.overlay = Some(Overlay::Help { scroll: 0 }),
            Action::Filter if self.table().is_some() => self.overlay = Some(Overlay::Input),
            Action::GroupMenu if self.screen() == Screen::Groups => {
                let at = GroupBy::ALL.iter().position(|by| *by == self.query.group_by);
                self.overlay = Some(Overlay::Menu(Menu::Group, at.unwrap_or_default()));
            }
            Action::SortMenu if self.table().is_some() => {
                let at = self.sortable().iter().position(|spec| spec.column == self.sorted_by());
                self.overlay = Some(Overlay::Menu(Menu::Sort, at.unwrap_or_default()));
            }
            Action::SortBy(column) => self.sort_by(column),
            Action::Invert => {
                let descending = self.descending_mut();
                *descending = !*descending;
                self.unfollow();
            }
            Action::Pause if self.ended.is_none() => self.paused = !self.paused,
            Action::System => {
                self.query.system = !self.query.system;
                let shown = if self.query.system { "shown" } else { "hidden" };
                self.notice = Some(format!("the runtime's own goroutines are {shown}"));
                if let Some(inside) = &mut self.inside {
                    inside.query.system = self.query.system;
                }
                self.stale();
            }
            Action::Paths => self.full_paths = !self.full_paths,
            Action::Faster(faster) => self.change_interval(faster),
            _ => {}
        }
    }

    fn change_interval(&mut self, faster: bool) {
        let now = self.interval.as_millis() as u64;
        let next = if faster {
            INTERVALS_MS.iter().rev().find(|ms| **ms < now)
        } else {
            INTERVALS_MS.iter().find(|ms| **ms > now)
        };
        if let Some(ms) = next {
            self.interval = Duration::from_millis(*ms);
        }
    }

    fn act_in_input(&mut self, action: Action) {
        let screen = self.screen();
        let text = match (screen, &mut self.inside) {
            (Screen::Members, Some(inside)) => &mut inside.query.filter,
            _ => &mut self.query.filter,
        };
        match action {
            Action::Type(c) if !c.is_control() && text.len() < FILTER_LENGTH => text.push(c),
            Action::Erase => {
                text.pop();
            }
            Action::EraseAll => text.clear(),
            Action::Back => {
                text.clear();
                self.overlay = None;
            }
            Action::Enter => self.overlay = None,
            Action::Go(motion) => return self.go(motion),
            _ => return,
        }
        self.unfollow();
    }

    fn act_in_menu(&mut self, action: Action, menu: Menu, at: usize) {
        let entries = self.menu_entries(menu).len();
        let mut cursor = Cursor { at, offset: 0 };
        match action {
            Action::Go(motion) => {
                cursor.go(motion, entries, entries);
                self.overlay = Some(Overlay::Menu(menu, cursor.at));
            }
            Action::Choose(at) => self.choose(menu, at),
            Action::Enter => self.choose(menu, at),
            _ => self.overlay = None,
        }
    }

    fn act_in_help(&mut self, action: Action, scroll: usize) {
        match action {
            Action::Go(motion) => {
                let mut cursor = Cursor { at: scroll, offset: 0 };
                cursor.go(motion, 200, usize::from(self.size.1 / 2));
                self.overlay = Some(Overlay::Help { scroll: cursor.at });
            }
            _ => self.overlay = None,
        }
    }

    fn choose(&mut self, menu: Menu, at: usize) {
        match menu {
            Menu::Group => {
                let Some(&by) = GroupBy::ALL.get(at) else { return };
                self.query.group_by = by;
                // By what is not there any more cannot be sorted.
                if !self.sortable().iter().any(|spec| spec.column == self.query.sort) {
                    (self.query.sort, self.query.descending) = (Column::Live, true);
                }
                self.unfollow();
            }
            Menu::Sort => {
                let Some(column) = self.sortable().get(at).map(|spec| spec.column) else { return };
                if column != self.sorted_by() {
                    self.sort_by(column);
                }
            }
        }
        self.overlay = None;
    }

    /// The entries of a menu.
    pub(in crate::output::tui) fn menu_entries(&self, menu: Menu) -> Vec<&'static str> {
        match menu {
            Menu::Group => GroupBy::ALL.map(GroupBy::name).into(),
            Menu::Sort => self.sortable().iter().map(|spec| spec.title).collect(),
        }
    }

    /// The columns of the table that fills the screen, if one does.
    fn table(&self) -> Option<Vec<Spec>> {
        match self.screen() {
            Screen::Groups => Some(columns::of_groups(self.query.group_by)),
            Screen::Members => Some(MEMBERS.into()),
            Screen::Goroutine | Screen::Findings(_) | Screen::Memory => None,
        }
    }

    fn sortable(&self) -> Vec<Spec> {
        self.table().unwrap_or_default().into_iter().filter(|spec| spec.sortable).collect()
    }

    pub(in crate::output::tui) fn sorted_by(&self) -> Column {
        match (&self.inside, self.screen()) {
            (Some(inside), Screen::Members) => inside.query.sort,
            _ => self.query.sort,
        }
    }

    pub(in crate::output::tui) fn is_descending(&self) -> bool {
        match (&self.inside, self.screen()) {
            (Some(inside), Screen::Members) => inside.query.descending,
            _ => self.query.descending,
        }
    }

    fn descending_mut(&mut self) -> &mut bool {
        match (self.screen(), &mut self.inside) {
            (Screen::Members, Some(inside)) => &mut inside.query.descending,
            _ => &mut self.query.descending,
        }
    }

    fn sort_by(&mut self, column: Column) {
        let Some(specs) = self.table() else { return };
        if !specs.iter().any(|spec| spec.column == column && spec.sortable) {
            return;
        }
        // Names from A on, figures from the largest on; the same column once more: the other way round.
        let descending = if self.sorted_by() == column { !self.is_descending() } else { columns::is_figure(column) };
        *self.descending_mut() = descending;
        match (self.screen(), &mut self.inside) {
            (Screen::Members, Some(inside)) => inside.query.sort = column,
            _ => self.query.sort = column,
        }
        self.unfollow();
    }

    /// The order changes: begin at its top.
    fn unfollow(&mut self) {
        match (self.screen(), &mut self.inside) {
            (Screen::Members, Some(inside)) => {
                inside.selected = None;
                inside.cursor = Cursor::default();
            }
            _ => {
                self.selected = None;
                self.groups = Cursor::default();
            }
        }
        self.stale();
    }

    fn back(&mut self) {
        if self.opened.take().is_some() {
            self.stale();
            return;
        }
        match self.screen() {
            Screen::Members => {
                let filtered = self.inside.as_mut().filter(|inside| !inside.query.filter.is_empty());
                if let Some(inside) = filtered {
                    inside.query.filter.clear();
                    self.unfollow();
                } else {
                    self.inside = None;
                }
            }
            Screen::Groups if !self.query.filter.is_empty() => {
                self.query.filter.clear();
                self.unfollow();
            }
            Screen::Findings(_) | Screen::Memory => self.pane = Pane::Goroutines,
            Screen::Groups | Screen::Goroutine => {}
        }
    }

    fn enter(&mut self) {
        match self.screen() {
            Screen::Groups => {
                if let Some(row) = self.rows.get(self.groups.at) {
                    let key = row.key.clone();
                    self.selected = Some(key.clone());
                    self.look_into(key);
                }
            }
            Screen::Members => {
                let Some(inside) = &mut self.inside else { return };
                let at = inside.cursor.at.saturating_sub(inside.cursor.offset);
                if let Some((goid, _)) = inside.window.get(at) {
                    inside.selected = Some(*goid);
                    self.open = Some(*goid);
                }
            }
            Screen::Findings(_) => {
                let site = self.diagnosis.findings.get(self.finding.at).and_then(|finding| self.site_of(finding));
                match site {
                    Some(site) => self.look_into(RowKey::Site(site)),
                    None => self.notice = Some("this finding is not about one creation site".to_owned()),
                }
            }
            Screen::Goroutine | Screen::Memory => {}
        }
    }

    fn look_into(&mut self, of: RowKey) {
        self.inside = Some(Inside {
            query: MemberQuery {
                of,
                // Those that have stood longest are the ones to look at.
                sort: Column::InState,
                descending: true,
                filter: String::new(),
                system: self.query.system,
            },
            members: Members::default(),
            cursor: Cursor::default(),
            selected: None,
            window: Vec::new(),
        });
        self.stale_members = true;
    }

    fn go(&mut self, motion: Motion) {
        let page = self.page();
        match self.screen() {
            Screen::Groups => {
                self.groups.go(motion, self.rows.len(), page);
                // At the top it stays at the top, whatever is there; elsewhere it follows the row.
                self.selected = self.rows.get(self.groups.at).map(|row| row.key.clone()).filter(|_| self.groups.at > 0);
            }
            Screen::Members => {
                let Some(inside) = &mut self.inside else { return };
                inside.cursor.go(motion, inside.members.len(), page);
                let Inside { cursor, members, selected, .. } = inside;
                *selected = members.window(cursor.at, 1).first().copied().filter(|_| cursor.at > 0);
            }
            Screen::Findings(_) => match motion {
                // The list is short, what is said of one finding may be long.
                Motion::Pages(pages) => {
                    self.finding_scroll = self.finding_scroll.saturating_add_signed(pages.saturating_mul(4)).min(200);
                }
                motion => {
                    self.finding.go(motion, self.diagnosis.findings.len(), page);
                    self.finding_scroll = 0;
                }
            },
            Screen::Goroutine => {
                let Some(opened) = &mut self.opened else { return };
                let scroll = match opened.half {
                    Half::Stack => &mut opened.stack_scroll,
                    Half::Timeline => &mut opened.timeline_scroll,
                };
                let mut cursor = Cursor { at: *scroll, offset: 0 };
                cursor.go(motion, 1 << 11, 10);
                *scroll = cursor.at;
            }
            Screen::Memory => {}
        }
    }

    fn turn(&mut self, forward: bool) {
        if let Some(opened) = &mut self.opened {
            opened.half = if opened.half == Half::Stack { Half::Timeline } else { Half::Stack };
            return;
        }
        let at = Pane::ALL.iter().position(|pane| *pane == self.pane).unwrap_or_default();
        let by = if forward { 1 } else { Pane::ALL.len() - 1 };
        if let Some(pane) = Pane::ALL.get((at + by) % Pane::ALL.len()) {
            self.show(*pane);
        }
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.inside = None;
        self.opened = None;
    }

    fn stale(&mut self) {
        self.stale_rows = true;
        self.stale_members = true;
    }

    fn click(&mut self, x: u16, y: u16) -> Effect {
        let position = ratatui::layout::Position { x, y };
        // What was drawn last lies on top.
        let hit = self.hits.iter().rev().find(|(area, _)| area.contains(position)).map(|(_, hit)| *hit);
        match hit {
            Some(Hit::Do(action)) => {
                if self.overlay.is_some() {
                    self.overlay = None;
                }
                return self.act(action);
            }
            Some(Hit::Entry(at)) => {
                if let Some(Overlay::Menu(menu, _)) = self.overlay {
                    self.choose(menu, at);
                }
            }
            Some(Hit::Row(row)) if self.overlay.is_none() => self.click_row(row),
            Some(Hit::Half(first)) => {
                if let Some(opened) = &mut self.opened {
                    opened.half = if first { Half::Stack } else { Half::Timeline };
                }
            }
            Some(Hit::Cover) => {}
            Some(Hit::Row(_)) | None => self.overlay = None,
        }
        Effect::None
    }

    /// A click selects, a click on what is selected opens.
    fn click_row(&mut self, row: usize) {
        let at = match (self.screen(), &self.inside) {
            (Screen::Members, Some(inside)) => inside.cursor.at,
            (Screen::Findings(_), _) => self.finding.at,
            _ => self.groups.at,
        };
        if at == row {
            self.enter();
        } else {
            self.go(Motion::By(row as isize - at as isize));
        }
    }

    /// What the analysis said last.
    #[must_use]
    pub fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }
}

//! Rows and windows brought up to what is wanted: only what went stale, and of goroutines only those on the screen.

use super::{Half, Inside, Opened, State};
use crate::goroutines::GoroutineTable;
use crate::output::tui::members::Members;
use crate::output::tui::rows::{self, Material};
use crate::output::tui::timeline::Watched;

impl State {
    /// Makes what is to be drawn: to be called before each drawing.
    pub fn fill(&mut self, table: &GoroutineTable) {
        if self.stale_rows {
            self.stale_rows = false;
            self.fill_rows();
        }
        let page = self.page();
        self.groups.keep_within(self.rows.len(), page);
        if let Some(goid) = self.open.take() {
            self.opened = Some(Opened {
                watched: Watched::begin(goid, table),
                half: Half::Stack,
                stack_scroll: 0,
                timeline_scroll: 0,
            });
        }
        if let Some(inside) = &mut self.inside {
            if std::mem::take(&mut self.stale_members) {
                inside.members = Members::collect(table, &self.sites, &self.reasons, &inside.query);
                if let Some(rank) = inside.selected.and_then(|goid| inside.members.rank(goid)) {
                    // It stays on its line of the screen, and the list moves under it.
                    let line = inside.cursor.at.saturating_sub(inside.cursor.offset);
                    inside.cursor.at = rank;
                    inside.cursor.offset = rank.saturating_sub(line);
                }
            }
            // With a goroutine open the body is another; the list keeps its place.
            let page = if self.opened.is_some() { inside.window.len().max(1) } else { page };
            inside.cursor.keep_within(inside.members.len(), page);
            let Inside { members, cursor, window, .. } = inside;
            *window = members.window(cursor.offset, page).into_iter().map(|goid| (goid, table.get(goid))).collect();
        }
        if let Some(opened) = &mut self.opened
            && !self.paused
            && self.ended.is_none()
        {
            opened.watched.refresh(self.now, table);
        }
    }

    fn fill_rows(&mut self) {
        let material = Material {
            sites: &self.sites,
            census: &self.census,
            reading: self.reading.as_ref(),
            reasons: &self.reasons,
        };
        self.rows = rows::rows(&material, &self.query);
        let found = self.selected.as_ref().and_then(|key| self.rows.iter().position(|row| row.key == *key));
        if let Some(at) = found {
            let line = self.groups.at.saturating_sub(self.groups.offset);
            self.groups.at = at;
            self.groups.offset = at.saturating_sub(line);
        }
    }
}

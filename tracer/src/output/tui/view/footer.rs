//! The last line: the keys, or the filter that is typed.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use crate::output::tui::keys::Action;
use crate::output::tui::state::{Hit, Overlay, Screen, State};

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    if !canvas.look.keys {
        return;
    }
    if state.overlay == Some(Overlay::Input) {
        let filter = match (state.screen(), &state.inside) {
            (Screen::Members, Some(inside)) => &inside.query.filter,
            _ => &state.query.filter,
        };
        canvas.cover(area, Ink::KeyName);
        let cursor = canvas.look.sign("\u{2588}", "_");
        let text = [" Filter: ", filter, cursor, "   Enter keeps it, Esc takes it away"];
        canvas.run(area.x, area.y, area.width, text.map(|text| (text, Ink::KeyName)));
        return;
    }
    let pause = if state.paused { "Go on" } else { "Pause" };
    let keys: &[(&str, &str, Action)] = match state.screen() {
        Screen::Groups => &[
            ("F1", "Help", Action::Help),
            ("F4", "Filter", Action::Filter),
            ("F5", "Group", Action::GroupMenu),
            ("F6", "Sort", Action::SortMenu),
            ("Enter", "Open", Action::Enter),
            ("Tab", "Pane", Action::TurnPane(true)),
            ("Space", pause, Action::Pause),
            ("F10", "Quit", Action::Quit),
        ],
        Screen::Members => &[
            ("F1", "Help", Action::Help),
            ("F4", "Filter", Action::Filter),
            ("F6", "Sort", Action::SortMenu),
            ("Enter", "Open", Action::Enter),
            ("Esc", "Back", Action::Back),
            ("Space", pause, Action::Pause),
            ("F10", "Quit", Action::Quit),
        ],
        Screen::Goroutine => &[
            ("F1", "Help", Action::Help),
            ("Tab", "Stack/Timeline", Action::TurnPane(true)),
            ("p", "Paths", Action::Paths),
            ("Esc", "Back", Action::Back),
            ("Space", pause, Action::Pause),
            ("F10", "Quit", Action::Quit),
        ],
        Screen::Findings(_) => &[
            ("F1", "Help", Action::Help),
            ("Enter", "Goroutines", Action::Enter),
            ("PgDn", "More", Action::Go(crate::output::tui::Motion::Pages(1))),
            ("Tab", "Pane", Action::TurnPane(true)),
            ("Esc", "Back", Action::Back),
            ("F10", "Quit", Action::Quit),
        ],
        Screen::Memory => &[
            ("F1", "Help", Action::Help),
            ("Tab", "Pane", Action::TurnPane(true)),
            ("Esc", "Back", Action::Back),
            ("Space", pause, Action::Pause),
            ("F10", "Quit", Action::Quit),
        ],
    };
    let mut x = area.x;
    for (key, name, action) in keys {
        let begin = x;
        x += canvas.put(x, area.y, area.right() - x, key, Ink::Key);
        x += canvas.put(x, area.y, area.right() - x, &format!("{name:<5}"), Ink::KeyName);
        canvas.hit(Rect { x: begin, width: x - begin, ..area }, Hit::Do(*action));
        x = (x + 1).min(area.right());
    }
}

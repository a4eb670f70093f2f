//! A menu over the table.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use crate::output::tui::state::{Hit, Menu, State};

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, menu: Menu, at: usize, area: Rect) {
    let title = match menu {
        Menu::Group => " Group by ",
        Menu::Sort => " Sort by ",
    };
    let entries = state.menu_entries(menu);
    let width = entries.iter().map(|entry| entry.chars().count()).max().unwrap_or_default().max(title.len()) as u16 + 6;
    let height = (entries.len() as u16 + 2).min(area.height);
    let top = (area.height.saturating_sub(height) / 2).min(area.height);
    let inner = canvas.window(Rect { x: area.x + 2, y: area.y + top, width, height }, title);
    let first = (at + 1).saturating_sub(usize::from(inner.height));
    for (y, (index, entry)) in (inner.y..inner.bottom()).zip(entries.iter().enumerate().skip(first)) {
        let line = Rect { y, height: 1, ..inner };
        let number = if index < 9 { (index + 1).to_string() } else { " ".to_owned() };
        canvas.put(line.x + 1, y, line.width.saturating_sub(1), &format!("{number} {entry}"), Ink::Plain);
        if index == at {
            canvas.cover(line, Ink::Selected);
        }
        canvas.hit(line, Hit::Entry(index));
    }
}

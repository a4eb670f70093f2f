//! The views: one file a pane, each drawing from the state alone. What a drawing gives back is where a mouse can hit.

mod canvas;
mod findings;
mod footer;
mod goroutine;
mod groups;
mod header;
mod help;
mod look;
mod members;
mod memory;
mod menu;
mod stack;

use ratatui::buffer::Buffer;

use super::layout;
use super::state::{Hits, Overlay, Screen, State};
use canvas::Canvas;
use look::Ink;
pub use look::Look;

/// Draws the whole picture.
#[must_use]
pub fn draw(buffer: &mut Buffer, state: &State, look: Look) -> Hits {
    let area = buffer.area;
    let mut canvas = Canvas::new(buffer, look);
    let Some(parts) = layout::parts(area.width, area.height, state.screen()) else {
        let (width, height) = layout::LEAST;
        let lines = [
            format!("This terminal is {}x{}.", area.width, area.height),
            format!("gotracer top needs {width}x{height}; q quits."),
        ];
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            canvas.put(area.x, y, area.width, &line, Ink::Strong);
        }
        return canvas.hits;
    };
    header::draw(&mut canvas, state, parts.header);
    header::tabs(&mut canvas, state, parts.tabs);
    match state.screen() {
        Screen::Groups => {
            groups::draw(&mut canvas, state, parts.heads, parts.body);
            findings::glance(&mut canvas, state, parts.lower);
            memory::glance(&mut canvas, state, parts.beside);
        }
        Screen::Members => {
            members::draw(&mut canvas, state, parts.heads, parts.body);
            members::stack_of_selected(&mut canvas, state, parts.lower);
        }
        Screen::Goroutine => goroutine::draw(&mut canvas, state, parts),
        Screen::Findings(_) => findings::draw(&mut canvas, state, parts),
        Screen::Memory => memory::draw(&mut canvas, state, parts.body),
    }
    footer::draw(&mut canvas, state, parts.footer);
    match state.overlay {
        Some(Overlay::Help { scroll }) => help::draw(&mut canvas, scroll, area),
        Some(Overlay::Menu(menu, at)) => menu::draw(&mut canvas, state, menu, at, area),
        Some(Overlay::Input) | None => {}
    }
    canvas.hits
}

/// What was drawn, as lines without colours and without blanks at their ends.
#[must_use]
pub fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let line: String =
            (buffer.area.left()..buffer.area.right()).filter_map(|x| Some(buffer.cell((x, y))?.symbol())).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

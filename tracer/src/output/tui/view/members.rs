//! The goroutines of one row, and below them the stack of the selected one.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use super::{groups, stack};
use crate::goroutines::{Goroutine, State as GoroutineState};
use crate::output::tui::census::Since;
use crate::output::tui::columns::{self, Column, MEMBERS, Spec};
use crate::output::tui::reading::Stack;
use crate::output::tui::state::{Hit, State};
use crate::output::tui::words;
use crate::units::Goid;

/// Before the state of one that is proven to be leaked: there it is not what is cut off.
pub(super) const LEAKED: &str = "(leaked) ";

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, heads: Rect, body: Rect) {
    let Some(inside) = &state.inside else { return };
    let columns = columns::fitting(MEMBERS, heads.width);
    groups::titles(canvas, state, heads, heads, &columns);
    if inside.window.is_empty() {
        let why = if inside.query.filter.is_empty() { "none is alive now" } else { "nothing fits the filter" };
        canvas.put(body.x + 2, body.y, body.width.saturating_sub(2), why, Ink::Faint);
    }
    for (y, (index, (goid, goroutine))) in (body.y..body.bottom()).zip(inside.window.iter().enumerate()) {
        let at = inside.cursor.offset + index;
        let line = Rect { y, height: 1, ..body };
        for &(spec, x, width) in &columns {
            cell(canvas, state, *goid, goroutine.as_ref(), spec, Rect { x: line.x + x, y, width, height: 1 });
        }
        if at == inside.cursor.at {
            canvas.cover(line, Ink::Selected);
        }
        canvas.hit(line, Hit::Row(at));
    }
}

fn cell(canvas: &mut Canvas<'_>, state: &State, goid: Goid, goroutine: Option<&Goroutine>, spec: Spec, area: Rect) {
    let Rect { x, y, width, .. } = area;
    if spec.column == Column::Goid {
        canvas.put_right(x, y, width, &goid.to_string(), Ink::Strong);
        return;
    }
    let Some(g) = goroutine else {
        if spec.column == Column::State {
            canvas.put(x, y, width, "ended", Ink::Died);
        }
        return;
    };
    let text = match spec.column {
        Column::State => {
            let (name, ink) = state_of(state, g.state);
            let leaked = if state.proofs.is_leaked(goid) { canvas.put(x, y, width, LEAKED, Ink::Alarm) } else { 0 };
            let room = width.saturating_sub(leaked);
            let text = words::elide(&name, usize::from(room), canvas.look.ellipsis());
            canvas.put(x + leaked, y, room, &text, ink);
            return;
        }
        Column::InState => groups::age(state, Since { time: g.since, at_least: g.since_estimated }),
        Column::Age => groups::age(state, Since { time: g.created, at_least: g.first_seen }),
        Column::ParkCount => g.parks.to_string(),
        Column::Parent if g.parent.0 == 0 => "-".to_owned(),
        Column::Parent => g.parent.to_string(),
        Column::At => {
            match state.stack(goid) {
                Some((stack @ Stack::Frames(..), _)) => {
                    if let Some(frame) = stack.telling() {
                        canvas.place(x, y, width, frame, state.full_paths, Ink::Plain);
                    }
                }
                Some((Stack::Running | Stack::Moved, _)) => {
                    canvas.put(x, y, width, "(running)", Ink::Running);
                }
                None => {
                    canvas.put(x, y, width, canvas.look.ellipsis(), Ink::Faint);
                }
            }
            return;
        }
        _ => return,
    };
    canvas.put_right(x, y, width, &text, Ink::Plain);
}

/// A state as people call it, the reason if there is one.
pub(super) fn state_of(state: &State, of: GoroutineState) -> (std::sync::Arc<str>, Ink) {
    match of {
        GoroutineState::Running => ("running".into(), Ink::Running),
        GoroutineState::Runnable => ("runnable".into(), Ink::Runnable),
        GoroutineState::Blocked { reason } => (state.reason(reason), Ink::Blocked),
    }
}

pub(super) fn stack_of_selected(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let Some(inside) = &state.inside else { return };
    let at = inside.cursor.at.saturating_sub(inside.cursor.offset);
    if let Some((goid, _)) = inside.window.get(at) {
        stack::draw(canvas, state, *goid, &format!("goroutine {goid}"), 0, false, area);
    }
}

//! The stack of one goroutine.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use crate::output::tui::reading::Stack;
use crate::output::tui::state::State;
use crate::output::tui::words;
use crate::units::Goid;

pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    state: &State,
    goid: Goid,
    whose: &str,
    scroll: usize,
    strong: bool,
    area: Rect,
) {
    let known = state.stack(goid);
    let when = match &known {
        // A reading is of a moment; what is on the screen may be of a later one.
        Some((_, taken)) => format!(", read {} ago", words::duration(state.now.since(*taken))),
        None => String::new(),
    };
    let inner = canvas.titled(area, &format!("Stack of {whose}{when}"), strong);
    if inner.height == 0 {
        return;
    }
    let (x, width) = (inner.x + 1, inner.width.saturating_sub(2));
    let say = |canvas: &mut Canvas<'_>, text: &str| {
        canvas.put(x, inner.y, width, text, Ink::Faint);
    };
    match known {
        None => say(canvas, "not read yet"),
        Some((Stack::Running, _)) => say(canvas, "it was running: its registers were in a processor"),
        Some((Stack::Moved, _)) => say(canvas, "it went on while it was read"),
        Some((Stack::Frames(frames, beyond), _)) => {
            let height = usize::from(inner.height);
            let total = frames.len() + usize::from(beyond > 0);
            let scroll = scroll.min(total.saturating_sub(height));
            for (y, frame) in (inner.y..inner.bottom()).zip(frames.iter().skip(scroll)) {
                canvas.place(x, y, width, frame, state.full_paths, Ink::Plain);
            }
            if beyond > 0 && frames.len() >= scroll && frames.len() - scroll < height {
                let y = inner.y + (frames.len() - scroll) as u16;
                canvas.put(x, y, width, &format!("{} more frames", words::count(beyond as u64)), Ink::Faint);
            }
        }
    }
}

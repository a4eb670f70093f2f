//! The keys and the columns, explained.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;

/// A heading (no second part), or a key and what it does.
const LINES: &[(&str, &str)] = &[
    ("Keys", ""),
    ("arrows PgUp ..", "move; also Home, End, j, k, and the wheel of a mouse"),
    ("Enter Right", "open a row, a goroutine, the goroutines of a finding"),
    ("Esc Left", "back; takes the filter away"),
    ("Tab 1 2 3", "the next pane; goroutines, findings, memory"),
    ("F4 /", "filter: words that a row must contain, in any case"),
    ("F5 g", "group by creation site, start function, reason, state"),
    ("F6 s < >", "sort by a column; a click on its title does it, too"),
    ("I", "sort the other way round"),
    ("L N T M", "sort by live, net growth, age, stack memory"),
    ("F2 K", "show or hide the runtime's own goroutines"),
    ("Space Z", "hold the picture, let it go on; nothing is missed"),
    ("+ -", "look less often, look more often"),
    ("p", "whole paths of source files"),
    ("Ctrl-L", "draw everything anew"),
    ("F10 q Ctrl-C", "quit; nothing of gotracer stays in the process"),
    ("", ""),
    ("Columns", ""),
    ("LIVE", "goroutines that live now; BLOCKED, RUNNING: of these"),
    ("NET/s", "how many more a second, over the last 30 looks"),
    ("BORN DIED PARKS", "a second, since the last look"),
    ("STACKS", "stack memory that they hold, when it was last read"),
    ("OLDEST", "age of the oldest; by reason, state: longest in it"),
    ("WAITS FOR", "what most of them wait for, in the runtime's words"),
    ("FOR", "of one goroutine: how long it has been in its state"),
    ("AGE", "of one goroutine: since it was created"),
    (">", "at least: it was there before gotracer came"),
    ("!", "there is a finding about this row: see pane 2"),
    ("", ""),
    ("Header", ""),
    ("lost", "events that did not reach gotracer; repaired: what they"),
    ("", " told was read from memory since"),
    ("running", "has a thread, or was preempted, or is in a system call"),
    ("cost", "what tracing takes of the process's CPU time"),
    ("own", "what gotracer itself takes, of one CPU"),
];

/// Columns for keys.
const NAMES: u16 = 15;

pub(super) fn draw(canvas: &mut Canvas<'_>, scroll: usize, area: Rect) {
    let width = area.width.saturating_sub(2).min(78);
    let height = area.height.min(LINES.len() as u16 + 2);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let more = usize::from(height) < LINES.len() + 2;
    let title = if more { " Help: Down for more, any other key closes " } else { " Help: any key closes " };
    let inner = canvas.window(Rect { x, y, width, height }, title);
    let scroll = scroll.min(LINES.len().saturating_sub(usize::from(inner.height)));
    for (y, (key, words)) in (inner.y..inner.bottom()).zip(LINES.iter().skip(scroll)) {
        if words.is_empty() {
            canvas.put(inner.x + 1, y, inner.width.saturating_sub(1), key, Ink::Strong);
        } else {
            canvas.put(inner.x + 1, y, NAMES, key, Ink::Figure);
            canvas.put(inner.x + 2 + NAMES, y, inner.width.saturating_sub(NAMES + 2), words, Ink::Plain);
        }
    }
}

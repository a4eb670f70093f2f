//! The keys and the columns, explained.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;

/// A heading (no second part), or a key and what it does.
const LINES: &[(&str, &str)] = &[
    ("Keys", ""),
    ("Up Down PgUp PgDn Home End", "move; also j and k, and the wheel of a mouse"),
    ("Enter Right", "into a row, into a goroutine, from a finding to its goroutines"),
    ("Esc Left", "back, or without the filter"),
    ("Tab  1 2 3", "the next pane; goroutines, findings, memory"),
    ("F4 /", "filter: words that a row must contain, in whatever case"),
    ("F5 g", "group by creation site, start function, wait reason, state"),
    ("F6 s < >", "choose the column to sort by; a click on its title does it too"),
    ("I", "the other way round"),
    ("L N T M", "sort by live, by net growth, by age, by stack memory"),
    ("F2 K", "show or hide the runtime's own goroutines"),
    ("Space Z", "stand still, go on; tracing goes on meanwhile"),
    ("+ -", "look less often, look more often"),
    ("p", "whole paths of source files"),
    ("Ctrl-L", "draw everything anew"),
    ("F10 q Ctrl-C", "quit; nothing of gotracer stays in the process"),
    ("", ""),
    ("Columns", ""),
    ("LIVE", "goroutines that live now; BLOCKED and RUNNING: of these"),
    ("NET/s", "how many more they get a second, over the last 30 looks"),
    ("BORN/s DIED/s PARKS/s", "a second, since the last look"),
    ("STACKS", "stack memory that they hold, when it was last read"),
    ("OLDEST", "age of the oldest; by reason and by state, the longest in it"),
    ("WAITS FOR", "what most of them wait for, in the runtime's own words"),
    ("FOR AGE", "of one goroutine: time in its state, time since it was created"),
    (">", "at least so long: it was there before gotracer came"),
    ("!", "there is a finding about this row: see pane 2"),
    ("", ""),
    ("Header", ""),
    ("lost", "events that did not reach gotracer; repaired: read from memory since"),
    ("running", "has a thread or was preempted; system calls count as running"),
    ("costs it", "processor time that the probes take from the process, of one CPU"),
];

pub(super) fn draw(canvas: &mut Canvas<'_>, scroll: usize, area: Rect) {
    let width = area.width.saturating_sub(2).min(100);
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
            let narrow = inner.width < 90;
            let names = if narrow { 15 } else { 27 };
            let key = if narrow && *key == "Up Down PgUp PgDn Home End" { "arrows, PgUp .." } else { key };
            canvas.put(inner.x + 1, y, names, key, Ink::Figure);
            canvas.put(inner.x + 2 + names, y, inner.width.saturating_sub(names + 2), words, Ink::Plain);
        }
    }
}

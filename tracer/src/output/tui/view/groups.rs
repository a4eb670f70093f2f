//! The table of groups.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use crate::analysis::Severity;
use crate::output::tui::census::Since;
use crate::output::tui::columns::{self, Column, Spec};
use crate::output::tui::keys::Action;
use crate::output::tui::rows::{self, GroupBy, Row, RowKey};
use crate::output::tui::state::{Hit, State};
use crate::output::tui::words;

/// Cells at the left, for the mark of a finding.
const MARK: u16 = 1;

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, heads: Rect, body: Rect) {
    let inner = |area: Rect| Rect { x: area.x + MARK, width: area.width.saturating_sub(MARK), ..area };
    let columns = columns::fitting(&columns::of_groups(state.query.group_by), inner(heads).width);
    titles(canvas, state, heads, inner(heads), &columns);
    if state.rows.is_empty() {
        let why = match (state.ticks, state.query.filter.is_empty()) {
            (0, _) => "",
            (_, true) => "there are no goroutines of this kind",
            (_, false) => "nothing fits the filter; Esc takes it away",
        };
        canvas.put(body.x + 2, body.y, body.width.saturating_sub(2), why, Ink::Faint);
    }
    let first = state.groups.offset;
    for (y, (at, row)) in (body.y..body.bottom()).zip(state.rows.iter().enumerate().skip(first)) {
        let line = Rect { y, height: 1, ..body };
        if let Some(severity) = severity(state, &row.key) {
            let ink = if severity >= Severity::Warning { Ink::Alarm } else { Ink::Warning };
            canvas.put(line.x, y, MARK, "!", ink);
        }
        for &(spec, x, width) in &columns {
            cell(canvas, state, row, spec, Rect { x: line.x + MARK + x, y, width, height: 1 });
        }
        if at == state.groups.at {
            canvas.cover(line, Ink::Selected);
        } else if row.system {
            canvas.cover(line, Ink::Faint);
        }
        canvas.hit(line, Hit::Row(at));
    }
}

/// The titles of columns; a click sorts.
pub(super) fn titles(canvas: &mut Canvas<'_>, state: &State, whole: Rect, inner: Rect, columns: &[(Spec, u16, u16)]) {
    canvas.cover(whole, Ink::Bar);
    for &(spec, x, width) in columns {
        let sorted = state.sorted_by() == spec.column;
        let ink = if sorted { Ink::SortedBar } else { Ink::Bar };
        let title = match spec.column {
            Column::Name => match state.query.group_by {
                GroupBy::Site => spec.title,
                GroupBy::Start => "RUNS",
                GroupBy::Reason => "WAIT REASON",
                GroupBy::State => "STATE",
            },
            _ => spec.title,
        };
        let (x, mut text) = (inner.x + x, title.to_owned());
        if sorted {
            // Without colours the sign alone tells.
            let sign = match state.is_descending() {
                true => canvas.look.sign("\u{25bc}", "v"),
                false => canvas.look.sign("\u{25b2}", "^"),
            };
            text.push_str(sign);
        }
        let text = words::elide(&text, usize::from(width), "");
        if spec.right {
            canvas.put_right(x, inner.y, width, &text, ink);
        } else {
            canvas.put(x, inner.y, width, &text, ink);
        }
        if spec.sortable {
            canvas.hit(Rect { x, y: inner.y, width, height: 1 }, Hit::Do(Action::SortBy(spec.column)));
        }
    }
}

fn cell(canvas: &mut Canvas<'_>, state: &State, row: &Row, spec: Spec, area: Rect) {
    let by_reason_or_state = matches!(row.key, RowKey::Reason(_) | RowKey::State(_));
    let count = |n: u64| if n == 0 { ("0".to_owned(), Ink::Faint) } else { (n.to_string(), Ink::Plain) };
    let rate = |of: Option<f64>, ink: Ink| match of {
        None => ("-".to_owned(), Ink::Faint),
        Some(rate) => match words::rate(rate) {
            zero if zero == "0" => (zero, Ink::Faint),
            text => (text, ink),
        },
    };
    let (text, ink) = match spec.column {
        Column::Live => (row.live.total().to_string(), if row.live.total() > 0 { Ink::Strong } else { Ink::Faint }),
        Column::Blocked => count(row.live.blocked),
        Column::Running => count(row.live.running + row.live.runnable),
        Column::Net => match row.net.map(words::growth) {
            None => ("-".to_owned(), Ink::Faint),
            Some(zero) if zero == "0" => (zero, Ink::Faint),
            Some(text) => (text, if row.net.is_some_and(|net| net > 0.0) { Ink::Warning } else { Ink::Plain }),
        },
        Column::Born => rate(row.born, Ink::Born),
        Column::Died => rate(row.died, Ink::Died),
        Column::Parks => rate(row.parks, Ink::Plain),
        Column::Stack => {
            row.stack_bytes.map_or(("-".to_owned(), Ink::Faint), |bytes| (words::bytes(bytes), Ink::Plain))
        }
        Column::Oldest => match row.oldest {
            Some(since) => (age(state, since), Ink::Plain),
            None => ("-".to_owned(), Ink::Faint),
        },
        Column::Waits => {
            let reason = row.waits.map(|reason| state.reason(reason)).unwrap_or_else(|| "-".into());
            let text = words::elide(&reason, usize::from(area.width), canvas.look.ellipsis());
            (text, if row.waits.is_some() { Ink::Blocked } else { Ink::Faint })
        }
        Column::Trend => {
            if let Some(past) = rows::past(&state.sites, &row.key) {
                canvas.spark(area.x, area.y, area.width, past, Ink::Plain);
            }
            return;
        }
        Column::Name => {
            name(canvas, state, &row.key, area.x, area.y, area.width);
            return;
        }
        Column::Runs if !by_reason_or_state => {
            let start = match &row.key {
                RowKey::Site(id) => state.sites.get(*id).map(|site| site.start.to_string()).unwrap_or_default(),
                _ => String::new(),
            };
            let own = start.rsplit('/').next().unwrap_or_default();
            (words::elide(own, usize::from(area.width), canvas.look.ellipsis()), Ink::Plain)
        }
        _ => return,
    };
    if spec.right {
        canvas.put_right(area.x, area.y, area.width, &text, ink);
    } else {
        canvas.put(area.x, area.y, area.width, &text, ink);
    }
}

/// How long; `>` where it is known to be at least that.
pub(super) fn age(state: &State, since: Since) -> String {
    let sign = if since.at_least { ">" } else { "" };
    format!("{sign}{}", words::duration(state.now.since(since.time)))
}

/// What a row is about; gives the cells it took.
pub(super) fn name(canvas: &mut Canvas<'_>, state: &State, key: &RowKey, x: u16, y: u16, width: u16) -> u16 {
    let ellipsis = canvas.look.ellipsis();
    match key {
        RowKey::Site(id) => match state.sites.get(*id) {
            // Its `go` statement is the runtime's own start, which tells nobody anything.
            Some(site) if &*site.start == "runtime.main" => canvas.put(x, y, width, "(main goroutine)", Ink::Plain),
            Some(site) if site.name.file.is_empty() && site.addresses.0.0 == 0 => {
                let text = words::elide(&site.start, usize::from(width), ellipsis);
                canvas.put(x, y, width, &text, Ink::Plain)
            }
            Some(site) => {
                let leaked = match state.leaked_of(*id) {
                    0 => 0,
                    leaked => canvas.put(x, y, width, &format!("({} leaked) ", words::count(leaked)), Ink::Alarm),
                };
                let room = width.saturating_sub(leaked);
                leaked + canvas.place(x + leaked, y, room, &site.name, state.full_paths, Ink::Plain)
            }
            None => 0,
        },
        RowKey::Start(start) => canvas.put(x, y, width, &words::elide(start, usize::from(width), ellipsis), Ink::Plain),
        RowKey::Reason(reason) => canvas.put(x, y, width, &state.reason(*reason), Ink::Plain),
        RowKey::State(kind) => canvas.put(x, y, width, kind.name(), Ink::Plain),
    }
}

/// How bad the worst finding about a row is.
fn severity(state: &State, key: &RowKey) -> Option<Severity> {
    let RowKey::Site(id) = key else { return None };
    let site = state.sites.get(*id)?;
    let about = state.diagnosis.findings.iter().filter(|finding| {
        finding.site.as_ref().is_some_and(|key| {
            key.line == site.name.line
                && key.function == site.name.function
                && key.file == site.name.file
                && key.start == site.start
        })
    });
    about.map(|finding| finding.severity).max()
}

//! One goroutine: who it is, where it stands, what it did lately.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use super::{groups, members, stack};
use crate::goroutines::Goroutine;
use crate::governor::Level;
use crate::output::tui::census::Since;
use crate::output::tui::layout::Parts;
use crate::output::tui::rows::RowKey;
use crate::output::tui::state::{Half, Hit, Opened, State};
use crate::output::tui::timeline::Step;
use crate::output::tui::words;
use crate::units::MonotonicNs;

/// The longest stretch that the strip shows.
const STRETCH_NS: u64 = 60_000_000_000;

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, parts: Parts) {
    let Some(opened) = &state.opened else { return };
    facts(canvas, state, opened, parts.body);
    let (goid, half) = (opened.watched.goid, opened.half);
    canvas.hit(parts.lower, Hit::Half(true));
    canvas.hit(parts.beside, Hit::Half(false));
    stack::draw(canvas, state, goid, "it", opened.stack_scroll, half == Half::Stack, parts.lower);
    timeline(canvas, state, opened, parts.beside);
}

fn facts(canvas: &mut Canvas<'_>, state: &State, opened: &Opened, area: Rect) {
    const NAME: u16 = 12;
    let watched = &opened.watched;
    let Some(g) = &watched.last else {
        canvas.put(area.x + 1, area.y, area.width, "it ended before it could be looked at", Ink::Died);
        return;
    };
    let end = watched.ended.unwrap_or(state.now);
    let current: Goroutine = g.clone().at(end);
    let mut y = area.y;
    let mut line = |canvas: &mut Canvas<'_>, name: &str, draw: &mut dyn FnMut(&mut Canvas<'_>, u16, u16, u16)| {
        if y < area.bottom() {
            canvas.put(area.x + 1, y, NAME, name, Ink::Faint);
            draw(canvas, area.x + 1 + NAME, y, area.width.saturating_sub(NAME + 2));
            y += 1;
        }
    };
    line(canvas, "state", &mut |canvas, x, y, width| {
        let (name, ink) = members::state_of(state, g.state);
        let pieces = match watched.ended {
            Some(ended) => vec![
                ("ended".to_owned(), Ink::Died),
                (format!(" {} ago, at the age of ", words::duration(state.now.since(ended))), Ink::Plain),
                (age(g, ended), Ink::Strong),
            ],
            None => vec![
                (if state.proofs.is_leaked(watched.goid) { members::LEAKED } else { "" }.to_owned(), Ink::Alarm),
                (name.to_string(), ink),
                (" for ".to_owned(), Ink::Plain),
                (groups::age(state, Since { time: g.since, at_least: g.since_estimated }), Ink::Strong),
                (", age ".to_owned(), Ink::Plain),
                (age(g, state.now), Ink::Strong),
            ],
        };
        canvas.run(x, y, width, pieces.iter().map(|(text, ink)| (text.as_str(), *ink)));
    });
    line(canvas, "created at", &mut |canvas, x, y, width| {
        let by = if g.parent.0 == 0 { String::new() } else { format!(" by goroutine {}", g.parent) };
        let room = width.saturating_sub(by.len() as u16);
        let used = groups::name(canvas, state, &RowKey::Site(g.site), x, y, room);
        canvas.put(x + used, y, width - used, &by, Ink::Plain);
    });
    line(canvas, "time", &mut |canvas, x, y, width| {
        let all = (current.running_ns + current.blocked_ns + current.runnable_ns).max(1) as f64;
        let share = |ns: u64| format!("{} ({:.0}%)", words::duration(ns), ns as f64 / all * 100.0);
        let longest = format!(", longest {}", words::duration(current.longest_block_ns));
        let parks = format!(", {} {}", words::count(current.parks), if current.parks == 1 { "park" } else { "parks" });
        let about = match (watched.ended.is_some(), current.first_seen || current.estimated) {
            (true, _) => "  as last seen",
            (false, true) => "  since it was first seen",
            (false, false) => "",
        };
        canvas.run(
            x,
            y,
            width,
            [
                ("running ", Ink::Plain),
                (share(current.running_ns).as_str(), Ink::Running),
                ("  blocked ", Ink::Plain),
                (share(current.blocked_ns).as_str(), Ink::Blocked),
                (longest.as_str(), Ink::Plain),
                (parks.as_str(), Ink::Plain),
                (about, Ink::Faint),
            ],
        );
    });
    line(canvas, "runs", &mut |canvas, x, y, width| {
        let start = state.sites.get(g.site).map(|site| site.start.to_string()).unwrap_or_default();
        canvas.put(x, y, width, &words::elide(&start, usize::from(width), canvas.look.ellipsis()), Ink::Plain);
    });
    let labels: Vec<String> = state.labels(g.goid).iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        line(canvas, "labels", &mut |canvas, x, y, width| {
            canvas.put(x, y, width, &labels.join(" "), Ink::Plain);
        });
    }
}

fn age(g: &Goroutine, at: MonotonicNs) -> String {
    let sign = if g.first_seen { ">" } else { "" };
    format!("{sign}{}", words::duration(at.since(g.created)))
}

fn timeline(canvas: &mut Canvas<'_>, state: &State, opened: &Opened, area: Rect) {
    let watched = &opened.watched;
    let now = watched.ended.map_or(state.now, |ended| ended.min(state.now));
    let from = watched.known_from().unwrap_or(now).0.max(now.0.saturating_sub(STRETCH_NS));
    let from = MonotonicNs(from.min(now.0));
    let told = state.price.level.is_none_or(|level| level == Level::Events);
    let untold = if told { "" } else { "; single steps are told at the detail `events` alone" };
    let title = format!("Timeline, the last {}{untold}", words::duration(now.since(from)));
    let inner = canvas.titled(area, &title, opened.half == Half::Timeline);
    if inner.height < 2 {
        return;
    }
    strip(canvas, opened, (from, now), Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner });
    let rows = Rect { y: inner.y + 1, height: inner.height - 1, ..inner };
    let total = watched.steps(state.now).count();
    let scroll = opened.timeline_scroll.min(total.saturating_sub(usize::from(rows.height)));
    for (y, (time, step, lasted)) in (rows.y..rows.bottom()).zip(watched.steps(state.now).skip(scroll)) {
        let (name, ink) = match step {
            Step::Created => ("runnable".into(), Ink::Runnable),
            Step::Running => ("running".into(), Ink::Running),
            Step::Blocked(reason) => (state.reason(reason), Ink::Blocked),
            Step::Exited => ("ended".into(), Ink::Died),
            Step::Lost => ("events lost".into(), Ink::Alarm),
        };
        let ago = format!("{} ago", words::duration(state.now.since(time)));
        canvas.put_right(rows.x + 1, y, 10, &ago, Ink::Faint);
        if step.state().is_some() {
            canvas.put_right(rows.x + 13, y, 7, &words::duration(lasted), Ink::Plain);
        }
        canvas.put(rows.x + 22, y, rows.width.saturating_sub(23), &name, ink);
    }
    if watched.dropped > 0 && scroll + usize::from(rows.height) > total {
        let y = rows.y + (total - scroll) as u16;
        let text = format!("{} older steps are not kept", words::count(watched.dropped));
        if y < rows.bottom() {
            canvas.put(rows.x + 22, y, rows.width.saturating_sub(23), &text, Ink::Faint);
        }
    }
}

/// The share of time that it ran, piece by piece of the stretch; below the bars' lowest, a sign for each other state.
fn strip(canvas: &mut Canvas<'_>, opened: &Opened, (from, to): (MonotonicNs, MonotonicNs), area: Rect) {
    let spent = opened.watched.spent(from, to, usize::from(area.width));
    for (x, spent) in (area.x..area.right()).zip(&spent) {
        let all = spent.running + spent.runnable + spent.blocked;
        if spent.running > 0 {
            // However short it ran: it did.
            let eighths = (spent.running * 8).div_ceil(all.max(1)).max(1);
            canvas.bars(x, area.y, 1, &[eighths], 8, Ink::Running);
        } else if spent.runnable > spent.blocked {
            canvas.put(x, area.y, 1, canvas.look.sign("\u{2592}", "?"), Ink::Runnable);
        } else if spent.blocked > 0 {
            canvas.put(x, area.y, 1, canvas.look.sign("\u{00b7}", "."), Ink::Blocked);
        }
    }
}

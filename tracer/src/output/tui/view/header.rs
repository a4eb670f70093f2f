//! The top of the picture: which process, how many goroutines, what was lost, what tracing costs; then the way to what is
//! open.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use super::look::Ink;
use crate::governor::Level;
use crate::output::tui::history::History;
use crate::output::tui::keys::Action;
use crate::output::tui::state::{Hit, Pane, Screen, State};
use crate::output::tui::words;

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    title(canvas, state, Rect { height: 1, ..area });
    if area.height > 1 {
        summary(canvas, state, Rect { y: area.y + 1, height: 1, ..area });
    }
    if area.height > 2 {
        meters(canvas, state, Rect { y: area.y + 2, height: area.height - 2, ..area });
    }
}

fn title(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let facts = &state.facts;
    canvas.cover(area, Ink::Bar);
    let mut pieces = vec![format!(" gotracer top  {} ({})", facts.name, facts.pid), facts.go_version.clone()];
    if let Some(started) = facts.started.filter(|_| state.ticks > 0) {
        pieces.push(format!("up {}", words::duration(state.now.since(started))));
    }
    let used = canvas.put(area.x, area.y, area.width, &pieces.join("  "), Ink::Bar);
    let (text, ink) = match (&state.ended, state.paused) {
        (Some(why), _) => (format!(" ENDED: {why} "), Ink::Alarm),
        (None, true) => (" PAUSED ".to_owned(), Ink::Warning),
        (None, false) => (format!("every {:?} ", state.interval), Ink::Bar),
    };
    let room = area.width.saturating_sub(used + 1);
    canvas.put_right(area.x + used + 1, area.y, room, &text, ink);
}

fn summary(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    if state.ticks == 0 {
        canvas.put(area.x, area.y, area.width, " reading the goroutines that are there ...", Ink::Faint);
        return;
    }
    let lost = state.totals.lost;
    let lost = match (lost, state.uncertain) {
        (0, _) => ("0".to_owned(), Ink::Good),
        (n, true) => (words::count(n), Ink::Alarm),
        // What the lost events told is known again, from memory.
        (n, false) => (format!("{} repaired", words::count(n)), Ink::Warning),
    };
    let share = |share: f64| format!("{:.1}%", share * 100.0);
    let price = &state.price;
    let costly = price.target.is_some_and(|target| target > 0.05);
    let figures: [(&str, Option<(String, Ink)>); 6] = [
        (" goroutines ", Some((words::count(state.live.total()), Ink::Figure))),
        (" + runtime ", Some((words::count(state.system.total()), Ink::Strong))),
        ("  lost ", Some(lost)),
        (
            "  detail ",
            price.level.map(|level| {
                // Where not every transition is told, figures of states are worth less.
                let ink = if level == Level::Events { Ink::Strong } else { Ink::Warning };
                (level.name().replace('_', " "), ink)
            }),
        ),
        ("  cost ", price.target.map(|target| (share(target), if costly { Ink::Warning } else { Ink::Strong }))),
        ("  own ", price.own.map(|own| (share(own), Ink::Strong))),
    ];
    let known = figures.iter().filter_map(|(name, figure)| figure.as_ref().map(|(text, ink)| (*name, text, *ink)));
    let pieces = known.flat_map(|(name, text, ink)| [(name, Ink::Plain), (text.as_str(), ink)]);
    canvas.run(area.x, area.y, area.width, pieces);
}

/// One line each: a name, a figure, its course.
fn meters(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let (live, course, rates) = (state.live, &state.course, state.rates);
    let rate = |of: fn(&super::super::sites::Rates) -> f64| rates.map_or("-".to_owned(), |r| words::rate(of(&r)));
    let rss = state.diagnosis.memory.now.rss.map_or("-".to_owned(), words::bytes);
    let left: [(&str, String, &History, Ink); 4] = [
        ("all", words::count(live.total()), &course.live, Ink::Plain),
        ("blocked", words::count(live.blocked), &course.blocked, Ink::Blocked),
        ("running", words::count(live.running), &course.running, Ink::Running),
        ("runnable", words::count(live.runnable), &course.runnable, Ink::Runnable),
    ];
    let right: [(&str, String, &History, Ink); 4] = [
        ("born/s", rate(|r| r.born), &course.born, Ink::Born),
        ("died/s", rate(|r| r.died), &course.died, Ink::Died),
        ("parks/s", rate(|r| r.parks), &course.parks, Ink::Blocked),
        ("memory", rss, &course.rss, Ink::Plain),
    ];
    let half = area.width / 2;
    for (column, meters) in [(area.x, left), (area.x + half, right)] {
        for (y, (name, figure, history, ink)) in (area.y..area.bottom()).zip(meters) {
            canvas.put(column + 1, y, 9, name, ink);
            canvas.put_right(column + 9, y, 11, &figure, Ink::Strong);
            canvas.spark(column + 21, y, half.saturating_sub(22), history, ink);
        }
    }
}

pub(super) fn tabs(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let used = if matches!(state.screen(), Screen::Members | Screen::Goroutine) {
        way(canvas, state, area)
    } else {
        panes(canvas, state, area)
    };
    let filter = match (state.screen(), &state.inside) {
        (Screen::Members, Some(inside)) => inside.query.filter.as_str(),
        (Screen::Groups, _) => state.query.filter.as_str(),
        _ => "",
    };
    let (text, ink) = match (&state.notice, filter) {
        (Some(notice), _) => (notice.clone(), Ink::Warning),
        (None, "") if state.screen() == Screen::Groups => {
            let rows = if state.rows.len() == 1 { "row" } else { "rows" };
            let count = words::count(state.rows.len() as u64);
            (format!("by {}, {count} {rows} ", state.query.group_by.name()), Ink::Faint)
        }
        (None, "") => return,
        (None, filter) => (format!("filter: {filter} "), Ink::Warning),
    };
    let room = area.width.saturating_sub(used + 1);
    canvas.put_right(
        area.x + used + 1,
        area.y,
        room,
        &words::elide(&text, usize::from(room), canvas.look.ellipsis()),
        ink,
    );
}

fn panes(canvas: &mut Canvas<'_>, state: &State, area: Rect) -> u16 {
    let mut x = area.x;
    for (number, pane) in (1..).zip(Pane::ALL) {
        let findings = state.diagnosis.findings.len();
        let name = match pane {
            Pane::Goroutines => "Goroutines".to_owned(),
            Pane::Findings if findings > 0 => format!("Findings: {findings}"),
            Pane::Findings => "Findings".to_owned(),
            Pane::Memory => "Memory".to_owned(),
        };
        let ink = match pane {
            pane if pane == state.pane => Ink::Selected,
            Pane::Findings if findings > 0 => Ink::Alarm,
            _ => Ink::Plain,
        };
        let width = canvas.put(x, area.y, area.right() - x, &format!(" {number} {name} "), ink);
        canvas.hit(Rect { x, width, ..area }, Hit::Do(Action::Show(pane)));
        x += width + 1;
    }
    x - area.x
}

/// What was opened, and in it what.
fn way(canvas: &mut Canvas<'_>, state: &State, area: Rect) -> u16 {
    let back = canvas.look.sign(" \u{25c2} ", " < ");
    let mut used = canvas.put(area.x, area.y, area.width, back, Ink::Strong);
    canvas.hit(Rect { width: used, ..area }, Hit::Do(Action::Back));
    let Some(inside) = &state.inside else { return used };
    let count = inside.members.len();
    let end = match &state.opened {
        Some(opened) => format!(" > goroutine {}", opened.watched.goid),
        None => format!(": {} {}", words::count(count as u64), if count == 1 { "goroutine" } else { "goroutines" }),
    };
    let reserved = end.chars().count() as u16 + if inside.query.filter.is_empty() { 1 } else { 24 };
    let room = area.width.saturating_sub(used + reserved);
    used += super::groups::name(canvas, state, &inside.query.of, area.x + used, area.y, room);
    used + canvas.put(area.x + used, area.y, area.width - used, &end, Ink::Strong)
}

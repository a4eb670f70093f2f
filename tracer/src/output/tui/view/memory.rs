//! Memory, the collector, and how long it lasts.

use ratatui::layout::Rect;

use super::canvas::{Canvas, wrapped};
use super::look::Ink;
use crate::analysis::{Forecast, Trend};
use crate::output::tui::history::History;
use crate::output::tui::state::State;
use crate::output::tui::words;

/// With this chance noise alone would look like growth.
const CHANCE: f64 = 0.01;

fn bytes(n: Option<u64>) -> String {
    n.map_or("-".to_owned(), words::bytes)
}

fn slope(trend: &Trend) -> (String, Ink) {
    if trend.values < 2 {
        return ("-".to_owned(), Ink::Faint);
    }
    let (sign, size) = if trend.per_second < 0.0 { ("-", -trend.per_second) } else { ("+", trend.per_second) };
    match (size as u64, trend.rises(CHANCE)) {
        (0, _) => ("0".to_owned(), Ink::Faint),
        (n, true) => (format!("{sign}{}", words::bytes(n)), Ink::Warning),
        (n, false) => (format!("{sign}{}", words::bytes(n)), Ink::Faint),
    }
}

fn seconds(seconds: f64) -> String {
    words::duration((seconds.clamp(0.0, 1e10) * 1e9) as u64)
}

/// When memory ends, in sentences.
fn outlook(state: &State) -> Vec<(String, Ink)> {
    let Some(forecast) = &state.diagnosis.forecast else {
        return vec![("no limit is in sight: memory does not grow, or none is known".to_owned(), Ink::Good)];
    };
    let Forecast { limit, limit_of, soonest_s, latest_s, confidence, explained, .. } = forecast;
    let range = match latest_s {
        Some(latest) => format!("{} to {}", seconds(*soonest_s), seconds(*latest)),
        None => format!("{} or later, perhaps never", seconds(*soonest_s)),
    };
    let ink = if *soonest_s < 3_600.0 { Ink::Alarm } else { Ink::Warning };
    let limit = words::bytes(*limit);
    let mut said = vec![(
        format!(
            "the limit of {limit} ({limit_of}) is reached in {range}, if it goes on; {:.0}% sure that it grows",
            confidence * 100.0
        ),
        ink,
    )];
    let heap = forecast
        .heap_per_second
        .map_or(String::new(), |heap| format!(", their heap {}/s (estimated)", words::bytes(heap.max(0.0) as u64)));
    if let Some(explained) = explained {
        let stacks = words::bytes(forecast.stacks_per_second.max(0.0) as u64);
        said.push((
            format!(
                "suspected goroutines explain about {:.0}% of it: their stacks {stacks}/s{heap}",
                explained * 100.0
            ),
            Ink::Plain,
        ));
    }
    said
}

fn outlook_lines(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let lines = outlook(state)
        .into_iter()
        .flat_map(|(text, ink)| wrapped(&text, usize::from(area.width)).into_iter().map(move |line| (line, ink)));
    for (y, (line, ink)) in (area.y..area.bottom()).zip(lines) {
        canvas.put(area.x, y, area.width, &line, ink);
    }
}

/// Name, figure, growth, course.
fn figure(canvas: &mut Canvas<'_>, area: Rect, name: &str, now: Option<u64>, trend: &Trend, history: &History) {
    let (growth, ink) = slope(trend);
    let Rect { x, y, width, .. } = area;
    canvas.put(x, y, 14, name, Ink::Plain);
    canvas.put_right(x + 14, y, 7, &bytes(now), Ink::Strong);
    canvas.put_right(x + 22, y, 8, &growth, ink);
    canvas.spark(x + 32, y, width.saturating_sub(33), history, Ink::Plain);
}

/// The few lines beside the table.
pub(super) fn glance(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let inner = canvas.titled(area, "Memory", true);
    if inner.height < 4 {
        return;
    }
    let (memory, course) = (&state.diagnosis.memory, &state.course);
    let line = |n: u16| Rect { x: inner.x + 1, y: inner.y + n, width: inner.width.saturating_sub(2), height: 1 };
    canvas.put_right(line(0).x + 14, line(0).y, 7, "NOW", Ink::Faint);
    canvas.put_right(line(0).x + 22, line(0).y, 8, "GROWTH/s", Ink::Faint);
    figure(canvas, line(1), "resident", memory.now.rss, &memory.used, &course.rss);
    figure(canvas, line(2), "heap", memory.now.heap_live, &memory.heap, &course.heap);
    figure(canvas, line(3), "stacks", memory.now.stacks, &memory.stacks, &course.stacks);
    let rest = Rect { y: inner.y + 5, height: inner.height.saturating_sub(5), ..line(0) };
    outlook_lines(canvas, state, rest);
}

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let (memory, course) = (&state.diagnosis.memory, &state.course);
    let now = &memory.now;
    let left = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let mut y = area.y;
    let mut next = || {
        let line = Rect { y, height: 1, ..left };
        y += 1;
        line
    };
    let heads = next();
    canvas.put_right(heads.x + 14, heads.y, 7, "NOW", Ink::Faint);
    canvas.put_right(heads.x + 22, heads.y, 8, "GROWTH/s", Ink::Faint);
    figure(canvas, next(), "resident", now.rss, &memory.used, &course.rss);
    figure(canvas, next(), "heap", now.heap_live, &memory.heap, &course.heap);
    figure(canvas, next(), "stacks", now.stacks, &memory.stacks, &course.stacks);
    next();
    let share = now.gc_cpu_share.map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0));
    let pause = memory.gc_pause_ns.map_or("-".to_owned(), |ns| words::duration(ns.max(0.0) as u64));
    let per_second = memory.gc_per_second.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
    let count = |n: Option<u64>| n.map_or("-".to_owned(), words::count);
    let or_none = |n: Option<u64>| n.map_or("none".to_owned(), words::bytes);
    let facts: [(&str, Vec<(&str, String)>); 4] = [
        (
            "heap",
            vec![
                ("live after the last collection ", bytes(now.heap_marked)),
                ("next collection at ", bytes(now.heap_goal)),
            ],
        ),
        (
            "collector",
            vec![
                ("cycles ", format!("{} ({per_second}/s)", count(now.gc_cycles))),
                ("each stops the world for ", pause),
                ("CPU ", share),
            ],
        ),
        (
            "limits",
            vec![
                ("cgroup ", or_none(now.cgroup_limit)),
                ("used ", bytes(now.cgroup_used)),
                ("GOMEMLIMIT ", or_none(now.go_limit)),
                ("machine ", bytes(now.machine)),
            ],
        ),
        ("runtime", vec![("threads ", count(now.threads)), ("timers ", count(now.timers))]),
    ];
    for (name, figures) in facts {
        let line = next();
        canvas.put(line.x, line.y, 14, name, Ink::Plain);
        let pieces: Vec<(String, Ink)> = figures
            .into_iter()
            .flat_map(|(name, value)| [(name.to_owned(), Ink::Faint), (format!("{value}   "), Ink::Strong)])
            .collect();
        let pieces = pieces.iter().map(|(text, ink)| (text.as_str(), *ink));
        canvas.run(line.x + 15, line.y, line.width.saturating_sub(15), pieces);
    }
    let rest = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let inner = canvas.titled(rest, "Forecast", true);
    outlook_lines(canvas, state, Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner });
}

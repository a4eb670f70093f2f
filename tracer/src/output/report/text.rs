//! A report for a terminal.

use std::io::{self, Write};

use super::{Call, Creator, Report, duration};
use crate::governor::Quality;
use crate::output::text::place;

/// Rows of each table; JSON has all.
const ROWS: usize = 20;
/// Rows of what comes with stacks.
const PLACES: usize = 8;
/// Calls of a stack.
const CALLS: usize = 8;
/// Lines of the tree.
const TREE: usize = 40;
/// As wide as the curve of live goroutines gets.
const CURVE: usize = 72;

/// Writes a report for a person to read.
///
/// # Errors
///
/// If `out` fails.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    head(out, report)?;
    timeline(out, report)?;
    sites(out, report)?;
    reasons(out, report)?;
    waits(out, report)?;
    longest(out, report)?;
    lifetimes(out, report)?;
    creators(out, report)
}

fn title(out: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", text.to_uppercase())
}

fn head(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let (recording, totals) = (&report.recording, &report.totals);
    let program = report.programs.last();
    let exe = program.map_or("a program", |program| program.exe.as_str());
    let version = program.map_or("", |program| program.go_version.as_str());
    write!(out, "process {} ({exe}", recording.pid)?;
    if !version.is_empty() {
        write!(out, ", {version}")?;
    }
    write!(out, ")")?;
    if !recording.host.is_empty() {
        write!(out, " on {}, Linux {}", recording.host, recording.kernel)?;
    }
    writeln!(out)?;
    write!(out, "{} events in {}", totals.events, duration(totals.duration_ns))?;
    match &report.end {
        Some(end) if end.why == "exited" => writeln!(out, "; then the process exited")?,
        Some(end) if end.why == "full" => writeln!(out, "; then there was no more space for the recording")?,
        Some(end) if end.why == "rotated" => writeln!(out, "; the next file goes on")?,
        Some(end) if end.why == "replaced" => writeln!(out, "; then the process replaced its program")?,
        Some(_) => writeln!(out)?,
        None => writeln!(out, "; the recording has no end: whoever wrote it was killed, or still writes")?,
    }
    write!(out, "{} created, {} exited", totals.created, totals.exited)?;
    if report.quality.states == Quality::Exact {
        write!(out, ", {} blocked, {} running", totals.blocked, totals.running)?;
    }
    let (live, system, lost) = (totals.live, totals.system, totals.lost);
    writeln!(out, "; {live} live, and {system} of the runtime's own; {lost} events lost")?;
    if report.quality.states != Quality::Exact {
        let level = &recording.detail;
        writeln!(
            out,
            "recorded with detail {level}: not every park and run is in it, states are those of its readings"
        )?;
    }
    if report.quality.lives != Quality::Exact {
        writeln!(out, "births and ends were left out at times, so their figures are lower bounds")?;
    }
    if totals.lost > 0 {
        writeln!(out, "events were lost, so every figure is a lower bound")?;
    }
    for damage in &report.damages {
        writeln!(out, "damaged at byte {}: {} ({} bytes passed over)", damage.offset, damage.what, damage.bytes)?;
    }
    for detail in &report.details {
        writeln!(out, "from {} on, recorded with detail {}", duration(detail.at_ns), detail.level)?;
    }
    Ok(())
}

/// Live goroutines over time, as a curve of eight heights.
fn timeline(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let timeline = &report.timeline;
    let per = timeline.buckets.len().div_ceil(CURVE).max(1);
    let curve = |values: &[u64]| -> (String, u64, u64) {
        let points: Vec<u64> = values.chunks(per).filter_map(|chunk| chunk.iter().max().copied()).collect();
        let (least, most) = (points.iter().min().copied().unwrap_or(0), points.iter().max().copied().unwrap_or(0));
        let height = |value: u64| {
            let eighths = if most == 0 { 0 } else { value.saturating_mul(7).div_ceil(most) };
            ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}']
                [usize::try_from(eighths).unwrap_or(7).min(7)]
        };
        (points.into_iter().map(height).collect(), least, most)
    };
    title(out, &format!("over time ({} a column)", duration(timeline.interval_ns.saturating_mul(per as u64))))?;
    let live = |b: &super::Bucket| b.live_runnable + b.live_running + b.live_blocked;
    let rows: [(&str, Vec<u64>); 4] = [
        ("live", timeline.buckets.iter().map(live).collect()),
        ("created", timeline.buckets.iter().map(|b| b.created).collect()),
        ("exited", timeline.buckets.iter().map(|b| b.exited).collect()),
        ("blocked", timeline.buckets.iter().map(|b| b.blocked).collect()),
    ];
    for (name, values) in rows {
        let (points, least, most) = curve(&values);
        writeln!(out, "{name:>8}  {points}  {least} to {most}")?;
    }
    Ok(())
}

/// Writes a table: all columns but the last two to the right.
fn table<const N: usize>(out: &mut impl Write, head: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in [head.map(str::to_owned)].iter().chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            if column + 2 < N {
                line += &format!("{cell:>width$}  ");
            } else {
                line += &format!("{cell:<width$}  ");
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn more(out: &mut impl Write, of: usize, shown: usize, what: &str) -> io::Result<()> {
    if of > shown {
        writeln!(out, "and {} more {what}; --json has them all", of - shown)?;
    }
    Ok(())
}

fn maybe(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), |ns| format!("<{}", duration(ns)))
}

fn sites(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "by creation site")?;
    let exact = |figure: String| if report.quality.states == Quality::Exact { figure } else { "-".to_owned() };
    let rows: Vec<[String; 8]> = report
        .sites
        .iter()
        .take(ROWS)
        .map(|row| {
            [
                row.created.to_string(),
                row.exited.to_string(),
                row.live.to_string(),
                exact(row.blocked.to_string()),
                exact(duration(row.blocked_ns)),
                maybe(row.median_life_ns),
                place(&row.site),
                row.start.to_string(),
            ]
        })
        .collect();
    table(out, ["CREATED", "EXITED", "LIVE", "BLOCKS", "BLOCKED", "HALF LIVED", "CREATED AT", "RUNS"], &rows)?;
    more(out, report.sites.len(), ROWS, "sites")
}

fn reasons(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "by wait reason")?;
    let rows: Vec<[String; 7]> = report
        .reasons
        .iter()
        .take(ROWS)
        .map(|row| {
            [
                row.blocks.to_string(),
                duration(row.blocked_ns),
                maybe(row.median_ns),
                maybe(row.p99_ns),
                row.waiting.to_string(),
                row.reason.clone(),
                String::new(),
            ]
        })
        .collect();
    table(out, ["BLOCKS", "BLOCKED", "MEDIAN", "P99", "WAIT NOW", "REASON", ""], &rows)?;
    more(out, report.reasons.len(), ROWS, "reasons")
}

fn known(known: &str) -> &'static str {
    match known {
        "seen" => "",
        "same_goroutine" => "  (stack of another wait of the same goroutine)",
        _ => "  (stack not read)",
    }
}

fn stack(out: &mut impl Write, stack: &[Call]) -> io::Result<()> {
    // The runtime's own innermost calls say no more than the reason does.
    let own = stack.iter().position(|call| !call.function.starts_with("runtime.")).unwrap_or(0);
    let stack = stack.get(own..).unwrap_or_default();
    for call in stack.iter().take(CALLS) {
        let site =
            crate::output::SiteName { function: call.function.clone(), file: call.file.clone(), line: call.line };
        writeln!(out, "        {}", place(&site))?;
    }
    if stack.len() > CALLS {
        writeln!(out, "        and {} more calls", stack.len() - CALLS)?;
    }
    Ok(())
}

fn waits(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "where time is spent blocked")?;
    let own: Vec<_> = report.waits.iter().filter(|row| !crate::go_runtime::Owner::of(&row.start).is_system()).collect();
    for row in own.iter().take(PLACES) {
        writeln!(
            out,
            "{:>9}  {} blocks, {} wait now: {}{}",
            duration(row.blocked_ns),
            row.blocks,
            row.waiting,
            row.reason,
            known(row.known)
        )?;
        stack(out, &row.stack)?;
        writeln!(out, "        {}, created at {}", row.start, place(&row.site))?;
    }
    more(out, own.len() + report.more_waits, PLACES, "places")
}

fn longest(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "longest blocks")?;
    let rows: Vec<[String; 6]> = report
        .longest
        .iter()
        .take(ROWS / 2)
        .map(|row| {
            [
                duration(row.ns),
                format!("{}{}", duration(row.at_ns), if row.goes_on { " on" } else { "" }),
                row.goid.to_string(),
                row.reason.clone(),
                place(&row.site),
                row.start.to_string(),
            ]
        })
        .collect();
    table(out, ["BLOCKED", "FROM", "GOROUTINE", "REASON", "CREATED AT", "RUNS"], &rows)
}

fn lifetimes(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "lifetimes of those born and ended here")?;
    let most = report.lifetimes.iter().map(|row| row.count).max().unwrap_or(0);
    if most == 0 {
        return writeln!(out, "    none was");
    }
    for row in &report.lifetimes {
        let width = usize::try_from(row.count.saturating_mul(50).div_ceil(most)).unwrap_or(50);
        writeln!(out, "{:>9} on  {:>9}  {}", duration(row.from_ns), row.count, "\u{2588}".repeat(width))?;
    }
    Ok(())
}

fn creators(out: &mut impl Write, report: &Report) -> io::Result<()> {
    title(out, "who creates whom")?;
    let mut left = TREE;
    for tree in &report.creators {
        creator(out, tree, 0, &mut left)?;
    }
    if left == 0 { writeln!(out, "and more; --json has all") } else { Ok(()) }
}

fn creator(out: &mut impl Write, node: &Creator, depth: usize, left: &mut usize) -> io::Result<()> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    let (indent, again) = ("  ".repeat(depth), if node.again { " (as above)" } else { "" });
    writeln!(
        out,
        "{:>9} {:>9} live  {indent}{}, at {}{again}",
        node.created,
        node.live,
        node.start,
        place(&node.site)
    )?;
    for child in &node.creates {
        creator(out, child, depth + 1, left)?;
    }
    Ok(())
}

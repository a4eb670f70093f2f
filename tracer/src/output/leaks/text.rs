//! The report as text.

use std::io::{self, Write};

use super::{Report, place};
use crate::analysis::{Finding, Forecast, Severity, SiteState, SiteTrend, Verdict, duration, rate};
use crate::output::dump::bytes;
use crate::output::thousands;

/// Frames shown of a stack.
const FRAMES: usize = 4;
/// Steady and growing sites shown.
const SITES: usize = 8;

/// Writes the whole report.
///
/// # Errors
///
/// If `out` fails.
pub fn write_text(out: &mut dyn Write, report: &Report<'_>, colour: bool) -> io::Result<()> {
    head(out, report)?;
    if let Verdict::TooShort { seen_s, needed_s } = report.verdict {
        let why = if report.looks > 1 {
            format!("Too short for a verdict on growth: {seen_s:.1} s of at least {needed_s:.0} s.")
        } else {
            "A single look cannot tell growth.".to_owned()
        };
        writeln!(out, "\n{why} What stands still is told.")?;
    }
    if report.findings.is_empty() {
        let verdict = report.verdict == Verdict::Enough;
        writeln!(out, "\n{}", if verdict { "Nothing suspected." } else { "Nothing found that stands still." })?;
    } else {
        let order = if report.findings.len() > 1 { ", the worst first" } else { "" };
        writeln!(out, "\n{} suspected{order}:", report.findings.len())?;
    }
    for (i, finding) in report.findings.iter().enumerate() {
        writeln!(out)?;
        write_finding(out, i + 1, finding, colour)?;
    }
    sites(out, report)?;
    memory(out, report)
}

fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{} {noun}s", thousands(n)) }
}

fn head(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    let subject = report.subject;
    let name = subject.name.rsplit('/').next().unwrap_or_default();
    match subject.pid {
        Some(pid) => write!(out, "process {pid}, {name}")?,
        None => write!(out, "{}", subject.name)?,
    }
    if let Some(version) = &subject.go_version {
        write!(out, " ({version})")?;
    }
    let looks = count(report.looks, "look");
    match report.looks {
        0 | 1 => write!(out, ": a single look")?,
        _ => write!(out, ": {:.0} s by {looks}", report.seconds)?,
    }
    let share = 100.0 * report.parked as f64 / report.goroutines.max(1) as f64;
    write!(out, ", {}, {share:.0} % parked", count(report.goroutines, "goroutine"))?;
    if report.lost > 0 {
        write!(out, "; {} events lost, births and ends are lower bounds", thousands(report.lost))?;
    }
    writeln!(out)?;
    if let Some(why) = &subject.ended {
        writeln!(out, "{why}")?;
    }
    Ok(())
}

/// Writes one finding under its number.
///
/// # Errors
///
/// If `out` fails.
pub fn write_finding(out: &mut dyn Write, number: usize, finding: &Finding, colour: bool) -> io::Result<()> {
    let paint = match finding.severity {
        _ if !colour => ("", ""),
        Severity::Notice => ("\x1b[33m", "\x1b[0m"),
        Severity::Warning => ("\x1b[31m", "\x1b[0m"),
        Severity::Critical => ("\x1b[1;31m", "\x1b[0m"),
    };
    writeln!(
        out,
        "{number}. {}{}{}  {}: {}  (score {:.2})",
        paint.0,
        finding.severity,
        paint.1,
        finding.kind.name(),
        finding.kind.title(),
        finding.score
    )?;
    if let Some(site) = &finding.site {
        writeln!(out, "   go statement  {}", place(site))?;
        writeln!(out, "   runs          {}", site.start)?;
    }
    let mut facts = vec![count(finding.count, "goroutine")];
    match finding.per_second {
        Some(per_second) if per_second > 0.0 => facts.push(format!("{} more", rate(per_second))),
        Some(_) => facts.push("not growing".to_owned()),
        None => {}
    }
    if let Some(ns) = finding.since_ns {
        facts.push(format!("oldest at least {}", duration(ns)));
    }
    if finding.stack_bytes > 0 {
        facts.push(format!("{} of stack", bytes(finding.stack_bytes)));
    }
    if finding.site.is_some() {
        writeln!(out, "   {}", facts.join(", "))?;
    }
    for evidence in &finding.evidence {
        writeln!(out, "   - {}", evidence.words)?;
    }
    if !finding.stack.is_empty() {
        writeln!(out, "   stands in [{}]", finding.reason)?;
        for frame in finding.stack.iter().take(FRAMES) {
            writeln!(out, "       {}  {}:{}", frame.function, super::super::text::short_file(&frame.file), frame.line)?;
        }
        if finding.stack.len() > FRAMES {
            writeln!(out, "       and {} more", count((finding.stack.len() - FRAMES) as u64, "frame"))?;
        }
    }
    for (i, creator) in finding.creators.iter().take(3).enumerate() {
        let by = if i == 0 { "started by goroutines of" } else { "themselves started by" };
        writeln!(out, "   {by} {}", place(creator))?;
    }
    writeln!(out, "   > {}", finding.advice)
}

fn sites(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    let growing: Vec<&SiteTrend> = report.in_state(SiteState::Growing).collect();
    if !growing.is_empty() {
        writeln!(out, "\nGrowing, without a sign that it will not end:")?;
        for site in growing.iter().take(SITES) {
            let more = format!("{} more", rate(site.growth.per_second));
            writeln!(out, "{:>8} {:<28}  {}", site.live, more, place(&site.key))?;
        }
    }
    let steady: Vec<&SiteTrend> = report.in_state(SiteState::Steady).collect();
    if !steady.is_empty() {
        writeln!(out, "\nSteady:")?;
        for site in steady.iter().take(SITES) {
            let moves = match (site.born_per_second, site.died_per_second) {
                (Some(born), Some(died)) if born + died > 0.0 => format!("{} born, {} ended", rate(born), rate(died)),
                _ => String::new(),
            };
            writeln!(out, "{:>8} {moves:<28}  {}", site.live, place(&site.key))?;
        }
        if let Some(rest) = steady.get(SITES..).filter(|rest| !rest.is_empty()) {
            let live: u64 = rest.iter().map(|site| site.live).sum();
            writeln!(out, "{live:>8} {:<28}  at {} more", "", count(rest.len() as u64, "site"))?;
        }
    }
    Ok(())
}

fn memory(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    let memory = report.memory;
    let now = &memory.now;
    let known = [("resident", now.rss), ("heap", now.heap_live), ("stacks", now.stacks)];
    let mut facts: Vec<String> =
        known.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", bytes(value?)))).collect();
    if facts.is_empty() {
        return Ok(());
    }
    if let Some(goal) = now.heap_goal {
        facts.push(format!("next collection at {}", bytes(goal)));
    }
    if let Some(per_second) = memory.gc_per_second {
        facts.push(format!("collections {}", rate(per_second)));
    }
    if let Some(ns) = memory.gc_pause_ns {
        facts.push(format!("pauses {} each", duration(ns as u64)));
    }
    if let Some(timers) = now.timers {
        facts.push(count(timers, "timer"));
    }
    if let Some(limit) = now.go_limit {
        facts.push(format!("GOMEMLIMIT {}", bytes(limit)));
    }
    if let Some(limit) = now.cgroup_limit {
        facts.push(format!("cgroup limit {}", bytes(limit)));
    }
    writeln!(out, "\nMemory: {}", facts.join(", "))?;
    match report.forecast {
        Some(forecast) => write_forecast(out, report, forecast),
        None if report.looks > 1 && report.seconds >= 10.0 => writeln!(out, "  no growth that stands out from noise"),
        None => Ok(()),
    }
}

fn write_forecast(out: &mut dyn Write, report: &Report<'_>, forecast: &Forecast) -> io::Result<()> {
    let seconds = |s: f64| duration((s * 1e9) as u64);
    let latest = forecast.latest_s.map_or_else(|| "never".to_owned(), seconds);
    let growth = &report.memory.used;
    writeln!(
        out,
        "  grows by {}/s ({} to {}); the {} limit of {} in {} to {latest} at this rate ({:.0} % sure that it grows)",
        bytes(growth.per_second as u64),
        bytes(growth.low.max(0.0) as u64),
        bytes(growth.high as u64),
        forecast.limit_of,
        bytes(forecast.limit),
        seconds(forecast.soonest_s),
        (forecast.confidence * 100.0).min(99.0)
    )?;
    if let Some(explained) = forecast.explained {
        let heap = forecast.heap_per_second.map_or_else(
            || "their heap could not be estimated".to_owned(),
            |heap| format!("about {}/s of heap (estimated)", bytes(heap as u64)),
        );
        writeln!(
            out,
            "  the suspected goroutines explain about {:.0} % of it: {}/s of stacks, {heap}",
            explained * 100.0,
            bytes(forecast.stacks_per_second as u64)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 12, 123, 1234, 123_456, 1_234_567].map(thousands),
            ["0", "12", "123", "1,234", "123,456", "1,234,567"]
        );
        assert_eq!((count(1, "look"), count(2, "look")), ("1 look".to_owned(), "2 looks".to_owned()));
    }
}

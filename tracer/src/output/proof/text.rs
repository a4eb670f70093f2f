//! The report as text: the lines that leak, and one goroutine of each.

use std::io::{self, Write};

use super::{Counts, LeakReport, Report, SiteReport};
use crate::output::dump::bytes;
use crate::output::thousands;
use crate::proof::Blocked;

/// Frames shown of a stack.
const FRAMES: usize = 4;
/// Types shown of what a site holds.
const TYPES: usize = 3;
/// Channels shown of a select.
const CHANNELS: usize = 4;

/// `go` statements written where nothing else is asked for.
pub const SITES: usize = 20;

/// Writes the report, of the `go` statements the first `limit`.
///
/// # Errors
///
/// If `out` fails.
pub fn write_text(out: &mut dyn Write, report: &Report, limit: usize) -> io::Result<()> {
    let name = report.name.rsplit('/').next().unwrap_or_default();
    let figures = &report.last_pass;
    let passes = count(report.passes as usize, "pass", "passes");
    writeln!(out, "process {}, {name} ({}): {passes} in {:.1} s", report.pid, report.go_version, report.seconds)?;
    let all = count(figures.goroutines, "goroutine", "goroutines");
    writeln!(
        out,
        "{all}, {} wait on synchronisation; {}",
        thousands(figures.blocked as u64),
        summary(report.counts())
    )?;
    for site in report.sites.iter().take(limit) {
        write_site(out, report, site)?;
    }
    let rest = report.sites.get(limit..).unwrap_or_default();
    if !rest.is_empty() {
        let goroutines = rest.iter().map(|site| site.counts.all()).sum();
        let (sites, goroutines) =
            (count(rest.len(), "go statement", "go statements"), count(goroutines, "goroutine", "goroutines"));
        writeln!(out, "\n{sites} more, of {goroutines}; --limit shows more")?;
    }
    Ok(())
}

/// `81 leaked, 9 suspected`.
fn summary(counts: Counts) -> String {
    let parts = [
        (counts.confirmed, "confirmed leaked"),
        (counts.leaked, "leaked"),
        (counts.suspected, "suspected"),
        (counts.unknown, "unknown"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", thousands(*n as u64))).collect();
    if parts.is_empty() { "none is leaked".to_owned() } else { parts.join(", ") }
}

fn write_site(out: &mut dyn Write, report: &Report, site: &SiteReport) -> io::Result<()> {
    let held = &site.retained_estimate;
    let hold = format!("about {}", bytes(held.heap_bytes + held.stack_bytes));
    let place = format!("{} {}:{}", site.function, short(&site.file), site.line);
    let all = site.counts.all();
    if site.counts.proven() == all {
        let verb = if all == 1 { "holds" } else { "hold" };
        writeln!(out, "\n{place} has leaked {} that {verb} {hold}", count(all, "goroutine", "goroutines"))?;
    } else {
        writeln!(out, "\n{place}: {}, together they hold {hold}", summary(site.counts))?;
    }
    write!(out, "  held: {} of stacks, {} in ", bytes(held.stack_bytes), bytes(held.heap_bytes))?;
    write!(out, "{}", count(held.objects as usize, "object", "objects"))?;
    for kind in held.types.iter().take(TYPES) {
        write!(out, ", {} of {}", bytes(kind.bytes), kind.name)?;
    }
    writeln!(out)?;
    let Some(leak) = site.example.and_then(|i| report.goroutines.get(i)) else { return Ok(()) };
    writeln!(out, "  such as goroutine {} [{}]: {}", leak.goid, leak.reason, waits_for(leak))?;
    for frame in leak.stack.iter().take(FRAMES) {
        writeln!(out, "    {} {}:{}", frame.function, short(&frame.file), frame.line)?;
    }
    if leak.stack.len() > FRAMES {
        writeln!(out, "    ... {} more", leak.stack.len() - FRAMES)?;
    }
    Ok(())
}

/// What a goroutine waits for, in words.
fn waits_for(leak: &LeakReport) -> String {
    let object = |waited: &crate::proof::WaitedFor| match &waited.channel {
        Some(channel) => {
            let of = channel.element.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
            format!("channel {}{of}, {} of {} queued", waited.address, channel.len, channel.capacity)
        }
        None => format!("semaphore {}", waited.address),
    };
    match leak.blocked {
        Blocked::Forever => "nothing can wake it".to_owned(),
        Blocked::Condition => "a condition that nothing reaches".to_owned(),
        Blocked::Channel | Blocked::Semaphore => {
            let mut texts: Vec<String> = leak.waits_for.iter().take(CHANNELS).map(object).collect();
            if leak.waits_for.len() > CHANNELS {
                texts.push(format!("{} more", leak.waits_for.len() - CHANNELS));
            }
            format!("nothing that can run reaches {}", texts.join("; "))
        }
    }
}

/// The last two parts of a path.
fn short(path: &str) -> &str {
    path.rmatch_indices('/').nth(1).and_then(|(at, _)| path.get(at + 1..)).unwrap_or(path)
}

fn count(n: usize, one: &str, more: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {more}", thousands(n as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::proof::FrameReport;
    use crate::proof::{ChannelFacts, Figures, Retained, RetainedType, Verdict, WaitedFor};
    use crate::units::{Goid, RemoteAddr};

    #[test]
    fn the_line_that_leaks_comes_first() {
        let channel = ChannelFacts { capacity: 0, len: 0, element: Some("*main.report".to_owned()) };
        let leak = LeakReport {
            goid: Goid(129),
            verdict: Verdict::Leaked,
            passes: 3,
            reason: "chan send".to_owned(),
            blocked: Blocked::Channel,
            waits_for: vec![WaitedFor { address: RemoteAddr(0xc000_1000), channel: Some(channel) }],
            created_by: "main.search".to_owned(),
            created_at: "/src/leaky/main.go:48".to_owned(),
            waited_ns: None,
            stack: vec![FrameReport {
                function: "main.query".to_owned(),
                file: "/src/leaky/main.go".to_owned(),
                line: 55,
            }],
        };
        let types = vec![RetainedType { name: "main.page".to_owned(), objects: 900, bytes: 50 << 20 }];
        let report = Report {
            pid: 4119,
            name: "/srv/leaky".to_owned(),
            go_version: "go1.27.3".to_owned(),
            passes: 3,
            seconds: 2.04,
            seed: 1,
            last_pass: Figures { goroutines: 1300, blocked: 1210, ..Figures::default() },
            sites: vec![SiteReport {
                function: "main.search".to_owned(),
                file: "/src/leaky/main.go".to_owned(),
                line: 48,
                counts: Counts { leaked: 1204, ..Counts::default() },
                retained_estimate: Retained { stack_bytes: 5 << 20, heap_bytes: 56 << 20, objects: 30_000, types },
                example: Some(0),
            }],
            goroutines: vec![leak],
        };
        let mut text = Vec::new();
        write_text(&mut text, &report, SITES).expect("writes");
        let expected = "\
process 4119, leaky (go1.27.3): 3 passes in 2.0 s
1,300 goroutines, 1,210 wait on synchronisation; 1 leaked

main.search leaky/main.go:48 has leaked 1,204 goroutines that hold about 61.0 MiB
  held: 5.0 MiB of stacks, 56.0 MiB in 30,000 objects, 50.0 MiB of main.page
  such as goroutine 129 [chan send]: nothing that can run reaches channel 0xc0001000 of *main.report, 0 of 0 queued
    main.query leaky/main.go:55
";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
        let mut text = Vec::new();
        write_text(&mut text, &report, 0).expect("writes");
        let expected = "\
process 4119, leaky (go1.27.3): 3 passes in 2.0 s
1,300 goroutines, 1,210 wait on synchronisation; 1 leaked

1 go statement more, of 1,204 goroutines; --limit shows more
";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }
}

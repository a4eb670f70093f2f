//! Text for a terminal: one aligned line an event, coloured where the reader is a person.

use std::io::{self, Write};

use super::{Names, SiteName};
use crate::events::{Event, LossCause, Transition};
use crate::governor::{Change, Overhead, Why};
use crate::units::MonotonicNs;

/// How to write text.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether to colour.
    pub colour: bool,
    /// The moment that is shown as 0.
    pub start: MonotonicNs,
}

impl Style {
    fn paint(self, colour: &'static str) -> (&'static str, &'static str) {
        if self.colour { (colour, "\x1b[0m") } else { ("", "") }
    }
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[34m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";

/// Writes one event: seconds since the start, what happened, to which goroutine, and the details.
///
/// # Errors
///
/// If `out` fails.
pub fn event(out: &mut impl Write, event: &Event, names: &mut impl Names, style: Style) -> io::Result<()> {
    let seconds = event.time().since(style.start) as f64 / 1e9;
    let (dim, plain) = style.paint(DIM);
    write!(out, "{dim}{seconds:>12.6}{plain}  ")?;
    let mut head = |name: &str, colour, goid: &dyn std::fmt::Display| {
        let (colour, plain) = style.paint(colour);
        write!(out, "{colour}{name:<8}{plain}  {goid:>9}")
    };
    match *event {
        Event::Goroutine { goid, transition, .. } => match transition {
            Transition::Created { parent, gopc, startpc } => {
                head("created", GREEN, &goid)?;
                let site = names.site(gopc);
                writeln!(out, "  {} by goroutine {parent}, at {}", names.function(startpc), place(&site))
            }
            Transition::Blocked { reason } => {
                head("blocked", YELLOW, &goid)?;
                writeln!(out, "  {}", names.reason(reason))
            }
            Transition::Running => {
                head("running", BLUE, &goid)?;
                writeln!(out)
            }
            Transition::Exited => {
                head("exited", RED, &goid)?;
                writeln!(out)
            }
        },
        Event::Exec { .. } => {
            head("exec", BOLD, &"-")?;
            writeln!(out, "  the process replaced its program")
        }
        Event::Lost { cpu, count, cause, .. } => {
            head("lost", RED, &"-")?;
            writeln!(out, "  {count} events on CPU {cpu}: {}", cause_in_words(cause))
        }
    }
}

/// Writes a change of the level of detail.
///
/// # Errors
///
/// If `out` fails.
pub fn change(out: &mut impl Write, change: &Change, style: Style) -> io::Result<()> {
    let seconds = change.time_ns.since(style.start) as f64 / 1e9;
    let (dim, plain) = style.paint(DIM);
    let (bold, unbold) = style.paint(BOLD);
    let why = match change.why {
        Why::OverBudget { cost } => format!("tracing cost {}, above the budget", percent(cost)),
        Why::Fits { expected } => format!("expected to cost {}", percent(expected)),
    };
    writeln!(out, "{dim}{seconds:>12.6}{plain}  {bold}{:<8}{unbold}  {:>9}  {}: {why}", "detail", "-", change.to)
}

/// What tracing costs, for a status line.
#[must_use]
pub fn overhead(overhead: &Overhead) -> String {
    format!(
        "tracing costs {} of the process's CPU time ({} of this machine's), {:.0} hits/s",
        percent(overhead.of_target),
        percent(overhead.of_host),
        overhead.hits_per_second()
    )
}

/// A share as a percentage of two figures.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 9.95 => format!("{p:.0} %"),
        p if p >= 0.995 => format!("{p:.1} %"),
        p if p >= 0.0005 => format!("{p:.2} %"),
        p if p > 0.0 => "less than 0.01 %".to_owned(),
        _ => "0 %".to_owned(),
    }
}

/// Why events were lost.
#[must_use]
pub fn cause_in_words(cause: LossCause) -> &'static str {
    match cause {
        LossCause::BufferFull => "the buffer was full",
        LossCause::NoBuffer => "the CPU came online after the start",
        LossCause::UnreadableG => "the goroutine's g was not in memory",
        LossCause::NotRecorded => "the recording could not be written fast enough",
        LossCause::NoRecord => "the kernel has no room for more goroutines' records",
    }
}

/// `function file:line`, the file without its directories but the last.
#[must_use]
pub fn place(site: &SiteName) -> String {
    if site.file.is_empty() {
        return site.function.to_string();
    }
    format!("{} {}:{}", site.function, short_file(&site.file), site.line)
}

/// The last two parts of a path: enough to find the file, short enough for a line.
pub(super) fn short_file(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/').map(|(at, _)| at);
    match slashes.nth(1) {
        Some(at) => path.get(at + 1..).unwrap_or(path),
        None => path.trim_start_matches('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages_of_two_figures() {
        let shown: Vec<String> = [0.0, 0.000_000_1, 0.000_1, 0.0123, 0.123, 1.0].into_iter().map(percent).collect();
        assert_eq!(shown, ["0 %", "less than 0.01 %", "0.01 %", "1.2 %", "12 %", "100 %"]);
    }

    #[test]
    fn a_file_keeps_its_last_directory() {
        assert_eq!(short_file("/home/me/server/http/main.go"), "http/main.go");
        assert_eq!(short_file("/main.go"), "main.go");
        assert_eq!(short_file("main.go"), "main.go");
        assert_eq!(short_file("./x.go"), "./x.go");
    }
}

//! The head of a goroutine in Go's traceback: `goroutine 7 [chan receive, 12 minutes, locked to thread] {user: 42}:`.
//!
//! After `goroutineheader` of each version:
//! - 1.18 to 1.23: <https://github.com/golang/go/blob/go1.21.13/src/runtime/traceback.go#L1170-L1206>
//! - 1.24: synctest groups, <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go#L1219-L1269>
//! - 1.25: bubbles, `(durable)`, <https://github.com/golang/go/blob/go1.25.5/src/runtime/traceback.go#L1219-L1276>
//! - 1.26: `(leaked)`, labels within the brackets if GODEBUG=tracebacklabels=1,
//!   <https://github.com/golang/go/blob/go1.26.6/src/runtime/traceback.go#L1225-L1295>
//! - 1.27: labels behind the brackets unless GODEBUG=tracebacklabels=0,
//!   <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L1269-L1356>
//!
//! With GOTRACEBACK=system Go adds addresses of its structs; that is left out.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::View;
use crate::go_runtime::Status;
use crate::snapshot::Goroutine;

/// Writes the head's line.
pub(super) fn head(out: &mut impl Write, view: &View<'_>, g: &Goroutine) -> io::Result<()> {
    let minor = view.minor();
    let status = view.status(g);
    write!(out, "goroutine {} [{status}", g.goid)?;
    if g.status == Status::Leaked {
        out.write_all(b" (leaked)")?;
    }
    if g.scan {
        out.write_all(b" (scan)")?;
    }
    let bubble = view.snapshot.bubble(g);
    if bubble.is_some() && is_durable(view, g) && !status.ends_with("(durable)") {
        out.write_all(b" (durable)")?;
    }
    match view.waited(g) {
        // No Go program knows that; who had us watch wants to.
        Some(ns) if g.wait_seen => write!(out, ", {:.3} seconds", ns as f64 / 1e9)?,
        Some(ns) if ns >= 60_000_000_000 => write!(out, ", {} minutes", ns / 60_000_000_000)?,
        _ => {}
    }
    if g.locked {
        out.write_all(b", locked to thread")?;
    }
    if let Some(bubble) = bubble {
        let kind = if minor < 25 { "group" } else { "bubble" };
        write!(out, ", synctest {kind} {bubble}")?;
    }
    let labels = view.snapshot.labels(g).filter(|_| view.snapshot.traceback_labels);
    match labels {
        Some(labels) if minor == 26 => writeln!(out, " labels:{}]:", list(labels, quoted)),
        Some(labels) if minor > 26 => writeln!(out, "] {}:", list(labels, quoted_if_need_be)),
        _ => out.write_all(b"]:\n"),
    }
}

/// `waitReason.isIdleInSynctest`, by name: <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L1381-L1399>;
/// the others of that list say so in their name. Go 1.24 does not tell; Go 1.25 tells it of goroutines that do not wait too,
/// by the reason that they last waited for.
fn is_durable(view: &View<'_>, g: &Goroutine) -> bool {
    const REASONS: [&str; 8] = [
        "chan receive (nil chan)",
        "chan send (nil chan)",
        "select (no cases)",
        "sleep",
        "sync.Cond.Wait",
        "coroutine",
        "synctest.Run",
        "synctest.Wait",
    ];
    let waits = match view.minor() {
        ..=24 => false,
        25 => true,
        26.. => g.status == Status::Waiting,
    };
    waits && view.last_reason(g).is_some_and(|reason| REASONS.contains(&reason) || reason.ends_with("(durable)"))
}

fn list(labels: &[(String, String)], print: fn(&str) -> String) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{}: {}", print(key), print(value))).collect();
    format!("{{{}}}", labels.join(", "))
}

/// `tracebackStringNeedsQuoting`.
fn quoted_if_need_be(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_');
    if text.chars().all(plain) { text.to_owned() } else { quoted(text) }
}

/// `printquoted`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/print.go#L212-L255>.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            '\n' => quoted.write_str("\\n"),
            '\r' => quoted.write_str("\\r"),
            '\t' => quoted.write_str("\\t"),
            '\\' | '"' => write!(quoted, "\\{c}"),
            ' '..='~' => quoted.write_char(c),
            '\0'..' ' => write!(quoted, "\\x{:02x}", c as u32),
            '\x7f'..='\u{ffff}' => write!(quoted, "\\u{:04x}", c as u32),
            _ => write!(quoted, "\\U{:08x}", c as u32),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_as_go_does() {
        for (text, expected) in [
            ("", ""),
            ("a.b/c_D9", "a.b/c_D9"),
            ("a b", r#""a b""#),
            ("a-b", r#""a-b""#),
            ("\"\\\n\t\r", r#""\"\\\n\t\r""#),
            ("\u{1}\u{7f}\u{e4}\u{1f600}", r#""\x01\u007f\u00e4\U0001f600""#),
        ] {
            assert_eq!(quoted_if_need_be(text), expected, "{text:?}");
        }
        assert_eq!(quoted("plain"), r#""plain""#);
    }
}

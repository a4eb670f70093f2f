//! A report as one page that needs nothing else: no server, no network.
//!
//! The figures stand in it as JSON, and a script draws them. `page.html` is the frame, `page.css` how it looks, `page.js` what
//! draws.

use std::io::{self, Write};

use super::Report;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page.
///
/// # Errors
///
/// If `out` fails.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    // In a script element nothing is escaped, so that nothing in a name may end it.
    let figures = serde_json::to_string(report)?.replace('<', "\\u003c");
    let mut rest = PAGE;
    for (mark, text) in [("/*STYLE*/", STYLE), ("/*FIGURES*/", &figures), ("/*SCRIPT*/", SCRIPT)] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out.write_all(before.as_bytes())?;
        out.write_all(text.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

//! The report of `gotracer diff` as text.

use std::io::{self, Write};

use super::place;
use crate::analysis::{Diff, duration, rate};
use crate::output::dump::bytes;

/// Writes the comparison of `names[0]` with `names[1]`.
///
/// # Errors
///
/// If `out` fails.
pub fn write_diff(out: &mut dyn Write, diff: &Diff, names: [&str; 2], most: usize) -> io::Result<()> {
    writeln!(out, "A  {}: {} goroutines", names[0], diff.before)?;
    write!(out, "B  {}: {} goroutines", names[1], diff.after)?;
    match diff.seconds {
        Some(seconds) => writeln!(out, ", {} later", duration((seconds * 1e9) as u64))?,
        None => writeln!(out, "; of two processes, so there are no rates")?,
    }
    if diff.sites.is_empty() {
        return writeln!(out, "\nThe same number at each of {} sites.", diff.same);
    }
    writeln!(out, "\n{:>9} {:>9} {:>9} {:>10} {:>9}  go statement", "A", "B", "more", "rate", "stayed")?;
    for site in diff.sites.iter().take(most) {
        let per_second = site.per_second.map_or_else(String::new, rate);
        let stayed = site.stayed.map_or_else(String::new, |n| n.to_string());
        let (before, after, more) = (site.before, site.after, format!("{:+}", site.more));
        writeln!(out, "{before:>9} {after:>9} {more:>9} {per_second:>10} {stayed:>9}  {}", place(&site.key))?;
        if site.more > 0
            && let Some(frame) = site.stack.first()
        {
            writeln!(out, "{:>52}[{}] {}  {}:{}", "", site.reason, frame.function, frame.file, frame.line)?;
        }
    }
    if let Some(rest) = diff.sites.get(most..).filter(|rest| !rest.is_empty()) {
        writeln!(out, "and {} more sites; --json has them all", rest.len())?;
    }
    if diff.same > 0 {
        writeln!(out, "{} sites have as many as before", diff.same)?;
    }
    let (a, b) = (&diff.memory_before, &diff.memory_after);
    for (name, before, after) in [("heap", a.heap_live, b.heap_live), ("stacks", a.stacks, b.stacks)] {
        if let (Some(before), Some(after)) = (before, after) {
            writeln!(out, "{name}: {} -> {}", bytes(before), bytes(after))?;
        }
    }
    Ok(())
}

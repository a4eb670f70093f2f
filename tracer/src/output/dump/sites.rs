//! Who holds the stacks: one line a creation site, the one with the most stack memory first.

use std::io::{self, Write};

use super::View;
use crate::snapshot::{Goroutine, site_uses};

/// Writes the table of creation sites.
///
/// # Errors
///
/// If `out` fails.
pub fn write_sites(out: &mut impl Write, view: &View<'_>, goroutines: &[&Goroutine]) -> io::Result<()> {
    writeln!(out, "{:>10} {:>10} {:>10}  {:<28} creation site", "goroutines", "stacks", "in use", "waiting")?;
    for site in site_uses(goroutines.iter().copied(), |g| view.waited(g)) {
        let waited = site.waited.map_or_else(String::new, |waited| waited.to_string());
        let place = match view.created_by(&site.example) {
            Some(by) => format!("{} {}:{}", by.function, by.file, by.line),
            None => format!("(start) {}", view.start_function(&site.example).unwrap_or("unknown")),
        };
        let (held, used) = (bytes(site.stack_bytes), bytes(site.used_bytes));
        writeln!(out, "{:>10} {held:>10} {used:>10}  {waited:<28} {place}", site.count)?;
    }
    Ok(())
}

/// A number of bytes for people: `512 B`, `2.0 KiB`, `1.4 GiB`.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64 / 1024.0;
    if value < 1.0 {
        return format!("{n} B");
    }
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units.get(unit).copied().unwrap_or_default())
}

//! Folded stacks, for flame graphs: outermost frame first, `;` between, a count. What the goroutine does is the tip.

use std::io::{self, Write};

use super::dump::{Group, View};

/// Writes groups as folded stacks, one line each.
///
/// # Errors
///
/// If `out` fails.
pub fn write_folded(out: &mut impl Write, view: &View<'_>, groups: &[Group<'_>]) -> io::Result<()> {
    for group in groups {
        let g = group.example;
        match view.frames(g) {
            Some(named) => {
                for frame in named.0.iter().rev() {
                    // A semicolon cannot be in a Go name, but a corrupt table can hold anything.
                    write!(out, "{};", frame.function.replace([';', '\n'], "_"))?;
                }
            }
            None => write!(out, "{};", view.start_function(g).unwrap_or("unknown"))?,
        }
        writeln!(out, "[{}] {}", view.status(g), group.count)?;
    }
    Ok(())
}

//! Equal goroutines together, as Go's `debug=1` has them: a count, the program counters, the frames.
//!
//! Lines that begin with `# ` and a word are ours: state, stack memory, waiting time, creation site. Go's own `# labels:` is
//! such a line, so what parses `debug=1` passes over them.

use std::io::{self, Write};

use hashbrown::HashMap;

use super::View;
use crate::snapshot::{Goroutine, Spread, StackState};
use crate::units::RemoteAddr;

/// Goroutines with the same stack, state, reason, labels and creation site.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// One of them, to show.
    pub example: &'a Goroutine,
    /// How many.
    pub count: usize,
    /// Bytes of stack they hold.
    pub stack_bytes: u64,
    /// How long they have waited, in nanoseconds, where the runtime knows it.
    pub waited: Option<Spread>,
}

/// Groups goroutines, the largest group first.
#[must_use]
pub fn groups<'a>(view: &View<'_>, goroutines: &[&'a Goroutine]) -> Vec<Group<'a>> {
    let key = |g: &Goroutine| {
        let stack = match g.stack {
            StackState::Read(id) => Some(id),
            StackState::Running | StackState::Moved => None,
        };
        // Two that run have in common what they started with.
        let start = if stack.is_none() { g.startpc } else { RemoteAddr(0) };
        (stack, g.status, view.reason(g), g.gopc, g.locked, start, view.snapshot.labels(g))
    };
    let mut found: HashMap<_, (Group<'a>, Vec<u64>)> = HashMap::new();
    for g in goroutines {
        let entry = found
            .entry(key(g))
            .or_insert_with(|| (Group { example: g, count: 0, stack_bytes: 0, waited: None }, Vec::new()));
        entry.0.count += 1;
        entry.0.stack_bytes = entry.0.stack_bytes.saturating_add(g.stack_size());
        entry.1.extend(view.waited(g));
    }
    let with_times = |(mut group, times): (Group<'a>, Vec<u64>)| {
        group.waited = Spread::of(times);
        group
    };
    let mut groups: Vec<Group<'a>> = found.into_values().map(with_times).collect();
    groups.sort_unstable_by_key(|group| (std::cmp::Reverse(group.count), group.example.goid));
    groups
}

/// Writes groups.
///
/// # Errors
///
/// If `out` fails.
pub fn write_groups(out: &mut impl Write, view: &View<'_>, groups: &[Group<'_>]) -> io::Result<()> {
    let total: usize = groups.iter().map(|group| group.count).sum();
    writeln!(out, "goroutine profile: total {total}")?;
    for (i, group) in groups.iter().enumerate() {
        let g = group.example;
        if i > 0 {
            out.write_all(b"\n")?;
        }
        write!(out, "{} @", group.count)?;
        let pcs = view.snapshot.stack(g).map(|stack| stack.pcs.iter()).into_iter().flatten();
        for pc in pcs {
            write!(out, " {}", view.remote(*pc))?;
        }
        write!(out, "\n# state: {}", view.status(g))?;
        if g.locked {
            out.write_all(b", locked to thread")?;
        }
        if let Some(labels) = view.snapshot.labels(g) {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
            write!(out, "\n# labels: {{{}}}", labels.join(", "))?;
        }
        writeln!(out, "\n# stack memory: {}", super::sites::bytes(group.stack_bytes))?;
        if let Some(waited) = &group.waited {
            writeln!(out, "# waiting: {waited}")?;
        }
        match view.frames(g) {
            Some(named) => {
                for frame in &named.0 {
                    let offset = frame.offset.unwrap_or_default();
                    writeln!(
                        out,
                        "#\t{}\t{}+{offset:#x}\t{}:{}",
                        view.remote(frame.pc),
                        frame.function,
                        frame.file,
                        frame.line
                    )?;
                }
            }
            None => {
                let start = view.start_function(g).unwrap_or("unknown");
                writeln!(out, "#\t{}\t{start}+0x0\t(its start; it was running)", g.startpc)?;
            }
        }
        if let Some(site) = view.created_by(g) {
            writeln!(out, "# created by {} {}:{}", site.function, site.file, site.line)?;
        }
    }
    Ok(())
}

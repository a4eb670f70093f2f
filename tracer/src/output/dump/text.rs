//! The text of Go's own `debug=2`, so that whatever parses that parses this.
//!
//! The arguments of calls are printed as Go does where the snapshot has them, else as `(...)`, which Go prints for inlined
//! calls: then equal stacks are equal text. Go's words are whatever lies in the arguments' places on the stack, those that
//! may be stale marked by `?`.

use std::io::{self, Write};

use hashbrown::HashMap;

use super::View;
use super::head::head;
use crate::snapshot::{CreatedBy, Goroutine, ShownFrame, StackId, StackState};

/// `_TracebackMaxFrames` up to Go 1.20: the first so many physical frames are looked at, and that there were more is said
/// only if all of them were printed. JSON has the rest.
/// <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go#L855-L863>
const FIRST: usize = 100;
/// `tracebackInnerFrames`, `tracebackOuterFrames` from Go 1.21 on:
/// <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L27-L35>.
const INNER: usize = 50;
const OUTER: usize = 50;

/// Writes goroutines as `runtime.Stack` does.
///
/// # Errors
///
/// If `out` fails.
pub fn write_text(out: &mut impl Write, view: &View<'_>, goroutines: &[&Goroutine]) -> io::Result<()> {
    let mut bodies: HashMap<StackId, String> = HashMap::new();
    for (i, g) in goroutines.iter().enumerate() {
        if i > 0 {
            out.write_all(b"\n")?;
        }
        head(out, view, g)?;
        match g.stack {
            StackState::Read(_) if view.snapshot.has_arguments() => out.write_all(body(view, g).as_bytes())?,
            StackState::Read(id) => {
                let body = bodies.entry(id).or_insert_with(|| body(view, g));
                out.write_all(body.as_bytes())?;
            }
            // Go's own words, which parsers know. Of one that moved there is no more to say than of one that runs.
            StackState::Running | StackState::Moved => {
                out.write_all(b"\tgoroutine running on other thread; stack unavailable\n")?;
            }
        }
        if let Some(site) = view.created_by(g) {
            created_by(out, &site)?;
        }
        for ancestor in view.snapshot.ancestors(g) {
            writeln!(out, "[originating from goroutine {}]:", ancestor.goid)?;
            let (frames, site) = view.ancestor(ancestor);
            let mut text = String::new();
            frames.iter().for_each(|frame| line(&mut text, frame, "..."));
            out.write_all(text.as_bytes())?;
            if let Some(site) = site {
                created_by(out, &site)?;
            }
        }
    }
    Ok(())
}

fn created_by(out: &mut impl Write, site: &CreatedBy<'_>) -> io::Result<()> {
    write!(out, "created by {}", site.function)?;
    if let Some(parent) = site.parent {
        write!(out, " in goroutine {parent}")?;
    }
    write!(out, "\n\t{}:{}", site.file, site.line)?;
    match site.offset {
        Some(offset) => writeln!(out, " +{offset:#x}"),
        None => out.write_all(b"\n"),
    }
}

fn line(text: &mut String, frame: &ShownFrame<'_>, arguments: &str) {
    text.push_str(&frame.function);
    text.push('(');
    text.push_str(arguments);
    text.push_str(")\n\t");
    text.push_str(frame.file);
    text.push(':');
    text.push_str(&frame.line.to_string());
    if let Some(offset) = frame.offset {
        text.push_str(&format!(" +{offset:#x}"));
    }
    text.push('\n');
}

fn body(view: &View<'_>, g: &Goroutine) -> String {
    let Some(named) = view.frames(g) else { return String::new() };
    let (frames, elided_at) = (&named.0, named.1);
    let beyond = view.snapshot.stack(g).map_or(0, |stack| stack.elided as usize);
    let mut text = String::new();
    if !view.elides_middle()
        && let Some(stack) = view.snapshot.stack(g)
        && stack.pcs.len() >= FIRST
    {
        let first = view.first_frames(stack, FIRST);
        first.iter().for_each(|frame| line(&mut text, frame, &view.arguments(g, frame)));
        if first.len() == FIRST {
            text.push_str("...additional frames elided...\n");
        }
        return text;
    }
    // Those that the snapshot left out stand far behind the first 50, and far before the last 50.
    debug_assert!(beyond == 0 || elided_at > INNER);
    let elided = (frames.len() + beyond).saturating_sub(INNER + OUTER);
    if elided == 0 {
        frames.iter().for_each(|frame| line(&mut text, frame, &view.arguments(g, frame)));
        return text;
    }
    frames.iter().take(INNER).for_each(|frame| line(&mut text, frame, &view.arguments(g, frame)));
    text.push_str(&format!("...{elided} frames elided...\n"));
    frames
        .iter()
        .skip(frames.len().saturating_sub(OUTER))
        .for_each(|frame| line(&mut text, frame, &view.arguments(g, frame)));
    text
}

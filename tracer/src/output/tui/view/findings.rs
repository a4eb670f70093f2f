//! What is suspected, and why.

use ratatui::layout::Rect;

use super::canvas::{Canvas, wrapped};
use super::look::Ink;
use crate::analysis::{Finding, Severity, Verdict};
use crate::output::SiteName;
use crate::output::tui::layout::Parts;
use crate::output::tui::state::{Hit, State};
use crate::output::tui::words;

fn ink(severity: Severity) -> Ink {
    match severity {
        Severity::Notice => Ink::Plain,
        Severity::Warning => Ink::Warning,
        Severity::Critical => Ink::Alarm,
    }
}

/// Why there is nothing to be listed.
fn nothing(state: &State) -> String {
    match &state.diagnosis.verdict {
        None => "not looked at yet".to_owned(),
        Some(Verdict::TooShort { seen_s, needed_s }) => {
            format!("too early to say: watched for {seen_s:.0} s, needs {needed_s:.0} s")
        }
        Some(Verdict::Enough) => match state.proofs.leaked() {
            0 => "nothing is suspected".to_owned(),
            leaked => format!("nothing is suspected to grow; {} goroutines are leaked", words::count(leaked)),
        },
    }
}

fn site(finding: &Finding) -> Option<SiteName> {
    let key = finding.site.as_ref()?;
    Some(SiteName { function: key.function.clone(), file: key.file.clone(), line: key.line })
}

/// The worst few, beside the table.
pub(super) fn glance(canvas: &mut Canvas<'_>, state: &State, area: Rect) {
    let findings = &state.diagnosis.findings;
    let inner = canvas.titled(area, &format!("Findings: {}", findings.len()), true);
    if inner.height == 0 {
        return;
    }
    if findings.is_empty() {
        canvas.put(inner.x + 1, inner.y, inner.width.saturating_sub(2), &nothing(state), Ink::Faint);
    }
    let mut y = inner.y;
    for finding in findings {
        if y + 1 >= inner.bottom() {
            break;
        }
        let (x, width) = (inner.x + 1, inner.width.saturating_sub(2));
        let count = format!(", {}", words::count(finding.count));
        canvas.run(x, y, width, [(finding.kind.title(), ink(finding.severity)), (count.as_str(), Ink::Plain)]);
        if let Some(site) = site(finding) {
            canvas.place(x + 2, y + 1, width.saturating_sub(2), &site, state.full_paths, Ink::Plain);
        }
        y += 2;
    }
}

/// Left ends and widths: severity, score, count, growth, kind, site.
const COLUMNS: [(&str, u16, u16); 5] =
    [("SEVERITY", 1, 8), ("SCORE", 10, 5), ("COUNT", 16, 8), ("NET/s", 25, 6), ("KIND", 32, 30)];
const SITE: u16 = 63;

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &State, parts: Parts) {
    let (heads, body) = (parts.heads, parts.body);
    canvas.cover(heads, Ink::Bar);
    let narrow = heads.width < 110;
    for (title, x, width) in COLUMNS {
        if (10..32).contains(&x) {
            canvas.put_right(heads.x + x, heads.y, width, title, Ink::Bar);
        } else {
            canvas.put(heads.x + x, heads.y, width, title, Ink::Bar);
        }
    }
    if !narrow {
        canvas.put(heads.x + SITE, heads.y, heads.width - SITE, "CREATED AT", Ink::Bar);
    }
    let findings = &state.diagnosis.findings;
    if findings.is_empty() {
        canvas.put(body.x + 1, body.y, body.width.saturating_sub(1), &nothing(state), Ink::Faint);
        return;
    }
    for (y, (at, finding)) in (body.y..body.bottom()).zip(findings.iter().enumerate().skip(state.finding.offset)) {
        let line = Rect { y, height: 1, ..body };
        let figures = [
            format!("{:.2}", finding.score),
            finding.count.to_string(),
            finding.per_second.map_or("-".to_owned(), words::growth),
        ];
        canvas.put(line.x + 1, y, 8, &finding.severity.to_string(), ink(finding.severity));
        for ((_, x, width), text) in COLUMNS.iter().skip(1).zip(&figures) {
            canvas.put_right(line.x + x, y, *width, text, Ink::Plain);
        }
        let kind_width = if narrow { line.width.saturating_sub(33) } else { 30 };
        canvas.put(line.x + 32, y, kind_width, finding.kind.title(), ink(finding.severity));
        if let (false, Some(site)) = (narrow, site(finding)) {
            canvas.place(line.x + SITE, y, line.width - SITE, &site, state.full_paths, Ink::Plain);
        }
        if at == state.finding.at {
            canvas.cover(line, Ink::Selected);
        }
        canvas.hit(line, Hit::Row(at));
    }
    if let Some(finding) = findings.get(state.finding.at) {
        details(canvas, state, finding, parts.lower);
    }
}

/// One line of what is said of a finding.
enum Line {
    Words(String, Ink),
    Place(SiteName, u16),
}

fn details(canvas: &mut Canvas<'_>, state: &State, finding: &Finding, area: Rect) {
    let inner = canvas.titled(area, finding.kind.title(), true);
    let width = inner.width.saturating_sub(4);
    let mut lines: Vec<Line> = Vec::new();
    let mut say = |text: &str, ink: Ink, mark: &str| {
        for (at, line) in wrapped(text, usize::from(width)).into_iter().enumerate() {
            lines.push(Line::Words(format!("{}{line}", if at == 0 { mark } else { "  " }), ink));
        }
    };
    let since = finding.since_ns.map_or(String::new(), |ns| format!(", there for {} or more", words::duration(ns)));
    let reason = if finding.reason.is_empty() { String::new() } else { format!(", in {}", finding.reason) };
    let holds = if finding.stack_bytes == 0 {
        String::new()
    } else {
        format!(", {} of stack", words::bytes(finding.stack_bytes))
    };
    say(&format!("{} goroutines{reason}{since}{holds}", words::count(finding.count)), Ink::Strong, "");
    let leaked = state.site_of(finding).map_or(0, |site| state.leaked_of(site));
    if leaked > 0 {
        let passes = state.proofs.passes();
        let text = format!(
            "{} of them are leaked: nothing that can run reaches what they wait for ({passes} passes)",
            words::count(leaked)
        );
        say(&text, Ink::Alarm, "- ");
    }
    for evidence in &finding.evidence {
        say(&evidence.words, Ink::Plain, "- ");
    }
    say(&finding.advice, Ink::Good, "> ");
    let mut places = Vec::new();
    if let Some(site) = site(finding) {
        places.push(Line::Words("created at".to_owned(), Ink::Faint));
        places.push(Line::Place(site, 2));
    }
    for creator in &finding.creators {
        let name = SiteName { function: creator.function.clone(), file: creator.file.clone(), line: creator.line };
        places.push(Line::Words("which was started at".to_owned(), Ink::Faint));
        places.push(Line::Place(name, 2));
    }
    if !finding.stack.is_empty() {
        places.push(Line::Words("they stand at".to_owned(), Ink::Faint));
    }
    for frame in finding.stack.iter() {
        let name = SiteName { function: frame.function.clone(), file: frame.file.clone(), line: frame.line };
        places.push(Line::Place(name, 2));
    }
    lines.extend(places);
    let scroll = state.finding_scroll.min(lines.len().saturating_sub(usize::from(inner.height)));
    for (y, line) in (inner.y..inner.bottom()).zip(lines.iter().skip(scroll)) {
        match line {
            Line::Words(text, ink) => {
                canvas.put(inner.x + 1, y, inner.width.saturating_sub(1), text, *ink);
            }
            Line::Place(place, indent) => {
                let x = inner.x + 1 + indent;
                canvas.place(x, y, inner.right().saturating_sub(x), place, state.full_paths, Ink::Plain);
            }
        }
    }
}

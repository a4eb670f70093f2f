//! What gotracer saw, held against what the program did.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, bail};
use gotracer_tests::tally::TallySite;
use gotracer_tests::tracer::{Event, SiteCounts};
use gotracer_tests::{Tally, Trace};

/// Collects everything that is wrong, so that one failure shows its whole picture.
#[derive(Default)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    /// Notes that two values differ.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: impl AsRef<str>, seen: T, told: T) {
        if seen != told {
            self.0.push(format!("{}: gotracer {seen:?}, the program {told:?}", what.as_ref()));
        }
    }

    /// Notes that something does not hold.
    pub(crate) fn holds(&mut self, what: impl AsRef<str>, it: bool) {
        if !it {
            self.0.push(what.as_ref().to_owned());
        }
    }

    /// Fails if there is anything.
    pub(crate) fn report(self, trace: &Trace) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        const LINES: usize = 40;
        let more = self.0.len().saturating_sub(LINES);
        let rest = if more > 0 { format!("\n... and {more} more") } else { String::new() };
        let summary = &trace.summary;
        let shown = self.0[..self.0.len() - more].join("\n");
        bail!("{shown}{rest}\ntotals: {summary:?}\ngotracer said:\n{}", trace.said.join("\n"));
    }
}

/// The totals and each site's row are what the program counted, and nothing was lost.
pub(crate) fn counts(findings: &mut Findings, trace: &Trace, tally: &Tally) {
    totals(findings, trace, tally);
    sites(findings, trace, tally);
}

/// Nothing but the program's own goroutines came and went.
pub(crate) fn totals(findings: &mut Findings, trace: &Trace, tally: &Tally) {
    findings.equal("goroutines created", trace.summary.created, tally.created);
    // Main is not among the tally's own.
    findings.equal("goroutines exited", trace.summary.exited, tally.exited + u64::from(tally.main_exited));
}

/// Each site's row is what the program counted, and nothing was lost. Other sites may be there too.
pub(crate) fn sites(findings: &mut Findings, trace: &Trace, tally: &Tally) {
    findings.equal("events lost", trace.summary.lost, 0);
    let seen = trace.sites();
    for told in &tally.sites {
        let place = &told.site;
        let Some(seen) = seen.get(place) else {
            let known: Vec<_> = seen.keys().collect();
            findings.holds(format!("no row for {place:?}; there are {known:?}"), false);
            continue;
        };
        let at = format!("{}:{} {}", place.file, place.line, place.function);
        row(findings, &at, seen, told);
    }
}

fn row(findings: &mut Findings, at: &str, seen: &SiteCounts, told: &TallySite) {
    findings.equal(format!("{at}: created"), seen.created, told.created);
    findings.equal(format!("{at}: exited"), seen.exited, told.exited);
    findings.equal(format!("{at}: live"), seen.live, told.created - told.exited);
    if let Ok(blocked) = u64::try_from(told.blocked) {
        findings.equal(format!("{at}: blocked"), seen.blocked, blocked);
    }
}

/// The events themselves: each goroutine of the tally by number, with parent, site and wait reasons, in order of time.
pub(crate) fn events(findings: &mut Findings, trace: &Trace, tally: &Tally) {
    // A kernel program that loses its CPU before it sends, to another thread or, in a virtual machine, to the host, is
    // late, and counted as late; those of one goroutine are in order all the same.
    let (mut newest, mut unordered) = (0, 0);
    for event in trace.events.iter().filter(|event| event.goid.is_some()) {
        unordered += u64::from(event.time_ns < newest);
        newest = newest.max(event.time_ns);
    }
    findings.equal("events out of their order in time", unordered, trace.summary.late);

    let mut of_goroutine: HashMap<u64, Vec<&Event>> = HashMap::new();
    for event in &trace.events {
        if let Some(goid) = event.goid {
            of_goroutine.entry(goid).or_default().push(event);
        }
    }
    for told in &tally.sites {
        let at = format!("{}:{}", told.site.file, told.site.line);
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for goid in &told.goids {
            let events = of_goroutine.remove(goid).unwrap_or_default();
            goroutine(findings, &format!("goroutine {goid} of {at}"), &events, told);
            for event in events.iter().filter(|event| event.event == "blocked") {
                *reasons.entry(event.reason.clone().unwrap_or_default()).or_default() += 1;
            }
        }
        // Without the numbers of its goroutines a site's parks cannot be told from others'.
        if told.blocked >= 0 && told.goids.len() as u64 == told.created {
            findings.equal(format!("{at}: wait reasons"), reasons, told.reasons.clone());
        }
    }
}

/// A goroutine is created once, runs before it blocks or ends, blocks only when it has run, and ends once, last.
fn goroutine(findings: &mut Findings, who: &str, events: &[&Event], told: &TallySite) {
    let ordered = events.is_sorted_by_key(|event| event.time_ns);
    findings.holds(format!("{who}: events out of their order in time"), ordered);
    let names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    let Some(first) = events.first() else {
        findings.holds(format!("{who}: no events"), false);
        return;
    };
    findings.equal(format!("{who}: first event"), names[0], "created");
    findings.equal(format!("{who}: site"), first.site.as_ref(), Some(&told.site));
    findings.equal(format!("{who}: parent"), first.parent, Some(told.parent));
    findings
        .holds(format!("{who}: has no start function"), first.start.as_ref().is_some_and(|start| !start.is_empty()));
    findings.equal(format!("{who}: created events"), names.iter().filter(|name| **name == "created").count(), 1);

    let ends = told.created == told.exited;
    findings.equal(
        format!("{who}: exited events"),
        names.iter().filter(|name| **name == "exited").count(),
        usize::from(ends),
    );
    let mut may_stop = false;
    for name in &names[1..] {
        match *name {
            "running" => may_stop = true,
            "blocked" | "exited" if !may_stop => {
                findings.holds(format!("{who}: {name} without running before: {names:?}"), false);
            }
            "blocked" | "exited" => may_stop = false,
            _ => {}
        }
    }
    if ends {
        findings.equal(format!("{who}: last event"), names[names.len() - 1], "exited");
    }
}

/// The goroutines that the trace has created events for.
pub(crate) fn created_goids(trace: &Trace) -> BTreeSet<u64> {
    trace.of_kind("created").filter_map(|event| event.goid).collect()
}

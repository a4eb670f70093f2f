//! What is wrong with a site, judged by where its goroutines stand.
//!
//! In: one site's sample and what [`site`](super::site) says of its movement. Out: at most one [`Finding`] a site. First the
//! question whether anything is wrong at all (goroutines that stay accumulate, or stand still in a way that has no visible
//! end), then which kind it is, then how sure that is.

use std::collections::BTreeMap;

use super::finding::{Evidence, Finding, Kind, Severity};
use super::sample::{Ages, Block, Place, SiteSample};
use super::site::FollowedSite;
use super::thresholds::Thresholds;
use super::words;
use crate::units::MonotonicNs;

/// How sure the signs of each kind are, where they are all there. What growth and survival add is in [`score`].
mod weight {
    /// Nothing ever wakes it: the channel is nil, or the select has no cases.
    pub(super) const NEVER: f64 = 0.99;
    /// Each on a channel of its own to which no other goroutine's stack refers.
    pub(super) const ALONE: f64 = 0.95;
    /// Each on a channel of its own, and others have it on their stacks.
    pub(super) const REFERRED: f64 = 0.7;
    /// Several on one channel.
    pub(super) const SHARED: f64 = 0.65;
    /// The call that started it is over.
    pub(super) const ORPHAN: f64 = 0.85;
    /// Its group's counter is not at zero, or its group was left.
    pub(super) const GROUP: f64 = 0.9;
    /// A ticker wakes it.
    pub(super) const TICKS: f64 = 0.9;
    /// Its `go` statement is in a deferred function.
    pub(super) const DEFERRED: f64 = 0.9;
    /// It waits for a lock that nobody has released meanwhile.
    pub(super) const LOCKED: f64 = 0.9;
    /// Nobody signals.
    pub(super) const UNSIGNALLED: f64 = 0.8;
    /// One system call, all the time.
    pub(super) const CALL: f64 = 0.8;
    /// Growth alone, of what sleeps or does something that has no name here.
    pub(super) const GROWTH: f64 = 0.6;
    /// The same of what waits for the network: more clients look just so.
    pub(super) const PEERS: f64 = 0.45;
    /// It has not parked.
    pub(super) const BUSY: f64 = 0.9;
    /// Growth above the threshold.
    pub(super) const STORM: f64 = 0.8;
}

/// Part of a place's goroutines of which something must be true before it counts as true of the place.
const MOST: f64 = 0.5;
/// With fewer stuck threads a process lives.
const THREADS: u64 = 10;
/// So many that can never be woken are told, though they do not grow.
const NEVER_LEAST: u64 = 10;
/// So many senders without a receiver are told, though they do not grow.
const SENDERS_LEAST: u64 = 100;

/// What is known beside the site itself.
pub(super) struct Observed<'a> {
    pub(super) thresholds: &'a Thresholds,
    /// The sample's time.
    pub(super) time: MonotonicNs,
    /// Seconds since observation began.
    pub(super) seconds: f64,
    /// How many samples there were.
    pub(super) samples: u64,
}

/// What is suspected of `site`.
pub(super) fn suspect(site: &SiteSample, followed: &FollowedSite, observed: &Observed<'_>) -> Option<Finding> {
    finalizer(site, observed)
        .or_else(|| growing(site, followed, observed))
        .or_else(|| storm(site, followed, observed))
        .or_else(|| standing(site, observed))
        .or_else(|| busy(site, observed))
}

/// Where it stands, and why that is wrong.
struct Judged<'a> {
    kind: Kind,
    weight: f64,
    place: &'a Place,
    evidence: Vec<Evidence>,
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

pub(super) fn evidence(what: &'static str, words: String, numbers: &[(&'static str, f64)]) -> Evidence {
    Evidence { what, words, numbers: numbers.iter().copied().collect::<BTreeMap<_, _>>() }
}

/// Goroutines that stay get more and more.
fn growing(site: &SiteSample, followed: &FollowedSite, observed: &Observed<'_>) -> Option<Finding> {
    let staying = followed.staying?;
    let more = staying.old.saturating_sub(staying.old_at_first);
    let thresholds = observed.thresholds;
    if !staying.trend.rises(thresholds.chance) || more < thresholds.least {
        return None;
    }
    // The place that most of the old ones stand at. Those that a ticker wakes never stand for long.
    let weigh = |place: &Place| {
        let ticking = place.count as f64 * share(place.waits.ticking, place.waits.of);
        let running = if place.block == Block::Runs { 0.0 } else { ticking };
        (place.still.at_least(staying.level) as f64).max(running)
    };
    let place = site.places.iter().max_by(|a, b| weigh(a).total_cmp(&weigh(b)))?;
    if weigh(place) < 0.3 * staying.old as f64 {
        return None;
    }
    let mut judged = kind_of(site, place, true)?;
    if judged.kind == Kind::Growth
        && let Some(rate) = followed.storm
    {
        judged.evidence.push(words::storm(rate, site.live, thresholds));
        (judged.kind, judged.weight) = (Kind::Storm, weight::STORM);
    }
    let survive = 1.0 - share(staying.died_old, staying.died_old + staying.old);
    let score = score(judged.weight, survive, observed.seconds) * (1.0 - staying.trend.chance);
    let per_second = staying.trend.per_second;
    let mut told = vec![words::growth(&staying, observed.seconds), words::survival(site, &staying)];
    told.extend(judged.evidence);
    let severity = if followed.storm.is_some() || staying.old >= 2 * thresholds.goroutines {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut finding = finding(judged.kind, severity, score, site, judged.place, told, observed);
    finding.count = staying.old;
    finding.per_second = Some(per_second);
    Some(finding)
}

/// Which kind a place's goroutines are, if they are wrong at all. `growing`: they get more.
fn kind_of<'a>(site: &SiteSample, place: &'a Place, growing: bool) -> Option<Judged<'a>> {
    let orphans = place.orphans_of > 0 && share(place.orphans, place.orphans_of) > MOST;
    let mut told = Vec::new();
    let waits = &place.waits;
    let (mut kind, mut weight) = match place.block {
        Block::Never => {
            told.push(words::never(place));
            (Kind::Channel, weight::NEVER)
        }
        Block::Send | Block::Receive | Block::Select if share(waits.timed, waits.of) > MOST => {
            if share(waits.ticking, waits.of) > MOST {
                told.push(words::ticks(waits));
                (Kind::Timer, weight::TICKS)
            } else if orphans {
                (Kind::Context, weight::ORPHAN)
            } else {
                (Kind::Growth, weight::GROWTH)
            }
        }
        Block::Send | Block::Receive | Block::Select => {
            let own = waits.of > 0 && share(waits.objects, waits.of) > MOST;
            told.push(words::channels(place, own));
            let referred = share(waits.counterpart, waits.of) > MOST;
            if place.block == Block::Select && share(waits.done, waits.of) > MOST && orphans {
                (Kind::Context, weight::ORPHAN)
            } else if own || waits.of == 0 {
                (Kind::Channel, if referred || waits.of == 0 { weight::REFERRED } else { weight::ALONE })
            } else if orphans {
                (Kind::Context, weight::ORPHAN)
            } else {
                (Kind::Channel, weight::SHARED)
            }
        }
        Block::Sleep if orphans => (Kind::Context, weight::ORPHAN),
        Block::Io if orphans => (Kind::Context, weight::ORPHAN),
        Block::Io => (Kind::Growth, weight::PEERS),
        Block::Mutex => {
            told.push(words::mutex(place));
            (Kind::Mutex, weight::LOCKED)
        }
        Block::WaitGroup => {
            told.push(words::wait_group(waits));
            (Kind::WaitGroup, weight::GROUP)
        }
        Block::Cond => (Kind::Cond, weight::UNSIGNALLED),
        Block::Syscall | Block::Cgo => {
            told.push(words::call(place));
            (Kind::Syscall, weight::CALL)
        }
        Block::Runs => (Kind::Storm, weight::GROWTH),
        Block::Sleep | Block::Other => (Kind::Growth, weight::GROWTH),
    };
    let waits_for_nobody = matches!(kind, Kind::Channel | Kind::Context | Kind::Growth | Kind::Timer);
    if growing && site.counts_down && orphans && waits_for_nobody {
        told.push(words::left_group());
        (kind, weight) = (Kind::WaitGroup, weight::GROUP);
    }
    if growing && site.deferred && matches!(kind, Kind::Channel | Kind::Context | Kind::Growth | Kind::Timer) {
        told.push(words::deferred(site));
        (kind, weight) = (Kind::DeferredClosure, weight::DEFERRED);
    }
    if orphans {
        told.push(words::orphans(site, place));
    }
    Some(Judged { kind, weight, place, evidence: told })
}

/// How sure: the kind's own weight, the share that stayed, and how long it was observed. A minute is nearly as good as an hour;
/// ten seconds leave a sixth open.
fn score(weight: f64, survive: f64, seconds: f64) -> f64 {
    weight * survive * (0.5 + 0.5 * seconds / (seconds + 5.0))
}

/// Born faster than they die, for no other reason that is known.
fn storm(site: &SiteSample, followed: &FollowedSite, observed: &Observed<'_>) -> Option<Finding> {
    let rate = followed.storm?;
    let place = site.places.iter().max_by_key(|place| place.count)?;
    let told = vec![words::storm(rate, site.live, observed.thresholds)];
    let mut finding = finding(Kind::Storm, Severity::Critical, weight::STORM, site, place, told, observed);
    finding.count = site.live;
    finding.per_second = Some(rate);
    Some(finding)
}

/// What stands still, does not grow, and has no visible end.
fn standing(site: &SiteSample, observed: &Observed<'_>) -> Option<Finding> {
    let thresholds = observed.thresholds;
    let place = site.places.iter().max_by_key(|place| place.still.at_least(oldest_level(observed.seconds)))?;
    let still = place.still.at_least(oldest_level(observed.seconds));
    if share(still, place.count) < 0.9 {
        return None;
    }
    let waits = &place.waits;
    let own = waits.of > 0 && share(waits.objects, waits.of) > MOST;
    let alone = own && share(waits.counterpart, waits.of) <= MOST && share(waits.timed, waits.of) <= MOST;
    let orphans = place.orphans_of > 0 && share(place.orphans, place.orphans_of) > 0.9;
    let several = observed.samples > 1;
    let (least, weight, severity) = match place.block {
        Block::Never => (NEVER_LEAST, weight::NEVER, Severity::Notice),
        // Everybody waits, for the same lock, and in all the time nobody got it.
        Block::Mutex if several && waits.objects == 1 && share(place.stuck, place.count) > 0.9 => {
            (thresholds.least, weight::LOCKED, Severity::Warning)
        }
        Block::Send if alone => (SENDERS_LEAST, weight::ALONE, Severity::Notice),
        Block::WaitGroup if own && waits.counter.is_some_and(|counter| counter > 0) => {
            (SENDERS_LEAST, weight::REFERRED, Severity::Notice)
        }
        Block::Syscall | Block::Cgo if several => (THREADS, weight::CALL, Severity::Notice),
        // Subscribers look just so; the call that started them is over for them too.
        Block::Receive | Block::Select if alone && orphans => (thresholds.standing, weight::SHARED, Severity::Notice),
        _ => return None,
    };
    if place.count < least {
        return None;
    }
    let judged = kind_of(site, place, false)?;
    let mut told = vec![words::standing(place, observed.seconds, several)];
    told.extend(judged.evidence);
    let seconds = place.still.oldest_ns() as f64 / 1e9;
    let mut finding = finding(judged.kind, severity, score(weight, 1.0, seconds), site, place, told, observed);
    finding.count = place.count;
    if several {
        finding.per_second = Some(0.0);
    }
    Some(finding)
}

/// The level at which those who stood still since observation began are found; with a single look, those of whom the
/// runtime knows a minute.
fn oldest_level(seconds: f64) -> usize {
    let wanted = if seconds > 0.0 { (seconds * 0.9).min(60.0) } else { 60.0 };
    (0..Ages::BUCKETS).rev().find(|i| Ages::begin_ns(*i) as f64 / 1e9 <= wanted).unwrap_or_default()
}

/// A finalizer or cleanup that does not return.
fn finalizer(site: &SiteSample, observed: &Observed<'_>) -> Option<Finding> {
    const RUNNERS: [&str; 3] = ["runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups"];
    if !RUNNERS.contains(&site.key.start.as_ref()) {
        return None;
    }
    let least = observed.thresholds.finalizer.as_nanos() as u64;
    let place = site.places.iter().filter(|place| place.stuck > 0 && place.block != Block::Runs);
    let place = place.max_by_key(|place| place.still.oldest_ns())?;
    let ns = place.still.oldest_ns();
    if ns < least {
        return None;
    }
    let told = vec![words::finalizer(place, ns)];
    let mut finding = finding(Kind::Finalizer, Severity::Warning, 0.9, site, place, told, observed);
    finding.count = place.stuck;
    Some(finding)
}

/// Runs all the time.
fn busy(site: &SiteSample, observed: &Observed<'_>) -> Option<Finding> {
    let place = site.places.iter().find(|place| place.block == Block::Runs && place.stuck > 0)?;
    let ns = place.still.oldest_ns();
    if ns < observed.thresholds.busy.as_nanos() as u64 || observed.samples < 8 {
        return None;
    }
    let level = (0..Ages::BUCKETS).find(|i| Ages::begin_ns(*i) >= observed.thresholds.busy.as_nanos() as u64 / 2)?;
    let count = place.still.at_least(level);
    let told = vec![words::busy(count, ns, observed.samples)];
    let mut finding = finding(Kind::Busy, Severity::Notice, weight::BUSY, site, place, told, observed);
    finding.count = count;
    Some(finding)
}

fn finding(
    kind: Kind,
    severity: Severity,
    score: f64,
    site: &SiteSample,
    place: &Place,
    evidence: Vec<Evidence>,
    observed: &Observed<'_>,
) -> Finding {
    let oldest = site.ages.oldest_ns().max(place.still.oldest_ns());
    Finding {
        kind,
        severity,
        score,
        site: Some(site.key.clone()),
        count: place.count,
        per_second: None,
        since: Some(MonotonicNs(observed.time.0.saturating_sub(oldest))),
        since_ns: Some(oldest),
        evidence,
        advice: words::advice(kind, site, place),
        stack: place.stack.clone(),
        reason: place.reason.clone(),
        stack_bytes: site.stack_bytes,
        creators: site.creators.clone(),
        examples: place.examples.clone(),
    }
}

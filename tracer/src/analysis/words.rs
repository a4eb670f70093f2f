//! Evidence and advice in words.
//!
//! In: figures. Out: sentences for somebody who is called at night: what was seen, not what it might mean, and one thing to do.

use super::finding::{Evidence, Kind};
use super::sample::{Block, Place, SiteSample, WaitFacts};
use super::site::Staying;
use super::suspect::evidence;
use super::thresholds::Thresholds;

/// `12 s`, `3 min`, `5 h`: one figure is enough.
#[must_use]
pub fn duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// `3.2/s`, `12/min`, `5/h`: so that the number says something.
#[must_use]
pub fn rate(per_second: f64) -> String {
    match per_second.abs() {
        r if r >= 10.0 => format!("{per_second:.0}/s"),
        r if r >= 0.5 => format!("{per_second:.1}/s"),
        r if r >= 0.5 / 60.0 => format!("{:.1}/min", per_second * 60.0),
        _ => format!("{:.1}/h", per_second * 3600.0),
    }
}

pub(super) fn growth(staying: &Staying, seconds: f64) -> Evidence {
    let trend = &staying.trend;
    let more = staying.old.saturating_sub(staying.old_at_first);
    let words = format!(
        "{more} more of them stay in {seconds:.0} s: {} ({} to {} with 90 % confidence)",
        rate(trend.per_second),
        rate(trend.low.max(0.0)),
        rate(trend.high),
    );
    let numbers = [
        ("per_second", trend.per_second),
        ("low", trend.low),
        ("high", trend.high),
        ("chance", trend.chance),
        ("more", more as f64),
        ("seconds", seconds),
    ];
    evidence("growth", words, &numbers)
}

pub(super) fn survival(site: &SiteSample, staying: &Staying) -> Evidence {
    let age = super::sample::Ages::begin_ns(staying.level);
    let ended = site.lifetimes.as_ref().map_or(0, |ended| ended.count());
    let old = duration(age);
    let words = match (ended, staying.died_old) {
        (0, _) => format!("none has ended since observation began; {} are older than {old}", staying.old),
        (_, 0) => {
            let typical = site.lifetimes.as_ref().and_then(|ended| ended.quantile_below_ns(0.99));
            let within = typical.map_or_else(String::new, |ns| format!(", 99 % of them within {}", duration(ns)));
            format!("{ended} ended{within}; of those that reached {old} none did, and {} are left", staying.old)
        }
        (_, died) => format!("{ended} ended, {died} of them later than {old}; {} such old ones are left", staying.old),
    };
    let numbers = [
        ("ended", ended as f64),
        ("old", staying.old as f64),
        ("ended_old", staying.died_old as f64),
        ("old_from_seconds", age as f64 / 1e9),
    ];
    evidence("survival", words, &numbers)
}

pub(super) fn never(place: &Place) -> Evidence {
    let words = match place.reason.as_ref() {
        "select (no cases)" => "a select without cases waits for ever".to_owned(),
        reason => format!("{reason}: a nil channel is never ready"),
    };
    evidence("nil_channel", words, &[])
}

pub(super) fn ticks(waits: &WaitFacts) -> Evidence {
    let period = waits.period_ns.unwrap_or_default();
    let words = format!("a ticker wakes them every {}, and goes on doing so", duration(period));
    evidence("ticker", words, &[("period_seconds", period as f64 / 1e9)])
}

pub(super) fn channels(place: &Place, own: bool) -> Evidence {
    let waits = &place.waits;
    let side = match place.block {
        Block::Send => "receiver",
        Block::Receive => "sender",
        _ => "other party",
    };
    let numbers =
        [("looked_at", waits.of as f64), ("channels", waits.objects as f64), ("referred_to", waits.counterpart as f64)];
    let which = if waits.of < place.count { format!(" (of {} looked at)", waits.of) } else { String::new() };
    let words = if own {
        let referred = match waits.counterpart {
            0 => "none of which another goroutine has on its stack".to_owned(),
            n => format!("{n} of which other goroutines have on their stacks"),
        };
        format!("{} channels{which}, {referred}: no {side} is seen", waits.objects)
    } else if waits.of == 0 {
        format!("what they wait for could not be read; no {side} is seen")
    } else {
        format!("they share {} channels{which}, and nobody ends them", waits.objects)
    };
    evidence(if own && waits.counterpart == 0 { "no_counterpart" } else { "channels" }, words, &numbers)
}

pub(super) fn mutex(place: &Place) -> Evidence {
    let waits = &place.waits;
    let which = match waits.objects {
        1 => "all wait for one lock".to_owned(),
        n => format!("they wait for {n} locks"),
    };
    let holder = match waits.holder {
        Some(goid) => format!("goroutine {goid} has it on its stack and does not wait for it: probably its holder"),
        None => "no other goroutine has it on its stack: who locked it has gone on without unlocking".to_owned(),
    };
    let mut numbers = vec![("locks", waits.objects as f64)];
    numbers.extend(waits.holder.map(|goid| ("holder_goid", goid.0 as f64)));
    evidence("lock", format!("{which}; {holder}"), &numbers)
}

pub(super) fn wait_group(waits: &WaitFacts) -> Evidence {
    let words = match waits.counter {
        Some(counter) => format!("the counter of their WaitGroup stands at {counter}: so many Done calls are missing"),
        None => "their WaitGroup is not counted down".to_owned(),
    };
    let numbers: Vec<_> = waits.counter.map(|counter| ("counter", counter as f64)).into_iter().collect();
    evidence("wait_group", words, &numbers)
}

pub(super) fn left_group() -> Evidence {
    let words = "they would count a WaitGroup down, but the call that should wait for it is over".to_owned();
    evidence("left_group", words, &[])
}

pub(super) fn call(place: &Place) -> Evidence {
    let what = if place.block == Block::Cgo { "a call of C" } else { "a system call" };
    let words = format!("{} of them stay in {what} and keep a thread each", place.stuck);
    evidence("call", words, &[("threads", place.stuck as f64)])
}

pub(super) fn deferred(site: &SiteSample) -> Evidence {
    let words =
        format!("{} runs as a deferred call: what it starts outlives the function by design", site.key.function);
    evidence("deferred", words, &[])
}

pub(super) fn orphans(site: &SiteSample, place: &Place) -> Evidence {
    let words = format!(
        "{} of {} outlive the call of {} that started them",
        place.orphans, place.orphans_of, site.key.function
    );
    evidence("orphans", words, &[("orphans", place.orphans as f64), ("looked_at", place.orphans_of as f64)])
}

pub(super) fn storm(rate_: f64, live: u64, thresholds: &Thresholds) -> Evidence {
    let words = format!(
        "{} more than end, in each of {} periods of {:.0} s; {live} are alive",
        rate(rate_),
        thresholds.storm_periods,
        thresholds.storm_period.as_secs_f64()
    );
    evidence("storm", words, &[("per_second", rate_), ("live", live as f64)])
}

pub(super) fn standing(place: &Place, seconds: f64, several: bool) -> Evidence {
    let oldest = duration(place.still.oldest_ns());
    let words = if several {
        format!(
            "{} stand at the same place; none of them moved in {seconds:.0} s, some not for at least {oldest}. They do not \
             get more now",
            place.count
        )
    } else {
        format!(
            "{} stand at the same place, some for at least {oldest}; a single look cannot tell if they get more",
            place.count
        )
    };
    evidence(
        "standing",
        words,
        &[("count", place.count as f64), ("oldest_seconds", place.still.oldest_ns() as f64 / 1e9)],
    )
}

pub(super) fn finalizer(place: &Place, ns: u64) -> Evidence {
    let words =
        format!("{}, at the same place for at least {}; other finalizers wait for it", place.reason, duration(ns));
    evidence("finalizer", words, &[("seconds", ns as f64 / 1e9)])
}

pub(super) fn busy(count: u64, ns: u64, samples: u64) -> Evidence {
    let who = if count == 1 { "it has".to_owned() } else { format!("{count} of them have") };
    let words = format!("{who} not parked for at least {}, running at each of {samples} looks", duration(ns));
    evidence("busy", words, &[("seconds", ns as f64 / 1e9), ("samples", samples as f64)])
}

/// What to do about it.
pub(super) fn advice(kind: Kind, site: &SiteSample, place: &Place) -> String {
    if site.key.function.starts_with("net/http.(*Transport).") {
        return "connections of an http.Client: close every response body, share one Transport, set IdleConnTimeout"
            .to_owned();
    }
    match kind {
        Kind::Channel => match place.block {
            Block::Never => "give the channel a value before it is used, or let a select also wait for a context".to_owned(),
            Block::Send => "make the channel buffered for one, or select on the send and a context's Done".to_owned(),
            Block::Receive => "let the sender close the channel on every way out, or select on a context's Done".to_owned(),
            _ => "make sure that one case of the select becomes ready on every way out: close a channel, cancel a context".to_owned(),
        },
        Kind::Context => {
            "hand the request's context down and return on its Done; call the cancel function on every way out".to_owned()
        }
        Kind::WaitGroup => {
            "call Add before the go statement and defer Done first thing in the goroutine; Wait where it is started".to_owned()
        }
        Kind::Timer => "stop the ticker (defer ticker.Stop()), and leave the loop when its owner is done".to_owned(),
        Kind::DeferredClosure => {
            "do not start goroutines in deferred functions, or give them an end of their own: a context, a timeout".to_owned()
        }
        Kind::Mutex => match place.waits.holder {
            Some(goid) => format!("see what goroutine {goid} waits for while it holds the lock; unlock by defer"),
            None => "look for a way out that does not unlock (an early return, a panic); unlock by defer".to_owned(),
        },
        Kind::Cond => "signal or broadcast after every change that a waiter waits for, the end included".to_owned(),
        Kind::Syscall => "give the call a deadline; where C has none, bound how many may be in it at once".to_owned(),
        Kind::Busy => "if it is not meant to compute that long: let its loop wait for something".to_owned(),
        Kind::Storm => "bound how many run at once (a semaphore, a pool), or shed load where they are started".to_owned(),
        Kind::Finalizer => "a finalizer must not block: hand the work to a goroutine".to_owned(),
        Kind::Growth => "find what should end them, and whether it still can".to_owned(),
        Kind::TooMany | Kind::Memory => of_process(kind),
    }
}

/// The same where no site is meant.
pub(super) fn of_process(kind: Kind) -> String {
    match kind {
        Kind::TooMany => {
            "see `gotracer dump --group`: which stacks are the most; raise --max-goroutines if it is meant"
        }
        Kind::Memory => "see which sites and which part of the heap grow; raise the limit only to win time",
        Kind::Timer => {
            "stop timers and tickers that are no longer needed; before Go 1.23 none is collected until it fires"
        }
        Kind::Storm => "bound how many run at once (a semaphore, a pool), or shed load before they are started",
        _ => "",
    }
    .to_owned()
}

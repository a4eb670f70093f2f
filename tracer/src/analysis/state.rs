//! Samples in, trends and findings out.

use hashbrown::HashMap;

use super::finding::{Finding, Kind, Severity};
use super::memory::FollowedMemory;
use super::sample::{Sample, SiteKey};
use super::site::{FollowedSite, Scratch};
use super::suspect::{Observed, evidence, suspect};
use super::thresholds::Thresholds;
use super::{Forecast, MemoryTrend, SITES, SiteState, SiteTrend, Verdict, words};
use crate::units::MonotonicNs;

/// Follows one process from sample to sample.
#[derive(Debug)]
pub struct Analysis {
    thresholds: Thresholds,
    followed: HashMap<SiteKey, FollowedSite>,
    total: FollowedSite,
    followed_memory: FollowedMemory,
    scratch: Scratch,
    began: Option<MonotonicNs>,
    last: MonotonicNs,
    ticks: u64,
    sites: Vec<SiteTrend>,
    findings: Vec<Finding>,
    memory: MemoryTrend,
    forecast: Option<Forecast>,
}

/// Intervals between looks that it takes to tell growth: some until somebody can be old, then those in which old ones come.
const LOOKS: f64 = 9.0;
/// Memory is a finding after so many seconds at the soonest.
const FORECAST_SECONDS: f64 = 30.0;
/// Fewer timers than this more are no finding.
const TIMERS: f64 = 50.0;

impl Analysis {
    /// Begins.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            followed: HashMap::new(),
            total: FollowedSite::new(0.0),
            followed_memory: FollowedMemory::default(),
            scratch: Scratch::default(),
            began: None,
            last: MonotonicNs(0),
            ticks: 0,
            sites: Vec::new(),
            findings: Vec::new(),
            memory: MemoryTrend::default(),
            forecast: None,
        }
    }

    /// Takes the next sample; one that is not later than the last is passed over.
    pub fn observe(&mut self, sample: &Sample) {
        if self.began.is_some() && sample.time <= self.last {
            return;
        }
        let began = *self.began.get_or_insert(sample.time);
        self.last = sample.time;
        self.ticks += 1;
        let seconds = sample.time.since(began) as f64 / 1e9;
        let observed = Observed { thresholds: &self.thresholds, time: sample.time, seconds, samples: self.ticks };
        self.sites.clear();
        self.findings.clear();
        for site in &sample.sites {
            if !self.followed.contains_key(&site.key) {
                // Nobody has come from it yet, or one too many.
                let is_empty = site.live == 0 && site.created.unwrap_or_default() == 0;
                if is_empty || self.followed.len() >= SITES {
                    continue;
                }
                self.followed.insert(site.key.clone(), FollowedSite::new(seconds));
            }
            let Some(followed) = self.followed.get_mut(&site.key) else { continue };
            if followed.tick == self.ticks {
                continue;
            }
            followed.tick = self.ticks;
            let mut trend = followed.observe(site, sample, seconds, 0.0, &self.thresholds, &mut self.scratch);
            let found = if sample.whole { suspect(site, followed, &observed) } else { None };
            if let Some(finding) = found.filter(|finding| finding.score >= self.thresholds.score) {
                trend.state = SiteState::Suspected;
                self.findings.push(finding);
            }
            self.sites.push(trend);
        }
        self.sites.sort_unstable_by(|a, b| b.live.cmp(&a.live).then_with(|| a.key.cmp(&b.key)));
        self.process(sample, seconds);
        self.findings.sort_by(|a, b| {
            let order = b.severity.cmp(&a.severity).then(b.score.total_cmp(&a.score)).then(b.count.cmp(&a.count));
            order.then_with(|| a.site.cmp(&b.site))
        });
    }

    /// What is about the process as a whole.
    fn process(&mut self, sample: &Sample, seconds: f64) {
        let live = sample.live();
        let parked: u64 = sample.sites.iter().map(|site| site.parked).sum();
        self.memory = self.followed_memory.observe(&sample.memory, live, seconds, &mut self.scratch.slopes);
        self.forecast = self.followed_memory.forecast(&self.memory, &self.findings, &mut self.scratch.slopes);
        let thresholds = &self.thresholds;

        let share = parked as f64 / live.max(1) as f64;
        if live > thresholds.goroutines && share > thresholds.parked_share {
            let words = format!(
                "{live} goroutines, {:.0} % of them parked; the thresholds are {} and {:.0} %",
                share * 100.0,
                thresholds.goroutines,
                thresholds.parked_share * 100.0
            );
            let told = evidence("threshold", words, &[("live", live as f64), ("parked_share", share)]);
            self.findings.push(of_process(Kind::TooMany, Severity::Notice, 0.6, live, None, vec![told]));
        }

        let mut all =
            super::SiteSample::empty(SiteKey { function: "".into(), file: "".into(), line: 0, start: "".into() });
        all.live = live;
        all.parked = parked;
        let whole = Sample { whole: false, ..Sample::default() };
        self.total.observe(&all, &whole, seconds, 0.0, thresholds, &mut self.scratch);
        if let Some(rate) = self.total.storm
            && !self.findings.iter().any(|finding| finding.per_second.is_some_and(|r| r > rate / 2.0))
        {
            let told = words::storm(rate, live, thresholds);
            self.findings.push(of_process(Kind::Storm, Severity::Critical, 0.8, live, Some(rate), vec![told]));
        }

        let timers = &self.memory.timers;
        // Goroutines that stay have timers too: those that sleep, those that a ticker wakes.
        let stay: f64 = self.findings.iter().filter_map(|finding| finding.per_second).sum();
        if stay < 0.5 * timers.per_second
            && timers.rises(thresholds.chance)
            && timers.low * timers.seconds >= TIMERS
            && seconds >= 2.0 * thresholds.observe.as_secs_f64()
        {
            let count = sample.memory.timers.unwrap_or_default();
            let words = format!(
                "{count} timers are set, {} more: nobody stops them, or they are set for long",
                words::rate(timers.per_second)
            );
            let told = evidence("timers", words, &[("timers", count as f64), ("per_second", timers.per_second)]);
            let rate = Some(timers.per_second);
            self.findings.push(of_process(Kind::Timer, Severity::Notice, 0.6, count, rate, vec![told]));
        }

        // A heap that has just got its load grows until it has what it needs: a finding wants more than resident memory.
        let live_grows = [&self.memory.heap, &self.memory.stacks].iter().any(|trend| trend.rises(thresholds.chance));
        if let Some(forecast) = &self.forecast
            && seconds >= FORECAST_SECONDS
            && live_grows
            && forecast.soonest_s <= thresholds.memory_within.as_secs_f64()
        {
            let soonest = words::duration((forecast.soonest_s * 1e9) as u64);
            let latest =
                forecast.latest_s.map_or_else(String::new, |s| format!(" to {}", words::duration((s * 1e9) as u64)));
            let words =
                format!("the {} limit is reached in {soonest}{latest} if it goes on like this", forecast.limit_of);
            let numbers = [("soonest_seconds", forecast.soonest_s), ("confidence", forecast.confidence)];
            let severity = if forecast.soonest_s < 600.0 { Severity::Critical } else { Severity::Warning };
            let told = evidence("forecast", words, &numbers);
            self.findings.push(of_process(Kind::Memory, severity, forecast.confidence * 0.8, live, None, vec![told]));
        }
    }

    /// What the thresholds are.
    #[must_use]
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The creation sites of the last sample, those with the most goroutines first.
    #[must_use]
    pub fn sites(&self) -> &[SiteTrend] {
        &self.sites
    }

    /// The findings of the last sample, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How memory moves.
    #[must_use]
    pub fn memory(&self) -> &MemoryTrend {
        &self.memory
    }

    /// When memory ends; `None` if it does not grow, no limit is known, or it cannot be told yet.
    #[must_use]
    pub fn forecast(&self) -> Option<&Forecast> {
        self.forecast.as_ref()
    }

    /// Seconds from the first sample to the last.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.began.map_or(0.0, |began| self.last.since(began) as f64 / 1e9)
    }

    /// How many samples were taken in.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.ticks
    }

    /// Whether enough was seen for a verdict on growth.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let seen_s = self.seconds();
        // What is too seldom looked at is too short as well: a busy machine lets looks come late.
        let pace = seen_s / self.ticks.saturating_sub(1).max(1) as f64;
        let needed_s = self.thresholds.observe.as_secs_f64().max(pace * LOOKS);
        if seen_s < needed_s || self.ticks < 2 { Verdict::TooShort { seen_s, needed_s } } else { Verdict::Enough }
    }
}

fn of_process(
    kind: Kind,
    severity: Severity,
    score: f64,
    count: u64,
    per_second: Option<f64>,
    evidence: Vec<super::Evidence>,
) -> Finding {
    Finding {
        kind,
        severity,
        score,
        site: None,
        count,
        per_second,
        since: None,
        since_ns: None,
        evidence,
        advice: words::of_process(kind),
        stack: [].into(),
        reason: "".into(),
        stack_bytes: 0,
        creators: Vec::new(),
        examples: Vec::new(),
    }
}

//! Samples in, trends and findings out.

use super::{Finding, Forecast, MemoryTrend, Sample, SiteTrend, Thresholds, Verdict};

/// Follows one process from sample to sample.
#[derive(Debug)]
pub struct Analysis {
    thresholds: Thresholds,
    sites: Vec<SiteTrend>,
    findings: Vec<Finding>,
    memory: MemoryTrend,
    forecast: Option<Forecast>,
    verdict: Verdict,
}

impl Analysis {
    /// Begins.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        let verdict = Verdict::TooShort { seen_s: 0.0, needed_s: thresholds.observe.as_secs_f64() };
        Self {
            thresholds,
            sites: Vec::new(),
            findings: Vec::new(),
            memory: MemoryTrend::default(),
            forecast: None,
            verdict,
        }
    }

    /// Takes the next sample; one that is not later than the last is passed over.
    pub fn observe(&mut self, _sample: &Sample) {}

    /// What the thresholds are.
    #[must_use]
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The creation sites, those with the most goroutines first.
    #[must_use]
    pub fn sites(&self) -> &[SiteTrend] {
        &self.sites
    }

    /// The findings, the worst first.
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

    /// Whether enough was seen for a verdict on growth.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

//! What tracing costs the target, as a running figure.

use serde::Serialize;

use crate::probes::catalogue::Event;

/// The price of the last period, worked out from hits and from what a hit was measured to cost on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overhead {
    /// Share of the CPU time that the target used in the period, 0 to 1; 0 when it used none.
    pub of_target: f64,
    /// Share of all CPUs of this machine in the period, 0 to 1.
    pub of_host: f64,
    /// CPUs that the target used on average, tracing included.
    pub target_cpus: f64,
    /// By kind of probe.
    pub probes: Vec<ProbeRate>,
}

/// What one kind of probe costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeRate {
    /// What it reports.
    pub event: Event,
    /// Hits a second.
    pub hits_per_second: f64,
    /// Nanoseconds of the target's CPU time that they take a second; more than hits alone where a probe is hit that is not
    /// wanted any more.
    pub ns_per_second: f64,
}

impl Overhead {
    /// Hits a second, of all kinds.
    #[must_use]
    pub fn hits_per_second(&self) -> f64 {
        self.probes.iter().map(|probe| probe.hits_per_second).sum()
    }

    /// Nanoseconds of the target's CPU time a second.
    #[must_use]
    pub fn ns_per_second(&self) -> f64 {
        self.probes.iter().map(|probe| probe.ns_per_second).sum()
    }
}

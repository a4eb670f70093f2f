//! The thresholds of findings as flags.

use std::time::Duration;

use clap::Args;

use super::parse_duration;
use crate::analysis::Thresholds;

/// From where on something is told.
#[derive(Args)]
#[command(next_help_heading = "Thresholds")]
pub(super) struct ThresholdArguments {
    /// More goroutines than this, most of them parked, are too many [default: 5000]
    #[arg(long, value_name = "N")]
    max_goroutines: Option<u64>,
    /// The share that counts as most, from 0 to 1 [default: 0.85]
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    parked_share: Option<f64>,
    /// Growth above this, in goroutines a second, is a storm ... [default: 50]
    #[arg(long, value_name = "RATE")]
    storm: Option<f64>,
    /// ... if it holds for so many periods in a row ... [default: 3]
    #[arg(long, value_name = "N")]
    storm_periods: Option<u32>,
    /// ... of this length [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    storm_period: Option<Duration>,
    /// Fewer goroutines than this are no finding [default: 5]
    #[arg(long, value_name = "N")]
    least: Option<u64>,
    /// So many receivers that stand still are told, though they do not grow [default: 1000]
    #[arg(long, value_name = "N")]
    standing: Option<u64>,
    /// The chance, from 0 to 1, that growth which is told is noise, at most [default: 0.01]
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    chance: Option<f64>,
    /// Findings with a lower score, from 0 to 1, are not told [default: 0.5]
    #[arg(long, value_name = "SCORE", value_parser = parse_share)]
    min_score: Option<f64>,
    /// A goroutine that does not park for so long is busy [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    busy: Option<Duration>,
    /// A finalizer that takes so long is blocked [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    finalizer: Option<Duration>,
    /// Memory that reaches its limit within this time is a finding [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    memory_within: Option<Duration>,
}

impl ThresholdArguments {
    /// The thresholds: what is given, and defaults for the rest.
    pub(super) fn thresholds(&self) -> Thresholds {
        let default = Thresholds::default();
        Thresholds {
            goroutines: self.max_goroutines.unwrap_or(default.goroutines),
            parked_share: self.parked_share.unwrap_or(default.parked_share),
            storm_per_second: self.storm.unwrap_or(default.storm_per_second),
            storm_periods: self.storm_periods.unwrap_or(default.storm_periods),
            storm_period: self.storm_period.unwrap_or(default.storm_period),
            least: self.least.unwrap_or(default.least),
            standing: self.standing.unwrap_or(default.standing),
            chance: self.chance.unwrap_or(default.chance),
            score: self.min_score.unwrap_or(default.score),
            busy: self.busy.unwrap_or(default.busy),
            finalizer: self.finalizer.unwrap_or(default.finalizer),
            memory_within: self.memory_within.unwrap_or(default.memory_within),
            observe: default.observe,
        }
    }
}

/// Parses a number from 0 to 1.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

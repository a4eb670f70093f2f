//! The last hour of one watched process, a point for each sample: for evidence.

use std::collections::VecDeque;

use serde::Serialize;

use crate::output::metrics::{Forecast, KernelMetrics};

/// One sample.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The program's own goroutines.
    pub goroutines: u64,
    /// Of them, blocked.
    pub blocked: u64,
    /// Goroutines seen at their creation.
    pub created: u64,
    /// Goroutines that ended.
    pub ended: u64,
    /// Bytes of goroutines' stacks.
    pub stack_bytes: Option<u64>,
    /// What the kernel says.
    #[serde(flatten)]
    pub kernel: KernelMetrics,
    /// Heap that is live or was allocated since the last collection.
    pub heap_live_bytes: Option<u64>,
    /// Where the next collection should end.
    pub heap_goal_bytes: Option<u64>,
    /// Collections.
    pub gc_cycles: Option<u64>,
    /// Nanoseconds that the collector stopped the world.
    pub gc_pause_total_ns: Option<u64>,
    /// Timers that are set.
    pub timers: Option<u64>,
    /// How long memory lasts.
    pub forecast: Option<Forecast>,
}

/// Points kept: an hour of samples of five seconds.
const POINTS: usize = 720;

/// The points, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Series(VecDeque<Point>);

impl Series {
    /// Adds the newest; the oldest goes if there is no room.
    pub fn push(&mut self, point: Point) {
        if self.0.len() >= POINTS {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// The newest.
    #[must_use]
    pub fn last(&self) -> Option<&Point> {
        self.0.back()
    }

    /// All of them.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.0.iter()
    }
}

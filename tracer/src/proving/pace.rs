//! How long passes rest, so that they take little from what else runs.
//!
//! In: what a pass took of the processors, and how long it had to wait for one. Out: a rest. A pass that never waits runs on a
//! processor that nobody else wanted; one that waits takes from somebody, and that may be the very process it looks at. Knows
//! nothing of what a pass does.

use std::time::Duration;

use crate::thread_time::{cpu_of_this_process, waited_of_this_thread};

/// From the end of one pass to the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So long, whatever passes take.
    Every(Duration),
    /// At least so long; and where passes have to wait for a processor, until they take a twentieth of all at most.
    Considerate(Duration),
}

/// Where processors are wanted by others, passes take one part in so many of them.
const SHARE: u32 = 20;
/// They are wanted if of its own time a thread has waited one part in so many.
const WANTED: u32 = 20;

/// What was taken of the processors so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// By all threads of ours.
    cpu: Duration,
    /// By the calling thread, which does its part of every pass.
    own: Duration,
    /// How long that thread could run and did not. `None` where the kernel does not tell.
    waited: Option<Duration>,
}

impl Taken {
    /// Until now.
    pub(super) fn now() -> Self {
        Self {
            cpu: cpu_of_this_process(),
            own: crate::thread_time::cpu_of_this_thread(),
            waited: waited_of_this_thread(),
        }
    }

    /// From `before` until now.
    pub(super) fn since(before: Self) -> Self {
        let now = Self::now();
        Self {
            cpu: now.cpu.saturating_sub(before.cpu),
            own: now.own.saturating_sub(before.own),
            waited: now.waited.zip(before.waited).map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

impl Pace {
    /// The rest after a pass that lasted for `lasted` and took `taken` on a machine with so many processors.
    pub(super) fn rest(self, taken: Taken, lasted: Duration, processors: usize) -> Duration {
        let least = match self {
            Self::Every(exactly) => return exactly,
            Self::Considerate(least) => least,
        };
        // Who cannot tell whether it waits had better suppose that it does.
        if taken.waited.is_some_and(|waited| waited * WANTED < taken.own) {
            return least;
        }
        let all = taken.cpu * SHARE / u32::try_from(processors.max(1)).unwrap_or(u32::MAX);
        least.max(all.saturating_sub(lasted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(cpu_ms: u64, waited_ms: Option<u64>) -> Taken {
        let cpu = Duration::from_millis(cpu_ms);
        Taken { cpu, own: cpu, waited: waited_ms.map(Duration::from_millis) }
    }

    #[test]
    fn what_nobody_else_wanted_costs_no_rest() {
        let rest = Pace::Considerate(SECOND).rest(taken(1500, Some(70)), Duration::from_millis(1570), 2);
        assert_eq!(rest, SECOND);
    }

    #[test]
    fn what_others_wanted_is_a_twentieth_of_all() {
        let (pace, lasted) = (Pace::Considerate(SECOND), Duration::from_secs(2));
        // 1.5 s of two processors: a twentieth of 30 s, of which 15 s pass.
        assert_eq!(pace.rest(taken(1500, Some(500)), lasted, 2), Duration::from_secs(13));
        assert_eq!(pace.rest(taken(1500, None), lasted, 2), Duration::from_secs(13));
        assert_eq!(pace.rest(taken(20, Some(20)), Duration::from_millis(40), 2), SECOND);
        assert_eq!(pace.rest(taken(1500, Some(500)), lasted, 64), SECOND);
    }

    #[test]
    fn what_is_asked_for_is_kept() {
        let pace = Pace::Every(Duration::ZERO);
        assert_eq!(pace.rest(taken(1500, Some(1500)), Duration::from_secs(3), 1), Duration::ZERO);
    }
}

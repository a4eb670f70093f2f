//! When an alarm fires. Pure: samples and times in, decisions out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::agent::config::Alarm;
use crate::units::Pid;

/// What a sample means for an alarm and a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Below the threshold, or not for long enough yet; or it fired and still holds.
    Quiet,
    /// It fires now.
    Fires,
    /// It would fire, but it has fired for this process not long ago.
    CoolingDown,
    /// It would fire, but has fired as often as it may in an hour.
    TooOften,
    /// It had fired, and the threshold no longer holds.
    Clears,
}

#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    samples: u32,
    /// The threshold holds, and a decision was made.
    decided: bool,
    firing: bool,
    fired: Option<Instant>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// The state of all alarms for all processes.
#[derive(Debug, Default)]
pub struct Breaker {
    streaks: HashMap<(String, Pid, u64), Streak>,
    fired: HashMap<String, VecDeque<Instant>>,
    totals: BTreeMap<String, u64>,
}

impl Breaker {
    /// Takes the next sample of a process (its PID and start time). `value`: what the alarm looks at, if it is known.
    pub fn take(
        &mut self,
        alarm: &Alarm,
        process: (Pid, u64),
        value: Option<f64>,
        goroutines: u64,
        now: Instant,
    ) -> Decision {
        let name = alarm.name.as_str();
        let holds = value.is_some_and(|value| {
            alarm.above.is_none_or(|above| value > above) && alarm.below.is_none_or(|below| value < below)
        }) && goroutines >= alarm.min_goroutines;
        let streak = self.streaks.entry((name.to_owned(), process.0, process.1)).or_default();
        if !holds {
            let cleared = std::mem::take(&mut streak.firing);
            (streak.samples, streak.decided) = (0, false);
            return if cleared { Decision::Clears } else { Decision::Quiet };
        }
        streak.samples = streak.samples.saturating_add(1);
        if streak.samples < alarm.samples {
            return Decision::Quiet;
        }
        let cooling = streak.fired.is_some_and(|fired| now.duration_since(fired) < alarm.cooldown.0);
        let hour = self.fired.entry(name.to_owned()).or_default();
        while hour.front().is_some_and(|fired| now.duration_since(*fired) >= HOUR) {
            hour.pop_front();
        }
        let said = std::mem::replace(&mut streak.decided, true);
        if cooling {
            // While it goes on firing there is nothing new to say.
            return if said || streak.firing { Decision::Quiet } else { Decision::CoolingDown };
        }
        if hour.len() >= alarm.max_per_hour as usize {
            return if said { Decision::Quiet } else { Decision::TooOften };
        }
        hour.push_back(now);
        (streak.firing, streak.fired) = (true, Some(now));
        *self.totals.entry(name.to_owned()).or_default() += 1;
        Decision::Fires
    }

    /// Forgets processes for which `gone` says so.
    pub fn forget(&mut self, gone: impl Fn(Pid, u64) -> bool) {
        self.streaks.retain(|(_, pid, start), _| !gone(*pid, *start));
    }

    /// Forgets alarms that are no longer configured.
    pub fn keep(&mut self, alarms: &[Alarm]) {
        self.streaks.retain(|(name, ..), _| alarms.iter().any(|alarm| alarm.name.as_str() == name));
    }

    /// Which alarms fire now, for which process.
    pub fn firing(&self) -> impl Iterator<Item = (&str, Pid)> {
        self.streaks.iter().filter(|(_, streak)| streak.firing).map(|((name, pid, _), _)| (name.as_str(), *pid))
    }

    /// How often each alarm has fired.
    #[must_use]
    pub fn totals(&self) -> &BTreeMap<String, u64> {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::Config;

    fn alarm(more: &str) -> Alarm {
        let text = format!("[[alarm]]\nname = \"a\"\nfigure = \"goroutines\"\nabove = 10\n{more}");
        Config::parse(&text).expect("right").alarm.remove(0)
    }

    const PROCESS: (Pid, u64) = (Pid(7), 1);

    #[test]
    fn it_fires_when_the_threshold_holds_for_three_samples_in_a_row() {
        let (mut breaker, alarm, now) = (Breaker::default(), alarm(""), Instant::now());
        let mut take = |value: f64| breaker.take(&alarm, PROCESS, Some(value), 0, now);
        let decisions: Vec<Decision> = [11.0, 12.0, 10.0, 11.0, 11.0, 11.0, 11.0, 9.0, 8.0].map(&mut take).to_vec();
        use Decision::{Clears, Fires, Quiet};
        assert_eq!(decisions, [Quiet, Quiet, Quiet, Quiet, Quiet, Fires, Quiet, Clears, Quiet]);
    }

    #[test]
    fn what_is_not_known_does_not_hold() {
        let (mut breaker, alarm, now) = (Breaker::default(), alarm("samples = 1\n"), Instant::now());
        assert_eq!(breaker.take(&alarm, PROCESS, None, 0, now), Decision::Quiet);
        assert_eq!(breaker.take(&alarm, PROCESS, Some(f64::NAN), 0, now), Decision::Quiet);
        assert_eq!(breaker.take(&alarm, PROCESS, Some(11.0), 0, now), Decision::Fires);
    }

    #[test]
    fn cooling_down_is_said_once_and_then_it_fires_again() {
        let (mut breaker, alarm, start) =
            (Breaker::default(), alarm("samples = 1\ncooldown = \"60s\"\n"), Instant::now());
        let mut at = |seconds: u64, value: f64| {
            breaker.take(&alarm, PROCESS, Some(value), 0, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, 11.0), Decision::Fires);
        assert_eq!(at(5, 9.0), Decision::Clears);
        assert_eq!(at(10, 11.0), Decision::CoolingDown);
        assert_eq!(at(15, 11.0), Decision::Quiet);
        // It still holds when the cool-down is over.
        assert_eq!(at(61, 11.0), Decision::Fires);
        assert_eq!(at(66, 11.0), Decision::Quiet);
        assert_eq!(at(130, 11.0), Decision::Fires, "and again as long as it holds");
    }

    #[test]
    fn no_more_often_than_allowed_in_an_hour_for_all_processes() {
        let (mut breaker, alarm, start) =
            (Breaker::default(), alarm("samples = 1\nmax_per_hour = 2\n"), Instant::now());
        let mut at = |pid: u32, seconds: u64| {
            breaker.take(&alarm, (Pid(pid), 1), Some(11.0), 0, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(1, 0), Decision::Fires);
        assert_eq!(at(2, 1), Decision::Fires);
        assert_eq!(at(3, 2), Decision::TooOften);
        assert_eq!(at(3, 3), Decision::Quiet);
        assert_eq!(at(3, 3601), Decision::Fires);
        assert_eq!(breaker.totals().get("a"), Some(&3));
    }

    #[test]
    fn a_small_process_is_left_alone() {
        let (mut breaker, alarm, now) =
            (Breaker::default(), alarm("samples = 1\nmin_goroutines = 1000\n"), Instant::now());
        assert_eq!(breaker.take(&alarm, PROCESS, Some(11.0), 999, now), Decision::Quiet);
        assert_eq!(breaker.take(&alarm, PROCESS, Some(11.0), 1000, now), Decision::Fires);
    }

    #[test]
    fn a_process_with_the_same_pid_begins_anew() {
        let (mut breaker, alarm, now) = (Breaker::default(), alarm("samples = 2\n"), Instant::now());
        assert_eq!(breaker.take(&alarm, (Pid(7), 1), Some(11.0), 0, now), Decision::Quiet);
        assert_eq!(breaker.take(&alarm, (Pid(7), 2), Some(11.0), 0, now), Decision::Quiet);
        breaker.forget(|_, start| start == 1);
        assert_eq!(breaker.take(&alarm, (Pid(7), 1), Some(11.0), 0, now), Decision::Quiet);
    }
}

//! What one goroutine did lately.
//!
//! In: the event stream, of which only this goroutine's transitions are kept, the last [`MOST`] of them. Out: its steps,
//! and how it divided its time.

use std::collections::VecDeque;

use super::StateKind;
use crate::events::{Event, Transition};
use crate::goroutines::{Goroutine, GoroutineTable, State};
use crate::units::{Goid, MonotonicNs};

/// Steps kept.
const MOST: usize = 1_024;

/// What began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Created,
    Running,
    Blocked(u8),
    Exited,
    /// Events were lost: here a step may be missing.
    Lost,
}

impl Step {
    pub(super) fn state(self) -> Option<StateKind> {
        match self {
            Self::Created => Some(StateKind::Runnable),
            Self::Running => Some(StateKind::Running),
            Self::Blocked(_) => Some(StateKind::Blocked),
            Self::Exited | Self::Lost => None,
        }
    }
}

/// A goroutine that is watched.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub goid: Goid,
    /// As it was when it was last seen alive.
    pub last: Option<Goroutine>,
    pub ended: Option<MonotonicNs>,
    steps: VecDeque<(MonotonicNs, Step)>,
    /// Steps that were kept once, and gave way.
    pub dropped: u64,
}

/// How a stretch of time was spent, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    pub running: u64,
    pub runnable: u64,
    pub blocked: u64,
}

impl Watched {
    /// Begins to watch `goid`, in the state that the table has it in.
    pub(super) fn begin(goid: Goid, table: &GoroutineTable) -> Self {
        let last = table.get(goid);
        let step = |g: &Goroutine| match g.state {
            State::Runnable => Step::Created,
            State::Running => Step::Running,
            State::Blocked { reason } => Step::Blocked(reason),
        };
        let steps = last.iter().map(|g| (g.since, step(g))).collect();
        Self { goid, last, ended: None, steps, dropped: 0 }
    }

    /// Takes in its events of `events`.
    pub(super) fn take_in(&mut self, events: &[Event]) {
        for event in events {
            let (time, step) = match *event {
                Event::Goroutine { time, goid, transition, .. } if goid == self.goid => match transition {
                    Transition::Created { .. } => (time, Step::Created),
                    Transition::Running => (time, Step::Running),
                    Transition::Blocked { reason } => (time, Step::Blocked(reason)),
                    Transition::Exited => (time, Step::Exited),
                },
                Event::Exec { time, .. } => (time, Step::Exited),
                Event::Lost { time, .. } => (time, Step::Lost),
                Event::Goroutine { .. } => continue,
            };
            if self.ended.is_some() {
                return;
            }
            if step == Step::Exited {
                self.ended = Some(time);
            }
            // Two in a row: it was preempted in between, or many CPUs lost events at once.
            if self.steps.back().is_some_and(|(_, last)| *last == step && matches!(step, Step::Running | Step::Lost)) {
                continue;
            }
            if self.steps.len() == MOST {
                self.steps.pop_front();
                self.dropped += 1;
            }
            self.steps.push_back((time, step));
        }
    }

    /// Looks it up again.
    pub(super) fn refresh(&mut self, at: MonotonicNs, table: &GoroutineTable) {
        match table.get(self.goid) {
            Some(g) => self.last = Some(g),
            // Gone without an event: its end was lost, and a snapshot told.
            None => self.ended = self.ended.or(Some(at)),
        }
    }

    /// Its steps up to `now`, the newest first, each with the nanoseconds to the next.
    pub(super) fn steps(&self, now: MonotonicNs) -> impl Iterator<Item = (MonotonicNs, Step, u64)> + '_ {
        let now = self.ended.map_or(now, |ended| ended.min(now));
        let mut next = now;
        self.steps.iter().rev().filter(move |(time, _)| *time <= now).map(move |(time, step)| {
            let lasted = next.since(*time);
            next = *time;
            (*time, *step, lasted)
        })
    }

    /// When the first step began that is known.
    pub(super) fn known_from(&self) -> Option<MonotonicNs> {
        self.steps.front().map(|(time, _)| *time)
    }

    /// How it spent the stretch from `from` to `to`, cut into `pieces` equal ones.
    pub(super) fn spent(&self, from: MonotonicNs, to: MonotonicNs, pieces: usize) -> Vec<Spent> {
        let mut spent = vec![Spent::default(); pieces];
        let span = to.since(from);
        if pieces == 0 || span < pieces as u64 {
            return spent;
        }
        let edge = |piece: usize| from.0 + (u128::from(span) * piece as u128 / pieces as u128) as u64;
        for (time, step, lasted) in self.steps(to) {
            let (begin, end) = (time.0.max(from.0), time.0.saturating_add(lasted).min(to.0));
            if begin >= end {
                continue;
            }
            let first = (u128::from(begin - from.0) * pieces as u128 / u128::from(span)) as usize;
            // One earlier: the division rounds.
            for (piece, spent) in spent.iter_mut().enumerate().skip(first.saturating_sub(1)) {
                if edge(piece) >= end {
                    break;
                }
                let part = end.min(edge(piece + 1)).saturating_sub(begin.max(edge(piece)));
                match step.state() {
                    Some(StateKind::Running) => spent.running += part,
                    Some(StateKind::Runnable) => spent.runnable += part,
                    Some(StateKind::Blocked) => spent.blocked += part,
                    None => {}
                }
            }
        }
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;

    fn event(ms: u64, goid: u64, transition: Transition) -> Event {
        Event::Goroutine { time: MonotonicNs(ms * 1_000_000), pid: Pid(1), goid: Goid(goid), transition }
    }

    #[test]
    fn only_its_own_steps_are_kept_and_never_too_many() {
        let mut watched = Watched::begin(Goid(7), &GoroutineTable::new(Pid(1)));
        let events: Vec<Event> = (0..5_000)
            .flat_map(|ms| {
                let step = if ms % 2 == 0 { Transition::Running } else { Transition::Blocked { reason: 3 } };
                [event(ms, 7, step), event(ms, 8, Transition::Running)]
            })
            .collect();
        watched.take_in(&events);
        let now = MonotonicNs(5_000 * 1_000_000);
        let steps: Vec<_> = watched.steps(now).collect();
        assert_eq!((steps.len(), watched.dropped), (MOST, 5_000 - MOST as u64));
        assert_eq!(steps[0], (MonotonicNs(4_999_000_000), Step::Blocked(3), 1_000_000));
        assert_eq!(steps[1], (MonotonicNs(4_998_000_000), Step::Running, 1_000_000));
        assert!(watched.ended.is_none());
    }

    #[test]
    fn time_is_divided_without_loss() {
        let mut watched = Watched::begin(Goid(7), &GoroutineTable::new(Pid(1)));
        let created = Transition::Created {
            parent: Goid(1),
            gopc: crate::units::RemoteAddr(1),
            startpc: crate::units::RemoteAddr(2),
        };
        watched.take_in(&[
            event(0, 7, created),
            event(100, 7, Transition::Running),
            event(350, 7, Transition::Blocked { reason: 1 }),
            event(900, 7, Transition::Running),
            event(1_000, 7, Transition::Exited),
            event(1_500, 7, Transition::Running),
        ]);
        assert_eq!(watched.ended, Some(MonotonicNs(1_000_000_000)));
        for pieces in [1, 3, 7, 10, 64] {
            let spent = watched.spent(MonotonicNs(0), MonotonicNs(1_000_000_000), pieces);
            let sum = |of: fn(&Spent) -> u64| spent.iter().map(of).sum::<u64>();
            assert_eq!(
                (sum(|s| s.runnable), sum(|s| s.running), sum(|s| s.blocked)),
                (100_000_000, 350_000_000, 550_000_000),
                "{pieces} pieces"
            );
        }
    }
}

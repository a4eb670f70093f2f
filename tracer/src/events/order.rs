//! Time order across CPUs.
//!
//! In: drain by drain, each CPU's events in the order of its buffer, and the moment at which the drain began.
//! Out: events in time order, up to that moment; later ones wait for the next drain. Knows nothing of buffers
//! or tables.
//!
//! What the order is worth:
//!
//! - An event's time is read in the kernel program *before* the event is put in the buffer, and on a preemptible
//!   kernel the program can lose its CPU in between. So times within one buffer are nearly, not wholly, in order
//!   (put right here), and an event can come after the drain that should have released it. Such an event is
//!   released as soon as it comes and counted ([`TimeOrder::late`]): nothing is dropped for being late.
//! - The events of *one goroutine* are in order all the same, late or not. It runs through its probes one after the
//!   other, on whatever threads, with the scheduler's own synchronisation between them: event 1 is in its buffer
//!   before the time of event 2 is read. If event 2 is released by a drain, its time is at or before that drain's
//!   begin, so event 1 was in its buffer before the drain began: it is released before event 2, or was so earlier.
//!   (`bpf_ktime_get_ns` is the kernel's NMI-safe clock, which may step back by some nanoseconds while timekeeping is
//!   updated. Two events of one goroutine lie further apart; should it happen, the table takes time running backwards.)
//! - Equal times: of one CPU, buffer order; of several, what begins a life goes before what ends one, then the lower
//!   CPU number. A probe hit costs hundreds of nanoseconds, so two events of one goroutine do not tie in practice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::{Event, Transition};
use crate::units::MonotonicNs;

/// Up to this many events a drain are put in their place one by one; a CPU with more of them is sorted as a whole.
///
/// Misplaced events are rare (one needs a preemption inside the kernel program), so the sort, which allocates, is the
/// guard against quadratic work and not the usual way.
const MOVED_SINGLY: u32 = 64;

/// Merges per-CPU runs of events into one sequence in time order.
///
/// Memory: the events of the largest drain so far, twice (runs and output); nothing is allocated per drain after that.
#[derive(Debug, Default)]
pub struct TimeOrder {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<Key>>,
    released: Vec<Event>,
    newest: MonotonicNs,
    late: u64,
}

/// Merge order of the first events of the runs: time, then [`rank`], then CPU.
type Key = (MonotonicNs, u8, u32);

/// One CPU's events that have not been released.
#[derive(Debug, Default)]
struct Run {
    events: Vec<Event>,
    /// Events before this one have been copied to the output.
    head: usize,
    moved: u32,
    unsorted: bool,
}

impl TimeOrder {
    /// An empty order; CPUs appear as they are pushed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event from `cpu`'s buffer. `cpu` is the reader's own number for the buffer, counted from 0.
    pub fn push(&mut self, cpu: u32, event: Event) {
        let at = cpu as usize;
        if at >= self.runs.len() {
            self.runs.resize_with(at + 1, Run::default);
        }
        self.runs[at].push(event);
    }

    /// Releases the events up to and including `drain_begin`, the time read before the first buffer of this drain was
    /// looked at.
    pub fn release(&mut self, drain_begin: MonotonicNs) -> &[Event] {
        self.released.clear();
        self.heads.clear();
        for (cpu, run) in (0u32..).zip(&mut self.runs) {
            run.settle();
            if let Some((time, rank)) = run.next(drain_begin) {
                self.heads.push(Reverse((time, rank, cpu)));
            }
        }
        while let Some(mut first) = self.heads.peek_mut() {
            let cpu = first.0.2;
            let run = &mut self.runs[cpu as usize];
            let event = run.events[run.head];
            run.head += 1;
            match run.next(drain_begin) {
                Some((time, rank)) => first.0 = (time, rank, cpu),
                None => {
                    PeekMut::pop(first);
                }
            }
            let time = event.time();
            self.late += u64::from(time < self.newest);
            self.newest = self.newest.max(time);
            self.released.push(event);
        }
        for run in &mut self.runs {
            run.forget_released();
        }
        &self.released
    }

    /// Releases all that is held: the end of the trace.
    pub fn finish(&mut self) -> &[Event] {
        self.release(MonotonicNs(u64::MAX))
    }

    /// How many events were released after one with a later time.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How many events wait for a later drain.
    #[must_use]
    pub fn held(&self) -> usize {
        self.runs.iter().map(|run| run.events.len()).sum()
    }
}

impl Run {
    fn push(&mut self, event: Event) {
        let time = event.time();
        if self.unsorted || self.events.last().is_none_or(|last| last.time() <= time) {
            self.events.push(event);
        } else if self.moved < MOVED_SINGLY {
            self.moved += 1;
            let place = self.events.partition_point(|other| other.time() <= time);
            self.events.insert(place, event);
        } else {
            self.unsorted = true;
            self.events.push(event);
        }
    }

    fn settle(&mut self) {
        if self.unsorted {
            self.events.sort_by_key(Event::time);
        }
        self.unsorted = false;
        self.moved = 0;
    }

    fn next(&self, up_to: MonotonicNs) -> Option<(MonotonicNs, u8)> {
        let event = self.events.get(self.head)?;
        (event.time() <= up_to).then(|| (event.time(), rank(event)))
    }

    fn forget_released(&mut self) {
        self.events.drain(..self.head);
        self.head = 0;
    }
}

/// At equal times on different CPUs: causes before effects.
fn rank(event: &Event) -> u8 {
    match event {
        Event::Exec { .. } => 0,
        Event::Goroutine { transition: Transition::Created { .. }, .. } => 1,
        Event::Goroutine { transition: Transition::Blocked { .. } | Transition::Running, .. } => 2,
        Event::Goroutine { transition: Transition::Exited, .. } => 3,
        Event::Lost { .. } => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{Goid, Pid, RemoteAddr};

    fn event(time: u64, goid: u64, transition: Transition) -> Event {
        Event::Goroutine { time: MonotonicNs(time), pid: Pid(1), goid: Goid(goid), transition }
    }

    fn running(time: u64, goid: u64) -> Event {
        event(time, goid, Transition::Running)
    }

    fn times(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.time().0).collect()
    }

    fn goids(events: &[Event]) -> Vec<u64> {
        let goid = |event: &Event| match event {
            Event::Goroutine { goid, .. } => goid.0,
            _ => 0,
        };
        events.iter().map(goid).collect()
    }

    #[test]
    fn two_cpus_are_merged_and_what_came_after_the_drain_began_waits() {
        let mut order = TimeOrder::new();
        for (cpu, time) in [(0, 10), (0, 30), (0, 50), (1, 20), (1, 40), (1, 60)] {
            order.push(cpu, running(time, 1));
        }
        assert_eq!(times(order.release(MonotonicNs(45))), [10, 20, 30, 40]);
        assert_eq!(order.held(), 2);
        order.push(0, running(55, 1));
        assert_eq!(times(order.release(MonotonicNs(45))), [] as [u64; 0]);
        assert_eq!(times(order.finish()), [50, 55, 60]);
        assert_eq!((order.late(), order.held()), (0, 0));
    }

    #[test]
    fn an_event_at_the_very_moment_of_the_drain_is_released() {
        let mut order = TimeOrder::new();
        order.push(0, running(45, 1));
        assert_eq!(times(order.release(MonotonicNs(45))), [45]);
    }

    #[test]
    fn a_program_preempted_before_its_output_is_put_in_its_place() {
        let mut order = TimeOrder::new();
        for time in [10, 30, 40, 20, 50] {
            order.push(0, running(time, 1));
        }
        assert_eq!(times(order.finish()), [10, 20, 30, 40, 50]);
        assert_eq!(order.late(), 0);
    }

    #[test]
    fn an_event_that_missed_its_drain_is_released_at_once_and_counted() {
        let mut order = TimeOrder::new();
        order.push(0, running(30, 1));
        assert_eq!(times(order.release(MonotonicNs(35))), [30]);
        order.push(1, running(20, 2));
        order.push(0, running(40, 1));
        assert_eq!(times(order.release(MonotonicNs(45))), [20, 40]);
        assert_eq!(order.late(), 1);
    }

    #[test]
    fn equal_times_keep_buffer_order_on_one_cpu_and_causes_first_across_cpus() {
        let mut order = TimeOrder::new();
        let created = Transition::Created { parent: Goid(1), gopc: RemoteAddr(1), startpc: RemoteAddr(2) };
        order.push(0, event(10, 1, Transition::Exited));
        order.push(0, event(10, 2, Transition::Running));
        order.push(1, event(10, 3, Transition::Running));
        order.push(2, event(10, 4, created));
        assert_eq!(goids(order.finish()), [4, 3, 1, 2]);
    }

    #[test]
    fn an_event_put_in_its_place_stays_behind_those_of_its_time() {
        let mut order = TimeOrder::new();
        for (time, goid) in [(10, 1), (20, 2), (30, 3), (20, 4), (20, 5)] {
            order.push(0, running(time, goid));
        }
        assert_eq!(goids(order.finish()), [1, 2, 4, 5, 3]);
    }

    #[test]
    fn a_run_in_reverse_is_sorted_as_a_whole() {
        let mut order = TimeOrder::new();
        for time in (0..1000).rev() {
            order.push(0, running(time, 1));
        }
        assert_eq!(times(order.finish()), (0..1000).collect::<Vec<_>>());
    }

    proptest! {
        /// Whatever comes, in whatever order: all of it comes out, once, and each drain's share in time order.
        #[test]
        fn nothing_is_lost_or_made_up(
            drains in prop::collection::vec((0u64..200, prop::collection::vec((0u32..4, 0u64..200), 0..300)), 1..6)
        ) {
            let mut order = TimeOrder::new();
            let (mut pushed, mut released, mut late) = (Vec::new(), Vec::new(), 0);
            let mut id = 0;
            for (begin, events) in drains {
                for (cpu, time) in events {
                    id += 1;
                    order.push(cpu, running(time, id));
                    pushed.push((time, id));
                }
                let newest = released.iter().map(|&(time, _)| time).max().unwrap_or(0);
                let share = order.release(MonotonicNs(begin));
                prop_assert!(share.is_sorted_by_key(Event::time));
                prop_assert!(share.iter().all(|event| event.time().0 <= begin));
                late += times(share).iter().filter(|&&time| time < newest).count() as u64;
                released.extend(times(share).into_iter().zip(goids(share)));
                let waits = pushed.len() - released.len();
                prop_assert_eq!(order.held(), waits);
            }
            prop_assert_eq!(order.late(), late);
            let rest = order.finish();
            released.extend(times(rest).into_iter().zip(goids(rest)));
            pushed.sort_unstable();
            released.sort_unstable();
            prop_assert_eq!(pushed, released);
        }
    }
}

//! A Go process with its probes, its memory and its tracer, on a clock of its own.
//!
//! Each goroutine's life is made first, with the three moments of every step: when the probe read the time, when the
//! event was in the buffer (late if the thread was preempted in between), when the g's status showed it. What a tracer
//! gets follows from these, and so does the truth.

use std::collections::BTreeMap;

use crate::events::order::TimeOrder;
use crate::events::{Event, LossCause, Transition};
use crate::goroutines::{Coverage, Ended, GoroutineTable, SnapshotGoroutine, State};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

pub(super) const PID: Pid = Pid(7);
/// No step takes longer from its event's time to its status.
pub(super) const STEP_NS: u64 = 450;
const CPUS: u64 = 3;

/// SplitMix64.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

pub(super) struct Step {
    pub time: u64,
    pub written: u64,
    pub shown: u64,
    pub cpu: u32,
    pub transition: Transition,
}

pub(super) struct Life {
    pub goid: Goid,
    pub parent: Goid,
    pub gopc: RemoteAddr,
    pub startpc: RemoteAddr,
    pub steps: Vec<Step>,
    /// When its status is runnable though it neither is new nor has an event: woken, or preempted.
    queued: Vec<(u64, u64)>,
}

impl Life {
    fn generate(random: &mut Random, goid: u64, from: u64, to: u64) -> Self {
        let site = 1 + random.below(4);
        let (parent, gopc, startpc) = (Goid(random.below(5)), RemoteAddr(site), RemoteAddr(100 + site / 2));
        let mut life = Self { goid: Goid(goid), parent, gopc, startpc, steps: Vec::new(), queued: Vec::new() };
        let mut time = random.between(from + 1, to);
        let mut next = Transition::Created { parent, gopc, startpc };
        while time <= to {
            // One thread in eight loses its CPU between the event's time and its output.
            let output = if random.below(8) == 0 { random.below(400) } else { random.below(3) };
            let written = time + output;
            let shown = if matches!(next, Transition::Created { .. }) { time - 1 } else { written + random.below(10) };
            let cpu = random.below(CPUS) as u32;
            life.steps.push(Step { time, written, shown, cpu, transition: next });
            if next == Transition::Exited {
                break;
            }
            let free = written.max(shown) + 1;
            let was = next;
            next = match (was, random.below(10)) {
                (Transition::Running, 0..=6) => Transition::Blocked { reason: random.below(5) as u8 },
                (Transition::Running, 7..=8) => Transition::Exited,
                _ => Transition::Running,
            };
            let leaks = random.below(30) == 0;
            time = free + if leaks { to } else { random.below(400) };
            if next == Transition::Running && !matches!(was, Transition::Created { .. }) && random.below(2) == 0 {
                // Until its next step shows; a goroutine that is woken just before the end stays queued.
                life.queued.push((random.between(free, time), time));
            }
        }
        life
    }

    /// What its g says at `moment`; `None`: not there, or dead.
    fn status(&self, moment: u64) -> Option<State> {
        let step = self.steps.iter().rev().find(|step| step.shown <= moment)?;
        let state = match step.transition {
            Transition::Created { .. } => State::Runnable,
            Transition::Running => State::Running,
            Transition::Blocked { reason } => State::Blocked { reason },
            Transition::Exited => return None,
        };
        let queued = self.queued.iter().any(|&(from, to)| from <= moment && moment < to);
        Some(if queued { State::Runnable } else { state })
    }

    /// A snapshot may have found it in a run queue, which says nothing of how it came there.
    pub(super) fn queued_during(&self, reading: Reading) -> bool {
        self.queued.iter().any(|&(from, to)| from <= reading.to && reading.from < to)
    }

    pub(super) fn created(&self) -> u64 {
        self.steps[0].time
    }

    pub(super) fn exited(&self) -> bool {
        self.steps.last().is_some_and(|step| step.transition == Transition::Exited)
    }

    /// Its state at the end, as park and execute tell it, and when it came into it.
    pub(super) fn final_state(&self) -> (State, u64) {
        let mut state = (State::Runnable, self.created());
        for step in &self.steps {
            match step.transition {
                Transition::Blocked { reason } => state = (State::Blocked { reason }, step.time),
                Transition::Running if state.0 != State::Running => state = (State::Running, step.time),
                _ => {}
            }
        }
        state
    }
}

/// A reading of the target's memory, to be taken while the rest goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub begin: u64,
    pub from: u64,
    pub to: u64,
    /// Merge before the events up to `to` are in.
    pub early: bool,
}

pub(super) struct Process {
    pub lives: Vec<Life>,
    /// When the process replaces its program: lives before and after share goids.
    pub exec: Option<u64>,
    pub end: u64,
}

impl Process {
    pub(super) fn generate(random: &mut Random, goroutines: u64, end: u64) -> Self {
        let lives = (1..=goroutines).map(|goid| Life::generate(random, goid, 0, end)).collect();
        Self { lives, exec: None, end }
    }

    /// Another program follows in the same process.
    pub(super) fn exec(mut self, random: &mut Random, goroutines: u64) -> Self {
        let exec = self.end + STEP_NS;
        self.end = exec * 2;
        self.lives.extend((1..=goroutines).map(|goid| Life::generate(random, goid, exec + 10, exec * 2)));
        self.exec = Some(exec);
        self
    }

    fn snapshot(&self, random: &mut Random, reading: Reading) -> Vec<SnapshotGoroutine> {
        let mut read = Vec::new();
        for life in &self.lives {
            // Who is in allgs when the reading begins is read; who comes later may be.
            if life.steps[0].shown > reading.from && random.below(2) == 0 {
                continue;
            }
            if let Some(state) = life.status(random.between(reading.from, reading.to)) {
                let Life { goid, parent, gopc, startpc, .. } = *life;
                read.push(SnapshotGoroutine { goid, parent, gopc, startpc, state, since: None });
            }
        }
        read
    }

    /// Traces from `attach` on, drains at random moments, merges each reading, loses what was written within `lossy`.
    pub(super) fn trace(
        &self,
        random: &mut Random,
        attach: u64,
        readings: &[Reading],
        lossy: std::ops::Range<u64>,
    ) -> Traced {
        let mut buffers: BTreeMap<u32, Vec<(u64, Event)>> = BTreeMap::new();
        let mut lost = Vec::new();
        for life in &self.lives {
            for step in life.steps.iter().filter(|step| step.time >= attach) {
                if lossy.contains(&step.written) && random.below(2) == 0 {
                    lost.push((step.written, step.cpu));
                    continue;
                }
                let (time, goid, transition) = (MonotonicNs(step.time), life.goid, step.transition);
                let event = Event::Goroutine { time, pid: PID, goid, transition };
                buffers.entry(step.cpu).or_default().push((step.written, event));
            }
        }
        if let Some(exec) = self.exec {
            buffers.entry(0).or_default().push((exec, Event::Exec { time: MonotonicNs(exec), pid: PID }));
        }
        for buffer in buffers.values_mut() {
            buffer.sort_by_key(|&(written, _)| written);
        }
        let mut traced = Traced { table: GoroutineTable::new(PID), ended: Vec::new(), late: 0 };
        let mut order = TimeOrder::new();
        let mut now = attach;
        let (mut to_begin, mut to_merge) = (readings.to_vec(), readings.to_vec());
        let mut done = false;
        while !done {
            let early = |reading: &Reading| now >= reading.to && reading.early;
            if to_begin.first().is_some_and(|reading| now >= reading.begin) {
                traced.table.begin_snapshot(MonotonicNs(to_begin.remove(0).begin));
            }
            if to_merge.first().is_some_and(early) {
                self.merge(random, to_merge.remove(0), &mut traced);
            }
            done = now > self.end + STEP_NS;
            // The CPUs are looked at one after the other, some time after the drain began.
            let mut looked = now;
            for (&cpu, buffer) in &mut buffers {
                looked += random.below(50);
                let there = buffer.partition_point(|&(written, _)| written <= looked);
                let losses = lost.iter().filter(|&&(written, on)| on == cpu && written <= now).count() as u64;
                lost.retain(|&(written, on)| on != cpu || written > now);
                if losses > 0 {
                    order.push(
                        cpu,
                        Event::Lost { time: MonotonicNs(now), cpu, count: losses, cause: LossCause::BufferFull },
                    );
                }
                buffer.drain(..there).for_each(|(_, event)| order.push(cpu, event));
            }
            let ended = &mut traced.ended;
            traced.table.apply_all_with(order.release(MonotonicNs(now)), |life| ended.push(life.clone()));
            if to_merge.first().is_some_and(|reading| now > reading.to) {
                self.merge(random, to_merge.remove(0), &mut traced);
            }
            let next = now + random.between(1, 300);
            // A begin is called at its moment, between drains.
            now = to_begin.first().map_or(next, |reading| next.min(reading.begin.max(now + 1)));
        }
        assert!(to_merge.is_empty() && order.held() == 0);
        traced.late = order.late();
        traced
    }

    fn merge(&self, random: &mut Random, reading: Reading, traced: &mut Traced) {
        let read = self.snapshot(random, reading);
        let (from, to) = (MonotonicNs(reading.from), MonotonicNs(reading.to));
        traced.table.merge_snapshot(from, to, &read, Coverage::Whole).expect("begun before and not spoilt");
    }
}

pub(super) struct Traced {
    pub table: GoroutineTable,
    pub ended: Vec<Ended>,
    pub late: u64,
}

//! What the collector pays for an event, by the number of live goroutines: bytes decoded, put in time order, applied to
//! the table, in this process and without a kernel.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use gotracer::events::order::TimeOrder;
use gotracer::events::{Event, Transition, decode};
use gotracer::goroutines::GoroutineTable;
use gotracer::units::{Goid, MonotonicNs, Pid, RemoteAddr};

use super::stats::{Spread, shown};
use super::{Plan, cpu_time};

const LIVE: [u64; 3] = [1_000, 100_000, 1_000_000];
const PID: u32 = 1;
const SITES: u64 = 1_000;
const CPUS: u32 = 2;
/// What a drain finds: 20 ms of a million events a second.
const DRAIN: usize = 20_000;

/// What the goroutines do.
#[derive(Clone, Copy)]
enum Load {
    /// They park and run in turn, each at random.
    Parks,
    /// One at random ends and a new one is created and runs.
    Spawns,
}

/// Nanoseconds per event.
struct Round {
    decode: f64,
    order: f64,
    apply: f64,
}

pub fn measure(plan: &Plan) -> Result<String> {
    let mut table = String::from(
        "| live goroutines | they | decode, ns an event | time order | table | together |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for live in LIVE {
        for (load, name) in [(Load::Parks, "park and run"), (Load::Spawns, "end and are created")] {
            let mut rounds = Vec::new();
            for _ in 0..plan.collector_rounds {
                rounds.push(round(live, load, plan.collector_events)?);
            }
            let column = |of: fn(&Round) -> f64| shown(Spread::of(rounds.iter().map(of)), 1);
            let _ = writeln!(
                table,
                "| {live} | {name} | {} | {} | {} | {} |",
                column(|r| r.decode),
                column(|r| r.order),
                column(|r| r.apply),
                column(|r| r.decode + r.order + r.apply),
            );
        }
    }
    Ok(table)
}

fn round(live: u64, load: Load, count: usize) -> Result<Round> {
    let mut random = Random(live);
    let mut table = filled(live);
    let mut clock = live * 10;
    let mut goids: Vec<u64> = (1..=live).collect();
    let mut next_goid = live;
    let mut running = vec![false; goids.len()];
    let mut order = TimeOrder::new();
    let (mut decoding, mut ordering, mut applying) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut measured = 0;
    while measured < count {
        let mut drain: Vec<(u32, Sample)> = Vec::with_capacity(DRAIN + 3);
        let mut put = |goid: u64, kind: u8| {
            clock += 1_000;
            // Neighbours in time are of either CPU.
            drain.push(((random.next() % u64::from(CPUS)) as u32, Sample::new(clock, goid, kind)));
            drain.len()
        };
        let mut choose = Random(clock_seed(measured, live));
        loop {
            let at = (choose.next() % live) as usize;
            let filled = match load {
                Load::Parks => {
                    running[at] = !running[at];
                    put(
                        goids[at],
                        if running[at] { gotracer_ebpf::EVENT_RUNNING } else { gotracer_ebpf::EVENT_BLOCKED },
                    )
                }
                Load::Spawns => {
                    put(goids[at], gotracer_ebpf::EVENT_EXITED);
                    next_goid += 1;
                    goids[at] = next_goid;
                    put(next_goid, gotracer_ebpf::EVENT_CREATED);
                    put(next_goid, gotracer_ebpf::EVENT_RUNNING)
                }
            };
            if filled >= DRAIN {
                break;
            }
        }
        // A buffer is drained at a time.
        drain.sort_by_key(|(cpu, _)| *cpu);

        let begin = cpu_time::of_this_thread();
        for (cpu, sample) in &drain {
            order.push(*cpu, decode(black_box(sample.bytes()))?);
        }
        let decoded = cpu_time::of_this_thread();
        let released = order.release(MonotonicNs(clock));
        let ordered = cpu_time::of_this_thread();
        table.apply_all(released);
        let applied = cpu_time::of_this_thread();
        decoding += decoded - begin;
        ordering += ordered - decoded;
        applying += applied - ordered;
        measured += drain.len();
    }
    assert_eq!(table.live().total(), live, "every end was followed by a creation");
    black_box(&table);
    let each = |time: Duration| time.as_nanos() as f64 / measured as f64;
    Ok(Round { decode: each(decoding), order: each(ordering), apply: each(applying) })
}

fn clock_seed(measured: usize, live: u64) -> u64 {
    measured as u64 ^ live.rotate_left(32)
}

/// A table with `live` goroutines, each blocked.
pub fn filled(live: u64) -> GoroutineTable {
    let mut table = GoroutineTable::new(Pid(PID));
    for goid in 1..=live {
        let (gopc, startpc) = (RemoteAddr(0x40_0000 + goid % SITES), RemoteAddr(0x40_0000));
        let created = Transition::Created { parent: Goid(1), gopc, startpc };
        for (step, transition) in (0..).zip([created, Transition::Running, Transition::Blocked { reason: 14 }]) {
            let time = MonotonicNs(goid * 10 + step);
            table.apply(&Event::Goroutine { time, pid: Pid(PID), goid: Goid(goid), transition });
        }
    }
    table
}

/// An event as the kernel programs send it, with the padding that the perf buffer adds.
struct Sample {
    words: [u64; 6],
    len: usize,
}

impl Sample {
    fn new(time: u64, goid: u64, kind: u8) -> Self {
        let [k, v0, v1] =
            [kind, gotracer_ebpf::WIRE_VERSION.to_ne_bytes()[0], gotracer_ebpf::WIRE_VERSION.to_ne_bytes()[1]];
        let [p0, p1, p2, p3] = PID.to_ne_bytes();
        let reason = 14;
        let head = u64::from_ne_bytes([p0, p1, p2, p3, k, reason, v0, v1]);
        let len = if kind == gotracer_ebpf::EVENT_CREATED { 48 } else { 24 };
        Self { words: [time, goid, head, 1, 0x40_0000 + goid % SITES, 0x40_0000], len }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: six words are 48 bytes, and any byte is a u8.
        let bytes = unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), size_of_val(&self.words)) };
        &bytes[..self.len]
    }
}

/// xorshift64*: the same goroutines in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

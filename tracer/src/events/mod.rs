//! Events: what one goroutine did, or what was lost, at one moment.
//!
//! In: the bytes of the per-CPU buffers ([`ring`], or [`perf_buffer`] where the kernel is too old for it). Out: [`Event`]s in time order, losses among them. And what the kernel
//! programs keep instead of sending it ([`KeptStates`]).
//! Knows nothing of binaries, symbols or tables.

mod bpf_map;
mod buffers;
mod kept;
pub mod order;
mod perf_buffer;
mod ring;
mod stream;
mod wire;

pub use kept::{Blocks, Hits, Kept, KeptState, KeptStates, Reading};
pub use stream::{EventStream, StreamError, now};
pub use wire::{WireError, decode};

use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// One thing that happened, at [`Event::time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A goroutine of `pid` changed.
    Goroutine {
        /// When.
        time: MonotonicNs,
        /// In which process.
        pid: Pid,
        /// Which goroutine.
        goid: Goid,
        /// What it did.
        transition: Transition,
    },
    /// `pid` replaced its program by `execve`: all its goroutines are gone, goids start anew.
    Exec {
        /// When.
        time: MonotonicNs,
        /// Which process.
        pid: Pid,
    },
    /// `count` events of `cpu` did not reach us; they happened before `time`.
    Lost {
        /// When the loss was noticed.
        time: MonotonicNs,
        /// On which CPU.
        cpu: u32,
        /// How many.
        count: u64,
        /// Why.
        cause: LossCause,
    },
}

/// Why an event did not reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// The CPU's perf buffer was full: the reader did not keep up.
    BufferFull,
    /// The CPU had no perf buffer: it came online after they were opened.
    NoBuffer,
    /// The goroutine's `g` could not be read: its page was not in memory.
    UnreadableG,
    /// It reached us, and not the recording: what records did not keep up, the disk as a rule. No CPU is to blame.
    NotRecorded,
    /// There was no room for one more goroutine's record in the kernel.
    NoRecord,
}

impl Event {
    /// When it happened; for [`Event::Lost`], when it was noticed.
    #[must_use]
    pub fn time(&self) -> MonotonicNs {
        match *self {
            Event::Goroutine { time, .. } | Event::Exec { time, .. } | Event::Lost { time, .. } => time,
        }
    }
}

/// A step in a goroutine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A `go` statement made it; it waits for its first turn.
    Created {
        /// The goroutine that ran the `go` statement; 0 where there was none (the main goroutine).
        parent: Goid,
        /// `g.gopc`: the return address in the creator, just behind the `go` statement's call.
        gopc: RemoteAddr,
        /// `g.startpc`: the function it runs.
        startpc: RemoteAddr,
    },
    /// It parked (`gopark`), for this reason.
    Blocked {
        /// The runtime's `waitReason`, a number whose meaning depends on the Go version.
        reason: u8,
    },
    /// It was given a thread (`execute`).
    Running,
    /// It ended (`goexit1`).
    Exited,
}

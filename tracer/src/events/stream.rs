//! All CPUs' buffers as one stream.
//!
//! In: the maps of the loaded kernel programs. Out, drain by drain: events in time order with the losses among them.
//!
//! The reader sleeps until a buffer has filled to a quarter at most or a short timer has run out, notes the time, drains
//! all CPUs, and releases what happened up to the drain before (see [`order`](super::order)).

use std::io;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use gotracer_ebpf as wire;

use super::buffers::Buffers;
use super::order::TimeOrder;
use super::wire::{WireError, decode};
use super::{Event, LossCause};
use crate::probes::WayUp;
use crate::units::MonotonicNs;

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The buffers could not be opened.
    #[error("cannot open the buffers of events")]
    Open(#[source] io::Error),
    /// The buffers could not be read.
    #[error("cannot read the buffers of events")]
    Drain(#[source] io::Error),
    /// Waiting failed.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// The counters of lost events could not be read.
    #[error("cannot read the counters of lost events")]
    Counts(#[source] MapError),
    /// What the kernel programs keep could not be read.
    #[error("cannot read what the kernel programs keep")]
    Kept(#[source] Box<MapError>),
    /// What the kernel programs keep could not be read in batches.
    #[error("cannot read what the kernel programs keep, in batches")]
    Batch(#[source] io::Error),
    /// A sample was no event.
    #[error("a kernel program sent what is not an event: this is a bug in gotracer")]
    Wire(#[source] WireError),
}

/// The events of all traced processes.
pub struct EventStream {
    buffers: Buffers,
    counts: PerCpuArray<MapData, u64>,
    /// What [`Self::counts`] said at the last drain, by cause and CPU.
    counted: [Vec<u64>; wire::COUNTS as usize],
    order: TimeOrder,
    /// When the last drain began. Events are given out up to here, one drain late: a kernel program that was preempted
    /// between reading the time and sending has until the next drain to do so.
    drained: MonotonicNs,
    released: MonotonicNs,
    fullest: f64,
}

impl EventStream {
    /// Opens the buffers. Must be called in a tokio runtime, before the first probe is attached.
    ///
    /// # Errors
    ///
    /// If a buffer cannot be opened.
    pub fn open(events: WayUp, counts: PerCpuArray<MapData, u64>) -> Result<Self, StreamError> {
        let buffers = Buffers::open(events).map_err(StreamError::Open)?;
        let mut stream = Self {
            buffers,
            counts,
            counted: Default::default(),
            order: TimeOrder::new(),
            drained: MonotonicNs(0),
            released: MonotonicNs(0),
            fullest: 0.0,
        };
        let mut none = Vec::new();
        stream.losses(&mut none)?;
        Ok(stream)
    }

    /// Waits for a buffer to fill to a quarter at most, or for `interval` at most, then appends to `events` what has
    /// happened up to the drain before this one.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked, or sent what is not an event.
    pub async fn next_batch(&mut self, interval: Duration, events: &mut Vec<Event>) -> Result<(), StreamError> {
        match tokio::time::timeout(interval, self.buffers.filling()).await {
            Ok(waited) => waited.map_err(StreamError::Wait)?,
            Err(_elapsed) => {}
        }
        self.drain(Some(now()), events)
    }

    /// Appends to `events` all that is left. No event may be under way any more: probes are detached, or their process is gone.
    ///
    /// # Errors
    ///
    /// As [`Self::next_batch`].
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), StreamError> {
        self.drain(None, events)
    }

    /// Up to when all events have been given out, but for late ones.
    #[must_use]
    pub fn released(&self) -> MonotonicNs {
        self.released
    }

    /// Events that came after a later one had been released; see [`order`](super::order).
    #[must_use]
    pub fn late(&self) -> u64 {
        self.order.late()
    }

    /// How full the fullest buffer was ever found when it was drained, from 0 to 1.
    #[must_use]
    pub fn fullest(&self) -> f64 {
        self.fullest
    }

    fn drain(&mut self, until: Option<MonotonicNs>, events: &mut Vec<Event>) -> Result<(), StreamError> {
        let mut failed = None;
        let found = self.buffers.drain(|index, sample| match decode(sample) {
            Ok(event) => self.order.push(index, event),
            Err(error) => failed = Some(error),
        });
        self.fullest = self.fullest.max(found.map_err(StreamError::Drain)?);
        if let Some(error) = failed {
            return Err(StreamError::Wire(error));
        }
        events.extend_from_slice(match until {
            Some(begin) => {
                self.released = std::mem::replace(&mut self.drained, begin);
                self.order.release(self.released)
            }
            None => self.order.finish(),
        });
        self.losses(events)
    }

    /// Appends what the kernel programs have counted as lost since the last call.
    ///
    /// The counters alone are used, not the buffers' own `PERF_RECORD_LOST`, which comes only with a later event.
    fn losses(&mut self, events: &mut Vec<Event>) -> Result<(), StreamError> {
        const CAUSES: [(u32, LossCause); wire::COUNTS as usize] = [
            (wire::COUNT_NO_SPACE, LossCause::BufferFull),
            (wire::COUNT_NO_BUFFER, LossCause::NoBuffer),
            (wire::COUNT_UNREADABLE_G, LossCause::UnreadableG),
            (wire::COUNT_NO_RECORD, LossCause::NoRecord),
        ];
        for ((index, cause), before) in CAUSES.into_iter().zip(&mut self.counted) {
            let counts: PerCpuValues<u64> = self.counts.get(&index, 0).map_err(StreamError::Counts)?;
            // Read behind the counters: whatever was lost was lost before.
            let time = now();
            before.resize(counts.len(), 0);
            for (cpu, (count, before)) in (0..).zip(counts.iter().zip(before)) {
                if *count > *before {
                    events.push(Event::Lost { time, cpu, count: *count - *before, cause });
                }
                *before = *count;
            }
        }
        Ok(())
    }
}

/// The present, on the clock of the events.
#[must_use]
pub fn now() -> MonotonicNs {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec to write to. The clock exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    MonotonicNs(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

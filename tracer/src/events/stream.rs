//! All CPUs' buffers as one stream.
//!
//! In: the maps of the loaded kernel programs. Out, drain by drain: events in time order with the losses among them.
//!
//! The reader sleeps until a buffer has reached its watermark or a short timer has run out, notes the time, drains all
//! CPUs, and releases what happened up to the drain before (see [`order`](super::order)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::Poll;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::online_cpus;
use gotracer_ebpf as wire;
use tokio::io::{Interest, unix::AsyncFd};

use super::bpf_map;
use super::order::TimeOrder;
use super::perf_buffer::PerfBuffer;
use super::wire::{WireError, decode};
use super::{Event, LossCause};
use crate::units::MonotonicNs;

/// Memory for all buffers together. At 40 bytes an event, two CPUs hold some 400 ms of a million events a second.
const ALL_BUFFERS_BYTES: usize = 32 << 20;
/// Bounds of one buffer: small ones overflow in a burst while the reader is off CPU, larger ones gain nothing.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=16 << 20;

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// No perf buffer could be opened for a CPU.
    #[error("cannot open a perf buffer of {bytes} bytes for CPU {cpu}")]
    Open {
        /// The CPU.
        cpu: u32,
        /// The size asked for.
        bytes: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The list of CPUs could not be read.
    #[error("cannot read {path}")]
    Cpus {
        /// The kernel's list.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
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
    buffers: Vec<(u32, AsyncFd<PerfBuffer>)>,
    counts: PerCpuArray<MapData, u64>,
    /// What [`Self::counts`] said at the last drain, by cause and CPU.
    counted: [Vec<u64>; wire::COUNTS as usize],
    order: TimeOrder,
    /// When the last drain began. Events are given out up to here, one drain late: a kernel program that was preempted
    /// between reading the time and sending has until the next drain to do so.
    drained: MonotonicNs,
    released: MonotonicNs,
    fullest: f64,
    /// Kept for the kernel's sake: the perf buffers are entries of this map.
    _events: MapData,
}

impl EventStream {
    /// Opens a buffer for each CPU that is online and puts it in the map `events`. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// If a buffer cannot be opened.
    pub fn open(events: MapData, counts: PerCpuArray<MapData, u64>) -> Result<Self, StreamError> {
        Self::open_within(events, counts, ALL_BUFFERS_BYTES)
    }

    /// As [`Self::open`], with buffers of about `all_bytes` together.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_within(
        events: MapData,
        counts: PerCpuArray<MapData, u64>,
        all_bytes: usize,
    ) -> Result<Self, StreamError> {
        let cpus = online_cpus().map_err(|(path, source)| StreamError::Cpus { path: path.to_owned(), source })?;
        let bytes = (all_bytes / cpus.len().max(1)).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        let mut buffers = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let open = || -> io::Result<AsyncFd<PerfBuffer>> {
                // Woken at a quarter: three quarters are left for what comes while the reader gets going.
                let buffer = PerfBuffer::open(cpu, bytes, (bytes / 4) as u32)?;
                bpf_map::update(events.fd().as_fd(), cpu, buffer.as_raw_fd() as u32)?;
                // SAFETY: a PerfBuffer has one descriptor, open until it is dropped.
                unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }.map_err(io::Error::from)
            };
            buffers.push((cpu, open().map_err(|source| StreamError::Open { cpu, bytes, source })?));
        }
        let mut stream = Self {
            buffers,
            counts,
            counted: Default::default(),
            order: TimeOrder::new(),
            drained: MonotonicNs(0),
            released: MonotonicNs(0),
            fullest: 0.0,
            _events: events,
        };
        let mut none = Vec::new();
        stream.losses(&mut none)?;
        Ok(stream)
    }

    /// Waits for a watermark, or for `interval` at most, then appends to `events` what has happened up to the
    /// drain before this one.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked, or sent what is not an event.
    pub async fn next_batch(&mut self, interval: Duration, events: &mut Vec<Event>) -> Result<(), StreamError> {
        match tokio::time::timeout(interval, self.watermark()).await {
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

    /// Until one CPU's buffer has reached its watermark.
    async fn watermark(&self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            let mut woken = Poll::Pending;
            for (_, buffer) in &self.buffers {
                // Every buffer is polled, so that each has our waker; a buffer that is ready is drained with the rest.
                if let Poll::Ready(guard) = buffer.poll_read_ready(context) {
                    guard?.clear_ready();
                    woken = Poll::Ready(Ok(()));
                }
            }
            woken
        })
        .await
    }

    fn drain(&mut self, until: Option<MonotonicNs>, events: &mut Vec<Event>) -> Result<(), StreamError> {
        let mut failed = None;
        for (index, (_, buffer)) in (0..).zip(&mut self.buffers) {
            let found = buffer.get_mut().drain(|sample| match decode(sample) {
                Ok(event) => self.order.push(index, event),
                Err(error) => failed = Some(error),
            });
            self.fullest = self.fullest.max(found);
        }
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

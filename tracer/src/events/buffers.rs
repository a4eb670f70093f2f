//! All CPUs' buffers, of the kind that this kernel can have.
//!
//! In: a [`WayUp`]. Out: the bytes of events, CPU by CPU. Must not know what is in an event.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::Poll;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use super::bpf_map;
use super::perf_buffer::PerfBuffer;
use super::ring::{Rings, Sizes};
use crate::probes::WayUp;

/// Where events wait.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub(super) enum Buffers {
    /// In rings that the kernel programs write to.
    Rings {
        rings: Rings,
        /// Is rung when so many events wait in a ring that an eighth to a quarter of it is full.
        bell: AsyncFd<RingBuf<MapData>>,
        /// Kept for programs that are loaded later, which refer to them.
        _maps: [MapData; 2],
    },
    /// In perf buffers.
    PerfBuffers {
        buffers: Vec<AsyncFd<PerfBuffer>>,
        /// Kept for the kernel's sake: the perf buffers are entries of this map.
        _map: MapData,
    },
}

impl Buffers {
    /// Opens them. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// If a buffer cannot be opened.
    pub(super) fn open(way: WayUp) -> io::Result<Self> {
        match way {
            WayUp::Rings { heads, slots, bell, possible_cpus, cpus, slots_each } => {
                let sizes = Sizes { possible_cpus, slots_each: slots_each.into() };
                let rings = Rings::open(heads.fd().as_fd(), slots.fd().as_fd(), sizes, &cpus)?;
                // SAFETY: a RingBuf has one descriptor, open until it is dropped.
                let bell = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }?;
                Ok(Self::Rings { rings, bell, _maps: [heads, slots] })
            }
            WayUp::PerfBuffers { map, cpus, bytes_each } => {
                let open = |cpu| {
                    // Woken at a quarter: three quarters are left for what comes while the reader gets going.
                    let buffer = PerfBuffer::open(cpu, bytes_each, (bytes_each / 4) as u32)?;
                    bpf_map::update(map.fd().as_fd(), cpu, buffer.as_raw_fd() as u32)?;
                    // SAFETY: a PerfBuffer has one descriptor, open until it is dropped.
                    unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }.map_err(io::Error::from)
                };
                let buffers = cpus.into_iter().map(open).collect::<io::Result<_>>()?;
                Ok(Self::PerfBuffers { buffers, _map: map })
            }
        }
    }

    /// Until one CPU's buffer has filled to a quarter at most.
    pub(super) async fn filling(&mut self) -> io::Result<()> {
        match self {
            Self::Rings { bell, .. } => {
                bell.readable_mut().await?.clear_ready();
                // What is in it says nothing, and must make room for what comes.
                while bell.get_mut().next().is_some() {}
                Ok(())
            }
            Self::PerfBuffers { buffers, .. } => {
                std::future::poll_fn(|context| {
                    let mut woken = Poll::Pending;
                    for buffer in &*buffers {
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
        }
    }

    /// Hands each event that waits to `event`, with the number of its buffer, counted from 0, then gives the room back.
    /// Returns how full the fullest buffer was, from 0 to 1.
    ///
    /// # Errors
    ///
    /// If what the kernel says of a buffer cannot be.
    pub(super) fn drain(&mut self, mut event: impl FnMut(u32, &[u8])) -> io::Result<f64> {
        match self {
            Self::Rings { rings, .. } => rings.drain(event),
            Self::PerfBuffers { buffers, .. } => {
                let each =
                    (0..).zip(buffers).map(|(index, buffer)| buffer.get_mut().drain(|sample| event(index, sample)));
                Ok(each.fold(0.0, f64::max))
            }
        }
    }
}

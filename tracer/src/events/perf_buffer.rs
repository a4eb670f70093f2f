//! The perf buffer of one CPU.
//!
//! In: a CPU and a size. Out: the raw samples that kernel programs put there, in buffer order. Must not know what is in
//! a sample.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::kernel::perf_event::{self, Attributes, Buffer, RECORD_SAMPLE};

/// The size that stands before a raw sample's bytes.
const SIZE_BYTES: usize = 4;

/// An open perf buffer.
#[derive(Debug)]
pub(super) struct PerfBuffer(Buffer);

impl PerfBuffer {
    /// Opens the buffer of `cpu` with room for at least `bytes`, and a wake-up when `watermark` bytes wait.
    ///
    /// # Errors
    ///
    /// If the CPU is offline (`ENODEV`), or the kernel refuses the event or the memory.
    pub(super) fn open(cpu: u32, bytes: usize, watermark: u32) -> io::Result<Self> {
        let cpu = cpu.try_into().map_err(io::Error::other)?;
        let event = perf_event::open(&Attributes::bpf_output(watermark), -1, cpu)?;
        Ok(Self(Buffer::new(event, bytes)?))
    }

    /// Hands each sample that waits to `sample`, padded to a multiple of 8 bytes with its size, then gives the room back.
    /// Returns how full it was, from 0 to 1.
    pub(super) fn drain(&mut self, mut sample: impl FnMut(&[u8])) -> f64 {
        self.0.drain(|kind, record| {
            // PERF_RECORD_LOST is passed over: the kernel programs count what they could not send themselves, by cause.
            if kind == RECORD_SAMPLE {
                sample(record.get(SIZE_BYTES..).unwrap_or_default());
            }
        })
    }
}

impl AsRawFd for PerfBuffer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

//! The perf buffer of one CPU.
//!
//! In: a CPU and a size. Out: the raw samples that kernel programs put there, in buffer order. Must not know what is in
//! a sample.
//!
//! Opened with a watermark: the kernel wakes the reader when so many bytes wait, not at each event, which makes an
//! event seven times cheaper for the program that is traced. The memory protocol is that of
//! <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/perf_event.h> (`struct perf_event_mmap_page`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// `PERF_TYPE_SOFTWARE`.
const TYPE_SOFTWARE: u32 = 1;
/// `PERF_COUNT_SW_BPF_OUTPUT`.
const COUNT_SW_BPF_OUTPUT: u64 = 10;
/// `PERF_SAMPLE_RAW`.
const SAMPLE_RAW: u64 = 1 << 10;
/// The bit `watermark` of `struct perf_event_attr`.
const FLAG_WATERMARK: u64 = 1 << 14;
/// `PERF_FLAG_FD_CLOEXEC`.
const FLAG_FD_CLOEXEC: u64 = 1 << 3;
/// `PERF_EVENT_IOC_ENABLE`.
const IOC_ENABLE: libc::Ioctl = 0x2400;
/// `PERF_RECORD_SAMPLE`.
const RECORD_SAMPLE: u32 = 9;
/// Size of `struct perf_event_header`.
const HEADER_BYTES: usize = 8;
/// Offset of `data_head` in the first page; `data_tail` follows it.
const DATA_HEAD: usize = 1024;

/// The head of `struct perf_event_attr`, `PERF_ATTR_SIZE_VER0`: all that we set.
#[repr(C)]
struct PerfEventAttr {
    type_: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
}

/// An open perf buffer.
#[derive(Debug)]
pub(super) struct PerfBuffer {
    fd: OwnedFd,
    /// The control page, then the ring.
    base: NonNull<u8>,
    page_bytes: usize,
    /// A power of two.
    ring_bytes: usize,
    /// A sample that wraps around the ring's end is put together here.
    wrapped: Vec<u8>,
}

// SAFETY: the mapping is ours alone; nothing in it is tied to a thread.
unsafe impl Send for PerfBuffer {}

impl PerfBuffer {
    /// Opens the buffer of `cpu` with room for at least `bytes`, and a wake-up when `watermark` bytes wait.
    ///
    /// # Errors
    ///
    /// If the CPU is offline (`ENODEV`), or the kernel refuses the event or the memory.
    pub(super) fn open(cpu: u32, bytes: usize, watermark: u32) -> io::Result<Self> {
        let attr = PerfEventAttr {
            type_: TYPE_SOFTWARE,
            size: size_of::<PerfEventAttr>() as u32,
            config: COUNT_SW_BPF_OUTPUT,
            sample_period: 1,
            sample_type: SAMPLE_RAW,
            read_format: 0,
            flags: FLAG_WATERMARK,
            wakeup_watermark: watermark,
            bp_type: 0,
            config1: 0,
        };
        // SAFETY: `attr` says its own size and lives until the call returns.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, FLAG_FD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // SAFETY: no pointers.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let ring_bytes = bytes.max(page_bytes).next_power_of_two();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page_bytes + ring_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        let buffer = Self { fd, base, page_bytes, ring_bytes, wrapped: Vec::new() };
        // SAFETY: an ioctl of this descriptor, without argument.
        if unsafe { libc::ioctl(buffer.fd.as_raw_fd(), IOC_ENABLE, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(buffer)
    }

    /// Hands each sample that waits to `sample`, then gives the room back. Returns how full it was, from 0 to 1.
    pub(super) fn drain(&mut self, mut sample: impl FnMut(&[u8])) -> f64 {
        // SAFETY: the two counters lie in the control page, aligned; the kernel shares them by these atomics.
        let (head, tail) = unsafe {
            let head = self.base.add(DATA_HEAD).cast::<AtomicU64>().as_ref();
            (head, self.base.add(DATA_HEAD + 8).cast::<AtomicU64>().as_ref())
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let full = (end - at) as f64 / self.ring_bytes as f64;
        while at != end {
            // A record's header never wraps: records are multiples of 8 bytes, and so is the ring.
            let header = self.bytes(at, HEADER_BYTES);
            let (kind, size) = match *header {
                [k0, k1, k2, k3, _, _, s0, s1] => (u32::from_le_bytes([k0, k1, k2, k3]), u16::from_le_bytes([s0, s1])),
                _ => break,
            };
            let size = usize::from(size);
            if size < HEADER_BYTES || (size as u64) > end - at {
                break;
            }
            // PERF_RECORD_LOST is passed over: the kernel programs count what they could not send themselves, by cause.
            if kind == RECORD_SAMPLE {
                let record = self.record(at, size);
                // The raw sample: its size, then the bytes, padded so that the whole record is a multiple of 8.
                sample(record.get(HEADER_BYTES + 4..).unwrap_or_default());
            }
            at += size as u64;
        }
        tail.store(end, Ordering::Release);
        full
    }

    /// `len` bytes of the ring from position `at`; they must not wrap.
    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        let start = (at as usize) & (self.ring_bytes - 1);
        let len = len.min(self.ring_bytes - start);
        // SAFETY: within the ring, and behind what the kernel has released to us by `data_head`.
        unsafe { std::slice::from_raw_parts(self.base.add(self.page_bytes + start).as_ptr(), len) }
    }

    fn record(&mut self, at: u64, size: usize) -> &[u8] {
        let first = self.bytes(at, size).len();
        if first == size {
            return self.bytes(at, size);
        }
        let mut whole = std::mem::take(&mut self.wrapped);
        whole.clear();
        whole.extend_from_slice(self.bytes(at, first));
        whole.extend_from_slice(self.bytes(at + first as u64, size - first));
        self.wrapped = whole;
        &self.wrapped
    }
}

impl AsFd for PerfBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PerfBuffer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for PerfBuffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this size, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page_bytes + self.ring_bytes) };
    }
}

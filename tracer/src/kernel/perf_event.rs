//! Perf events: opening one, and reading what the kernel puts into its buffer.
//!
//! In: the attributes of an event. Out: its descriptor, and the records of its buffer, in order. Must not know what is in a
//! record. All after <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/perf_event.h>.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use super::mapping::Mapping;
use super::page_bytes;

/// `PERF_RECORD_SAMPLE`.
pub(crate) const RECORD_SAMPLE: u32 = 9;
/// `PERF_TYPE_SOFTWARE`, and of its events `PERF_COUNT_SW_CPU_CLOCK` and `PERF_COUNT_SW_BPF_OUTPUT`.
const TYPE_SOFTWARE: u32 = 1;
const CPU_CLOCK: u64 = 0;
const BPF_OUTPUT: u64 = 10;
/// `PERF_SAMPLE_RAW`, `PERF_SAMPLE_REGS_USER`.
const SAMPLE_RAW: u64 = 1 << 10;
const SAMPLE_REGS_USER: u64 = 1 << 12;
/// Bits of the flags: `exclude_kernel`, and `watermark`.
const EXCLUDE_KERNEL: u64 = 1 << 5;
const WATERMARK: u64 = 1 << 14;
/// `PERF_FLAG_FD_CLOEXEC`.
const FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `PERF_EVENT_IOC_ENABLE`, `PERF_EVENT_IOC_SET_BPF`.
const IOC_ENABLE: libc::Ioctl = 0x2400;
const IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
/// Size of `struct perf_event_header`: the kind, flags, and the record's size with this header.
const HEADER_BYTES: usize = 8;
/// Offset of `data_head` in the first page; `data_tail` follows it.
const DATA_HEAD: usize = 1024;

/// `struct perf_event_attr`, as far as anything of it is set here. Its size goes to the kernel shortened to what is used: an
/// older one refuses more than it knows.
#[repr(C)]
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
}

impl Attributes {
    /// `PERF_ATTR_SIZE_VER1`, up to `config2`, and `PERF_ATTR_SIZE_VER3`.
    const WITHOUT_REGISTERS: u32 = 72;
    const WITH_REGISTERS: u32 = size_of::<Self>() as u32;

    const fn new(kind: u32, config: u64) -> Self {
        Self {
            kind,
            size: Self::WITHOUT_REGISTERS,
            config,
            sample_period: 0,
            sample_type: 0,
            read_format: 0,
            flags: 0,
            wakeup_watermark: 0,
            breakpoint_type: 0,
            config1: 0,
            config2: 0,
            branch_sample_type: 0,
            sample_regs_user: 0,
            sample_stack_user: 0,
            clock: 0,
        }
    }

    /// What kernel programs write to by `bpf_perf_event_output`. Its reader is woken when `watermark` bytes wait, not at each
    /// event, which makes an event seven times cheaper for the program that is traced.
    pub(crate) const fn bpf_output(watermark: u32) -> Self {
        let event = Self::new(TYPE_SOFTWARE, BPF_OUTPUT);
        Self { sample_period: 1, sample_type: SAMPLE_RAW, flags: WATERMARK, wakeup_watermark: watermark, ..event }
    }

    /// A sample of these user registers at each `period` nanoseconds of a thread's processor time. It needs no hardware
    /// counters, so it works in virtual machines.
    pub(crate) const fn registers(registers: u64, period: u64) -> Self {
        Self {
            size: Self::WITH_REGISTERS,
            sample_period: period,
            sample_type: SAMPLE_REGS_USER,
            sample_regs_user: registers,
            ..Self::new(TYPE_SOFTWARE, CPU_CLOCK)
        }
    }

    /// The same, but for what happens in the kernel: what is left to those who may not look there.
    pub(crate) const fn of_user_space(self) -> Self {
        Self { flags: self.flags | EXCLUDE_KERNEL, ..self }
    }

    /// A uprobe: `kind` is the number of the kernel's device for them. It counts, unless it is given a program. `path` must
    /// live until the event is open.
    pub(crate) fn uprobe(kind: u32, path: &CStr, offset: u64) -> Self {
        Self { config1: path.as_ptr() as u64, config2: offset, ..Self::new(kind, 0) }
    }
}

/// perf_event_open(2) for a process or thread (0: ourselves; -1: all) on a CPU (-1: any).
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn open(attributes: &Attributes, pid: libc::pid_t, cpu: libc::c_int) -> io::Result<OwnedFd> {
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: the attributes say how much of them is meant, which is there; a path in them lives, as their maker asks.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes, pid, cpu, -1, FD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Has `program` run at each hit of `event`.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn run(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    control(event, IOC_SET_BPF, program.as_raw_fd())
}

/// Lets `event` begin, if it has not.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn enable(event: BorrowedFd<'_>) -> io::Result<()> {
    control(event, IOC_ENABLE, 0)
}

fn control(event: BorrowedFd<'_>, request: libc::Ioctl, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: both requests take a number.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An event's buffer: a control page, then a ring of records.
#[derive(Debug)]
pub(crate) struct Buffer {
    event: OwnedFd,
    memory: Mapping,
    /// Size of the control page.
    page: usize,
    /// Size of the ring: a power of two.
    ring: usize,
    /// A record that wraps around the ring's end is put together here.
    wrapped: Vec<u8>,
}

impl Buffer {
    /// Gives `event` a buffer for at least `bytes` of records, and lets it begin.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the memory.
    pub(crate) fn new(event: OwnedFd, bytes: usize) -> io::Result<Self> {
        let page = page_bytes();
        let ring = bytes.max(page).next_power_of_two();
        let memory = Mapping::new(event.as_fd(), page + ring)?;
        enable(event.as_fd())?;
        Ok(Self { event, memory, page, ring, wrapped: Vec::new() })
    }

    /// Hands each record that waits to `take`, its kind and what is behind its header, then gives the room back. Returns how
    /// full the buffer was, from 0 to 1.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(u32, &[u8])) -> f64 {
        let Self { memory, page, ring, wrapped, .. } = self;
        let (Some(head), Some(tail)) = (memory.word(DATA_HEAD), memory.word(DATA_HEAD + 8)) else { return 0.0 };
        let end = head.load(Ordering::Acquire);
        let begin = tail.load(Ordering::Relaxed);
        let waiting = end.wrapping_sub(begin);
        // `length` bytes from a position, or those up to the ring's end.
        let bytes = |at: u64, length: usize| {
            let start = (at as usize) & (*ring - 1);
            // SAFETY: the kernel has released them to us by `data_head`, and waits for `data_tail`.
            unsafe { memory.bytes(*page + start, length.min(*ring - start)) }.unwrap_or_default()
        };
        let mut at = begin;
        while at != end {
            // A header never wraps: records are multiples of 8 bytes, and so is the ring.
            let &[k0, k1, k2, k3, _, _, s0, s1] = bytes(at, HEADER_BYTES) else { break };
            let (kind, size) = (u32::from_ne_bytes([k0, k1, k2, k3]), usize::from(u16::from_ne_bytes([s0, s1])));
            if size < HEADER_BYTES || size as u64 > end.wrapping_sub(at) {
                break;
            }
            let (body, length) = (at.wrapping_add(HEADER_BYTES as u64), size - HEADER_BYTES);
            let first = bytes(body, length);
            if first.len() == length {
                take(kind, first);
            } else {
                wrapped.clear();
                wrapped.extend_from_slice(first);
                wrapped.extend_from_slice(bytes(body.wrapping_add(first.len() as u64), length - first.len()));
                take(kind, wrapped);
            }
            at = at.wrapping_add(size as u64);
        }
        tail.store(end, Ordering::Release);
        waiting as f64 / *ring as f64
    }
}

impl AsFd for Buffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Buffer {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

//! The registers of a process's threads, sampled by the kernel's clock while they run; nothing is stopped.
//!
//! In: a process. Out: now and then, for each thread that is on a processor, the general registers it has in user space. A
//! software event (`PERF_COUNT_SW_CPU_CLOCK`) on each thread, with `PERF_SAMPLE_REGS_USER`; it needs no hardware counters, so it works
//! in virtual machines. Knows nothing of what registers hold.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

use super::Process;

/// `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_CPU_CLOCK`, `PERF_SAMPLE_REGS_USER`, `PERF_FLAG_FD_CLOEXEC`, `PERF_RECORD_SAMPLE`:
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/perf_event.h>.
const TYPE_SOFTWARE: u32 = 1;
const CPU_CLOCK: u64 = 0;
const SAMPLE_REGS_USER: u64 = 1 << 12;
const FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const RECORD_SAMPLE: u32 = 9;
/// The bit `exclude_kernel` of the flags: what is left to those who may not look at the kernel.
const EXCLUDE_KERNEL: u64 = 1 << 5;
/// The general registers: on x86 AX to SP and R8 to R15, on arm64 X0 to X30.
/// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/include/uapi/asm/perf_regs.h>,
/// <https://github.com/torvalds/linux/blob/v6.18/arch/arm64/include/uapi/asm/perf_regs.h>
const REGISTERS: u64 = if cfg!(target_arch = "x86_64") { 0x00ff_00ff } else { 0x7fff_ffff };
/// Nanoseconds of processor time between two samples of a thread.
const PERIOD: u64 = 1_000_000;
/// Threads sampled; of more, the others stay unread.
const THREAD_LIMIT: usize = 1024;
/// Pages of samples of one thread, a power of two: 50 samples or more, of which a few are wanted.
const PAGES: usize = 2;
/// Offset of `data_head` in the first page; `data_tail` follows it.
const DATA_HEAD: usize = 1024;

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER3`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
    config2: u64,
    branches: u64,
    registers: u64,
    stack: u32,
    clock: i32,
}

/// A thread's ring of samples.
#[derive(Debug)]
struct Ring {
    base: NonNull<u8>,
    page: usize,
    _fd: OwnedFd,
}

// SAFETY: the mapping is ours alone; nothing in it is tied to a thread.
unsafe impl Send for Ring {}

/// Samples of all threads of one process, from its making on.
#[derive(Debug, Default)]
pub struct RegisterSamples {
    /// By thread id, in the process's own PID namespace.
    rings: HashMap<u64, Ring>,
}

impl RegisterSamples {
    /// Begins to sample the threads that `process` has now.
    ///
    /// # Errors
    ///
    /// If the kernel lets no thread be sampled: `EACCES` without CAP_PERFMON, `ENOENT` or `EOPNOTSUPP` where it cannot.
    pub fn start(process: &Process) -> io::Result<Self> {
        let mut rings = HashMap::new();
        let mut refused = None;
        for entry in fs::read_dir(format!("/proc/{}/task", process.pid()))?.take(THREAD_LIMIT) {
            let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // One that has ended meanwhile is of no interest.
            let Some(inner) = inner_tid(process, tid) else { continue };
            match Ring::open(tid) {
                Ok(ring) => {
                    rings.insert(inner, ring);
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if rings.is_empty() => Err(error),
            _ => Ok(Self { rings }),
        }
    }

    /// Gives each sample that waits to `take`: the thread's id, as the process itself sees it, and its registers.
    pub fn drain(&mut self, mut take: impl FnMut(u64, &[u64])) {
        for (tid, ring) in &mut self.rings {
            ring.drain(|registers| take(*tid, registers));
        }
    }
}

/// The thread's id in the innermost PID namespace: what the program itself was told.
fn inner_tid(process: &Process, tid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/task/{tid}/status", process.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

impl Ring {
    fn open(tid: i32) -> io::Result<Self> {
        let mut attributes = Attributes {
            kind: TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: CPU_CLOCK,
            period: PERIOD,
            sample: SAMPLE_REGS_USER,
            registers: REGISTERS,
            ..Attributes::default()
        };
        let fd = Self::event(&attributes, tid).or_else(|_| {
            attributes.flags = EXCLUDE_KERNEL;
            Self::event(&attributes, tid)
        })?;
        // SAFETY: no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), page * (PAGES + 1), protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, page, _fd: fd })
    }

    fn event(attributes: &Attributes, tid: i32) -> io::Result<OwnedFd> {
        let any_processor = -1;
        // SAFETY: `attributes` says its own size and lives until the call returns.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                std::ptr::from_ref(attributes),
                tid,
                any_processor,
                -1,
                FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    fn drain(&mut self, mut take: impl FnMut(&[u64])) {
        // SAFETY: the two counters lie in the control page, aligned; the kernel shares them by these atomics.
        let (head, tail) = unsafe {
            let head = self.base.add(DATA_HEAD).cast::<AtomicU64>().as_ref();
            (head, self.base.add(DATA_HEAD + 8).cast::<AtomicU64>().as_ref())
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while at < end {
            // Records are multiples of 8 bytes: a word never wraps.
            let header = self.word(at);
            let (kind, size) = (header as u32, header >> 48);
            if size < 8 || size > end - at {
                break;
            }
            let words: Vec<u64> = (1..size / 8).map(|i| self.word(at + 8 * i)).collect();
            // The first word tells the ABI; 0: the thread had no user registers.
            if let (RECORD_SAMPLE, [abi, registers @ ..]) = (kind, &*words)
                && *abi != 0
            {
                take(registers);
            }
            at += size;
        }
        tail.store(end, Ordering::Release);
    }

    fn word(&self, at: u64) -> u64 {
        let within = (at as usize % (self.page * PAGES)) & !7;
        // SAFETY: the ring has `page * PAGES` bytes behind the control page, and `within` is aligned and below that.
        unsafe { self.base.add(self.page + within).cast::<u64>().read_volatile() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, not used any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page * (PAGES + 1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;
    use std::time::{Duration, Instant};

    #[test]
    fn a_thread_that_runs_is_sampled() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let mut samples = match RegisterSamples::start(&us) {
            Ok(samples) => samples,
            Err(error) => return eprintln!("SKIPPED: this kernel lets no thread be sampled: {error}"),
        };
        // SAFETY: no pointers.
        let tid = unsafe { libc::gettid() } as u64;
        let (mut own, deadline) = (0, Instant::now() + Duration::from_secs(20));
        while own == 0 {
            assert!(Instant::now() < deadline, "no sample of a thread that runs all the time");
            samples.drain(|thread, registers| {
                assert_eq!(registers.len(), REGISTERS.count_ones() as usize);
                own += usize::from(thread == tid);
            });
        }
    }
}

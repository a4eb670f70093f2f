//! One uprobe: the system calls.
//!
//! In: a loaded kernel program, an executable, a place in it, a process or all. Out: a [`Uprobe`], which is there until it is
//! dropped. aya attaches too, but only where the whole loaded object is at hand: attaching takes milliseconds and
//! detaching a tenth of a second (the kernel waits until no CPU can be in the probe), so both happen on threads of
//! their own while events flow.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::units::{FileOffset, Pid};

/// A breakpoint with a kernel program on it. Dropping it takes it away: the breakpoint at once, unless another uprobe
/// is being dropped at the moment, then the thread waits for the kernel.
#[derive(Debug)]
pub(super) struct Uprobe {
    _event: OwnedFd,
}

/// Whose uprobe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One process's.
    Process(Pid),
    /// That of every process that runs the file, now or later.
    EveryProcess,
}

/// Bytes of the 64-byte `struct perf_event_attr` of the first version and the eight of the second (`config2`):
/// <https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/perf_event.h#L320>.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// Of a uprobe: address of the path.
    config1: u64,
    /// Of a uprobe: offset in the file.
    config2: u64,
}

const _: () = assert!(size_of::<PerfEventAttr>() == 72);

impl Uprobe {
    /// Puts `program` on the instruction at `offset` of the file `exe`.
    pub(super) fn attach(program: BorrowedFd<'_>, exe: &Path, offset: FileOffset, scope: Scope) -> io::Result<Self> {
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
        const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
        const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
        let path = CString::new(exe.as_os_str().as_bytes())?;
        let attr = PerfEventAttr {
            kind: pmu()?,
            size: size_of::<PerfEventAttr>() as u32,
            config1: path.as_ptr() as u64,
            config2: offset.0,
            ..Default::default()
        };
        // A perf event wants a process or a CPU; a uprobe that is every process's fires on all CPUs, whichever is named.
        let (pid, cpu) = match scope {
            Scope::Process(pid) => (libc::pid_t::try_from(pid.0).map_err(io::Error::other)?, -1),
            Scope::EveryProcess => (-1, 0),
        };
        let no_group: libc::c_int = -1;
        // SAFETY: `attr` is a perf_event_attr of the size that it tells, and the path that it points to outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                pid,
                cpu as libc::c_int,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) };
        for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
            // SAFETY: both requests take a number.
            if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { _event: event })
    }
}

/// The number of the kernel's perf device for uprobes.
fn pmu() -> io::Result<u32> {
    let text = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    text.trim().parse().map_err(io::Error::other)
}

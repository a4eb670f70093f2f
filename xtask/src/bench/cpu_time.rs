//! The processor's time that a thread or a process has used: on a shared machine, what work costs whoever else is running.

use std::time::Duration;

use anyhow::{Result, ensure};
use gotracer::units::Pid;

/// Of the calling thread, since it began.
pub fn of_this_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec to write to. The clock exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Of a process, all its threads together, since it began.
pub fn of_process(pid: Pid) -> Result<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock id and a timespec to write to.
    let failed = unsafe {
        libc::clock_getcpuclockid(libc::pid_t::try_from(pid.0)?, &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    ensure!(!failed, "the CPU time of process {pid} cannot be read");
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

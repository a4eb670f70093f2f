//! The clocks of our own threads: what watching costs us.

use std::fs;
use std::time::Duration;

/// Processor time that the calling thread has used.
#[must_use]
pub(crate) fn cpu_of_this_thread() -> Duration {
    cpu(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that all threads of ours have used, those that have ended too.
#[must_use]
pub(crate) fn cpu_of_this_process() -> Duration {
    cpu(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// How long the calling thread could have run and had no processor; `None` where the kernel does not count it.
/// <https://github.com/torvalds/linux/blob/v6.18/Documentation/scheduler/sched-stats.rst>, "/proc/<pid>/schedstat"
#[must_use]
pub(crate) fn waited_of_this_thread() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    // A kernel that has the file and does not count says that it never ran.
    Some(Duration::from_nanos(waited)).filter(|_| ran > 0_u64)
}

fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if done != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

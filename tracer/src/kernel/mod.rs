//! What several parts ask of the kernel and no library offers: memory shared with it, perf events, and its units.
//!
//! Knows nothing of probes, events or processes.

pub(crate) mod mapping;
pub(crate) mod perf_event;

/// The size of a page, in bytes.
pub(crate) fn page_bytes() -> usize {
    sysconf(libc::_SC_PAGESIZE).unwrap_or(4096)
}

/// Ticks of the clock by which /proc tells times, a second (`CLK_TCK`).
pub(crate) fn ticks_per_second() -> usize {
    sysconf(libc::_SC_CLK_TCK).unwrap_or(100)
}

/// `None` where the kernel says what cannot be.
fn sysconf(name: libc::c_int) -> Option<usize> {
    // SAFETY: no pointers.
    let value = unsafe { libc::sysconf(name) };
    usize::try_from(value).ok().filter(|&value| value > 0)
}

//! What the kernel says of a process.

use super::clock::boot_seconds;
use crate::kernel::{page_bytes, ticks_per_second};
use crate::output::metrics::KernelMetrics;
use crate::units::Pid;

/// What the kernel says of a process, but for its memory limit; `None` if it is gone.
#[must_use]
pub fn read_kernel(pid: Pid) -> Option<KernelMetrics> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: count from its end.
    let behind_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
    // The first of these is field 3 of proc(5).
    let fields: Vec<u64> = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let (ticks, page) = (ticks_per_second() as f64, page_bytes() as u64);
    Some(KernelMetrics {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start_seconds: boot_seconds() + field(22)? as f64 / ticks,
        resident_bytes: field(24)? * page,
        cgroup_limit_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_us() {
        let us = Pid(std::process::id());
        let kernel = read_kernel(us).expect("we run");
        assert!(kernel.resident_bytes > 1 << 20 && kernel.threads > 0 && kernel.start_seconds > 1e9, "{kernel:?}");
    }
}

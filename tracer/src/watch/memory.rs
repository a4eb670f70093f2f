//! A process's memory, as the runtime knows it and as the kernel has it: what is resident, what its cgroup uses and may use.
//!
//! In: the runtime's own figures; a PID. Out: bytes, `None` where not known.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::analysis::MemorySample;
use crate::snapshot::RuntimeStats;
use crate::units::Pid;

/// What the runtime knows.
pub(super) fn of_runtime(runtime: &RuntimeStats) -> MemorySample {
    MemorySample {
        heap_live: runtime.heap_live_bytes,
        heap_marked: runtime.heap_marked_bytes,
        heap_goal: runtime.heap_goal_bytes,
        stacks: runtime.stack_spans_bytes,
        go_limit: runtime.memory_limit_bytes,
        gc_cycles: runtime.gc_cycles,
        gc_pause_ns: runtime.gc_pause_total_ns,
        gc_cpu_share: runtime.gc_cpu_fraction,
        timers: runtime.timers,
        threads: runtime.threads,
        ..MemorySample::default()
    }
}

/// Fills in what the kernel knows of `pid`.
pub(super) fn read(pid: Pid, sample: &mut MemorySample) {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    sample.rss = field(&status, "VmRSS:").map(|kib| kib * 1024);
    let machine = read_to_string("/proc/meminfo").unwrap_or_default();
    sample.machine = field(&machine, "MemTotal:").map(|kib| kib * 1024);
    let cgroups = read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if let Some((root, path)) = memory_cgroup(&cgroups) {
        let names = Names::of(&root);
        // The limit is the least of those on the way up; what counts against it is what that cgroup uses.
        let mut at = root.join(path.trim_start_matches('/'));
        while at.starts_with(&root) {
            let limit = number(&at.join(names.limit)).filter(|limit| *limit < sample.machine.unwrap_or(u64::MAX));
            if let Some(limit) = limit.filter(|limit| sample.cgroup_limit.is_none_or(|least| *limit < least)) {
                sample.cgroup_limit = Some(limit);
                sample.cgroup_used = used(&at, &names);
            }
            if sample.cgroup_used.is_none() {
                sample.cgroup_used = used(&at, &names);
            }
            if !at.pop() {
                break;
            }
        }
    }
}

struct Names {
    limit: &'static str,
    used: &'static str,
    cache: &'static str,
}

impl Names {
    fn of(root: &Path) -> Self {
        if root.ends_with("memory") {
            Self { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" }
        } else {
            Self { limit: "memory.max", used: "memory.current", cache: "inactive_file" }
        }
    }
}

/// What a cgroup uses and cannot give back at once: page cache that is not in use is, so it does not count.
fn used(at: &Path, names: &Names) -> Option<u64> {
    let used = number(&at.join(names.used))?;
    let stat = read_to_string(at.join("memory.stat")).unwrap_or_default();
    Some(used.saturating_sub(field(&stat, names.cache).unwrap_or_default()))
}

/// Where the files of the memory cgroup are, of version 1 or 2, by /proc/PID/cgroup.
fn memory_cgroup(cgroups: &str) -> Option<(PathBuf, &str)> {
    let mut unified = None;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.split(',').any(|name| name == "memory") {
            return Some((PathBuf::from("/sys/fs/cgroup/memory"), path));
        }
        if controllers.is_empty() {
            unified = Some((PathBuf::from("/sys/fs/cgroup"), path));
        }
    }
    unified
}

/// The number behind `name` in a file of lines such as `VmRSS:  123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The number that a file holds; `None` for `max`.
fn number(path: &Path) -> Option<u64> {
    read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_both_versions() {
        let (root, path) = memory_cgroup("0::/system.slice/x.service\n").expect("version 2");
        assert_eq!((root.to_str(), path), (Some("/sys/fs/cgroup"), "/system.slice/x.service"));
        let text = "12:memory:/docker/ab:c\n5:cpu,cpuacct:/docker/abc\n0::/\n";
        let (root, path) = memory_cgroup(text).expect("version 1");
        assert_eq!((root.to_str(), path), (Some("/sys/fs/cgroup/memory"), "/docker/ab:c"));
        assert!(memory_cgroup("nothing").is_none());
    }

    #[test]
    fn ourselves() {
        let mut sample = MemorySample::default();
        read(Pid(std::process::id()), &mut sample);
        assert!(sample.rss.is_some_and(|rss| rss > 1 << 20));
        assert!(sample.machine > sample.rss);
    }
}

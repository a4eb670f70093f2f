//! Processes, as they appear: what must be known of one before it is decided about.
//!
//! In: a PID, from the kernel's exec events or from a look through /proc. Out: a [`Candidate`]: the process held by its
//! pidfd, its executable open, and what tells files apart. Reads nothing of the executable yet.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::container::Container;
use super::rules::Traits;
use crate::kernel::ticks_per_second;
use crate::process::Process;
use crate::units::Pid;

/// One executable file, whatever its name: all its processes share what was read of it and the probes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_ns: i128,
}

/// Stands for the file systems below an overlay.
const BELOW_OVERLAY: u64 = u64::MAX;
/// `OVERLAYFS_SUPER_MAGIC` of <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h>.
const OVERLAYFS: libc::c_long = 0x794c_7630;

impl FileKey {
    /// Of an open file.
    ///
    /// Each container has an overlay of its own with a device number of its own above the one file of the image, and the
    /// kernel puts uprobes into the file below (`d_real_inode` in kernel/trace/trace_uprobe.c): probes put in twice would
    /// count twice. An overlay shows the inode number of the file below, which with size and time of change is taken for
    /// its identity.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        // SAFETY: zeros are a valid statfs, which the call fills in.
        let mut system: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a statfs to write to.
        let failed = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut system) } != 0;
        let overlay = !failed && system.f_type as libc::c_long == OVERLAYFS;
        Ok(Self {
            device: if overlay { BELOW_OVERLAY } else { metadata.dev() },
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        })
    }
}

/// A process that may be watched.
#[derive(Debug)]
pub struct Candidate {
    /// The process.
    pub process: Process,
    /// Its executable.
    pub file: File,
    /// What tells that file apart.
    pub key: FileKey,
    /// What rules look at.
    pub traits: Traits,
    /// Where it runs.
    pub container: Container,
    /// How long it has run.
    pub age: Duration,
}

impl Candidate {
    /// Looks at a process; `None` if it is gone, has no executable, or is not for us to see.
    #[must_use]
    pub fn look(pid: Pid) -> Option<Self> {
        let process = Process::open(pid).ok()?;
        let file = process.open_exe().ok()?;
        let key = FileKey::of(&file).ok()?;
        let container = Container::of(pid);
        let traits = Traits {
            exe: process.exe_name().ok()?,
            args: process.command_line(),
            container: container.id.clone(),
            cgroup: container.cgroup.clone(),
        };
        let age = age(process.start_ticks());
        Some(Self { process, file, key, traits, container, age })
    }
}

/// How long ago something was that happened so many clock ticks after the machine's start.
fn age(start_ticks: u64) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec to write to. The clock exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let now = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
    now.saturating_sub(Duration::from_secs_f64(start_ticks as f64 / ticks_per_second() as f64))
}

/// All processes there are.
#[must_use]
pub fn all_pids() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid)).collect()
}

/// When a process began that has this PID now, in clock ticks since the machine's start.
#[must_use]
pub fn start_ticks(pid: Pid) -> Option<u64> {
    Process::open(pid).ok().map(|process| process.start_ticks())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_there_and_young() {
        let us = Pid(std::process::id());
        assert!(all_pids().contains(&us));
        let candidate = Candidate::look(us).expect("we run");
        assert!(candidate.age < Duration::from_secs(3600));
        assert_eq!(candidate.key, FileKey::of(&File::open("/proc/self/exe").expect("opens")).expect("is a file"));
        assert_eq!(start_ticks(us), Some(candidate.process.start_ticks()));
    }

    #[test]
    fn nobody_is_no_candidate() {
        assert!(Candidate::look(Pid(1 << 23)).is_none());
    }
}

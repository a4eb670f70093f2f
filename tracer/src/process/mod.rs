//! A process: its executable, its lifetime, where its program was loaded.
//!
//! In: a PID. Out: a [`Process`], which stays the same process however PIDs are reused: it holds a pidfd and the start
//! time. Must not know Go.

mod error;
mod held;
mod lifetime;
mod maps;
pub mod memory;
mod pagemap;
mod permission;
mod registers;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub use error::ProcessError;
pub use held::{Held, find_program};
pub use maps::{Mapping, parse_maps, parse_writable};
pub use registers::RegisterSamples;

use crate::units::Pid;

/// A running process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot: with the PID, the identity of a process.
    start_ticks: u64,
    pidfd: OwnedFd,
}

impl Process {
    /// Finds a process.
    ///
    /// # Errors
    ///
    /// If there is no such process, if it is a zombie, a kernel thread, or a thread of another process.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        // The pidfd first: what is read after it is of this process or fails, never of a successor with the same PID.
        let pidfd = lifetime::open_pidfd(pid)?;
        let stat = Stat::read(pid)?;
        if stat.state == 'Z' || stat.state == 'X' {
            return Err(ProcessError::Zombie { pid });
        }
        let process = Self { pid, start_ticks: stat.start_ticks, pidfd };
        if lifetime::has_exited(&process.pidfd) {
            return Err(ProcessError::NoSuchProcess { pid });
        }
        Ok(process)
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// When it started, in clock ticks since boot.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// A path to its executable that works whatever happened to the file's name: in another mount namespace, deleted,
    /// or replaced by a newer build.
    #[must_use]
    pub fn exe(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.pid))
    }

    /// The executable's name as the process's own namespace has it, for a person to read.
    ///
    /// # Errors
    ///
    /// As [`Process::open_exe`].
    pub fn exe_name(&self) -> Result<String, ProcessError> {
        let link = std::fs::read_link(self.exe()).map_err(|e| ProcessError::exe(self.pid, e))?;
        Ok(link.to_string_lossy().into_owned())
    }

    /// Opens its executable.
    ///
    /// # Errors
    ///
    /// If it has none (a kernel thread), is gone, or we may not.
    pub fn open_exe(&self) -> Result<File, ProcessError> {
        File::open(self.exe()).map_err(|e| ProcessError::exe(self.pid, e))
    }

    /// The parts of its executable that are mapped.
    ///
    /// # Errors
    ///
    /// If the process is gone or we may not read its maps.
    pub fn exe_mappings(&self) -> Result<Vec<Mapping>, ProcessError> {
        let exe = self.open_exe()?.metadata().map_err(|e| ProcessError::exe(self.pid, e))?;
        let name = self.exe_name()?;
        let path = format!("/proc/{}/maps", self.pid);
        let text = std::fs::read_to_string(&path).map_err(|e| ProcessError::read(self.pid, path, e))?;
        // By name as well as by number: on an overlay file system, as in containers, `stat` may give the numbers of the
        // overlay where the maps give those of the layer below.
        let is_exe = |m: &Mapping, path: &str| path == name || (m.inode == exe.ino() && m.device == exe.dev());
        Ok(parse_maps(&text).filter(|(m, path)| is_exe(m, path)).map(|(m, _)| m).collect())
    }

    /// Its private writable memory, as far as it was ever touched: reading the rest would cost the process page tables.
    ///
    /// # Errors
    ///
    /// If the process is gone or we may not read its maps.
    pub fn writable_memory(&self) -> Result<Vec<memory::MemoryRange>, ProcessError> {
        let path = format!("/proc/{}/maps", self.pid);
        let text = std::fs::read_to_string(&path).map_err(|e| ProcessError::read(self.pid, path, e))?;
        let path = format!("/proc/{}/pagemap", self.pid);
        let pages = File::open(&path).map_err(|e| ProcessError::read(self.pid, path.clone(), e))?;
        let mut touched = Vec::new();
        for range in parse_writable(&text) {
            pagemap::touched(&pages, range, &mut touched).map_err(|e| ProcessError::read(self.pid, path.clone(), e))?;
        }
        Ok(touched)
    }

    /// Its command line, arguments separated by spaces; empty where it cannot be read.
    #[must_use]
    pub fn command_line(&self) -> String {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words: Vec<_> = bytes
            .split(|b| *b == 0)
            .filter(|w| !w.is_empty())
            .map(|w| OsStr::from_bytes(w).to_string_lossy())
            .collect();
        words.join(" ")
    }

    /// The CPU time that its threads have used since it began, those that have ended included: what /proc/PID/stat says in
    /// hundredths of a second, in nanoseconds.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn cpu_time(&self) -> std::io::Result<std::time::Duration> {
        let mut clock = 0;
        let pid = libc::pid_t::try_from(self.pid.0).map_err(std::io::Error::other)?;
        // SAFETY: a clock id to write to.
        match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
            0 => {}
            error => return Err(std::io::Error::from_raw_os_error(error)),
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a timespec to write to.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// Whether it has exited.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        lifetime::has_exited(&self.pidfd)
    }

    /// Sends it a signal: to itself, and never to a successor with the same PID.
    ///
    /// # Errors
    ///
    /// If it has exited, or we may not.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        lifetime::signal(&self.pidfd, signal)
    }

    /// Waits until it has exited.
    ///
    /// # Errors
    ///
    /// If the pidfd cannot be polled.
    pub async fn exited(&self) -> std::io::Result<()> {
        lifetime::exited(&self.pidfd).await
    }
}

/// The fields of /proc/PID/stat that we need.
struct Stat {
    state: char,
    kernel_thread: bool,
    start_ticks: u64,
}

impl Stat {
    pub(super) fn read(pid: Pid) -> Result<Self, ProcessError> {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read(&path).map_err(|e| ProcessError::read(pid, path.clone(), e))?;
        Self::parse(&text).ok_or_else(|| {
            ProcessError::read(pid, path, std::io::Error::new(std::io::ErrorKind::InvalidData, "not in the known form"))
        })
    }

    /// The command's name, in parentheses, may hold anything, parentheses and blanks included: count from its end.
    fn parse(text: &[u8]) -> Option<Self> {
        let behind_name = text.iter().rposition(|b| *b == b')')? + 1;
        let text = std::str::from_utf8(text.get(behind_name..)?).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        /// `PF_KTHREAD`: <https://github.com/torvalds/linux/blob/v6.18/include/linux/sched.h#L1782>.
        const KERNEL_THREAD: u64 = 0x20_0000;
        // The state is field 3, the flags field 9, the start time field 22.
        let flags: u64 = fields.nth(9 - 4)?.parse().ok()?;
        let start_ticks = fields.nth(22 - 10)?.parse().ok()?;
        Some(Self { state, kernel_thread: flags & KERNEL_THREAD != 0, start_ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_whose_name_is_hostile() {
        let text = b"42 (a) S 1) R 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 777 10 11";
        let stat = Stat::parse(text).expect("parses");
        assert_eq!((stat.state, stat.kernel_thread, stat.start_ticks), ('R', false, 777));
        let text = b"2 (kthreadd) S 0 0 0 0 -1 2129984 1 2 3 4 5 6 7 8 20 0 9 0 778 10 11";
        let stat = Stat::parse(text).expect("parses");
        assert_eq!((stat.state, stat.kernel_thread, stat.start_ticks), ('S', true, 778));
    }

    #[test]
    fn stat_that_is_cut_off_is_refused() {
        assert!(Stat::parse(b"42 (a) R 1 42").is_none());
        assert!(Stat::parse(b"").is_none());
    }

    #[test]
    fn a_process_that_does_not_exist() {
        // Above the kernel's highest possible PID, 2^22.
        let error = Process::open(Pid(1 << 23)).expect_err("no such process");
        assert!(matches!(error, ProcessError::NoSuchProcess { .. }), "{error}");
    }

    #[test]
    fn ourselves() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let mappings = us.exe_mappings().expect("our maps");
        assert!(mappings.iter().any(|m| m.executable));
        assert_eq!(us.exe_name().expect("our exe"), std::env::current_exe().expect("exe").to_string_lossy());
    }
}

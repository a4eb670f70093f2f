//! The life of a process, by pidfd: a handle that no reuse of the PID can turn into another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

use super::ProcessError;
use crate::units::Pid;

/// Opens a pidfd (Linux 5.3).
pub(super) fn open_pidfd(pid: Pid) -> Result<OwnedFd, ProcessError> {
    let Ok(number) = libc::pid_t::try_from(pid.0) else { return Err(ProcessError::NoSuchProcess { pid }) };
    if number == 0 {
        return Err(ProcessError::NoSuchProcess { pid });
    }
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
    if fd >= 0 {
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
    let error = io::Error::last_os_error();
    match thread_group(pid) {
        Some(process) if process != pid => Err(ProcessError::Thread { pid, process }),
        _ => Err(ProcessError::read(pid, format!("the pidfd of {pid}"), error)),
    }
}

/// Of which process `pid` is a thread: the kernel lists /proc/TID for threads too, where it hides them from `ls`.
fn thread_group(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    tgid.trim().parse().ok().map(Pid)
}

/// Whether it has exited.
pub(super) fn has_exited(pidfd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, and we say one.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1
}

/// Sends a signal (Linux 5.1).
pub(super) fn signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: a system call; the null pointer stands for "as kill(2) does".
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until it has exited.
pub(super) async fn exited(pidfd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the borrow always gives the same descriptor, and it is open for as long as the borrow lasts.
    let fd = unsafe { AsyncFd::register_with_interest(pidfd.as_fd(), Interest::READABLE) }?;
    fd.readable().await?.retain_ready();
    Ok(())
}

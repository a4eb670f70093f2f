//! What can be wrong with a PID, in one sentence with the way out.

use std::io;

use crate::units::Pid;

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Nobody has this PID.
    #[error("no process has PID {pid}; `pgrep -a NAME` lists the candidates")]
    NoSuchProcess {
        /// The PID.
        pid: Pid,
    },
    /// The PID is that of a thread.
    #[error("{pid} is a thread of process {process}; use --pid {process}")]
    Thread {
        /// The thread.
        pid: Pid,
        /// Its process.
        process: Pid,
    },
    /// It has exited and waits for its parent.
    #[error("process {pid} has exited already")]
    Zombie {
        /// The PID.
        pid: Pid,
    },
    /// It has no executable.
    #[error("process {pid} is a kernel thread: it has no executable")]
    KernelThread {
        /// The PID.
        pid: Pid,
    },
    /// We may not.
    #[error("no permission to read {path}: {}", super::permission::way_out())]
    Permission {
        /// What was read.
        path: String,
    },
    /// Something else.
    #[error("cannot read {path}")]
    Read {
        /// What was read.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl ProcessError {
    pub(super) fn read(pid: Pid, path: String, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Self::NoSuchProcess { pid },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { path },
            _ => Self::Read { path, source },
        }
    }

    pub(super) fn exe(pid: Pid, source: io::Error) -> Self {
        let path = format!("/proc/{pid}/exe");
        // The link of a kernel thread leads nowhere; so does that of a process that has just exited.
        if source.raw_os_error() == Some(libc::ENOENT)
            && let Ok(stat) = super::Stat::read(pid)
        {
            return if stat.kernel_thread { Self::KernelThread { pid } } else { Self::Zombie { pid } };
        }
        Self::read(pid, path, source)
    }
}

//! One uprobe: the system calls.
//!
//! In: a loaded kernel program, an executable, a place in it, a process or all. Out: a [`Uprobe`], which is there until it is
//! dropped. aya attaches too, but only where the whole loaded object is at hand: attaching takes milliseconds and
//! detaching a tenth of a second (the kernel waits until no CPU can be in the probe), so both happen on threads of
//! their own while events flow.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::at_work::AtWork;
use super::bpf;
use crate::kernel::perf_event::{self, Attributes};
use crate::units::{FileOffset, Pid};

/// A breakpoint with a kernel program on it. Dropping it takes it away: the breakpoint at once, unless another uprobe
/// is being dropped at the moment, then the thread waits for the kernel.
#[derive(Debug)]
pub(super) struct Uprobe {
    /// `None` once it is being dropped.
    event: Option<OwnedFd>,
}

/// Whose uprobe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One process's.
    Process(Pid),
    /// That of every process that runs the file, now or later.
    EveryProcess,
}

impl Uprobe {
    /// Puts `program` on the instruction at `offset` of the file `exe`.
    pub(super) fn attach(program: BorrowedFd<'_>, exe: &Path, offset: FileOffset, scope: Scope) -> io::Result<Self> {
        let _at_work = AtWork::begin();
        let path = CString::new(exe.as_os_str().as_bytes())?;
        let attr = Attributes::uprobe(bpf::uprobe_kind()?, &path, offset.0);
        // A perf event wants a process or a CPU; a uprobe that is every process's fires on all CPUs, whichever is named.
        let event = match scope {
            Scope::Process(pid) => perf_event::open(&attr, libc::pid_t::try_from(pid.0).map_err(io::Error::other)?, -1),
            Scope::EveryProcess => perf_event::open(&attr, -1, 0),
        }?;
        perf_event::run(event.as_fd(), program)?;
        perf_event::enable(event.as_fd())?;
        Ok(Self { event: Some(event) })
    }
}

impl Drop for Uprobe {
    fn drop(&mut self) {
        let _at_work = AtWork::begin();
        drop(self.event.take());
    }
}

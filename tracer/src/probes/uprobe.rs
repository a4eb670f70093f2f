//! One uprobe, and several that go together: the system calls.
//!
//! In: a loaded kernel program, an executable, a place in it, a process or all. Out: a [`Uprobe`], which is there until it is
//! dropped. aya attaches too, but only where the whole loaded object is at hand: attaching takes milliseconds and
//! detaching up to a tenth of a second (the kernel waits until no CPU can be in the probe), so both happen on threads of
//! their own while events flow.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::at_work::AtWork;
use super::bpf::{self, By};
use super::programs::Program;
use crate::kernel::perf_event::{self, Attributes};
use crate::units::{FileOffset, Pid};

/// A breakpoint with a kernel program on it. Dropping it takes it away: the breakpoint at once, unless another uprobe
/// is being dropped at the moment, then the thread waits for the kernel.
#[derive(Debug)]
pub(super) struct Uprobe {
    /// A perf event or a link; `None` once it is being dropped.
    held: Option<OwnedFd>,
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
    pub(super) fn attach(program: &Program, exe: &Path, offset: FileOffset, scope: Scope) -> io::Result<Self> {
        let _at_work = AtWork::begin();
        let path = CString::new(exe.as_os_str().as_bytes())?;
        let held = match program.by() {
            By::MultiLink => by_link(program, &path, offset, scope),
            By::PerfEvent => by_perf_event(program, &path, offset, scope),
        }?;
        Ok(Self { held: Some(held) })
    }
}

fn by_link(program: &Program, path: &CStr, offset: FileOffset, scope: Scope) -> io::Result<OwnedFd> {
    let pid = match scope {
        Scope::Process(pid) => pid.0,
        Scope::EveryProcess => 0,
    };
    bpf::link_uprobe_multi(program.as_fd(), path, offset.0, pid)
}

fn by_perf_event(program: &Program, path: &CStr, offset: FileOffset, scope: Scope) -> io::Result<OwnedFd> {
    let attr = Attributes::uprobe(bpf::uprobe_kind()?, path, offset.0);
    // A perf event wants a process or a CPU; a uprobe that is every process's fires on all CPUs, whichever is named.
    let event = match scope {
        Scope::Process(pid) => perf_event::open(&attr, libc::pid_t::try_from(pid.0).map_err(io::Error::other)?, -1),
        Scope::EveryProcess => perf_event::open(&attr, -1, 0),
    }?;
    perf_event::run(event.as_fd(), program.as_fd())?;
    perf_event::enable(event.as_fd())?;
    Ok(event)
}

impl Drop for Uprobe {
    fn drop(&mut self) {
        let _at_work = AtWork::begin();
        drop(self.held.take());
    }
}

/// The uprobes of one process or file. They go together when this is dropped: the kernel waits for each, until no CPU can be in
/// it; for links, all these waits can be one. (Perf events it takes away one after the other, whoever asks.)
#[derive(Debug, Default)]
pub(super) struct Uprobes {
    /// Those that are hit.
    pub(super) probes: Vec<Uprobe>,
    /// One for each process or file, at an instruction that is not executed, attached before the probes and taken away
    /// when they are gone.
    ///
    /// As long as a process has a uprobe, the kernel takes a trap whose breakpoint is gone for one that came late, and has the
    /// instruction executed. With the last uprobe goes the process's mark, and a late trap is then the process's own: a SIGTRAP,
    /// which ends it. On arm64 a thread may lose its CPU between trap and handler since Linux 6.17, for as long as
    /// others want it; elsewhere a virtual machine's CPU may stand still there. (`uprobe_pre_sstep_notifier` and
    /// `mmf_recalc_uprobes` of <https://github.com/torvalds/linux/blob/v6.18/kernel/events/uprobes.c>, `el0_brk64` of
    /// <https://github.com/torvalds/linux/blob/v6.18/arch/arm64/kernel/entry-common.c>; counted in the journal.)
    pub(super) anchors: Vec<Uprobe>,
}

impl Uprobes {
    /// Takes in others, to go with these.
    pub(super) fn join(&mut self, mut others: Self) {
        self.probes.append(&mut others.probes);
        self.anchors.append(&mut others.anchors);
    }
}

impl Drop for Uprobes {
    fn drop(&mut self) {
        /// More than a thread waits for a CPU on a busy machine; where the kernel has waited already, for nothing.
        const LATE: Duration = Duration::from_millis(20);
        drop_together(std::mem::take(&mut self.probes));
        if !self.anchors.is_empty() {
            thread::sleep(LATE);
        }
        drop_together(std::mem::take(&mut self.anchors));
    }
}

fn drop_together(mut uprobes: Vec<Uprobe>) {
    /// An agent may have thousands of uprobes.
    const THREADS: usize = 32;
    let each = uprobes.len().div_ceil(THREADS);
    thread::scope(|scope| {
        while uprobes.len() > each {
            let some = uprobes.split_off(uprobes.len() - each);
            // Where there can be no thread they go here and now.
            let _ = thread::Builder::new().spawn_scoped(scope, move || drop(some));
        }
        drop(uprobes);
    });
}

//! Threads that are at work on uprobes: this process must not exit meanwhile.
//!
//! A thread that is killed, by the process's exit too, while the kernel takes a uprobe away for it, leaves the breakpoint
//! behind: the kernel cannot get at the target's page any more, for `__get_user_pages` gives up at a fatal signal
//! (<https://github.com/torvalds/linux/blob/v6.18/mm/gup.c>), and its log has "failed to unregister, leaking uprobe". The
//! target then takes a trap at each hit, for nobody, until it ends or another tracer has stood there. What is still open
//! when a process ends is closed behind that signal, and is not in danger.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static THREADS: Mutex<Threads> = Mutex::new(Threads { at_work: 0, is_over: false });
static ONE_LESS: Condvar = Condvar::new();

struct Threads {
    at_work: usize,
    /// The process is about to exit.
    is_over: bool,
}

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling thread is at work until this is dropped.
#[derive(Debug)]
pub(super) struct AtWork(());

impl AtWork {
    /// Begins, unless the process is about to exit: then the thread waits for that.
    pub(super) fn begin() -> Self {
        let mut threads = threads();
        while threads.is_over {
            threads = ONE_LESS.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
        threads.at_work += 1;
        Self(())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        threads().at_work -= 1;
        ONE_LESS.notify_all();
    }
}

/// Closes what a uprobe hangs on, on a thread of its own: the kernel waits until no CPU can be in it, and nobody else must.
pub(super) fn close_apart(held: OwnedFd) -> io::Result<()> {
    std::thread::Builder::new().spawn(move || {
        let _at_work = AtWork::begin();
        drop(held);
    })?;
    Ok(())
}

/// To be called right before the process exits: waits for those at work, for `limit` at most, and lets nobody begin any more.
pub fn stop(limit: Duration) {
    let mut threads = threads();
    threads.is_over = true;
    let (threads, waited) = ONE_LESS
        .wait_timeout_while(threads, limit, |threads| threads.at_work > 0)
        .unwrap_or_else(PoisonError::into_inner);
    if waited.timed_out() {
        log::warn!(
            "{} probes are still being taken away after {} s: the kernel may leave a breakpoint behind",
            threads.at_work,
            limit.as_secs()
        );
    }
}

//! Bytes to the disk itself, so that they are there when power fails.
//!
//! In: files, again and again. Out: what was written to them so far, on their disk, brought there by a thread of its own: a
//! disk that takes long keeps nobody who writes, and is not asked again before it is through.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Brings files to their disk. When it is dropped it waits for what is under way.
pub(super) struct Syncer {
    files: Option<Sender<Vec<File>>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    busy: AtomicBool,
    failed: Mutex<Option<io::Error>>,
}

impl Syncer {
    pub(super) fn start() -> io::Result<Self> {
        let (files, to_sync) = channel::<Vec<File>>();
        let state = Arc::new(State::default());
        let own = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("recorder-sync".to_owned()).spawn(move || {
            for files in to_sync {
                if let Err(error) = files.iter().try_for_each(sync) {
                    own.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                own.busy.store(false, Release);
            }
        })?;
        Ok(Self { files: Some(files), thread: Some(thread), state })
    }

    /// Begins to bring to disk what was written so far to the files that `files` gives, unless the last time is not over yet:
    /// then they are not asked for.
    ///
    /// # Errors
    ///
    /// If `files` has none, or an earlier time failed: then bytes that were thought safe may not be there.
    pub(super) fn sync(&self, files: impl FnOnce() -> io::Result<Vec<File>>) -> io::Result<()> {
        if let Some(error) = self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if self.state.busy.swap(true, AcqRel) {
            return Ok(());
        }
        let sent = files().map(|files| self.files.as_ref().is_some_and(|to| to.send(files).is_ok()));
        if !matches!(sent, Ok(true)) {
            self.state.busy.store(false, Release);
        }
        sent.map(|_| ())
    }

    /// Waits for what is under way, and brings the rest to disk.
    ///
    /// # Errors
    ///
    /// As [`Syncer::sync`], and if the disk fails.
    pub(super) fn finish(mut self, rest: Vec<File>) -> io::Result<()> {
        self.join();
        let failed = self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err).and_then(|()| rest.iter().try_for_each(sync))
    }

    fn join(&mut self) {
        drop(self.files.take());
        if let Some(thread) = self.thread.take() {
            // It has no way to panic, and nothing to say.
            let _ = thread.join();
        }
    }

    #[cfg(test)]
    fn is_busy(&self) -> bool {
        self.state.busy.load(std::sync::atomic::Ordering::Acquire)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.join();
    }
}

/// Brings what was written to `file` to its disk, if it has one: a pipe has not, nor has a terminal.
fn sync(file: &File) -> io::Result<()> {
    file.sync_data().or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOTSUP | libc::EROFS) => Ok(()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_disk_is_passed_over() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        sync(&pipe).expect("a pipe has nothing to bring anywhere");
        let syncer = Syncer::start().expect("a thread");
        syncer.sync(|| Ok(vec![pipe])).expect("takes it");
        syncer.finish(vec![tempfile()]).expect("nothing has failed");
    }

    #[test]
    fn files_that_cannot_be_had_are_an_error_and_the_next_time_goes_on() {
        let syncer = Syncer::start().expect("a thread");
        assert!(syncer.sync(|| Err(io::Error::other("no more descriptors"))).is_err());
        assert!(!syncer.is_busy(), "nothing is under way");
        syncer.sync(|| Ok(vec![tempfile()])).expect("takes it");
        syncer.finish(Vec::new()).expect("nothing has failed");
    }

    #[test]
    fn a_failure_is_told_the_next_time() {
        let syncer = Syncer::start().expect("a thread");
        let failed = || syncer.state.failed.lock().expect("nobody panics").replace(io::Error::other("worn out"));
        assert!(failed().is_none());
        let error = syncer.sync(|| Ok(vec![tempfile()])).expect_err("the disk is worn out");
        assert_eq!(error.to_string(), "worn out");
        failed();
        assert!(syncer.finish(Vec::new()).is_err());
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("gotracer-sync-{:?}", std::thread::current().id()));
        let file = File::create(&path).expect("a file");
        std::fs::remove_file(&path).expect("it is there");
        file
    }
}

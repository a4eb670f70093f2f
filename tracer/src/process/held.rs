//! A program held before its first instruction: the child is forked but waits to be let into its `execve`.
//!
//! In: a program and its arguments. Out: a child with a PID, to which probes can be attached before it runs.

use std::ffi::OsString;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;

use crate::units::Pid;

/// A child that waits.
#[derive(Debug)]
pub struct Held {
    pid: Pid,
    go: PipeWriter,
    /// `spawn` returns when the child's `execve` has succeeded or failed, so it has a thread to itself.
    spawning: JoinHandle<io::Result<Child>>,
}

impl Held {
    /// Forks a child that will become `program`.
    ///
    /// # Errors
    ///
    /// If there can be no child.
    pub fn spawn(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let (mut pid_reader, pid_writer) = io::pipe()?;
        let (go_reader, go_writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let (pid_fd, go_fd, our_end) = (pid_writer.as_raw_fd(), go_reader.as_raw_fd(), go_writer.as_raw_fd());
        let wait_to_go = move || {
            // SAFETY: between fork and exec only async-signal-safe calls are allowed: getpid, close, write and read are.
            // The descriptors are the child's copies, open until its exec.
            unsafe {
                // Else the child would wait for itself, should we end without letting it run.
                libc::close(our_end);
                let pid = libc::getpid().to_ne_bytes();
                if libc::write(pid_fd, pid.as_ptr().cast(), pid.len()) != pid.len() as isize {
                    return Err(io::Error::last_os_error());
                }
                let mut go = 0_u8;
                if libc::read(go_fd, (&raw mut go).cast(), 1) == 1 {
                    return Ok(());
                }
            }
            // The other end was closed: the parent gave up.
            Err(io::Error::from_raw_os_error(libc::ECANCELED))
        };
        // SAFETY: see in the closure.
        unsafe { command.pre_exec(wait_to_go) };
        let spawning = std::thread::Builder::new().name("spawn".to_owned()).spawn(move || {
            let child = command.spawn();
            // The child's ends of the pipes, in our process: they had to be open across the fork.
            drop((pid_writer, go_reader));
            child
        })?;
        let mut pid = [0; 4];
        if let Err(error) = pid_reader.read_exact(&mut pid) {
            // No PID came because there was no fork; its error says more.
            return Err(match spawning.join() {
                Ok(Err(cause)) => cause,
                Ok(Ok(_)) | Err(_) => error,
            });
        }
        Ok(Self { pid: Pid(u32::from_ne_bytes(pid)), go: go_writer, spawning })
    }

    /// Its PID, before and after `execve`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it run.
    ///
    /// # Errors
    ///
    /// If `execve` fails.
    pub fn release(mut self) -> io::Result<Child> {
        self.go.write_all(&[1])?;
        match self.spawning.join() {
            Ok(child) => child,
            Err(_panic) => Err(io::Error::other("the thread that started the program panicked")),
        }
    }
}

/// Finds a program as a shell would: by path if the name has a slash, else in `PATH`.
///
/// # Errors
///
/// If there is none.
pub fn find_program(name: &Path) -> io::Result<PathBuf> {
    let not_found = || io::Error::new(io::ErrorKind::NotFound, format!("no program {}", name.display()));
    if name.components().count() > 1 || name.is_absolute() {
        return if name.is_file() { Ok(name.to_owned()) } else { Err(not_found()) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_program_runs_only_when_released() {
        let folder = std::env::temp_dir().join(format!("gotracer-held-{}", std::process::id()));
        let file = folder.with_extension("ran");
        let held = Held::spawn(Path::new("/bin/sh"), &["-c".into(), format!("echo $$ > {}", file.display()).into()])
            .expect("forks");
        let pid = held.pid();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("is there");
        assert_eq!(exe, std::env::current_exe().expect("exe"), "not yet a shell");
        assert!(!file.exists());
        let mut child = held.release().expect("execs");
        assert_eq!(child.id(), pid.0);
        assert!(child.wait().expect("ends").success());
        let written = std::fs::read_to_string(&file).expect("the program ran");
        assert_eq!(written.trim(), pid.to_string());
        std::fs::remove_file(file).expect("removes");
    }

    #[test]
    fn a_child_that_is_not_released_ends() {
        let held = Held::spawn(Path::new("/bin/true"), &[]).expect("forks");
        let Held { go, spawning, .. } = held;
        drop(go);
        let error = spawning.join().expect("no panic").expect_err("was given up");
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_an_error() {
        let held = Held::spawn(Path::new("/nonexistent"), &[]).expect("forks");
        let error = held.release().expect_err("no such file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

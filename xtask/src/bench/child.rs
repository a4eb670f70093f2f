//! Another program's run, measured from its start to its end: by the clock, the processors' time, peak memory.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gotracer_tests::environment::patience;

use super::subject::with_us;

/// What a run took, and what it printed on either stream.
pub struct Run {
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_bytes: f64,
    pub success: bool,
    pub printed: File,
}

impl Run {
    /// Runs the command, with `input` as its stdin. One that does not end in time is killed, which is an error.
    ///
    /// What the kernel counts as its peak includes the moment between fork and exec, so it is never less than what is
    /// resident of ourselves.
    pub fn of(command: &mut Command, input: &str) -> Result<Self> {
        let (mut stdin, printed) = (memory_file()?, memory_file()?);
        stdin.write_all(input.as_bytes())?;
        stdin.rewind()?;
        command.stdin(stdin).stdout(printed.try_clone()?).stderr(printed.try_clone()?);
        let begin = Instant::now();
        let child = with_us(command).spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        // It holds its ends; ours would stay open with the command.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pid = libc::pid_t::try_from(child.id())?;
        let ended = await_end(pid, patience());
        let wall = begin.elapsed();
        if !matches!(ended, Ok(true)) {
            // SAFETY: no memory of ours; nobody has waited for the child, so the id is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let (status, usage) = reap(pid)?;
        if !ended? {
            bail!("{:?} did not end within {:?}", command.get_program(), patience());
        }
        let success = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        let cpu = of_timeval(usage.ru_utime) + of_timeval(usage.ru_stime);
        Ok(Self { wall, cpu, peak_bytes: usage.ru_maxrss as f64 * 1024.0, success, printed })
    }

    /// How many lines begin so, without having them all in memory.
    pub fn count_lines(&mut self, start: &str) -> Result<usize> {
        self.printed.rewind()?;
        let (mut count, mut line) = (0, Vec::new());
        let mut lines = BufReader::new(&self.printed);
        while lines.read_until(b'\n', &mut line)? > 0 {
            count += usize::from(line.starts_with(start.as_bytes()));
            line.clear();
        }
        Ok(count)
    }

    pub fn text(&mut self) -> Result<String> {
        let mut text = Vec::new();
        self.printed.rewind()?;
        self.printed.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A file without a name: nothing to clean up.
fn memory_file() -> Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("no file in memory");
    }
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Whether the child ended in time.
fn await_end(pid: libc::pid_t, limit: Duration) -> Result<bool> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("no pidfd");
    }
    // SAFETY: just opened, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    match unsafe { libc::poll(&raw mut wanted, 1, i32::try_from(limit.as_millis())?) } {
        ready if ready >= 0 => Ok(ready > 0),
        _ => Err(std::io::Error::last_os_error()).context("cannot wait for a child"),
    }
}

fn reap(pid: libc::pid_t) -> Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: numbers all through, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours to write to.
    if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {
        return Err(std::io::Error::last_os_error()).context("a child's use of resources is not known");
    }
    Ok((status, usage))
}

fn of_timeval(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000)
}

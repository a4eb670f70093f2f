//! A child process whose lines are read with a deadline, and which does not outlive its handle.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::environment::patience;

/// A running program with all three of its streams in our hands.
pub struct Running {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it prints.
    pub stdout: Lines,
    /// What it says.
    pub stderr: Lines,
}

impl Running {
    /// Starts the command. `what` names it in errors.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(what: impl Into<String>, command: &mut Command) -> Result<Self> {
        let what = what.into();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().context("no stdout")?);
        let stderr = Lines::of(child.stderr.take().context("no stderr")?);
        Ok(Self { what, child, stdin, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line to its stdin.
    ///
    /// # Errors
    /// When it no longer reads.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its stdin is closed")?;
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .with_context(|| format!("cannot tell {} to {line}", self.what))
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = libc::pid_t::try_from(self.pid())?;
        // SAFETY: kill touches no memory of ours; the child has not been waited for, so the id is still its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("cannot signal {}", self.what));
        }
        Ok(())
    }

    /// Waits for the line that begins with `start`, on stdout; gives the rest of it.
    ///
    /// # Errors
    /// When it does not come, with what came instead.
    pub fn await_line(&mut self, start: &str) -> Result<String> {
        let found = self.stdout.await_start(start);
        found.with_context(|| format!("{} did not print {start:?}\n{}", self.what, self.stderr.so_far()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn await_exit(&mut self) -> Result<ExitStatus> {
        let what = &self.what;
        let child = &mut self.child;
        poll(|| Ok(child.try_wait()?)).with_context(|| format!("{what} did not end"))
    }

    /// Its end, if it has ended.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, read by a thread of their own so that the child never waits for us.
pub struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(1 << 20, stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { incoming, seen: Vec::new() }
    }

    /// Waits for the line that begins with `start`; gives the rest of it.
    ///
    /// # Errors
    /// When the stream or our patience ends first.
    pub fn await_start(&mut self, start: &str) -> Result<String> {
        let deadline = Instant::now() + patience();
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let rest = line.strip_prefix(start).map(str::to_owned);
                    self.seen.push(line);
                    if let Some(rest) = rest {
                        return Ok(rest);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no line {start:?} within {:?}; the last were\n{}", patience(), self.tail());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the stream ended without {start:?} after\n{}", self.tail())
                }
            }
        }
    }

    /// Everything to the stream's end, what was seen before included.
    ///
    /// # Errors
    /// When it does not end.
    pub fn to_end(&mut self) -> Result<Vec<String>> {
        let deadline = Instant::now() + patience();
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(std::mem::take(&mut self.seen)),
                Err(RecvTimeoutError::Timeout) => bail!("the stream did not end; the last lines were\n{}", self.tail()),
            }
        }
    }

    /// What has come so far, for an error message.
    pub fn so_far(&mut self) -> String {
        self.seen.extend(self.incoming.try_iter());
        self.tail()
    }

    fn tail(&self) -> String {
        const LINES: usize = 30;
        self.seen[self.seen.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Asks until there is an answer, for as long as our patience lasts.
///
/// # Errors
/// When an attempt fails, or none gives an answer in time.
pub fn poll<T>(attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    poll_within(patience(), attempt)
}

/// As [`poll`], for what takes its own time, too.
///
/// # Errors
///
/// As [`poll`].
pub fn poll_within<T>(patience: Duration, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("not within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! One of the Go programs of tests/programs, prebuilt, running, and waiting for what it is told.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Tally;
use crate::child::Running;
use crate::environment::{Skip, programs};

/// A running test program. Killed when dropped.
pub struct Program {
    running: Running,
    ready: Value,
}

impl Program {
    /// Where `cargo xtask programs` has put a program.
    ///
    /// # Errors
    /// [`Skip`] when it is not there.
    pub fn find(version: &str, variant: &str, name: &str) -> Result<PathBuf> {
        let path = programs().join(version).join(variant).join(name);
        if !path.is_file() {
            return Err(Skip(format!("{} is not there: run `cargo xtask programs`", path.display())).into());
        }
        Ok(path)
    }

    /// Starts a program and waits until it says that it is ready to be attached to.
    ///
    /// # Errors
    /// When it cannot be started or does not get ready.
    pub fn start(path: &Path, args: &[&str]) -> Result<Self> {
        Self::start_as(Command::new(path).args(args))
    }

    /// As [`Program::start`], for a command that becomes a test program.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn start_as(command: &mut Command) -> Result<Self> {
        let what = command.get_program().to_string_lossy().into_owned();
        let mut running = Running::start(what, command)?;
        let ready = details(&running.await_line("READY")?)?;
        Ok(Self { running, ready })
    }

    /// Takes over a command that runs a test program on its own streams.
    ///
    /// # Errors
    /// When the program does not get ready.
    pub fn within(mut running: Running) -> Result<Self> {
        let ready = details(&running.await_line("READY")?)?;
        Ok(Self { running, ready })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it said with READY, a port for example.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Sends it a line: `go`, `stop`, `quit`.
    ///
    /// # Errors
    /// When it no longer reads.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.running.send(line)
    }

    /// Waits for a line of its own, `RUNNING` for example.
    ///
    /// # Errors
    /// When the line does not come.
    pub fn await_line(&mut self, start: &str) -> Result<String> {
        self.running.await_line(start)
    }

    /// Waits for its tally.
    ///
    /// # Errors
    /// When it does not come or cannot be read.
    pub fn tally(&mut self) -> Result<Tally> {
        Tally::parse(self.running.await_line("TALLY ")?.as_str())
    }

    /// The child, for signals and its streams.
    pub fn child(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Lets it end, and says how it did.
    ///
    /// # Errors
    /// When it does not end.
    pub fn quit(mut self) -> Result<ExitStatus> {
        self.send("quit")?;
        self.running.await_exit()
    }

    /// Lets it end, and expects that it ends as a program does that nothing has harmed.
    ///
    /// # Errors
    /// When it does not, with what it said.
    pub fn quit_in_peace(mut self) -> Result<()> {
        self.send("quit")?;
        let status = self.running.await_exit()?;
        if !status.success() {
            bail!("the program ended with {status}:\n{}", self.running.stderr.so_far());
        }
        Ok(())
    }
}

fn details(rest: &str) -> Result<Value> {
    match rest.trim() {
        "" => Ok(Value::Null),
        json => serde_json::from_str(json).with_context(|| format!("READY with {json:?}, which is no JSON")),
    }
}

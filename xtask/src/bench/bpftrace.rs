//! The baseline: bpftrace, counting calls of one function by a probe at its entry.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use anyhow::{Context, Result};
use gotracer_tests::child::{Running, poll};

use super::subject::{Subject, with_us};
use crate::toolchains::install_debian_packages;
use crate::workspace::on_path;

/// Sees to it that there is one.
pub fn ensure() -> Result<()> {
    if on_path("bpftrace") { Ok(()) } else { install_debian_packages(&["bpftrace"], "the bench's baseline") }
}

/// A running bpftrace. Killed when dropped.
pub struct Bpftrace(Running);

impl Bpftrace {
    /// Starts it, and waits until its breakpoint stands in the subject's code.
    pub fn attach(subject: &Subject, function: &str) -> Result<Self> {
        let script = format!("uprobe:{}:{function} {{ @n = count(); }}", subject.path().display());
        let mut command = Command::new("bpftrace");
        command.args(["-p", &subject.pid().to_string(), "-e", &script]);
        let mut running = Running::start("bpftrace", with_us(&mut command))?;
        running.await_line("Attaching")?;
        // It says so before it attaches. The program is not position-independent: its memory is at link-time addresses.
        let entry = subject.entry(function)?;
        let first = gotracer::units::Pc(entry.0 + 1);
        let original = subject.program().binary.code(entry..first)?;
        let memory = File::open(format!("/proc/{}/mem", subject.pid()))?;
        poll(|| {
            if let Some(status) = running.try_exit()? {
                anyhow::bail!("bpftrace ended with {status}: {}", running.stderr.so_far());
            }
            let mut now = [0];
            memory.read_exact_at(&mut now, entry.0)?;
            Ok((now != original.as_slice()).then_some(()))
        })
        .context("bpftrace did not attach")?;
        Ok(Self(running))
    }

    /// Stops it; gives what it counted.
    pub fn stop(mut self) -> Result<u64> {
        self.0.signal(libc::SIGINT)?;
        let count = self.0.await_line("@n: ")?;
        self.0.await_exit()?;
        count.trim().parse().with_context(|| format!("bpftrace counted {count:?}"))
    }
}

//! The baselines: bpftrace, counting hits of probes at functions' entries, as other tracers of Go place them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use gotracer::tracee::Program;
use gotracer::units::{Pc, Pid};
use gotracer_tests::child::{Running, poll};

use super::subject::{entry, with_us};
use crate::toolchains::install_debian_packages;
use crate::workspace::on_path;

/// What xgotop probes to see goroutines.
pub const XGOTOP_GOROUTINES: &[&str] = &["runtime.casgstatus", "runtime.newproc1", "runtime.goexit1"];
/// All that xgotop probes.
pub const XGOTOP: &[&str] = &[
    "runtime.casgstatus",
    "runtime.newproc1",
    "runtime.goexit1",
    "runtime.newobject",
    "runtime.makeslice",
    "runtime.makemap",
];
/// What gmon probes, but for newproc1's `ret`: Debian's bpftrace was built without probes inside functions. So it is
/// flattered by one hit a spawn.
pub const GMON: &[&str] = &["runtime.newproc1", "runtime.goexit1"];

/// Sees to it that there is one.
pub fn ensure() -> Result<()> {
    if on_path("bpftrace") { Ok(()) } else { install_debian_packages(&["bpftrace"], "the bench's baseline") }
}

/// A running bpftrace. Killed when dropped.
pub struct Bpftrace(Running);

/// Where a probe is to stand: as bpftrace is told, and as an address.
fn place(program: &Program, function: &str) -> Result<(String, Pc)> {
    Ok((function.to_owned(), entry(program, function)?))
}

impl Bpftrace {
    /// Starts it, and waits until its breakpoints stand in the process's code. Functions that this Go version does not
    /// have are left out.
    pub fn attach(pid: Pid, path: &Path, program: &Program, functions: &[&str]) -> Result<Self> {
        let places: Vec<(String, Pc)> = functions.iter().filter_map(|name| place(program, name).ok()).collect();
        anyhow::ensure!(!places.is_empty(), "none of {functions:?} is in the program");
        let probes: Vec<String> =
            places.iter().map(|(place, _)| format!("uprobe:{}:{place}", path.display())).collect();
        let script = format!("{} {{ @n = count(); }}", probes.join(","));
        let mut command = Command::new("bpftrace");
        command.args(["-p", &pid.to_string(), "-e", &script]);
        let mut running = Running::start("bpftrace", with_us(&mut command))?;
        running.await_line("Attaching")?;
        // It says so before it attaches. The program is not position-independent: its memory is at link-time addresses.
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        for (_, pc) in &places {
            let original = program.binary.code(*pc..Pc(pc.0 + 1))?;
            poll(|| {
                if let Some(status) = running.try_exit()? {
                    anyhow::bail!("bpftrace ended with {status}: {}", running.stderr.so_far());
                }
                let mut now = [0];
                memory.read_exact_at(&mut now, pc.0)?;
                Ok((now != original.as_slice()).then_some(()))
            })
            .context("bpftrace did not attach")?;
        }
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

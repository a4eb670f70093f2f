//! A baseline of [`super::dump`]: Delve, which stops the process, lists its goroutines with their stacks and detaches.

use std::process::Command;

use anyhow::{Result, bail};
use gotracer::units::Pid;

use super::child::Run;
use crate::toolchains::install_debian_packages;
use crate::workspace::{on_path, target};

/// A Go whose goroutines Debian's Delve (1.20) understands.
pub const SUPPORTED_GO: &str = "1.21.13";

/// So many of them in a few seconds; ten times as many take it a minute.
pub const CROWD: u64 = 10_000;

/// The commands, and the answer to its question whether to kill the process.
const SCRIPT: &str = "goroutines -t\nquit\nn\n";

/// A row of the table. Where Delve cannot, it says why: others' failure is none of ours.
pub fn row(name: &str, pid: Pid) -> String {
    match list(pid) {
        Ok(run) => {
            let (wall, cpu) = (run.wall.as_secs_f64() * 1e3, run.cpu.as_secs_f64() * 1e3);
            let printed = run.printed.metadata().map_or(0.0, |meta| meta.len() as f64 / 1e6);
            format!("| {name} | {wall:.0} | {cpu:.0} | - | {:.1} | - | {printed:.1} |\n", run.peak_bytes / 1e6)
        }
        Err(error) => format!("| {name} | no: {} | - | - | - | - | - |\n", format!("{error:#}").replace('|', "/")),
    }
}

fn list(pid: Pid) -> Result<Run> {
    if !on_path("dlv") {
        install_debian_packages(&["delve"], "a baseline of the dump")?;
    }
    let mut command = Command::new("dlv");
    command.args(["attach", &pid.to_string(), "--allow-non-terminal-interactive=true", "--check-go-version=false"]);
    // It writes its settings; the user's are left alone.
    command.env("XDG_CONFIG_HOME", target().join("delve"));
    let mut run = Run::of(&mut command, SCRIPT)?;
    let text = run.text()?;
    if let Some(failure) = text.lines().find_map(|line| line.split_once("Command failed: ")) {
        bail!("{}", failure.1);
    }
    if !run.success || !text.contains(" goroutines]") {
        bail!("it ended before the list did");
    }
    Ok(run)
}

//! What was measured, where, and of what: Markdown for stdout and for the journal.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context, Result};

use super::Goal;
use super::stats::shown;
use crate::workspace::{commit, output, root, say};

/// The machine and the sources, as one list.
pub fn environment(versions: &[String]) -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    Ok(format!(
        "Commit {}; Linux {}; {cpus} CPUs ({}), load average {load} at the start; Go {}.\n",
        commit().replace('+', " and changes"),
        kernel.trim(),
        model.unwrap_or("unnamed"),
        versions.join(" and "),
    ))
}

/// Goals, met or missed.
pub fn goals(goals: &[Goal]) -> String {
    let mut table = String::from("| goal | asked | measured | |\n| --- | --- | --- | --- |\n");
    for goal in goals {
        let met = match goal.met() {
            Some(true) => "pass",
            Some(false) => "**FAIL**",
            None => "not measured",
        };
        let precision = if goal.measured.is_some_and(|measured| measured.middle < 10.0) { 3 } else { 1 };
        table += &format!("| {} | {} | {} | {met} |\n", goal.name, goal.asked(), shown(goal.measured, precision));
    }
    table
}

/// Appends to docs/journal.md, under today's date.
pub fn journal(text: &str) -> Result<()> {
    let path = root().join("docs/journal.md");
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut file = OpenOptions::new().append(true).open(&path).with_context(|| format!("no {}", path.display()))?;
    write!(file, "\n## {}: `cargo xtask bench`\n\n{text}", date.trim())?;
    say("appended to docs/journal.md");
    Ok(())
}

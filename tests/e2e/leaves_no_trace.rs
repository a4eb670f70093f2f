//! Is the target as it was when gotracer has ended, in whatever way it ended?

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use gotracer_tests::agent::{self, Agent};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{Skip, gotracer, require_root_and_bpf};
use gotracer_tests::text::changed_bytes;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::executables::Folder;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("leaves_no_trace::after_kill_9", || after(Ending::Kill)),
        trial("leaves_no_trace::after_ctrl_c", || after(Ending::CtrlC)),
        trial("leaves_no_trace::after_for", || after(Ending::For)),
        trial("leaves_no_trace::after_an_agent", after_an_agent),
        trial("leaves_no_trace::in_the_kernel", in_the_kernel),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Kill,
    CtrlC,
    For,
}

fn after(ending: Ending) -> Result<()> {
    require_root_and_bpf()?;
    let version = GO_VERSIONS.last().context("no Go versions")?;
    let mut program = Program::start(&Program::find(version, "plain", "pingpong")?, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let pid = program.pid();
    ensure!(changed_bytes(pid)?.is_empty(), "the program is not what its file holds, before any probe");

    let probes = probes_of(pid)?;

    let args: &[&str] = if ending == Ending::For { &["--only", "exec", "--for", "1s"] } else { &["--only", "exec"] };
    let mut tracer = Gotracer::trace(pid, args)?;
    // Else the test would pass without probes.
    ensure!(!changed_bytes(pid)?.is_empty(), "no probe is to be seen in the program while it is traced");
    let end = std::thread::spawn(move || anchored_to_the_end(pid, &probes));
    match ending {
        Ending::Kill => {
            tracer.child().signal(libc::SIGKILL)?;
            tracer.child().await_exit()?;
        }
        Ending::CtrlC => drop(tracer.stop()?),
        Ending::For => drop(tracer.finish()?),
    }
    end.join().map_err(|_| anyhow!("the thread panicked"))??;

    program.send("stop")?;
    let tally = program.tally()?;
    ensure!(tally.iterations > 1_000, "the program hardly went on: {} iterations", tally.iterations);
    program.quit_in_peace()
}

/// The agent's are those of the file.
fn after_an_agent() -> Result<()> {
    require_root_and_bpf()?;
    let version = GO_VERSIONS.last().context("no Go versions")?;
    let folder = agent::Folder::new("no-trace")?;
    let path = folder.copy(&Program::find(version, "plain", "pingpong")?)?;
    let mut program = Program::start(&path, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let pid = program.pid();
    let probes = probes_of(pid)?;
    let agent = Agent::start(&folder, "[budget]\nprocess_percent = 100.0\nhost_percent = 100.0\n")?;
    agent.await_watched(pid)?;
    poll(|| Ok(changed_bytes(pid)?.iter().any(|place| probes.contains(place)).then_some(())))?;
    let end = std::thread::spawn(move || anchored_to_the_end(pid, &probes));
    agent.stop()?;
    end.join().map_err(|_| anyhow!("the thread panicked"))??;
    program.send("stop")?;
    program.tally()?;
    program.quit_in_peace()
}

/// Waits until nothing of the process's code is changed any more. Until then, whatever goes first, something must be left that is
/// none of the probes: a thread that is late from a trap needs it, for with the process's last uprobe a trap is the process's own.
fn anchored_to_the_end(pid: u32, probes: &[u64]) -> Result<()> {
    /// A probe on a five-byte nop may be a call.
    const LONGEST: u64 = 5;
    let is_probe = |place: &u64| probes.iter().any(|probe| (*probe..*probe + LONGEST).contains(place));
    // The kernel takes the probes out after the last reference to them is gone, a little after the process.
    poll(|| {
        let left = changed_bytes(pid)?;
        ensure!(left.is_empty() || !left.iter().all(is_probe), "no anchor: {left:x?} are left, probes at {probes:x?}");
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("changed at {:x?}", changed_bytes(pid)))
}

/// The places of the probes, in the file.
fn probes_of(pid: u32) -> Result<Vec<u64>> {
    let output = Command::new(gotracer()?).args(["doctor", "--json", "--pid", &pid.to_string()]).output()?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let probes = said["process"]["probes"].as_array().context("no probes")?;
    let places: Vec<u64> = probes.iter().filter_map(|probe| probe["offset"].as_u64()).collect();
    ensure!(places.len() >= 4, "{probes:?}");
    Ok(places)
}

/// A command that ends at once leaves no uprobe of its own behind either: those by which it finds out what the kernel can and what
/// a hit costs. The kernel would say so in its log, with the name of the thread.
fn in_the_kernel() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("no-trace-in-the-kernel")?;
    let (name, path) = ("leaves_no_trace", folder.path("leaves_no_trace"));
    std::fs::copy(gotracer()?, &path)?;
    let version = GO_VERSIONS.last().context("no Go versions")?;
    let mut program = Program::start(&Program::find(version, "plain", "pingpong")?, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let before = complaints(name)?;
    let pid = program.pid().to_string();
    for args in [&["doctor"][..], &["trace", "--pid", &pid, "--for", "50ms"], &["trace", "--pid", "1"]].repeat(3) {
        let output = Command::new(&path).args(args).output()?;
        ensure!(output.status.code().is_some(), "{args:?} was killed");
    }
    let after = complaints(name)?;
    ensure!(after.len() <= before.len(), "the kernel says: {:#?}", after.iter().skip(before.len()).collect::<Vec<_>>());
    ensure!(changed_bytes(program.pid())?.is_empty(), "probes are left in the program");
    program.send("stop")?;
    program.tally()?;
    program.quit_in_peace()
}

/// What the kernel's log has of uprobes that threads of this name could not take away.
fn complaints(name: &str) -> Result<Vec<String>> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .map_err(|error| Skip(format!("the kernel's log cannot be read: {error}")))?;
    let (mut found, mut record) = (Vec::new(), [0; 8192]);
    loop {
        match log.read(&mut record) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                if text.contains("uprobe") && text.contains(&format!(" {name}:")) {
                    found.push(text.into_owned());
                }
            }
            // Records that were overwritten while we read.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
            Err(error) => return Err(error).context("cannot read the kernel's log"),
        }
    }
}

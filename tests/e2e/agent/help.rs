//! Is there evidence before help, and is what helps done, whatever fails?

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{in_a_vm, require_root_and_bpf};
use libtest_mimic::Trial;

use super::{QUICK, check_evidence, count_folders, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::evidence_first_then_help", evidence_then_help),
        trial("agent::a_server_that_degrades_on_the_signal_recovers", degrades),
        trial("agent::a_hook_that_hangs_and_a_folder_that_cannot_be_written", bad_actions),
        trial("agent::memory_high_of_its_cgroup", memory_high),
    ]
}

const ALARM: &str = "[[alarm]]\nname = \"many\"\nfigure = \"goroutines\"\nabove = 100\n";

fn evidence_then_help() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("help")?;
    let path = folder.copy(&newest("leakyserver")?)?;
    let touched = folder.path().join("degrade");
    // The hook sees the evidence: it was there before.
    let hook = folder.path().join("hook.sh");
    let seen = folder.path().join("seen");
    fs::write(&hook, format!("#!/bin/sh\nls \"$GOTRACER_EVIDENCE\" > {0}\nenv >> {0}\n", seen.display()))?;
    Command::new("chmod").arg("+x").arg(&hook).status()?;
    let act = format!(
        "{QUICK}{ALARM}act = {{ touch = \"{}\", hook = [\"{}\", \"a b\"] }}\n",
        touched.display(),
        hook.display()
    );
    let mut agent = Agent::start(&folder, &act)?;
    let program = Program::start(&path, &["-load", "200"])?;
    let evidence = folder.path().join("evidence");
    poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
    let done = poll(|| {
        let entry = fs::read_dir(&evidence)?.filter_map(Result::ok).find(|e| e.path().join("actions.json").is_file());
        Ok(entry.map(|entry| entry.path()))
    })?;
    check_evidence(&done)?;
    let actions: serde_json::Value = serde_json::from_slice(&fs::read(done.join("actions.json"))?)?;
    let actions = actions.as_array().context("no actions")?;
    ensure!(actions.len() == 2 && actions.iter().all(|action| action["failed"].is_null()), "{actions:#?}");
    let seen = fs::read_to_string(&seen)?;
    for expected in [
        "goroutines.txt",
        "events.gtr",
        "goroutines.pb.gz",
        "series.jsonl",
        "findings.json",
        "alarm.json",
        "GOTRACER_ALARM=many",
        &format!("GOTRACER_PID={}", program.pid()),
    ] {
        ensure!(seen.contains(expected), "the hook did not see {expected}:\n{seen}");
    }
    let touched: serde_json::Value = serde_json::from_slice(&fs::read(&touched)?)?;
    ensure!(touched["alarm"] == "many" && touched["process"]["pid"] == program.pid(), "{touched}");
    let text = fs::read_to_string(done.join("goroutines.txt"))?;
    ensure!(text.contains("main.query") && text.contains("leakyserver/main.go"), "the dump does not show the leak");
    let line = agent.child().stdout.await_start("{\"unix_ms\"")?;
    ensure!(line.contains("\"notice\":\"alarm\""), "{line}");
    let metrics = agent.metrics()?;
    ensure!(metrics.sum("gotracer_alarms_total", &[("alarm", "many")]) == 1.0, "it fired more than once");
    ensure!(
        metrics.sum("gotracer_alarm_firing", &[("alarm", "many")]) == 1.0
            && metrics.sum("gotracer_agent_evidence_total", &[]) == 1.0
    );
    drop(program);
    agent.stop()
}

/// The example of docs/agent.md: a server that answers from a cache while it is in trouble.
fn degrades() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("degrades")?;
    let path = folder.copy(&newest("degrading")?)?;
    let act = format!("{QUICK}{ALARM}act = {{ signal = \"SIGUSR1\" }}\n");
    let agent = Agent::start(&folder, &act)?;
    let mut program = Program::start(&path, &[])?;
    program.await_line("DEGRADED")?;
    // It leaks no more and lets go of what it held.
    program.await_line("RECOVERED")?;
    let pid = program.pid();
    poll(|| Ok(agent.metrics()?.of(pid, "go_goroutines").filter(|n| *n < 100.0)))?;
    poll(|| Ok(agent.metrics()?.all("gotracer_alarm_firing", &[]).is_empty().then_some(())))?;
    agent.stop()
}

fn bad_actions() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("bad")?;
    let path = folder.copy(&newest("leakyserver")?)?;
    // A file where the folder should be: nothing can be written there, not even by root.
    fs::write(folder.path().join("evidence"), "in the way")?;
    let act = format!(
        "{QUICK}{ALARM}act = {{ hook = [\"/bin/sh\", \"-c\", \"sleep 1000 & wait\"], hook_timeout = \"300ms\", webhook = \"http://127.0.0.1:9/\", touch = \"/nonexistent/x\" }}\n"
    );
    let mut agent = Agent::start(&folder, &act)?;
    let program = Program::start(&path, &["-load", "200"])?;
    let mut said = String::new();
    for _ in 0..5 {
        said += &agent.child().stdout.await_start("{\"unix_ms\"")?;
    }
    for expected in
        ["no_evidence", "touch /nonexistent/x: failed", "killed after 300ms", "webhook http://127.0.0.1:9/: failed"]
    {
        ensure!(said.contains(expected), "{expected} was not said:\n{said}");
    }
    // It goes on.
    agent.await_watched(program.pid())?;
    ensure!(agent.metrics()?.sum("gotracer_agent_errors_total", &[("doing", "acting")]) == 3.0);
    ensure!(agent.get("/healthz")? == b"ok\n");
    agent.stop()
}

/// A cgroup with a limit of 1 GiB for a program to be in; gone when dropped.
struct Cgroup {
    mounted: PathBuf,
    folder: PathBuf,
    is_real: bool,
}

impl Cgroup {
    /// A real one where memory is of version 2; where it is not (then no cgroup of this machine can have a `memory.high`), a folder
    /// that looks like the one that `pid` is in. The machines of `cargo xtask vm` all have a real one.
    fn new(folder: &Folder, pid: u32) -> Result<Self> {
        let mounted = PathBuf::from("/sys/fs/cgroup");
        let controllers = fs::read_to_string(mounted.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            fs::write(mounted.join("cgroup.subtree_control"), "+memory")?;
            let ours = mounted.join(format!("gotracer-test-{pid}"));
            fs::create_dir(&ours)?;
            let cgroup = Self { mounted, folder: ours, is_real: true };
            fs::write(cgroup.folder.join("memory.max"), (1_u64 << 30).to_string())?;
            fs::write(cgroup.folder.join("cgroup.procs"), pid.to_string())?;
            return Ok(cgroup);
        }
        ensure!(!in_a_vm(), "this machine's cgroups have no memory: {controllers}");
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let memory =
            text.lines().find(|line| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "memory")));
        let path = memory.or_else(|| text.lines().find(|line| line.starts_with("0::"))).context("no cgroup")?;
        let path = path.splitn(3, ':').nth(2).context("no path")?;
        let mounted = folder.path().join("cgroups");
        let ours = mounted.join(path.trim_start_matches('/'));
        fs::create_dir_all(&ours)?;
        fs::write(ours.join("memory.max"), format!("{}\n", 1_u64 << 30))?;
        fs::write(ours.join("memory.high"), "max\n")?;
        Ok(Self { mounted, folder: ours, is_real: false })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.is_real {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Nine tenths of what its cgroup may take: the kernel reclaims and throttles before it kills.
fn memory_high() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("memory-high")?;
    let path = folder.copy(&newest("leakyserver")?)?;
    let program = Program::start(&path, &["-load", "200"])?;
    let cgroup = Cgroup::new(&folder, program.pid())?;
    let high = || -> Result<String> { Ok(fs::read_to_string(cgroup.folder.join("memory.high"))?.trim().to_owned()) };
    ensure!(high()? == "max", "memory.high is {} before the alarm", high()?);
    let config = format!(
        "{QUICK}[discovery]\ncgroups = \"{}\"\n{ALARM}act = {{ memory_high = \"90%\" }}\n",
        cgroup.mounted.display()
    );
    let mut agent = Agent::start(&folder, &config)?;
    let said = loop {
        let line = agent.child().stdout.await_start("{\"unix_ms\"")?;
        if line.contains("\"notice\":\"action\"") {
            break line;
        }
    };
    // The kernel keeps whole pages.
    // SAFETY: sysconf reads no memory of ours.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
    let expected = (1_u64 << 30) / 10 * 9 / page;
    let found: u64 = high()?.parse().with_context(|| said.clone())?;
    ensure!(found / page == expected, "{found} bytes: {said}");
    ensure!(said.contains("\"failed\":null"), "{said}");
    drop(program);
    agent.stop()
}

//! Does it find every Go process, in any namespace, as they come and go, and leave alone what it is told to?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use gotracer_tests::text::changed_bytes;
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::finds_what_is_there_and_what_comes", finds),
        trial("agent::two_hundred_processes_that_come_and_go", churn),
        trial("agent::scraped_while_attaching", scraped_while_attaching),
        trial("agent::rules_and_reload", rules_and_reload),
        trial("agent::namespaces", namespaces),
        trial("agent::a_pid_that_is_used_again", pid_reuse),
    ]
}

fn finds() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("finds")?;
    let path = folder.copy(&newest("idle")?)?;
    let before = Program::start(&path, &["-n", "5"])?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(before.pid())?;
    let begin = Instant::now();
    let after = Program::start(&path, &["-n", "7"])?;
    agent.await_watched(after.pid())?;
    let took = begin.elapsed();
    let metrics = agent.metrics()?;
    let of = |pid| metrics.of(pid, "go_goroutines").context("no go_goroutines");
    let (fewer, more) = (of(before.pid())?, of(after.pid())?);
    ensure!(more - fewer == 14.0, "seven ways of waiting, two more in each: {fewer} and {more}");
    ensure!(took < Duration::from_secs(20), "{took:?} from its start to its figures");

    // One file, one set of probes, both processes; and a dump of each.
    ensure!(metrics.all("gotracer_agent_executables", &[])[0].1 == 1.0, "more than one executable has probes");
    let dump = String::from_utf8(agent.get(&format!("/dump?pid={}", after.pid()))?)?;
    ensure!(dump.matches("main.idleReceive").count() >= 7, "the dump has not all that wait:\n{dump}");
    let json = agent.json(&format!("/goroutines?pid={}", before.pid()))?;
    let count = json["goroutines"].as_array().context("no goroutines")?.len();
    ensure!(count as f64 == fewer, "{count} goroutines in JSON, {fewer} in the metrics");
    ensure!(agent.ask("/dump?pid=1", "")?.0 == 404 && agent.ask("/dump?pid=x", "")?.0 == 400);
    ensure!(agent.ask("/dump", "")?.0 == 400 && agent.ask("/nothing", "")?.0 == 404);
    let recording = agent.get(&format!("/flightrecorder?pid={}", after.pid()))?;
    ensure!(recording.len() > 100, "the flight recorder's file has {} bytes", recording.len());
    agent.stop()?;
    poll(|| Ok(changed_bytes(after.pid())?.is_empty().then_some(()))).context("probes are left")?;
    Ok(())
}

/// Two hundred at a time; some live for a second, some for the blink of an eye.
fn churn() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("churn")?;
    let idle = folder.copy(&newest("idle")?)?;
    let mut agent = Agent::start(&folder, QUICK)?;
    let mut programs: Vec<Program> = Vec::new();
    for _ in 0..200 {
        programs.push(Program::start(&idle, &["-n", "1"])?);
    }
    let watched = |agent: &Agent| -> Result<BTreeSet<u32>> {
        let metrics = agent.metrics()?;
        let complete = metrics.all("gotracer_complete", &[]);
        Ok(complete.iter().filter(|(_, v)| *v == 1.0).filter_map(|(l, _)| l.get("pid")?.parse().ok()).collect())
    };
    let expect = |agent: &Agent, programs: &[Program]| {
        let expected: BTreeSet<u32> = programs.iter().map(Program::pid).collect();
        poll(|| Ok((watched(agent)? == expected).then_some(())))
            .with_context(|| format!("{} of {} are watched", watched(agent).map_or(0, |w| w.len()), expected.len()))
    };
    expect(&agent, &programs)?;
    // Fifty go, fifty come, and a thousand that are over at once.
    programs.drain(..50);
    for _ in 0..1000 {
        Command::new(&idle).arg("-no-such-flag").stderr(Stdio::null()).stdout(Stdio::null()).status()?;
    }
    for _ in 0..50 {
        programs.push(Program::start(&idle, &["-n", "1"])?);
    }
    expect(&agent, &programs)?;
    let metrics = agent.metrics()?;
    for program in &programs {
        ensure!(metrics.of(program.pid(), "go_goroutines").is_some_and(|n| n >= 8.0), "{} is not whole", program.pid());
    }
    ensure!(metrics.sum("gotracer_agent_errors_total", &[]) == 0.0, "{}", agent.child().stderr.so_far());
    agent.stop()
}

fn scraped_while_attaching() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("scraped")?;
    let mut paths = Vec::new();
    for name in ["idle", "tally", "pingpong"] {
        paths.push(folder.copy(&newest(name)?)?);
    }
    let agent = Agent::start(&folder, QUICK)?;
    let mut programs = Vec::new();
    for path in &paths {
        programs.push(Program::start(path, &[])?);
    }
    let expected: BTreeSet<u32> = programs.iter().map(Program::pid).collect();
    let mut scrapes = 0;
    poll(|| {
        scrapes += 1;
        let metrics = agent.metrics()?;
        let complete = metrics.all("gotracer_complete", &[]);
        let found = complete.iter().filter(|(_, v)| *v == 1.0).filter_map(|(l, _)| l.get("pid")?.parse().ok());
        Ok((found.collect::<BTreeSet<u32>>() == expected).then_some(()))
    })?;
    ensure!(scrapes > 3, "all was attached before it could be asked for");
    let (status, body) = agent.ask("/metrics", "Accept: application/openmetrics-text\r\n")?;
    ensure!(status == 200 && String::from_utf8(body)?.ends_with("# EOF\n"), "no OpenMetrics");
    agent.stop()
}

fn rules_and_reload() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("rules")?;
    let path = folder.copy(&newest("idle")?)?;
    let one = Program::start(&path, &["-n", "1"])?;
    let two = Program::start(&path, &["-n", "2"])?;
    let verdict = |agent: &Agent, pid: u32| -> Result<String> {
        let all = agent.json("/processes")?;
        let rows = all["processes"].as_array().context("no processes")?.clone();
        let row = rows.into_iter().find(|row| row["pid"] == pid);
        Ok(row.map_or_else(String::new, |row| row["verdict"].as_str().unwrap_or_default().to_owned()))
    };
    let denying = |n: &str| {
        let text = Agent::config(&folder, QUICK);
        text.replace("rule = [", &format!("rule = [{{ action = \"deny\", args = \"-n {n}$\" }}, "))
    };
    let config = folder.path().join("agent.toml");
    let mut agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(one.pid())?;
    agent.await_watched(two.pid())?;
    fs::write(&config, denying("2"))?;
    agent.child().signal(libc::SIGHUP)?;
    poll(|| Ok((verdict(&agent, two.pid())? == "denied").then_some(())))?;
    ensure!(verdict(&agent, one.pid())? == "watched", "the other stays");
    // A wrong file changes nothing.
    fs::write(&config, "[http]\nprot = 1\n")?;
    agent.child().signal(libc::SIGHUP)?;
    let said = agent.child().stderr.await_start("gotracer: error: the configuration")?;
    ensure!(said.contains("is wrong"), "{said}");
    agent.child().stderr.await_start("the configuration stays as it was")?;
    ensure!(verdict(&agent, two.pid())? == "denied" && verdict(&agent, one.pid())? == "watched");
    fs::write(&config, denying("1"))?;
    agent.child().signal(libc::SIGHUP)?;
    agent.await_watched(two.pid())?;
    poll(|| Ok((verdict(&agent, one.pid())? == "denied").then_some(())))?;
    agent.stop()
}

/// A process in mount, PID and network namespaces of its own, its executable under a name that is not there outside.
fn namespaces() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("namespaces")?;
    let path = folder.copy(&newest("idle")?)?;
    let script = format!("mount -t tmpfs none /mnt && cp {} /mnt/hidden && exec /mnt/hidden -n 3", path.display());
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork", "--mount-proc", "sh", "-c", &script]);
    let agent = Agent::start_with(&folder, "", |_| {
        let hidden = "rule = [{ action = \"allow\", exe = \"^/mnt/hidden\" }, ";
        let text = Agent::config(&folder, QUICK).replace("rule = [", hidden);
        // If it is not written, the program is not watched, and the test fails.
        let _ = fs::write(folder.path().join("agent.toml"), text);
    })?;
    let mut program = Program::start_as(&mut unshare)?;
    let pid = poll(|| {
        let rows = agent.json("/processes")?;
        let rows = rows["processes"].as_array().context("no processes")?.clone();
        let row = rows.iter().find(|row| row["exe"] == "/mnt/hidden" && row["verdict"] == "watched");
        Ok(row.and_then(|row| row["pid"].as_u64()))
    })?;
    let pid = u32::try_from(pid)?;
    agent.await_watched(pid)?;
    let metrics = agent.metrics()?;
    let goroutines = metrics.of(pid, "go_goroutines").context("no figures")?;
    ensure!(goroutines >= 21.0, "seven ways of waiting, three in each, and main: {goroutines}");
    let dump = String::from_utf8(agent.get(&format!("/dump?pid={pid}"))?)?;
    ensure!(dump.contains("main.idleSelect"), "{dump}");
    let child = program.child();
    // Its end is the test's: the process in the namespace goes with its stdin.
    child.close_stdin();
    drop(program);
    poll(|| Ok(agent.metrics()?.of(pid, "go_goroutines").is_none().then_some(())))?;
    agent.stop()
}

/// The kernel is made to give a PID again; the agent must take it for another process.
fn pid_reuse() -> Result<()> {
    require_root_and_bpf()?;
    let last = Path::new("/proc/sys/kernel/ns_last_pid");
    if !last.is_file() {
        return Err(Skip("this kernel has no ns_last_pid (CONFIG_CHECKPOINT_RESTORE)".into()).into());
    }
    let folder = Folder::new("reuse")?;
    let path = folder.copy(&newest("idle")?)?;
    let agent = Agent::start(&folder, QUICK)?;
    let first = Program::start(&path, &["-n", "1"])?;
    let pid = first.pid();
    agent.await_watched(pid)?;
    let before = agent.metrics()?.of(pid, "go_goroutines").context("no figures")?;
    drop(first);
    // Others start processes too: until ours is the next.
    let mut second = None;
    for _ in 0..1000 {
        fs::write(last, (pid - 1).to_string())?;
        let program = Program::start(&path, &["-n", "9"])?;
        if program.pid() == pid {
            second = Some(program);
            break;
        }
    }
    let Some(second) = second else { bail!("the kernel never gave PID {pid} again") };
    let goroutines = poll(|| {
        let metrics = agent.metrics()?;
        let complete = metrics.of(pid, "gotracer_complete") == Some(1.0);
        Ok(metrics.of(pid, "go_goroutines").filter(|n| complete && *n != before))
    })?;
    ensure!(goroutines - before == 56.0, "eight more in seven ways: {before}, then {goroutines}");
    drop(second);
    agent.stop()
}

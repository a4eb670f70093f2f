//! The host agent: does it find what runs, say of it what is true, bear what hosts do to it, and help in time?

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::agent::{Agent, Folder, soak};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use gotracer_tests::text::changed_bytes;
use gotracer_tests::tracer::Refusal;
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("agent::figures_are_the_program's::go{version}"), move || figures(version)))
        .collect();
    trials.extend([
        trial("agent::finds_what_is_there_and_what_comes", finds),
        trial("agent::two_hundred_processes_that_come_and_go", churn),
        trial("agent::rules_and_reload", rules_and_reload),
        trial("agent::namespaces", namespaces),
        trial("agent::a_pid_that_is_used_again", pid_reuse),
        trial("agent::killed_at_any_moment", killed),
        trial("agent::scraped_while_attaching", scraped_while_attaching),
        trial("agent::ten_thousand_sites_are_a_bounded_number_of_series", bounded_series),
        trial("agent::evidence_first_then_help", evidence_then_help),
        trial("agent::a_server_that_degrades_on_the_signal_recovers", degrades),
        trial("agent::a_hook_that_hangs_and_a_folder_that_cannot_be_written", bad_actions),
        trial("agent::otlp_reaches_a_collector", otlp),
        trial("agent::budget_is_kept", budget),
        trial("agent::wrong_configurations", wrong_configurations),
        trial("agent::a_token_and_tls_from_elsewhere", elsewhere),
        trial("agent::a_soak_leaves_memory_flat", memory_flat),
        trial("agent::real_servers_beside_ours", real_servers),
        trial("agent::every_query_of_the_dashboard_and_the_alert_in_a_real_prometheus", dashboard),
        trial("agent::alert_rules", alert_rules),
        trial("agent::systemd_unit", systemd_unit),
    ]);
    trials
}

const QUICK: &str = "[metrics]\nsample_interval = \"300ms\"\nsnapshot_interval = \"1s\"\n";

fn newest(name: &str) -> Result<std::path::PathBuf> {
    Program::find(GO_VERSIONS.last().context("no Go versions")?, "plain", name)
}

/// Every figure that the program counts itself.
fn figures(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new(&format!("figures-{version}"))?;
    let path = folder.copy(&Program::find(version, "plain", "tally")?)?;
    let mut program = Program::start(&path, &["-workers", "6", "-rounds", "3"])?;
    let agent = Agent::start(&folder, QUICK)?;
    let pid = program.pid();
    agent.await_watched(pid)?;
    program.send("go")?;
    let tally = program.tally()?;
    let (created, exited) = (tally.created, tally.exited);
    // Events are given out a drain late.
    let metrics = poll(|| {
        let metrics = agent.metrics()?;
        let seen = |name| metrics.of(pid, name).unwrap_or_default();
        let all = seen("gotracer_goroutines_created_total") >= created as f64
            && seen("gotracer_goroutines_exited_total") >= exited as f64;
        Ok(all.then_some(metrics))
    })?;
    let label = pid.to_string();
    for site in &tally.sites {
        let line = site.site.line.to_string();
        let labels = [("pid", label.as_str()), ("site", site.site.function.as_str()), ("line", line.as_str())];
        let (created, exited) =
            (metrics.sum("gotracer_site_created_total", &labels), metrics.sum("gotracer_site_exited_total", &labels));
        ensure!(created == site.created as f64, "{:?}: {created} created, {}", site.site, site.created);
        ensure!(exited == site.exited as f64, "{:?}: {exited} exited, {}", site.site, site.exited);
    }
    let sites: f64 = metrics.sum("gotracer_site_created_total", &[("pid", &label)]);
    ensure!(sites == created as f64, "{sites} created at all sites, and the program says {created}");
    let goroutines = metrics.of(pid, "go_goroutines").context("no go_goroutines")?;
    ensure!(goroutines == (created - exited + 1) as f64, "{goroutines} goroutines, {created} - {exited} + main");
    ensure!(metrics.of(pid, "gotracer_events_lost_around_total") == Some(0.0), "events were lost");
    // What only the runtime knows.
    for name in ["go_threads", "go_memstats_heap_inuse_bytes", "gotracer_goroutine_stack_bytes"] {
        ensure!(metrics.of(pid, name).is_some_and(|value| value > 0.0), "no {name}");
    }
    program.quit_in_peace()?;
    poll(|| Ok(agent.metrics()?.of(pid, "go_goroutines").is_none().then_some(())))?;
    agent.stop()
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

/// `kill -9` at moments that nobody chose: the targets go on, what is left of evidence is whole, the next agent goes on.
fn killed() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("killed")?;
    let path = folder.copy(&newest("pingpong")?)?;
    let mut program = Program::start(&path, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let alarm = "[[alarm]]\nname = \"always\"\nfigure = \"goroutines\"\nabove = 1\nsamples = 1\ncooldown = \"1ms\"\nmax_per_hour = 100000\n";
    let quick = "[metrics]\nsample_interval = \"100ms\"\nsnapshot_interval = \"1s\"\n";
    let evidence = folder.path().join("evidence");
    let mut moment = 7_u64;
    for round in 0..6 {
        let mut agent = Agent::start(&folder, &format!("{quick}{alarm}"))?;
        if round == 0 {
            // Else the test might be over before there is anything to be whole.
            poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
        }
        // A pseudo-random part of a second, the same in each run.
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(moment >> 54));
        agent.child().signal(libc::SIGKILL)?;
        agent.child().await_exit()?;
    }
    poll(|| Ok(changed_bytes(program.pid())?.is_empty().then_some(()))).context("probes are left")?;
    let mut whole = 0;
    for entry in fs::read_dir(&evidence)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            check_evidence(&path)?;
            whole += 1;
        }
    }
    ensure!(whole > 0, "no evidence at all");
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    for entry in fs::read_dir(&evidence)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with(".partial-"), "{name} is left by a killed agent");
    }
    program.send("stop")?;
    let tally = program.tally()?;
    ensure!(tally.iterations > 1_000, "the program hardly went on: {} iterations", tally.iterations);
    program.quit_in_peace()?;
    agent.stop()
}

fn count_folders(evidence: &Path) -> Result<usize> {
    let Ok(entries) = fs::read_dir(evidence) else { return Ok(0) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).count())
}

/// Every file that the manifest lists is there, as long as it says, and what it should be.
fn check_evidence(folder: &Path) -> Result<()> {
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("manifest.json"))?)?;
    let files = manifest["files"].as_array().context("no files in the manifest")?;
    ensure!(files.len() >= 4, "{manifest:#}");
    for file in files {
        let name = file["file"].as_str().context("a file without a name")?;
        let bytes = fs::metadata(folder.join(name)).with_context(|| format!("{name} of {}", folder.display()))?.len();
        ensure!(Some(bytes) == file["bytes"].as_u64(), "{name} has {bytes} bytes: {file}");
    }
    Ok(())
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

fn bounded_series() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("series")?;
    let path = folder.copy(&newest("manysites")?)?;
    let mut program = Program::start(&path, &[])?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    program.send("go")?;
    let tally = program.tally()?;
    let created = tally.created;
    let label = program.pid().to_string();
    let of = [("pid", label.as_str())];
    let metrics = poll(|| {
        let metrics = agent.metrics()?;
        Ok((metrics.sum("gotracer_site_created_total", &of) == created as f64).then_some(metrics))
    })
    .with_context(|| format!("{created} were created"))?;
    let sites = metrics.all("gotracer_site_goroutines", &of).len();
    ensure!(sites <= 31, "{sites} sites have series of their own, and 30 and the rest are allowed");
    ensure!(metrics.len() < 1_000, "{} series", metrics.len());
    program.quit_in_peace()?;
    agent.stop()
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

fn otlp() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("otlp")?;
    let path = folder.copy(&newest("idle")?)?;
    let program = Program::start(&path, &["-n", "2"])?;
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = collector.local_addr()?;
    let more = format!(
        "{QUICK}[otlp]\nendpoint = \"http://{endpoint}\"\ninterval = \"300ms\"\nheaders = {{ x-test = \"yes\" }}\n"
    );
    let agent = Agent::start(&folder, &more)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        ensure!(Instant::now() < deadline, "no figures of the program reach the collector");
        let (mut stream, _) = collector.accept()?;
        let (head, body) = read_request(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        ensure!(head.starts_with("POST /v1/metrics ") && head.to_lowercase().contains("x-test: yes"), "{head}");
        ensure!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
        // Strings stand as they are in protobuf; the unit tests read the messages.
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        if has("go.goroutine.count") && has("main.startIdle") {
            ensure!(has("service.name") && has("process.runtime.version"), "no resource");
            break;
        }
    }
    drop(program);
    agent.stop()
}

fn read_request(stream: &mut impl std::io::Read) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the request ends in its head");
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes)?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.context("no length")?.trim().parse()?;
    let mut rest = vec![0; length - body.len()];
    stream.read_exact(&mut rest)?;
    Ok((head, [body, rest].concat()))
}

/// A program that switches as fast as it can costs too much: states are left out, births stay exact.
fn budget() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("budget")?;
    let path = folder.copy(&newest("pingpong")?)?;
    let mut program = Program::start(&path, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let agent = Agent::start(&folder, QUICK)?;
    let pid = program.pid();
    let label = pid.to_string();
    poll(|| {
        let metrics = agent.metrics()?;
        Ok((metrics.all("gotracer_detail", &[("pid", &label), ("detail", "lifecycle")]).len() == 1).then_some(()))
    })?;
    let events = || -> Result<f64> { agent.metrics()?.of(pid, "gotracer_events_total").context("no events") };
    // Detaching takes its time; then no transition is an event any more.
    let mut before = events()?;
    poll(|| {
        std::thread::sleep(Duration::from_millis(200));
        let now = events()?;
        Ok((std::mem::replace(&mut before, now) == now).then_some(()))
    })?;
    program.send("stop")?;
    let tally = program.tally()?;
    let exited: f64 = tally.exited as f64;
    poll(|| Ok((agent.metrics()?.of(pid, "gotracer_goroutines_exited_total") >= Some(exited)).then_some(())))
        .context("the ends of its goroutines were not seen")?;
    program.quit_in_peace()?;
    agent.stop()
}

fn wrong_configurations() -> Result<()> {
    let folder = Folder::new("wrong")?;
    let refuse = |text: &str| -> Result<String> {
        let path = folder.path().join("wrong.toml");
        fs::write(&path, text)?;
        let refusal = Refusal::of(
            Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--check", "--config"]).arg(&path),
        )?;
        ensure!(refusal.status.code() == Some(1), "{text} was not refused: {refusal:?}");
        Ok(refusal.stderr.join("\n"))
    };
    for (text, expected) in [
        ("[discovery]\nscan = 1\n", "line 2"),
        ("[discovery]\nscan = 1\n", "scan"),
        ("[metrics]\n\nsample_interval = \"soon\"\n", "line 3"),
        ("[http]\nlisten = \"0.0.0.0:80\"\n", "token_file"),
        ("[[alarm]]\nname = \"x\"\nfigure = \"mood\"\nabove = 1\n", "mood"),
        ("not toml", "line 1"),
    ] {
        let said = refuse(text)?;
        ensure!(said.contains(expected), "{expected} is not in\n{said}");
    }
    // What is printed is a configuration, and right.
    let printed = Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--print-config"]).output()?;
    let path = folder.path().join("printed.toml");
    fs::write(&path, printed.stdout)?;
    let status = Command::new(gotracer_tests::environment::gotracer()?)
        .args(["agent", "--check", "--config"])
        .arg(&path)
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "the printed configuration is refused");
    require_root_and_bpf()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let config = Agent::config(&folder, "").replace("127.0.0.1:0", &taken.local_addr()?.to_string());
    fs::write(&path, config)?;
    let refusal =
        Refusal::of(Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--config"]).arg(&path))?;
    let said = refusal.stderr.join("\n");
    ensure!(refusal.status.code() == Some(1) && said.contains("cannot listen on"), "{said}");
    Ok(())
}

fn elsewhere() -> Result<()> {
    require_root_and_bpf()?;
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return Err(Skip("there is no openssl to make a certificate with".into()).into());
    }
    let folder = Folder::new("tls")?;
    let (certificate, key, token) =
        (folder.path().join("c.pem"), folder.path().join("k.pem"), folder.path().join("token"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl made no certificate");
    fs::write(&token, "sesame\n")?;
    let http = format!(
        "listen = \"0.0.0.0:0\"\ntls_certificate = \"{}\"\ntls_key = \"{}\"\ntoken_file = \"{}\"",
        certificate.display(),
        key.display(),
        token.display()
    );
    let config = folder.path().join("agent.toml");
    let agent = Agent::start_with(&folder, "", |_| {
        let _ = fs::write(&config, Agent::config(&folder, "").replace("listen = \"127.0.0.1:0\"", &http));
    })?;
    let port = agent.address().port();
    let ask = |header: &str| -> Result<String> {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdin = openssl.stdin.take().context("no stdin")?;
        write!(stdin, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")?;
        let mut answer = String::new();
        openssl.stdout.take().context("no stdout")?.read_to_string(&mut answer)?;
        openssl.wait()?;
        Ok(answer)
    };
    ensure!(ask("Authorization: Bearer sesame\r\n")?.starts_with("HTTP/1.1 200"), "who has the token is refused");
    ensure!(ask("")?.starts_with("HTTP/1.1 401") && ask("Authorization: Bearer x\r\n")?.starts_with("HTTP/1.1 401"));
    agent.stop()
}

fn memory_flat() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("soak")?;
    let path = folder.copy(&newest("idle")?)?;
    let agent = Agent::start(&folder, QUICK)?;
    let resident =
        |agent: &Agent| -> Result<f64> { Ok(agent.metrics()?.sum("gotracer_agent_resident_memory_bytes", &[])) };
    let round = |agent: &Agent| -> Result<()> {
        let programs: Vec<Program> = (0..10).map(|_| Program::start(&path, &["-n", "20"])).collect::<Result<_>>()?;
        for program in &programs {
            agent.await_watched(program.pid())?;
        }
        Ok(())
    };
    // What is allocated once is allocated.
    for _ in 0..3 {
        round(&agent)?;
    }
    let before = resident(&agent)?;
    let (end, mut rounds) = (Instant::now() + soak(), 0);
    while Instant::now() < end {
        round(&agent)?;
        rounds += 1;
    }
    let after = resident(&agent)?;
    ensure!(after < before * 1.25 + 4e6, "{rounds} rounds of ten processes: {before} bytes became {after}");
    agent.stop()
}

/// Debian's Prometheus, stripped and built with an old Go, beside a program of ours.
fn real_servers() -> Result<()> {
    require_root_and_bpf()?;
    let prometheus = Path::new("/usr/bin/prometheus");
    if !prometheus.is_file() {
        return Err(Skip("there is no /usr/bin/prometheus (Debian's package prometheus)".into()).into());
    }
    let folder = Folder::new("servers")?;
    let server = folder.copy(prometheus)?;
    let ours = folder.copy(&newest("idle")?)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = folder.path().join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        ),
    )?;
    let mut command = Command::new(&server);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let running = gotracer_tests::child::Running::start("prometheus", &mut command)?;
    let program = Program::start(&ours, &["-n", "1"])?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    agent.await_watched(running.pid())?;
    // What it says of itself, as near as two moments can be.
    let address = format!("127.0.0.1:{port}").parse()?;
    let near = poll(|| {
        let text = String::from_utf8(gotracer_tests::agent::ask(address, "/metrics", "")?.1)?;
        let of = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        let metrics = agent.metrics()?;
        let (theirs, threads) = (of("go_goroutines ").context("none")?, of("go_threads ").context("none")?);
        let seen = metrics.of(running.pid(), "go_goroutines").context("none")?;
        let seen_threads = metrics.of(running.pid(), "go_threads").unwrap_or_default();
        Ok(((seen - theirs).abs() <= 3.0 && (seen_threads - threads).abs() <= 3.0).then_some((seen, theirs)))
    });
    near.context("its own go_goroutines and go_threads are others than ours")?;
    agent.stop()
}

fn checkout(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What the dashboard asks is answered by a Prometheus that scrapes an agent beside a program that leaks; and that fires.
fn dashboard() -> Result<()> {
    require_root_and_bpf()?;
    let prometheus = Path::new("/usr/bin/prometheus");
    let (dashboard, alerts) = (checkout("dashboards/goroutines.json"), checkout("dashboards/alerts.yml"));
    if !prometheus.is_file() || !dashboard.is_file() {
        return Err(Skip("there is no /usr/bin/prometheus (Debian's package prometheus), or no checkout".into()).into());
    }
    let folder = Folder::new("dashboard")?;
    let path = folder.copy(&newest("leakyserver")?)?;
    // 150 goroutines a second stay.
    let program = Program::start_as(Command::new(&path).args(["-load", "200"]).env("GOMEMLIMIT", "1GiB"))?;
    // Growth over so short a time as elsewhere is now and then below what the alert wants for 15 s without a break.
    let agent = Agent::start(&folder, "[metrics]\nsample_interval = \"2s\"\nsnapshot_interval = \"1s\"\n")?;
    agent.await_watched(program.pid())?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = folder.path().join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: gotracer\n  static_configs: [{{targets: ['{}']}}]\n",
            alerts.display(),
            agent.address()
        ),
    )?;
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _running = gotracer_tests::child::Running::start("prometheus", &mut command)?;
    let address = format!("127.0.0.1:{port}").parse()?;
    let query = |expression: &str| -> Result<serde_json::Value> {
        let escaped: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
        let (_, body) = gotracer_tests::agent::ask(address, &format!("/api/v1/query?query={escaped}"), "")?;
        // A large answer comes in chunks: from the first { to the last }.
        let text = String::from_utf8_lossy(&body).into_owned();
        let (start, end) = (text.find('{').context("no JSON")?, text.rfind('}').context("no JSON")?);
        let mut whole = String::new();
        for line in text[start..=end].split("\r\n") {
            let is_size = !line.is_empty() && line.len() < 8 && line.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_size {
                whole += line;
            }
        }
        serde_json::from_str(&whole).with_context(|| text.clone())
    };
    // A rate needs some scrapes.
    poll(|| {
        let Ok(answer) = query("count_over_time(go_goroutines[1m]) > 5") else { return Ok(None) };
        Ok((!answer["data"]["result"].as_array().context("no result")?.is_empty()).then_some(()))
    })?;
    // What cannot be there: no memory limit that is neared, no losses, no errors.
    const MAY_BE_EMPTY: [&str; 5] = [
        "gotracer_memory_forecast_seconds",
        "_lost_total",
        "_errors_total",
        "gotracer_alarm_firing",
        "gotracer_findings",
    ];
    let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(dashboard)?)?;
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("no expr")?;
            let expression =
                ["$host", "$process", "$pid", "$site"].iter().fold(expression.to_owned(), |e, v| e.replace(v, ".*"));
            let expression = expression.replace("$__rate_interval", "15s");
            let answer = query(&expression)?;
            ensure!(answer["status"] == "success", "{}: {expression}\n{answer:#}", panel["title"]);
            let empty = answer["data"]["result"].as_array().is_none_or(Vec::is_empty);
            let may = MAY_BE_EMPTY.iter().any(|name| expression.contains(name));
            ensure!(!empty || may, "{}: nothing comes of {expression}", panel["title"]);
            queries += 1;
        }
    }
    ensure!(queries > 20, "{queries} queries");
    // The alert: it waits for 15 s without a break, and a busy machine has breaks.
    gotracer_tests::child::poll_within(Duration::from_secs(180), || {
        let answer = query("ALERTS{alertname=\"GoroutinesGrow\",alertstate=\"firing\"}")?;
        Ok(answer["data"]["result"].as_array().and_then(|all| all.first().cloned()))
    })
    .context("the alert does not fire")?;
    // And the agent's own alarms, with their defaults, have secured the evidence.
    let evidence = folder.path().join("evidence");
    poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
    for entry in fs::read_dir(&evidence)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            check_evidence(&path)?;
        }
    }
    drop(program);
    agent.stop()
}

fn alert_rules() -> Result<()> {
    let folder = checkout("dashboards");
    if !Path::new("/usr/bin/promtool").is_file() || !folder.is_dir() {
        return Err(Skip("there is no /usr/bin/promtool (Debian's package prometheus), or no checkout".into()).into());
    }
    let output =
        Command::new("/usr/bin/promtool").args(["test", "rules", "alerts_test.yml"]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn systemd_unit() -> Result<()> {
    let unit = checkout("packaging/systemd/gotracer-agent.service");
    if !Path::new("/usr/bin/systemd-analyze").is_file() || !unit.is_file() {
        return Err(Skip("there is no systemd-analyze, or no checkout".into()).into());
    }
    let folder = Folder::new("unit")?;
    // Its program is not installed here.
    let text = fs::read_to_string(unit)?.replace("/usr/local/bin/gotracer", "/bin/true");
    let copy = folder.path().join("gotracer-agent.service");
    fs::write(&copy, text)?;
    let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output()?;
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    ensure!(verified.status.success() && !said.contains("gotracer-agent.service"), "{said}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=40", "--no-pager"])
        .arg(&copy)
        .output()?;
    ensure!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
    Ok(())
}

//! Does a dump say what the program says of itself?
//!
//! The oracle is the program's own `debug=2`. Goroutines that serve the request for it are not compared: they are there
//! because we asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::child::{Running, poll};
use gotracer_tests::environment::{Skip, gotracer, in_a_vm};
use gotracer_tests::traceback::{Traced, get, parse};
use gotracer_tests::tracer::Refusal;
use gotracer_tests::{GO_VERSIONS, Program, VARIANTS};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::executables::Folder;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        for &variant in VARIANTS {
            let name = format!("dump::is_what_the_program_says::go{version}-{variant}");
            trials.push(trial(name, move || is_what_the_program_says(version, variant)));
        }
    }
    trials.push(trial("dump::ways_of_waiting", ways_of_waiting));
    trials.push(trial("dump::two_hundred_thousand_goroutines", two_hundred_thousand));
    trials.push(trial("dump::a_busy_server", a_busy_server));
    trials.push(trial("dump::forms_agree", forms_agree));
    trials.push(trial("dump::filters", filters));
    trials.push(trial("dump::of_a_core_file", of_a_core_file));
    trials.push(trial("dump::a_process_that_exits", a_process_that_exits));
    trials.push(trial("dump::wrong_usage", wrong_usage));
    trials.push(trial("dump::prometheus", prometheus));
    trials.push(trial("dump::etcd", etcd));
    trials
}

fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

/// `gotracer dump` with these arguments, which must succeed.
fn dump(args: &[&str]) -> Result<String> {
    let output = Command::new(gotracer()?).arg("dump").args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "gotracer dump {args:?} ended with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn dump_of(pid: u32, args: &[&str]) -> Result<String> {
    dump(&[&["--pid", &pid.to_string()], args].concat())
}

fn json_of(pid: u32, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&dump_of(pid, &[args, &["--json"]].concat())?)?)
}

fn port(program: &Program) -> Result<u64> {
    program.ready()["port"].as_u64().context("no port in READY")
}

/// Without those that serve a request: the one that accepted it, and may not yet have gone back to wait for the next, and
/// those of its connection.
fn quiet(text: &str) -> Result<BTreeMap<u64, Traced>> {
    let mut all = parse(text)?;
    let serving = [
        "net/http.(*Server).Serve(",
        "net/http.(*conn).serve(",
        "created by net/http.(*connReader).startBackgroundRead",
    ];
    all.retain(|_, g| !serving.iter().any(|start| g.has(start)));
    Ok(all)
}

fn own(port: u64) -> Result<BTreeMap<u64, Traced>> {
    quiet(&get(port, "/debug/pprof/goroutine?debug=2")?)
}

fn compare(seen: &BTreeMap<u64, Traced>, told: &BTreeMap<u64, Traced>) -> Result<()> {
    ensure!(!told.is_empty(), "the program says it has no goroutines");
    let mut wrong = Vec::new();
    for goid in seen.keys().filter(|goid| !told.contains_key(goid)) {
        wrong.push(format!("goroutine {goid} is not there: {:?}", seen[goid]));
    }
    for (goid, told) in told {
        match seen.get(goid) {
            Some(seen) if seen == told => {}
            Some(seen) => wrong.push(format!("goroutine {goid}\n  seen {seen:#?}\n  told {told:#?}")),
            None => wrong.push(format!("goroutine {goid} was not seen: {told:?}")),
        }
    }
    let first: Vec<_> = wrong.iter().take(3).cloned().collect();
    ensure!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), told.len(), first.join("\n"));
    Ok(())
}

/// Panics under way, faults, wrappers, inlined calls, generics, deep recursion, locked threads: frame by frame.
fn is_what_the_program_says(version: &str, variant: &str) -> Result<()> {
    let mut command = Command::new(Program::find(version, variant, "stacks")?);
    // Labels are on by default from Go 1.27, but not for a module that says it is older, as these programs' does.
    if variant != "pie" {
        command.env("GODEBUG", "tracebacklabels=1");
    }
    let program = Program::start_as(&mut command)?;
    // What the first request starts is there from now on.
    own(port(&program)?)?;
    let seen = quiet(&dump_of(program.pid(), &[])?)?;
    let told = own(port(&program)?)?;
    ensure!(told.len() >= 43, "only {} goroutines", told.len());
    ensure!(told.values().any(|g| g.has("panic({0x")), "no panic under way");
    compare(&seen, &told)?;
    let minor: u32 = version.split('.').nth(1).unwrap_or_default().parse()?;
    let labelled = |text: &str| seen.values().any(|g| g.state.contains(text) || g.labels == text);
    if variant != "pie" {
        ensure!(minor < 27 || labelled("kind: slow, user: 42"), "no labels in any head");
        ensure!(minor != 26 || labelled(r#"labels:{"kind": "slow", "user": "42"}"#), "no labels in any head");
    }
    ensure!(minor < 25 || labelled("select (durable), synctest bubble 1"), "no bubble in any head");
    ensure!(minor < 25 || labelled("sleep (durable), synctest bubble 1"), "no bubble in any head");
    // Labels are in few tracebacks.
    let json = json_of(program.pid(), &["--function", "main.labelled"])?;
    let labels = &json["goroutines"][0]["labels"];
    ensure!(*labels == serde_json::json!([["kind", "slow"], ["user", "42"]]), "labels {labels}");
    program.quit_in_peace()
}

/// What this machine can give to programs without ado.
fn available_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// As many as there is memory for, where that is less (in a virtual machine).
fn two_hundred_thousand() -> Result<()> {
    // Of each there are a stack, two tracebacks in lines, and the text of both: some 12 KiB.
    // Where processors are emulated, the program takes minutes for its own traceback of more than some thousand.
    let most = if in_a_vm() { 10_000 } else { 200_000 };
    let crowd = (available_bytes()? / (12 << 10)).min(most);
    ensure!(crowd >= 10_000, "no memory for a crowd: room for {crowd} goroutines");
    let program = Program::start(&Program::find(newest()?, "plain", "stacks")?, &["-crowd", &crowd.to_string()])?;
    own(port(&program)?)?;
    let seen = quiet(&dump_of(program.pid(), &[])?)?;
    ensure!(seen.len() as u64 > crowd, "only {} goroutines", seen.len());
    compare(&seen, &own(port(&program)?)?)?;
    program.quit_in_peace()
}

/// One goroutine in each way of waiting, and the figures of the runtime beside them.
fn ways_of_waiting() -> Result<()> {
    let n = "3";
    let mut program = Program::start(&Program::find(newest()?, "plain", "idle")?, &["-n", n])?;
    own(port(&program)?)?;
    let seen = quiet(&dump_of(program.pid(), &[])?)?;
    compare(&seen, &own(port(&program)?)?)?;
    let expected = 7 * n.parse::<usize>()?;
    let idle = seen.values().filter(|g| g.has("main.enterAndWait(")).count();
    ensure!(idle == expected, "{idle} of {expected} idle goroutines");

    let json = json_of(program.pid(), &["--limit", "1"])?;
    // Receivers and selects share one channel; each sender and each select has one of its own.
    let channels = json["runtime"]["blocked_channels"].as_u64().context("no channels")?;
    ensure!(channels == 1 + 2 * (expected as u64 / 7), "{channels} channels");
    let timers = json["runtime"]["timers"].as_u64().context("no timers")?;
    ensure!(timers >= expected as u64 / 7, "{timers} timers");
    program.send("go")?;
    program.tally()?;
    program.quit_in_peace()
}

/// Goroutines come and go by the thousand a second while it is dumped again and again.
fn a_busy_server() -> Result<()> {
    let mut program = Program::start(&Program::find(newest()?, "plain", "httpload")?, &[])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let until = Instant::now() + Duration::from_secs(3);
    let (mut dumps, mut whole, mut other) = (0, 0, 0);
    while Instant::now() < until {
        let json = json_of(program.pid(), &["--all"])?;
        ensure!(json["incomplete"].is_null(), "incomplete: {}", json["incomplete"]);
        let goroutines = json["goroutines"].as_array().context("no goroutines")?;
        // Main, eight that ask with two of their connection's each, eight that serve, the one that accepts.
        ensure!(goroutines.len() > 20, "only {} goroutines", goroutines.len());
        for g in goroutines {
            let (state, end) = (g["state"].as_str().unwrap_or_default(), g["stack_end"].as_str());
            match end {
                Some("top" | "zero" | "switches_stack") => whole += 1,
                None if state == "running" || g["moved"] == true => other += 1,
                _ => bail!("a stack that ends nowhere: {g}"),
            }
        }
        dumps += 1;
    }
    ensure!(dumps > 3 && whole > 20 * other, "{dumps} dumps, {whole} stacks whole, {other} goroutines without");
    program.send("stop")?;
    let tally = program.tally()?;
    ensure!(tally.requests > 100, "only {} requests", tally.requests);
    program.quit_in_peace()
}

fn forms_agree() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "idle")?, &["-n", "20"])?;
    let (pid, total) = (program.pid(), parse(&dump_of(program.pid(), &[])?)?.len());
    let group = dump_of(pid, &["--group"])?;
    ensure!(group.starts_with(&format!("goroutine profile: total {total}\n")), "{group}");
    let counts: Vec<usize> = group.lines().filter_map(|line| line.split_once(" @ 0x")?.0.parse().ok()).collect();
    ensure!(counts.iter().sum::<usize>() == total && counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    let folded = dump_of(pid, &["--folded"])?;
    let folded: Option<usize> =
        folded.lines().map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum::<Option<usize>>();
    ensure!(folded == Some(total), "{folded:?} of {total} folded");
    let sites = dump_of(pid, &["--sites"])?;
    ensure!(sites.contains("main.startIdle"), "{sites}");
    let folder = Folder::new("dump")?;
    let file = folder.path("goroutines.pb.gz");
    dump_of(pid, &["--pprof", &file.to_string_lossy()])?;
    ensure!(std::fs::read(&file)?.starts_with(&[0x1f, 0x8b]), "no gzip");
    if let Ok(go) = gotracer_tests::environment::go() {
        let top = Command::new(go).args(["tool", "pprof", "-top"]).arg(&file).output()?;
        let top = String::from_utf8(top.stdout)?;
        ensure!(top.contains(&format!("of {total} total")) && top.contains("main.enterAndWait"), "{top}");
    }
    let stacks = program.ready()["port"].as_u64();
    ensure!(stacks.is_some());
    program.quit()?;
    Ok(())
}

fn filters() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "idle")?, &["-n", "5"])?;
    let count = |args: &[&str]| -> Result<usize> { Ok(parse(&dump_of(program.pid(), args)?)?.len()) };
    ensure!(count(&["--reason", "chan receive"])? == 5);
    ensure!(count(&["--reason", "chan send,select"])? == 10);
    ensure!(count(&["--function", r"main\.idleGroup$"])? == 5);
    ensure!(count(&["--function", r"main\.startIdle"])? == 35);
    ensure!(count(&["--function", "main.startIdle", "--limit", "3"])? == 3);
    ensure!(count(&["--state", "syscall", "--goid", "1"])? == 1);
    ensure!(count(&["--older-than", "1h"])? == 0);
    let own = count(&[])?;
    ensure!(count(&["--all"])? > own + 3, "the runtime's own are not there");
    program.quit()?;
    Ok(())
}

/// A program that dies of a signal leaves what `gotracer dump` showed while it lived.
fn of_a_core_file() -> Result<()> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if pattern.trim() != "core" {
        return Err(Skip(format!("core files go elsewhere: core_pattern is {}", pattern.trim())).into());
    }
    for variant in ["plain", "pie"] {
        let folder = Folder::new("core")?;
        let path = Program::find(newest()?, variant, "stacks")?;
        let mut command = Command::new("sh");
        // SIGSEGV from outside is a fault of the program: with GOTRACEBACK=crash it ends in SIGABRT, and dumps core.
        command.args(["-c", "ulimit -c unlimited; exec \"$0\""]).arg(&path).env("GOTRACEBACK", "crash");
        let mut program = Program::start_as(command.current_dir(folder.path("")))?;
        let living = parse(&dump_of(program.pid(), &[])?)?;
        program.child().signal(libc::SIGABRT)?;
        program.child().await_exit()?;
        let core = std::fs::read_dir(folder.path(""))?.flatten().map(|entry| entry.path()).next();
        let Some(core) = core else { return Err(Skip("the kernel wrote no core file".into()).into()) };
        let dead = dump(&["--core", &core.to_string_lossy(), "--exe", &path.to_string_lossy()])?;
        let dead = parse(&dead)?;
        ensure!(living.keys().eq(dead.keys()), "{:?} lived, {:?} are dead", living.keys(), dead.keys());
        // Those that handled the signal have moved on; what waited on channels waits for ever.
        for (goid, g) in living.iter().filter(|(_, g)| g.state.starts_with("chan ") || g.state.starts_with("select")) {
            ensure!(dead[goid].lines == g.lines, "goroutine {goid}: {g:#?} then {:#?}", dead[goid]);
        }
    }
    Ok(())
}

/// Nothing hangs and nothing is made up when the process goes while it is read.
fn a_process_that_exits() -> Result<()> {
    let path = Program::find(newest()?, "plain", "stacks")?;
    for delay in [0, 1, 2, 5, 10, 20, 40] {
        // A program that looks for so many by its own traceback would take minutes for it where processors are emulated.
        let mut program = Program::start(&path, &["-crowd", "20000"])?;
        let pid = program.pid().to_string();
        let mut dump = Command::new(gotracer()?);
        let dump = Running::start("gotracer", dump.args(["dump", "--pid", &pid]))?;
        let until = Instant::now() + Duration::from_millis(delay);
        poll(|| Ok((Instant::now() >= until).then_some(())))?;
        program.child().signal(libc::SIGKILL)?;
        program.child().await_exit()?;
        let ended = Refusal::end(dump)?;
        match ended.status.code() {
            // It was read before.
            Some(0) => ensure!(ended.stderr.is_empty(), "{ended:?}"),
            Some(1) => ensure!(
                ended.stderr.iter().any(|line| line.contains("exited") || line.contains("no process")),
                "{:?}",
                ended.stderr
            ),
            other => bail!("ended with {other:?}: {:?}", ended.stderr),
        }
    }
    Ok(())
}

fn wrong_usage() -> Result<()> {
    let ended = |args: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(gotracer()?).arg("dump").args(args).output()?;
        ensure!(output.stdout.is_empty(), "printed on stdout: {}", String::from_utf8_lossy(&output.stdout));
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    for args in
        [&[][..], &["--pid", "1", "--core", "x", "--exe", "y"], &["--core", "x"], &["--pid", "1", "--function", "("]]
    {
        let (code, said) = ended(args)?;
        ensure!(code == Some(2), "{args:?} ended with {code:?}: {said}");
    }
    let us = std::env::current_exe()?;
    let us = us.to_string_lossy();
    for (args, word) in [
        (&["--pid", "8388608"][..], "no process"),
        (&["--core", "/nonexistent", "--exe", "/bin/true"], "Go"),
        (&["--pid", &std::process::id().to_string()], "Go"),
        (&["--core", &us, "--exe", &us], "Go"),
    ] {
        let (code, said) = ended(args)?;
        ensure!(code == Some(1) && said.contains(word) && !said.contains("panicked"), "{args:?}: {code:?} {said}");
    }
    Ok(())
}

/// A server that nobody here wrote, quiet: the dump and its own words are equal.
fn server(name: &str, command: &mut Command, port: u64) -> Result<()> {
    if !Path::new(name).is_file() {
        return Err(Skip(format!("{name} is not installed")).into());
    }
    let server = Running::start(name, command)?;
    poll(|| Ok(own(port).ok()))?;
    // It has timers of its own; among many looks most find it at rest, and one at rest must be equal.
    let (mut equal, mut last) = (0, Ok(()));
    for _ in 0..20 {
        let seen = quiet(&dump_of(server.pid(), &[])?)?;
        last = compare(&seen, &own(port)?);
        equal += usize::from(last.is_ok());
    }
    ensure!(equal >= 10, "only {equal} of 20 dumps are what the server says; the last: {last:?}");
    Ok(())
}

fn prometheus() -> Result<()> {
    let folder = Folder::new("prometheus")?;
    std::fs::write(folder.path("p.yml"), "global: {scrape_interval: 1h}\nscrape_configs: []\n")?;
    let mut command = Command::new("/usr/bin/prometheus");
    command.arg("--config.file").arg(folder.path("p.yml")).arg("--storage.tsdb.path").arg(folder.path("data"));
    server("/usr/bin/prometheus", command.arg("--web.listen-address=127.0.0.1:39090"), 39090)
}

fn etcd() -> Result<()> {
    let folder = Folder::new("etcd")?;
    let (clients, peers) = ("http://127.0.0.1:32379", "http://127.0.0.1:32380");
    let mut command = Command::new("/usr/bin/etcd");
    command.arg("--enable-pprof").arg("--data-dir").arg(folder.path("data"));
    command.args(["--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
    server("/usr/bin/etcd", command.args(["--initial-cluster", &format!("default={peers}")]), 32379)
}

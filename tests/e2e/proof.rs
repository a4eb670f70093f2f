//! Is what is said to be leaked leaked, and is all of it found?
//!
//! The program `reach` knows which of its goroutines nothing can reach; from Go 1.26 on the runtime's own profile is a second
//! oracle. `proof::agreement` is the table of docs/proof.md: by goid, in every Go version, however the program is linked.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::{gotracer, require_root_and_bpf};
use gotracer_tests::servers::{self, Server};
use gotracer_tests::{GO_VERSIONS, Program, VARIANTS};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

/// Reachable to us and not to Go's collector, for a reason that docs/proof.md gives.
const MORE_CAREFUL: [&str; 3] = ["weak pointer", "C memory", "C stack"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        for &variant in VARIANTS {
            let name = format!("proof::agreement::go{version}-{variant}");
            trials.push(trial(name, move || agreement(version, variant)));
        }
    }
    for &version in GO_VERSIONS {
        trials.push(trial(format!("proof::marks::go{version}"), move || marks(version)));
    }
    trials.push(trial("proof::a_list", a_list));
    for &version in [GO_VERSIONS.first(), GO_VERSIONS.last()].into_iter().flatten() {
        for place in ["slots", "tree", "channels", "stacks", "register"] {
            let name = format!("proof::elusive::go{version}-{place}");
            trials.push(trial(name, move || elusive(version, place)));
        }
    }
    trials.push(trial("proof::with_the_collector_on", with_the_collector_on));
    trials.push(trial("proof::dump_marks_the_leaked", dump_marks_the_leaked));
    trials.push(trial("proof::exit_codes", exit_codes));
    trials.push(trial("proof::an_interrupt_reports_at_once", an_interrupt_reports_at_once));
    trials.push(trial("proof::the_seed_is_told", the_seed_is_told));
    trials.push(trial("proof::leaks_proves_by_itself", leaks_proves_by_itself));
    trials.push(trial("proof::top_tells_the_leaked", top_tells_the_leaked));
    trials.push(trial("proof::servers::own", || {
        let mut program = Program::start(&Program::find(newest()?, "plain", "httpload")?, &[])?;
        program.send("go")?;
        program.await_line("RUNNING")?;
        leaks_nothing(program.pid())
    }));
    for &server in servers::NAMES {
        trials.push(trial(format!("proof::servers::{server}"), move || {
            let server = Server::start(server)?;
            let load = server.load();
            let done = leaks_nothing(server.pid());
            let answers = load.end();
            done?;
            ensure!(answers > 100, "only {answers} requests were answered: this was no load");
            Ok(())
        }));
    }
    trials
}

fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

fn prove(pid: u32, args: &[&str]) -> Result<Output> {
    Ok(Command::new(gotracer()?).args(["prove", "--pid", &pid.to_string()]).args(args).output()?)
}

fn prove_json(pid: u32, args: &[&str]) -> Result<Value> {
    let output = prove(pid, &[args, &["--json"]].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// goid -> verdict.
fn verdicts(report: &Value) -> Result<BTreeMap<u64, String>> {
    let goroutines = report["goroutines"].as_array().context("no goroutines")?;
    let one = |g: &Value| Some((g["goid"].as_u64()?, g["verdict"].as_str()?.to_owned()));
    goroutines.iter().map(|g| one(g).context("no goid or verdict")).collect()
}

/// goid -> kind, of what the program says of itself.
fn told(program: &Program, which: &str) -> Result<BTreeMap<u64, String>> {
    let kinds = program.ready()[which].as_object().context("not in READY")?;
    let each = kinds.iter().flat_map(|(kind, goids)| {
        goids.as_array().into_iter().flatten().filter_map(|goid| Some((goid.as_u64()?, kind.clone())))
    });
    Ok(each.collect())
}

fn agreement(version: &str, variant: &str) -> Result<()> {
    let mut program = Program::start(&Program::find(version, variant, "reach")?, &[])?;
    let (leaked, live) = (told(&program, "leaked")?, told(&program, "live")?);
    ensure!(leaked.len() >= 99 && live.len() >= 150, "{} leaked, {} live", leaked.len(), live.len());
    let seen = verdicts(&prove_json(program.pid(), &[])?)?;
    let wrong: BTreeSet<&str> = seen.keys().filter_map(|goid| live.get(goid)).map(String::as_str).collect();
    ensure!(wrong.is_empty(), "said to be unreachable and are not: {wrong:?}");
    let expected: BTreeMap<u64, String> = leaked.keys().map(|goid| (*goid, "leaked".to_owned())).collect();
    let missed: BTreeSet<&String> =
        expected.keys().filter(|goid| !seen.contains_key(goid)).filter_map(|goid| leaked.get(goid)).collect();
    ensure!(missed.is_empty(), "not found: {missed:?}");
    ensure!(seen == expected, "verdicts {seen:?} and not {expected:?}");
    runtime_agrees(&mut program, version, &seen, &leaked, &live)?;
    program.quit_in_peace()
}

/// The runtime's own profile, taken afterwards in the same process, names the same goroutines; but for those that we are more
/// careful with.
fn runtime_agrees(
    program: &mut Program,
    version: &str,
    seen: &BTreeMap<u64, String>,
    leaked: &BTreeMap<u64, String>,
    live: &BTreeMap<u64, String>,
) -> Result<()> {
    program.send("profile")?;
    let profile: Option<BTreeSet<u64>> = serde_json::from_str(program.await_line("PROFILE ")?.trim())?;
    let Some(profile) = profile else {
        ensure!(!version.starts_with("1.26") && !version.starts_with("1.27"), "Go {version} has no profile of leaks");
        return Ok(());
    };
    let kind = |goid: &u64| leaked.get(goid).or_else(|| live.get(goid)).map_or("unknown", String::as_str);
    let only_ours: BTreeSet<&str> = seen.keys().filter(|goid| !profile.contains(goid)).map(kind).collect();
    let only_theirs: BTreeSet<&str> = profile.iter().filter(|goid| !seen.contains_key(goid)).map(kind).collect();
    ensure!(only_ours.is_empty(), "only ours: {only_ours:?}");
    let unexplained: Vec<_> = only_theirs.iter().filter(|kind| !MORE_CAREFUL.contains(kind)).collect();
    ensure!(unexplained.is_empty(), "only the runtime's: {unexplained:?}");
    Ok(())
}

/// What is marked, the leaked goroutines' part included, is what the collector has left: in bytes, after whole collections and with
/// none to come.
fn marks(version: &str) -> Result<()> {
    let program = Program::find(version, "plain", "heap")?;
    let mut program = Program::start(&program, &["-mib", "8", "-waiting", "500", "-leaked", "500"])?;
    program.send("still")?;
    let left: i64 = program.await_line("STILL ")?.trim().parse()?;
    let report = prove_json(program.pid(), &["--passes", "1"])?;
    ensure!(report["last_pass"]["unreachable"] == 500, "{}", report["last_pass"]);
    let bytes = |of: &Value| of.as_i64().context("no bytes");
    let mut marked = bytes(&report["last_pass"]["reached_bytes"])?;
    for site in report["sites"].as_array().into_iter().flatten() {
        marked += bytes(&site["retained_estimate"]["heap_bytes"])?;
    }
    // Up to Go 1.21 any word of an object may be a pointer to us, and is not to the collector: a few more objects are marked.
    let conservative = version.starts_with("1.19") || version.starts_with("1.21");
    let more = if conservative { 0..4096 } else { 0..1 };
    ensure!(more.contains(&(marked - left)), "marked {marked} bytes, the collector has left {left}");
    program.quit_in_peace()
}

/// A list of a million links is followed to its end, wherever they lie. In order it takes no sweep for each of them, which would
/// read a link and its span's pointer bits each: three times the heap. (It is too large a heap for a pass to look at it again.)
fn a_list() -> Result<()> {
    for order in [Some("-ordered"), None] {
        let mut command = Command::new(Program::find(newest()?, "plain", "heap")?);
        command.args(["-list", "-mib", "80", "-waiting", "500", "-leaked", "500"]).args(order);
        let program = Program::start_as(&mut command)?;
        let report = prove_json(program.pid(), &["--passes", "1"])?;
        let pass = &report["last_pass"];
        ensure!(pass["unreachable"] == 500, "{pass}");
        let number = |name: &str| pass[name].as_f64().with_context(|| format!("no {name} in {pass}"));
        ensure!(number("reached_objects")? >= f64::from(80 << 20 >> 6), "{pass}");
        let times = number("read_bytes")? / number("heap_bytes")?;
        ensure!(order.is_none() || times < 1.5, "the heap was read {times:.1} times: {pass}");
        program.quit_in_peace()?;
    }
    Ok(())
}

/// A reference that is never long in one place is not proven to be none, however often it is missed.
fn elusive(version: &str, place: &str) -> Result<()> {
    let path = Program::find(version, "plain", "elusive")?;
    let mut command = Command::new(path);
    command.args(["-where", place]);
    if place == "register" {
        command.env("GODEBUG", "asyncpreemptoff=1");
    }
    let program = Program::start_as(&mut command)?;
    let seen = verdicts(&prove_json(program.pid(), &["--passes", "8", "--every", "300ms"])?)?;
    let proven: Vec<_> =
        seen.iter().filter(|(_, verdict)| ["leaked", "confirmed"].contains(&verdict.as_str())).collect();
    ensure!(proven.is_empty(), "said to be leaked: {proven:?}");
    Ok(())
}

/// Lets `reach` end: it takes its profile first.
fn end(mut program: Program) -> Result<()> {
    program.send("profile")?;
    program.await_line("PROFILE ")?;
    program.quit_in_peace()
}

/// The collector frees, sweeps and shrinks stacks while it is looked at; nothing live is lost for it.
fn with_the_collector_on() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &["-gc"])?;
    let (leaked, live) = (told(&program, "leaked")?, told(&program, "live")?);
    let seen = verdicts(&prove_json(program.pid(), &[])?)?;
    // What the collector itself ends: finalizers and cleanups run, pools are emptied.
    let finalized = |goid: &u64| {
        live.get(goid).is_some_and(|kind| kind.contains("finalizer") || kind == "cleanup" || kind == "sync.Pool")
    };
    let wrong: Vec<_> = seen.keys().filter(|goid| !finalized(goid)).filter_map(|goid| live.get(goid)).collect();
    ensure!(wrong.is_empty(), "said to be unreachable and are not: {wrong:?}");
    let missed: Vec<_> = leaked.iter().filter(|(goid, _)| !seen.contains_key(goid)).map(|(_, kind)| kind).collect();
    ensure!(missed.is_empty(), "not found: {missed:?}");
    end(program)
}

fn dump_marks_the_leaked() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    let leaked = told(&program, "leaked")?;
    let args = ["dump", "--pid", &program.pid().to_string(), "--prove", "--no-args"];
    let output = Command::new(gotracer()?).args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let marked = text.lines().filter(|line| line.starts_with("goroutine ") && line.contains(" (leaked)"));
    let goids: BTreeSet<u64> = marked.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    ensure!(goids == leaked.keys().copied().collect(), "marked {goids:?}");
    end(program)
}

fn exit_codes() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    // One pass proves nothing.
    let suspects = prove(program.pid(), &["--fail", "--passes", "1"])?;
    ensure!(suspects.status.code() == Some(1), "one pass: {}", suspects.status);
    ensure!(String::from_utf8_lossy(&suspects.stdout).contains("suspected"), "no suspects");
    let leaked = prove(program.pid(), &["--fail"])?;
    ensure!(leaked.status.code() == Some(3), "leaks: {}", leaked.status);
    ensure!(
        String::from_utf8_lossy(&leaked.stdout).contains(" has leaked 3 goroutines that hold about "),
        "no such line"
    );
    let late = prove(program.pid(), &["--deadline", "0s"])?;
    ensure!(late.status.code() == Some(1), "no time: {}", late.status);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    ensure!(said.contains("a pass did not end in time"), "{said}");
    end(program)
}

/// Passes that would go on for hours end at once, and what the first found is told.
fn an_interrupt_reports_at_once() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    let leaked = told(&program, "leaked")?.len();
    let mut command = Command::new(gotracer()?);
    command.args(["prove", "--pid", &program.pid().to_string(), "--passes", "1000", "--every", "1h", "--limit", "2"]);
    let mut gotracer = Running::start("gotracer prove", &mut command)?;
    gotracer.stderr.await_start(&format!("pass 1 of 1000: {leaked} of "))?;
    gotracer.signal(libc::SIGINT)?;
    let status = gotracer.await_exit()?;
    let said = gotracer.stdout.to_end()?;
    ensure!(status.success(), "{status}: {said:?}");
    ensure!(said.iter().any(|line| line.ends_with(&format!("; {leaked} suspected"))), "{said:?}");
    let sites = said.iter().filter(|line| line.contains(" suspected, together they hold ")).count();
    ensure!(sites == 2 && said.iter().any(|line| line.ends_with("; --limit shows more")), "{sites} sites: {said:?}");
    end(program)
}

fn the_seed_is_told() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    let given = prove_json(program.pid(), &["--passes", "1", "--seed", "77"])?;
    ensure!(given["seed"] == 77, "{}", given["seed"]);
    let any = prove_json(program.pid(), &["--passes", "1"])?;
    ensure!(any["seed"].as_u64().is_some_and(|seed| seed != 77), "{}", any["seed"]);
    ensure!(verdicts(&given)?.keys().eq(verdicts(&any)?.keys()), "the order decides what is found");
    end(program)
}

/// Where a pass is quick nobody has to ask for it, and --no-prove leaves it out.
fn leaks_proves_by_itself() -> Result<()> {
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    let leaked: BTreeMap<u64, String> =
        told(&program, "leaked")?.into_keys().map(|goid| (goid, "leaked".to_owned())).collect();
    let leaks = |more: &[&str]| -> Result<(Value, String)> {
        let pid = program.pid().to_string();
        let args = ["leaks", "--pid", &pid, "--for", "1s", "--no-probes", "--json"];
        let output = Command::new(gotracer()?).args(args).args(more).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok((serde_json::from_slice(&output.stdout)?, said))
    };
    let (report, said) = leaks(&[])?;
    ensure!(report["proof"].is_object(), "no proof: {said}");
    ensure!(verdicts(&report["proof"])? == leaked, "{}", report["proof"]["goroutines"]);
    let (report, said) = leaks(&["--no-prove"])?;
    ensure!(report["proof"].is_null() && !said.contains("pass 1"), "{said}");
    end(program)
}

/// The picture has every leaked goroutine, by its `go` statement and in all.
fn top_tells_the_leaked() -> Result<()> {
    require_root_and_bpf()?;
    let program = Program::start(&Program::find(newest()?, "plain", "reach")?, &[])?;
    let leaked = told(&program, "leaked")?.len() as u64;
    let mut command = Command::new(gotracer()?);
    // Four passes with a second between them, and as much again for a machine that is busy.
    command.args(["top", "--pid", &program.pid().to_string(), "--once", "--json", "--for", "10s"]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(picture["proof"]["passes"].as_u64() >= Some(3), "{}", picture["proof"]);
    ensure!(picture["proof"]["leaked"] == leaked, "{} and not {leaked}", picture["proof"]);
    let rows = picture["rows"].as_array().context("no rows")?;
    let by_site: u64 = rows.iter().filter_map(|row| row["leaked"].as_u64()).sum();
    ensure!(by_site == leaked, "{by_site} by go statement and not {leaked}");
    end(program)
}

/// HTTP, timers, pools, contexts, connections that come and go: nothing of it is leaked, after no pass. GOTRACER_TEST_PASSES says
/// how many there are.
fn leaks_nothing(pid: u32) -> Result<()> {
    let passes: usize = match std::env::var("GOTRACER_TEST_PASSES") {
        Ok(passes) => passes.parse().context("GOTRACER_TEST_PASSES is no number")?,
        Err(_) => 20,
    };
    let output = prove(pid, &["--passes", &passes.to_string(), "--every", "100ms", "--json"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let each: Vec<&str> = said.lines().filter(|line| line.starts_with("pass ")).collect();
    ensure!(each.len() == passes, "{} passes and not {passes}: {said}", each.len());
    let wrong: Vec<&&str> = each.iter().filter(|line| !line.contains(" unreachable, 0 of them leaked ")).collect();
    ensure!(wrong.is_empty(), "{wrong:?}: {}", String::from_utf8_lossy(&output.stdout));
    let suspected = each.iter().filter(|line| !line.contains(": 0 of ")).count();
    if passes > 20 {
        eprintln!("process {pid}: {passes} passes, {suspected} of them with suspects, none leaked");
    }
    Ok(())
}

//! Does `gotracer leaks` name what leaks, kind and line, and nothing else?
//!
//! tests/programs/leaks leaks in one way at a time and says at which `go` statement; its twin does the same as it should be
//! done. All of them run side by side, each observed by a gotracer of its own.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::{gotracer, in_a_vm, require_root_and_bpf};
use gotracer_tests::servers::{self, Server};
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

/// What each way to leak must be called.
const LEAKS: [(&str, &str); 21] = [
    ("send", "channel"),
    ("receive", "channel"),
    ("select", "channel"),
    ("nil", "channel"),
    ("accumulated", "channel"),
    ("sleep", "context"),
    ("io", "context"),
    ("done", "context"),
    ("shared", "context"),
    ("group", "wait_group"),
    ("leftgroup", "wait_group"),
    ("ticker", "timer"),
    ("deferred", "deferred_closure"),
    ("mutex", "mutex"),
    ("held", "mutex"),
    ("cond", "cond"),
    ("syscall", "syscall"),
    (IN_C, "syscall"),
    ("busy", "busy"),
    ("storm", "storm"),
    ("finalizer", "finalizer"),
];
/// Only programs with C in them do this.
const IN_C: &str = "cgo";
/// What has no leaking form.
const HEALTHY: [&str; 5] = ["pool", "keepalive", "errgroup", "singleflight", "hub"];
/// Programs that are observed at once where probes are attached: the kernel detaches one after the other.
const AT_ONCE: usize = 15;
/// One of each family: as many as an emulated machine has time for, of which it observes three at once.
const IN_A_VM: [&str; 5] = ["send", "done", "group", "ticker", "mutex"];
const AT_ONCE_IN_A_VM: usize = 3;
/// How long a case is observed. An emulated machine gets as many looks at the goroutines from three times the time.
const OBSERVED: &str = "10s";
const OBSERVED_IN_A_VM: &str = "30s";

pub(crate) fn trials() -> Vec<Trial> {
    let each = |&version: &&'static str| trial(format!("leaks::patterns::go{version}"), move || patterns(version));
    let mut trials: Vec<Trial> = GO_VERSIONS.iter().map(each).collect();
    trials.push(trial("leaks::slow_under_noise", slow_under_noise));
    trials.push(trial("leaks::exit_codes", exit_codes));
    for &server in servers::NAMES {
        trials.push(trial(format!("leaks::servers::{server}"), move || server_without_findings(server)));
    }
    trials
}

fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

/// One program and who observes it.
struct Case {
    kind: String,
    /// The kind that must be found; `None`: nothing may be.
    expected: Option<&'static str>,
    program: Program,
    observer: Running,
}

impl Case {
    fn start(version: &str, kind: &str, expected: Option<&'static str>, more: &[&str]) -> Result<Self> {
        let mut arguments = vec!["-kind", kind];
        if expected.is_none() {
            arguments.push("-twin");
        }
        let variant = if kind == IN_C { "cgo" } else { "plain" };
        let program = Program::start(&Program::find(version, variant, "leaks")?, &arguments)?;
        let mut command = Command::new(gotracer()?);
        let observed = if in_a_vm() { OBSERVED_IN_A_VM } else { OBSERVED };
        command
            .args(["leaks", "--json", "--pid", &program.pid().to_string(), "--for", observed, "--interval", "500ms"])
            .args(more);
        if kind == "storm" {
            command.args(["--storm-period", "2s"]);
        }
        let observer = Running::start("gotracer leaks", &mut command)?;
        Ok(Self { kind: kind.to_owned(), expected, program, observer })
    }

    /// What is wrong with what was found, if something is.
    fn judge(mut self) -> Result<Option<String>> {
        let report = report(&mut self.observer)?;
        let found = findings(&report);
        let site = self.program.ready().clone();
        self.program.quit_in_peace()?;
        let form = if self.expected.is_none() { " (twin)" } else { "" };
        let wrong = |why: &str| Ok(Some(format!("{}{form}: {why}; found {found:?}", self.kind)));
        let Some(expected) = self.expected else {
            return if found.is_empty() { Ok(None) } else { wrong("nothing was to be found") };
        };
        let [finding] = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return wrong("one finding was expected");
        };
        if finding["kind"] != expected {
            return wrong(&format!("its kind is {expected}"));
        }
        if expected == "finalizer" {
            // Its `go` statement is the runtime's; the stack names the finalizer.
            let stack = finding["stack"].to_string();
            return if stack.contains("main.awaitForEver") { Ok(None) } else { wrong("the finalizer is not named") };
        }
        let place = |v: &Value| (v["function"].clone(), v["file"].clone(), v["line"].clone());
        if place(&finding["site"]) != place(&site) {
            return wrong(&format!("its go statement is {site}"));
        }
        let evidence = finding["evidence"].to_string();
        let call = if self.kind == IN_C { "in a call of C" } else { "in a system call" };
        if expected == "syscall" && !evidence.contains(call) {
            return wrong(&format!("it is not told that they stay {call}: {evidence}"));
        }
        Ok(None)
    }
}

/// The object that a `leaks --json` prints.
fn report(observer: &mut Running) -> Result<Value> {
    let lines = observer.stdout.to_end()?;
    let status = observer.await_exit()?;
    ensure!(status.success(), "gotracer ended with {status}: {}", observer.stderr.so_far());
    let line = lines.last().context("gotracer printed nothing")?;
    Ok(serde_json::from_str(line)?)
}

/// Kind, line and number of each finding.
fn findings(report: &Value) -> Vec<String> {
    let each = report["findings"].as_array().into_iter().flatten();
    each.map(|f| format!("{} {}:{} {}", f["kind"], f["site"]["function"], f["site"]["line"], f["count"])).collect()
}

/// Every leak is named with its kind and its line, and no twin is. In most versions by reading memory alone, which is how one
/// looks at a process that must not pay for it; in the oldest and the newest with probes.
fn patterns(version: &'static str) -> Result<()> {
    require_root_and_bpf()?;
    let probes = version == newest()? || GO_VERSIONS.first() == Some(&version);
    let more: &[&str] = if probes { &[] } else { &["--no-probes"] };
    let twins = LEAKS.iter().map(|(kind, _)| (*kind, None)).chain(HEALTHY.iter().map(|kind| (*kind, None)));
    let mut cases: Vec<_> = LEAKS.iter().map(|(kind, expected)| (*kind, Some(*expected))).chain(twins).collect();
    let mut at_once = if probes { AT_ONCE } else { cases.len() / 2 + 1 };
    if in_a_vm() {
        cases.retain(|(kind, _)| IN_A_VM.contains(kind));
        at_once = AT_ONCE_IN_A_VM;
    }
    let mut wrong = Vec::new();
    for batch in cases.chunks(at_once) {
        let started: Result<Vec<Case>> =
            batch.iter().map(|(kind, expected)| Case::start(version, kind, *expected, more)).collect();
        for case in started? {
            wrong.extend(case.judge()?);
        }
    }
    ensure!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

/// One request in a thousand leaks, among goroutines that come and go by the hundred.
fn slow_under_noise() -> Result<()> {
    require_root_and_bpf()?;
    let arguments = ["-kind", "send", "-rate", "1000", "-every", "1000", "-noise", "200"];
    let program = Program::start(&Program::find(newest()?, "plain", "leaks")?, &arguments)?;
    let mut command = Command::new(gotracer()?);
    command.args(["leaks", "--json", "--pid", &program.pid().to_string(), "--for", "20s"]);
    let mut observer = Running::start("gotracer leaks", &mut command)?;
    let report = report(&mut observer)?;
    let line = program.ready()["line"].clone();
    program.quit_in_peace()?;
    let found = findings(&report);
    let [finding] = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        bail!("one finding was expected: {found:?}");
    };
    ensure!(finding["kind"] == "channel" && finding["site"]["line"] == line, "{found:?}");
    let rate = finding["per_second"].as_f64().unwrap_or_default();
    ensure!((0.5..1.5).contains(&rate), "one a second leaks, {rate} are told");
    Ok(())
}

/// 3 for what was found, 1 for what could not be told, 0 for nothing; without --fail always 0.
fn exit_codes() -> Result<()> {
    require_root_and_bpf()?;
    let path = Program::find(newest()?, "plain", "leaks")?;
    let leaking = Program::start(&path, &["-kind", "nil"])?;
    let healthy = Program::start(&path, &["-kind", "pool"])?;
    let ended = |program: &Program, more: &[&str]| -> Result<(Option<i32>, String)> {
        let pid = program.pid().to_string();
        let output = Command::new(gotracer()?).args(["leaks", "--no-probes", "--pid", &pid]).args(more).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    for (program, more, expected, word) in [
        (&leaking, &["--for", "8s", "--fail"][..], 3, "nil channel"),
        (&leaking, &["--for", "8s"], 0, "nil channel"),
        (&healthy, &["--for", "8s", "--fail"], 0, "Nothing suspected"),
        (&healthy, &["--for", "1s", "--fail"], 1, "Too short"),
        (&healthy, &["--for", "1s"], 0, "Too short"),
        (&healthy, &["--parked-share", "2"], 2, ""),
        (&healthy, &["--for", "never"], 2, ""),
    ] {
        let (code, text) = ended(program, more)?;
        ensure!(code == Some(expected) && text.contains(word), "{more:?} ended with {code:?}: {text}");
    }
    leaking.quit_in_peace()?;
    healthy.quit_in_peace()
}

/// Servers that nobody here wrote, idle and under load: nothing is found.
fn server_without_findings(name: &'static str) -> Result<()> {
    require_root_and_bpf()?;
    let server = Server::start(name)?;
    let observe = |load: &str| -> Result<()> {
        let mut command = Command::new(gotracer()?);
        command.args(["leaks", "--json", "--pid", &server.pid().to_string(), "--for", "8s"]);
        let report = report(&mut Running::start("gotracer leaks", &mut command)?)?;
        let found = findings(&report);
        ensure!(found.is_empty(), "{load}, these were found: {found:?}");
        ensure!(report["goroutines"].as_u64() > Some(2), "no goroutines were seen: {report}");
        Ok(())
    };
    observe("idle")?;
    let load = server.load();
    let observed = observe("under load");
    let answers = load.end();
    observed?;
    ensure!(answers > 100, "only {answers} requests were answered: this was no load");
    Ok(())
}

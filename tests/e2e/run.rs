//! Does `gotracer run` see a program from its first instruction on, and leave it its streams?

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::{go, gotracer, require_root_and_bpf};
use gotracer_tests::{GO_VERSIONS, Program, Trace};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::executables::Folder;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = GO_VERSIONS
        .iter()
        .map(|&version| trial(format!("run::from_the_first_instruction::go{version}"), move || whole_life(version)))
        .collect();
    trials.push(trial("run::go_build", go_build));
    trials
}

fn command(output: &Path, more: &[&str], program: &[&str]) -> Result<Command> {
    let mut command = Command::new(gotracer()?);
    command.args(["run", "--json", "--output"]).arg(output).args(more).arg("--").args(program);
    Ok(command)
}

/// Main's own creation is among what is seen, and the runtime's goroutines that start before main.
fn whole_life(version: &str) -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("run")?;
    let output = folder.path("trace.json");
    let path = Program::find(version, "plain", "tally")?;
    let mut command = command(&output, &[], &[&path.to_string_lossy()])?;
    let mut program = Program::within(Running::start("gotracer run", &mut command)?)?;
    program.send("go")?;
    let tally = program.tally()?;
    program.quit_in_peace()?;

    let trace = Trace::read(&output)?;
    let mut findings = Findings::default();
    check::sites(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    let created = check::created_goids(&trace);
    findings.holds("main's creation was not seen", created.contains(&1));
    let main = trace.of_kind("created").find(|event| event.goid == Some(1));
    findings.equal("main's function", main.and_then(|event| event.start.as_deref()), Some("runtime.main"));
    findings.holds("the runtime started nothing before main", trace.summary.created > tally.created);
    findings.equal("created events", created.len() as u64, trace.summary.created);
    findings.report(&trace)
}

/// The go command: many goroutines, many children, real work. The whole standard library where time is no matter.
fn go_build() -> Result<()> {
    require_root_and_bpf()?;
    let go = go()?;
    let folder = Folder::new("gobuild")?;
    let output = folder.path("trace.json");
    let packages = if std::env::var_os("GOTRACER_TEST_LONG").is_some() { "std" } else { "strconv" };
    let mut command = command(&output, &["--only", "exec"], &[&go.to_string_lossy(), "build", "-v", packages])?;
    // An empty cache, so that all is built.
    command.env("GOCACHE", folder.path("cache")).env("GOTOOLCHAIN", "local").env("GOENV", "off").env("GOFLAGS", "");
    command.env("CGO_ENABLED", "0").env("GOPATH", folder.path("gopath")).current_dir("/");
    let mut running = Running::start("gotracer run go build", &mut command)?;
    let printed = running.stdout.to_end()?;
    let said = running.stderr.to_end()?;
    let status = running.await_exit()?;
    ensure!(status.success(), "{status}: {printed:?}\n{}", said.join("\n"));
    // -v names each package on stderr as it is built.
    ensure!(
        said.iter().any(|line| line == packages || line.ends_with("net/http") || line == "strconv"),
        "not built: {said:?}"
    );

    let trace = Trace::read(&output).with_context(|| said.join("\n"))?;
    let summary = &trace.summary;
    let mut findings = Findings::default();
    findings.equal("events lost", summary.lost, 0);
    findings.equal(
        "created and not exited, against live",
        summary.created - summary.exited,
        summary.live + summary.system,
    );
    findings.holds("the go command started hardly a goroutine", summary.created > 30);
    let sites = trace.sites();
    findings.equal("created at all sites", sites.values().map(|counts| counts.created).sum(), summary.created);
    findings.equal("exited of all sites", sites.values().map(|counts| counts.exited).sum(), summary.exited);
    findings.report(&trace)
}

//! `cargo xtask test`: everything the tests need, then the tests: those of the crates, and those that trace real Go
//! programs, which need root and BPF. The last line counts them all.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::privileges::{in_ci, is_root};
use crate::programs;
use crate::toolchains::{self, GO_VERSIONS};
use crate::workspace::{cargo, execute, on_path, output, say, target};

#[derive(clap::Args)]
pub struct Args {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Leave out the tests that trace Go programs
    #[arg(long)]
    no_e2e: bool,
}

/// What the harnesses said in the end.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let mut counts = Counts::default();
    // First what fails fast.
    let mut unit = cargo();
    unit.args(["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]);
    if let Some(filter) = &args.filter {
        unit.args(["--", filter]);
    }
    let mut ok = counted(&mut unit, &mut counts)?;
    if !args.no_e2e {
        programs::run(&programs::Args::default())?;
        gccgo_program()?;
        real_servers()?;
        tmux()?;
        servers()?;
        execute(cargo().args(["build", "--release", "--package", "gotracer"]))?;
        ok &= end_to_end(args, &mut counts)?;
    }

    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 || !ok {
        bail!("there were failures");
    }
    if counts.skipped > 0 && in_ci() {
        bail!("in CI nothing may be skipped");
    }
    if counts.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// The tests that trace. As another user than root they are run by sudo where there is somebody to ask.
fn end_to_end(args: &Args, counts: &mut Counts) -> Result<bool> {
    let executable = test_executable()?;
    let mut command = if !is_root() && on_path("sudo") && std::io::stdin().is_terminal() {
        say("the end-to-end tests trace other processes: running them by sudo");
        let mut sudo = Command::new("sudo");
        sudo.arg("env").args(environment()?.into_iter().map(|(name, value)| format!("{name}={value}")));
        sudo.arg(executable);
        sudo
    } else {
        if !is_root() {
            say("WARNING: NOT ROOT: most end-to-end tests will be SKIPPED");
        }
        let mut command = Command::new(executable);
        command.envs(environment()?);
        command
    };
    command.args(args.filter.as_deref());
    counted(&mut command, counts)
}

fn environment() -> Result<Vec<(&'static str, String)>> {
    let newest = GO_VERSIONS.last().context("no Go versions")?;
    let mut variables = vec![
        ("GOTRACER_BIN", target().join("release/gotracer").display().to_string()),
        ("GOTRACER_PROGRAMS", programs::folder().join(programs::host_goarch()).display().to_string()),
        ("GOTRACER_GO", toolchains::go(newest)?.display().to_string()),
    ];
    match toolchains::python().and_then(|packages| toolchains::browser().map(|()| packages)) {
        Ok(packages) => variables.push(("GOTRACER_PYTHON", packages.display().to_string())),
        Err(error) if in_ci() => return Err(error),
        Err(error) => say(format!("WARNING: some tests of recordings will be SKIPPED: {error:#}")),
    }
    if in_ci() {
        variables.push(("CI", "true".into()));
    }
    Ok(variables)
}

/// Builds the end-to-end tests; gives the executable, which needs no cargo.
fn test_executable() -> Result<PathBuf> {
    let messages = output(
        cargo()
            .args(["test", "--package", "gotracer-tests", "--test", "e2e", "--no-run"])
            .args(["--message-format", "json-render-diagnostics"]),
    )?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|message| message["target"]["name"] == "e2e" && message["executable"].is_string())
        .and_then(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where it put the end-to-end tests")
}

/// Runs a test harness, passes on what it prints, and adds up the counts of its last lines.
fn counted(command: &mut Command, counts: &mut Counts) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let stdout = child.stdout.take().context("no stdout")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        counts.add(&line);
    }
    Ok(child.wait()?.success())
}

impl Counts {
    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; ...`
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let of = |what: &str| {
            let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|word| *word == what);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
        };
        self.passed += of("passed");
        self.failed += of("failed");
        self.skipped += of("ignored");
    }
}

/// Servers that the agent is tested beside, and what checks its alert rules and unit.
fn real_servers() -> Result<()> {
    let needed = [
        ("prometheus", "prometheus"),
        ("systemd-analyze", "systemd"),
        ("openssl", "openssl"),
        ("capsh", "libcap2-bin"),
        ("setpriv", "util-linux"),
    ];
    let mut missing: Vec<&str> =
        needed.into_iter().filter_map(|(program, package)| (!on_path(program)).then_some(package)).collect();
    // A module, not a program: the tests of the manifests read YAML.
    let yaml = Command::new("/usr/bin/python3").args(["-c", "import yaml"]).stderr(Stdio::null()).status();
    if !yaml.is_ok_and(|status| status.success()) {
        missing.push("python3-yaml");
    }
    if missing.is_empty() {
        return Ok(());
    }
    if let Err(error) = toolchains::install_debian_packages(&missing, "the tests of the agent") {
        if in_ci() {
            return Err(error);
        }
        say(format!("WARNING: some tests of the agent will be SKIPPED: {error:#}"));
    }
    Ok(())
}

/// A program by another Go compiler, which gotracer must refuse by name.
fn gccgo_program() -> Result<()> {
    if !on_path("gccgo")
        && let Err(error) = toolchains::install_debian_packages(&["gccgo"], "the test of what gccgo builds")
    {
        if in_ci() {
            return Err(error);
        }
        say(format!("WARNING: one test will be SKIPPED: {error:#}"));
        return Ok(());
    }
    programs::build_gccgo()
}

/// The terminal for the tests of what is drawn on one.
fn tmux() -> Result<()> {
    if !on_path("tmux")
        && let Err(error) = toolchains::install_debian_packages(&["tmux"], "the tests in a terminal")
    {
        if in_ci() {
            return Err(error);
        }
        say(format!("WARNING: some tests will be SKIPPED: {error:#}"));
    }
    Ok(())
}

/// Go servers that nobody here wrote, for the tests of what must not be found. Their services are not started: a policy says so
/// for as long as they are being installed.
fn servers() -> Result<()> {
    let packages = ["prometheus", "etcd-server", "caddy", "nats-server"];
    if let Err(error) = toolchains::install_debian_services(&packages, "the tests with real servers") {
        if in_ci() {
            return Err(error);
        }
        say(format!("WARNING: some tests will be SKIPPED: {error:#}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_are_read_from_the_last_line_of_each_harness() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.08s");
        counts.add("test matrix::tally ... ok");
        counts.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.08s");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (14, 1, 1));
    }
}

//! Does everything that cannot be traced end in one clear sentence, with the right exit code?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::Running;
use gotracer_tests::environment::{Skip, gotracer, programs, require_root_and_bpf};
use gotracer_tests::tracer::Refusal;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::executables::{Folder, stripped_tally};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("refusals::usage", usage),
        trial("refusals::no_such_process", no_such_process),
        trial("refusals::not_go", not_go),
        trial("refusals::gccgo", gccgo),
        trial("refusals::of_32_bits", of_32_bits),
        trial("refusals::version_unknown", || version("go1.99.3")),
        trial("refusals::version_too_old", || version("go1.17.3")),
        trial("refusals::no_permission", no_permission),
        trial("refusals::run_nothing_there", run_nothing_there),
        trial("refusals::run_not_executable", run_not_executable),
        trial("refusals::run_truncated", run_truncated),
        trial("refusals::run_corrupt", run_corrupt),
    ]
}

/// Exit code 1, nothing on stdout, and on stderr one sentence (and perhaps one more line with what to do) that has
/// one of these words.
fn sentence(refusal: &Refusal, words: &[&str]) -> Result<()> {
    let said = refusal.stderr.join("\n");
    ensure!(refusal.status.code() == Some(1), "{}, not exit code 1:\n{said}", refusal.status);
    ensure!(refusal.stdout.is_empty(), "on stdout: {:?}", refusal.stdout);
    ensure!(matches!(refusal.stderr.len(), 1 | 2), "not one sentence:\n{said}");
    for wrong in ["panicked", "RUST_BACKTRACE", "Os {", "Err("] {
        ensure!(!said.contains(wrong), "{wrong} is no language for people:\n{said}");
    }
    let has_word = words.iter().any(|word| said.to_lowercase().contains(&word.to_lowercase()));
    ensure!(has_word, "none of {words:?} in:\n{said}");
    Ok(())
}

fn trace(pid: u32) -> Result<Refusal> {
    Gotracer::refuse(&["trace", "--pid", &pid.to_string(), "--for", "1s"])
}

fn run(path: &Path) -> Result<Refusal> {
    Gotracer::refuse(&["run", "--", &path.to_string_lossy()])
}

fn usage() -> Result<()> {
    let wrong: [&[&str]; 10] = [
        &[],
        &["trace"],
        &["trace", "--pid", "many"],
        &["trace", "--pid", "1", "--for", "soon"],
        &["trace", "--pid", "1", "--only", "everything"],
        &["trace", "--pid", "1", "--detail", "all"],
        &["trace", "--pid", "1", "--max-overhead", "0"],
        &["trace", "--pid", "1", "--max-overhead", "200%"],
        &["trace", "--pid", "1", "--max-overhead", "little"],
        &["no-such-command"],
    ];
    for args in wrong {
        let refusal = Gotracer::refuse(args)?;
        ensure!(refusal.status.code() == Some(2), "{args:?}: {}, not exit code 2", refusal.status);
        ensure!(refusal.stdout.is_empty(), "{args:?}: on stdout: {:?}", refusal.stdout);
        ensure!(!refusal.stderr.is_empty(), "{args:?}: nothing is said");
    }
    Ok(())
}

fn no_such_process() -> Result<()> {
    require_root_and_bpf()?;
    // A process id that was there a moment ago, and is not yet given to another.
    let mut gone = Command::new("true").spawn().context("cannot run true")?;
    gone.wait()?;
    let refusal = trace(gone.id())?;
    sentence(&refusal, &["no process", "no such process"])?;
    let said = refusal.stderr.join("\n");
    ensure!(said.contains(&gone.id().to_string()), "the process id is not named:\n{said}");
    Ok(())
}

/// A process that waits to be killed.
fn waiting(command: &mut Command) -> Result<Running> {
    Running::start("a process that is no target", command.stdin(Stdio::piped()))
}

fn not_go() -> Result<()> {
    require_root_and_bpf()?;
    let sleep = waiting(Command::new("sleep").arg("1000"))?;
    sentence(&trace(sleep.pid())?, &["not a Go program", "no Go", "not Go"])
}

fn gccgo() -> Result<()> {
    require_root_and_bpf()?;
    let path = programs().join("gccgo/plain/waits");
    if !path.is_file() {
        return Err(Skip(format!("{} is not there: it needs gccgo", path.display())).into());
    }
    let program = Program::start(&path, &[])?;
    sentence(&trace(program.pid())?, &["gccgo"])
}

fn of_32_bits() -> Result<()> {
    require_root_and_bpf()?;
    let path = newest_of("386")?;
    let program = Program::start(&path, &[])?;
    sentence(&trace(program.pid())?, &["32-bit", "386", "32 bit"])
}

fn newest_of(goarch: &str) -> Result<PathBuf> {
    let version = GO_VERSIONS.last().context("no Go versions")?;
    let folder = programs().join("..").join(goarch);
    let path = folder.join(version).join("plain/tally");
    if !path.is_file() {
        return Err(Skip(format!("{} is not there: run `cargo xtask programs`", path.display())).into());
    }
    Ok(path)
}

/// A program that says that it is of another version, and has no DWARF that would tell its layouts.
fn version(claimed: &str) -> Result<()> {
    require_root_and_bpf()?;
    let actual = format!("go{}", GO_VERSIONS.last().context("no Go versions")?);
    ensure!(actual.len() == claimed.len(), "{actual} cannot become {claimed} in place");
    let mut bytes = fs::read(stripped_tally()?)?;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(actual.len()).position(|window| window == actual.as_bytes()) {
        at += found;
        bytes[at..at + claimed.len()].copy_from_slice(claimed.as_bytes());
    }
    ensure!(at > 0, "{actual} is not in the program");
    let folder = Folder::new(claimed)?;
    let path = executable(&folder, "claims", &bytes)?;
    let program = Program::start(&path, &[])?;
    let refusal = trace(program.pid())?;
    sentence(&refusal, &[claimed.trim_start_matches("go").trim_end_matches(".3")])
}

fn executable(folder: &Folder, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.path(name);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Neither root nor any capability: what is missing must be named.
fn no_permission() -> Result<()> {
    const NOBODY: u32 = 65534;
    require_root_and_bpf()?;
    let folder = Folder::new("nobody")?;
    // Where nobody may run it: the checkout may lie in a home folder that is closed to others.
    let copy = executable(&folder, "gotracer", &fs::read(gotracer()?)?)?;
    let program = Program::start(&stripped_tally()?, &[])?;
    let mut command = Command::new(copy);
    command.args(["trace", "--pid", &program.pid().to_string(), "--for", "1s"]).uid(NOBODY).gid(NOBODY);
    sentence(&Refusal::of(&mut command)?, &["root", "sudo", "CAP_"])
}

fn run_nothing_there() -> Result<()> {
    require_root_and_bpf()?;
    let path = Path::new("/nonexistent/program");
    sentence(&run(path)?, &["/nonexistent/program"])
}

fn run_not_executable() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("text")?;
    let path = folder.path("text");
    fs::write(&path, "this is a text")?;
    sentence(&run(&path)?, &["text"])
}

/// As a download leaves it that broke off.
fn run_truncated() -> Result<()> {
    require_root_and_bpf()?;
    let whole = fs::read(stripped_tally()?)?;
    let folder = Folder::new("truncated")?;
    for (name, length) in [("header", 100), ("third", whole.len() / 3), ("most", whole.len() * 9 / 10)] {
        let path = executable(&folder, name, &whole[..length])?;
        sentence(&run(&path)?, &[name]).with_context(|| format!("truncated to {length} bytes"))?;
    }
    Ok(())
}

/// Section table and program headers that point anywhere.
fn run_corrupt() -> Result<()> {
    require_root_and_bpf()?;
    let whole = fs::read(stripped_tally()?)?;
    let folder = Folder::new("corrupt")?;
    // e_phoff, e_shoff, e_phnum and e_shnum of a 64-bit header.
    for (name, at, size) in [("phoff", 0x20, 8), ("shoff", 0x28, 8), ("phnum", 0x38, 2), ("shnum", 0x3c, 2)] {
        let mut bytes = whole.clone();
        bytes[at..at + size].fill(0xff);
        let path = executable(&folder, name, &bytes)?;
        let refusal = run(&path)?;
        // Some of these the kernel runs and we can read all the same: then it is traced like any other.
        if refusal.status.success() {
            continue;
        }
        sentence(&refusal, &[name]).with_context(|| format!("a corrupt {name}"))?;
    }
    Ok(())
}

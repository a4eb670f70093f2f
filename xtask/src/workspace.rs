//! Where things are in this checkout, and running other programs with errors that name them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder of the workspace's Cargo.toml.
pub fn root() -> PathBuf {
    // The crate lies in ROOT/xtask. Taken at compile time: `cargo xtask` always builds in the checkout it runs in.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The commit that is checked out, short, with a `+` if the checkout has changes; `unknown` where git does not say.
pub fn commit() -> String {
    let mut git = Command::new("git");
    let described = output(git.current_dir(root()).args(["describe", "--always", "--dirty=+", "--exclude=*"]));
    described.map_or_else(|_| "unknown".to_owned(), |commit| commit.trim().to_owned())
}

/// Cargo's target folder, `CARGO_TARGET_DIR` respected.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// What outlives a checkout: toolchains. `$GOTRACER_CACHE`, else `~/.cache/gotracer`.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("GOTRACER_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").context("HOME is not set: set GOTRACER_CACHE to a folder for toolchains")?;
    Ok(Path::new(&home).join(".cache/gotracer"))
}

/// The cargo that runs us: rustup's choice of toolchain is kept for what we start.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Tells the person at the terminal what goes on; stdout is kept for results.
pub fn say(message: impl AsRef<str>) {
    eprintln!("xtask: {}", message.as_ref());
}

/// Runs a program with our stdio, and fails if it fails.
pub fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a program and gives its stdout; what it wrote is in the error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{} failed: {}\n{}{said}", shown(command), out.status, String::from_utf8_lossy(&out.stdout));
    }
    String::from_utf8(out.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)))
}

/// Whether `name` is a program on PATH.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().map(OsStr::to_string_lossy) {
        let _ = write!(line, " {arg}");
    }
    line
}

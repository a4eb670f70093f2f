//! Does it work where the executable is not where it was: deleted, replaced, in another mount namespace?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("executables::deleted", deleted),
        trial("executables::replaced", replaced),
        trial("executables::in_another_mount_namespace", in_another_mount_namespace),
    ]
}

/// A folder of the test's own, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gotracer-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Stripped: what cannot be read from the file's DWARF must come from elsewhere.
pub(crate) fn stripped_tally() -> Result<PathBuf> {
    Program::find(GO_VERSIONS.last().copied().context("no Go versions")?, "stripped", "tally")
}

fn traced(mut program: Program) -> Result<()> {
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;
    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    findings.report(&trace)
}

fn copied(to: &Path) -> Result<()> {
    fs::copy(stripped_tally()?, to)?;
    Ok(())
}

fn deleted() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("deleted")?;
    let path = folder.path("tally");
    copied(&path)?;
    let program = Program::start(&path, &[])?;
    fs::remove_file(&path)?;
    traced(program)
}

/// As a package upgrade does it: another file has the name now. What runs is the old one.
fn replaced() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("replaced")?;
    let path = folder.path("tally");
    copied(&path)?;
    let program = Program::start(&path, &[])?;
    let other = folder.path("other");
    fs::write(&other, "not even an executable")?;
    fs::rename(&other, &path)?;
    traced(program)
}

/// As in a container: the path exists only where the process is.
fn in_another_mount_namespace() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("namespace")?;
    let inner = folder.path("inner");
    fs::create_dir(&inner)?;
    let script = r#"mount -t tmpfs none "$1" && cp "$2" "$1/tally" && exec "$1/tally""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&inner).arg(stripped_tally()?);
    traced(Program::start_as(&mut command)?)
}

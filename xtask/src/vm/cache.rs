//! How a folder of downloads comes into being in the cache.

use std::path::{Path, PathBuf};
use std::{fs, process};

use anyhow::{Context, Result};

use crate::workspace;

/// The cached folder `name`, made by `fill` when it does not exist.
///
/// It appears under its name only when complete: an interrupted download is not taken for a whole one.
pub(crate) fn folder(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = workspace::cache()?.join(name);
    if path.exists() {
        return Ok(path);
    }
    let partial = path.with_file_name(format!(
        "{}.partial.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        process::id()
    ));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let filled = fill(&partial).and_then(|()| match fs::rename(&partial, &path) {
        // Another xtask was first: its folder is as good as ours.
        Err(_) if path.exists() => Ok(()),
        result => result.with_context(|| format!("cannot move {} into place", partial.display())),
    });
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    filled.map(|()| path)
}

//! The host agent: does it find what runs, say of it what is true, bear what hosts do to it, and help in time?

mod budget;
mod configuration;
mod endurance;
mod figures;
mod finding;
mod help;
mod leaked;
mod otlp;
mod packaging;
mod prometheus;
mod servers;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let all = [
        figures::trials(),
        finding::trials(),
        endurance::trials(),
        help::trials(),
        leaked::trials(),
        budget::trials(),
        otlp::trials(),
        prometheus::trials(),
        servers::trials(),
        configuration::trials(),
        packaging::trials(),
    ];
    all.into_iter().flatten().collect()
}

/// Samples and readings that come soon.
const QUICK: &str = "[metrics]\nsample_interval = \"300ms\"\nsnapshot_interval = \"1s\"\n";

fn newest(name: &str) -> Result<std::path::PathBuf> {
    Program::find(GO_VERSIONS.last().context("no Go versions")?, "plain", name)
}

fn count_folders(evidence: &Path) -> Result<usize> {
    let Ok(entries) = fs::read_dir(evidence) else { return Ok(0) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).count())
}

/// Every file that the manifest lists is there, as long as it says, and what it should be.
fn check_evidence(folder: &Path) -> Result<()> {
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("manifest.json"))?)?;
    let files = manifest["files"].as_array().context("no files in the manifest")?;
    ensure!(files.len() >= 4, "{manifest:#}");
    for file in files {
        let name = file["file"].as_str().context("a file without a name")?;
        let bytes = fs::metadata(folder.join(name)).with_context(|| format!("{name} of {}", folder.display()))?.len();
        ensure!(Some(bytes) == file["bytes"].as_u64(), "{name} has {bytes} bytes: {file}");
    }
    Ok(())
}

fn checkout(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

//! Does what it is installed by suffice, and no more?

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use gotracer_tests::agent::Folder;
use gotracer_tests::environment::Skip;
use libtest_mimic::Trial;

use super::checkout;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::systemd_unit", systemd_unit)]
}

fn systemd_unit() -> Result<()> {
    let unit = checkout("packaging/systemd/gotracer-agent.service");
    if !Path::new("/usr/bin/systemd-analyze").is_file() || !unit.is_file() {
        return Err(Skip("there is no systemd-analyze, or no checkout".into()).into());
    }
    let folder = Folder::new("unit")?;
    // Its program is not installed here.
    let text = fs::read_to_string(unit)?.replace("/usr/local/bin/gotracer", "/bin/true");
    let copy = folder.path().join("gotracer-agent.service");
    fs::write(&copy, text)?;
    let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output()?;
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    ensure!(verified.status.success() && !said.contains("gotracer-agent.service"), "{said}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=40", "--no-pager"])
        .arg(&copy)
        .output()?;
    ensure!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
    Ok(())
}

//! Debian packages: installed when we are root on a Debian, named for the user to install otherwise.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};

use crate::privileges::is_root;
use crate::workspace::{execute, output, say};

/// Sees to it that all of `packages` are installed.
///
/// # Errors
/// When one is missing and we cannot install it; the error names the packages and the command.
pub fn install(packages: &[&str], what_for: &str) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("{what_for} needs what Debian calls {}: install it with your own package manager", missing.join(", "));
    }
    if !is_root() {
        bail!("{what_for} needs packages that are not installed: run `sudo {by_hand}`");
    }
    say(format!("installing {} for {what_for}", missing.join(", ")));
    update_once()?;
    execute(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(&missing)
            // Our stdout is for results.
            .stdout(std::io::stderr()),
    )
}

/// As [`install`], for packages that would start a service: it is not started.
///
/// # Errors
/// As [`install`].
pub fn install_unstarted(packages: &[&str], what_for: &str) -> Result<()> {
    // What Debian's maintainer scripts ask before they start something; 101 forbids it.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = is_root() && !policy.exists() && packages.iter().any(|package| !is_installed(package));
    if ours {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755))?;
    }
    let done = install(packages, what_for);
    if ours {
        std::fs::remove_file(policy)?;
    }
    done
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

fn update_once() -> Result<()> {
    static UPDATED: Once = Once::new();
    let mut result = Ok(());
    UPDATED.call_once(|| {
        result = execute(Command::new("apt-get").args(["update", "--quiet", "--quiet"]).stdout(std::io::stderr()));
    });
    result
}

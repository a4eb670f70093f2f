//! What the machine under the tests allows, and where the things to be tested are. All of it comes from the
//! environment, so that the tests run in a virtual machine as they do in a checkout.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail};

/// A test that cannot be run here. Outside CI it is reported as skipped; in CI it fails.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// In CI nothing may be skipped: what is missing there is an error.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// In an emulated machine (`cargo xtask vm` sets `GOTRACER_VM`), some twenty times slower than the one it is emulated on.
pub fn in_a_vm() -> bool {
    std::env::var_os("GOTRACER_VM").is_some()
}

/// This machine's processor in Go's terms.
pub fn host_goarch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// How long anything may take that must happen: long, for a loaded or an emulated machine is slow, and no wait that
/// succeeds is ever this long. `GOTRACER_TEST_PATIENCE` sets it in seconds.
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let seconds = std::env::var("GOTRACER_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or(60))
    })
}

/// The gotracer under test: `GOTRACER_BIN`, else the checkout's release build.
pub fn gotracer() -> Result<PathBuf> {
    let path = from_environment("GOTRACER_BIN", "release/gotracer");
    if !path.is_file() {
        bail!("there is no gotracer at {}: run `cargo build --release`, or set GOTRACER_BIN", path.display());
    }
    Ok(path)
}

/// The folder of the Go programs: `GOTRACER_PROGRAMS`, else the checkout's.
pub fn programs() -> PathBuf {
    match std::env::var_os("GOTRACER_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => target().join("programs").join(host_goarch()),
    }
}

/// The `go` command for the test that traces it: `GOTRACER_GO`.
///
/// # Errors
/// [`Skip`] when it is not set.
pub fn go() -> Result<PathBuf> {
    match std::env::var_os("GOTRACER_GO") {
        Some(go) => Ok(PathBuf::from(go)),
        None => Err(Skip("GOTRACER_GO does not name a go command".into()).into()),
    }
}

/// Uprobes and BPF need root here (in the field some capabilities will do).
///
/// # Errors
/// [`Skip`] with what is missing.
pub fn require_root_and_bpf() -> Result<()> {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Skip("not root".into()).into());
    }
    if !Path::new("/sys/bus/event_source/devices/uprobe/type").is_file() {
        return Err(Skip("this kernel has no uprobes (CONFIG_UPROBE_EVENTS)".into()).into());
    }
    if !bpf_is_there() {
        return Err(Skip("this kernel has no bpf() for us (CONFIG_BPF_SYSCALL, lockdown, seccomp)".into()).into());
    }
    Ok(())
}

fn bpf_is_there() -> bool {
    const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
    let mut attributes = [0_u64; 16];
    let attributes_address = attributes.as_mut_ptr();
    // SAFETY: the kernel reads and writes no more of the attributes than the size that it is told. The command only
    // looks for a loaded program after id 0.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, attributes_address, size_of_val(&attributes)) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
}

fn from_environment(variable: &str, below_target: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| target().join(below_target), PathBuf::from)
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => workspace.join(target),
        None => workspace.join("target"),
    }
}

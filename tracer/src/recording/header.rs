//! What a recording says of itself, of the machine, and of each program it is about.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::events::now;
use crate::tracee::{LoadBias, Program as TraceeProgram};
use crate::units::{MonotonicNs, Pc, Pid, RemoteAddr};

/// The first thing in a recording. Fields may be added; a reader passes over those it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// The version of the gotracer that wrote it.
    pub gotracer: String,
    /// The process.
    pub pid: Pid,
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture, in Go's words.
    pub arch: String,
    /// From when on everything was seen: all probes were attached.
    pub started_ns: MonotonicNs,
    /// What to add to a time of `CLOCK_MONOTONIC` to have nanoseconds since 1970 (UTC), as it was when the recording began.
    pub wall_offset_ns: i64,
    /// Which events were recorded: `full` for all four kinds.
    pub detail: String,
}

impl Header {
    /// A recording of process `pid` on this machine, that begins at `started`.
    #[must_use]
    pub fn here(pid: Pid, started: MonotonicNs, detail: &str) -> Self {
        let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            gotracer: env!("CARGO_PKG_VERSION").to_owned(),
            pid,
            host: first_line("/proc/sys/kernel/hostname"),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            arch: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
            started_ns: started,
            wall_offset_ns: wall_offset_ns(),
            detail: detail.to_owned(),
        }
    }

    /// `time` as nanoseconds since 1970 (UTC).
    #[must_use]
    pub fn wall_ns(&self, time: MonotonicNs) -> i64 {
        (time.0 as i64).saturating_add(self.wall_offset_ns)
    }
}

/// Nanoseconds since 1970 less those of `CLOCK_MONOTONIC`, now.
#[must_use]
pub fn wall_offset_ns() -> i64 {
    // The nearest of a few looks: between the two clocks we may lose the CPU.
    let look = || {
        let before = now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        let after = now();
        (after.since(before), wall - (before.0 + after.since(before) / 2) as i64)
    };
    (0..5).map(|_| look()).min().map_or(0, |(_, offset)| offset)
}

/// A program that the process runs: the first, and one more with each `execve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// 0 for the first.
    pub generation: u32,
    /// Its executable, as the process named it.
    pub exe: String,
    /// Its build id: GNU's, else Go's; empty if it has none.
    pub build_id: String,
    /// The Go version that built it.
    pub go_version: String,
    /// What each number of a wait reason means.
    pub wait_reasons: Vec<String>,
    /// What was added to its link-time addresses where it was loaded; all addresses in a recording have it in.
    pub bias: u64,
    /// Its text's first address.
    pub text_start: RemoteAddr,
    /// The address behind its text.
    pub text_end: RemoteAddr,
}

impl Program {
    /// What is known of `program`, loaded with `bias`.
    #[must_use]
    pub fn of(program: &TraceeProgram, bias: LoadBias, generation: u32) -> Self {
        let ids = program.binary.build_ids();
        let module = program.binary.module();
        Self {
            generation,
            exe: program.name.clone(),
            build_id: ids.gnu.as_deref().or(ids.go.as_deref()).unwrap_or_default().to_owned(),
            go_version: program.binary.version().to_string(),
            wait_reasons: program.wait_reasons.names().to_vec(),
            bias: bias.remote(Pc(0)).0,
            text_start: bias.remote(module.text),
            text_end: bias.remote(module.etext),
        }
    }
}

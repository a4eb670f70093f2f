//! Where do the probes stand, and does this kernel execute what they stand on within one trap?
//!
//! What a kernel emulates is measured by `doctor` on functions of gotracer's own, beside an instruction that every kernel
//! single-steps, as it does the one at a Go function's entry. `GOTRACER_PLACEMENTS` names a file for where the probes stand and
//! that price, a line each: `cargo xtask vm --matrix` puts them in docs/kernels.md.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

/// Emulated by every kernel since 4.18 (x86_64) and 4.10 (arm64), and never.
#[cfg(target_arch = "x86_64")]
const EMULATED: (&[&str], &[&str]) = (&["nop", "push", "call", "jcc"], &["mov"]);
/// The prologue's `stp` and `nop` are simulated by some kernels only.
#[cfg(target_arch = "aarch64")]
const EMULATED: (&[&str], &[&str]) = (&["bl", "b.cond"], &["mov", "str"]);

pub(crate) fn trials() -> Vec<Trial> {
    let each = GO_VERSIONS.iter().map(|&version| {
        trial(format!("placements::are_emulated::go{version}"), move || {
            require_root_and_bpf()?;
            are_emulated(version)
        })
    });
    each.collect()
}

/// The measured instruction that is executed as this one is.
fn measured_kind(instruction: &str) -> Result<&'static str> {
    let mnemonic = instruction.split(' ').next().unwrap_or_default();
    Ok(match mnemonic {
        "push" => "push",
        "call" => "call",
        "nop" => "nop",
        "b" | "bl" => "bl",
        "cbz" | "cbnz" | "tbz" | "tbnz" => "b.cond",
        _ if mnemonic.starts_with("b.") => "b.cond",
        _ if mnemonic.starts_with('j') => "jcc",
        _ => bail!("a probe stands on `{instruction}`, whose kind was not measured"),
    })
}

fn are_emulated(version: &str) -> Result<()> {
    let program = Program::start(&Program::find(version, "stripped", "tally")?, &[])?;
    let doctor = Gotracer::refuse(&["doctor", "--json", "--pid", &program.pid().to_string()])?;
    ensure!(doctor.status.success(), "{}: {}", doctor.status, doctor.stdout.join("\n"));
    let report: Value = serde_json::from_str(&doctor.stdout.join("\n"))?;

    let measured = report["instructions"].as_array().context("no instructions")?;
    let of = |name: &str| -> Result<(bool, f64)> {
        let found = measured.iter().find(|i| i["instruction"] == name).with_context(|| format!("no {name}"))?;
        Ok((found["emulated"].as_bool().context("not told")?, found["relative"].as_f64().context("no ratio")?))
    };
    for (names, expected) in [(EMULATED.0, true), (EMULATED.1, false)] {
        for name in names {
            let (emulated, relative) = of(name)?;
            ensure!(emulated == expected, "{name} costs {relative:.2} of a single step");
        }
    }

    let probes = report["process"]["probes"].as_array().context("no probes")?;
    let placed: Vec<&Value> = probes.iter().filter(|probe| probe["verdict"] == "placed").collect();
    // Created, blocked, running, exited; coroutines are of Go 1.23 and later.
    ensure!(placed.len() >= 4, "only {} of {} probes have a place", placed.len(), probes.len());
    ensure!(probes.iter().all(|probe| probe["verdict"] != "unplaceable"), "a probe has no place: {probes:?}");
    let mut seen = Vec::new();
    for probe in &placed {
        let instruction = probe["instruction"].as_str().context("no instruction")?;
        let execution = probe["execution"].as_str().context("no execution")?;
        ensure!(["called", "emulated"].contains(&execution), "{} stands on `{instruction}`", probe["function"]);
        // Each stands on a kind that was measured: its price beside the single step at a Go function's entry.
        let (emulated, relative) = of(if execution == "called" { "nop5" } else { measured_kind(instruction)? })?;
        ensure!(emulated, "{} stands on `{instruction}`, which costs {relative:.2}", probe["function"]);
        let (function, offset) = (probe["function"].as_str().context("no function")?, &probe["into_function"]);
        seen.push(format!("placement {relative:.2} `{function}+{offset}`: `{instruction}`\n"));
    }
    if let Some(file) = std::env::var_os("GOTRACER_PLACEMENTS") {
        File::options().create(true).append(true).open(file)?.write_all(seen.concat().as_bytes())?;
    }
    let cost = |kind: &str| report["cost"]["trap"][kind].as_f64().with_context(|| format!("no {kind}"));
    let (emulated, stepped) = (cost("emulated_ns")?, cost("single_stepped_ns")?);
    ensure!(emulated < stepped, "an event costs {emulated:.0} ns emulated and {stepped:.0} ns single-stepped");
    Ok(())
}

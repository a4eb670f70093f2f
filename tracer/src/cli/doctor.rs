//! `gotracer doctor`: can this machine trace, and can this process be traced? Found by trying, not by version numbers.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::live::runtime;
use crate::events::EventStream;
use crate::go_runtime::LayoutSource;
use crate::probes::calibration::{Cost, Trap, calibrate};
use crate::probes::catalogue::{Event, PROBES};
use crate::probes::features::emulation::{self, Executed};
use crate::probes::features::{Feature, Found};
use crate::probes::instruction::Execution;
use crate::probes::{Capacity, Execs, KernelPrograms, Nops, Verdict, place};
use crate::process::Process;
use crate::tracee::Tracee;
use crate::units::Pid;

/// Tell whether this machine can trace and, with --pid, whether a process can be traced, and where its probes stand
#[derive(Args)]
#[command(after_help = "\
Exit code 0 if everything needed is there, 1 if not.

Examples:
  gotracer doctor               this machine
  gotracer doctor --pid 1234    and this process: Go version, layouts, the instruction of each probe and its cost")]
pub(super) struct DoctorArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    checks: Vec<Check>,
    features: Vec<FeatureReport>,
    /// How the kernel executes probed instructions; empty if no uprobe could be tried.
    instructions: Vec<Executed>,
    cost: Option<Cost>,
    process: Option<ProcessReport>,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    /// `None`: only for information.
    ok: Option<bool>,
    found: String,
}

#[derive(Serialize)]
struct FeatureReport {
    feature: Feature,
    /// `None`: it could not be tried.
    found: Option<bool>,
    /// Whether gotracer is of no use without it.
    needed: bool,
    /// Why it is not there or not known.
    why: Option<String>,
}

impl FeatureReport {
    fn find(feature: Feature) -> Self {
        let (found, why) = match feature.find() {
            Found::Yes => (Some(true), None),
            Found::No(why) => (Some(false), Some(why.to_owned())),
            Found::Unknown(why) => (None, Some(why)),
        };
        Self { feature, found, needed: feature.is_needed(), why }
    }
}

#[derive(Serialize)]
struct ProcessReport {
    pid: u32,
    exe: String,
    go_version: String,
    arch: &'static str,
    pie: bool,
    layouts_from: String,
    probes: Vec<Verdict>,
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let mut checks = machine();
    let cost = match try_kernel() {
        Ok(cost) => {
            checks.push(Check::ok("eBPF programs", "loaded, attached and hit".to_owned()));
            Some(cost)
        }
        Err(failure) => {
            checks.push(Check::bad("eBPF programs", chain(failure.as_ref())));
            None
        }
    };
    let process = match arguments.pid {
        None => None,
        Some(pid) => match process_report(pid) {
            Ok(report) => {
                let missing = report.probes.iter().any(|v| matches!(v, Verdict::Unplaceable { .. }));
                let placed = report.probes.iter().filter(|v| v.placement().is_some()).count();
                let found = format!("{placed} of {} probes have a place", report.probes.len());
                checks.push(Check { name: "process", ok: Some(!missing), found });
                Some(report)
            }
            Err(failure) => {
                checks.push(Check::bad("process", chain(failure.as_ref())));
                None
            }
        },
    };
    let features = Feature::ALL.map(FeatureReport::find).into();
    let instructions = emulation::measure().unwrap_or_else(|error| {
        if checks.iter().all(|check| check.name != "uprobes" || check.ok != Some(false)) {
            checks.push(Check::bad("uprobes", format!("cannot be tried: {error}")));
        }
        Vec::new()
    });
    let report = Report { checks, features, instructions, cost, process };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        report.write(&mut out)?;
    }
    let failed = report.checks.iter().any(|check| check.ok == Some(false));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Check {
    fn ok(name: &'static str, found: String) -> Self {
        Self { name, ok: Some(true), found }
    }

    fn bad(name: &'static str, found: String) -> Self {
        Self { name, ok: Some(false), found }
    }

    fn info(name: &'static str, found: String) -> Self {
        Self { name, ok: None, found }
    }
}

fn chain(failure: &dyn std::error::Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What the machine says of itself.
fn machine() -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let mut checks = Vec::new();
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    checks.push(Check::info("kernel", format!("{kernel}, {}", std::env::consts::ARCH)));
    checks.push(match read("/sys/bus/event_source/devices/uprobe/type") {
        Some(_) => Check::ok("uprobes", "the kernel has them".to_owned()),
        None => Check::bad("uprobes", "no uprobe events: the kernel needs CONFIG_UPROBE_EVENTS".to_owned()),
    });
    checks.push(capabilities());
    checks.push(match read("/sys/kernel/security/lockdown") {
        Some(text) if text.contains("[confidentiality]") => Check::bad(
            "lockdown",
            "confidentiality: this locked down kernel does not take gotracer's programs".to_owned(),
        ),
        Some(text) => Check::info("lockdown", text),
        None => {
            Check::info("lockdown", "not known: securityfs is not mounted or the kernel has no lockdown".to_owned())
        }
    });
    checks
}

/// Whether we hold what bpf(2), perf_event_open(2) and the tracee's /proc files ask for.
fn capabilities() -> Check {
    const SYS_ADMIN: u32 = 21;
    const NEEDED: [(&str, u32); 4] =
        [("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", SYS_ADMIN), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_SYS_ADMIN stands in for those that were split off from it.
    let has = |bit: u32| effective & (1 << bit) != 0 || (bit > SYS_ADMIN && effective & (1 << SYS_ADMIN) != 0);
    let missing: Vec<&str> = NEEDED.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        Check::ok("capabilities", "all that are needed".to_owned())
    } else {
        Check::bad("capabilities", format!("missing {}: run as root", missing.join(", ")))
    }
}

/// Loads the programs, opens the buffers, and hits a probe on ourselves.
fn try_kernel() -> Result<Cost, Failure> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let (mut programs, maps) = KernelPrograms::load_with(Capacity::for_goroutines(0), Execs::Traced)?;
    let mut stream = EventStream::open(maps.events, maps.counts)?;
    // Programs that are loaded later refer to these.
    let _kept = maps.kept;
    let (cost, probes) = calibrate(&mut programs)?;
    drop(probes);
    let mut events = Vec::new();
    stream.finish(&mut events)?;
    if events.is_empty() {
        return Err("a probe on gotracer itself did not fire".into());
    }
    Ok(cost)
}

fn process_report(pid: u32) -> Result<ProcessReport, Failure> {
    let tracee = Tracee::open(Process::open(Pid(pid))?)?;
    let program = tracee.program();
    Ok(ProcessReport {
        pid,
        exe: program.name.clone(),
        go_version: program.binary.version().to_string(),
        arch: program.binary.arch().name(),
        pie: program.binary.is_pie(),
        layouts_from: match &program.layout.source {
            LayoutSource::Dwarf => "its DWARF".to_owned(),
            LayoutSource::Table { verified_with } => format!("the table made with {verified_with}"),
        },
        probes: PROBES.iter().map(|probe| place(&program.binary, probe, Nops::of_this_kernel())).collect(),
    })
}

impl Report {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for check in &self.checks {
            let mark = match check.ok {
                Some(true) => "ok",
                Some(false) => "MISSING",
                None => "",
            };
            writeln!(out, "{:<14} {mark:<8} {}", check.name, check.found)?;
        }
        if let Some(cost) = &self.cost {
            let Trap { emulated_ns, nop5_ns, single_stepped_ns } = cost.trap;
            let nop5 = nop5_ns.map_or_else(String::new, |ns| format!(", {ns:.0} ns on a five-byte nop"));
            writeln!(
                out,
                "{:<14} {:<8} {emulated_ns:.0} ns emulated{nop5}, {single_stepped_ns:.0} ns single-stepped",
                "cost of a trap", ""
            )?;
            writeln!(
                out,
                "{:<14} {:<8} {:.0} ns with its event, {:.0} ns where the kernel keeps states (emulated, trap included)",
                "cost of a hit",
                "",
                emulated_ns + cost.event_ns,
                emulated_ns + cost.kept_ns
            )?;
        }
        writeln!(out, "\nkernel features, found by trying:")?;
        for feature in &self.features {
            let mark = match (feature.found, feature.needed) {
                (Some(true), _) => "ok",
                (_, true) => "MISSING",
                (Some(false), false) => "no",
                (None, false) => "unknown",
            };
            let why = feature.why.as_deref().unwrap_or_default();
            let optional = if feature.needed || feature.found == Some(true) { "" } else { "; not needed" };
            let line = format!("  {:<22} {mark:<8} {why}{optional}", feature.feature.name());
            writeln!(out, "{}", line.trim_end())?;
        }
        if !self.instructions.is_empty() {
            writeln!(out, "\na uprobe on:")?;
        }
        for executed in &self.instructions {
            let how = if executed.emulated { "emulated" } else { "single-stepped" };
            writeln!(
                out,
                "  {:<22} {how}, {:.0} ns, {:.2} of a single step",
                executed.instruction, executed.hit_ns, executed.relative
            )?;
        }
        let Some(process) = &self.process else { return Ok(()) };
        writeln!(out)?;
        let pie = if process.pie { ", position-independent" } else { "" };
        writeln!(out, "process {}: {}", process.pid, process.exe)?;
        writeln!(out, "{}, {}{pie}; layouts from {}", process.go_version, process.arch, process.layouts_from)?;
        writeln!(out)?;
        for verdict in &process.probes {
            match verdict {
                Verdict::Placed(p) => {
                    let how = match p.execution {
                        Execution::Called => "called",
                        Execution::Emulated => "emulated",
                        Execution::SingleStepped => "single-stepped",
                        Execution::Rejected => "rejected",
                    };
                    let cost = self.cost.and_then(|cost| cost.of(p.execution));
                    let cost = cost.map_or_else(|| "cost unknown".to_owned(), |ns| format!("about {ns:.0} ns a hit"));
                    writeln!(
                        out,
                        "{:<8} {:<32} `{}`, {how}, {cost}",
                        event_name(p.event),
                        format!("{}+{}", p.function, p.into_function),
                        p.instruction
                    )?;
                }
                Verdict::NotApplicable { event, function } => {
                    writeln!(
                        out,
                        "{:<8} {function:<32} not in this program: nothing to see there",
                        event_name(*event)
                    )?;
                }
                Verdict::Unplaceable { event, function, reason, .. } => {
                    writeln!(out, "{:<8} {function:<32} NO PLACE: {reason}", event_name(*event))?;
                }
            }
        }
        Ok(())
    }
}

fn event_name(event: Event) -> &'static str {
    match event {
        Event::Created => "created",
        Event::Blocked => "blocked",
        Event::Running => "running",
        Event::Exited => "exited",
    }
}

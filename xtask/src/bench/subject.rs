//! The Go program that is measured, `tests/programs/bench`: one process, told what to do by lines.
//!
//! In: a Go version and commands. Out: what each took, and the placements of gotracer's probes in the program.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use gotracer::probes::catalogue::{Event, PROBES};
use gotracer::probes::instruction::Execution;
use gotracer::probes::{Nops, Placement, Verdict, place};
use gotracer::process::Process;
use gotracer::tracee::Program;
use gotracer::units::{Pc, Pid};
use gotracer_tests::child::Running;

use crate::programs;

/// The running program. Killed when dropped, and ended by the end of its stdin if we are killed.
pub struct Subject {
    running: Running,
    path: PathBuf,
    program: Program,
    /// Where the probes stand that every Go program has, in the order of the catalogue.
    probes: Vec<Placement>,
}

/// What one command took.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub struct Took {
    /// How many times it did what it was told.
    pub count: f64,
    /// By the clock.
    pub ns: f64,
    /// Of the processors' time, of all threads together.
    pub cpu_ns: f64,
}

impl Subject {
    /// Builds it with Go `version` and starts it.
    pub fn start(version: &str) -> Result<Self> {
        let path = programs::build_with("bench", version)?;
        let mut running = Running::start("the bench's program", with_us(&mut Command::new(&path)))?;
        running.await_line("READY")?;
        let program = Program::of(&Process::open(Pid(running.pid()))?)?;
        let mut probes = Vec::new();
        for probe in PROBES.iter().filter(|probe| !probe.optional) {
            match place(&program.binary, probe, Nops::of_this_kernel()) {
                Verdict::Placed(placement) => probes.push(placement),
                other => bail!("no place for a probe in the bench's program: {other:?}"),
            }
        }
        Ok(Self { running, path, program, probes })
    }

    pub fn pid(&self) -> Pid {
        Pid(self.running.pid())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn probes(&self) -> &[Placement] {
        &self.probes
    }

    /// gotracer's own probe for `event`.
    pub fn probe(&self, event: Event) -> Result<&Placement> {
        self.probes.iter().find(|p| p.event == event).with_context(|| format!("no probe for {event:?}"))
    }

    /// The entry of a function that has one body.
    pub fn entry(&self, function: &str) -> Result<Pc> {
        entry(&self.program, function)
    }

    /// The place at which other tracers put their probes, with the program that does nothing.
    pub fn at_entry(&self, event: Event, function: &'static str) -> Result<Placement> {
        let pc = self.entry(function)?;
        let offset = self.program.binary.file_offset(pc).context("an entry that is not in the file")?;
        Ok(Placement {
            event,
            function,
            program: "nothing",
            pc,
            offset,
            into_function: 0,
            instruction: "the stack check".to_owned(),
            execution: Execution::SingleStepped,
        })
    }

    /// Has it do what `command` says.
    pub fn run(&mut self, command: &str) -> Result<Took> {
        self.running.send(command)?;
        let result = self.running.await_line("RESULT ")?;
        serde_json::from_str(&result).with_context(|| format!("{command} gave {result:?}"))
    }
}

/// The entry of a function that has one body.
pub fn entry(program: &Program, function: &str) -> Result<Pc> {
    match program.binary.functions().by_name(function).as_slice() {
        [one] => Ok(one.entry()),
        // The body and the wrapper by which assembly calls it: the wrapper is the shorter.
        [one, other] => {
            Ok(if one.end().0 - one.entry().0 > other.end().0 - other.entry().0 { one } else { other }.entry())
        }
        found => bail!("{} functions of the bench's program are called {function}", found.len()),
    }
}

/// A command whose process does not outlive the thread that starts it, however that ends.
pub fn with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec, prctl is a plain system call: no lock, no allocation.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

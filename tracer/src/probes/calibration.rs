//! What a probe costs on this machine, measured on a function of our own.
//!
//! Out: nanoseconds a hit, by how the kernel executes the probed instruction. A hit is a trap, the kernel program, and
//! an event put in the perf buffer: what a target pays for each event.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::attach::{AttachError, KernelPrograms};
use super::catalogue::Event;
use super::instruction::Execution;
use super::own_code;
use super::placement::Placement;
use crate::process::{Process, ProcessError};
use crate::units::{Pc, Pid, RemoteAddr};

/// What one hit costs the target, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// On an instruction that the kernel emulates.
    pub emulated_ns: f64,
    /// On an instruction that it single-steps.
    pub single_stepped_ns: f64,
}

impl Cost {
    /// The cost of a hit on an instruction of this kind; `None` where there cannot be a probe.
    #[must_use]
    pub fn of(&self, execution: Execution) -> Option<f64> {
        match execution {
            Execution::Emulated => Some(self.emulated_ns),
            Execution::SingleStepped => Some(self.single_stepped_ns),
            Execution::Rejected => None,
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The probe.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Our own maps.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A function of ours is not where our maps say.
    #[error(transparent)]
    NotMapped(#[from] std::io::Error),
}

/// A function with an instruction to probe: takes the address that the kernel program takes for a g.
struct Subject {
    name: &'static str,
    call: extern "C" fn(*const u64),
    /// Bytes from its entry to the probed instruction.
    probe_at: u64,
    execution: Execution,
}

#[cfg(target_arch = "x86_64")]
const SUBJECTS: [Subject; 2] = {
    #[unsafe(naked)]
    extern "C" fn emulated(_g: *const u64) {
        core::arch::naked_asm!("mov rax, rdi", "push rbp", "pop rbp", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn single_stepped(_g: *const u64) {
        core::arch::naked_asm!("mov rax, rdi", "mov rcx, rcx", "ret")
    }
    [
        Subject { name: "push", call: emulated, probe_at: 3, execution: Execution::Emulated },
        Subject { name: "mov", call: single_stepped, probe_at: 3, execution: Execution::SingleStepped },
    ]
};

#[cfg(target_arch = "aarch64")]
const SUBJECTS: [Subject; 2] = {
    #[unsafe(naked)]
    extern "C" fn emulated(_g: *const u64) {
        core::arch::naked_asm!("b 1f", "1:", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn single_stepped(_g: *const u64) {
        core::arch::naked_asm!("mov x1, x1", "ret")
    }
    [
        Subject { name: "b", call: emulated, probe_at: 0, execution: Execution::Emulated },
        Subject { name: "mov", call: single_stepped, probe_at: 0, execution: Execution::SingleStepped },
    ]
};

/// Measures each kind for a few milliseconds. The events go to whatever buffers are open, under our own PID.
///
/// # Errors
///
/// If the probes cannot be attached.
pub fn calibrate(programs: &mut KernelPrograms) -> Result<Cost, CalibrationError> {
    let us = Process::open(Pid(std::process::id()))?;
    // A "g" of one word, its goid.
    let entry = gotracer_ebpf::Target::default();
    let mut cost = Cost { emulated_ns: 0.0, single_stepped_ns: 0.0 };
    for subject in SUBJECTS {
        let address = RemoteAddr(subject.call as usize as u64 + subject.probe_at);
        let placement = Placement {
            event: Event::Running,
            function: "gotracer's own",
            program: "running_at_call",
            pc: Pc(address.0),
            offset: own_code::file_offset(address)?,
            into_function: subject.probe_at,
            instruction: subject.name.to_owned(),
            execution: subject.execution,
        };
        let bare = ns_per_call(&subject);
        let probes = programs.attach(us.pid(), &us.exe(), entry, [&placement])?;
        let probed = ns_per_call(&subject);
        programs.detach(probes)?;
        let hit = (probed - bare).max(0.0);
        match subject.execution {
            Execution::Emulated => cost.emulated_ns = hit,
            Execution::SingleStepped => cost.single_stepped_ns = hit,
            Execution::Rejected => {}
        }
    }
    Ok(cost)
}

/// The best of several short runs: what is added to the least is other processes' time, not ours.
fn ns_per_call(subject: &Subject) -> f64 {
    const CALLS: u32 = 200;
    const ATLEAST: Duration = Duration::from_millis(5);
    let g = 1_u64;
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed() < ATLEAST {
        let round = Instant::now();
        for _ in 0..CALLS {
            (subject.call)(black_box(&raw const g));
        }
        best = best.min(round.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}

//! How this kernel executes an instruction on which a uprobe stands: in software within the breakpoint's trap, or as a copy
//! that takes a second trap.
//!
//! Tried with a counting uprobe, without eBPF, on functions of our own. Told by the price of a hit beside that of an
//! instruction which every kernel single-steps: measured are 0.1 to 0.55 for the one way, 0.87 and more for the other
//! (docs/kernels.md), on x86_64 and arm64, in machines and in emulators.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::kernel::perf_event::{self, Attributes};
use crate::probes::{bpf, own_code};
use crate::units::RemoteAddr;

/// How an instruction is executed under a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Executed {
    /// In the architecture's assembler.
    pub instruction: &'static str,
    /// Whether within one trap.
    pub emulated: bool,
    /// What a hit costs, in nanoseconds, without any program.
    pub hit_ns: f64,
    /// That beside what a hit of the single-stepped instruction costs.
    pub relative: f64,
}

/// A function and how far into it the probe goes.
struct Subject {
    instruction: &'static str,
    call: extern "C" fn(),
    probe_at: u64,
}

/// Single-stepped by every kernel. It changes a register: a move of one to itself is a nop to kernels that emulate all nops, such as 7.3.
const REFERENCE: usize = 0;

#[cfg(target_arch = "x86_64")]
const SUBJECTS: [Subject; 6] = {
    #[unsafe(naked)]
    extern "C" fn mov() {
        core::arch::naked_asm!("mov rcx, rax", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn nop() {
        core::arch::naked_asm!("nop", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn nop5() {
        core::arch::naked_asm!(".byte 0x0f, 0x1f, 0x44, 0x00, 0x00", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn push() {
        core::arch::naked_asm!("push rbp", "pop rbp", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn call() {
        core::arch::naked_asm!("call 2f", "ret", "2:", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn jcc() {
        core::arch::naked_asm!("jbe 2f", "2:", "ret")
    }
    [
        Subject { instruction: "mov", call: mov, probe_at: 0 },
        Subject { instruction: "nop", call: nop, probe_at: 0 },
        Subject { instruction: "nop5", call: nop5, probe_at: 0 },
        Subject { instruction: "push", call: push, probe_at: 0 },
        Subject { instruction: "call", call, probe_at: 0 },
        Subject { instruction: "jcc", call: jcc, probe_at: 0 },
    ]
};

#[cfg(target_arch = "aarch64")]
const SUBJECTS: [Subject; 6] = {
    #[unsafe(naked)]
    extern "C" fn mov() {
        core::arch::naked_asm!("mov x1, x0", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn nop() {
        core::arch::naked_asm!("nop", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn stp() {
        core::arch::naked_asm!("stp x29, x30, [sp, #-16]!", "ldp x29, x30, [sp], #16", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn str() {
        core::arch::naked_asm!("str x30, [sp, #-16]!", "ldr x30, [sp], #16", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn bl() {
        core::arch::naked_asm!("mov x9, x30", "bl 2f", "ret x9", "2:", "ret")
    }
    #[unsafe(naked)]
    extern "C" fn bcond() {
        core::arch::naked_asm!("b.ls 2f", "2:", "ret")
    }
    [
        Subject { instruction: "mov", call: mov, probe_at: 0 },
        Subject { instruction: "nop", call: nop, probe_at: 0 },
        Subject { instruction: "stp", call: stp, probe_at: 0 },
        Subject { instruction: "str", call: str, probe_at: 0 },
        Subject { instruction: "bl", call: bl, probe_at: 4 },
        Subject { instruction: "b.cond", call: bcond, probe_at: 0 },
    ]
};

/// Measures each instruction for some milliseconds; the first is the one that is single-stepped.
///
/// # Errors
///
/// If the kernel has no uprobes or does not let us use them.
pub fn measure() -> io::Result<Vec<Executed>> {
    let kind = bpf::uprobe_kind()?;
    let mut hits = Vec::new();
    for subject in &SUBJECTS {
        hits.push(ns_of_a_hit(subject, kind)?);
    }
    let reference = hits[REFERENCE].max(f64::MIN_POSITIVE);
    let executed = SUBJECTS.iter().zip(hits).map(|(subject, hit_ns)| {
        let relative = hit_ns / reference;
        Executed { instruction: subject.instruction, emulated: relative < EMULATED_BELOW, hit_ns, relative }
    });
    Ok(executed.collect())
}

/// Between the two ways: see the head of this file.
const EMULATED_BELOW: f64 = 0.72;

fn ns_of_a_hit(subject: &Subject, kind: u32) -> io::Result<f64> {
    const EXE: &CStr = c"/proc/self/exe";
    let offset = own_code::file_offset(RemoteAddr(subject.call as usize as u64 + subject.probe_at))?;
    let bare = best_ns(subject);
    let event = perf_event::open(&Attributes::uprobe(kind, EXE, offset.0), 0, -1)?;
    let probed = best_ns(subject);
    let mut count = [0; 8];
    File::from(event).read_exact(&mut count)?;
    if u64::from_ne_bytes(count) == 0 {
        return Err(io::Error::other("a uprobe on gotracer itself did not fire"));
    }
    Ok((probed - bare).max(0.0))
}

/// The best of many short runs: what is added to the least is other processes' time, not ours. In an emulated machine on
/// a busy host a hit takes 20 us, and one run in two is interrupted.
fn best_ns(subject: &Subject) -> f64 {
    const CALLS: u32 = 20;
    const RUNS: u32 = 50;
    const AT_LEAST: Duration = Duration::from_millis(4);
    let begin = Instant::now();
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < RUNS || begin.elapsed() < AT_LEAST {
        runs += 1;
        let round = Instant::now();
        for _ in 0..CALLS {
            (subject.call)();
        }
        best = best.min(round.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}

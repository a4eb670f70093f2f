//! What a probe costs on this machine, measured on functions of our own.
//!
//! Out: nanoseconds a hit, by how the kernel executes the probed instruction and by what the kernel program does. A hit
//! is a trap, or on a five-byte nop and a kernel that knows how, a call; and the kernel program, with its event put in
//! the buffer or its record changed. It is that of a program that does other things between two hits: in a tight loop, where
//! all that a hit needs stays in the caches, it is about a quarter less.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gotracer_ebpf::{Control, MODE_EVENTS, MODE_OFF, MODE_STATES, Target};
use serde::Serialize;

use super::attach::{AttachError, KernelPrograms, Probes};
use super::catalogue::Event;
use super::instruction::Execution;
use super::own_code;
use super::placement::Placement;
use crate::process::{Process, ProcessError};
use crate::units::{Pc, Pid, RemoteAddr};

/// What one hit costs the target, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Before the kernel program does anything.
    pub trap: Trap,
    /// What the program for parks and runs adds with its event.
    pub event_ns: f64,
    /// What it adds where the kernel keeps states.
    pub kept_ns: f64,
    /// What the program for births adds with its event.
    pub created_event_ns: f64,
    /// What it adds where the kernel keeps states, its event included.
    pub created_kept_ns: f64,
}

/// What it costs to come to the kernel program and back, by the probed instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Trap {
    /// On an instruction that the kernel emulates.
    pub emulated_ns: f64,
    /// On a five-byte nop, which kernels from 6.18 turn into a call; `None` where the architecture has none.
    pub nop5_ns: Option<f64>,
    /// On an instruction that it single-steps.
    pub single_stepped_ns: f64,
}

impl Trap {
    /// The cost on an instruction of this kind; `None` where there cannot be a probe.
    #[must_use]
    pub fn of(&self, execution: Execution) -> Option<f64> {
        match execution {
            Execution::Called => self.nop5_ns,
            Execution::Emulated => Some(self.emulated_ns),
            Execution::SingleStepped => Some(self.single_stepped_ns),
            Execution::Rejected => None,
        }
    }
}

impl Cost {
    /// The cost of a hit with its event on an instruction of this kind; `None` where there cannot be a probe.
    #[must_use]
    pub fn of(&self, execution: Execution) -> Option<f64> {
        self.trap.of(execution).map(|trap| trap + self.event_ns)
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

/// A function with instructions to probe: takes the address that the kernel program takes for a g.
type Subject = extern "C" fn(*const u64);

/// The functions, and bytes from their entries to the probed instructions.
#[cfg(target_arch = "x86_64")]
mod subjects {
    use super::Subject;

    /// Two pushes, the g in R14 and RAX.
    pub(super) const PARK_AND_RUN: (Subject, [u64; 2]) = (park_and_run, [8, 10]);
    /// One push, the g in RAX.
    pub(super) const BIRTH: (Subject, u64) = (birth, 3);
    /// A five-byte nop.
    pub(super) const NOP5: Option<(Subject, u64)> = Some((nop5, 3));
    /// A move that changes something: one that does not is a nop to newer kernels, and emulated.
    pub(super) const SINGLE_STEPPED: (Subject, u64) = (single_stepped, 3);

    #[unsafe(naked)]
    extern "C" fn park_and_run(_g: *const u64) {
        core::arch::naked_asm!(
            "push r14",
            "mov rax, rdi",
            "mov r14, rdi",
            "push rbp",
            "pop rbp",
            "push rbp",
            "pop rbp",
            "pop r14",
            "ret"
        )
    }

    #[unsafe(naked)]
    extern "C" fn birth(_g: *const u64) {
        core::arch::naked_asm!("mov rax, rdi", "push rbp", "pop rbp", "ret")
    }

    #[unsafe(naked)]
    extern "C" fn nop5(_g: *const u64) {
        core::arch::naked_asm!("mov rax, rdi", ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00", "ret")
    }

    #[unsafe(naked)]
    extern "C" fn single_stepped(_g: *const u64) {
        core::arch::naked_asm!("mov rax, rdi", "mov rcx, rax", "ret")
    }
}

#[cfg(target_arch = "aarch64")]
mod subjects {
    use super::Subject;

    /// Two branches, the g in X28 and X0.
    pub(super) const PARK_AND_RUN: (Subject, [u64; 2]) = (park_and_run, [8, 12]);
    /// A branch, the g in X0.
    pub(super) const BIRTH: (Subject, u64) = (birth, 0);
    pub(super) const NOP5: Option<(Subject, u64)> = None;
    /// A move that changes something: one that does not is a nop to newer kernels, and emulated.
    pub(super) const SINGLE_STEPPED: (Subject, u64) = (single_stepped, 0);

    #[unsafe(naked)]
    extern "C" fn park_and_run(_g: *const u64) {
        core::arch::naked_asm!(
            "str x28, [sp, #-16]!",
            "mov x28, x0",
            "b 1f",
            "1:",
            "b 2f",
            "2:",
            "ldr x28, [sp], #16",
            "ret"
        )
    }

    #[unsafe(naked)]
    extern "C" fn birth(_g: *const u64) {
        core::arch::naked_asm!("b 1f", "1:", "ret")
    }

    #[unsafe(naked)]
    extern "C" fn single_stepped(_g: *const u64) {
        core::arch::naked_asm!("mov x1, x0", "ret")
    }
}

/// A g as [`entry`] describes it: a goid, and what tells of a birth.
const G: [u64; 4] = [1, 0, 0, 0];

fn entry() -> Target {
    Target { birth_together: 1, ..Target::default() }
}

/// Measures each kind for a few milliseconds. The events go to whatever buffers are open, under our own PID; there must
/// be room for 20,000 on each CPU, for what finds no room costs less. What gives [`KernelPrograms`] room for records
/// must have left some.
///
/// Gives the probes, too: it takes up to a tenth of a second each to detach them.
///
/// # Errors
///
/// If the probes cannot be attached.
pub fn calibrate(programs: &mut KernelPrograms) -> Result<(Cost, Vec<Probes>), CalibrationError> {
    let us = Process::open(Pid(std::process::id()))?;
    let ours = Ours { pid: us.pid() };
    programs.know(ours.pid, entry())?;
    let mut attached = Vec::new();
    let mut elsewhere = Elsewhere::new();
    let mut epoch = 0;
    let mut measure = |programs: &mut KernelPrograms,
                       elsewhere: &mut Elsewhere,
                       subject: Subject,
                       mode: u8|
     -> Result<f64, AttachError> {
        epoch += 1;
        programs.want(ours.pid, Control { mode, sample_shift: 0, epoch })?;
        Ok(ns_per_call(subject, elsewhere))
    };

    let (park_and_run, [park, run]) = subjects::PARK_AND_RUN;
    let bare = ns_per_call(park_and_run, &mut elsewhere);
    let probes = [
        ours.placement(park_and_run, park, "blocked_at_entry")?,
        ours.placement(park_and_run, run, "running_at_call")?,
    ];
    attached.push(programs.attachment(ours.pid, &us.exe(), &probes)?.attach()?);
    let mut hit = |mode| -> Result<f64, AttachError> {
        Ok(((measure(programs, &mut elsewhere, park_and_run, mode)? - bare) / 2.0).max(0.0))
    };
    let emulated_ns = hit(MODE_OFF)?;
    let event_ns = (hit(MODE_EVENTS)? - emulated_ns).max(0.0);
    let kept_ns = (hit(MODE_STATES)? - emulated_ns).max(0.0);

    let mut alone = |programs: &mut KernelPrograms, (subject, at), program, modes: &[u8]| {
        let bare = ns_per_call(subject, &mut elsewhere);
        let placement = ours.placement(subject, at, program)?;
        attached.push(programs.attachment(ours.pid, &us.exe(), [&placement])?.attach()?);
        let hits = modes.iter().map(|mode| Ok((measure(programs, &mut elsewhere, subject, *mode)? - bare).max(0.0)));
        hits.collect::<Result<Vec<f64>, CalibrationError>>()
    };
    let births = alone(programs, subjects::BIRTH, "created_at_return", &[MODE_EVENTS, MODE_STATES])?;
    let single_stepped = alone(programs, subjects::SINGLE_STEPPED, "running_at_call", &[MODE_OFF])?;
    let nop5 = match subjects::NOP5 {
        Some(subject) => Some(alone(programs, subject, "running_at_call", &[MODE_OFF])?),
        None => None,
    };
    programs.forget(ours.pid)?;
    let first = |hits: &[f64]| hits.first().copied().unwrap_or_default();
    let cost = Cost {
        trap: Trap { emulated_ns, nop5_ns: nop5.as_deref().map(first), single_stepped_ns: first(&single_stepped) },
        event_ns,
        kept_ns,
        created_event_ns: (first(&births) - emulated_ns).max(0.0),
        created_kept_ns: (births.last().copied().unwrap_or_default() - emulated_ns).max(0.0),
    };
    Ok((cost, attached))
}

/// Our own process.
struct Ours {
    pid: Pid,
}

impl Ours {
    fn placement(&self, subject: Subject, at: u64, program: &'static str) -> Result<Placement, CalibrationError> {
        let address = RemoteAddr(subject as usize as u64 + at);
        Ok(Placement {
            event: Event::Running,
            function: "gotracer's own",
            program,
            pc: Pc(address.0),
            offset: own_code::file_offset(address)?,
            into_function: at,
            instruction: "its instruction".to_owned(),
            // Not looked at: this is what is to be found out.
            execution: Execution::Emulated,
        })
    }
}

/// What a call takes in a program that does other things in between: each is timed apart, after [`Elsewhere::go`]. The median of
/// a window, for some calls are interrupted; the least of windows apart in time, because a virtual machine can be slow for all
/// of one.
fn ns_per_call(subject: Subject, elsewhere: &mut Elsewhere) -> f64 {
    const WINDOWS: u32 = 3;
    const WINDOW: Duration = Duration::from_millis(3);
    let mut least = f64::INFINITY;
    let mut calls = Vec::new();
    for window in 0..WINDOWS {
        if window > 0 {
            std::thread::sleep(WINDOW);
        }
        calls.clear();
        let begin = Instant::now();
        // One at least: on a busy machine a window may pass before its first call.
        while calls.is_empty() || begin.elapsed() < WINDOW {
            elsewhere.go();
            let call = Instant::now();
            subject(black_box(G.as_ptr()));
            calls.push(call.elapsed());
        }
        let middle = calls.len() / 2;
        least = least.min(calls.select_nth_unstable(middle).1.as_nanos() as f64);
    }
    least
}

/// What a program does between two hits, as far as hits notice: other code and other data have taken the place of the
/// kernel's in a core's first caches, and other pages have taken it among the translations of addresses that the core
/// remembers; and the kernel was entered for something else.
///
/// As much of each as makes a hit cost what it costs in an HTTP server, within a fifth (docs/journal.md). With the second cache
/// full of other data it would be two to five times as much, which no program was seen to pay.
struct Elsewhere {
    data: Vec<u64>,
}

impl Elsewhere {
    /// As many as a core remembers translations of, or more.
    const PAGES: usize = 2048;
    /// In words: from page to page, and each time to another line of 64 bytes.
    const STRIDE: usize = (4096 + 64) / size_of::<u64>();

    fn new() -> Self {
        Self { data: vec![1; Self::PAGES * Self::STRIDE] }
    }

    fn go(&mut self) {
        for word in self.data.iter_mut().step_by(Self::STRIDE) {
            *word = black_box(*word).wrapping_add(1);
        }
        other_code();
        black_box(std::os::unix::process::parent_id());
    }
}

/// Jumps from line to line through some times as much code as a core's first cache holds.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn other_code() {
    core::arch::naked_asm!(".rept 2048", "jmp 2f", ".balign 64", "2:", ".endr", "ret")
}

/// Jumps from line to line through some times as much code as a core's first cache holds.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
extern "C" fn other_code() {
    core::arch::naked_asm!(".rept 2048", "b 2f", ".balign 64", "2:", ".endr", "ret")
}

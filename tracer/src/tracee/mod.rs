//! A target: one process that runs one Go program.
//!
//! In: a [`Process`]. Out: a [`Tracee`]: the process, the facts of its executable, the runtime's layout in it, and where
//! it was loaded; with these, names for its addresses. Must not know probes or events.

mod names;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use names::TraceeNames;

use crate::binary::{Arch, Binary, BinaryError};
use crate::go_runtime::{Globals, Layout, LayoutError, WaitReasons};
use crate::process::{Process, ProcessError};
use crate::units::{Pc, Pid, RemoteAddr};

/// Why a process is no target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceeError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its executable.
    #[error("cannot trace {exe}: {why}")]
    Binary {
        /// The executable.
        exe: String,
        /// What is wrong with it.
        why: BinaryError,
    },
    /// Its Go runtime.
    #[error("cannot trace {exe}: {why}")]
    Layout {
        /// The executable.
        exe: String,
        /// What is not known of it.
        why: LayoutError,
    },
    /// Its processor is not this machine's.
    #[error("cannot trace {exe}: it is a program for {found}, under emulation; gotracer sees {expected} code only")]
    Architecture {
        /// The executable.
        exe: String,
        /// What it was built for.
        found: &'static str,
        /// What this machine is.
        expected: &'static str,
    },
    /// gotracer itself is in a PID namespace, where the kernel's PIDs are not ours.
    #[error("gotracer runs in a PID namespace of its own; start it in the host's (hostPID: true, --pid=host)")]
    PidNamespace,
    /// It is not mapped.
    #[error("process {pid} has no executable mapping of {exe}")]
    NotMapped {
        /// The process.
        pid: Pid,
        /// The executable.
        exe: String,
    },
}

/// One Go program: its executable's facts and the runtime's layout in it.
#[derive(Clone, Debug)]
pub struct Program {
    /// A path under which the kernel finds the file that was read, for as long as `binary` lives.
    pub exe: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// The executable's facts.
    pub binary: Arc<Binary>,
    /// The runtime's layout.
    pub layout: Arc<Layout>,
    /// Its wait reasons.
    pub wait_reasons: Arc<WaitReasons>,
    /// Shared by all copies: of a stripped program its code is searched for them.
    globals: Arc<OnceLock<Globals>>,
}

impl Program {
    /// Reads the executable `file`, called `name`.
    ///
    /// # Errors
    ///
    /// If it is not a Go program of a version that gotracer knows, for this machine's processor.
    pub fn open(name: String, file: File) -> Result<Self, TraceeError> {
        // By our own descriptor: probes go into the file that was read and no other, also if the process replaces its
        // program in between, or somebody the file.
        let exe = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let binary = match Binary::open(file) {
            Ok(binary) => binary,
            Err(why) => return Err(TraceeError::Binary { exe: name, why }),
        };
        if binary.arch() != HOST {
            return Err(TraceeError::Architecture { exe: name, found: binary.arch().name(), expected: HOST.name() });
        }
        let layout = match Layout::of(&binary) {
            Ok(layout) => layout,
            Err(why) => return Err(TraceeError::Layout { exe: name, why }),
        };
        // Without names, reasons are shown as numbers.
        let wait_reasons = WaitReasons::of(&binary).unwrap_or_default();
        let (binary, layout, wait_reasons) = (Arc::new(binary), Arc::new(layout), Arc::new(wait_reasons));
        Ok(Self { exe, name, binary, layout, wait_reasons, globals: Arc::default() })
    }

    /// Where the runtime's variables are, found when they are first asked for.
    #[must_use]
    pub fn globals(&self) -> &Globals {
        self.globals.get_or_init(|| Globals::of(&self.binary, &self.layout))
    }

    /// Reads the executable of `process`.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and if the process is gone or we may not.
    pub fn of(process: &Process) -> Result<Self, TraceeError> {
        let file = process.open_exe()?;
        Self::open(process.exe_name()?, file)
    }
}

/// The architecture that this gotracer runs on.
#[cfg(target_arch = "x86_64")]
const HOST: Arch = Arch::Amd64;
#[cfg(target_arch = "aarch64")]
const HOST: Arch = Arch::Arm64;

/// A process that runs a Go program.
#[derive(Debug)]
pub struct Tracee {
    process: Process,
    program: Program,
    bias: Option<LoadBias>,
}

/// How far from its link-time addresses the kernel loaded a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadBias(u64);

impl LoadBias {
    /// The bias that puts the link-time address `pc` at `remote`.
    #[must_use]
    pub fn between(pc: Pc, remote: RemoteAddr) -> Self {
        Self(remote.0.wrapping_sub(pc.0))
    }

    /// The link-time address of `remote`.
    #[must_use]
    pub fn pc(self, remote: RemoteAddr) -> Pc {
        Pc(remote.0.wrapping_sub(self.0))
    }

    /// The address in the process of `pc`.
    #[must_use]
    pub fn remote(self, pc: Pc) -> RemoteAddr {
        RemoteAddr(pc.0.wrapping_add(self.0))
    }
}

impl Tracee {
    /// Looks at a running process.
    ///
    /// # Errors
    ///
    /// If it is no target, each cause with its own sentence.
    pub fn open(process: Process) -> Result<Self, TraceeError> {
        in_host_pid_namespace()?;
        let program = Program::of(&process)?;
        let mut target = Self { process, program, bias: None };
        target.locate()?;
        Ok(target)
    }

    /// A running process whose executable was read as `program`.
    ///
    /// # Errors
    ///
    /// If gotracer is in a PID namespace, or the process is gone or does not run it.
    pub fn with_program(process: Process, program: Program) -> Result<Self, TraceeError> {
        in_host_pid_namespace()?;
        let mut tracee = Self { process, program, bias: None };
        tracee.locate()?;
        Ok(tracee)
    }

    /// A process that is about to become `program`; where it will be loaded is not known yet.
    ///
    /// # Errors
    ///
    /// If gotracer is in a PID namespace.
    pub fn before_start(process: Process, program: Program) -> Result<Self, TraceeError> {
        in_host_pid_namespace()?;
        let bias = (!program.binary.is_pie()).then_some(LoadBias(0));
        Ok(Self { process, program, bias })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Where it is loaded, if that is known.
    #[must_use]
    pub fn bias(&self) -> Option<LoadBias> {
        self.bias
    }

    /// Gives the process back.
    #[must_use]
    pub fn into_process(self) -> Process {
        self.process
    }

    /// Finds out where the program is loaded, from the process's maps.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read or do not hold the executable.
    pub fn locate(&mut self) -> Result<(), TraceeError> {
        if !self.program.binary.is_pie() {
            self.bias = Some(LoadBias(0));
            return Ok(());
        }
        let bias = self.process.exe_mappings()?.into_iter().filter(|m| m.executable).find_map(|mapping| {
            let pc = self.program.binary.image().pc_at(mapping.offset)?;
            Some(LoadBias(mapping.start.0.wrapping_sub(pc.0)))
        });
        let Some(bias) = bias else {
            return Err(TraceeError::NotMapped { pid: self.process.pid(), exe: self.program.name.clone() });
        };
        self.bias = Some(bias);
        Ok(())
    }

    /// Finds out where the program is loaded from where its main goroutine began: for a process that was over before
    /// its maps could be read.
    pub fn locate_by_main(&mut self, startpc: RemoteAddr) {
        let main = self.program.binary.functions().by_name("runtime.main");
        if let (None, Some(main)) = (self.bias, main.first()) {
            self.bias = Some(LoadBias(startpc.0.wrapping_sub(main.entry().0)));
        }
    }
}

/// Kernel programs see PIDs as the initial namespace numbers them, so we must be in it.
///
/// # Errors
///
/// [`TraceeError::PidNamespace`] if we are not.
pub fn in_host_pid_namespace() -> Result<(), TraceeError> {
    use std::os::unix::fs::MetadataExt;
    /// `PROC_PID_INIT_INO` of <https://github.com/torvalds/linux/blob/v6.18/include/linux/proc_ns.h>.
    const INITIAL: u64 = 0xEFFF_FFFC;
    match std::fs::metadata("/proc/self/ns/pid") {
        Ok(namespace) if namespace.ino() != INITIAL => Err(TraceeError::PidNamespace),
        // Without /proc nothing works, and whatever comes next says so.
        Ok(_) | Err(_) => Ok(()),
    }
}

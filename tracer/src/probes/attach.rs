//! The eBPF object, and the uprobes of one process.
//!
//! In: placements and, for each process, its [`Target`] entry. Out: attached [`Probes`], and the two maps from which
//! [`events`](crate::events) reads. The kernel removes the probes when the last descriptor is closed, so they are gone
//! when we are, however we end.

use std::num::NonZeroU32;
use std::path::Path;

use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::uprobe::UProbeLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeScope};
use aya::programs::{ProgramError, RawTracePoint, UProbe};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use aya_log::EbpfLogger;
use gotracer_ebpf::{ARCH_ARM64, ARCH_X86_64};
use log::Log;

use super::kernel::Lack;
use super::placement::Placement;
use crate::units::Pid;

/// The kernel programs, built by `cargo xtask ebpf` and committed.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/gotracer.bpf.o"));

/// Registers of the architecture that we run on: a probe's registers are this machine's.
const ARCH: u32 = if cfg!(target_arch = "x86_64") { ARCH_X86_64 } else { ARCH_ARM64 };

/// Why the kernel did not take our programs or probes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The object was refused.
    #[error("this kernel does not take gotracer's programs; `gotracer doctor` tells what is missing")]
    Load(#[source] Box<EbpfError>),
    /// The verifier refused one program.
    #[error(
        "this kernel's verifier does not take the program {program} ({why}); please report this with the kernel's version"
    )]
    Refused {
        /// Its name.
        program: &'static str,
        /// The last thing that the verifier said.
        why: String,
    },
    /// One program could not be used.
    #[error("this kernel does not take the program {program}; `gotracer doctor` tells what is missing")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel lacks something.
    #[error(transparent)]
    Kernel(#[from] Lack),
    /// No permission for bpf(2).
    #[error("no permission to use eBPF: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE")]
    Permission,
    /// The process was gone before its probes were all attached.
    #[error("process {pid} exited while probes were being attached")]
    Exited {
        /// The process.
        pid: Pid,
    },
    /// A probe was refused.
    #[error("cannot attach to {function}+{into_function} (`{instruction}`) of process {pid}")]
    Attach {
        /// The process.
        pid: Pid,
        /// The function.
        function: &'static str,
        /// Bytes from its entry.
        into_function: u64,
        /// What stands there.
        instruction: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A probe was refused, for all processes of an executable.
    #[error("cannot attach to {function}+{into_function} (`{instruction}`) of {exe}")]
    AttachFile {
        /// The executable.
        exe: String,
        /// The function.
        function: &'static str,
        /// Bytes from its entry.
        into_function: u64,
        /// What stands there.
        instruction: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be used.
    #[error("the kernel refused an operation on the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
}

/// What the kernel must know of a process, as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Entry(gotracer_ebpf::Target);

// SAFETY: nine u32, no padding, any bits valid.
unsafe impl aya::Pod for Entry {}

/// The loaded eBPF object. Dropping it detaches everything.
pub struct KernelPrograms {
    ebpf: Ebpf,
    targets: HashMap<MapData, u32, Entry>,
    /// The programs' own log, where somebody listens.
    log: Option<EbpfLogger<&'static dyn Log>>,
    /// Held for as long as we are: tells of processes that replace their program.
    _exec: RawTracePointLink,
}

/// The maps by which events come up.
pub struct EventMaps {
    /// One perf buffer for each CPU goes in here.
    pub events: MapData,
    /// Events that did not come up, by cause and CPU.
    pub counts: PerCpuArray<MapData, u64>,
}

/// The uprobes of one executable, for every process that runs it; dropping them detaches them.
pub struct FileProbes {
    _links: Vec<UProbeLink>,
}

/// Of which processes the kernel tells that they replaced their program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execs {
    /// Of those that are traced.
    Traced,
    /// Of every process: for who looks for new ones.
    Every,
}

/// The uprobes of one process; dropping them detaches them.
pub struct Probes {
    pid: Pid,
    links: Vec<UProbeLink>,
}

impl Probes {
    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.links.len()
    }
}

impl KernelPrograms {
    /// Loads the object.
    ///
    /// # Errors
    ///
    /// If we may not, or the kernel lacks what the programs need.
    pub fn load() -> Result<(Self, EventMaps), AttachError> {
        Self::load_with(Execs::Traced)
    }

    /// Loads the object.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(execs: Execs) -> Result<(Self, EventMaps), AttachError> {
        if let Some(lack) = Lack::at_a_glance() {
            return Err(lack.into());
        }
        Self::load_object(execs).map_err(|error| match Lack::found_by_trying() {
            Some(lack) if !matches!(error, AttachError::Permission) => lack.into(),
            _ => error,
        })
    }

    fn load_object(execs: Execs) -> Result<(Self, EventMaps), AttachError> {
        let mut ebpf = EbpfLoader::new()
            .override_global("ARCH", &ARCH, true)
            .override_global("EVERY_EXEC", &u32::from(execs == Execs::Every), true)
            .override_global(aya_log::LEVEL, &log_level(), false)
            .load(OBJECT)
            .map_err(|error| {
                if is_permission(&error) { AttachError::Permission } else { AttachError::Load(Box::new(error)) }
            })?;
        let targets = ebpf.take_map("TARGETS").ok_or_else(|| missing("TARGETS"))?;
        let targets = HashMap::try_from(targets).map_err(map_error("TARGETS"))?;
        let counts = ebpf.take_map("COUNTS").ok_or_else(|| missing("COUNTS"))?;
        let counts = PerCpuArray::try_from(counts).map_err(map_error("COUNTS"))?;
        let events = match ebpf.take_map("EVENTS") {
            Some(aya::maps::Map::PerfEventArray(data)) => data,
            _ => return Err(missing("EVENTS")),
        };
        let exec = attach_exec(&mut ebpf).map_err(program_error("process_exec"))?;
        let log = match log_level() {
            0 => None,
            _ => EbpfLogger::init(&mut ebpf).inspect_err(|error| log::warn!("no log of kernel programs: {error}")).ok(),
        };
        Ok((Self { ebpf, targets, log, _exec: exec }, EventMaps { events, counts }))
    }

    /// Passes on what the kernel programs have logged: with `-vv`, which reads failed.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Tells the kernel programs of a process, then attaches `placements` in the executable at `exe` for it alone.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one of them; then none stays.
    pub fn attach<'p>(
        &mut self,
        pid: Pid,
        exe: &Path,
        entry: gotracer_ebpf::Target,
        placements: impl IntoIterator<Item = &'p Placement>,
    ) -> Result<Probes, AttachError> {
        let scope = NonZeroU32::new(pid.0).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
        self.targets.insert(pid.0, Entry(entry), 0).map_err(map_error("TARGETS"))?;
        let mut probes = Probes { pid, links: Vec::new() };
        for placement in placements {
            let program = self.uprobe(placement.program)?;
            let attached = program
                .attach(UProbeAttachLocation::AbsoluteOffset(placement.offset.0), exe, scope)
                .and_then(|id| program.take_link(id));
            match attached {
                Ok(link) => probes.links.push(link),
                Err(source) => return Err(attach_error(pid, placement, source)),
            }
        }
        Ok(probes)
    }

    /// Attaches `placements` in the executable at `exe` for every process that runs it, now or later. Only those that the
    /// kernel programs know of ([`Self::begin`]) send events; the others pay for the probes and send nothing.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one of them; then none stays.
    pub fn attach_file<'p>(
        &mut self,
        exe: &Path,
        name: &str,
        placements: impl IntoIterator<Item = &'p Placement>,
    ) -> Result<FileProbes, AttachError> {
        let mut links = Vec::new();
        for placement in placements {
            let program = self.uprobe(placement.program)?;
            let location = UProbeAttachLocation::AbsoluteOffset(placement.offset.0);
            let attached =
                program.attach(location, exe, UProbeScope::AllProcesses).and_then(|id| program.take_link(id));
            links.push(attached.map_err(|source| AttachError::AttachFile {
                exe: name.to_owned(),
                function: placement.function,
                into_function: placement.into_function,
                instruction: placement.instruction.clone(),
                source: Box::new(source),
            })?);
        }
        Ok(FileProbes { _links: links })
    }

    /// Tells the kernel programs of a process whose executable has [`FileProbes`]: its events come from here on.
    ///
    /// # Errors
    ///
    /// If the map refuses, as when it is full.
    pub fn begin(&mut self, pid: Pid, entry: gotracer_ebpf::Target) -> Result<(), AttachError> {
        self.targets.insert(pid.0, Entry(entry), 0).map_err(map_error("TARGETS"))
    }

    /// Forgets a process: no event of it comes any more.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn forget(&mut self, pid: Pid) -> Result<(), AttachError> {
        match self.targets.remove(&pid.0) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(map_error("TARGETS")(error)),
        }
    }

    /// Forgets a process and detaches its probes.
    ///
    /// Takes some 100 ms a probe, for the kernel waits each time until no CPU can be in it; closing them from several
    /// threads was tried and is no faster. No event comes any more from the moment the process is forgotten.
    ///
    /// # Errors
    ///
    /// If the map refuses; the probes are gone all the same.
    pub fn detach(&mut self, probes: Probes) -> Result<(), AttachError> {
        let forgotten = self.forget(probes.pid);
        drop(probes);
        forgotten
    }

    /// A program of the object, loaded when it is first needed.
    fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, AttachError> {
        let refused = program_error(name);
        let program = self.ebpf.program_mut(name).ok_or_else(|| refused(ProgramError::NotLoaded))?;
        let program: &mut UProbe = program.try_into().map_err(&refused)?;
        if program.fd().is_err() {
            program.load().map_err(refused)?;
        }
        Ok(program)
    }
}

fn attach_exec(ebpf: &mut Ebpf) -> Result<RawTracePointLink, ProgramError> {
    let program = ebpf.program_mut("process_exec").ok_or(ProgramError::NotLoaded)?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    let id = program.attach("sched_process_exec")?;
    program.take_link(id)
}

fn map_error(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> AttachError {
    move |source| AttachError::Map { map, source: Box::new(source) }
}

fn program_error(program: &'static str) -> impl Fn(ProgramError) -> AttachError {
    move |source| match &source {
        // The log is for developers of the programs, hundreds of lines: -v shows it.
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            log::info!("the verifier on {program}: {log}");
            if let Some(lack) = Lack::found_by_trying() {
                return lack.into();
            }
            let last = log.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("processed"));
            let why = format!("{io_error}: {}", last.unwrap_or("the verifier says nothing"));
            AttachError::Refused { program, why }
        }
        _ => AttachError::Program { program, source: Box::new(source) },
    }
}

fn missing(map: &'static str) -> AttachError {
    AttachError::Load(Box::new(EbpfError::MapError(aya::maps::MapError::InvalidName { name: map.to_owned() })))
}

/// What the kernel programs log: nothing, unless somebody listens.
fn log_level() -> u8 {
    if log::log_enabled!(log::Level::Debug) { aya_log::Level::Debug as u8 } else { 0 }
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source()).any(|e| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
    })
}

fn attach_error(pid: Pid, placement: &Placement, source: ProgramError) -> AttachError {
    let gone = std::iter::successors(Some(&source as &(dyn std::error::Error + 'static)), |e| e.source())
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)));
    if gone {
        return AttachError::Exited { pid };
    }
    AttachError::Attach {
        pid,
        function: placement.function,
        into_function: placement.into_function,
        instruction: placement.instruction.clone(),
        source: Box::new(source),
    }
}

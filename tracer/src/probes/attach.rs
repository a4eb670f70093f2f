//! The eBPF object, and the uprobes of one process.
//!
//! In: placements and, for each process, its [`Target`](gotracer_ebpf::Target) entry. Out: attached [`Probes`], and the
//! maps from which [`events`](crate::events) reads. The kernel removes the probes when the last descriptor is closed, so
//! they are gone when we are, however we end.

use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, Queue, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{ProgramError, RawTracePoint};
use aya::util::{nr_cpus, online_cpus};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use aya_log::EbpfLogger;
use gotracer_ebpf::{ARCH_ARM64, ARCH_X86_64, Blocks, Control, MODE_EVENTS, Record, RecordKey, SiteKey, Slot, Target};
use log::Log;

use super::features::Feature;
use super::kernel::Lack;
use super::placement::Placement;
use super::programs::{Program, Programs};
use super::uprobe::{Scope, Uprobe, Uprobes};
use crate::units::{FileOffset, Pid};

/// The kernel programs, built by `cargo xtask ebpf` and committed: with rings, and with perf buffers.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/gotracer.bpf.o"));
static OBJECT_PERF_BUFFER: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/gotracer-perf-buffer.bpf.o"));

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
    #[error("no permission to use eBPF: run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_SYS_ADMIN")]
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
        source: std::io::Error,
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
        source: std::io::Error,
    },
    /// The list of CPUs could not be read.
    #[error("cannot read {path}")]
    Cpus {
        /// The kernel's list.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
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

/// A type of the wire as a map key or value.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

// SAFETY: integers without padding between or behind them, any bits valid; so are those below.
unsafe impl aya::Pod for Wire<Target> {}
// SAFETY: as above.
unsafe impl aya::Pod for Wire<RecordKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Wire<Record> {}
// SAFETY: as above.
unsafe impl aya::Pod for Wire<SiteKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Wire<Blocks> {}

/// How much the kernel can keep for us. It takes the memory at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of all CPUs' events on their way.
    pub buffers: usize,
    /// Goroutines that live at a time; some 130 bytes each.
    pub goroutines: u32,
    /// Creation sites; some 400 bytes each for each CPU.
    pub sites: u32,
}

impl Capacity {
    /// For events alone: where records are not wanted. At a line of 64 bytes an event, two CPUs hold some 300 ms of a
    /// million events a second.
    pub const NONE: Self = Self { buffers: 32 << 20, goroutines: 1, sites: 1 };

    /// For a process that has had `goroutines` at a time.
    #[must_use]
    pub fn for_goroutines(goroutines: u64) -> Self {
        // What all sites may take on all CPUs together.
        const SITES_BYTES: usize = 32 << 20;
        let cpus = nr_cpus().unwrap_or(1).max(1);
        let sites = (SITES_BYTES / (size_of::<Blocks>() * cpus)).clamp(256, 4096);
        let goroutines = goroutines.saturating_mul(4).clamp(1 << 16, 1 << 21) as u32;
        Self { goroutines, sites: sites as u32, ..Self::NONE }
    }

    /// Bytes of one CPU's buffer, a power of two.
    fn buffer_of_each(self, cpus: usize) -> usize {
        /// Small ones overflow in a burst while the reader is off CPU, larger ones gain nothing.
        const BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=16 << 20;
        let each = (self.buffers / cpus.max(1)).clamp(*BYTES.start(), *BYTES.end());
        1 << each.ilog2()
    }
}

/// The loaded eBPF object. Dropping it detaches everything but [`Probes`] that are still held.
pub struct KernelPrograms {
    /// Held for the maps that programs refer to which are loaded later.
    _ebpf: Ebpf,
    uprobes: Programs,
    first: Array<MapData, Wire<Target>>,
    targets: HashMap<MapData, u32, Wire<Target>>,
    /// What the kernel programs know of each process; the one at the head of [`Self::first`], if there is one, first.
    known: Vec<Known>,
    /// The programs' own log, where somebody listens.
    log: Option<EbpfLogger<&'static dyn Log>>,
    /// Held for as long as we are: tells of processes that replace their program.
    _exec: RawTracePointLink,
    /// Held for programs that are loaded later: the numbers that no site has yet.
    _free_sites: Queue<MapData, u32>,
}

struct Known {
    target: Target,
    /// It is in [`KernelPrograms::first`], where it is found faster, and not in [`KernelPrograms::targets`].
    is_first: bool,
}

/// How events come up.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub enum WayUp {
    /// By slots in memory that both sides see.
    Rings {
        /// An array of `RingHead`, one for each possible CPU.
        heads: MapData,
        /// An array of `Slot`: those of all rings.
        slots: MapData,
        /// Is written to when a ring fills.
        bell: RingBuf<MapData>,
        /// Elements of `heads`.
        possible_cpus: u32,
        /// The CPUs that are to have a ring.
        cpus: Vec<u32>,
        /// Slots of each.
        slots_each: u32,
    },
    /// By perf buffers, where the kernel has not what the rings take.
    PerfBuffers {
        /// One for each CPU goes in here.
        map: MapData,
        /// The CPUs that are to have one.
        cpus: Vec<u32>,
        /// How large it is to be.
        bytes_each: usize,
    },
}

/// The maps by which events come up.
pub struct EventMaps {
    /// The events.
    pub events: WayUp,
    /// Events that did not come up, by cause and CPU.
    pub counts: PerCpuArray<MapData, u64>,
    /// What the programs count and keep.
    pub kept: KeptMaps,
}

/// The uprobes of one executable, for every process that runs it; dropping them detaches them, the anchors last.
pub struct FileProbes {
    uprobes: Uprobes,
}

impl FileProbes {
    /// Takes in others, to be detached with these: then the kernel's waiting is one.
    pub fn join(&mut self, others: Self) {
        self.uprobes.join(others.uprobes);
    }
}

/// Of which processes the kernel tells that they replaced their program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execs {
    /// Of those that are traced.
    Traced,
    /// Of every process: for who looks for new ones.
    Every,
}

/// The maps in which the kernel programs count and keep what is not an event.
pub struct KeptMaps {
    /// Hits, by the wire's `HIT_*` and CPU.
    pub hits: PerCpuArray<MapData, u64>,
    /// What each goroutine does: a hash map from `Wire<RecordKey>` to `Wire<Record>`.
    pub records: Map,
    /// The numbers of creation sites.
    pub sites: HashMap<MapData, Wire<SiteKey>, u32>,
    /// Blocks by the site's number and CPU.
    pub site_blocks: PerCpuArray<MapData, Wire<Blocks>>,
    /// Blocks by wait reason and CPU.
    pub reason_blocks: PerCpuArray<MapData, Wire<Blocks>>,
}

/// Uprobes of one process; dropping them detaches them, which takes some 100 ms, or as much each where the kernel has no
/// multi-uprobe links.
#[derive(Debug)]
pub struct Probes {
    pid: Pid,
    uprobes: Uprobes,
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
        self.uprobes.probes.len()
    }
}

/// Uprobes to be attached, on whatever thread.
#[derive(Debug)]
pub struct Attachment {
    pid: Pid,
    exe: PathBuf,
    places: Vec<(Program, Placement)>,
}

impl Attachment {
    /// Attaches them: some 10 ms for the first, less for the others.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one of them; then none stays.
    pub fn attach(self) -> Result<Probes, AttachError> {
        let Self { pid, exe, places } = self;
        let mut probes = Probes { pid, uprobes: Uprobes::default() };
        for (program, placement) in &places {
            match Uprobe::attach(program, &exe, placement.offset, Scope::Process(pid)) {
                Ok(uprobe) => probes.uprobes.probes.push(uprobe),
                Err(source) => return Err(attach_error(pid, placement, source)),
            }
        }
        Ok(probes)
    }
}

impl KernelPrograms {
    /// Loads the object, without room for records.
    ///
    /// # Errors
    ///
    /// If we may not, or the kernel lacks what the programs need.
    pub fn load() -> Result<(Self, EventMaps), AttachError> {
        Self::load_with(Capacity::NONE, Execs::Traced)
    }

    /// Loads the object, with room for the records of so many.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(capacity: Capacity, execs: Execs) -> Result<(Self, EventMaps), AttachError> {
        if let Some(lack) = Lack::at_a_glance() {
            return Err(lack.into());
        }
        Self::load_object(capacity, execs).map_err(|error| match Lack::found_by_trying() {
            Some(lack) if !matches!(error, AttachError::Permission) => lack.into(),
            _ => error,
        })
    }

    fn load_object(capacity: Capacity, execs: Execs) -> Result<(Self, EventMaps), AttachError> {
        let by_rings = [Feature::MappedRings, Feature::RingBuffer].iter().all(|feature| feature.find().is_yes());
        let cpus = |(path, source): (&str, std::io::Error)| AttachError::Cpus { path: path.to_owned(), source };
        let possible_cpus = nr_cpus().map_err(cpus)? as u32;
        let cpus = online_cpus().map_err(cpus)?;
        let bytes_each = capacity.buffer_of_each(cpus.len());
        let slots_each = (bytes_each / size_of::<Slot>()) as u32;
        let mut loader = EbpfLoader::new();
        if by_rings {
            loader.map_max_entries("RING_HEADS", possible_cpus);
            loader.map_max_entries("RING_SLOTS", slots_each * cpus.len() as u32);
        }
        let object = if by_rings { OBJECT } else { OBJECT_PERF_BUFFER };
        let load_error = |error| {
            if is_permission(&error) { AttachError::Permission } else { AttachError::Load(Box::new(error)) }
        };
        let mut ebpf = loader
            .override_global("ARCH", &ARCH, true)
            .override_global("EVERY_EXEC", &u32::from(execs == Execs::Every), true)
            .override_global(aya_log::LEVEL, &log_level(), false)
            .map_max_entries("RECORDS", capacity.goroutines)
            .map_max_entries("SITES", capacity.sites)
            // One more: number 0 is of those that got none.
            .map_max_entries("SITE_BLOCKS", capacity.sites + 1)
            .map_max_entries("FREE_SITES", capacity.sites)
            .load(object)
            .map_err(load_error)?;
        // Before any map is taken out.
        let uprobes = Programs::new(object, &ebpf).map_err(load_error)?;
        let first = take::<Array<_, _>>(&mut ebpf, "FIRST_TARGET")?;
        let targets = take::<HashMap<_, _, _>>(&mut ebpf, "TARGETS")?;
        let mut free_sites = take::<Queue<_, u32>>(&mut ebpf, "FREE_SITES")?;
        for site in 1..=capacity.sites {
            free_sites.push(site, 0).map_err(map_error("FREE_SITES"))?;
        }
        let kept = KeptMaps {
            hits: take(&mut ebpf, "HITS")?,
            records: ebpf.take_map("RECORDS").ok_or_else(|| missing("RECORDS"))?,
            sites: take(&mut ebpf, "SITES")?,
            site_blocks: take(&mut ebpf, "SITE_BLOCKS")?,
            reason_blocks: take(&mut ebpf, "REASON_BLOCKS")?,
        };
        let counts = take(&mut ebpf, "COUNTS")?;
        let mut data = |name| match ebpf.take_map(name) {
            Some(Map::PerfEventArray(data) | Map::Array(data)) => Ok(data),
            _ => Err(missing(name)),
        };
        let events = if by_rings {
            let (heads, slots) = (data("RING_HEADS")?, data("RING_SLOTS")?);
            WayUp::Rings { heads, slots, bell: take(&mut ebpf, "BELL")?, possible_cpus, cpus, slots_each }
        } else {
            WayUp::PerfBuffers { map: data("EVENTS")?, cpus, bytes_each }
        };
        let exec = attach_exec(&mut ebpf).map_err(program_error("process_exec"))?;
        let log = match log_level() {
            0 => None,
            _ => EbpfLogger::init(&mut ebpf).inspect_err(|error| log::warn!("no log of kernel programs: {error}")).ok(),
        };
        let programs =
            Self { _ebpf: ebpf, uprobes, first, targets, known: Vec::new(), log, _exec: exec, _free_sites: free_sites };
        Ok((programs, EventMaps { events, counts, kept }))
    }

    /// Passes on what the kernel programs have logged: with `-vv`, which reads failed.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Tells the kernel programs of a process, with every event wanted, then attaches `placements` in the executable at
    /// `exe` for it alone.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one of them; then none stays.
    pub fn attach<'p>(
        &mut self,
        pid: Pid,
        exe: &Path,
        entry: Target,
        placements: impl IntoIterator<Item = &'p Placement>,
    ) -> Result<Probes, AttachError> {
        self.begin(pid, entry)?;
        self.attachment(pid, exe, placements)?.attach()
    }

    /// Tells the kernel programs of a process, with every event wanted.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn begin(&mut self, pid: Pid, entry: Target) -> Result<(), AttachError> {
        self.know(pid, Target { control: Control { mode: MODE_EVENTS, ..Control::default() }.pack(), ..entry })
    }

    /// Tells the kernel programs of a process: from here on its probes find it.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn know(&mut self, pid: Pid, entry: Target) -> Result<(), AttachError> {
        let target = Target { tgid: pid.0, ..entry };
        self.forget(pid)?;
        let is_first = !self.known.iter().any(|known| known.is_first);
        self.known.push(Known { target, is_first });
        self.tell(pid)
    }

    /// Tells the kernel programs what is wanted of a process that they know, and of which of its programs.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn want(&mut self, pid: Pid, control: Control) -> Result<(), AttachError> {
        for known in self.known.iter_mut().filter(|known| known.target.tgid == pid.0) {
            known.target.control = control.pack();
        }
        self.tell(pid)
    }

    fn tell(&mut self, pid: Pid) -> Result<(), AttachError> {
        let Some(known) = self.known.iter().find(|known| known.target.tgid == pid.0) else { return Ok(()) };
        if known.is_first {
            self.first.set(0, Wire(known.target), 0).map_err(map_error("FIRST_TARGET"))
        } else {
            self.targets.insert(pid.0, Wire(known.target), 0).map_err(map_error("TARGETS"))
        }
    }

    /// Makes the kernel programs forget a process: no event of it comes any more, but from programs under way.
    ///
    /// # Errors
    ///
    /// If the map refuses.
    pub fn forget(&mut self, pid: Pid) -> Result<(), AttachError> {
        let Some(at) = self.known.iter().position(|known| known.target.tgid == pid.0) else { return Ok(()) };
        if self.known.swap_remove(at).is_first {
            self.first.set(0, Wire(Target::default()), 0).map_err(map_error("FIRST_TARGET"))
        } else {
            match self.targets.remove(&pid.0) {
                Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
                Err(error) => Err(map_error("TARGETS")(error)),
            }
        }
    }

    /// What is to be attached for a process that the kernel programs know.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a program.
    pub fn attachment<'p>(
        &mut self,
        pid: Pid,
        exe: &Path,
        placements: impl IntoIterator<Item = &'p Placement>,
    ) -> Result<Attachment, AttachError> {
        let mut places = Vec::new();
        for placement in placements {
            let refused = program_error(placement.program);
            let program = self.uprobes.get(placement.program).map_err(&refused)?;
            let program = program.try_clone().map_err(|source| refused(ProgramError::IOError(source)))?;
            places.push((program, placement.clone()));
        }
        Ok(Attachment { pid, exe: exe.to_owned(), places })
    }

    /// Attaches a process's [`anchor`](super::placement::anchor), to be held until its probes are gone. Without one they are as good,
    /// but for the process's last moment with them.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program.
    pub fn anchor(&mut self, pid: Pid, exe: &Path, anchor: FileOffset) -> Result<Probes, AttachError> {
        Ok(Probes { pid, uprobes: self.attach_anchor(exe, anchor, Scope::Process(pid))? })
    }

    /// As [`Self::anchor`], for every process that runs the executable at `exe`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program.
    pub fn anchor_file(&mut self, exe: &Path, anchor: FileOffset) -> Result<FileProbes, AttachError> {
        Ok(FileProbes { uprobes: self.attach_anchor(exe, anchor, Scope::EveryProcess)? })
    }

    fn attach_anchor(&mut self, exe: &Path, anchor: FileOffset, scope: Scope) -> Result<Uprobes, AttachError> {
        const PROGRAM: &str = "nothing";
        let program = self.uprobes.get(PROGRAM).map_err(program_error(PROGRAM))?;
        let mut uprobes = Uprobes::default();
        match Uprobe::attach(program, exe, anchor, scope) {
            Ok(uprobe) => uprobes.anchors.push(uprobe),
            // The probes will say so if the process is gone.
            Err(error) => log::info!("no anchor in {}: {error}", exe.display()),
        }
        Ok(uprobes)
    }

    /// Attaches `placements` in the executable at `exe`, called `name`, for every process that runs it, now or later. Only
    /// those that the kernel programs [know](Self::know) send events; the others pay for the probes and send nothing.
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
        let mut uprobes = Uprobes::default();
        for placement in placements {
            let program = self.uprobes.get(placement.program).map_err(program_error(placement.program))?;
            let attached = Uprobe::attach(program, exe, placement.offset, Scope::EveryProcess);
            uprobes.probes.push(attached.map_err(|source| AttachError::AttachFile {
                exe: name.to_owned(),
                function: placement.function,
                into_function: placement.into_function,
                instruction: placement.instruction.clone(),
                source,
            })?);
        }
        Ok(FileProbes { uprobes })
    }

    /// Forgets a process and detaches its probes.
    ///
    /// The kernel waits until no CPU can be in them: some 100 ms, for each where it has no multi-uprobe links. No event comes
    /// any more from the moment the process is forgotten.
    ///
    /// # Errors
    ///
    /// If the map refuses; the probes are gone all the same.
    pub fn detach(&mut self, probes: Probes) -> Result<(), AttachError> {
        let forgotten = self.forget(probes.pid);
        drop(probes);
        forgotten
    }
}

fn attach_exec(ebpf: &mut Ebpf) -> Result<RawTracePointLink, ProgramError> {
    let program = ebpf.program_mut("process_exec").ok_or(ProgramError::NotLoaded)?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    let id = program.attach("sched_process_exec")?;
    program.take_link(id)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, AttachError> {
    M::try_from(ebpf.take_map(name).ok_or_else(|| missing(name))?).map_err(map_error(name))
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

fn attach_error(pid: Pid, placement: &Placement, source: std::io::Error) -> AttachError {
    if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) {
        return AttachError::Exited { pid };
    }
    AttachError::Attach {
        pid,
        function: placement.function,
        into_function: placement.into_function,
        instruction: placement.instruction.clone(),
        source,
    }
}

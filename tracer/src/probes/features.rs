//! What this kernel can do, found by trying each thing; version numbers say nothing about kernels that are patched.
//!
//! Out: for each [`Feature`] a [`Found`]; for each instruction a probe may stand on, how it is executed
//! ([`emulation`]). Leaves nothing behind: maps and programs are closed before the answer is given, probes
//! soon after.

pub mod emulation;
mod nop_calls;
mod uprobe_multi;

use std::io;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use serde::Serialize;

use super::bpf;
use crate::kernel::perf_event::{self, Attributes};

/// Something that a kernel has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`, and perf events of software type `BPF_OUTPUT` with a watermark: how events come up.
    PerfBuffer,
    /// `BPF_MAP_TYPE_RINGBUF`: how the reader of mapped arrays is woken.
    RingBuffer,
    /// Arrays that user space can map, with programs that have atomics with a result (`BPF_CMPXCHG`): how events come
    /// up at a fourth of what perf buffers take.
    MappedRings,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`: how an `execve` is noticed.
    RawTracepoint,
    /// `bpf_probe_read_user`, and `bpf_probe_read_kernel`, which came with it: a kernel in confidentiality lockdown has not
    /// the latter, and then the loader (aya) takes the older helper for both, which it has not either.
    ReadUserMemory,
    /// `BPF_MAP_LOOKUP_BATCH` of a hash map.
    BatchLookup,
    /// `BPF_MAP_LOOKUP_BATCH` of a hash map with a value for each CPU.
    BatchLookupPerCpu,
    /// `bpf_get_attach_cookie` in a program on a uprobe, and perf links, which set it.
    Cookie,
    /// `BPF_TRACE_UPROBE_MULTI` links with a PID filter that lets all threads of the process through: up to 6.9 it
    /// lets only one.
    UprobeMulti,
    /// A probe on a five-byte nop becomes a call, without a trap.
    NopCalls,
    /// `bpf_tail_call` and its map.
    TailCall,
    /// Type information of the kernel itself, in /sys/kernel/btf/vmlinux, and of programs.
    Btf,
}

/// Whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was used.
    Yes,
    /// The kernel does not know it, or has it in a form that is of no use.
    No(&'static str),
    /// It could not be tried.
    Unknown(String),
}

impl Found {
    /// Whether it may be relied on.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Found::Yes
    }

    fn of<E: std::fmt::Display>(result: Result<bool, E>) -> Self {
        match result {
            Ok(true) => Found::Yes,
            Ok(false) => Found::No("the kernel does not know it"),
            Err(error) => Found::Unknown(error.to_string()),
        }
    }

    fn and(self, other: impl FnOnce() -> Self) -> Self {
        if self.is_yes() { other() } else { self }
    }
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 12] = [
        Feature::PerfBuffer,
        Feature::RingBuffer,
        Feature::MappedRings,
        Feature::RawTracepoint,
        Feature::ReadUserMemory,
        Feature::BatchLookup,
        Feature::BatchLookupPerCpu,
        Feature::Cookie,
        Feature::UprobeMulti,
        Feature::NopCalls,
        Feature::TailCall,
        Feature::Btf,
    ];

    /// What a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Feature::PerfBuffer => "perf buffer",
            Feature::RingBuffer => "ring buffer",
            Feature::MappedRings => "mapped rings",
            Feature::RawTracepoint => "raw tracepoint",
            Feature::ReadUserMemory => "read user memory",
            Feature::BatchLookup => "batch lookup",
            Feature::BatchLookupPerCpu => "batch lookup, per CPU",
            Feature::Cookie => "cookies",
            Feature::UprobeMulti => "multi-uprobe links",
            Feature::NopCalls => "calls for nops",
            Feature::TailCall => "tail calls",
            Feature::Btf => "BTF",
        }
    }

    /// Whether gotracer is of no use without it.
    #[must_use]
    pub fn is_needed(self) -> bool {
        matches!(self, Feature::PerfBuffer | Feature::RawTracepoint | Feature::ReadUserMemory)
    }

    /// Whether it is to be passed over, found or not: the environment variable `GOTRACER_WITHOUT` has names of features,
    /// with commas between. For those who look for the cause of something strange, and for tests of what then serves.
    #[must_use]
    pub fn is_left_out(self) -> bool {
        std::env::var("GOTRACER_WITHOUT").is_ok_and(|names| names.split(',').any(|name| name.trim() == self.name()))
    }

    /// Tries it. Takes microseconds, but for [`Feature::UprobeMulti`] and [`Feature::NopCalls`], which attach a probe.
    #[must_use]
    pub fn find(self) -> Found {
        if self.is_left_out() {
            return Found::No("the environment variable GOTRACER_WITHOUT names it");
        }
        let map = |kind| Found::of(is_map_supported(kind));
        let helper = |helper| Found::of(is_helper_supported(ProgramType::KProbe, helper));
        match self {
            Feature::PerfBuffer => map(MapType::PerfEventArray)
                .and(|| Found::of(perf_event::open(&Attributes::bpf_output(4096), 0, -1).map(|_| true))),
            Feature::RingBuffer => map(MapType::RingBuf),
            Feature::MappedRings => Found::of(takes_compare_exchange()),
            Feature::RawTracepoint => Found::of(is_program_supported(ProgramType::RawTracePoint)),
            Feature::ReadUserMemory => helper(BpfHelper::BPF_FUNC_probe_read_user).and(|| {
                match helper(BpfHelper::BPF_FUNC_probe_read_kernel) {
                    Found::No(_) => Found::No(LOCKED_DOWN),
                    found => found,
                }
            }),
            Feature::BatchLookup => Found::of(looks_up_in_batches(bpf::MAP_TYPE_HASH)),
            Feature::BatchLookupPerCpu => Found::of(looks_up_in_batches(bpf::MAP_TYPE_PERCPU_HASH)),
            Feature::Cookie => helper(BpfHelper::BPF_FUNC_get_attach_cookie).and(|| {
                if aya::features().bpf_perf_link() { Found::Yes } else { Found::No("the kernel has no perf links") }
            }),
            Feature::UprobeMulti => uprobe_multi::find(),
            Feature::NopCalls => nop_calls::find(),
            Feature::TailCall => map(MapType::ProgramArray).and(|| helper(BpfHelper::BPF_FUNC_tail_call)),
            Feature::Btf => match std::fs::metadata("/sys/kernel/btf/vmlinux") {
                Err(_) => Found::No("there is no /sys/kernel/btf/vmlinux"),
                Ok(_) if aya::features().btf().is_none() => Found::No("the kernel takes none of programs"),
                Ok(_) => Found::Yes,
            },
        }
    }
}

/// Why [`Feature::ReadUserMemory`] is missing where only the kernel's own memory may not be read.
pub(super) const LOCKED_DOWN: &str = "the kernel is locked down";

/// Loads a program that compares and exchanges a word of an array which user space can map.
fn takes_compare_exchange() -> io::Result<bool> {
    let word = match bpf::mappable_array() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
        made => made?,
    };
    let load = |operation| bpf::load_uprobe(c"try", &bpf::on_first_word(&word, operation), bpf::By::PerfEvent, None);
    match load(bpf::COMPARE_EXCHANGE) {
        Ok(_) => Ok(true),
        // What does not load with an addition either says nothing of exchanges.
        Err(_) => load(bpf::ADD).map(|_| false),
    }
}

/// Makes an empty map of this kind and looks up all that is in it.
fn looks_up_in_batches(kind: u32) -> io::Result<bool> {
    /// The kernel's `ENOTSUPP`, which user space has no name for: the kind of map has no such operation.
    const ENOTSUPP: i32 = 524;
    let map = bpf::map_create(kind, 4, 8, 1)?;
    match bpf::map_lookup_batch(&map) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            // The end of the map was reached.
            Some(libc::ENOENT) => Ok(true),
            Some(libc::EINVAL | ENOTSUPP) => Ok(false),
            _ => Err(error),
        },
    }
}

//! The wire between the kernel programs and `gotracer`: fixed, versioned layouts, no dependency, no_std.
//!
//! Down goes a [`Target`] for each traced process: where its Go version keeps the few fields the programs read.
//! Up come events: an [`Event`] header, for [`EVENT_CREATED`] followed by the rest of [`Created`]. What could not be
//! sent is counted per CPU under one of the `COUNT_*` indices.
//!
//! Kernel and user space are always of one build (the object is compiled into the binary), so the version is there to
//! catch a mistake, not to negotiate: [`Event::version`] is [`WIRE_VERSION`] or the event is refused.
#![no_std]

/// Changes whenever the meaning or layout of anything in this file does.
pub const WIRE_VERSION: u16 = 1;

/// [`Target`] offset of a field that this Go version does not have.
pub const NO_FIELD: u32 = u32::MAX;

/// Value of the constant `ARCH` for x86_64.
pub const ARCH_X86_64: u32 = 1;
/// Value of the constant `ARCH` for arm64.
pub const ARCH_ARM64: u32 = 2;

/// What the programs must know of one traced process. All offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `g.goid`.
    pub g_goid: u32,
    /// `g.parentGoid`, or [`NO_FIELD`] before Go 1.21: then the parent is found as `g.m.curg.goid`.
    pub g_parent_goid: u32,
    /// `g.gopc`.
    pub g_gopc: u32,
    /// `g.startpc`.
    pub g_startpc: u32,
    /// `g.waitreason`.
    pub g_waitreason: u32,
    /// `g.sched`.
    pub g_sched: u32,
    /// `g.m`.
    pub g_m: u32,
    /// `m.curg`.
    pub m_curg: u32,
    /// The number of `waitReasonCoroutine` in this Go version; 0 before Go 1.23, which has no coroutines.
    pub coroutine_reason: u32,
}

/// Head of every event; the whole of all but [`EVENT_CREATED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `bpf_ktime_get_ns()`: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The goroutine it is about; 0 for [`EVENT_EXEC`].
    pub goid: u64,
    /// The process, as the tracer numbers it.
    pub tgid: u32,
    /// One of the `EVENT_*`.
    pub kind: u8,
    /// With [`EVENT_BLOCKED`]: the runtime's `waitReason`.
    pub reason: u8,
    /// [`WIRE_VERSION`].
    pub version: u16,
}

/// A goroutine came out of `newproc1`.
pub const EVENT_CREATED: u8 = 1;
/// A goroutine parks in `gopark`.
pub const EVENT_BLOCKED: u8 = 2;
/// `execute` gives a thread to a goroutine.
pub const EVENT_RUNNING: u8 = 3;
/// A goroutine ends in `goexit1`.
pub const EVENT_EXITED: u8 = 4;
/// The process replaced its program. Sent for traced processes, and for every other where the loader asks for that.
pub const EVENT_EXEC: u8 = 5;

/// The event of [`EVENT_CREATED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The head.
    pub event: Event,
    /// `g.parentGoid`: the goroutine that ran the `go` statement.
    pub parent_goid: u64,
    /// `g.gopc`.
    pub gopc: u64,
    /// `g.startpc`.
    pub startpc: u64,
}

/// Index in the per-CPU array `COUNTS`: events for which the perf buffer had no room.
pub const COUNT_NO_SPACE: u32 = 0;
/// Index in `COUNTS`: events that the kernel refused for another cause (a CPU that came after the buffers were opened).
pub const COUNT_NO_BUFFER: u32 = 1;
/// Index in `COUNTS`: events lost because the goroutine's `g` could not be read (its page was not in memory).
pub const COUNT_UNREADABLE_G: u32 = 2;
/// How many counters there are.
pub const COUNTS: u32 = 3;

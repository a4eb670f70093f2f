//! The wire between the kernel programs and `gotracer`: fixed, versioned layouts, no dependency, no_std.
//!
//! Events leave by [`Slot`]s that both sides have in their memory, or by perf buffers where the kernel lacks what that
//! takes (the crate's feature `perf-buffer`).
//!
//! Down goes a [`Target`] for each traced process: where its Go version keeps the few fields the programs read, and how
//! much is wanted ([`Control`]). Up come events: an [`Event`] header, for [`EVENT_CREATED`] followed by the rest of
//! [`Created`]. In [`MODE_STATES`], what happens between a goroutine's birth and end is kept in its [`Record`] and in
//! the [`Blocks`] of its site and of its wait reasons, to be read when somebody wants to. What could not be sent or kept
//! is counted per CPU under one of the `COUNT_*` indices, and every hit of a probe under one of the `HIT_*`.
//!
//! Kernel and user space are always of one build (the object is compiled into the binary), so the version is there to
//! catch a mistake, not to negotiate: [`Event::version`] is [`WIRE_VERSION`] or the event is refused.
#![no_std]

/// Changes whenever the meaning or layout of anything in this file does.
pub const WIRE_VERSION: u16 = 3;

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
    /// What is wanted at present: a packed [`Control`]. One word, so that it changes at once.
    pub control: u64,
    /// The process; 0 in an entry that is not used.
    pub tgid: u32,
    /// One more with each `execve`: tells the sites of one program from the next one's.
    pub generation: u32,
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
    /// 1 if gopc, ancestors and startpc follow parentGoid, each of eight bytes, so that one read gets them all.
    pub birth_together: u32,
}

/// Nothing is wanted.
pub const MODE_OFF: u8 = 0;
/// Every transition is an event.
pub const MODE_EVENTS: u8 = 1;
/// Births and ends are events; other transitions change the goroutine's [`Record`].
pub const MODE_STATES: u8 = 2;
/// Births and ends are events; other transitions are passed over.
pub const MODE_LIFECYCLE: u8 = 3;

/// What the programs are to do for one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// One of the `MODE_*`.
    pub mode: u8,
    /// Births and ends become events for one goroutine in 2 to this power, see [`is_sampled`].
    pub sample_shift: u8,
    /// Records of another epoch are void.
    pub epoch: u32,
}

impl Control {
    /// As [`Target::control`] holds it.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.mode as u64 | (self.sample_shift as u64) << 8 | (self.epoch as u64) << 32
    }

    /// From [`Target::control`].
    #[must_use]
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { mode: word as u8, sample_shift: (word >> 8) as u8, epoch: (word >> 32) as u32 }
    }
}

/// Whether the events of this goroutine are wanted: by a hash of its id, so that a whole life is in or out, and so that
/// who is in at one shift is in at every smaller one.
#[must_use]
#[inline(always)]
pub const fn is_sampled(goid: u64, shift: u8) -> bool {
    // 2^64 / golden ratio: neighbouring ids are spread evenly over the high bits.
    shift == 0 || goid.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - (shift & 31) as u32) == 0
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

/// Key of the map `RECORDS`. The g and not the goid: g structs are reused and never freed, so there are as many records
/// as there ever were goroutines at a time, and none has to be removed while the target runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The address of the g.
    pub g: u64,
    /// The process.
    pub tgid: u32,
    /// 0.
    pub padding: u32,
}

/// What a goroutine did since the epoch began: one cache line.
///
/// A goroutine is on one thread at a time, so its record has one writer at a time. A reader that finds
/// [`Self::begin`] and [`Self::end`] equal has read what one writer left: the kernel copies values upwards, and a
/// writer changes `begin` first and `end` last.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Changed before anything else is.
    pub begin: u32,
    /// The [`Control::epoch`] in which it was begun.
    pub epoch: u32,
    /// Whose record this is; 0 when that goroutine has ended.
    pub goid: u64,
    /// When it came into [`Self::state`].
    pub since_ns: u64,
    /// When it first parked or ran in this epoch; 0 if it has not.
    pub first_ns: u64,
    /// Nanoseconds of the blocks that began and ended in this epoch.
    pub blocked_ns: u64,
    /// The longest of them.
    pub longest_ns: u64,
    /// How often it parked.
    pub parks: u64,
    /// Index of its creation site in `SITE_BLOCKS`; 0 for none.
    pub site: u16,
    /// One of the `STATE_*`, with [`FIRST_RAN`] if the first thing it did in this epoch was to run.
    pub state: u8,
    /// With [`STATE_BLOCKED`]: the runtime's `waitReason`.
    pub reason: u8,
    /// Changed when all else is.
    pub end: u32,
}

/// [`Record::state`]: created and not run yet.
pub const STATE_RUNNABLE: u8 = 1;
/// [`Record::state`]: given a thread, and not parked since.
pub const STATE_RUNNING: u8 = 2;
/// [`Record::state`]: parked, and not given a thread since.
pub const STATE_BLOCKED: u8 = 3;
/// Bit in [`Record::state`].
pub const FIRST_RAN: u8 = 0x80;

/// Key of the map `SITES`, which gives a creation site its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SiteKey {
    /// `g.gopc`.
    pub gopc: u64,
    /// `g.startpc`.
    pub startpc: u64,
    /// The process.
    pub tgid: u32,
    /// [`Target::generation`].
    pub generation: u32,
}

/// How many powers of two [`Blocks`] tells apart: the last holds all blocks of 2^47 ns (39 hours) and more.
pub const BUCKETS: usize = 48;

/// The blocks of one creation site (`SITE_BLOCKS`) or of one wait reason (`REASON_BLOCKS`), on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Blocks that began.
    pub parks: u64,
    /// Nanoseconds of blocks that began and ended while records were kept.
    pub blocked_ns: u64,
    /// How many of them took `[2^i, 2^(i+1))` nanoseconds.
    pub buckets: [u64; BUCKETS],
}

/// Entries of `REASON_BLOCKS`: the runtime has some 40 reasons, and a larger number goes with the last.
pub const REASONS: u32 = 64;

/// Index in the per-CPU array `HITS`: probes of [`EVENT_CREATED`], where it is wanted, whatever became of the event.
pub const HIT_CREATED: u32 = 0;
/// Index in `HITS`: probes of [`EVENT_BLOCKED`]; but in [`MODE_STATES`] they count in `REASON_BLOCKS` alone.
pub const HIT_BLOCKED: u32 = 1;
/// Index in `HITS`: probes of [`EVENT_RUNNING`].
pub const HIT_RUNNING: u32 = 2;
/// Index in `HITS`: probes of [`EVENT_EXITED`].
pub const HIT_EXITED: u32 = 3;
/// Index in `HITS`: any probe, of what is not wanted at present.
pub const HIT_UNWANTED: u32 = 4;
/// Index in `HITS`: of [`HIT_CREATED`], those that [`is_sampled`] left out.
pub const HIT_CREATED_LEFT_OUT: u32 = 5;
/// Index in `HITS`: of [`HIT_EXITED`], those that [`is_sampled`] left out.
pub const HIT_EXITED_LEFT_OUT: u32 = 6;
/// How many counters of hits there are.
pub const HITS: u32 = 7;

/// One CPU's ring of [`Slot`]s, an element of the array `RING_HEADS`: two cache lines, so that neither side's writes take
/// the other's line away.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingHead {
    /// Slots that kernel programs have taken for themselves since the ring was made.
    pub reserved: u64,
    /// Index of the ring's first slot in `RING_SLOTS`.
    pub first: u64,
    /// How many slots it has: a power of two, or 0 on a CPU that came online when the rings had been made.
    pub slots: u64,
    /// Nothing.
    pub padding: [u64; 5],
    /// Slots that the reader has given back.
    pub consumed: u64,
    /// Nothing.
    pub padding_behind: [u64; 7],
}

/// Room for one event on its way up, an element of the array `RING_SLOTS`: a cache line.
///
/// The slot of the `n`th event of a ring (from 0) is `first + n % slots`. It is written when its [`Self::sequence`] is
/// `n + 1`; that is stored last. Between taking a slot and writing it a program can be preempted, so a later slot can be
/// written first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// One more than the number of the event it holds.
    pub sequence: u64,
    /// An [`Event`] or what begins with one.
    pub event: [u64; 7],
}

/// Index in the per-CPU array `COUNTS`: events for which the CPU's buffer had no room.
pub const COUNT_NO_SPACE: u32 = 0;
/// Index in `COUNTS`: events that the kernel refused for another cause (a CPU that came after the buffers were opened).
pub const COUNT_NO_BUFFER: u32 = 1;
/// Index in `COUNTS`: events lost because the goroutine's `g` could not be read (its page was not in memory).
pub const COUNT_UNREADABLE_G: u32 = 2;
/// Index in `COUNTS`: transitions lost because `RECORDS` had no room for another goroutine.
pub const COUNT_NO_RECORD: u32 = 3;
/// How many counters of losses there are.
pub const COUNTS: u32 = 4;

const _: () = assert!(size_of::<Record>() == 64 && size_of::<RecordKey>() == 16 && size_of::<SiteKey>() == 24);
const _: () = assert!(size_of::<RingHead>() == 128 && size_of::<Slot>() == 64 && size_of::<Created>() <= 56);

//! The kernel programs. Each stands on one instruction of the Go runtime, takes the `g` it finds there, reads what the
//! event needs and sends it.
//!
//! Which program stands where is decided in user space (`gotracer`'s `probes::catalogue`); a program's name says at
//! what kind of place it finds its values, for there is one program for each kind and no branching by place at run
//! time. What every program assumes:
//!
//! - ABIInternal: arguments and results in RAX, RBX, RCX.. (x86_64) or X0, X1, X2.. (arm64), the current g in R14 or
//!   X28. Holds since Go 1.18 on both architectures:
//!   <https://github.com/golang/go/blob/go1.27.3/src/cmd/compile/abi-internal.md>
//! - a process that is not in `TARGETS` is none of our business.
//!
//! One object serves both architectures: `ARCH` is set by the loader, .rodata is frozen, and the verifier drops the
//! branch of the other one, whose register offsets lie beyond this kernel's `pt_regs`.
#![no_std]
#![no_main]
#![allow(internal_features)]
#![feature(asm_experimental_arch, core_intrinsics)]

#[cfg(feature = "perf-buffer")]
mod perf_buffer;
#[cfg(not(feature = "perf-buffer"))]
mod ring;

use core::arch::asm;
use core::ptr::write_volatile;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST as NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user},
    macros::{map, raw_tracepoint, uprobe},
    maps::{Array, HashMap, PerCpuArray, ProgramArray, Queue},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use gotracer_ebpf::{
    ARCH_X86_64, BUCKETS, Blocks, COUNT_NO_RECORD, COUNT_UNREADABLE_G,
    COUNTS as COUNTERS, Control, Created, EVENT_BLOCKED, EVENT_CREATED, EVENT_EXEC, EVENT_EXITED, EVENT_RUNNING, Event,
    FIRST_RAN, HIT_BLOCKED, HIT_CREATED, HIT_CREATED_LEFT_OUT, HIT_EXITED, HIT_EXITED_LEFT_OUT, HIT_RUNNING,
    HIT_UNWANTED, HITS as HIT_COUNTERS, MODE_EVENTS, MODE_OFF, MODE_STATES, NO_FIELD, REASONS, Record, RecordKey,
    STATE_BLOCKED, STATE_RUNNABLE, STATE_RUNNING, SiteKey, Target, WIRE_VERSION, is_sampled,
};

#[cfg(feature = "perf-buffer")]
use perf_buffer::send;
#[cfg(not(feature = "perf-buffer"))]
use ring::send;

const BPF_NOEXIST: u64 = NOEXIST as u64;

/// Which architecture's registers to read; the loader sets it.
#[unsafe(no_mangle)]
static ARCH: u32 = ARCH_X86_64;

/// Whether every process that replaces its program is told of, or the traced ones alone; the loader sets it.
#[unsafe(no_mangle)]
static EVERY_EXEC: u32 = 0;

/// The traced process, if there is one: found without a hash.
#[map]
static FIRST_TARGET: Array<Target> = Array::with_max_entries(1, 0);

/// The other traced processes, by thread group id.
#[map]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(4096, 0);

/// What did not go up, by cause.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// How often each kind of probe was hit.
#[map]
static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(HIT_COUNTERS, 0);

/// What each goroutine does, in `MODE_STATES`. This and the two below get their sizes from the loader.
#[map]
static RECORDS: HashMap<RecordKey, Record> = HashMap::with_max_entries(1, 0);

/// The numbers of creation sites.
#[map]
static SITES: HashMap<SiteKey, u32> = HashMap::with_max_entries(1, 0);

/// What goroutines of each site did.
#[map]
static SITE_BLOCKS: PerCpuArray<Blocks> = PerCpuArray::with_max_entries(1, 0);

/// Numbers that no site has yet; the loader fills it. A queue, because kernels before 5.12 have no atomic that gives
/// a result.
#[map]
static FREE_SITES: Queue<u32> = Queue::with_max_entries(1, 0);

/// What goroutines waited for.
#[map]
static REASON_BLOCKS: PerCpuArray<Blocks> = PerCpuArray::with_max_entries(REASONS, 0);

/// Always empty: see [`on_own_stack`].
#[map]
static NOWHERE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// A register of the probed instruction, as a constant offset into `pt_regs`.
///
/// In assembly, so that LLVM cannot merge the two architectures' loads into one with a computed offset: the verifier
/// takes only constant offsets into the context.
macro_rules! register {
    ($name:ident, $x86_64:literal, $arm64:literal, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        fn $name(ctx: &ProbeContext) -> u64 {
            let regs = ctx.as_ptr();
            let value: u64;
            // SAFETY: reads 8 bytes of the context at an offset that the verifier checks.
            unsafe {
                if core::ptr::read_volatile(&raw const ARCH) == ARCH_X86_64 {
                    asm!(concat!("{value} = *(u64 *)({regs} + ", $x86_64, ")"), value = out(reg) value, regs = in(reg) regs);
                } else {
                    asm!(concat!("{value} = *(u64 *)({regs} + ", $arm64, ")"), value = out(reg) value, regs = in(reg) regs);
                }
            }
            value
        }
    };
}

register!(first, 80, 0, "The first argument or result: RAX, X0.");
register!(second, 40, 8, "The second argument: RBX, X1.");
register!(third, 88, 16, "The third argument: RCX, X2.");
register!(stack_pointer, 152, 248, "RSP, SP.");
register!(current_g, 8, 224, "The g that runs this instruction: R14, X28.");

/// `created`, where the new g is the second argument: `call runqput` in `newproc.func1`.
#[uprobe]
fn created_at_call(ctx: ProbeContext) -> u32 {
    created(&ctx, second(&ctx))
}

/// `created`, where the new g has just been returned: behind `call newproc1`.
#[uprobe]
fn created_at_return(ctx: ProbeContext) -> u32 {
    created(&ctx, first(&ctx))
}

/// `blocked`, where the reason is still the third argument: behind gopark's stack check.
#[uprobe]
fn blocked_at_entry(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    blocked(&ctx, target, current_g(&ctx), Some(third(&ctx) as u8))
}

/// `blocked`, where the reason is in the g already: `call mcall` in gopark.
#[uprobe]
fn blocked_at_mcall(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    blocked(&ctx, target, current_g(&ctx), None)
}

/// `blocked`, of a coroutine that hands over to another: `call mcall` in `coroswitch`, before it notes its reason.
#[uprobe]
fn blocked_at_coroswitch(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    blocked(&ctx, target, current_g(&ctx), Some(target.coroutine_reason as u8))
}

/// `running`, where the goroutine is the first argument: in `execute`, which runs on g0.
#[uprobe]
fn running_at_call(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    running(&ctx, target, first(&ctx))
}

/// `running`, where the argument is `&g.sched`: `call gogo` in `coroswitch_m`. gogo is assembly of ABI0, so its
/// argument is on the stack, on arm64 above the slot for the return address.
#[uprobe]
fn running_at_gogo(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    // SAFETY: a plain read; volatile because the loader changes the value.
    let slot = if unsafe { core::ptr::read_volatile(&raw const ARCH) } == ARCH_X86_64 { 0 } else { 8 };
    match read::<u64>(&ctx, stack_pointer(&ctx), slot) {
        Ok(sched) => running(&ctx, target, sched.wrapping_sub(u64::from(target.g_sched))),
        Err(()) => 0,
    }
}

/// `exited`, where the goroutine is the first argument: `call gdestroy` in `coroswitch_m`, which runs on g0.
#[uprobe]
fn exited_at_call(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    ended(&ctx, target, first(&ctx))
}

/// `exited`: in `goexit1`, which runs on the dying goroutine itself.
#[uprobe]
fn exited(ctx: ProbeContext) -> u32 {
    on_own_stack(&ctx);
    let Some(target) = target() else { return 0 };
    ended(&ctx, target, current_g(&ctx))
}

/// What a probe costs before it does anything: the bench's baseline.
#[uprobe]
fn nothing(_ctx: ProbeContext) -> u32 {
    0
}

/// The process has replaced its program: all its goroutines are gone. For who looks for processes: a new one may be there.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn process_exec(ctx: RawTracePointContext) -> i32 {
    // SAFETY: a plain read; volatile because the loader changes the value.
    let every = unsafe { core::ptr::read_volatile(&raw const EVERY_EXEC) } != 0;
    if every || target().is_some() {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let exec = Event { time_ns: now(), goid: 0, tgid, kind: EVENT_EXEC, reason: 0, version: WIRE_VERSION };
        send(&ctx, &exec);
    }
    0
}

/// The current process, if it is traced.
#[inline(always)]
fn target() -> Option<&'static Target> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    match FIRST_TARGET.get(0) {
        Some(target) if target.tgid == tgid => Some(target),
        // SAFETY: user space writes an entry once, before the first probe of its process, and removes it after the
        // last; of what it changes in between, each word stands for itself.
        _ => unsafe { TARGETS.get(&tgid) },
    }
}

/// What is wanted of this process now.
#[inline(always)]
fn control(target: &Target) -> Control {
    // SAFETY: a plain read, of what user space may change at any time.
    Control::unpack(unsafe { core::ptr::read_volatile(&raw const target.control) })
}

/// Keeps this program on the stack of the thread that runs it.
///
/// Since 6.13 the x86_64 JIT (later arm64's) gives a program of this type that uses 64 bytes of stack or more one
/// stack for each CPU. Two threads can be in one of our programs on one CPU: behind a uprobe the kernel can be
/// preempted. They then write over each other's variables. Seen on Debian's 7.3 under a million spawns: a page fault
/// in `created`, and the target dead. Programs with a tail call in them are left on the thread's stack
/// (`check_max_stack_depth` in kernel/bpf/verifier.c counts it before dead code is dropped), and this one is dropped.
#[inline(always)]
fn on_own_stack(ctx: &ProbeContext) {
    const NEVER: u32 = u32::MAX;
    // SAFETY: a plain read, volatile because the loader changes the value; the map has no program to jump to.
    unsafe {
        if core::ptr::read_volatile(&raw const ARCH) == NEVER {
            let _ = NOWHERE.tail_call(ctx, 0);
        }
    }
}

#[inline(always)]
fn created(ctx: &ProbeContext, g: u64) -> u32 {
    on_own_stack(ctx);
    let Some(target) = target() else { return 0 };
    let control = control(target);
    if control.mode == MODE_OFF {
        hit(HIT_UNWANTED);
        return 0;
    }
    hit(HIT_CREATED);
    let Ok(goid) = read::<u64>(ctx, g, target.g_goid) else { return 0 };
    if !is_sampled(goid, control.sample_shift) {
        hit(HIT_CREATED_LEFT_OUT);
        return 0;
    }
    let Ok(birth) = birth(ctx, target, g) else { return 0 };
    if control.mode == MODE_STATES {
        let now = now();
        begin_record(ctx, target, control, g, goid, &birth, now, STATE_RUNNABLE, 0);
    }
    let Birth { parent_goid, gopc, startpc, .. } = birth;
    send(ctx, &Created { event: event(target, goid, EVENT_CREATED, 0), parent_goid, gopc, startpc });
    0
}

/// Fields of a g, in the order in which they lie there since Go 1.21.
#[repr(C)]
#[derive(Clone, Copy)]
struct Birth {
    parent_goid: u64,
    gopc: u64,
    _ancestors: u64,
    startpc: u64,
}

/// Who made the goroutine, where, to run what.
#[inline(always)]
fn birth(ctx: &ProbeContext, target: &Target, g: u64) -> Result<Birth, ()> {
    if target.birth_together != 0 {
        return read(ctx, g, target.g_parent_goid);
    }
    let parent_goid = if target.g_parent_goid == NO_FIELD {
        // newproc.func1 runs on g0; the goroutine it works for is its m's curg.
        let m = read::<u64>(ctx, current_g(ctx), target.g_m)?;
        match read::<u64>(ctx, m, target.m_curg)? {
            0 => 0,
            curg => read::<u64>(ctx, curg, target.g_goid)?,
        }
    } else {
        read::<u64>(ctx, g, target.g_parent_goid)?
    };
    Ok(Birth {
        parent_goid,
        gopc: read::<u64>(ctx, g, target.g_gopc)?,
        _ancestors: 0,
        startpc: read::<u64>(ctx, g, target.g_startpc)?,
    })
}

/// `reason`: `None` where it is to be read from the g.
#[inline(always)]
fn blocked(ctx: &ProbeContext, target: &Target, g: u64, reason: Option<u8>) -> u32 {
    let control = control(target);
    match control.mode {
        MODE_STATES => {}
        MODE_EVENTS => hit(HIT_BLOCKED),
        _ => {
            hit(HIT_UNWANTED);
            return 0;
        }
    }
    let reason = match reason {
        Some(reason) => reason,
        None => match read::<u8>(ctx, g, target.g_waitreason) {
            Ok(reason) => reason,
            Err(()) => return 0,
        },
    };
    if control.mode == MODE_EVENTS {
        return transition(ctx, target, g, EVENT_BLOCKED, reason);
    }
    let now = now();
    if let Some(blocks) = REASON_BLOCKS.get_ptr_mut(reason_index(reason)) {
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*blocks).parks }, 1);
    }
    let Some(record) = record(target, control, g) else {
        return see(ctx, target, control, g, now, STATE_BLOCKED, reason);
    };
    // SAFETY: a live map value, written by the one thread that has the goroutine.
    unsafe {
        let version = (*record).begin.wrapping_add(1);
        write_volatile(&raw mut (*record).begin, version);
        let first_ran = (*record).state & FIRST_RAN;
        if (*record).first_ns == 0 {
            (*record).first_ns = now;
        }
        (*record).since_ns = now;
        (*record).parks += 1;
        (*record).state = STATE_BLOCKED | first_ran;
        (*record).reason = reason;
        write_volatile(&raw mut (*record).end, version);
        count_park_at(u32::from((*record).site));
    }
    0
}

#[inline(always)]
fn running(ctx: &ProbeContext, target: &Target, g: u64) -> u32 {
    let control = control(target);
    match control.mode {
        MODE_STATES => hit(HIT_RUNNING),
        MODE_EVENTS => {
            hit(HIT_RUNNING);
            return transition(ctx, target, g, EVENT_RUNNING, 0);
        }
        _ => {
            hit(HIT_UNWANTED);
            return 0;
        }
    }
    let Some(record) = record(target, control, g) else {
        let now = now();
        return see(ctx, target, control, g, now, STATE_RUNNING | FIRST_RAN, 0);
    };
    // SAFETY: as in `blocked`.
    unsafe {
        let state = (*record).state & !FIRST_RAN;
        if state == STATE_RUNNING {
            // It was preempted, or yielded, in between.
            return 0;
        }
        let now = now();
        let ns = now.saturating_sub((*record).since_ns);
        let (site, reason) = ((*record).site, (*record).reason);
        let version = (*record).begin.wrapping_add(1);
        write_volatile(&raw mut (*record).begin, version);
        let first_ran = if (*record).first_ns == 0 {
            (*record).first_ns = now;
            FIRST_RAN
        } else {
            (*record).state & FIRST_RAN
        };
        if state == STATE_BLOCKED {
            (*record).blocked_ns += ns;
            if ns > (*record).longest_ns {
                (*record).longest_ns = ns;
            }
        }
        (*record).since_ns = now;
        (*record).state = STATE_RUNNING | first_ran;
        write_volatile(&raw mut (*record).end, version);
        if state == STATE_BLOCKED {
            let bucket = bucket(ns);
            if let Some(blocks) = SITE_BLOCKS.get_ptr_mut(u32::from(site)) {
                add(&raw mut (*blocks).blocked_ns, ns);
                add((&raw mut (*blocks).buckets).cast::<u64>().add(bucket), 1);
            }
            if let Some(blocks) = REASON_BLOCKS.get_ptr_mut(reason_index(reason)) {
                add(&raw mut (*blocks).blocked_ns, ns);
                add((&raw mut (*blocks).buckets).cast::<u64>().add(bucket), 1);
            }
        }
    }
    0
}

#[inline(always)]
fn ended(ctx: &ProbeContext, target: &Target, g: u64) -> u32 {
    let control = control(target);
    if control.mode == MODE_OFF {
        hit(HIT_UNWANTED);
        return 0;
    }
    hit(HIT_EXITED);
    if control.mode == MODE_STATES
        && let Some(record) = record(target, control, g)
    {
        // SAFETY: as in `blocked`. No other field is touched: who reads it passes over a record of goroutine 0.
        unsafe { write_volatile(&raw mut (*record).goid, 0) };
    }
    let Ok(goid) = read::<u64>(ctx, g, target.g_goid) else { return 0 };
    if is_sampled(goid, control.sample_shift) {
        send(ctx, &event(target, goid, EVENT_EXITED, 0));
    } else {
        hit(HIT_EXITED_LEFT_OUT);
    }
    0
}

#[inline(always)]
fn transition(ctx: &ProbeContext, target: &Target, g: u64, kind: u8, reason: u8) -> u32 {
    if let Ok(goid) = read::<u64>(ctx, g, target.g_goid) {
        send(ctx, &event(target, goid, kind, reason));
    }
    0
}

/// The record of the goroutine in this g, if it has one in this epoch.
///
/// Without reading the g: `created` begins a record anew for each goroutine that a g is used for, and `ended` ends it.
#[inline(always)]
fn record(target: &Target, control: Control, g: u64) -> Option<*mut Record> {
    let key = RecordKey { g, tgid: target.tgid, padding: 0 };
    let record = RECORDS.get_ptr_mut(&key)?;
    // SAFETY: a live map value.
    let (epoch, goid) = unsafe { ((*record).epoch, (*record).goid) };
    (epoch == control.epoch && goid != 0).then_some(record)
}

/// A goroutine that has no record yet parks or runs: it is older than the epoch, or the record of its birth was lost.
#[inline(always)]
fn see(ctx: &ProbeContext, target: &Target, control: Control, g: u64, now: u64, state: u8, reason: u8) -> u32 {
    let Ok(goid) = read::<u64>(ctx, g, target.g_goid) else { return 0 };
    // One after the other: of two looked at together, the verifier of 5.10 follows a path on which one is there and not
    // yet read.
    let Ok(gopc) = read::<u64>(ctx, g, target.g_gopc) else { return 0 };
    let Ok(startpc) = read::<u64>(ctx, g, target.g_startpc) else { return 0 };
    let birth = Birth { parent_goid: 0, gopc, _ancestors: 0, startpc };
    begin_record(ctx, target, control, g, goid, &birth, now, state, reason);
    0
}

/// Begins the record of a goroutine in this epoch, over the one of whoever had its g before.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "inlined: a struct of them would take stack, of which there are 512 bytes"
)]
fn begin_record(
    _ctx: &ProbeContext,
    target: &Target,
    control: Control,
    g: u64,
    goid: u64,
    birth: &Birth,
    now: u64,
    state: u8,
    reason: u8,
) {
    let site = site(target, birth);
    let blocked = state & !FIRST_RAN == STATE_BLOCKED;
    let key = RecordKey { g, tgid: target.tgid, padding: 0 };
    if let Some(record) = RECORDS.get_ptr_mut(&key) {
        // The g is used again: its record is written over, which takes a third of the time of putting in another.
        // SAFETY: as in `blocked`; nobody else has the goroutine yet, or only its own thread has it.
        unsafe {
            let version = (*record).begin.wrapping_add(1);
            write_volatile(&raw mut (*record).begin, version);
            (*record).epoch = control.epoch;
            (*record).goid = goid;
            (*record).since_ns = now;
            (*record).first_ns = if state == STATE_RUNNABLE { 0 } else { now };
            write_volatile(&raw mut (*record).blocked_ns, 0);
            write_volatile(&raw mut (*record).longest_ns, 0);
            (*record).parks = u64::from(blocked);
            (*record).site = site as u16;
            (*record).state = state;
            (*record).reason = reason;
            write_volatile(&raw mut (*record).end, version);
        }
        if blocked {
            count_park_at(site);
        }
        return;
    }
    let record = Record {
        begin: 0,
        epoch: control.epoch,
        goid,
        since_ns: now,
        first_ns: if state == STATE_RUNNABLE { 0 } else { now },
        blocked_ns: 0,
        longest_ns: 0,
        parks: u64::from(blocked),
        site: site as u16,
        state,
        reason,
        end: 0,
    };
    if RECORDS.insert(&key, &record, 0).is_err() {
        count(COUNT_NO_RECORD);
    }
    if blocked {
        count_park_at(site);
    }
}

#[inline(always)]
fn count_park_at(site: u32) {
    if let Some(blocks) = SITE_BLOCKS.get_ptr_mut(site) {
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*blocks).parks }, 1);
    }
}

/// The number of a creation site; 0 if there are too many.
#[inline(always)]
fn site(target: &Target, birth: &Birth) -> u32 {
    let key = SiteKey { gopc: birth.gopc, startpc: birth.startpc, tgid: target.tgid, generation: target.generation };
    // SAFETY: values are never changed, and removed only when no program of their process is under way.
    if let Some(site) = unsafe { SITES.get(&key) } {
        return *site;
    }
    let Ok(Some(free)) = FREE_SITES.pop() else { return 0 };
    if SITES.insert(&key, &free, BPF_NOEXIST).is_ok() {
        return free;
    }
    // Another CPU was first.
    let _ = FREE_SITES.push(&free, 0);
    // SAFETY: as above.
    unsafe { SITES.get(&key) }.map_or(0, |site| *site)
}

#[inline(always)]
fn reason_index(reason: u8) -> u32 {
    if u32::from(reason) < REASONS { u32::from(reason) } else { REASONS - 1 }
}

/// The power of two at or below `ns`, at most the last bucket's.
#[inline(always)]
fn bucket(ns: u64) -> usize {
    if ns >> (BUCKETS - 1) != 0 {
        return BUCKETS - 1;
    }
    let (mut rest, mut power) = (ns, 0);
    let mut step = |bits: u32| {
        if rest >> bits != 0 {
            rest >>= bits;
            power += bits as usize;
        }
    };
    step(32);
    step(16);
    step(8);
    step(4);
    step(2);
    step(1);
    // For the verifier: never more than 47 here.
    if power < BUCKETS { power } else { BUCKETS - 1 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no precondition.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn event(target: &Target, goid: u64, kind: u8, reason: u8) -> Event {
    Event { time_ns: now(), goid, tgid: target.tgid, kind, reason, version: WIRE_VERSION }
}

/// Reads a field of the target's memory; what cannot be read is counted.
#[inline(always)]
fn read<T>(ctx: &ProbeContext, object: u64, offset: u32) -> Result<T, ()> {
    // SAFETY: the helper checks the address; a bad one is an error value.
    unsafe { bpf_probe_read_user(object.wrapping_add(u64::from(offset)) as *const T) }.map_err(|error| {
        count(COUNT_UNREADABLE_G);
        debug!(ctx, "no {} bytes at 0x{:x}+{}: {}", size_of::<T>(), object, offset, error);
    })
}

/// Counts one event that did not go up.
#[inline(always)]
fn count(cause: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(cause) {
        add(counter, 1);
    }
}

/// Counts one hit of a probe.
#[inline(always)]
fn hit(kind: u32) {
    if let Some(counter) = HITS.get_ptr_mut(kind) {
        add(counter, 1);
    }
}

/// Adds to a map value of this CPU. Atomically: on a preemptible kernel two programs may be under way on one CPU.
#[inline(always)]
fn add(to: *mut u64, what: u64) {
    // SAFETY: a live, aligned map value. The result is unused, so this is BPF_XADD, which every kernel has.
    unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(to, what) };
}

/// The programs call helpers that the kernel gives to GPL-compatible programs alone; this object is dual licensed.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: nothing here can panic, and the verifier would refuse an endless loop.
    loop {}
}

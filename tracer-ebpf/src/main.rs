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

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_CURRENT_CPU,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_perf_event_output},
    macros::{map, raw_tracepoint, uprobe},
    maps::{HashMap, PerCpuArray, PerfEventArray, ProgramArray},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use gotracer_ebpf::{
    ARCH_X86_64, COUNT_NO_BUFFER, COUNT_NO_SPACE, COUNT_UNREADABLE_G, COUNTS as COUNTERS, Created, EVENT_BLOCKED,
    EVENT_CREATED, EVENT_EXEC, EVENT_EXITED, EVENT_RUNNING, Event, NO_FIELD, Target, WIRE_VERSION,
};

/// Which architecture's registers to read; the loader sets it.
#[unsafe(no_mangle)]
static ARCH: u32 = ARCH_X86_64;

/// Whether every process that replaces its program is told of, or the traced ones alone; the loader sets it.
#[unsafe(no_mangle)]
static EVERY_EXEC: u32 = 0;

/// The traced processes by thread group id.
#[map]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(4096, 0);

/// The way up: one perf buffer for each CPU, opened by the loader with a watermark.
#[map]
static EVENTS: PerfEventArray<Event> = PerfEventArray::new(0);

/// What did not go up, by cause.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

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
    let Some(known) = target() else { return 0 };
    transition(&ctx, known, current_g(&ctx), EVENT_BLOCKED, third(&ctx) as u8)
}

/// `blocked`, where the reason is in the g already: `call mcall` in gopark.
#[uprobe]
fn blocked_at_mcall(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    let g = current_g(&ctx);
    match read::<u8>(&ctx, g, known.1.g_waitreason) {
        Ok(reason) => transition(&ctx, known, g, EVENT_BLOCKED, reason),
        Err(()) => 0,
    }
}

/// `blocked`, of a coroutine that hands over to another: `call mcall` in `coroswitch`, before it notes its reason.
#[uprobe]
fn blocked_at_coroswitch(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    transition(&ctx, known, current_g(&ctx), EVENT_BLOCKED, known.1.coroutine_reason as u8)
}

/// `running`, where the goroutine is the first argument: in `execute`, which runs on g0.
#[uprobe]
fn running_at_call(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    transition(&ctx, known, first(&ctx), EVENT_RUNNING, 0)
}

/// `running`, where the argument is `&g.sched`: `call gogo` in `coroswitch_m`. gogo is assembly of ABI0, so its
/// argument is on the stack, on arm64 above the slot for the return address.
#[uprobe]
fn running_at_gogo(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    // SAFETY: a plain read; volatile because the loader changes the value.
    let slot = if unsafe { core::ptr::read_volatile(&raw const ARCH) } == ARCH_X86_64 { 0 } else { 8 };
    match read::<u64>(&ctx, stack_pointer(&ctx), slot) {
        Ok(sched) => transition(&ctx, known, sched.wrapping_sub(u64::from(known.1.g_sched)), EVENT_RUNNING, 0),
        Err(()) => 0,
    }
}

/// `exited`, where the goroutine is the first argument: `call gdestroy` in `coroswitch_m`, which runs on g0.
#[uprobe]
fn exited_at_call(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    transition(&ctx, known, first(&ctx), EVENT_EXITED, 0)
}

/// `exited`: in `goexit1`, which runs on the dying goroutine itself.
#[uprobe]
fn exited(ctx: ProbeContext) -> u32 {
    let Some(known) = target() else { return 0 };
    transition(&ctx, known, current_g(&ctx), EVENT_EXITED, 0)
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
        send(&ctx, &event(tgid, 0, EVENT_EXEC, 0));
    }
    0
}

/// The current process, if it is traced.
#[inline(always)]
fn target() -> Option<(u32, &'static Target)> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: user space writes an entry once, before the first probe of its process, and removes it after the last.
    unsafe { TARGETS.get(&tgid) }.map(|target| (tgid, target))
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
    let Some((tgid, target)) = target() else { return 0 };
    let read_all = || -> Result<Created, ()> {
        let goid = read::<u64>(ctx, g, target.g_goid)?;
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
        Ok(Created {
            event: event(tgid, goid, EVENT_CREATED, 0),
            parent_goid,
            gopc: read::<u64>(ctx, g, target.g_gopc)?,
            startpc: read::<u64>(ctx, g, target.g_startpc)?,
        })
    };
    if let Ok(created) = read_all() {
        send(ctx, &created);
    }
    0
}

#[inline(always)]
fn transition(ctx: &ProbeContext, (tgid, target): (u32, &Target), g: u64, kind: u8, reason: u8) -> u32 {
    on_own_stack(ctx);
    if let Ok(goid) = read::<u64>(ctx, g, target.g_goid) {
        send(ctx, &event(tgid, goid, kind, reason));
    }
    0
}

#[inline(always)]
fn event(tgid: u32, goid: u64, kind: u8, reason: u8) -> Event {
    // SAFETY: no precondition.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    Event { time_ns, goid, tgid, kind, reason, version: WIRE_VERSION }
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

#[inline(always)]
fn send<C: EbpfContext, T>(ctx: &C, event: &T) {
    // The helper is called directly because aya's wrapper drops the result, and with it the loss.
    // SAFETY: `EVENTS` is a perf event array, `event` lives on our stack and has no padding.
    let sent = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            (&raw const EVENTS).cast_mut().cast::<c_void>(),
            u64::from(BPF_F_CURRENT_CPU),
            core::ptr::from_ref(event).cast_mut().cast::<c_void>(),
            size_of::<T>() as u64,
        )
    };
    const ENOSPC: i64 = -28;
    match sent {
        0 => {}
        ENOSPC => count(COUNT_NO_SPACE),
        _ => count(COUNT_NO_BUFFER),
    }
}

/// Counts one event that did not go up. Atomically: on a preemptible kernel two programs may be under way on one CPU.
#[inline(always)]
fn count(cause: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(cause) {
        // SAFETY: a live, aligned map value. The result is unused, so this is BPF_XADD, which every kernel has.
        unsafe { core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(counter, 1) };
    }
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

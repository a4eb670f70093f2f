//! What threads hold outside of goroutines: on the stack that the scheduler runs on, and on the one for signals.
//!
//! In: the target's memory. Out: which threads are at work ([`Stay`]), the words on their stacks, and which parts of stacks that
//! C gave to threads are the scheduler's alone.
//!
//! The scheduler has in hand for an instant what is nowhere else: a timer's function, between the timer's end and the goroutine
//! that is to run it (`goFunc`, <https://github.com/golang/go/blob/go1.27.3/src/time/sleep.go#L181-L183>); a signal's frame has
//! the registers of what it interrupted. How much of such a stack is in use nobody tells, and much of it never is: it still has
//! what was there before, references to anything among it. So a thread's stacks count if it has got nowhere between two looks
//! of a pass. One that has got somewhere has put what it had where the later look, which comes behind it, finds it; and what
//! was in hand in another moment of one pass is not so in all passes.

use hashbrown::HashSet;

use super::stacks::loosely;
use super::{Locate, ProofError};
use crate::go_runtime::{Field, Status, Variable};
use crate::snapshot::Source;
use crate::snapshot::raw::RawG;
use crate::units::RemoteAddr;

/// Threads believed; Go's own bound is 10,000.
const THREAD_LIMIT: usize = 1 << 17;
/// Bytes of a thread's stack believed; the largest that are seen are the 8 MiB of `ulimit -s`.
const STACK_LIMIT: u64 = 1 << 30;

/// A thread that runs Go code or holds a processor, until it runs something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stay {
    /// Its `runtime.m`.
    m: u64,
    /// The goroutine it runs; 0: none, it looks for one.
    g: u64,
    /// That goroutine's id.
    goid: u64,
    /// The processor it holds; 0: none.
    p: u64,
    /// `p.schedtick`: counts what the processor ran.
    tick: u64,
    g0: u64,
    gsignal: u64,
}

/// Those that are at work now.
///
/// A thread whose goroutine is in a system call is not: it stands in the kernel, on the goroutine's stack. When that goroutine
/// goes on, it is another one to look at.
pub(super) fn at_work(source: &Source<'_>) -> Result<Vec<Stay>, ProofError> {
    let layout = &source.layout.m;
    let mut stays = Vec::new();
    each(source, |at, bytes| {
        let field = |field: Field| field.read(bytes).unwrap_or_default();
        let (g, p) = (field(layout.curg), field(layout.p));
        // One that holds no processor and runs no goroutine has nothing in hand.
        if g == 0 && p == 0 {
            return Ok(());
        }
        let (status, goid) = if g == 0 { (None, 0) } else { status_and_id(source, g)? };
        if status != Some(Status::Syscall) {
            // What goes while it is looked at is not the same a look later.
            let tick = source.memory.word(source.layout.p.schedtick.at(RemoteAddr(p))).unwrap_or_default();
            let tick = tick & u64::from(u32::MAX);
            stays.push(Stay { m: at, g, goid, p, tick, g0: field(layout.g0), gsignal: field(layout.gsignal) });
        }
        Ok(())
    })?;
    Ok(stays)
}

/// Each thread's own `runtime.g`s: of the scheduler and of the signal handler.
pub(super) fn structs(source: &Source<'_>) -> Result<Vec<u64>, ProofError> {
    let layout = &source.layout.m;
    let mut structs = Vec::new();
    each(source, |_, bytes| {
        structs.extend([layout.g0, layout.gsignal].iter().filter_map(|g| g.read(bytes)).filter(|g| *g != 0));
        Ok(())
    })?;
    Ok(structs)
}

/// The parts of threads' stacks that the scheduler alone uses now.
///
/// With C in the program, these stacks are C's memory. What lies there below `g0.sched.sp`, from where the scheduler begins each
/// time anew, is old, and a thread that sleeps keeps it: goroutines, and ends of stacks, which are addresses of whatever lies
/// behind them. Above it are C's callers. Below it is what C calls, while a goroutine is in such a call: then it counts as in a
/// system call, made by `cgocall`. <https://github.com/golang/go/blob/go1.27.3/src/runtime/asm_amd64.s#L960-L971>,
/// <https://github.com/golang/go/blob/go1.27.3/src/runtime/cgocall.go#L131-L178>
pub(super) fn scheduler_stacks(source: &Source<'_>) -> Result<Vec<(u64, u64)>, ProofError> {
    let layout = &source.layout.m;
    let mut parts = Vec::new();
    each(source, |_, bytes| {
        let field = |field: Field| field.read(bytes).unwrap_or_default();
        let (curg, g0) = (field(layout.curg), field(layout.g0));
        if g0 == 0 || curg != 0 && !in_go_system_call(source, curg)? {
            return Ok(());
        }
        let g = source.memory.bytes(RemoteAddr(g0), source.layout.g.size as usize)?;
        let word = |field: Field| field.read(&g).unwrap_or_default();
        let (low, high) = (word(source.layout.g.stack_lo), word(source.layout.g.stack_hi));
        let begins = word(source.layout.g.sched_sp);
        if low < begins && begins <= high && high - low <= STACK_LIMIT {
            parts.push((low, begins));
        }
        Ok(())
    })?;
    Ok(parts)
}

/// Whether a goroutine is in a system call that no C made; if it cannot be told, it is not.
fn in_go_system_call(source: &Source<'_>, g: u64) -> Result<bool, ProofError> {
    let Some(raw) = raw_g(source, g)? else { return Ok(false) };
    let status = Status::parse(raw.status_word, source.binary.version().minor());
    let caller = source.binary.functions().find(source.bias.pc(RemoteAddr(raw.syscallpc)));
    Ok(status == Some(Status::Syscall) && caller.is_some_and(|function| function.name() != "runtime.cgocall"))
}

/// Gives every thread that the scheduler knows: the address of its `runtime.m`, and a copy of it.
fn each(source: &Source<'_>, mut take: impl FnMut(u64, &[u8]) -> Result<(), ProofError>) -> Result<(), ProofError> {
    let layout = &source.layout.m;
    let mut at = source.memory.word(source.remote(Variable::Allm)?)?;
    let mut seen = HashSet::new();
    while at != 0 && seen.len() < THREAD_LIMIT && seen.insert(at) {
        let bytes = source.memory.bytes(RemoteAddr(at), layout.size as usize)?;
        take(at, &bytes)?;
        at = layout.alllink.read(&bytes).unwrap_or_default();
    }
    Ok(())
}

/// Every word of a thread's own stacks.
pub(super) fn stacks(source: &Source<'_>, stay: &Stay, take: &mut impl FnMut(u64)) -> Result<(), ProofError> {
    for g in [stay.g0, stay.gsignal].into_iter().filter(|g| *g != 0) {
        let low = source.memory.word(source.layout.g.stack_lo.at(RemoteAddr(g)))?;
        let high = source.memory.word(source.layout.g.stack_hi.at(RemoteAddr(g)))?;
        loosely(source, low, high, take)?;
    }
    Ok(())
}

fn status_and_id(source: &Source<'_>, g: u64) -> Result<(Option<Status>, u64), ProofError> {
    let raw = raw_g(source, g)?;
    let status = raw.as_ref().and_then(|raw| Status::parse(raw.status_word, source.binary.version().minor()));
    Ok((status, raw.map_or(0, |raw| raw.goid)))
}

fn raw_g(source: &Source<'_>, g: u64) -> Result<Option<RawG>, ProofError> {
    let bytes = source.memory.bytes(RemoteAddr(g), source.layout.g.size as usize)?;
    Ok(RawG::parse(&bytes, &source.layout.g))
}

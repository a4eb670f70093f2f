//! What threads hold outside of goroutines: on the stack that the scheduler runs on, and on the one for signals.
//!
//! In: the target's memory. Out: which threads are at work ([`Stay`]), and the words on their stacks. In a program with C in it
//! those stacks are C's, and part of its memory.
//!
//! The scheduler has in hand for an instant what is nowhere else: a timer's function, between the timer's end and the goroutine
//! that is to run it (`goFunc`, <https://github.com/golang/go/blob/go1.27.3/src/time/sleep.go#L181-L183>); a signal's frame has
//! the registers of what it interrupted. How much of such a stack is in use nobody tells, and much of it never is: it still has
//! what was there before, references to anything among it. So a thread's stacks count if it has got nowhere between two looks
//! of a pass. One that has got somewhere has put what it had where the later look, which comes behind it, finds it; and what
//! was in hand in another moment of one pass is not so in all passes.

use hashbrown::HashMap;

use super::stacks::loosely;
use super::{Locate, ProofError};
use crate::go_runtime::{Status, Variable};
use crate::snapshot::Source;
use crate::snapshot::raw::RawG;
use crate::units::RemoteAddr;

/// Threads believed; Go's own bound is 10,000.
const THREAD_LIMIT: usize = 1 << 17;

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
    let mut at = source.memory.word(source.remote(Variable::Allm)?)?;
    let (mut seen, mut stays) = (HashMap::new(), Vec::new());
    while at != 0 && seen.len() < THREAD_LIMIT && seen.insert(at, ()).is_none() {
        let bytes = source.memory.bytes(RemoteAddr(at), layout.size as usize)?;
        let field = |field: crate::go_runtime::Field| field.read(&bytes).unwrap_or_default();
        let (g, p) = (field(layout.curg), field(layout.p));
        // One that holds no processor and runs no goroutine has nothing in hand.
        if g != 0 || p != 0 {
            let (status, goid) = if g == 0 { (None, 0) } else { status_and_id(source, g)? };
            if status != Some(Status::Syscall) {
                // What goes while it is looked at is not the same a look later.
                let tick = source.memory.word(source.layout.p.schedtick.at(RemoteAddr(p))).unwrap_or_default();
                let tick = tick & u64::from(u32::MAX);
                stays.push(Stay { m: at, g, goid, p, tick, g0: field(layout.g0), gsignal: field(layout.gsignal) });
            }
        }
        at = field(layout.alllink);
    }
    Ok(stays)
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
    let bytes = source.memory.bytes(RemoteAddr(g), source.layout.g.size as usize)?;
    let raw = RawG::parse(&bytes, &source.layout.g);
    let status = raw.as_ref().and_then(|raw| Status::parse(raw.status_word, source.binary.version().minor()));
    Ok((status, raw.map_or(0, |raw| raw.goid)))
}

//! The lifecycle table: what every goroutine of one process does and did.
//!
//! In: [`Event`](crate::events::Event)s in the order of [`TimeOrder`](crate::events::order::TimeOrder), and snapshots
//! read from the target's memory, and what the kernel keeps where transitions are no events. Out: live goroutines, totals, figures per creation site and per wait reason, and,
//! for who asks, each life that ends. Knows no names: sites are addresses, reasons are numbers. Has no clock: all time
//! comes from events, snapshots and arguments.
//!
//! # What the states mean
//!
//! They come from gopark and execute alone. So a goroutine in a system call, or preempted, is *running*; *blocked*
//! lasts until it runs again, the wait in the run queue after its wake-up included; two `Running` events in a row mean
//! that it was preempted or yielded in between, and change nothing; *runnable* is between creation and first run. A
//! snapshot's "runnable" says no more than "in a run queue", which each of the table's states can be, so it never
//! overrides one.
//!
//! # Merging a snapshot
//!
//! Probes first; then [`begin_snapshot`](GoroutineTable::begin_snapshot) at B; then memory is read from F to T
//! (B <= F <= T), each g at its own moment, while events flow; then, when a drain that began after T has been applied,
//! [`merge_snapshot`](GoroutineTable::merge_snapshot). Nobody is missing and nobody counts twice, because:
//!
//! - an event is written *before* the g shows what it says: `Blocked`, `Running` and `Exited` are seen at the entry of
//!   the function that then changes the status. A g read as dead by T has its exit applied before the merge;
//! - `Created` is the exception: newproc1 has put the g in allgs, runnable, before the probe is hit;
//! - so between the time of an event and the status that it announces stands one thread in one probe (hundreds of
//!   nanoseconds, or as long as that thread is preempted). The way from B to F is to outlast that: let a few
//!   milliseconds pass. A state whose event is at or after B is the event's, an older one the snapshot's.
//!
//! | the table has | the snapshot has | what happened | merged as |
//! | --- | --- | --- | --- |
//! | nothing | it, alive | lived before the probes; or its creation was lost | added, *first seen* |
//! | nothing, exit since B | it, alive | read before it ended; or in goexit1, still marked running | stays exited |
//! | nothing, exit before B | it, alive | its thread is preempted in goexit1 for all of B to F | added; the next merge removes it |
//! | nothing | it, then its `Created` comes late | read while its creator was in the probe | added, then counted as created instead |
//! | nothing | it, then only its `Exited` comes late | read while it was in goexit1 | added, then exits |
//! | nothing | nothing | created after its place in allgs was passed, or over before F | its events tell all |
//! | alive, event at or after B | another state | changed before or after it was read; or the status lags | event's state; site and parent filled in if unknown |
//! | alive, events before B | another state | events lost, or states come from snapshots only | the snapshot's state, times are estimates |
//! | alive, event at or after F | nothing | created or reused after its place was passed | stays |
//! | alive, events before F | nothing | dead before it was read, and no exit applied: lost | removed, *ended unseen* |
//! | alive, a system goroutine, say, that never hit a probe | nothing | it left without goexit1 (coroutines do) | removed, *ended unseen* |
//! | any | of the program before an `execve` | the snapshot spans it | refused |
//!
//! A caller that merges too early, before the drain after T, still gets right counts: what was removed is kept for
//! one second of event time and put back by any event about it. States and times catch up with the events.
//!
//! # After a loss
//!
//! [`Event::Lost`](crate::events::Event::Lost) makes the table uncertain from then on; a whole snapshot begun after the
//! loss was noticed makes it certain again: all that was lost happened before. What is gone for good is counted
//! (`lost`). Goroutines whose history shows a hole say so (`estimated`); a park and a run lost together show none. One
//! state stays open: who ran before the loss and is read in a run queue was preempted, or parked and was woken; it is
//! taken as running, and its next event settles it.
//!
//! # Hostile input
//!
//! goids may repeat, exits come without creation, times run backwards: every event means something to every state,
//! sums saturate, and nothing panics. Memory is bounded by [`Limits`]; what they turn away is counted.

mod histogram;
mod index;
mod kept;
mod merge;
mod reasons;
mod sites;
mod slab;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub use histogram::Log2Histogram;
pub use kept::{StatesFrom, Window};
pub use merge::{Coverage, MergeRefused, MergeReport};
pub use reasons::ReasonStats;
pub use sites::{LiveByState, Site, SiteId};
pub use table::{GoroutineTable, Limits, Totals};
pub use view::{End, Ended, Goroutine, SnapshotGoroutine, State};

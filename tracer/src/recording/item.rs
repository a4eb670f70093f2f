//! What a recording consists of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::header::Program;
use crate::events::{Event, LossCause};
use crate::goroutines::{Coverage, SnapshotGoroutine};
use crate::output::SiteName;
use crate::units::{MonotonicNs, RemoteAddr};

/// One thing in a recording. The order is the table's: what stands before an item was in the table before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A program begins: the addresses of what follows are its own.
    Program(Program),
    /// Names for addresses and stacks of what follows.
    Definitions(Definitions),
    /// What happened, in the order of [`EventStream`](crate::events::EventStream).
    Events(Vec<Event>),
    /// From here on exits are remembered, for a reading of all goroutines begins:
    /// [`GoroutineTable::begin_snapshot`](crate::goroutines::GoroutineTable::begin_snapshot).
    ReadingBegun(MonotonicNs),
    /// All goroutines, read from the process's memory; here it is merged.
    Reading(Reading),
    /// From this moment on, events of these kinds are recorded: see [`Header::detail`](super::Header::detail).
    Detail {
        /// The moment.
        time: MonotonicNs,
        /// As in the header.
        level: String,
    },
    /// The end, regular; it stands last.
    End(End),
    /// A part of the file that is not as it was written. Only a reader makes this.
    Damage(Damage),
}

/// The number of a stack in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StackNumber(pub u32);

/// Names for what items hold as numbers. Each address is defined before it is used, once or more often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definitions {
    /// The program that these are of.
    pub generation: u32,
    /// `go` statements, by the address that they return to (`g.gopc`).
    pub sites: Vec<(RemoteAddr, SiteName)>,
    /// Functions, by the address at which they begin (`g.startpc`).
    pub functions: Vec<(RemoteAddr, Arc<str>)>,
    /// Stacks, innermost frame first. Their numbers are unique in a recording, whatever the program.
    pub stacks: Vec<(StackNumber, Vec<Frame>)>,
}

impl Definitions {
    /// Whether nothing is defined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty() && self.functions.is_empty() && self.stacks.is_empty()
    }
}

/// One call in a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// The function.
    pub function: Arc<str>,
    /// Its source file; empty where not known.
    pub file: Arc<str>,
    /// The line of the call; 0 where not known.
    pub line: u32,
    /// The address of the call, as in the process.
    pub pc: RemoteAddr,
    /// It has no frame of its own: the compiler put it into the next one.
    pub inlined: bool,
}

/// All goroutines at one time, as their memory said.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The first was read after this.
    pub taken_from: MonotonicNs,
    /// The last was read before this.
    pub taken_to: MonotonicNs,
    /// Whether these are all.
    pub coverage: Coverage,
    /// The goroutines, by rising goid.
    pub goroutines: Vec<Parked>,
}

impl Reading {
    /// What the table merges.
    #[must_use]
    pub fn entries(&self) -> Vec<SnapshotGoroutine> {
        self.goroutines.iter().map(|parked| parked.goroutine).collect()
    }
}

/// A goroutine in a reading, with its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The goroutine.
    pub goroutine: SnapshotGoroutine,
    /// Where it stood, if that was to be read: it waited, was runnable or in a system call.
    pub stack: Option<StackNumber>,
    /// Bytes of stack that it held.
    pub stack_bytes: u64,
}

/// The end of a recording, with what its reader can check itself by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// When.
    pub time_ns: MonotonicNs,
    /// Why: `detached` (by us), `exited` (the process did), `replaced` (by a program that cannot be traced), `full` (the disk
    /// or the size that was allowed), `rotated` (the next file goes on).
    pub why: String,
    /// Events in the recording, losses not counted.
    pub events: u64,
    /// Events that did not reach the recording: those of all `lost` in it.
    pub lost: u64,
    /// Events that stand behind later ones.
    pub late: u64,
    /// As in the header, at the end: the clocks may have moved against each other.
    pub wall_offset_ns: i64,
}

/// A part of a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// How many events are missing, where what follows tells.
    pub events: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// The loss that it is to a table, noticed at `time`; `None` if no events are known to be missing.
    #[must_use]
    pub fn as_loss(&self, time: MonotonicNs) -> Option<Event> {
        let count = self.events.filter(|&count| count > 0)?;
        Some(Event::Lost { time, cpu: 0, count, cause: LossCause::NotRecorded })
    }
}

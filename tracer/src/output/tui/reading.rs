//! What was read of the goroutines' stacks, with names, in little memory.
//!
//! In: a [`Snapshot`]. Out: for each its frames, for each site the stack that it holds. A
//! snapshot itself is larger and knows more than is shown.

use std::sync::Arc;

use hashbrown::HashMap;

use super::words::bounded;
use crate::output::SiteName;
use crate::snapshot::{Snapshot, StackState, Symbols};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// Distinct stacks that are named. Programs stand at a few hundred places; recursion can make many.
const STACKS: usize = 8_192;
/// Frames kept of each.
const FRAMES: usize = 128;
/// Goroutines whose profiler labels are kept.
const WITH_LABELS: usize = 1 << 16;
/// Labels kept of each.
const LABELS: usize = 16;

/// What is known of a goroutine's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Innermost first, as Go's traceback shows it; and how many more there were.
    Frames(Arc<[SiteName]>, usize),
    /// It was running: its registers were in a processor.
    Running,
    /// It changed while it was read.
    Moved,
}

impl Stack {
    /// The frame that tells most in one line: the innermost that is not part of how Go waits; else the innermost.
    pub(super) fn telling(&self) -> Option<&SiteName> {
        let Self::Frames(frames, _) = self else { return None };
        frames.iter().find(|frame| !waits(&frame.function)).or_else(|| frames.first())
    }
}

/// Packages in which a goroutine stands when it waits, whatever it is that it does.
const WAITING: [&str; 14] = [
    "runtime",
    "sync",
    "time",
    "context",
    "syscall",
    "os",
    "io",
    "bufio",
    "net",
    "internal/poll",
    "internal/sync",
    "internal/runtime/maps",
    "golang.org/x/sync/semaphore",
    "golang.org/x/sync/errgroup",
];

fn waits(function: &str) -> bool {
    // `net/http.(*conn).serve` is of `net/http`: up to the first dot behind the last slash before any bracket.
    let path = function.split(['(', '[']).next().unwrap_or(function);
    let slash = path.rfind('/').map_or(0, |at| at + 1);
    let end = path.get(slash..).and_then(|last| last.find('.')).map_or(path.len(), |dot| slash + dot);
    path.get(..end).is_some_and(|package| WAITING.contains(&package))
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    goid: Goid,
    stack: u32,
}

/// In place of a number of a stack.
const RUNNING: u32 = u32::MAX;
const MOVED: u32 = u32::MAX - 1;

/// The stacks of goroutines at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    taken: MonotonicNs,
    /// By goid.
    entries: Vec<Entry>,
    stacks: Vec<(Arc<[SiteName]>, usize)>,
    /// Bytes of stack held, by `go` statement and start function.
    held: HashMap<(RemoteAddr, RemoteAddr), u64>,
    labels: HashMap<Goid, Vec<(String, String)>>,
}

impl Reading {
    /// Names what `snapshot` holds.
    #[must_use]
    pub fn of(snapshot: &Snapshot, symbols: &mut Symbols<'_>) -> Self {
        let mut reading = Self { taken: snapshot.taken_to.unwrap_or_default(), ..Self::default() };
        let mut interned: HashMap<usize, u32> = HashMap::new();
        let mut texts: HashMap<String, Arc<str>> = HashMap::new();
        for g in &snapshot.goroutines {
            let held = reading.held.entry((g.gopc, g.startpc)).or_default();
            *held = held.saturating_add(g.stack_size());
            let stack = match g.stack {
                StackState::Running => RUNNING,
                StackState::Moved => MOVED,
                StackState::Read(id) => match interned.get(&id.index()) {
                    Some(&number) => number,
                    None if reading.stacks.len() >= STACKS => MOVED,
                    None => {
                        let Some(stack) = snapshot.stack(g) else { continue };
                        let mut text = |text: &str| match texts.get(text) {
                            Some(known) => Arc::clone(known),
                            None => {
                                let new = bounded(text.into());
                                texts.insert(text.to_owned(), Arc::clone(&new));
                                new
                            }
                        };
                        let (frames, _) = symbols.traceback(stack);
                        let beyond = frames.len().saturating_sub(FRAMES) + stack.elided as usize;
                        let shown = frames.iter().take(FRAMES).map(|frame| SiteName {
                            function: text(&frame.function),
                            file: text(frame.file),
                            line: frame.line,
                        });
                        let number = reading.stacks.len() as u32;
                        reading.stacks.push((shown.collect(), beyond));
                        interned.insert(id.index(), number);
                        number
                    }
                },
            };
            reading.entries.push(Entry { goid: g.goid, stack });
            if reading.labels.len() < WITH_LABELS
                && let Some(labels) = snapshot.labels(g)
            {
                let short = |text: &str| bounded(text.into()).to_string();
                let labels = labels.iter().take(LABELS).map(|(key, value)| (short(key), short(value)));
                reading.labels.insert(g.goid, labels.collect());
            }
        }
        reading.entries.sort_unstable_by_key(|entry| entry.goid);
        reading
    }

    /// A reading put together by hand.
    #[must_use]
    pub fn from_parts(taken: MonotonicNs, stacks: impl IntoIterator<Item = (Goid, Stack)>) -> Self {
        let mut reading = Self { taken, ..Self::default() };
        for (goid, stack) in stacks {
            let stack = match stack {
                Stack::Running => RUNNING,
                Stack::Moved => MOVED,
                Stack::Frames(frames, beyond) => {
                    reading.stacks.push((frames, beyond));
                    reading.stacks.len() as u32 - 1
                }
            };
            reading.entries.push(Entry { goid, stack });
        }
        reading.entries.sort_unstable_by_key(|entry| entry.goid);
        reading
    }

    fn entry(&self, goid: Goid) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&goid, |entry| entry.goid).ok()?;
        self.entries.get(at)
    }

    /// When it was taken.
    #[must_use]
    pub fn taken(&self) -> MonotonicNs {
        self.taken
    }

    /// The stack of `goid`; `None` if it was not read.
    #[must_use]
    pub fn stack(&self, goid: Goid) -> Option<Stack> {
        Some(match self.entry(goid)?.stack {
            RUNNING => Stack::Running,
            MOVED => Stack::Moved,
            number => {
                let (frames, beyond) = self.stacks.get(number as usize)?;
                Stack::Frames(Arc::clone(frames), *beyond)
            }
        })
    }

    /// The profiler labels of `goid`.
    #[must_use]
    pub fn labels(&self, goid: Goid) -> &[(String, String)] {
        self.labels.get(&goid).map(Vec::as_slice).unwrap_or_default()
    }

    /// Bytes of stack that the goroutines of a `go` statement with a start function hold.
    #[must_use]
    pub fn stack_bytes(&self, site: (RemoteAddr, RemoteAddr)) -> Option<u64> {
        self.held.get(&site).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_that_tells_is_the_first_that_does_not_wait() {
        let frame = |function: &str| SiteName { function: function.into(), file: "f.go".into(), line: 1 };
        let telling = |functions: &[&str]| {
            let frames: Arc<[SiteName]> = functions.iter().map(|function| frame(function)).collect();
            Stack::Frames(frames, 0).telling().map(|frame| frame.function.to_string())
        };
        let cases: [(&[&str], &str); 5] = [
            (&["sync.runtime_SemacquireWaitGroup", "sync.(*WaitGroup).Wait", "main.work"], "main.work"),
            (
                &["internal/poll.runtime_pollWait", "net.(*conn).Read", "net/http.(*persistConn).readLoop"],
                "net/http.(*persistConn).readLoop",
            ),
            (&["time.Sleep", "runtime.goexit"], "time.Sleep"),
            (
                &["golang.org/x/sync/semaphore.(*Weighted).Acquire", "example.com/a.b/c.(*T[...]).f"],
                "example.com/a.b/c.(*T[...]).f",
            ),
            (&["synchronous.f"], "synchronous.f"),
        ];
        for (functions, expected) in cases {
            assert_eq!(telling(functions).as_deref(), Some(expected), "{functions:?}");
        }
        assert_eq!(telling(&[]), None);
        assert_eq!(Stack::Running.telling(), None);
    }
}

//! Stacks that were seen, each named once for all snapshots.
//!
//! In: stacks as program counters. Out: a number for each, what it says of why its goroutine waits, and its frames by name.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::analysis::{Block, FrameName};
use crate::snapshot::{Stack, Symbols};

/// So many different stacks are remembered; then all are forgotten.
const LIMIT: usize = 1 << 16;
/// So many frames are kept of one.
const FRAMES: usize = 32;

/// What is known of one stack.
#[derive(Clone, Debug)]
pub(super) struct StackFacts {
    /// As Go's own traceback shows it, innermost first.
    pub(super) frames: Arc<[FrameName]>,
    /// What it waits for, as far as the stack tells.
    pub(super) waits: Option<Block>,
}

/// All stacks that were seen.
#[derive(Debug, Default)]
pub(super) struct SeenStacks {
    ids: HashMap<Stack, u32>,
    facts: Vec<StackFacts>,
    names: HashMap<String, Arc<str>>,
}

impl SeenStacks {
    /// Whether there are too many; then [`SeenStacks::clear`] is due.
    pub(super) fn is_full(&self) -> bool {
        self.facts.len() >= LIMIT
    }

    /// Forgets all; numbers begin anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The number of `stack`.
    pub(super) fn id(&mut self, stack: &Stack, symbols: &mut Symbols<'_>) -> u32 {
        if let Some(&id) = self.ids.get(stack) {
            return id;
        }
        let all = symbols.frames(stack, true).0;
        let waits = waits_of(all.iter().map(|frame| frame.function.as_ref()));
        let shown = symbols.traceback(stack).0;
        let frames = shown.iter().take(FRAMES).map(|frame| FrameName {
            function: self.name(&frame.function),
            file: self.name(frame.file),
            line: frame.line,
        });
        let frames = frames.collect();
        let id = self.facts.len() as u32;
        self.facts.push(StackFacts { frames, waits });
        self.ids.insert(stack.clone(), id);
        id
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.names.insert(text.to_owned(), Arc::clone(&name));
        name
    }

    /// What is known of the stack with that number.
    pub(super) fn get(&self, id: u32) -> Option<&StackFacts> {
        self.facts.get(id as usize)
    }
}

/// What a stack (its functions, innermost first) tells of the wait at its tip. The runtime's wait reason alone does not: up to
/// Go 1.19 a mutex, up to 1.24 a `WaitGroup` wait for a "semacquire".
pub(super) fn waits_of<'a>(functions: impl Iterator<Item = &'a str>) -> Option<Block> {
    functions.take(12).find_map(|function| match function {
        "sync.(*WaitGroup).Wait" => Some(Block::WaitGroup),
        "sync.(*Cond).Wait" => Some(Block::Cond),
        "sync.(*Mutex).Lock" | "sync.(*Mutex).lockSlow" | "internal/sync.(*Mutex).Lock" => Some(Block::Mutex),
        "internal/sync.(*Mutex).lockSlow" | "sync.(*RWMutex).Lock" | "sync.(*RWMutex).RLock" => Some(Block::Mutex),
        "runtime.cgocall" => Some(Block::Cgo),
        "os/signal.signal_recv" => Some(Block::Other),
        _ => None,
    })
}

/// What a wait reason says; `None` where only the stack tells.
pub(super) fn of_reason(reason: &str) -> Option<Block> {
    Some(match reason {
        "chan send" => Block::Send,
        "chan receive" => Block::Receive,
        "select" => Block::Select,
        "chan receive (nil chan)" | "chan send (nil chan)" | "select (no cases)" => Block::Never,
        "sleep" => Block::Sleep,
        "IO wait" => Block::Io,
        "sync.Cond.Wait" => Block::Cond,
        "sync.Mutex.Lock" | "sync.RWMutex.RLock" | "sync.RWMutex.Lock" => Block::Mutex,
        "sync.WaitGroup.Wait" => Block::WaitGroup,
        _ => return None,
    })
}

//! Names for what a session saw, looked up once each, when it is first seen.
//!
//! In: events and snapshots of a program. Out: the definitions that they need, and readings with numbered stacks.

use hashbrown::{HashMap, HashSet};

use crate::events::{Event, Transition};
use crate::goroutines::Coverage;
use crate::output::Names;
use crate::recording::{Definitions, Frame, Item, Parked, Reading, StackNumber};
use crate::session::snapshot_entry;
use crate::snapshot::{Snapshot, Stack, StackState, Symbols};
use crate::tracee::{LoadBias, Program, TraceeNames};
use crate::units::RemoteAddr;

/// So many addresses of each kind, and stacks, are named. A program has fewer; hostile memory may show more.
const MOST: usize = 1 << 18;

/// Names what it is given, as far as it has not done so yet.
#[derive(Default)]
pub(super) struct Symboliser {
    program: Option<(Program, LoadBias, TraceeNames)>,
    generation: u32,
    sites: HashSet<RemoteAddr>,
    functions: HashSet<RemoteAddr>,
    stacks: HashMap<Stack, StackNumber>,
    /// The number of the next stack: unique over all programs.
    next_stack: u32,
    /// All that was defined so far, for the next file.
    all: Vec<Item>,
}

impl Symboliser {
    pub(super) fn program(&mut self, program: Program, bias: LoadBias, generation: u32, item: Item) {
        let names = TraceeNames::new(program.clone(), Some(bias));
        self.program = Some((program, bias, names));
        self.generation = generation;
        self.sites.clear();
        self.functions.clear();
        self.stacks.clear();
        self.all.push(item);
    }

    /// The program and all definitions so far.
    pub(super) fn all(&self) -> Vec<Item> {
        self.all.clone()
    }

    fn defined(&mut self, definitions: Definitions) -> Option<Definitions> {
        if definitions.is_empty() {
            return None;
        }
        self.all.push(Item::Definitions(definitions.clone()));
        Some(definitions)
    }

    fn address(&mut self, gopc: RemoteAddr, startpc: RemoteAddr, into: &mut Definitions) {
        let Some((_, _, names)) = &mut self.program else { return };
        if self.sites.len() < MOST && self.sites.insert(gopc) {
            into.sites.push((gopc, names.site(gopc)));
        }
        if self.functions.len() < MOST && self.functions.insert(startpc) {
            into.functions.push((startpc, names.function(startpc)));
        }
    }

    /// What these events need that was not defined before.
    pub(super) fn of_events(&mut self, events: &[Event]) -> Option<Definitions> {
        let mut new = Definitions { generation: self.generation, ..Definitions::default() };
        for event in events {
            if let Event::Goroutine { transition: Transition::Created { gopc, startpc, .. }, .. } = *event {
                self.address(gopc, startpc, &mut new);
            }
        }
        self.defined(new)
    }

    /// A snapshot as a reading, and what it needs that was not defined before.
    pub(super) fn of_snapshot(&mut self, snapshot: &Snapshot) -> (Option<Definitions>, Option<Reading>) {
        let (Some(taken_from), Some(taken_to)) = (snapshot.taken_from, snapshot.taken_to) else { return (None, None) };
        let Some((program, bias)) = self.program.as_ref().map(|(program, bias, _)| (program.clone(), *bias)) else {
            return (None, None);
        };
        let mut symbols = Symbols::new(&program.binary);
        let mut new = Definitions { generation: self.generation, ..Definitions::default() };
        let mut goroutines = Vec::with_capacity(snapshot.goroutines.len());
        for g in &snapshot.goroutines {
            let Some(goroutine) = snapshot_entry(g) else { continue };
            self.address(g.gopc, g.startpc, &mut new);
            let stack = match g.stack {
                StackState::Read(_) => {
                    snapshot.stack(g).and_then(|stack| self.stack(stack, &mut symbols, bias, &mut new))
                }
                StackState::Running | StackState::Moved => None,
            };
            goroutines.push(Parked { goroutine, stack, stack_bytes: g.stack_size() });
        }
        let coverage = if snapshot.incomplete.is_none() { Coverage::Whole } else { Coverage::Part };
        (self.defined(new), Some(Reading { taken_from, taken_to, coverage, goroutines }))
    }

    fn stack(
        &mut self,
        stack: &Stack,
        symbols: &mut Symbols<'_>,
        bias: LoadBias,
        into: &mut Definitions,
    ) -> Option<StackNumber> {
        if let Some(&number) = self.stacks.get(stack) {
            return Some(number);
        }
        if self.stacks.len() >= MOST {
            return None;
        }
        let number = StackNumber(self.next_stack);
        self.next_stack = self.next_stack.checked_add(1)?;
        let (frames, _) = symbols.frames(stack, true);
        let frames = frames.iter().filter(|frame| frame.function != "runtime.goexit").map(|frame| Frame {
            function: (*frame.function).into(),
            file: frame.file.into(),
            line: frame.line,
            // The call, and not what follows it.
            pc: RemoteAddr(bias.remote(frame.pc).0.saturating_sub(1)),
            inlined: frame.inlined,
        });
        into.stacks.push((number, frames.collect()));
        self.stacks.insert(stack.clone(), number);
        Some(number)
    }
}

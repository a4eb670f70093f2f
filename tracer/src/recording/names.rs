//! Names for addresses, from the definitions in a recording.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;

use super::header::Program;
use super::item::{Definitions, Frame, Item, StackNumber};
use crate::output::{Names, SiteName};
use crate::units::RemoteAddr;

/// So many definitions of each kind are kept: more than any program has `go` statements, functions or stacks.
const MOST: usize = 1 << 20;
/// So many programs: a process that replaces itself more often has the rest unnamed.
const PROGRAMS: usize = 1 << 12;

/// The names of a recording's programs. Feed it with every item.
#[derive(Debug, Default)]
pub struct RecordedNames {
    programs: Vec<ProgramNames>,
    stacks: HashMap<StackNumber, Arc<[Frame]>>,
}

/// The names of one program.
#[derive(Debug, Default)]
pub struct ProgramNames {
    program: Program,
    sites: HashMap<RemoteAddr, SiteName>,
    functions: HashMap<RemoteAddr, Arc<str>>,
}

impl RecordedNames {
    /// Takes in what `item` defines, if it defines something.
    pub fn take(&mut self, item: &Item) {
        match item {
            Item::Program(program) => {
                // Of a file whose beginning is damaged, or of which only the end was kept.
                let at = program.generation as usize;
                if at < PROGRAMS {
                    if self.programs.len() <= at {
                        self.programs.resize_with(at + 1, ProgramNames::default);
                    }
                    self.programs[at].program = program.clone();
                }
            }
            Item::Definitions(definitions) => self.define(definitions),
            _ => {}
        }
    }

    fn define(&mut self, definitions: &Definitions) {
        let at = definitions.generation as usize;
        if at >= PROGRAMS {
            return;
        }
        if self.programs.len() <= at {
            self.programs.resize_with(at + 1, ProgramNames::default);
        }
        let names = &mut self.programs[at];
        for (address, name) in &definitions.sites {
            if names.sites.len() < MOST {
                names.sites.insert(*address, name.clone());
            }
        }
        for (address, name) in &definitions.functions {
            if names.functions.len() < MOST {
                names.functions.insert(*address, Arc::clone(name));
            }
        }
        for (number, frames) in &definitions.stacks {
            if self.stacks.len() < MOST {
                self.stacks.insert(*number, frames.as_slice().into());
            }
        }
    }

    /// The names of the program that ran last, as far as items were fed.
    pub fn last(&mut self) -> &mut ProgramNames {
        if self.programs.is_empty() {
            self.programs.push(ProgramNames::default());
        }
        let last = self.programs.len() - 1;
        &mut self.programs[last]
    }

    /// The names of the program of this generation.
    pub fn of_generation(&mut self, generation: u32) -> Option<&mut ProgramNames> {
        self.programs.get_mut(generation as usize)
    }

    /// The programs, by generation.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().map(|names| &names.program)
    }

    /// The frames of a stack, innermost first; nothing for a stack that is not defined.
    #[must_use]
    pub fn stack(&self, number: StackNumber) -> Option<Arc<[Frame]>> {
        self.stacks.get(&number).map(Arc::clone)
    }
}

impl ProgramNames {
    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }
}

impl Names for ProgramNames {
    fn site(&mut self, gopc: RemoteAddr) -> SiteName {
        let unnamed = || SiteName { function: unnamed(gopc), file: "".into(), line: 0 };
        self.sites.get(&gopc).cloned().unwrap_or_else(unnamed)
    }

    fn function(&mut self, startpc: RemoteAddr) -> Arc<str> {
        self.functions.get(&startpc).map_or_else(|| unnamed(startpc), Arc::clone)
    }

    fn reason(&self, reason: u8) -> Cow<'_, str> {
        match self.program.wait_reasons.get(usize::from(reason)) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("wait reason {reason}")),
        }
    }
}

fn unnamed(address: RemoteAddr) -> Arc<str> {
    if address.0 == 0 { "(none)".into() } else { address.to_string().into() }
}

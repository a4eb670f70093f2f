//! A snapshot in the forms that people and programs read: Go's own traceback, groups of equal stacks, JSON, a table of
//! creation sites; pprof and folded stacks stand beside this module.
//!
//! In: a [`View`]: a snapshot, names for it, and which goroutines are wanted. Out: bytes. Prints nothing itself.

mod group;
mod head;
mod json;
mod sites;
mod text;

pub use group::{Group, groups, write_groups};
pub use json::{Meta, write_json};
pub use sites::{bytes, write_sites};
pub use text::write_text;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;
use regex::Regex;

use crate::go_runtime::{Status, WaitReasons};
use crate::snapshot::{Ancestor, CreatedBy, Goroutine, ShownFrame, Snapshot, Stack, StackId, StackState, Symbols};
use crate::tracee::LoadBias;
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// Which goroutines are wanted; those that fit all that is said.
#[derive(Clone, Debug, Default)]
pub struct DumpFilter {
    /// The runtime's own too.
    pub system: bool,
    /// In one of these states, by the runtime's word for it (`waiting`, `running`, ...); empty: any.
    pub states: Vec<String>,
    /// Waiting for a reason with one of these texts in its name; empty: any.
    pub reasons: Vec<String>,
    /// With a function of such a name on the stack, as creator, or as start function.
    pub function: Option<Regex>,
    /// Known to wait for as long as this.
    pub older_than: Option<Duration>,
    /// One of these; empty: any.
    pub goids: Vec<Goid>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// The frames of one stack with their names, and where the elided ones stood.
pub(super) type Named<'a> = Rc<(Vec<ShownFrame<'a>>, usize)>;

/// A snapshot with names.
#[derive(Debug)]
pub struct View<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    reasons: &'a WaitReasons,
    bias: LoadBias,
    symbols: RefCell<Symbols<'a>>,
    named: RefCell<HashMap<StackId, Named<'a>>>,
    sites: RefCell<HashMap<RemoteAddr, Option<CreatedBy<'a>>>>,
}

impl<'a> View<'a> {
    /// Brings together a snapshot and the names of its program.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, symbols: Symbols<'a>, reasons: &'a WaitReasons, bias: LoadBias) -> Self {
        let (named, sites) = (RefCell::default(), RefCell::default());
        Self { snapshot, reasons, bias, symbols: RefCell::new(symbols), named, sites }
    }

    /// The goroutines that `filter` wants, by goid.
    #[must_use]
    pub fn select(&self, filter: &DumpFilter) -> Vec<&'a Goroutine> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut matched = HashMap::new();
        let snapshot = self.snapshot;
        snapshot.goroutines.iter().filter(|g| self.wants(filter, g, &mut matched)).take(limit).collect()
    }

    fn wants(&self, filter: &DumpFilter, g: &Goroutine, matched: &mut HashMap<StackId, bool>) -> bool {
        if g.system && !filter.system {
            return false;
        }
        let state = state_name(g.status);
        if !filter.states.is_empty() && !filter.states.iter().any(|wanted| wanted == state) {
            return false;
        }
        if !filter.reasons.is_empty() {
            let Some(reason) = self.reason(g) else { return false };
            if !filter.reasons.iter().any(|wanted| reason.contains(wanted.as_str())) {
                return false;
            }
        }
        if !filter.goids.is_empty() && !filter.goids.contains(&g.goid) {
            return false;
        }
        if let Some(age) = filter.older_than
            && self.waited(g).is_none_or(|ns| Duration::from_nanos(ns) < age)
        {
            return false;
        }
        let Some(regex) = &filter.function else { return true };
        let in_stack = match g.stack {
            StackState::Read(id) => *matched.entry(id).or_insert_with(|| {
                self.frames(g).is_some_and(|named| named.0.iter().any(|f| regex.is_match(&f.function)))
            }),
            StackState::Running | StackState::Moved => false,
        };
        in_stack
            || self.created_by(g).is_some_and(|site| regex.is_match(&site.function))
            || self.start_function(g).is_some_and(|name| regex.is_match(name))
    }

    /// The frames that Go's traceback shows of a goroutine; `None` if its stack was not read.
    pub(super) fn frames(&self, g: &Goroutine) -> Option<Named<'a>> {
        let StackState::Read(id) = g.stack else { return None };
        if let Some(named) = self.named.borrow().get(&id) {
            return Some(Rc::clone(named));
        }
        let named = Rc::new(self.symbols.borrow_mut().traceback(self.snapshot.stacks.get(id)?));
        self.named.borrow_mut().insert(id, Rc::clone(&named));
        Some(named)
    }

    /// The frames that Go's traceback shows of the innermost `physical` ones of a stack.
    pub(super) fn first_frames(&self, stack: &Stack, physical: usize) -> Vec<ShownFrame<'a>> {
        let pcs = stack.pcs.iter().take(physical).copied().collect();
        self.symbols.borrow_mut().traceback(&Stack { pcs, elided: 0, end: stack.end }).0
    }

    /// The N of the program's Go 1.N.
    pub(super) fn minor(&self) -> u16 {
        self.symbols.borrow().minor()
    }

    /// The arguments that Go prints of a frame of `g`; `...` where they were not asked for.
    pub(super) fn arguments(&self, g: &Goroutine, frame: &ShownFrame<'_>) -> Cow<'static, str> {
        if !self.snapshot.has_arguments() {
            return Cow::Borrowed("...");
        }
        Cow::Owned(self.symbols.borrow().arguments(frame, self.snapshot.arguments(g, frame.index)))
    }

    /// Whether tracebacks leave out the middle of a long stack, as from Go 1.21 on, and not its end.
    pub(super) fn elides_middle(&self) -> bool {
        self.minor() >= 21
    }

    /// All frames of a stack, the runtime's own included.
    pub(super) fn all_frames(&self, stack: &Stack) -> Vec<ShownFrame<'a>> {
        self.symbols.borrow_mut().frames(stack, true).0
    }

    /// Its `go` statement, where Go's traceback shows it.
    pub(super) fn created_by(&self, g: &Goroutine) -> Option<CreatedBy<'a>> {
        let parent = (g.parent.0 != 0).then_some(g.parent);
        // The main goroutine's is the runtime's start.
        if g.goid == Goid(1) {
            return None;
        }
        if let Some(known) = self.sites.borrow().get(&g.gopc) {
            return known.clone().map(|site| CreatedBy { parent, ..site });
        }
        let site = self.symbols.borrow_mut().created_by(self.bias.pc(g.gopc), g.goid, g.parent);
        self.sites.borrow_mut().insert(g.gopc, site.clone());
        site
    }

    /// The `go` statement that returns to `gopc`.
    pub(super) fn site(&self, gopc: RemoteAddr) -> Option<CreatedBy<'a>> {
        // Any goroutine but the main one.
        self.symbols.borrow_mut().created_by(self.bias.pc(gopc), Goid(0), Goid(0))
    }

    /// The function it runs.
    pub(super) fn start_function(&self, g: &Goroutine) -> Option<&'a str> {
        self.symbols.borrow().function(self.bias.pc(g.startpc))
    }

    /// The name of its wait reason, if it waits for one.
    pub(super) fn reason(&self, g: &Goroutine) -> Option<&'a str> {
        let waits = matches!(g.status, Status::Waiting | Status::Leaked);
        self.reasons.name(g.wait_reason).filter(|name| waits && !name.is_empty())
    }

    /// The name of the reason that it waits for, or last waited for.
    pub(super) fn last_reason(&self, g: &Goroutine) -> Option<&'a str> {
        self.reasons.name(g.wait_reason)
    }

    /// What Go's traceback says it does: the reason it waits for, else its state.
    pub(super) fn status(&self, g: &Goroutine) -> &'a str {
        self.reason(g).unwrap_or_else(|| state_name(g.status))
    }

    /// For how long it has waited, in nanoseconds, as far as the runtime knows.
    pub(super) fn waited(&self, g: &Goroutine) -> Option<u64> {
        let waits = matches!(g.status, Status::Waiting | Status::Syscall);
        g.wait_since.filter(|_| waits).map(|since| self.now().since(since))
    }

    /// The moment of the snapshot; where time stands still, the latest that any goroutine speaks of.
    fn now(&self) -> MonotonicNs {
        let latest = || self.snapshot.goroutines.iter().filter_map(|g| g.wait_since).max().unwrap_or_default();
        self.snapshot.taken_to.unwrap_or_else(latest)
    }

    /// `printAncestorTraceback`'s frames of one creator, and where itself was created.
    pub(super) fn ancestor(&self, ancestor: &Ancestor) -> (Vec<ShownFrame<'a>>, Option<CreatedBy<'a>>) {
        let mut symbols = self.symbols.borrow_mut();
        let frames = symbols.ancestor_frames(ancestor.pcs.iter().map(|pc| self.bias.pc(*pc)));
        (frames, symbols.created_by(self.bias.pc(ancestor.gopc), ancestor.goid, Goid(0)))
    }

    pub(super) fn remote(&self, pc: crate::units::Pc) -> RemoteAddr {
        self.bias.remote(pc)
    }
}

/// `gStatusStrings`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L1240-L1251>.
#[must_use]
pub fn state_name(status: Status) -> &'static str {
    match status {
        Status::Idle => "idle",
        Status::Runnable => "runnable",
        Status::Running => "running",
        Status::Syscall => "syscall",
        Status::Waiting => "waiting",
        Status::Dead => "dead",
        Status::CopyStack => "copystack",
        Status::Preempted => "preempted",
        Status::Leaked => "leaked",
        Status::DeadExtra => "waiting for cgo callback",
    }
}

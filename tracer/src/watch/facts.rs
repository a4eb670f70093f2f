//! What is true of a creation site for good, as the program's code tells.
//!
//! In: a binary. Out: whether the function with the `go` statement runs as a deferred call, whether the function that is
//! started counts a `sync.WaitGroup` down. Looked up once for a site, and only where something stands still.

use std::sync::Arc;

use hashbrown::HashMap;

use super::code::{Step, steps};
use crate::analysis::SiteKey;
use crate::binary::{Binary, Function};
use crate::units::{Pc, RemoteAddr};

/// Code looked at to find who defers a function, in bytes: the functions with `defer` of one package.
const CODE_LIMIT: u64 = 16 << 20;
/// Instructions of note from where a closure's address is taken to where it is noted as deferred.
const NEAR: usize = 6;

/// One site.
#[derive(Debug)]
pub(super) struct SiteFacts {
    pub(super) key: SiteKey,
    pub(super) gopc: RemoteAddr,
    /// The site of those who created them, as far as one was seen.
    pub(super) creator: Option<u16>,
    pub(super) deferred: Option<bool>,
    pub(super) counts_down: Option<bool>,
}

impl SiteFacts {
    pub(super) fn new(key: SiteKey, gopc: RemoteAddr) -> Self {
        Self { key, gopc, creator: None, deferred: None, counts_down: None }
    }
}

/// What the code of functions said, each of them read once: many sites have one function.
#[derive(Debug, Default)]
pub(super) struct Code {
    deferred: HashMap<Pc, bool>,
    counts_down: HashMap<Arc<str>, bool>,
}

impl Code {
    /// See [`runs_deferred`].
    pub(super) fn runs_deferred(&mut self, binary: &Binary, gopc: Pc) -> bool {
        let Some(creator) = binary.functions().find(Pc(gopc.0.saturating_sub(1))) else { return false };
        *self.deferred.entry(creator.entry()).or_insert_with(|| runs_deferred(binary, &creator))
    }

    /// See [`counts_down`].
    pub(super) fn counts_down(&mut self, binary: &Binary, start: &Arc<str>) -> bool {
        *self.counts_down.entry_ref(start).or_insert_with(|| counts_down(binary, start))
    }
}

/// Whether `creator`, a function with a `go` statement, runs as a deferred call of a function of its own package.
///
/// A `defer` statement takes the function's address (of the code for a closure that captures, else of a word that holds it)
/// and gives it to `runtime.deferproc` or `runtime.deferprocStack`, or, where all are known at compile time, keeps it in the
/// frame and notes in a byte of the frame that it was passed. What has arguments is called by a closure `deferwrap`.
/// <https://github.com/golang/go/blob/go1.27.3/src/cmd/compile/internal/ssagen/ssa.go#L5160-L5195>
fn runs_deferred(binary: &Binary, creator: &Function<'_>) -> bool {
    let functions = binary.functions();
    let package = package_of(creator.name());
    let mut left = CODE_LIMIT;
    for function in functions.iter() {
        let name = function.name();
        if !name.starts_with(package) || package_of(name) != package || function.entry() == creator.entry() {
            continue;
        }
        let wraps = name.contains(".deferwrap") || name.contains("·dwrap·");
        if !wraps && function.deferreturn().is_none() {
            continue;
        }
        let Some(rest) = left.checked_sub(function.end().0.saturating_sub(function.entry().0)) else { break };
        left = rest;
        let code = of(binary, &function);
        if if wraps { calls(&code, creator.entry()) } else { defers(binary, &code, creator.entry()) } {
            return true;
        }
    }
    false
}

/// Whether the code calls `target`.
fn calls(code: &[(Pc, Step)], target: Pc) -> bool {
    code.iter().any(|(_, step)| *step == Step::Call(Some(target)))
}

/// Whether the code defers the function at `target`.
fn defers(binary: &Binary, code: &[(Pc, Step)], target: Pc) -> bool {
    let is_target = |taken: Pc| taken == target || binary.image().pointer(taken).is_ok_and(|held| held == target);
    let takes =
        code.iter().enumerate().filter(|(_, (_, step))| matches!(step, Step::Takes(taken) if is_target(*taken)));
    takes.into_iter().any(|(at, _)| {
        for (_, step) in code.iter().skip(at + 1).take(NEAR) {
            match step {
                Step::StoresByte => return true,
                Step::Call(to) => {
                    let callee = to.and_then(|to| binary.functions().find(to));
                    return callee.is_some_and(|f| f.name().starts_with("runtime.deferproc"));
                }
                Step::Takes(_) => {}
            }
        }
        false
    })
}

/// Whether the function called `start`, or a closure of its own, calls `Done` of a `sync.WaitGroup`. `Done` is inlined and
/// calls `Add`.
fn counts_down(binary: &Binary, start: &str) -> bool {
    const DONE: &str = "sync.(*WaitGroup).Done";
    let functions = binary.functions();
    let entries = |name| functions.by_name(name).iter().map(Function::entry).collect::<Vec<Pc>>();
    let (done, add) = (entries(DONE), entries("sync.(*WaitGroup).Add"));
    if start.is_empty() || add.is_empty() {
        return false;
    }
    let own = |name: &str| name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '·']));
    functions.iter().filter(|function| own(function.name())).any(|function| {
        of(binary, &function).iter().any(|(pc, step)| match step {
            Step::Call(Some(to)) if done.contains(to) => true,
            Step::Call(Some(to)) if add.contains(to) => function.frames(*pc).iter().any(|frame| frame.function == DONE),
            _ => false,
        })
    })
}

fn of(binary: &Binary, function: &Function<'_>) -> Vec<(Pc, Step)> {
    let code = binary.code(function.range()).unwrap_or_default();
    steps(binary.arch(), function.entry(), &code)
}

/// The package of a function: up to the first dot behind the last slash.
fn package_of(function: &str) -> &str {
    let behind = function.rfind('/').map_or(0, |slash| slash + 1);
    let end = function.get(behind..).and_then(|rest| rest.find('.')).map_or(function.len(), |dot| behind + dot);
    function.get(..end).unwrap_or(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages() {
        assert_eq!(package_of("main.f.func1"), "main");
        assert_eq!(package_of("net/http.(*Server).Serve"), "net/http");
        assert_eq!(package_of("example.com/a.b/c.(*T).M"), "example.com/a.b/c");
        assert_eq!(package_of("nodot"), "nodot");
    }
}

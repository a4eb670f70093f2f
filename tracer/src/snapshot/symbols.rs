//! Names for stacks: which frames Go's own traceback shows, and how.
//!
//! In: stacks as program counters, a binary. Out: frames with function, file and line, inlined calls included. Each program
//! counter is looked up once. Knows no process and prints nothing.
//!
//! After `traceback2` and `showfuncinfo`:
//! - 1.23 to 1.27: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L957-L1055>, #L1177-L1262
//! - 1.21, 1.22 (only exported *functions* of package runtime are shown, no methods):
//!   <https://github.com/golang/go/blob/go1.21.13/src/runtime/traceback.go#L1102-L1142>
//! - 1.18 to 1.20: `gentraceback`, which takes only `sigpanic` for a call that a signal inserted:
//!   <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go#L380-L440>

use std::borrow::Cow;
use std::rc::Rc;

use hashbrown::HashMap;

use super::Stack;
use crate::binary::{Binary, Function};
use crate::units::{Goid, Pc};

/// So many program counters are remembered; a program has fewer call sites, hostile memory more.
const KNOWN_LIMIT: usize = 1 << 20;

/// One line of a traceback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShownFrame<'a> {
    /// The function as Go prints it: `panic` for `runtime.gopanic`, `main.Map[...]` for `main.Map[go.shape.int]`.
    pub function: Cow<'a, str>,
    /// The source file as the compiler was given it.
    pub file: &'a str,
    /// The line.
    pub line: u32,
    /// The line of the `func` keyword; 0 where not known.
    pub start_line: u32,
    /// How far into the function, in bytes; `None` for an inlined call and at a function's entry, where Go prints none.
    pub offset: Option<u64>,
    /// Whether it was inlined into the next frame.
    pub inlined: bool,
    /// The physical frame's program counter.
    pub pc: Pc,
    /// The place in the code by which Go tells whether its arguments are live.
    pub at: Pc,
    /// The physical frame's place among the program counters of its stack.
    pub index: usize,
}

/// The end of a traceback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CreatedBy<'a> {
    /// The function with the `go` statement.
    pub function: Cow<'a, str>,
    /// Its source file.
    pub file: &'a str,
    /// The line of the `go` statement.
    pub line: u32,
    /// How far into the function the call returns, in bytes.
    pub offset: Option<u64>,
    /// The goroutine that ran it; `None` where the Go version does not say.
    pub parent: Option<Goid>,
}

#[derive(Clone, Copy, Debug)]
struct Logical<'a> {
    /// As pclntab has it.
    name: &'a str,
    file: &'a str,
    line: u32,
    start_line: u32,
    func_id: u8,
    inlined: bool,
    at: Pc,
}

/// What is known of one program counter.
#[derive(Debug)]
struct Physical<'a> {
    entry: Pc,
    /// Of a call the call, before the program counter.
    at: Pc,
    /// Innermost first, the last not inlined.
    logical: Vec<Logical<'a>>,
}

/// The names of one binary.
#[derive(Debug)]
pub struct Symbols<'a> {
    binary: &'a Binary,
    minor: u16,
    wrapper: Option<u8>,
    known: HashMap<(Pc, bool), Option<Rc<Physical<'a>>>>,
}

/// Whether a function of this name is called by a signal handler on behalf of whatever was interrupted.
pub(crate) fn is_injected(name: &str) -> bool {
    matches!(name, "runtime.sigpanic" | "runtime.asyncPreempt" | "runtime.debugCallV2")
}

impl<'a> Symbols<'a> {
    /// The names of `binary`.
    #[must_use]
    pub fn new(binary: &'a Binary) -> Self {
        // funcID_wrapper is the last of the ids and stands behind that of systemstack_switch in every version; the
        // numbers themselves move: https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L62-L95
        let wrapper = binary.functions().by_name("runtime.systemstack_switch");
        let wrapper = wrapper.iter().map(Function::func_id).max().and_then(|id| id.checked_add(1)).filter(|id| *id > 1);
        Self { binary, minor: binary.version().minor(), wrapper, known: HashMap::new() }
    }

    /// The N of Go 1.N.
    #[must_use]
    pub fn minor(&self) -> u16 {
        self.minor
    }

    /// The frames that Go's traceback prints, all of them (Go leaves out the middle of a stack of more than 100). The
    /// second value is the place in them at which [`Stack::elided`] more stood.
    pub fn traceback(&mut self, stack: &Stack) -> (Vec<ShownFrame<'a>>, usize) {
        // "By default, omits runtime frames. If that means we print nothing at all, repeat forcing all frames printed."
        let shown = self.frames(stack, false);
        if shown.0.is_empty() { self.frames(stack, true) } else { shown }
    }

    /// As [`Symbols::traceback`], with the runtime's own frames and wrappers if `all`.
    pub fn frames(&mut self, stack: &Stack, all: bool) -> (Vec<ShownFrame<'a>>, usize) {
        let mut shown = Vec::new();
        let mut elided_at = 0;
        let (mut callee, mut trap) = (Callee::default(), false);
        for (i, &pc) in stack.pcs.iter().enumerate() {
            if i == super::stacks::INNER {
                elided_at = shown.len();
            }
            let Some(physical) = self.physical(pc, trap) else { continue };
            trap = false;
            for logical in &physical.logical {
                let show = all || self.shows(logical, shown.is_empty(), callee);
                callee = Callee::of(logical.name);
                if show {
                    let within = pc.0.saturating_sub(physical.entry.0);
                    shown.push(ShownFrame {
                        function: self.printed(logical.name),
                        file: logical.file,
                        line: logical.line,
                        start_line: logical.start_line,
                        offset: (!logical.inlined && within > 0).then_some(within),
                        inlined: logical.inlined,
                        pc,
                        // Go 1.21 made it the frame's own; before, it was the place of the outermost inlined call.
                        at: if self.minor < 21 { logical.at } else { physical.at },
                        index: i,
                    });
                }
                if !logical.inlined {
                    trap =
                        if self.minor >= 21 { is_injected(logical.name) } else { logical.name == "runtime.sigpanic" };
                }
            }
        }
        (shown, elided_at)
    }

    /// The frames of a creator's stack, as `printAncestorTracebackFuncInfo` prints them: the innermost call at each return
    /// address itself, not at the call before it.
    pub fn ancestor_frames(&mut self, pcs: impl Iterator<Item = Pc>) -> Vec<ShownFrame<'a>> {
        let mut shown = Vec::new();
        for (i, pc) in pcs.enumerate() {
            let Some(physical) = self.physical(pc, true) else { continue };
            let Some((innermost, outermost)) = physical.logical.first().zip(physical.logical.last()) else { continue };
            if self.shows(outermost, i == 0, Callee::default()) {
                let within = pc.0.saturating_sub(physical.entry.0);
                shown.push(ShownFrame {
                    function: self.printed(innermost.name),
                    file: innermost.file,
                    line: innermost.line,
                    start_line: innermost.start_line,
                    offset: (within > 0).then_some(within),
                    inlined: innermost.inlined,
                    pc,
                    at: physical.at,
                    index: i,
                });
            }
        }
        shown
    }

    /// `printcreatedby`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L842-L872>.
    pub fn created_by(&mut self, gopc: Pc, goid: Goid, parent: Goid) -> Option<CreatedBy<'a>> {
        let function = self.binary.functions().find(gopc)?;
        let own = Logical {
            name: function.name(),
            file: "",
            line: 0,
            start_line: 0,
            func_id: function.func_id(),
            inlined: false,
            at: gopc,
        };
        if goid == Goid(1) || !self.shows(&own, false, Callee::default()) {
            return None;
        }
        let within = gopc.0 - function.entry().0;
        // "back up to CALL instruction for funcline": by PCQuantum, 4 on arm64; any byte of the instruction will do.
        let (file, line) = function.line(Pc(gopc.0 - within.min(1))).unwrap_or_default();
        let offset = (within > 0).then_some(within);
        Some(CreatedBy {
            function: self.printed(function.name()),
            file,
            line,
            offset,
            parent: (parent.0 != 0).then_some(parent),
        })
    }

    /// What Go prints between the parentheses of a call, of those argument words; `...` of an inlined one, and where the
    /// words are not known.
    #[must_use]
    pub fn arguments(&self, frame: &ShownFrame<'_>, words: Option<&[u64]>) -> String {
        if frame.inlined { "...".to_owned() } else { super::arguments::text(self.binary, frame.at, words) }
    }

    /// The name of the function that starts at `pc`; `None` where there is none.
    #[must_use]
    pub fn function(&self, pc: Pc) -> Option<&'a str> {
        self.binary.functions().find(pc).map(|function| function.name())
    }

    /// `symPC`: a return address stands for the call before it; what a signal interrupted, and a function's entry, for
    /// themselves.
    fn physical(&mut self, pc: Pc, trap: bool) -> Option<Rc<Physical<'a>>> {
        if let Some(known) = self.known.get(&(pc, trap)) {
            return known.clone();
        }
        let functions = self.binary.functions();
        let physical = functions.find(pc).map(|function| {
            let entry = function.entry();
            let at = if trap || pc <= entry { pc } else { Pc(pc.0 - 1) };
            let logical = function.frames(at).into_iter().map(|frame| Logical {
                name: frame.function,
                file: frame.file,
                line: frame.line,
                start_line: frame.start_line.unwrap_or_default(),
                func_id: frame.func_id,
                inlined: frame.inlined,
                at: frame.at,
            });
            Rc::new(Physical { entry, at, logical: logical.collect() })
        });
        if self.known.len() < KNOWN_LIMIT {
            self.known.insert((pc, trap), physical.clone());
        }
        physical
    }

    /// `showfuncinfo`.
    fn shows(&self, frame: &Logical<'_>, first: bool, callee: Callee) -> bool {
        if Some(frame.func_id) == self.wrapper && !callee.panics {
            return false;
        }
        let name = frame.name;
        if self.minor >= 25 && matches!(name, "runtime.runFinalizers" | "runtime.runCleanups") {
            return true;
        }
        if name == "runtime.gopanic" && !first {
            return true;
        }
        match name.strip_prefix("runtime.") {
            None => name.contains('.'),
            Some(rest) => self.is_exported(rest),
        }
    }

    /// `printFuncName`. Up to Go 1.20 the types that a generic function was compiled for are printed, later not.
    fn printed(&self, name: &'a str) -> Cow<'a, str> {
        if name == "runtime.gopanic" {
            return Cow::Borrowed("panic");
        }
        if self.minor < 21 { Cow::Borrowed(name) } else { without_types(name) }
    }

    /// `isExportedRuntime`, of the name behind `runtime.`.
    fn is_exported(&self, name: &str) -> bool {
        let upper = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
        if self.minor < 23 {
            return upper(name);
        }
        let Some((receiver, name)) = name.rsplit_once('.') else { return upper(name) };
        let receiver = receiver.strip_prefix("(*").and_then(|r| r.strip_suffix(')')).unwrap_or(receiver);
        upper(name) && (receiver.is_empty() || upper(receiver))
    }
}

/// What `elideWrapperCalling` wants to know of the function that was called.
#[derive(Clone, Copy, Debug, Default)]
struct Callee {
    panics: bool,
}

impl Callee {
    fn of(name: &str) -> Self {
        Self { panics: matches!(name, "runtime.gopanic" | "runtime.sigpanic" | "runtime.panicwrap") }
    }
}

/// `funcNamePiecesForPrint`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L762-L827>. Up to Go 1.26
/// all between the first and the last bracket goes; 1.27 has generic methods, `T[...].Method[...]`, and keeps the name
/// between. No older program has such a name, so one rule does for all.
fn without_types(name: &str) -> Cow<'_, str> {
    let (Some(open), Some(close)) = (name.find('['), name.rfind(']')) else { return Cow::Borrowed(name) };
    let Some((before, inside)) = name.get(..open).zip(name.get(open + 1..close)) else { return Cow::Borrowed(name) };
    let after = name.get(close + 1..).unwrap_or_default();
    // Where the first bracket is closed, and where, outside of brackets, another is opened.
    let (mut depth, mut closed, mut reopened) = (1_i32, None, None);
    for (at, c) in inside.char_indices() {
        match c {
            '[' => {
                depth += 1;
                if depth == 1 {
                    reopened = Some(at);
                    break;
                }
            }
            ']' => {
                depth -= 1;
                if depth == 0 {
                    closed = Some(at);
                }
            }
            _ => {}
        }
    }
    match (closed, reopened) {
        (Some(closed), Some(reopened)) if closed < reopened => {
            let between = inside.get(closed + 1..reopened).unwrap_or_default();
            Cow::Owned(format!("{before}[...]{between}[...]{after}"))
        }
        (None, None) if depth == 1 => Cow::Owned(format!("{before}[...]{after}")),
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_left_out_as_go_does() {
        let cases = [
            ("main.f", "main.f"),
            ("main.Map[...]", "main.Map[...]"),
            ("main.wait[go.shape.map[string]int]", "main.wait[...]"),
            ("main.(*box[go.shape.map[string]int]).wait.func1", "main.(*box[...]).wait.func1"),
            ("main.T[go.shape.int].M[go.shape.[]int]", "main.T[...].M[...]"),
            ("main.][", "main.]["),
            ("main.a]b[c]", "main.a]b[...]"),
            ("main.a[x]]", "main.a[x]]"),
            ("[", "["),
            ("[\u{e4}]", "[...]"),
        ];
        for (name, expected) in cases {
            assert_eq!(without_types(name), expected, "{name}");
        }
    }
}

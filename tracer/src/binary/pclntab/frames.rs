//! Frames: what one address means, with the calls that were inlined there.
//!
//! The walk: <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtabinl.go#L53-L100>.

use super::super::bytes::u32_at;
use super::header::Format;
use super::{Function, Functions};
use crate::units::Pc;

/// `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`, since Go 1.12.
const INLINE_INDEX: u32 = 2;
const INLINE_TREE: u8 = 3;
/// Levels of inlining at one address believed; the compiler's budget ends far below.
const DEPTH_LIMIT: usize = 128;

/// One call on a stack, inlined or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The function's name; empty where the table is corrupt.
    pub function: &'a str,
    /// The source file, as the compiler was given it; empty where not known.
    pub file: &'a str,
    /// The line; 0 where not known.
    pub line: u32,
    /// The line of the `func` keyword; `None` in Go 1.18 and 1.19.
    pub start_line: Option<u32>,
    /// The runtime's `funcID`, whose numbers change between Go versions.
    pub func_id: u8,
    /// Whether the call was inlined into the next frame.
    pub inlined: bool,
    /// The entry of the function whose body holds the address (for an inlined call: that of its caller).
    pub entry: Pc,
    /// Where it stands: the address asked about, of the caller of an inlined call the place of that call.
    pub at: Pc,
}

/// An entry of a function's inline tree.
struct InlinedCall {
    func_id: u8,
    name: u32,
    start_line: Option<u32>,
    /// An instruction of the caller, from the function's entry.
    parent: u32,
}

impl Functions {
    /// The calls at the instruction at `pc`, innermost first, the last of them not inlined; empty outside Go's text.
    ///
    /// For a return address ask about `pc - 1`: it is the call that matters, and what follows may be of another line.
    #[must_use]
    pub fn frames(&self, pc: Pc) -> Vec<Frame<'_>> {
        self.find(pc).map(|function| function.frames(pc)).unwrap_or_default()
    }
}

impl<'a> Function<'a> {
    /// As [`Functions::frames`], for a `pc` of this function.
    #[must_use]
    pub fn frames(&self, pc: Pc) -> Vec<Frame<'a>> {
        let mut frames = Vec::with_capacity(1);
        let mut at = pc;
        if let Some(tree) = self.funcdata(INLINE_TREE) {
            while frames.len() < DEPTH_LIMIT
                && let Some(index) = self.pcdata(INLINE_INDEX, at).and_then(|index| u32::try_from(index).ok())
                && let Some(call) = self.inlined_call(tree, index)
            {
                let name = self.functions.text(self.functions.header.names, call.name).unwrap_or_default();
                frames.push(self.frame(at, name, call.start_line, call.func_id, true));
                at = Pc(self.entry().0.wrapping_add(u64::from(call.parent)));
            }
        }
        frames.push(self.frame(at, self.name(), self.start_line(), self.func_id(), false));
        frames
    }

    fn frame(&self, at: Pc, function: &'a str, start_line: Option<u32>, func_id: u8, inlined: bool) -> Frame<'a> {
        let (file, line) = self.line(at).unwrap_or_default();
        Frame { function, file, line, start_line, func_id, inlined, entry: self.entry(), at }
    }

    /// - Since 1.20: <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtabinl.go#L13-L19>
    /// - 1.18, 1.19: <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go#L1175-L1183>
    fn inlined_call(&self, tree: Pc, index: u32) -> Option<InlinedCall> {
        let format = self.functions.header.format;
        let size = match format {
            Format::Go118 => 20,
            Format::Go120 => 16,
        };
        let at = tree.0.checked_add(u64::from(index) * size)?;
        let bytes = self.functions.image.read(Pc(at), size).ok()?;
        Some(match format {
            Format::Go118 => InlinedCall {
                func_id: *bytes.get(2)?,
                name: u32_at(&bytes, 12)?,
                start_line: None,
                parent: u32_at(&bytes, 16)?,
            },
            Format::Go120 => InlinedCall {
                func_id: *bytes.first()?,
                name: u32_at(&bytes, 4)?,
                start_line: u32_at(&bytes, 12),
                parent: u32_at(&bytes, 8)?,
            },
        })
    }
}

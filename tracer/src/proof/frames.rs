//! What the compiler says of a frame: which of its words are pointers at a program counter, and which objects lie in it.
//!
//! In: a binary. Out: a [`FrameMap`] for each program counter, from the function table's stack maps. Knows no process.
//!
//! After the runtime's own `getStackMap`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/stkframe.go#L148-L243>.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::binary::bytes::{u32_at, u64_at};
use crate::binary::{Arch, Binary, Function};
use crate::snapshot::is_injected;
use crate::units::Pc;

/// `PCDATA_StackMapIndex`, `FUNCDATA_ArgsPointerMaps`, `FUNCDATA_LocalsPointerMaps`, `FUNCDATA_StackObjects`:
/// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L109-L122>.
const STACK_MAP_INDEX: u32 = 1;
const ARGS_MAPS: u8 = 0;
const LOCALS_MAPS: u8 = 1;
const STACK_OBJECTS: u8 = 2;
/// `ArgsSizeUnknown`: <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L104>.
const ARGS_UNKNOWN: i32 = i32::MIN;
/// Words of one frame's map believed: a frame of 64 MiB.
const WORD_LIMIT: u32 = 8 << 20;
/// Objects of one frame believed.
const OBJECT_LIMIT: u64 = 1 << 16;
/// Frames remembered.
const KNOWN_LIMIT: usize = 1 << 17;

/// A run of words, and which of them are pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) count: u32,
    bits: Box<[u8]>,
}

impl Words {
    /// So many words, by their bits.
    pub(super) fn new(count: u32, bits: Vec<u8>) -> Self {
        Self { count, bits: bits.into() }
    }

    /// The numbers of the words that are pointers.
    pub(super) fn pointers(&self) -> impl Iterator<Item = u64> + '_ {
        let set = |word: &u32| self.bits.get((word / 8) as usize).is_some_and(|byte| byte >> (word % 8) & 1 == 1);
        (0..self.count).filter(set).map(u64::from)
    }
}

/// A variable whose address is taken: it is live if a pointer to it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StackObject {
    /// From the frame's `varp` where negative, from its `argp` where not, in bytes.
    pub(super) offset: i32,
    /// In bytes.
    pub(super) size: u32,
    /// Which of its words are pointers; `None`: any may be.
    pub(super) words: Option<Words>,
}

/// A frame stopped at one program counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrameMap {
    /// Its parts. `locals` end at `varp`, `args` begin at `argp`.
    Precise {
        /// Variables.
        locals: Words,
        /// Arguments and results.
        args: Words,
        /// Variables whose addresses are taken.
        objects: Vec<StackObject>,
    },
    /// Any word of it, and so many bytes of arguments.
    Any {
        /// In bytes.
        args: u64,
    },
    /// As [`FrameMap::Any`], and so is its caller's: registers were saved here in the midst of it.
    Interrupted {
        /// In bytes.
        args: u64,
    },
    /// That of a stub of `reflect`: what it was called with says what its arguments are.
    Reflect {
        /// Of the stub, by link-time address.
        entry: Pc,
    },
    /// Nothing is known, not even how many arguments it has.
    Unknown,
}

/// The maps of one binary's frames, each made once.
pub(super) struct FrameMaps<'a> {
    binary: &'a Binary,
    /// `moduledata.rodata`, what the masks of stack objects count from, by link-time address.
    rodata: Pc,
    known: HashMap<(u64, bool), Arc<FrameMap>>,
}

impl<'a> FrameMaps<'a> {
    pub(super) fn new(binary: &'a Binary, rodata: Pc) -> Self {
        Self { binary, rodata, known: HashMap::new() }
    }

    /// The map of a frame stopped at `pc`, a link-time address; `framed`: it has room for variables.
    pub(super) fn get(&mut self, pc: Pc, framed: bool) -> Arc<FrameMap> {
        if let Some(known) = self.known.get(&(pc.0, framed)) {
            return Arc::clone(known);
        }
        let map = Arc::new(self.make(pc, framed));
        if self.known.len() < KNOWN_LIMIT {
            self.known.insert((pc.0, framed), Arc::clone(&map));
        }
        map
    }

    fn make(&self, pc: Pc, framed: bool) -> FrameMap {
        let Some(function) = self.binary.functions().find(pc) else { return FrameMap::Unknown };
        let args = function.args_size();
        if matches!(function.name(), "reflect.makeFuncStub" | "reflect.methodValueCall") {
            return FrameMap::Reflect { entry: function.entry() };
        }
        if args == ARGS_UNKNOWN || args < 0 {
            return FrameMap::Unknown;
        }
        let args = args as u64;
        if is_injected(function.name()) {
            return FrameMap::Interrupted { args };
        }
        self.precise(&function, pc, framed, args).unwrap_or(FrameMap::Any { args })
    }

    fn precise(&self, function: &Function<'_>, pc: Pc, framed: bool, args: u64) -> Option<FrameMap> {
        let index =
            if pc == function.entry() { -1 } else { function.pcdata(STACK_MAP_INDEX, Pc(pc.0 - 1)).unwrap_or(-1) };
        // In a prologue: the map of the entry.
        let index = u32::try_from(index.max(0)).ok()?;
        let locals = if framed { self.words(function.funcdata(LOCALS_MAPS)?, index)? } else { Words::default() };
        let args = if args > 0 { self.words(function.funcdata(ARGS_MAPS)?, index)? } else { Words::default() };
        let objects = match function.funcdata(STACK_OBJECTS) {
            Some(at) => self.objects(at)?,
            None => Vec::new(),
        };
        Some(FrameMap::Precise { locals, args, objects })
    }

    /// The `index`th map of a `stackmap`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L1247-L1267>.
    fn words(&self, at: Pc, index: u32) -> Option<Words> {
        let head = self.binary.image().read(at, 8).ok()?;
        let (maps, count) = (u32_at(&head, 0)?, u32_at(&head, 4)?);
        if maps as i32 <= 0 || count > WORD_LIMIT {
            return None;
        }
        if count == 0 {
            return Some(Words::default());
        }
        if index >= maps {
            return None;
        }
        let len = u64::from(count.div_ceil(8));
        let bits = self.binary.image().read(Pc(at.0.checked_add(8 + u64::from(index) * len)?), len).ok()?;
        Some(Words { count, bits: bits.into() })
    }

    /// The frame's `stackObjectRecord`s:
    /// - from Go 1.24: <https://github.com/golang/go/blob/go1.27.3/src/runtime/stack.go#L1369-L1405>
    /// - before, where a negative length stands for a program that makes the mask:
    ///   <https://github.com/golang/go/blob/go1.21.13/src/runtime/stack.go#L1253-L1293>
    fn objects(&self, at: Pc) -> Option<Vec<StackObject>> {
        let count = self.binary.image().read(at, 8).ok()?;
        let count = u64::from_le_bytes(*count.first_chunk()?);
        if count > OBJECT_LIMIT {
            return None;
        }
        let bytes = self.binary.image().read(Pc(at.0.checked_add(8)?), count * 16).ok()?;
        bytes.chunks_exact(16).map(|record| self.object(record)).collect()
    }

    fn object(&self, record: &[u8]) -> Option<StackObject> {
        let offset = u32_at(record, 0)? as i32;
        let size = u32_at(record, 4)?;
        let pointers = u32_at(record, 8)? as i32;
        let mask = u32_at(record, 12)?;
        let words = match u32::try_from(pointers) {
            Ok(bytes) => {
                let count = bytes / 8;
                let mask = Pc(self.rodata.0.checked_add(u64::from(mask))?);
                let bits = match count {
                    0 => Vec::new(),
                    1..=WORD_LIMIT => self.binary.image().read(mask, u64::from(count.div_ceil(8))).ok()?,
                    _ => return None,
                };
                Some(Words { count, bits: bits.into() })
            }
            Err(_) => None,
        };
        Some(StackObject { offset, size, words })
    }
}

/// Where the parts of a stub's frame are: <https://github.com/golang/go/blob/go1.27.3/src/reflect/asm_arm64.s#L9-L25>, the same
/// from Go 1.18 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stub {
    /// The closure that it was called with, from SP.
    pub(super) closure: u64,
    /// Whether the results are there, from SP: a byte.
    pub(super) results: u64,
    /// From `varp` down to the pointers among the arguments that came in registers: `abi.RegArgs.Ptrs`,
    /// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/abi.go#L21-L46>.
    pub(super) pointers: u64,
    /// How many these are.
    pub(super) registers: u64,
}

impl Stub {
    pub(super) fn of(arch: Arch) -> Self {
        // The record ends with two bytes of flags and is padded to words.
        let (closure, registers) = match arch {
            Arch::Amd64 => (0, 9),
            Arch::Arm64 => (8, 16),
        };
        Self { closure, results: closure + 32, pointers: 8 * registers + 8, registers }
    }
}

/// A `reflect.makeFuncCtxt`, of which a closure of a stub begins with one.
#[derive(Clone, Copy, Debug)]
pub(super) struct StubClosure {
    /// The stub, at its run-time address.
    pub(super) function: u64,
    /// Which words of arguments and results are pointers: a count of 32 bits, and the address of so many bits a word behind.
    pub(super) stack: u64,
    /// Bytes of arguments.
    pub(super) args: u64,
}

impl StubClosure {
    pub(super) const SIZE: usize = 24;

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { function: u64_at(bytes, 0)?, stack: u64_at(bytes, 8)?, args: u64_at(bytes, 16)? })
    }

    /// How many words of arguments and results are to be looked at, and where their bits are, from the vector's head.
    pub(super) fn vector(&self, head: &[u8], results: bool) -> Option<(u32, u64)> {
        let (count, bits) = (u32_at(head, 0)?, u64_at(head, 8)?);
        let count = if results { count } else { count.min(u32::try_from(self.args / 8).unwrap_or(u32::MAX)) };
        (count <= WORD_LIMIT).then_some((count, bits))
    }
}

/// A frame's `varp` and `argp`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L383-L411>.
pub(super) fn bases(arch: Arch, sp: u64, fp: u64) -> (u64, u64) {
    let (link, first_argument) = match arch {
        Arch::Amd64 => (8, 0),
        Arch::Arm64 => (0, 8),
    };
    let mut varp = fp.wrapping_sub(link);
    if varp > sp {
        varp = varp.wrapping_sub(8);
    }
    (varp, fp.wrapping_add(first_argument))
}

/// The least that a frame with variables has between SP and `varp`.
pub(super) fn frame_minimum(arch: Arch) -> u64 {
    match arch {
        Arch::Amd64 => 0,
        Arch::Arm64 => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_count_when_they_are_there() {
        let closure = StubClosure { function: 1, stack: 2, args: 24 };
        let head = [5_u64.to_le_bytes(), 0xc000_u64.to_le_bytes()].concat();
        assert_eq!(closure.vector(&head, false), Some((3, 0xc000)));
        assert_eq!(closure.vector(&head, true), Some((5, 0xc000)));
        assert_eq!(closure.vector(&head[..12], true), None);
        let endless = [u64::MAX.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        assert_eq!(closure.vector(&endless, true), None);
        assert_eq!(Words::new(10, vec![0b101, 0b10]).pointers().collect::<Vec<_>>(), [0, 2, 9]);
    }
}

//! What the compiler says of a function's arguments, for tracebacks: where the words lie, and where in the code they are
//! worth something.
//!
//! `FUNCDATA_ArgInfo`, `FUNCDATA_ArgLiveInfo` and `PCDATA_ArgLiveIndex` have had the same numbers and encoding since Go 1.18;
//! only the names of the codes moved into package abi in 1.23:
//! - numbers: <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go#L301-L313>,
//!   <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/symtab.go#L109-L122>
//! - encoding, as its reader has it: <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go#L579-L685>,
//!   <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L661-L752>

use super::Function;
use crate::units::Pc;

const ARGUMENT_LIVE_INDEX: u32 = 3;
const ARGUMENT_INFO: u8 = 5;
const ARGUMENT_LIVE_INFO: u8 = 6;
/// `TraceArgsMaxLen`: ten words in five layers of braces, and the end.
const INFO_LIMIT: u64 = (5 * 3 + 2) * 10 + 1;

/// A piece of the list of arguments that a traceback prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A struct, array, string, slice or interface begins.
    Open,
    /// It ends.
    Close,
    /// There are more than are printed.
    More,
    /// One that lies too far off to be printed.
    TooFar,
    /// One word or less.
    Word {
        /// From the first argument's place.
        offset: u8,
        /// 1, 2, 4 or 8.
        bytes: u8,
    },
}

/// Which of a function's arguments are worth something at one instruction. Those passed in registers have a place in memory
/// too, which may hold what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveArguments {
    /// Words from this offset on have a bit.
    first: Option<u8>,
    /// A bit for each such word, in their order; `None` where all are live.
    bits: Option<Vec<u8>>,
}

impl LiveArguments {
    /// Whether the word has a bit at all.
    #[must_use]
    pub fn is_counted(&self, offset: u8) -> bool {
        // Without the table Go compares with 0xff, which no offset reaches.
        offset >= self.first.unwrap_or(u8::MAX)
    }

    /// Whether the word at `offset`, before which so many have a bit, is live.
    #[must_use]
    pub fn is_live(&self, offset: u8, counted_before: u8) -> bool {
        let Some(bits) = self.bits.as_ref().filter(|_| self.is_counted(offset)) else { return true };
        let byte = bits.get(usize::from(counted_before / 8)).copied().unwrap_or(u8::MAX);
        byte & 1 << (counted_before % 8) != 0
    }
}

impl Function<'_> {
    /// Its arguments as a traceback lists them; `None` where the compiler said nothing: it has none, or is assembly.
    #[must_use]
    pub fn arguments(&self) -> Option<Vec<Argument>> {
        let info = self.bytes_at(self.funcdata(ARGUMENT_INFO)?, INFO_LIMIT);
        let mut codes = info.into_iter();
        let mut arguments = Vec::new();
        loop {
            arguments.push(match codes.next()? {
                0xff => return Some(arguments),
                0xfe => Argument::Open,
                0xfd => Argument::Close,
                0xfc => Argument::More,
                0xfb => Argument::TooFar,
                offset => Argument::Word { offset, bytes: codes.next()? },
            });
        }
    }

    /// Which of them are live at the instruction at `pc`.
    #[must_use]
    pub fn live_arguments(&self, pc: Pc) -> LiveArguments {
        let Some(info) = self.funcdata(ARGUMENT_LIVE_INFO) else { return LiveArguments::default() };
        let first = self.bytes_at(info, 1).first().copied();
        let index = self.pcdata(ARGUMENT_LIVE_INDEX, pc).and_then(|index| u64::try_from(index).ok());
        let bits = index.filter(|index| *index > 0).and_then(|index| {
            let at = Pc(info.0.checked_add(index)?);
            // Ten words have ten bits.
            Some(self.bytes_at(at, 2))
        });
        LiveArguments { first, bits }
    }

    /// So many bytes of the program's data, or as many as there are.
    fn bytes_at(&self, at: Pc, len: u64) -> Vec<u8> {
        let image = &self.functions.image;
        let all = image.read(at, len).ok();
        all.or_else(|| image.read(at, image.segment(at)?.size - (at.0 - image.segment(at)?.start.0)).ok())
            .unwrap_or_default()
    }
}

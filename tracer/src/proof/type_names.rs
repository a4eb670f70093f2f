//! Names of types.
//!
//! A name is a flag byte, its length as a varint, and its bytes, `Str` bytes behind `moduledata.types`:
//! <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/type.go#L520-L570>.

use hashbrown::HashMap;

use super::{Locate, ProofError};
use crate::go_runtime::Variable;
use crate::snapshot::Source;
use crate::units::RemoteAddr;

/// Bytes of a name shown.
const NAME_LIMIT: usize = 200;
/// Names remembered.
const KNOWN_LIMIT: usize = 1 << 14;
/// `TFlagExtraStar`: the name begins with a star that is not its own.
const EXTRA_STAR: u64 = 1 << 1;

/// Names of one program's types, each read once.
pub(super) struct TypeNames<'a> {
    source: &'a Source<'a>,
    types: u64,
    end: u64,
    known: HashMap<u64, Option<String>>,
}

impl<'a> TypeNames<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Result<Self, ProofError> {
        let (module, layout) = (source.remote(Variable::Firstmoduledata)?, &source.layout.moduledata);
        let types = source.memory.word(layout.types.at(module))?;
        let end = source.memory.word(layout.etypes.at(module))?;
        Ok(Self { source, types, end, known: HashMap::new() })
    }

    /// The name of the type at `address`; `None` for those that the program made while it ran, and for what is no type.
    pub(super) fn get(&mut self, address: u64) -> Option<String> {
        if address < self.types || address >= self.end {
            return None;
        }
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        let name = self.read(address);
        if self.known.len() < KNOWN_LIMIT {
            self.known.insert(address, name.clone());
        }
        name
    }

    fn read(&self, address: u64) -> Option<String> {
        let (memory, layout) = (self.source.memory, &self.source.layout.type_record);
        let head = memory.bytes(RemoteAddr(address), layout.size as usize).ok()?;
        let at = self.types.checked_add(layout.name.read(&head)? & 0xffff_ffff)?;
        let room = usize::try_from(self.end.checked_sub(at)?).ok()?.min(NAME_LIMIT + 4);
        let bytes = memory.bytes(RemoteAddr(at), room).ok()?;
        let name = parse(&bytes)?;
        let name = if layout.tflag.read(&head)? & EXTRA_STAR != 0 { name.strip_prefix('*')? } else { name };
        Some(name.to_owned())
    }
}

/// The text of a name, cut off where it is too long.
fn parse(bytes: &[u8]) -> Option<&str> {
    let (mut len, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return None;
        }
    }
    let text = bytes.get(at..)?;
    let text = text.get(..len.min(NAME_LIMIT)).unwrap_or(text);
    text.utf8_chunks().next().map(|chunk| chunk.valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_far_as_they_go() {
        assert_eq!(parse(b"\x01\x03intxx"), Some("int"));
        let mut long = vec![0, 0xac, 0x02];
        long.extend([b'a'; 300]);
        assert_eq!(parse(&long).map(str::len), Some(NAME_LIMIT));
        assert_eq!(parse(b"\x01\xff\xff\xff\xff\xff"), None);
        assert_eq!(parse(b"\x01"), None);
    }
}

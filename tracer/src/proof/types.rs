//! Types as the collector sees them: which words of a value are pointers.
//!
//! In: addresses of type descriptors. Out: [`TypeMap`]. What is not understood is [`TypeMap::Any`]: every word may be one, which
//! is never wrong.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::snapshot::Source;
use crate::units::{Pc, RemoteAddr};

/// Bytes of one mask believed: a value of 128 MiB that holds pointers to its end.
const MASK_LIMIT: u64 = 2 << 20;
/// Masks remembered.
const KNOWN_LIMIT: usize = 1 << 16;
/// Bytes of masks remembered.
const BYTES_LIMIT: usize = 8 << 20;
/// `abi.KindGCProg`, up to Go 1.23: the mask is a program that makes one.
/// <https://github.com/golang/go/blob/go1.23.9/src/internal/abi/type.go#L74-L78>
const GC_PROGRAM: u64 = 1 << 6;
/// `abi.TFlagGCMaskOnDemand`, from Go 1.24: at `GCData` stands the address of the mask, once it was needed.
/// <https://github.com/golang/go/blob/go1.27.3/src/internal/abi/type.go#L117-L122>
const ON_DEMAND: u64 = 1 << 4;

/// Which words of a type's values are pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TypeMap {
    /// Those whose bit is set; values lie one behind the other.
    Mask {
        /// Bytes from one value to the next.
        stride: u64,
        /// Words of a value that have a bit.
        words: u64,
        /// A bit for each.
        bits: Box<[u8]>,
    },
    /// Any may be one.
    Any,
}

/// The maps of one program's types, each read once.
pub(super) struct TypeMaps<'a> {
    source: &'a Source<'a>,
    known: HashMap<u64, Arc<TypeMap>>,
    bytes: usize,
    any: Arc<TypeMap>,
}

impl<'a> TypeMaps<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Self { source, known: HashMap::new(), bytes: 0, any: Arc::new(TypeMap::Any) }
    }

    /// The map of the type at `address`; 0 is a type that has not been written yet.
    pub(super) fn get(&mut self, address: u64) -> Arc<TypeMap> {
        if address == 0 {
            return Arc::clone(&self.any);
        }
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(known);
        }
        // Only what is in the program itself stays the same for good: others may be built, and a header read while its
        // object is given to somebody else may be anything.
        let in_program = self.source.binary.image().segment(self.source.bias.pc(RemoteAddr(address))).is_some();
        let map = Arc::new(self.read(address).unwrap_or(TypeMap::Any));
        let len = match &*map {
            TypeMap::Mask { bits, .. } => bits.len(),
            TypeMap::Any => return map,
        };
        if in_program && self.known.len() < KNOWN_LIMIT && self.bytes + len <= BYTES_LIMIT {
            self.bytes += len;
            self.known.insert(address, Arc::clone(&map));
        }
        map
    }

    fn read(&self, address: u64) -> Option<TypeMap> {
        let (memory, layout) = (self.source.memory, &self.source.layout.type_record);
        let head = memory.bytes(RemoteAddr(address), layout.size as usize).ok()?;
        let stride = layout.type_size.read(&head)?;
        let pointers = layout.ptr_bytes.read(&head)?;
        if stride == 0 || stride % 8 != 0 || pointers > stride || pointers % 8 != 0 {
            return None;
        }
        let words = pointers / 8;
        let len = words.div_ceil(8);
        if len > MASK_LIMIT {
            return None;
        }
        let mut mask = layout.gc_data.read(&head)?;
        let minor = self.source.binary.version().minor();
        if minor <= 23 && layout.kind.read(&head)? & GC_PROGRAM != 0 {
            return None;
        }
        if minor >= 24 && layout.tflag.read(&head)? & ON_DEMAND != 0 {
            mask = memory.word(RemoteAddr(mask)).ok()?;
            // Until it is built there is nothing, or the address of a marker among the program's variables.
            let pc: Pc = self.source.bias.pc(RemoteAddr(mask));
            if mask == 0 || self.source.binary.image().segment(pc).is_some_and(|segment| segment.writable) {
                return None;
            }
        }
        let bits = memory.bytes(RemoteAddr(mask), usize::try_from(len).ok()?).ok()?;
        Some(TypeMap::Mask { stride, words, bits: bits.into() })
    }
}

impl TypeMap {
    /// Gives the offsets from `from` on, below `to`, at which a run of values, the first at offset 0, holds pointers.
    pub(super) fn pointers(&self, from: u64, to: u64, mut take: impl FnMut(u64)) {
        let TypeMap::Mask { stride, words, bits } = self else {
            (from..to).step_by(8).for_each(take);
            return;
        };
        let mut value = from / stride * stride;
        while value < to {
            let first = from.saturating_sub(value) / 8;
            let last = (*words).min((to - value).div_ceil(8));
            let mut word = first;
            while word < last {
                let byte = bits.get((word / 8) as usize).copied().unwrap_or_default() >> (word % 8);
                if byte == 0 {
                    word = (word / 8 + 1) * 8;
                    continue;
                }
                if byte & 1 == 1 {
                    take(value + 8 * word);
                }
                word += 1;
            }
            value = match value.checked_add(*stride) {
                Some(next) => next,
                None => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(map: &TypeMap, from: u64, to: u64) -> Vec<u64> {
        let mut found = Vec::new();
        map.pointers(from, to, |offset| found.push(offset));
        found
    }

    #[test]
    fn values_are_tiled() {
        let map = TypeMap::Mask { stride: 32, words: 3, bits: [0b101].into() };
        assert_eq!(offsets(&map, 0, 80), [0, 16, 32, 48, 64]);
        assert_eq!(offsets(&map, 16, 72), [16, 32, 48, 64]);
        assert_eq!(offsets(&map, 24, 32), [0; 0]);
        let long = TypeMap::Mask { stride: 160, words: 20, bits: [0, 0x81, 0x8].into() };
        assert_eq!(offsets(&long, 0, 320), [64, 120, 152, 224, 280, 312]);
    }

    #[test]
    fn what_is_not_known_may_be_anywhere() {
        assert_eq!(offsets(&TypeMap::Any, 8, 32), [8, 16, 24]);
    }
}

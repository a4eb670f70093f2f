//! Pc-value tables: a number for every instruction of a function, as deltas.
//!
//! The encoding: pairs of a zig-zag value delta and a pc delta, both varints; a value delta of zero ends the table, save
//! in the first pair. <https://github.com/golang/go/blob/go1.27.3/src/runtime/symtab.go#L1204-L1242>

use super::Function;
use crate::units::Pc;

/// Steps of one table followed; the largest functions (tables of package unicode) have a tenth of it.
const STEP_LIMIT: u64 = 1 << 22;

impl Function<'_> {
    /// The value at `pc` of the table `offset` bytes into the pc-value tables; `None` for table 0 (there is none), for a
    /// `pc` outside the function or the table, and for a corrupt one.
    ///
    /// The runtime's own lookup answers -1 there; but -1 is also a value, so we tell the two apart.
    pub(crate) fn pc_value(&self, offset: u32, pc: Pc) -> Option<i32> {
        if offset == 0 || pc < self.entry || pc >= self.end {
            return None;
        }
        let header = &self.functions.header;
        let start = usize::try_from(header.pcs).ok()?.checked_add(offset as usize)?;
        let mut table = self.functions.bytes.get(start..)?.iter().copied();
        let quantum = u64::from(header.quantum);
        let (mut value, mut at, mut first) = (-1i32, self.entry.0, true);
        // Every step but the first moves on by an instruction, which bounds the walk whatever the bytes say.
        for _ in 0..((self.end.0 - self.entry.0) / quantum + 2).min(STEP_LIMIT) {
            let delta = varint(&mut table)?;
            if delta == 0 && !first {
                return None;
            }
            first = false;
            value = value.wrapping_add(((delta >> 1) as i32) ^ -((delta & 1) as i32));
            at = at.checked_add(u64::from(varint(&mut table)?).checked_mul(quantum)?)?;
            if pc.0 < at {
                return Some(value);
            }
        }
        None
    }
}

/// Seven bits a byte, the lowest first. Five bytes at most: a `u32` needs no more.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = bytes.next()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::varint;

    #[test]
    fn varints_end() {
        assert_eq!(varint(&mut [5].into_iter()), Some(5));
        assert_eq!(varint(&mut [0x80, 1].into_iter()), Some(128));
        assert_eq!(varint(&mut [0xff, 0xff, 0xff, 0xff, 0x0f].into_iter()), Some(u32::MAX));
        assert_eq!(varint(&mut [0x80, 0x80].into_iter()), None);
        assert_eq!(varint(&mut std::iter::repeat(0xff)), None);
    }
}

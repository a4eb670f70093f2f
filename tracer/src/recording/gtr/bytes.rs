//! Integers of variable length (LEB128) and strings, into bytes and out of them.
//!
//! What is read is from a file, so it may say anything: each read has a bound, and a failure is [`Malformed`].

/// Bytes that do not mean what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A difference: small numbers of either sign are short.
pub(super) fn put_difference(out: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(first)
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        // Most are of one byte or two.
        match *self.0 {
            [first, ref rest @ ..] if first < 0x80 => {
                self.0 = rest;
                Ok(u64::from(first))
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.0 = rest;
                Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(super) fn difference(&mut self, from: u64) -> Result<u64, Malformed> {
        let coded = self.number()?;
        let difference = (coded >> 1) as i64 ^ -((coded & 1) as i64);
        Ok(from.wrapping_add(difference as u64))
    }

    pub(super) fn number_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed("a number is too large"))
    }

    /// How many of something follow. Each takes a byte at least, so a lie is found out before memory is taken for it.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed("a count is too large"))?;
        if count > self.0.len() { Err(Malformed("a count is too large")) } else { Ok(count) }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Cursor<'a>, Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(Cursor(taken))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = self.count()?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes.0).map_err(|_| Malformed("a name is not UTF-8"))
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("there is more than it should hold")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec(any::<u64>(), 0..50), shift in 0u32..64) {
            let numbers: Vec<u64> = numbers.into_iter().map(|n| n >> shift).collect();
            let mut bytes = Vec::new();
            let mut last = 0;
            for &number in &numbers {
                put(&mut bytes, number);
                put_difference(&mut bytes, last, number);
                last = number;
            }
            let mut cursor = Cursor(&bytes);
            let mut last = 0;
            for &number in &numbers {
                prop_assert_eq!(cursor.number(), Ok(number));
                last = cursor.difference(last).expect("reads");
                prop_assert_eq!(last, number);
            }
            prop_assert_eq!(cursor.end(), Ok(()));
        }

        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let mut cursor = Cursor(&bytes);
            while cursor.number().is_ok() {}
            let _ = Cursor(&bytes).text();
            let _ = Cursor(&bytes).count();
        }
    }
}

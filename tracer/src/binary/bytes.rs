//! Little-endian numbers out of bytes that may end anywhere.

/// The `u32` at `at`; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The `u64` at `at`; `None` past the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The longest name or path believed, in bytes; without a bound, a table without a NUL would be searched to its end for each.
const TEXT_LIMIT: usize = 16 << 10;

/// The text from `at` to the next NUL, cut at the first byte that is not UTF-8; `None` where no NUL follows soon.
pub(crate) fn text_at(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let rest = rest.get(..TEXT_LIMIT).unwrap_or(rest);
    let text = rest.get(..rest.iter().position(|&b| b == 0)?)?;
    text.utf8_chunks().next().map_or(Some(""), |chunk| Some(chunk.valid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_passed() {
        let bytes = [1, 0, 2, 0, 3, 0, 4, 0, 5];
        assert_eq!(u32_at(&bytes, 5), Some(0x0500_0400));
        assert_eq!(u32_at(&bytes, 6), None);
        assert_eq!(u64_at(&bytes, 1), Some(0x0500_0400_0300_0200));
        assert_eq!(u64_at(&bytes, 2), None);
        assert_eq!(u64_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn text_ends_at_nul_or_at_the_first_bad_byte() {
        assert_eq!(text_at(b"abc\0def", 0), Some("abc"));
        assert_eq!(text_at(b"abc\0def", 4), None);
        assert_eq!(text_at(b"ab\xffc\0", 0), Some("ab"));
        assert_eq!(text_at(b"\0", 0), Some(""));
        assert_eq!(text_at(b"", 9), None);
    }
}

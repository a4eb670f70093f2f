//! Memory that is shared with the kernel: a BPF map's, or a perf event's.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A mapping of a descriptor's memory, for reading and writing, from its begin on.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is ours alone on this side; nothing in it is tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of what `fd` stands for.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: it does where there are fewer.
    pub(crate) fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, bytes })
    }

    /// The word at an offset; `None` unless it is aligned and within. Both sides use words that change by atomics alone.
    pub(crate) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let fits = offset.is_multiple_of(8) && self.has(offset, 8);
        // SAFETY: aligned, for the base is a page's, and within the mapping, which lives as long as the reference.
        fits.then(|| unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() })
    }

    /// `length` bytes from an offset; `None` unless all are within.
    ///
    /// # Safety
    ///
    /// The kernel writes none of them while the reference lives.
    pub(crate) unsafe fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        // SAFETY: within the mapping, which lives as long as the reference; the caller vouches for the kernel.
        self.has(offset, length).then(|| unsafe { std::slice::from_raw_parts(self.base.add(offset).as_ptr(), length) })
    }

    fn has(&self, offset: usize, length: usize) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this size, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Memory that a test shares with itself in place of the kernel.
#[cfg(test)]
pub(crate) fn memory(bytes: usize) -> std::os::fd::OwnedFd {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: a name that lives; the descriptor is new, and nobody else knows it.
    let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"memory".as_ptr(), 0)) };
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), bytes as libc::off_t) }, 0);
    file
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn nothing_beyond_its_end_is_given_out() {
        let file = memory(4096);
        let mapping = Mapping::new(file.as_fd(), 4096).expect("a mapping");
        mapping.word(4088).expect("the last word").store(7, Ordering::Relaxed);
        for offset in [1, 4, 4089, 4092, 4096, usize::MAX - 7] {
            assert!(mapping.word(offset).is_none(), "{offset}");
        }
        // SAFETY: nobody else writes to the file.
        let bytes = |offset, length| unsafe { mapping.bytes(offset, length) };
        assert_eq!(bytes(4088, 8), Some(7_u64.to_ne_bytes().as_slice()));
        assert_eq!(bytes(4096, 0), Some([].as_slice()));
        assert_eq!(bytes(4089, 8), None);
        assert_eq!(bytes(8, usize::MAX - 7), None);
    }
}

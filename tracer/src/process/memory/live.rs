//! The memory of a live process, by process_vm_readv: many ranges a call, the process runs on.

use std::io;

use super::{MemoryError, MemoryRange, ReadMemory};
use crate::process::Process;
use crate::units::{MonotonicNs, RemoteAddr};

/// `IOV_MAX`: so many ranges fit in one call.
const RANGES: usize = 1024;
/// So many bytes are asked for in one call, unless one range alone is longer; the kernel's own bound is 2 GiB.
const BYTES: usize = 64 << 20;

/// The memory of a process that runs.
#[derive(Clone, Copy, Debug)]
pub struct LiveMemory<'a> {
    process: &'a Process,
}

impl<'a> LiveMemory<'a> {
    /// The memory of `process`.
    #[must_use]
    pub fn new(process: &'a Process) -> Self {
        Self { process }
    }

    /// One call: how many bytes came, from the first of `remote` on.
    fn call(&self, remote: &[libc::iovec], into: &mut [u8]) -> Result<usize, MemoryError> {
        let pid = self.process.pid();
        let Ok(number) = libc::pid_t::try_from(pid.0) else { return Err(MemoryError::Exited) };
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        // SAFETY: `local` is one buffer that we hold alone; `remote` are addresses in the other process, which the kernel
        // checks; both counts are those of what is passed.
        let read = unsafe {
            libc::process_vm_readv(number, &raw const local, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0)
        };
        if read >= 0 {
            return Ok(read as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EFAULT) => Ok(0),
            Some(libc::ESRCH) => Err(MemoryError::Exited),
            Some(libc::EPERM | libc::EACCES) => Err(MemoryError::Permission { pid }),
            _ => Err(MemoryError::Read(error)),
        }
    }
}

impl ReadMemory for LiveMemory<'_> {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        let mut remote: Vec<libc::iovec> = Vec::with_capacity(ranges.len().min(RANGES));
        let (mut first, mut rest) = (0, into);
        while first < ranges.len() {
            let mut wanted = 0_usize;
            remote.clear();
            for range in ranges.iter().skip(first).take(RANGES) {
                if !remote.is_empty() && wanted.saturating_add(range.len) > BYTES {
                    break;
                }
                wanted = wanted.saturating_add(range.len);
                remote.push(libc::iovec { iov_base: range.start.0 as *mut libc::c_void, iov_len: range.len });
            }
            let Some(buffer) = rest.get_mut(..wanted) else { return Err(MemoryError::TooMuch { len: wanted }) };
            let got = self.call(&remote, buffer)?;
            // A range that faults stops the call, wherever in it: those before it are whole, go on behind it.
            let (mut done, mut whole) = (0, 0);
            for range in &remote {
                if done + range.iov_len > got {
                    break;
                }
                done += range.iov_len;
                whole += 1;
            }
            if let Some(faulted) = remote.get(whole) {
                missing.push(first + whole);
                done += faulted.iov_len;
                whole += 1;
            }
            first += whole;
            rest = rest.get_mut(done..).unwrap_or_default();
        }
        // process_vm_readv takes a number. As long as the process lives, nobody else has its number: so what was read
        // before this check was read from it.
        if self.process.has_exited() { Err(MemoryError::Exited) } else { Ok(()) }
    }

    fn why_missing(&self, _: RemoteAddr) -> String {
        "the process has nothing mapped there".to_owned()
    }

    fn now(&self) -> Option<MonotonicNs> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is ours to be written.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        (failed == 0).then(|| MonotonicNs((time.tv_sec as u64).wrapping_mul(1_000_000_000) + time.tv_nsec as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::memory::Batch;
    use crate::units::Pid;

    fn range(of: &[u8]) -> MemoryRange {
        MemoryRange { start: RemoteAddr(of.as_ptr() as u64), len: of.len() }
    }

    #[test]
    fn what_faults_is_missing_and_the_rest_is_there() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let memory = LiveMemory::new(&us);
        let nowhere = MemoryRange { start: RemoteAddr(8), len: 8 };
        let empty = MemoryRange { start: RemoteAddr(8), len: 0 };
        let (a, b) = (*b"first one", *b"second");
        let mut batch = Batch::default();
        let ranges = [nowhere, range(&a), nowhere, nowhere, empty, range(&b), nowhere];
        batch.read(&memory, &ranges).expect("we live");
        let got: Vec<_> = (0..8).map(|i| batch.get(i)).collect();
        assert_eq!(got, [None, Some(&a[..]), None, None, Some(&[][..]), Some(&b[..]), None, None]);
    }

    #[test]
    fn more_ranges_than_one_call_takes() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i % 251) as u8).collect();
        let ranges: Vec<_> = bytes.chunks(2).map(range).collect();
        let mut batch = Batch::default();
        batch.read(&LiveMemory::new(&us), &ranges).expect("we live");
        assert!((0..ranges.len()).all(|i| batch.get(i) == bytes.get(2 * i..2 * i + 2)));
    }

    #[test]
    fn a_range_that_ends_in_nothing_is_missing() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let memory = LiveMemory::new(&us);
        let error = memory.bytes(RemoteAddr(0xffff_8000_0000_0000), 8).expect_err("the kernel's half");
        assert!(matches!(error, MemoryError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("0xffff800000000000"), "{error}");
        assert!(matches!(memory.bytes(RemoteAddr(1), usize::MAX), Err(MemoryError::TooMuch { .. })));
    }
}

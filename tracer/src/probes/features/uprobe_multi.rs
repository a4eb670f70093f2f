//! Multi-uprobe links: one system call for many probes, one wait for all of them at the end.
//!
//! Tried with a probe on a function of our own, hit by two threads: up to Linux 6.9 the filter lets only hits of the one
//! thread through whose number is the PID ("bpf: Fix multi-uprobe PID filtering logic", 46ba0e49b642).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Found;
use crate::probes::bpf::{self, Instruction};
use crate::probes::own_code;
use crate::units::RemoteAddr;

#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn subject() {
    core::arch::naked_asm!("push rbp", "pop rbp", "ret")
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
extern "C" fn subject() {
    core::arch::naked_asm!("b 1f", "1:", "ret")
}

pub(super) fn find() -> Found {
    match hits_of_two_threads() {
        Ok(Some(2)) => Found::Yes,
        Ok(Some(_)) => Found::No("its PID filter leaves out threads"),
        Ok(None) => Found::No("the kernel does not know it"),
        Err(error) => Found::Unknown(error.to_string()),
    }
}

/// `None` if there are no such links.
fn hits_of_two_threads() -> io::Result<Option<u64>> {
    let counter = bpf::map_create(bpf::MAP_TYPE_ARRAY, 4, 8, 1)?;
    // What does not load as a plain uprobe either says nothing of multi-uprobes.
    bpf::load_uprobe(&counting(&counter), 0)?;
    let program = match bpf::load_uprobe(&counting(&counter), bpf::TRACE_UPROBE_MULTI) {
        Err(error) if is_unsupported(&error) => return Ok(None),
        loaded => loaded?,
    };
    let offset = own_code::file_offset(RemoteAddr(subject as *const () as usize as u64))?;
    let link = match bpf::link_uprobe_multi(&program, c"/proc/self/exe", offset.0, std::process::id()) {
        Err(error) if is_unsupported(&error) => return Ok(None),
        linked => linked?,
    };
    for _ in 0..2 {
        // Neither of them is the main thread.
        std::thread::Builder::new().spawn(|| subject())?.join().map_err(|_| io::Error::other("a thread failed"))?;
    }
    let hits = bpf::array_first(&counter)?;
    drop(link);
    Ok(Some(hits))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP))
}

/// `*lookup(counter, 0) += 1`.
fn counting(counter: &OwnedFd) -> [Instruction; 11] {
    const PSEUDO_MAP_FD: u8 = 1;
    const MAP_LOOKUP_ELEM: i32 = 1;
    let new = Instruction::new;
    [
        new(0x62, 10, 0, -4, 0),                             // *(u32 *)(r10 - 4) = 0
        new(0xbf, 2, 10, 0, 0),                              // r2 = r10
        new(0x07, 2, 0, 0, -4),                              // r2 += -4
        new(0x18, 1, PSEUDO_MAP_FD, 0, counter.as_raw_fd()), // r1 = counter
        new(0, 0, 0, 0, 0),                                  // its upper half
        new(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),                 // call
        new(0x15, 0, 0, 2, 0),                               // if r0 == 0 skip two
        new(0xb7, 1, 0, 0, 1),                               // r1 = 1
        new(0xdb, 0, 1, 0, 0),                               // lock *(u64 *)r0 += r1
        new(0xb7, 0, 0, 0, 0),                               // r0 = 0
        new(0x95, 0, 0, 0, 0),                               // exit
    ]
}

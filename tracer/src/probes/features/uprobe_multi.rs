//! Multi-uprobe links: one system call for many probes, one wait for all of them at the end.
//!
//! Tried with a probe on a function of our own, hit by two threads: up to Linux 6.9 the filter lets only hits of the one
//! thread through whose number is the PID ("bpf: Fix multi-uprobe PID filtering logic", 46ba0e49b642).

use std::io;
use std::os::fd::AsFd;

use super::Found;
use crate::probes::bpf::{self, By};
use crate::probes::{at_work, own_code};
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
    let counting = bpf::on_first_word(&counter, bpf::ADD);
    let load = |by| bpf::load_uprobe(c"try", &counting, by, None);
    // What does not load as a plain uprobe either says nothing of multi-uprobes.
    load(By::PerfEvent)?;
    let program = match load(By::MultiLink) {
        Err(error) if is_unsupported(&error) => return Ok(None),
        loaded => loaded?,
    };
    let offset = own_code::file_offset(RemoteAddr(subject as *const () as usize as u64))?;
    let link = match bpf::link_uprobe_multi(program.as_fd(), c"/proc/self/exe", offset.0, std::process::id()) {
        Err(error) if is_unsupported(&error) => return Ok(None),
        linked => linked?,
    };
    for _ in 0..2 {
        // Neither of them is the main thread.
        std::thread::Builder::new().spawn(|| subject())?.join().map_err(|_| io::Error::other("a thread failed"))?;
    }
    let hits = bpf::array_first(&counter)?;
    at_work::close_apart(link)?;
    Ok(Some(hits))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP))
}

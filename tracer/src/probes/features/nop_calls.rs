//! Five-byte nops that become calls when a uprobe stands on them: no trap.
//!
//! Tried on a function of our own, of which we then look at the code: an `e8` in place of the nop.

use super::Found;

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find() -> Found {
    Found::No("the architecture has none")
}

#[cfg(target_arch = "x86_64")]
pub(super) fn find() -> Found {
    match x86_64::becomes_a_call() {
        Ok(true) => Found::Yes,
        Ok(false) => Found::No("the kernel leaves a trap there"),
        Err(error) => Found::Unknown(error.to_string()),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::io;

    use crate::kernel::perf_event::{self, Attributes};
    use crate::probes::{at_work, bpf, own_code};
    use crate::units::RemoteAddr;

    /// `call rel32`.
    const CALL: u8 = 0xe8;

    #[unsafe(naked)]
    extern "C" fn subject() {
        // On one page: the kernel replaces no nop that lies on two.
        core::arch::naked_asm!(".balign 16", ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00", "ret")
    }

    pub(super) fn becomes_a_call() -> io::Result<bool> {
        // Where the function begins: the alignment stands before the symbol's first instruction, not before the symbol.
        let entry = (subject as *const () as usize).next_multiple_of(16);
        let offset = own_code::file_offset(RemoteAddr(entry as u64))?;
        let event = perf_event::open(&Attributes::uprobe(bpf::uprobe_kind()?, c"/proc/self/exe", offset.0), 0, -1)?;
        // The first hit has it replaced.
        for _ in 0..3 {
            subject();
        }
        // SAFETY: our own code, which may be read; volatile because the kernel changes it.
        let first = unsafe { std::ptr::read_volatile(entry as *const u8) };
        at_work::close_apart(event)?;
        Ok(first == CALL)
    }
}

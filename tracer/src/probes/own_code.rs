//! Where our own functions are in our own executable: what is measured or tried is tried on ourselves.

use std::io;

use crate::process::Process;
use crate::units::{FileOffset, Pid, RemoteAddr};

/// The place in our executable that is loaded at this address.
///
/// # Errors
///
/// If /proc is not mounted, or the address is not in our executable.
pub(super) fn file_offset(address: RemoteAddr) -> io::Result<FileOffset> {
    let us = Process::open(Pid(std::process::id())).map_err(io::Error::other)?;
    let mappings = us.exe_mappings().map_err(io::Error::other)?;
    let mapping = mappings.iter().find(|m| (m.start..m.end).contains(&address));
    mapping
        .map(|m| FileOffset(address.0 - m.start.0 + m.offset.0))
        .ok_or_else(|| io::Error::other("gotracer's own code is not in its maps"))
}

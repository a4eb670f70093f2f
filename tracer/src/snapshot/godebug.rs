//! The runtime's own settings of GODEBUG, as they are now: a program may change some of them while it runs.
//!
//! `dbgvars`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime1.go#L293-L398>, alike in 1.26.

use super::Source;
use crate::go_runtime::Variable;
use crate::units::RemoteAddr;

/// Settings believed; Go 1.27 has 35.
const LIMIT: u64 = 256;

/// The value of the setting `name`; `None` where there is none, or it cannot be read.
pub(super) fn setting(source: &Source<'_>, name: &str) -> Option<i32> {
    let layout = source.layout.debug_variable.as_ref()?;
    let memory = source.memory;
    let slice = memory.bytes(source.bias.remote(source.globals.pc(Variable::Dbgvars)?), 16).ok()?;
    let (start, len) = (word(&slice, 0)?, word(&slice, 8)?.min(LIMIT));
    let pointers = memory.bytes(RemoteAddr(start), len as usize * 8).ok()?;
    for i in 0..len as usize {
        let variable = memory.bytes(RemoteAddr(word(&pointers, i * 8)?), layout.size as usize).ok()?;
        let at = layout.name.offset as usize;
        let (text, length) = (word(&variable, at)?, word(&variable, at + 8)?);
        if length != name.len() as u64 || memory.bytes(RemoteAddr(text), name.len()).ok()? != name.as_bytes() {
            continue;
        }
        let value = memory.bytes(RemoteAddr(layout.atomic?.read(&variable)?), 4).ok()?;
        return Some(i32::from_le_bytes(*value.first_chunk()?));
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

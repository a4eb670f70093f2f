//! Where the runtime's variables are in one program.

use crate::binary::{Binary, BinaryError};
use crate::go_runtime::WaitReasons;
use crate::units::Pc;

/// Link-time addresses of the runtime's variables; `None` for one that is not found.
#[derive(Clone, Debug)]
pub struct Variables {
    /// `runtime.allglen`.
    pub allglen: Option<Pc>,
    /// `runtime.allgptr`.
    pub allgptr: Option<Pc>,
    /// `runtime.allp`.
    pub allp: Option<Pc>,
    /// `runtime.allm`.
    pub allm: Option<Pc>,
    /// `runtime.sched`.
    pub sched: Option<Pc>,
    /// `runtime.memstats`.
    pub memstats: Option<Pc>,
    /// `runtime.gcController`.
    pub gc_controller: Option<Pc>,
    /// `runtime.gomaxprocs`.
    pub gomaxprocs: Option<Pc>,
    /// The names of wait reasons.
    pub reasons: WaitReasons,
}

impl Variables {
    /// Finds them in the symbol table.
    ///
    /// # Errors
    ///
    /// As [`crate::binary::Image::symbols`].
    pub fn of(binary: &Binary) -> Result<Self, BinaryError> {
        let found = binary.image().symbols([
            "runtime.allglen",
            "runtime.allgptr",
            "runtime.allp",
            "runtime.allm",
            "runtime.sched",
            "runtime.memstats",
            "runtime.gcController",
            "runtime.gomaxprocs",
        ])?;
        let [allglen, allgptr, allp, allm, sched, memstats, gc_controller, gomaxprocs] =
            found.map(|symbol| symbol.map(|symbol| symbol.pc));
        let reasons = WaitReasons::of(binary).unwrap_or_default();
        Ok(Self { allglen, allgptr, allp, allm, sched, memstats, gc_controller, gomaxprocs, reasons })
    }
}

//! The probes, and where each finds its values.
//!
//! A probe is an event of the runtime; a [`Place`] is a kind of instruction at which a kernel program knows how to read
//! it. Places are listed best first; [`placement`](super::placement) takes the first that the kernel emulates.

use serde::Serialize;

/// What a probe reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A goroutine comes to be.
    Created,
    /// A goroutine parks.
    Blocked,
    /// A goroutine is given a thread.
    Running,
    /// A goroutine ends.
    Exited,
}

/// An instruction, described by its function's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first instruction behind the stack check. Arguments are still in their registers, and it is executed once
    /// for each call: the entry itself is executed again when the check has grown the stack.
    BehindStackCheck,
    /// The one call of this function.
    CallOf(&'static str),
    /// Behind the one call of this function, while its result is still in the first register.
    Behind(&'static str),
}

/// One probe.
#[derive(Debug)]
pub struct Probe {
    /// What it reports.
    pub event: Event,
    /// The runtime function it stands in.
    pub function: &'static str,
    /// Where it may stand, and the kernel program that reads the values there; best first.
    pub places: &'static [(Place, &'static str)],
    /// Whether a Go version may lack the function; then the probe does not apply.
    pub optional: bool,
}

/// All probes.
///
/// What each relies on, read from Go 1.18 to 1.27:
///
/// - `newproc` runs `newproc1` and then `runqput(pp, newg, true)` on g0, in its only closure:
///   <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L5206>.
/// - `gopark(unlockf, lock, reason, ..)` stores the reason in the g and ends in `mcall(park_m)`.
/// - `execute(gp, inheritTime)` runs on g0, for every goroutine that is given a thread, and calls
///   `casgstatus(gp, _Grunnable, _Grunning)`.
/// - `goexit1` runs on the goroutine that ends, by return, `runtime.Goexit` or a recovered panic, and ends in
///   `mcall(goexit0)`.
/// - Coroutines (`iter.Pull`, since 1.23) are made by `newcoro` through `newproc1` without `runqput`, switch in
///   `coroswitch` without gopark or execute, and end without goexit1: `coroexit`, which is mostly inlined, goes to
///   `coroswitch_m`, and that calls `gdestroy` for a coroutine that ends, and `gogo` for the one that runs next:
///   <https://github.com/golang/go/blob/go1.27.3/src/runtime/coro.go>.
pub const PROBES: &[Probe] = &[
    Probe {
        event: Event::Created,
        function: "runtime.newproc.func1",
        places: &[
            (Place::CallOf("runtime.runqput"), "created_at_call"),
            (Place::Behind("runtime.newproc1"), "created_at_return"),
        ],
        optional: false,
    },
    Probe {
        event: Event::Blocked,
        function: "runtime.gopark",
        places: &[(Place::BehindStackCheck, "blocked_at_entry"), (Place::CallOf("runtime.mcall"), "blocked_at_mcall")],
        optional: false,
    },
    Probe {
        event: Event::Running,
        function: "runtime.execute",
        places: &[
            (Place::BehindStackCheck, "running_at_call"),
            (Place::CallOf("runtime.casgstatus"), "running_at_call"),
        ],
        optional: false,
    },
    Probe {
        event: Event::Exited,
        function: "runtime.goexit1",
        places: &[(Place::BehindStackCheck, "exited"), (Place::CallOf("runtime.mcall"), "exited")],
        optional: false,
    },
    Probe {
        event: Event::Created,
        function: "runtime.newcoro.func1",
        places: &[(Place::Behind("runtime.newproc1"), "created_at_return")],
        optional: true,
    },
    Probe {
        event: Event::Blocked,
        function: "runtime.coroswitch",
        places: &[(Place::CallOf("runtime.mcall"), "blocked_at_coroswitch")],
        optional: true,
    },
    Probe {
        event: Event::Running,
        function: "runtime.coroswitch_m",
        places: &[(Place::CallOf("runtime.gogo"), "running_at_gogo")],
        optional: true,
    },
    Probe {
        event: Event::Exited,
        function: "runtime.coroswitch_m",
        places: &[(Place::CallOf("runtime.gdestroy"), "exited_at_call")],
        optional: true,
    },
];

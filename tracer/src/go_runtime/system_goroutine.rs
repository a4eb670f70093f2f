//! Which goroutines are the runtime's own.
//!
//! By the start function's name, as the runtime itself decides, for all versions since 1.18:
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L1490-L1520>

use serde::Serialize;

/// Whose goroutine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The program's.
    Program,
    /// The runtime's: collector workers, the scavenger, timers, tracing.
    Runtime,
    /// The runtime's finalizer goroutine; the program's while it runs a finalizer.
    Finalizers,
    /// One of the runtime's cleanup goroutines (Go 1.25 and later); the program's while `g.runningCleanups` is set.
    Cleanups,
}

impl Owner {
    /// Whose goroutine it is that starts at the function called `start`.
    #[must_use]
    pub fn of(start: &str) -> Self {
        match start {
            // The main goroutine, an injected debugger call's, and a coroutine's start here, and run the program.
            "runtime.main" | "runtime.handleAsyncEvent" | "runtime.corostart" => Owner::Program,
            // Renamed in Go 1.25.
            "runtime.runfinq" | "runtime.runFinalizers" => Owner::Finalizers,
            "runtime.runCleanups" => Owner::Cleanups,
            _ if start.starts_with("runtime.") => Owner::Runtime,
            _ => Owner::Program,
        }
    }

    /// Whether a count of the program's goroutines leaves it out, as `runtime.NumGoroutine` does of what runs no user code.
    #[must_use]
    pub fn is_system(self) -> bool {
        self != Owner::Program
    }
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn by_start_function() {
        assert_eq!(Owner::of("runtime.main"), Owner::Program);
        assert_eq!(Owner::of("runtime.bgsweep"), Owner::Runtime);
        assert_eq!(Owner::of("runtime.gcBgMarkWorker"), Owner::Runtime);
        assert_eq!(Owner::of("runtime.runfinq"), Owner::Finalizers);
        assert_eq!(Owner::of("runtime/pprof.profileWriter"), Owner::Program);
        assert_eq!(Owner::of("main.main.func1"), Owner::Program);
        assert_eq!(Owner::of(""), Owner::Program);
    }
}

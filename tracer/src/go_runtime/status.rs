//! What `g.atomicstatus` says.
//!
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/runtime2.go#L12-L104>

use serde::Serialize;

/// The bit that says the collector is looking at the goroutine's stack, whatever its status. In all versions.
pub const SCAN_BIT: u32 = 0x1000;

/// A goroutine's status, without the scan bit. In all versions, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Just allocated.
    Idle,
    /// In a run queue.
    Runnable,
    /// Running Go code on a thread.
    Running,
    /// In a system call (or in C).
    Syscall,
    /// Blocked in the runtime; `g.waitreason` says on what.
    Waiting,
    /// Ended, or not yet begun: the struct waits to be reused.
    Dead,
    /// Its stack is being moved: nothing on it may be read.
    CopyStack,
    /// Stopped by a preemption, for a stack scan.
    Preempted,
    /// Found leaked by the collector; from Go 1.26.
    Leaked,
    /// Dead, kept for a C thread that calls Go; from Go 1.26.
    DeadExtra,
}

impl Status {
    /// The status that `raw`, the word read, means in Go 1.`minor`; `None` for a number that has no meaning there.
    #[must_use]
    pub fn parse(raw: u32, minor: u16) -> Option<Self> {
        Some(match raw & !SCAN_BIT {
            0 => Status::Idle,
            1 => Status::Runnable,
            2 => Status::Running,
            3 => Status::Syscall,
            4 => Status::Waiting,
            6 => Status::Dead,
            8 => Status::CopyStack,
            9 => Status::Preempted,
            10 if minor >= 26 => Status::Leaked,
            11 if minor >= 26 => Status::DeadExtra,
            _ => return None,
        })
    }

    /// Whether there is a goroutine at all, or only a struct for one to come.
    #[must_use]
    pub fn is_alive(self) -> bool {
        !matches!(self, Status::Idle | Status::Dead | Status::DeadExtra)
    }

    /// Whether `g.sched` holds the registers to begin a stack walk at: it does while the goroutine is not on a thread.
    #[must_use]
    pub fn is_parked(self) -> bool {
        matches!(self, Status::Runnable | Status::Waiting | Status::Preempted | Status::Leaked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_bit_is_not_part_of_it() {
        assert_eq!(Status::parse(0x1004, 21), Some(Status::Waiting));
        assert_eq!(Status::parse(4, 27), Some(Status::Waiting));
    }

    #[test]
    fn numbers_without_meaning() {
        assert_eq!(Status::parse(10, 25), None);
        assert_eq!(Status::parse(10, 26), Some(Status::Leaked));
        assert_eq!(Status::parse(0x100b, 27), Some(Status::DeadExtra));
        for raw in [5, 7, 12, 0x2004, u32::MAX] {
            assert_eq!(Status::parse(raw, 27), None, "{raw:#x}");
        }
    }
}

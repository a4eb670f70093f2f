//! What this process may do: root or not, in CI or not.

/// Whether we run as root (the effective user).
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// In CI nothing may be skipped: what is missing is an error there.
pub fn in_ci() -> bool {
    gotracer_tests::environment::in_ci()
}

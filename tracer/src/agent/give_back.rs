//! Memory that was needed once and is not any more, on its way back to the kernel.
//!
//! Reading a large executable takes tens of megabytes for a moment, and passes of the prover take what the heap is large; freed,
//! it stays with the allocator of the thread that asked for it.

/// Gives back what is free. Takes a millisecond or a few: to be called when something large has been let go of.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own function; it takes the allocator's locks and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

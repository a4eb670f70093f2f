//! How much memory the allocator keeps that nothing is in.
//!
//! Reading a large executable takes tens of megabytes for a moment, and passes of the prover take what the heap is large; freed,
//! it stays with the allocator of the thread that asked for it. glibc makes eight such allocators for each processor if there
//! are threads enough: each keeps the pieces that lie between what is in use.

/// Has all threads share a few. To be called before there is a second thread.
pub(super) fn share() {
    #[cfg(target_env = "gnu")]
    {
        const ARENAS: libc::c_int = 2;
        // SAFETY: glibc's own function; it sets a number of the allocator's. If it refuses, memory is all that it costs.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}

/// Gives back what is free. Takes a millisecond or a few: to be called when something large has been let go of.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own function; it takes the allocator's locks and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

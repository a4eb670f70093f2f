//! The wire between the kernel programs and `gotracer`: fixed, versioned layouts, no dependency, no_std.
#![no_std]

//! Probes: where the kernel programs stand in one executable, and putting them there.
//!
//! In: a [`Binary`](crate::binary::Binary) and its [`Layout`](crate::go_runtime::Layout). Out: a [`Verdict`] for each
//! probe of the [`catalogue`], then, attached, the maps that [`events`](crate::events) reads. Must not know what the
//! events mean.
//!
//! - [`instruction`]: machine code, decoded as far as a probe cares: where control goes, and how the kernel would
//!   execute the instruction under a uprobe;
//! - [`catalogue`]: which probes there are, and the ranked places at which each finds its values;
//! - [`placement`]: the choice of the instruction, with its reason;
//! - `programs`: the object's programs, loaded for the best kind of probe that the kernel has;
//! - [`at_work`]: the process does not exit while a probe comes or goes;
//! - [`attach`]: the eBPF object, loaded once, and the uprobes of one process;
//! - [`calibration`]: what a hit costs on this machine;
//! - [`detail`]: how much the kernel programs tell;
//! - [`features`]: what this kernel can do, found by trying;
//! - [`kernel`]: what it lacks, in one sentence.

pub mod at_work;
pub mod attach;
mod bpf;
pub mod calibration;
pub mod catalogue;
pub mod detail;
pub mod features;
pub mod instruction;
pub mod kernel;
mod own_code;
pub mod placement;
mod programs;
mod uprobe;

pub use attach::{AttachError, Attachment, Capacity, EventMaps, Execs, FileProbes, KernelPrograms, Probes, WayUp};
pub use detail::Detail;
pub use placement::{Nops, Placement, Verdict, place};

//! What keeps this kernel from running gotracer's programs, in one sentence.
//!
//! Asked before anything is loaded for what costs nothing to find out, and once more when the kernel has refused something.

use std::path::Path;

use super::bpf;
use super::features::{self, Feature, Found};

/// What this kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lack {
    /// sysfs is not mounted: nothing can be found out.
    #[error(
        "/sys is not mounted here, and says which kind of perf event a uprobe is: mount it, or bind it into the container"
    )]
    Sysfs,
    /// No uprobes.
    #[error("this kernel has no uprobes: it was built without CONFIG_UPROBE_EVENTS or without perf events")]
    Uprobes,
    /// No bpf(2).
    #[error("this kernel has no eBPF: it was built without CONFIG_BPF_SYSCALL, or a seccomp filter says so")]
    Bpf,
    /// Something that our programs need.
    #[error(
        "this kernel is too old or was built without it: it has no {}; Linux has what gotracer needs from 5.10 on",
        .0.name()
    )]
    Feature(Feature),
    /// It is locked down.
    #[error(
        "this kernel is locked down (confidentiality) and does not take gotracer's programs; boot with lockdown=integrity or without"
    )]
    Lockdown,
}

impl Lack {
    /// What can be told at once, without loading anything.
    pub(super) fn at_a_glance() -> Option<Self> {
        if !Path::new("/sys/bus/event_source/devices/uprobe/type").exists() {
            let mounted = Path::new("/sys/kernel").exists();
            return Some(if mounted { Self::Uprobes } else { Self::Sysfs });
        }
        let map = bpf::map_create(bpf::MAP_TYPE_ARRAY, 4, 8, 1);
        map.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS)).then_some(Self::Bpf)
    }

    /// What our programs need and this kernel has not.
    pub(super) fn found_by_trying() -> Option<Self> {
        let lack = || {
            Feature::ALL.into_iter().filter(|feature| feature.is_needed()).find_map(|feature| match feature.find() {
                Found::No(features::LOCKED_DOWN) => Some(Self::Lockdown),
                Found::No(_) => Some(Self::Feature(feature)),
                Found::Yes | Found::Unknown(_) => None,
            })
        };
        Self::at_a_glance().or_else(lack)
    }
}

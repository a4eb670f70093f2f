//! The way up by perf buffers, for kernels whose programs cannot do what [`ring`](crate::ring) takes.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, bindings::BPF_F_CURRENT_CPU, helpers::generated::bpf_perf_event_output, macros::map,
    maps::PerfEventArray,
};
use gotracer_ebpf::{COUNT_NO_BUFFER, COUNT_NO_SPACE, Event};

/// One perf buffer for each CPU, opened by the loader with a watermark.
#[map]
static EVENTS: PerfEventArray<Event> = PerfEventArray::new(0);

/// Sends an event, or counts it as lost.
#[inline(always)]
pub(crate) fn send<C: EbpfContext, T>(ctx: &C, event: &T) {
    // The helper is called directly because aya's wrapper drops the result, and with it the loss.
    // SAFETY: `EVENTS` is a perf event array, `event` lives on our stack and has no padding.
    let sent = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            (&raw const EVENTS).cast_mut().cast::<c_void>(),
            u64::from(BPF_F_CURRENT_CPU),
            core::ptr::from_ref(event).cast_mut().cast::<c_void>(),
            size_of::<T>() as u64,
        )
    };
    const ENOSPC: i64 = -28;
    match sent {
        0 => {}
        ENOSPC => crate::count(COUNT_NO_SPACE),
        _ => crate::count(COUNT_NO_BUFFER),
    }
}

//! The few system calls that the eBPF library does not offer: by these a feature is tried, and programs go on multi-uprobe
//! links.
//!
//! Layouts after <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h> (`union bpf_attr`); each struct
//! here is the head of one case, as far as it is used. The kernel takes what is behind the given size as zero.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya_obj::generated::bpf_insn;

/// `BPF_MAP_TYPE_HASH`.
pub(super) const MAP_TYPE_HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`.
pub(super) const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PERCPU_HASH`.
pub(super) const MAP_TYPE_PERCPU_HASH: u32 = 5;

/// `enum bpf_cmd`.
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    ProgramLoad = 5,
    MapLookupBatch = 24,
    LinkCreate = 28,
}

/// bpf(2).
fn bpf<A>(command: Command, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a case of `union bpf_attr` of the size that is given, the pointers in it are of living buffers of
    // the size that the command asks for; the functions below see to that.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Makes a map of any kind with keys and values of these sizes.
pub(super) fn map_create(kind: u32, key_bytes: u32, value_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    bpf(Command::MapCreate, &mut [kind, key_bytes, value_bytes, entries]).map(descriptor)
}

/// Makes an array with one `u64` that user space can map.
pub(super) fn mappable_array() -> io::Result<OwnedFd> {
    const MMAPABLE: u32 = 1 << 10;
    bpf(Command::MapCreate, &mut [MAP_TYPE_ARRAY, 4, 8, 1, MMAPABLE]).map(descriptor)
}

/// The `u64` at index 0 of an array.
pub(super) fn array_first(map: &OwnedFd) -> io::Result<u64> {
    #[repr(C)]
    struct Attr {
        map: u64,
        key: *const u32,
        value: *mut u64,
        flags: u64,
    }
    let (key, mut value) = (0_u32, 0_u64);
    let (key, at) = (&raw const key, &raw mut value);
    bpf(Command::MapLookup, &mut Attr { map: map.as_raw_fd() as u64, key, value: at, flags: 0 })?;
    Ok(value)
}

/// `BPF_MAP_LOOKUP_BATCH` of a map with keys of 4 bytes and values of 8, of which one at most is there.
pub(super) fn map_lookup_batch(map: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        in_batch: u64,
        out_batch: *mut u32,
        keys: *mut u32,
        values: *mut u64,
        count: u32,
        map: u32,
        elem_flags: u64,
        flags: u64,
    }
    /// `CONFIG_NR_CPUS` of the largest kernels: a value of a per-CPU map has a part for each.
    const CPUS: usize = 8192;
    let (mut out_batch, mut key, mut values) = (0_u32, 0_u32, vec![0_u64; CPUS]);
    let (out_batch, keys, values) = (&raw mut out_batch, &raw mut key, values.as_mut_ptr());
    let map = map.as_raw_fd() as u32;
    let mut attr = Attr { in_batch: 0, out_batch, keys, values, count: 1, map, elem_flags: 0, flags: 0 };
    bpf(Command::MapLookupBatch, &mut attr).map(|_| ())
}

/// `BPF_ADD` as an atomic operation.
pub(super) const ADD: i32 = 0x00;
/// `BPF_CMPXCHG`.
pub(super) const COMPARE_EXCHANGE: i32 = 0xf1;

/// A program that does this atomic operation, with the operand 1, on the `u64` at index 0 of an array.
pub(super) fn on_first_word(array: &OwnedFd, operation: i32) -> [bpf_insn; 13] {
    const PSEUDO_MAP_FD: u8 = 1;
    const MAP_LOOKUP_ELEM: i32 = 1;
    let new = |code, destination, source, off, imm| {
        let mut instruction = bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off, imm };
        instruction.set_dst_reg(destination);
        instruction.set_src_reg(source);
        instruction
    };
    [
        new(0x62, 10, 0, -4, 0),                           // *(u32 *)(r10 - 4) = 0
        new(0xbf, 2, 10, 0, 0),                            // r2 = r10
        new(0x07, 2, 0, 0, -4),                            // r2 += -4
        new(0x18, 1, PSEUDO_MAP_FD, 0, array.as_raw_fd()), // r1 = array
        new(0, 0, 0, 0, 0),                                // its upper half
        new(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),               // call
        new(0x15, 0, 0, 4, 0),                             // if r0 == 0 skip four
        new(0xbf, 2, 0, 0, 0),                             // r2 = r0
        new(0xb7, 0, 0, 0, 1),                             // r0 = 1: what an exchange compares with
        new(0xb7, 1, 0, 0, 1),                             // r1 = 1
        new(0xdb, 2, 1, 0, operation),                     // the operation on *(u64 *)r2, with r1
        new(0xb7, 0, 0, 0, 0),                             // r0 = 0
        new(0x95, 0, 0, 0, 0),                             // exit
    ]
}

/// How a program on uprobes is attached, which the kernel wants to know when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum By {
    /// By a perf event; no `enum bpf_attach_type`.
    PerfEvent = 0,
    /// By `BPF_TRACE_UPROBE_MULTI`.
    MultiLink = 48,
}

/// Loads a program of type `BPF_PROG_TYPE_KPROBE`, which uprobes take. With a `log`, the verifier writes to it, as text that
/// ends with a zero.
pub(super) fn load_uprobe(
    name: &CStr,
    instructions: &[bpf_insn],
    by: By,
    log: Option<&mut [u8]>,
) -> io::Result<OwnedFd> {
    const TYPE_KPROBE: u32 = 2;
    #[repr(C)]
    struct Attr {
        program_type: u32,
        count: u32,
        instructions: *const bpf_insn,
        license: *const libc::c_char,
        log_level: u32,
        log_size: u32,
        log: *mut u8,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    // The kernel's limit, with the zero; what is longer is cut off.
    let mut short = [0; 16];
    short.iter_mut().zip(name.to_bytes().iter().take(15)).for_each(|(to, from)| *to = *from);
    let (log_level, log_size) = log.as_ref().map_or((0, 0), |log| (1, log.len() as u32));
    let mut attr = Attr {
        program_type: TYPE_KPROBE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr(),
        // What the helpers ask for.
        license: c"GPL".as_ptr(),
        log_level,
        log_size,
        log: log.map_or(std::ptr::null_mut(), |log| log.as_mut_ptr()),
        kernel_version: 0,
        flags: 0,
        name: short,
        interface: 0,
        attach_type: by as u32,
    };
    bpf(Command::ProgramLoad, &mut attr).map(descriptor)
}

/// A multi-uprobe link of one place, for one process, or for every process if `pid` is 0.
pub(super) fn link_uprobe_multi(program: BorrowedFd<'_>, path: &CStr, offset: u64, pid: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        path: *const libc::c_char,
        offsets: *const u64,
        reference_counters: u64,
        cookies: u64,
        count: u32,
        multi_flags: u32,
        pid: u32,
        padding: u32,
    }
    let mut attr = Attr {
        program: program.as_raw_fd() as u32,
        target: 0,
        attach_type: By::MultiLink as u32,
        flags: 0,
        path: path.as_ptr(),
        offsets: &raw const offset,
        reference_counters: 0,
        cookies: 0,
        count: 1,
        multi_flags: 0,
        pid,
        padding: 0,
    };
    bpf(Command::LinkCreate, &mut attr).map(descriptor)
}

/// The number of the kernel's perf device for uprobes.
pub(super) fn uprobe_kind() -> io::Result<u32> {
    let text = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    text.trim().parse().map_err(io::Error::other)
}

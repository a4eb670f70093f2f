//! Two operations on BPF maps that aya does not offer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `BPF_MAP_UPDATE_ELEM` with u32 keys and values. aya offers it for perf event arrays only in the form that opens the
/// buffer itself, with a wake-up at each event.
pub(super) fn update(map: BorrowedFd<'_>, key: u32, value: u32) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Attr {
        map_fd: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let attr = Attr {
        map_fd: map.as_raw_fd() as u32,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: `attr` is the head of union bpf_attr for this command; it points to a key and a value of the map's sizes.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attr, size_of::<Attr>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All that a hash map holds, read in batches: `BPF_MAP_LOOKUP_BATCH`, since Linux 5.6, unless taken out of it.
///
/// What is put in or taken out meanwhile may or may not be among it. `K` and `V` are the map's key and value.
///
/// # Errors
///
/// If the kernel cannot; then aya's iterator can, with two system calls an element.
pub(super) fn read_all<K: aya::Pod + Default, V: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    mut found: impl FnMut(&K, &V),
) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Attr {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    /// Elements a call: a bucket must fit, and buckets have one element or a few.
    const BATCH: usize = 4096;
    const MOST: usize = 1 << 20;
    let mut size = BATCH;
    let mut keys = vec![K::default(); size];
    let mut values = vec![V::default(); size];
    // Where a batch ends, a hash map says in a u32: the number of the next bucket.
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut is_first = true;
    loop {
        let mut attr = Attr {
            in_batch: if is_first { 0 } else { (&raw const from) as u64 },
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: `attr` is the head of union bpf_attr for this command; it points to room for `count` keys and values
        // of the map's sizes, which are plain data, and to two u32.
        let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<Attr>()) };
        let error = (done != 0).then(io::Error::last_os_error);
        let at_end = match &error {
            None => false,
            Some(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::ENOSPC) if size < MOST => {
                    size *= 2;
                    keys.resize(size, K::default());
                    values.resize(size, V::default());
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))),
            },
        };
        let count = (attr.count as usize).min(size);
        keys.iter().zip(&values).take(count).for_each(|(key, value)| found(key, value));
        if at_end {
            return Ok(());
        }
        from = to;
        is_first = false;
    }
}

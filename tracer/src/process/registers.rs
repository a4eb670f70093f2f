//! The registers of a process's threads, sampled by the kernel's clock while they run; nothing is stopped.
//!
//! In: a process. Out: now and then, for each thread that is on a processor, the general registers it has in user space. A
//! software event (`PERF_COUNT_SW_CPU_CLOCK`) on each thread, with `PERF_SAMPLE_REGS_USER`; it needs no hardware counters, so it works
//! in virtual machines. Knows nothing of what registers hold.

use std::fs;
use std::io;

use hashbrown::HashMap;

use super::Process;
use crate::kernel::page_bytes;
use crate::kernel::perf_event::{self, Attributes, Buffer, RECORD_SAMPLE};

/// The general registers: on x86 AX to SP and R8 to R15, on arm64 X0 to X30.
/// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/include/uapi/asm/perf_regs.h>,
/// <https://github.com/torvalds/linux/blob/v6.18/arch/arm64/include/uapi/asm/perf_regs.h>
const REGISTERS: u64 = if cfg!(target_arch = "x86_64") { 0x00ff_00ff } else { 0x7fff_ffff };
/// Nanoseconds of processor time between two samples of a thread.
const PERIOD: u64 = 1_000_000;
/// Threads sampled; of more, the others stay unread.
const THREAD_LIMIT: usize = 1024;
/// Pages of samples of one thread, a power of two: 50 samples or more, of which a few are wanted.
const PAGES: usize = 2;
/// Samples of all threads of one process, from its making on.
#[derive(Debug, Default)]
pub struct RegisterSamples {
    /// By thread id, in the process's own PID namespace.
    buffers: HashMap<u64, Buffer>,
}

impl RegisterSamples {
    /// Begins to sample the threads that `process` has now.
    ///
    /// # Errors
    ///
    /// If the kernel lets no thread be sampled: `EACCES` without CAP_PERFMON, `ENOENT` or `EOPNOTSUPP` where it cannot.
    pub fn start(process: &Process) -> io::Result<Self> {
        let mut buffers = HashMap::new();
        let mut refused = None;
        for entry in fs::read_dir(format!("/proc/{}/task", process.pid()))?.take(THREAD_LIMIT) {
            let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // One that has ended meanwhile is of no interest.
            let Some(inner) = inner_tid(process, tid) else { continue };
            match open(tid) {
                Ok(buffer) => {
                    buffers.insert(inner, buffer);
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if buffers.is_empty() => Err(error),
            _ => Ok(Self { buffers }),
        }
    }

    /// Gives each sample that waits to `take`: the thread's id, as the process itself sees it, and its registers.
    pub fn drain(&mut self, mut take: impl FnMut(u64, &[u64])) {
        for (tid, buffer) in &mut self.buffers {
            drain(buffer, |registers| take(*tid, registers));
        }
    }
}

/// The thread's id in the innermost PID namespace: what the program itself was told.
fn inner_tid(process: &Process, tid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/task/{tid}/status", process.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The buffer of a thread's samples.
fn open(tid: i32) -> io::Result<Buffer> {
    const ANY_CPU: libc::c_int = -1;
    let attributes = Attributes::registers(REGISTERS, PERIOD);
    let event = perf_event::open(&attributes, tid, ANY_CPU)
        .or_else(|_| perf_event::open(&attributes.of_user_space(), tid, ANY_CPU))?;
    Buffer::new(event, PAGES * page_bytes())
}

/// Hands the registers of each sample that waits to `take`.
fn drain(buffer: &mut Buffer, mut take: impl FnMut(&[u64])) {
    let mut words = Vec::new();
    buffer.drain(|kind, record| {
        words.clear();
        words.extend(record.as_chunks().0.iter().copied().map(u64::from_ne_bytes));
        // The first word tells the ABI; 0: the thread had no user registers.
        if let (RECORD_SAMPLE, [abi, registers @ ..]) = (kind, &*words)
            && *abi != 0
        {
            take(registers);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;
    use std::time::{Duration, Instant};

    #[test]
    fn a_thread_that_runs_is_sampled() {
        let us = Process::open(Pid(std::process::id())).expect("we run");
        let mut samples = match RegisterSamples::start(&us) {
            Ok(samples) => samples,
            Err(error) => return eprintln!("SKIPPED: this kernel lets no thread be sampled: {error}"),
        };
        // SAFETY: no pointers.
        let tid = unsafe { libc::gettid() } as u64;
        let (mut own, deadline) = (0, Instant::now() + Duration::from_secs(20));
        while own == 0 {
            assert!(Instant::now() < deadline, "no sample of a thread that runs all the time");
            samples.drain(|thread, registers| {
                assert_eq!(registers.len(), REGISTERS.count_ones() as usize);
                own += usize::from(thread == tid);
            });
        }
    }
}

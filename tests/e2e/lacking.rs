//! On a kernel that cannot trace, do `doctor` and every command say so in one sentence?
//!
//! `lacking::*` run where the kernel is as they need it: `cargo xtask vm --lacking` boots such machines. Two kernels that
//! Debian does not have are made up: one without bpf(2), by a seccomp filter that answers as such a kernel does, and one
//! without uprobes, by a /sys without them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use gotracer_tests::environment::{gotracer, require_root_and_bpf};
use gotracer_tests::tracer::Refusal;
use gotracer_tests::{GO_VERSIONS, Program};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

/// Commands that attach, each with what stands before and behind the process's number. A new one belongs here.
const COMMANDS: [(&[&str], &[&str]); 5] = [
    (&["trace", "--pid"], &["--for", "1s"]),
    (&["dump", "--pid"], &["--for", "1s"]),
    (&["record", "--pid"], &["--for", "1s", "--output", "/tmp/lacking.gtr"]),
    (&["leaks", "--pid"], &["--for", "1s"]),
    (&["top", "--pid"], &["--once"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("refusals::kernel_without_bpf", || {
            require_root_and_bpf()?;
            refuses("eBPF programs", "no eBPF", without_bpf)
        }),
        trial("refusals::kernel_without_uprobes", || {
            require_root_and_bpf()?;
            refuses("uprobes", "no uprobes", without_uprobes)
        }),
    ];
    // Set by `cargo xtask vm --lacking`, to the word that tells what the machine's kernel lacks.
    match std::env::var("GOTRACER_LACKING").as_deref() {
        Ok("lockdown") => trials.push(trial("lacking::lockdown", || refuses("lockdown", "locked down", |_| ()))),
        Ok("uprobes") => trials.push(trial("lacking::uprobes", || refuses("uprobes", "no uprobes", |_| ()))),
        _ => {}
    }
    trials
}

/// `doctor` finds `check` wanting, every command that attaches says `word` in one sentence, and what needs no probes works.
fn refuses(check: &str, word: &str, prepare: fn(&mut Command)) -> Result<()> {
    let newest = GO_VERSIONS.last().copied().unwrap_or_default();
    let program = Program::start(&Program::find(newest, "plain", "tally")?, &[])?;
    let pid = program.pid().to_string();
    let gotracer = |args: &[&str]| -> Result<Refusal> {
        let mut command = Command::new(gotracer()?);
        prepare(command.args(args));
        Refusal::of(&mut command)
    };
    for (before, behind) in COMMANDS {
        let refusal = gotracer(&[before, &[pid.as_str()], behind].concat())?;
        let said = refusal.stderr.join("\n");
        ensure!(refusal.status.code() == Some(1), "{before:?}: {}, not exit code 1:\n{said}", refusal.status);
        ensure!(refusal.stdout.is_empty(), "{before:?}: on stdout: {:?}", refusal.stdout);
        ensure!(refusal.stderr.len() == 1, "{before:?}: not one sentence:\n{said}");
        ensure!(said.contains(word), "{before:?}: {word:?} is not in:\n{said}");
    }
    let doctor = gotracer(&["doctor", "--json"])?;
    ensure!(doctor.status.code() == Some(1), "doctor: {}, not exit code 1", doctor.status);
    let report: Value = serde_json::from_str(&doctor.stdout.join("\n"))?;
    let checks = report["checks"].as_array().into_iter().flatten();
    let bad: Vec<&Value> = checks.filter(|check| check["ok"] == false).collect();
    ensure!(bad.iter().any(|found| found["name"] == check), "doctor finds only this wanting: {bad:?}");
    ensure!(bad.iter().any(|found| found["found"].as_str().is_some_and(|f| f.contains(word))), "{word}: {bad:?}");
    let dump = gotracer(&["dump", "--pid", &pid])?;
    ensure!(dump.status.success() && dump.stdout.iter().any(|line| line.starts_with("goroutine 1 [")), "{dump:?}");
    program.quit()?;
    Ok(())
}

/// As on a kernel that was built without CONFIG_BPF_SYSCALL: bpf(2) is answered with ENOSYS.
fn without_bpf(command: &mut Command) {
    // seccomp_data.nr is its first word.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let filter = || {
        let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut filter = [
            statement(LOAD_WORD, 0, 0, 0),
            statement(JUMP_IF_EQUAL, 0, 1, libc::SYS_bpf as u32),
            statement(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32),
            statement(RETURN, 0, 0, ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: two system calls; `program` and the filter it points to live until they return.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(filter) };
}

/// As on a kernel that was built without CONFIG_UPROBE_EVENTS: sysfs does not list that kind of perf event.
fn without_uprobes(command: &mut Command) {
    let hide = || {
        // SAFETY: system calls with constant strings.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/sys/bus/event_source/devices".as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    std::ptr::null(),
                ) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(hide) };
}

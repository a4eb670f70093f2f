//! QEMU: fetched, started, watched, and never left behind.
//!
//! In: a kernel image and an initramfs. Out: the lines of the guest's serial console and the exit status that the
//! guest's init printed there. QEMU itself exits with 0 whatever happened inside.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cache;
use super::debian::{self, Suite};
use crate::cross::Arch;

/// What init prints last (init.sh).
const SENTINEL: &str = "gotracer-vm: exit status ";
/// What init prints first.
const BOOTED: &str = "gotracer-vm: booted ";

/// Processors of a machine: each is a thread of QEMU's that is busy as long as the guest's is.
pub(super) const PROCESSORS: usize = 2;

/// A machine to be run once.
pub(crate) struct Machine<'a> {
    pub(crate) arch: Arch,
    pub(crate) kernel: &'a Path,
    /// The kernel is a program of the host.
    pub(crate) is_program: bool,
    pub(crate) initramfs: &'a Path,
    pub(crate) memory_mib: u32,
    pub(crate) kernel_parameters: &'a str,
    pub(crate) deadline: Duration,
}

/// How a machine's run ended.
pub(crate) struct Ending {
    /// What the guest's command returned.
    pub(crate) status: i32,
    /// The kernel's release, as `uname -r` says it.
    pub(crate) release: String,
    pub(crate) lines: Vec<String>,
    pub(crate) took: Duration,
}

impl Machine<'_> {
    /// Boots, hands each line of the console after init's start to `on_line`, and returns when the guest has powered off.
    ///
    /// # Errors
    ///
    /// When the guest says no exit status before it ends or the deadline passes.
    pub(crate) fn run(&self, mut on_line: impl FnMut(&str)) -> Result<Ending> {
        let start = Instant::now();
        let mut qemu = Running(self.command()?.spawn().context("cannot start QEMU")?);
        let (sender, receiver) = mpsc::channel();
        let console = qemu.0.stdout.take().context("QEMU has no stdout")?;
        let mut errors = qemu.0.stderr.take().context("QEMU has no stderr")?;
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut lines: Vec<String> = Vec::new();
        let mut release = None;
        loop {
            match receiver.recv_timeout(self.deadline.saturating_sub(start.elapsed())) {
                Ok(line) => {
                    // The firmware's screen codes stand before it, on the same line.
                    if let Some((_, rest)) = line.split_once(BOOTED) {
                        release = rest.split(' ').next().map(str::to_owned);
                    } else if let Some((_, rest)) = line.split_once(SENTINEL) {
                        let status = rest.trim().parse().context("init printed a bad exit status")?;
                        let release = release.context("init printed no release")?;
                        return Ok(Ending { status, release, lines, took: start.elapsed() });
                    } else if release.is_some() {
                        on_line(&line);
                    }
                    lines.push(line);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("no result within {} s; the console's last lines:\n{}", self.deadline.as_secs(), tail(&lines))
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let mut text = String::new();
                    errors.read_to_string(&mut text)?;
                    bail!("the machine ended without a result; the console's last lines:\n{}\n{text}", tail(&lines));
                }
            }
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = if self.is_program { self.program() } else { self.emulated()? };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // User-mode Linux is several processes: see `Running`.
        command.process_group(0);
        Ok(command)
    }

    /// User-mode Linux: its first console is our pipe.
    fn program(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.kernel);
        command.arg(format!("mem={}M", self.memory_mib)).arg(format!("initrd={}", self.initramfs.display()));
        command.args(["con=null", "con0=null,fd:1", "panic=-1", "loglevel=3", "umid=gotracer"]);
        command.args(self.kernel_parameters.split_whitespace());
        command
    }

    fn emulated(&self) -> Result<Command> {
        let qemu = Qemu::get()?;
        // The kernel ends QEMU with us, also when we are killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(qemu.folder.join(format!("usr/bin/qemu-system-{}", self.arch)));
        command.env("LD_LIBRARY_PATH", qemu.libraries());
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(qemu.folder.join(data));
        }
        // Pointer authentication with the architected cipher makes an emulated arm64 three times slower.
        let (machine, cpu, console) = match self.arch {
            Arch::Aarch64 => ("virt", "max,pauth-impdef=on", "ttyAMA0"),
            Arch::X86_64 => ("q35", "max", "ttyS0"),
        };
        command.args(["-M", machine, "-cpu", cpu, "-accel", qemu.acceleration, "-smp", &PROCESSORS.to_string()]);
        command.args(["-m", &self.memory_mib.to_string()]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        command.args(["-append", &format!("console={console} panic=-1 loglevel=3 {}", self.kernel_parameters)]);
        command.args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
        Ok(command)
    }
}

/// An emulator in the cache.
struct Qemu {
    folder: PathBuf,
    acceleration: &'static str,
}

impl Qemu {
    fn get() -> Result<Self> {
        // QEMU 7.2 with a thread per processor corrupts processes that have uprobes: wrong return addresses, SIGSEGV,
        // hangs. 10.0 does not. So Debian 12's own is passed over for the backported one.
        let release = debian::host_release()?;
        let suite = if release == "bookworm" { "bookworm-backports".to_owned() } else { release };
        let folder = cache::folder(&format!("vm/qemu-{suite}"), |folder| {
            let packages = [
                "qemu-system-x86",
                "qemu-system-arm",
                "qemu-system-common",
                "qemu-system-data",
                "seabios",
                "ipxe-qemu",
            ];
            Suite::open(&suite)?.unpack_with_missing_libraries(&packages.map(str::to_owned), folder)
        })?;
        Ok(Qemu { folder, acceleration: "tcg,thread=multi" })
    }

    /// Where the packages left shared libraries (those that lie in /lib have not moved to /usr/lib in Debian 12).
    fn libraries(&self) -> OsString {
        let places =
            ["usr/lib", "lib"].map(|place| self.folder.join(format!("{place}/{}-linux-gnu", env::consts::ARCH)));
        env::join_paths(places).unwrap_or_default()
    }
}

/// A process that is ended when we lose interest in it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A guest that has printed its status is about to power off: nothing in it is worth waiting for.
        // SAFETY: no memory of ours. The group is its own: `command` made it, and it has not been waited for.
        unsafe { libc::kill(-self.0.id().cast_signed(), libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(30)..].join("\n")
}

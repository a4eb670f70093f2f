//! What becomes of a recording when its writer is killed, the disk is full or slow, or the file is not what it should be?

use std::ffi::CString;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::child::{poll, poll_within};
use gotracer_tests::environment::{Skip, gotracer, require_root_and_bpf};
use libtest_mimic::Trial;

use super::newest;
use super::recording::{Recorder, convert, number, report, run, text};
use crate::executables::Folder;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("record::killed", killed),
        trial("record::reaches_the_disk", reaches_the_disk),
        trial("record::disk_full", disk_full),
        trial("record::slow_disk", slow_disk),
        trial("record::rotates", rotates),
        trial("record::max_size", max_size),
        trial("record::overwrites_nothing", overwrites_nothing),
        trial("record::refuses_what_is_no_recording", refuses),
    ]
}

fn program(name: &str, args: &[&str]) -> Result<Program> {
    require_root_and_bpf()?;
    Program::start(&Program::find(newest()?, "plain", name)?, args)
}

/// `kill -9`: all but the last second is there, and the program does not notice.
fn killed() -> Result<()> {
    for form in ["gtr", "jsonl", "jsonl.zst", "pftrace"] {
        let folder = Folder::new("record-killed")?;
        let file = folder.path(&format!("killed.{form}"));
        let mut program = program("tally", &[])?;
        let mut recorder = Recorder::start(program.pid(), &file, &[])?;
        program.send("go")?;
        let tally = program.tally()?;
        if form == "pftrace" {
            // Read by others; here it must be there.
            poll(|| Ok((fs::metadata(&file)?.len() > 10_000).then_some(())))?;
        } else {
            // On disk within a second or so, while it records on.
            poll(|| {
                let seen = report(&file).ok().and_then(|report| report["totals"]["created"].as_u64());
                Ok((seen == Some(tally.created)).then_some(()))
            })?;
        }
        recorder.child().signal(libc::SIGKILL)?;
        recorder.finish()?;
        program.quit_in_peace()?;
        if form == "pftrace" {
            continue;
        }
        let report = report(&file)?;
        ensure!(report["end"].is_null() && report["damages"] == serde_json::json!([]), "{report}");
        ensure!(number(&report["totals"]["exited"])? == tally.exited, "{report}");
        let told = run(&["report", &text(&file)])?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(told.contains("has no end"), "{told}");
        convert(&file, "back.gtr")?;
    }
    Ok(())
}

/// What was recorded is not only in the kernel's memory: within seconds the file has no page that the disk has not, while it is
/// being recorded. By itself the kernel would take half a minute.
fn reaches_the_disk() -> Result<()> {
    let folder = Folder::new("record-synced")?;
    let file = folder.path("synced.gtr");
    let mut program = program("tally", &[])?;
    let recorder = Recorder::start(program.pid(), &file, &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    poll(|| {
        let seen = report(&file).ok().and_then(|report| report["totals"]["created"].as_u64());
        Ok((seen == Some(tally.created)).then_some(()))
    })?;
    let there = fs::File::open(&file)?;
    if only_in_memory(&there)? {
        return Err(Skip(format!("{} is on no disk", file.display())).into());
    }
    poll_within(Duration::from_secs(20), || Ok((unwritten(&there)? == 0).then_some(())))
        .context("pages of the recording are not brought to the disk")?;
    recorder.stop()?.well()?;
    ensure!(unwritten(&there)? == 0, "the end of the recording was not brought to the disk");
    program.quit_in_peace()
}

fn only_in_memory(file: &fs::File) -> Result<bool> {
    // SAFETY: zeroes are a valid value of this struct of numbers.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct, which is ours, and the descriptor is open.
    let done = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut system) };
    ensure!(done == 0, "{}", std::io::Error::last_os_error());
    Ok(system.f_type == libc::TMPFS_MAGIC)
}

/// Pages of the file that are newer in memory than on disk, by `cachestat` (Linux 6.5 and later).
fn unwritten(file: &fs::File) -> Result<u64> {
    /// In all architectures: <https://github.com/torvalds/linux/blob/v6.5/include/uapi/asm-generic/unistd.h#L819-L820>.
    const CACHESTAT: libc::c_long = 451;
    // From the beginning, all of it.
    let range = [0_u64; 2];
    // Cached, dirty, under writeback, evicted, evicted lately.
    let mut pages = [0_u64; 5];
    // SAFETY: the kernel reads two numbers and writes five, both ours.
    let done = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Skip(format!("this kernel does not tell what is on disk: {error}")).into());
    }
    Ok(pages[1] + pages[2])
}

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn of(folder: &Folder, bytes: u64) -> Result<Self> {
        let path = folder.path("disk");
        fs::create_dir_all(&path)?;
        let target = CString::new(path.as_os_str().as_bytes())?;
        let options = CString::new(format!("size={bytes}"))?;
        // SAFETY: all are strings that end in 0 and live until the call is over.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
        ensure!(mounted == 0, "cannot mount a tmpfs: {}", std::io::Error::last_os_error());
        Ok(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.0.as_os_str().as_bytes()) {
            // SAFETY: a string that ends in 0.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// A full disk ends the recording, with exit code 1 and a file that can be read.
fn disk_full() -> Result<()> {
    for (form, bytes) in [("gtr", 4_800_000), ("jsonl", 6_000_000), ("parquet", 24_000_000)] {
        require_root_and_bpf()?;
        let folder = Folder::new("record-full")?;
        let disk = Disk::of(&folder, bytes)?;
        let file = disk.0.join(format!("full.{form}"));
        let mut program = program("pingpong", &["-pairs", "8"])?;
        let recorder = Recorder::start(program.pid(), &file, &[])?;
        program.send("go")?;
        if form == "parquet" {
            // It takes long to fill with what compresses well: somebody else fills it.
            poll(|| Ok((fs::metadata(&file)?.len() > 100_000).then_some(())))?;
            let mut other = fs::File::create(disk.0.join("other"))?;
            let block = vec![1; 1 << 16];
            while std::io::Write::write_all(&mut other, &block).is_ok() {}
        }
        let ended = recorder.finish()?;
        ensure!(ended.code == Some(1), "ended with {:?}: {:?}", ended.code, ended.said);
        let said = ended.said.join("\n");
        ensure!(said.contains("the disk is full") && said.contains(&text(&file)), "{said}");
        program.send("stop")?;
        program.tally()?;
        program.quit_in_peace()?;
        if form == "parquet" {
            parquet_is_whole(&file)?;
            parquet_is_whole(&file.with_extension("goroutines.parquet"))?;
            continue;
        }
        let report = report(&file)?;
        ensure!(report["end"]["why"] == "full" && report["damages"] == serde_json::json!([]), "{}", report["end"]);
        ensure!(report["end"]["events"] == report["totals"]["events"], "{}: {}", report["end"], report["totals"]);
        ensure!(number(&report["totals"]["events"])? > 1000, "{}", report["totals"]);
    }
    Ok(())
}

/// A Parquet file ends in its footer, its length and the magic.
fn parquet_is_whole(file: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    ensure!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{} is cut off", file.display());
    let footer = bytes.len().checked_sub(8).and_then(|at| bytes.get(at..at + 4)?.try_into().ok());
    let footer = u32::from_le_bytes(footer.context("too short")?) as usize;
    ensure!(footer > 0 && footer < bytes.len() - 12, "its footer of {footer} bytes is not in it");
    Ok(())
}

/// Nobody takes what is written: the program goes on all the same, and what was dropped is counted in the file.
fn slow_disk() -> Result<()> {
    let folder = Folder::new("record-slow")?;
    let file = folder.path("slow.jsonl");
    let name = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: a string that ends in 0.
    ensure!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) } == 0, "cannot make a pipe");
    // Held open by us, and not read.
    let mut pipe = fs::File::options().read(true).write(true).open(&file)?;
    let mut program = program("storm", &[])?;
    let recorder = Recorder::start(program.pid(), &file, &["--force"])?;
    program.send("go")?;
    // Three million events, and nobody reads one: it is through all the same.
    let tally = program.tally()?;
    let reader = std::thread::spawn(move || -> Result<Vec<u8>> {
        let (mut all, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            let len = pipe.read(&mut chunk)?;
            all.extend_from_slice(&chunk[..len]);
            // We hold it open for writing, too, so it has no end of its own.
            if all.ends_with(b"}\n") && last_line(&all).starts_with(b"{\"end\":") {
                return Ok(all);
            }
        }
    });
    let ended = recorder.stop()?;
    let all = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(ended.code == Some(0), "ended with {:?}: {:?}", ended.code, ended.said);
    let read = folder.path("read.jsonl");
    fs::write(&read, &all)?;
    let report = report(&read)?;
    let (totals, end) = (&report["totals"], &report["end"]);
    ensure!(end["events"] == totals["events"] && end["lost"] == totals["lost"], "{end}: {totals}");
    let (lost, events) = (number(&totals["lost"])?, number(&totals["events"])?);
    ensure!(lost > 0 && events > 100_000, "{totals}");
    // Each goroutine is created, runs and exits; it may park besides.
    ensure!(lost + events >= 3 * tally.created, "{} of {}", lost + events, 3 * tally.created);
    ensure!(ended.said.join("\n").contains(&format!("{lost} events LOST")), "{:?}", ended.said);
    program.quit_in_peace()
}

fn last_line(bytes: &[u8]) -> &[u8] {
    let body = &bytes[..bytes.len() - 1];
    let start = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &body[start..]
}

/// Several files, each complete on its own, only the newest kept.
fn rotates() -> Result<()> {
    let folder = Folder::new("record-rotates")?;
    let file = folder.path("row.gtr");
    let mut program = program("pingpong", &["-pairs", "4"])?;
    let recorder = Recorder::start(program.pid(), &file, &["--rotate", "60kB", "--keep", "3"])?;
    program.send("go")?;
    let files = || -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder.path(""))?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    };
    poll(|| Ok(folder.path("row-000006.gtr").exists().then_some(())))?;
    recorder.stop()?.well()?;
    program.send("stop")?;
    program.tally()?;
    program.quit_in_peace()?;
    let files = files()?;
    ensure!(files.len() == 3, "{files:?}");
    for (at, file) in files.iter().enumerate() {
        let report = report(file)?;
        let why = if at + 1 == files.len() { "detached" } else { "rotated" };
        ensure!(report["end"]["why"] == why && report["damages"] == serde_json::json!([]), "{}", report["end"]);
        ensure!(report["end"]["events"] == report["totals"]["events"], "{}: {}", report["end"], report["totals"]);
        // Who has lived for long is known in it, and named.
        let sites = report["sites"].as_array().context("no sites")?;
        let named = sites.iter().filter(|row| row["site"]["function"] == "main.main");
        let players: u64 = named.filter_map(|row| row["first_seen"].as_u64()).sum();
        ensure!(number(&report["totals"]["readings"])? >= 1, "{} has no reading", file.display());
        ensure!(players == 8, "{players} players in {}: {sites:?}", file.display());
    }
    Ok(())
}

fn max_size() -> Result<()> {
    let folder = Folder::new("record-max")?;
    let file = folder.path("max.jsonl");
    let mut program = program("pingpong", &["-pairs", "4"])?;
    let recorder = Recorder::start(program.pid(), &file, &["--max-size", "2MB"])?;
    program.send("go")?;
    let ended = recorder.finish()?.well()?;
    ensure!(ended.said.join("\n").contains("has the size that it may have"), "{:?}", ended.said);
    let (size, report) = (fs::metadata(&file)?.len(), report(&file)?);
    // By one batch more at most.
    ensure!((2_000_000..4_000_000).contains(&size) && report["end"]["why"] == "full", "{size}: {}", report["end"]);
    program.send("stop")?;
    program.tally()?;
    program.quit_in_peace()
}

/// One sentence, exit code 1 (2 for wrong usage), and the file as it was.
fn refused(args: &[&str], code: i32, words: &str) -> Result<()> {
    let output = Command::new(gotracer()?).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{args:?} ended with {}: {said}", output.status);
    ensure!(said.contains(words) && !said.contains("panicked"), "{args:?}: no {words:?} in {said}");
    ensure!(code == 2 || said.lines().count() <= 2, "{args:?}: not one sentence: {said}");
    ensure!(output.stdout.is_empty(), "{args:?}: on stdout: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn overwrites_nothing() -> Result<()> {
    let folder = Folder::new("record-refuses")?;
    let mut program = program("tally", &[])?;
    let pid = program.pid().to_string();
    let there = folder.path("there.gtr");
    fs::write(&there, "precious")?;
    let rotated = folder.path("row-000002.gtr");
    fs::write(&rotated, "precious")?;
    let beside = folder.path("two.goroutines.parquet");
    fs::write(&beside, "precious")?;
    let record = |file: &Path, more: &[&str], code: i32, words: &str| -> Result<()> {
        refused(&[&["record", "--pid", &pid, "-o", &text(file)], more].concat(), code, words)
    };
    record(&there, &[], 1, "--force")?;
    record(&folder.path("row.gtr"), &["--rotate", "1MB"], 1, "--force")?;
    record(&folder.path("two.parquet"), &[], 1, "--force")?;
    record(&folder.path("nowhere/a.gtr"), &[], 1, "cannot write")?;
    record(&folder.path("a.txt"), &[], 1, ".pftrace or .pb.gz")?;
    record(&folder.path("noextension"), &[], 1, "--format")?;
    record(&folder.path("a.gtr"), &["--keep", "3"], 2, "--rotate")?;
    record(&folder.path("a.gtr"), &["--max-size", "much"], 2, "is no size")?;
    for file in [&there, &rotated, &beside] {
        ensure!(fs::read(file)? == b"precious", "{} was overwritten", file.display());
    }
    ensure!(!folder.path("two.parquet").exists() && !folder.path("a.gtr").exists(), "something was left behind");
    // With --force it is replaced.
    let recorder = Recorder::start(program.pid(), &there, &["--force"])?;
    program.send("go")?;
    let tally = program.tally()?;
    recorder.stop()?.well()?;
    ensure!(number(&report(&there)?["totals"]["created"])? == tally.created);
    refused(&["convert", &text(&there), &text(&there), "--force"], 1, "into itself")?;
    refused(&["convert", &text(&there), &text(&beside)], 1, "--force")?;
    program.quit_in_peace()
}

fn refuses() -> Result<()> {
    let folder = Folder::new("record-foreign")?;
    let write = |name: &str, bytes: &[u8]| -> Result<String> {
        fs::write(folder.path(name), bytes)?;
        Ok(text(&folder.path(name)))
    };
    // Magic, version 9, its checksum.
    let newer = b"\x89GTR\r\n\x1a\n\x09\x00\x00\x00\x00\x00\x00\x00";
    let mut newer = newer.to_vec();
    let crc = crc32(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    for (file, words) in [
        (write("empty.gtr", b"")?, "empty"),
        (write("text.gtr", b"this is no recording")?, "no recording"),
        (write("forms.gtr", b"this is no recording")?, "what can be read is .gtr, .jsonl, .jsonl.zst"),
        (write("forms.jsonl", b"{\"level\":\"info\"}\n")?, "what can be read is .gtr, .jsonl, .jsonl.zst"),
        (write("events.parquet", b"PAR1 and columns PAR1")?, "Parquet, which gotracer writes and does not read"),
        (write("profile.pb.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])?, "a profile for go tool pprof"),
        (write("other.jsonl", b"{\"level\":\"info\"}\n")?, "no recording"),
        (write("zeros.gtr", &[0; 5000])?, "no recording"),
        (write("newer.gtr", &newer)?, "newer gotracer"),
        (text(&folder.path("missing.gtr")), "cannot open"),
        (text(&folder.path("")), "directory"),
        (text(&gotracer()?), "no recording"),
    ] {
        refused(&["report", &file], 1, words)?;
        let to = text(&folder.path("to.jsonl"));
        refused(&["convert", &file, &to], 1, words)?;
        ensure!(!Path::new(&to).exists(), "{to} was left behind");
        refused(&["leaks", &file], 1, words)?;
        refused(&["diff", &file, &file], 1, words)?;
    }
    // Where dumps are read, too, they are named.
    let file = write("forms.txt", b"neither recording nor dump")?;
    refused(&["leaks", &file], 1, "trace --json and dump --json print")?;
    refused(&["diff", &file, &file], 1, "trace --json and dump --json print")?;
    Ok(())
}

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

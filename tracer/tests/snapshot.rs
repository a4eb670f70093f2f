//! Snapshots of recorded memory: the same as of the live process, and harmless however the recording is damaged.

#[allow(dead_code)]
#[path = "binaries/build.rs"]
mod build;

use std::alloc::{GlobalAlloc, Layout as Size, System};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gotracer::go_runtime::Globals;
use gotracer::output::dump::{DumpFilter, Meta, View, groups, write_groups, write_json, write_sites, write_text};
use gotracer::output::{folded, pprof};
use gotracer::process::Process;
use gotracer::process::memory::{LiveMemory, MemoryError, MemoryImage, MemoryRange, ReadMemory, Recorder};
use gotracer::proof::{self, ProofError, Prover};
use gotracer::snapshot::{self, RuntimeStats, Snapshot, SnapshotError, Source, Symbols};
use gotracer::tracee::{LoadBias, Program};
use gotracer::units::{Pid, RemoteAddr};
use proptest::prelude::*;

/// Counts bytes, so that a test can say that there was no more.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands all to the system's allocator and counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, size: Size) -> *mut u8 {
        let now = NOW.fetch_add(size.size(), Ordering::Relaxed) + size.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as we were called.
        unsafe { System.alloc(size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, size: Size) {
        NOW.fetch_sub(size.size(), Ordering::Relaxed);
        // SAFETY: as we were called.
        unsafe { System.dealloc(pointer, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A program, the memory that a snapshot of it read, and that snapshot.
struct Recording {
    program: Program,
    globals: Globals,
    image: MemoryImage,
    live: String,
    /// How many goroutines a pass found unreachable.
    leaked: usize,
}

/// Only one test at a time: the allocator counts for all.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn recording() -> Option<&'static Recording> {
    static RECORDING: OnceLock<Option<Recording>> = OnceLock::new();
    RECORDING.get_or_init(record).as_ref()
}

fn record() -> Option<Recording> {
    let version = build::VERSIONS[build::VERSIONS.len() - 1];
    let go = build::toolchain(version)?;
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("snapshot");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("main.go"), include_str!("snapshot/main.go")).expect("the program can be written");
    fs::write(directory.join("go.mod"), "module example.com/waits\n\ngo 1.19\n").expect("the module can be written");
    let path = directory.join("waits");
    let mut build = Command::new(go);
    build
        .current_dir(&directory)
        .args(["build", "-o"])
        .arg(&path)
        .envs([("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]);
    if std::env::var_os("GOCACHE").is_none() {
        build.env("GOCACHE", directory.join("gocache"));
    }
    assert!(build.status().expect("go runs").success(), "the program is not built");
    let mut child =
        Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says READY");
    let process = Process::open(Pid(child.id())).expect("it runs");
    let program = Program::of(&process).expect("a Go program");
    let globals = Globals::of(&program.binary, &program.layout);
    let memory = LiveMemory::new(&process);
    let recorder = Recorder::new(&memory);
    let live = all_forms(&program, &globals, &recorder).expect("a snapshot");
    let leaked = prove(&program, &globals, &recorder).expect("a pass");
    let image = recorder.into_image();
    // Ends it: it reads its stdin.
    drop(child.stdin.take());
    child.wait().expect("it ends");
    Some(Recording { program, globals, image, live, leaked })
}

/// Takes a snapshot and writes it in every form there is; gives its text.
fn all_forms(program: &Program, globals: &Globals, memory: &dyn ReadMemory) -> Result<String, SnapshotError> {
    let bias = LoadBias::default();
    let (binary, layout) = (&*program.binary, &*program.layout);
    let source = Source { memory, binary, layout, globals, reasons: &program.wait_reasons, bias };
    let snapshot: Snapshot = snapshot::take(&source, snapshot::Options { threads: 2, arguments: true })?;
    let stats = RuntimeStats::read(&source, &snapshot);
    let view = View::new(&snapshot, Symbols::new(binary), &program.wait_reasons, bias);
    let all = view.select(&DumpFilter { system: true, ..DumpFilter::default() });
    let mut text = Vec::new();
    write_text(&mut text, &view, &all).expect("memory takes all");
    let meta = Meta { pid: None, exe: "waits", go_version: "", runtime: Some(&stats) };
    let mut rest = Vec::new();
    write_json(&mut rest, &view, &all, &meta).expect("memory takes all");
    write_sites(&mut rest, &view, &all).expect("memory takes all");
    let groups = groups(&view, &all);
    write_groups(&mut rest, &view, &groups).expect("memory takes all");
    folded::write_folded(&mut rest, &view, &groups).expect("memory takes all");
    let executable = pprof::Executable { name: "waits", build_id: "", start: 0, end: 0 };
    pprof::write_pprof(&mut rest, &view, &groups, executable).expect("memory takes all");
    Ok(String::from_utf8(text).expect("text"))
}

/// Does a pass; gives how many goroutines are unreachable.
fn prove(program: &Program, globals: &Globals, memory: &dyn ReadMemory) -> Result<usize, ProofError> {
    prove_within(program, globals, memory, Duration::from_secs(10), &AtomicBool::new(false))
}

fn prove_within(
    program: &Program,
    globals: &Globals,
    memory: &dyn ReadMemory,
    deadline: Duration,
    cancel: &AtomicBool,
) -> Result<usize, ProofError> {
    let (binary, layout) = (&*program.binary, &*program.layout);
    let bias = LoadBias::default();
    let source = Source { memory, binary, layout, globals, reasons: &program.wait_reasons, bias };
    let mut prover =
        Prover::new(&source, proof::Options { threads: 2, deadline, least_age: Duration::ZERO, seed: 7, cancel })?;
    prover.pass(&[], None, true)?;
    Ok(prover.leaks()?.len())
}

#[test]
fn a_pass_over_a_recording_proves_what_it_did_live() {
    let _alone = ALONE.lock();
    let Some(Recording { program, globals, image, leaked, .. }) = recording() else { return };
    assert_eq!(prove(program, globals, image).expect("a pass"), *leaked);
    assert_eq!(*leaked, 20, "each goroutine that has a channel of its own");
}

/// Memory of which some read, counted down, finds that somebody has cancelled.
struct Interrupted<'a> {
    image: &'a MemoryImage,
    left: AtomicUsize,
    cancel: &'a AtomicBool,
}

impl ReadMemory for Interrupted<'_> {
    fn fill(&self, ranges: &[MemoryRange], into: &mut [u8], missing: &mut Vec<usize>) -> Result<(), MemoryError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.store(true, Ordering::Relaxed);
        }
        self.image.fill(ranges, into, missing)
    }

    fn why_missing(&self, address: RemoteAddr) -> String {
        self.image.why_missing(address)
    }
}

#[test]
fn a_pass_that_is_cancelled_ends_and_says_so_wherever_it_is() {
    let _alone = ALONE.lock();
    let Some(Recording { program, globals, image, .. }) = recording() else { return };
    let reads = AtomicUsize::new(usize::MAX);
    let memory = Interrupted { image, left: reads, cancel: &AtomicBool::new(false) };
    prove(program, globals, &memory).expect("a pass");
    let reads = usize::MAX - memory.left.load(Ordering::Relaxed);
    assert!(reads > 10, "{reads} reads");
    // What is read behind the pass is not bounded, nor is the number of reads the same with two threads.
    for at in 1..reads / 2 {
        let cancel = AtomicBool::new(false);
        let memory = Interrupted { image, left: AtomicUsize::new(at), cancel: &cancel };
        let done = prove_within(program, globals, &memory, Duration::from_secs(10), &cancel);
        assert!(matches!(done, Err(ProofError::Cancelled)), "at read {at} of {reads}: {done:?}");
    }
    let late = prove_within(program, globals, image, Duration::ZERO, &AtomicBool::new(false));
    assert!(matches!(late, Err(ProofError::Deadline)), "{late:?}");
}

#[test]
fn a_recording_says_what_the_process_said() {
    let _alone = ALONE.lock();
    let Some(Recording { program, globals, image, live, .. }) = recording() else { return };
    let image = MemoryImage::parse(&image.to_bytes()).expect("its own form");
    let text = all_forms(program, globals, &image).expect("a snapshot");
    assert_eq!(text, *live);
    assert!(text.matches("main.wait(").count() == 40, "{text}");
    assert!(text.contains("panic({0x") && text.contains("frames elided"), "{text}");
}

#[test]
fn without_memory_it_says_what_is_missing() {
    let _alone = ALONE.lock();
    let Some(Recording { program, globals, .. }) = recording() else { return };
    let error = all_forms(program, globals, &MemoryImage::default()).expect_err("nothing is there");
    assert!(error.to_string().contains("no memory at 0x"), "{error}");
}

/// What is done to the recording.
#[derive(Clone, Debug)]
enum Damage {
    /// A word is replaced.
    Word(usize, u64),
    /// A word is replaced by one that stands elsewhere: a pointer that leads to the wrong place.
    Copied(usize, usize),
    /// Pages are gone.
    Gone(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 40), 0..1_000_000_u64, any::<u64>()];
    prop_oneof![
        4 => (any::<usize>(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(to, from)| Damage::Copied(to, from)),
        1 => (any::<usize>(), 1..5000_usize).prop_map(|(at, len)| Damage::Gone(at, len)),
    ]
}

/// All words of an image, as (region, offset).
fn word_at(image: &MemoryImage, at: usize) -> (usize, usize) {
    let sizes: Vec<usize> = image.regions().map(|(_, bytes)| bytes.len() / 8).collect();
    // Regions are of very different sizes, and the small ones matter most: choose a region, then a word of it.
    let region = at % sizes.len();
    (region, (at / sizes.len()) % sizes[region].max(1) * 8)
}

fn damaged(image: &MemoryImage, damages: &[Damage]) -> MemoryImage {
    let mut image = image.clone();
    for damage in damages {
        let read = |(region, at): (usize, usize)| {
            let (_, bytes) = image.regions().nth(region).expect("counted");
            bytes.get(at..at + 8).map(<[u8]>::to_vec)
        };
        match *damage {
            Damage::Word(at, word) => {
                let (region, at) = word_at(&image, at);
                if let Some(slot) = image.regions_mut().nth(region).and_then(|(_, bytes)| bytes.get_mut(at..at + 8)) {
                    slot.copy_from_slice(&word.to_le_bytes());
                }
            }
            Damage::Copied(to, from) => {
                let Some(word) = read(word_at(&image, from)) else { continue };
                let (region, at) = word_at(&image, to);
                if let Some(slot) = image.regions_mut().nth(region).and_then(|(_, bytes)| bytes.get_mut(at..at + 8)) {
                    slot.copy_from_slice(&word);
                }
            }
            Damage::Gone(at, len) => {
                let (gone, start) = word_at(&image, at);
                let mut rest = MemoryImage::default();
                for (i, (address, bytes)) in image.regions().enumerate() {
                    let (first, last) = if i == gone { (start, start.saturating_add(len)) } else { (0, 0) };
                    rest.insert(address, bytes.get(..first).unwrap_or_default());
                    let last = last.min(bytes.len());
                    rest.insert(RemoteAddr(address.0 + last as u64), &bytes[last..]);
                }
                image = rest;
            }
        }
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No panic, no hang, no memory beyond a bound, whatever the target's memory holds.
    #[test]
    fn damaged_memory_does_no_harm(damages in prop::collection::vec(damage(), 1..40)) {
        let _alone = ALONE.lock();
        let Some(Recording { program, globals, image, .. }) = recording() else { return Ok(()) };
        let image = damaged(image, &damages);
        let (before, began) = (NOW.load(Ordering::Relaxed), Instant::now());
        PEAK.store(before, Ordering::Relaxed);
        // An error is as good as a snapshot.
        let _ = all_forms(program, globals, &image);
        let (took, peak) = (began.elapsed(), PEAK.load(Ordering::Relaxed).saturating_sub(before));
        prop_assert!(took < Duration::from_secs(20), "took {took:?}");
        prop_assert!(peak < 300 << 20, "{peak} bytes");
    }

    /// The same for proofs.
    #[test]
    fn damaged_memory_does_no_harm_to_a_pass(damages in prop::collection::vec(damage(), 1..40)) {
        let _alone = ALONE.lock();
        let Some(Recording { program, globals, image, .. }) = recording() else { return Ok(()) };
        let image = damaged(image, &damages);
        let (before, began) = (NOW.load(Ordering::Relaxed), Instant::now());
        PEAK.store(before, Ordering::Relaxed);
        let _ = prove(program, globals, &image);
        let (took, peak) = (began.elapsed(), PEAK.load(Ordering::Relaxed).saturating_sub(before));
        prop_assert!(took < Duration::from_secs(20), "took {took:?}");
        prop_assert!(peak < 300 << 20, "{peak} bytes");
    }
}

//! Evidence: what a process looked like when its alarm fired, on disk before anything else is done.
//!
//! In: what the agent knows, and the process's memory. Out: a folder that was written, synced, and read back. It is put
//! together under another name and renamed when it is whole, so that whatever has a folder's name is complete, also after a
//! `kill -9`. All folders together keep below a bound; the oldest go first.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::circuit_breaker::incident::{Done, Incident};
use super::config::{Alarm, Evidence};
use super::reading::{Subject, with_source};
use super::verdicts::Outcome;
use super::watch::series::Point;
use crate::analysis::Finding;
use crate::output::dump::{DumpFilter, View, groups, write_text};
use crate::output::{pprof, proof};
use crate::snapshot::{self, Symbols};
use crate::tracee::Tracee;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system is full.
    #[error("{path} has {free} bytes free, and [evidence] min_free leaves {min_free}")]
    Full {
        /// The folder.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What is to stay free.
        min_free: u64,
    },
    /// It is larger than all evidence may be.
    #[error("{bytes} bytes are more than [evidence] max_size, {max_size}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// What is allowed.
        max_size: u64,
    },
    /// What was read back is not what was written.
    #[error("{path} does not read back as it was written: {why}")]
    Verify {
        /// The file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// The thread that writes.
    #[error("the writer of evidence ended badly: {0}")]
    Thread(String),
}

/// What goes into it.
pub struct Material {
    /// What fired.
    pub incident: Incident,
    /// By which alarm.
    pub alarm: Alarm,
    /// When.
    pub at: SystemTime,
    /// The process.
    pub tracee: Arc<Tracee>,
    /// How to read its memory.
    pub subject: Option<Subject>,
    /// The last minutes of its events.
    pub recording: Result<Vec<u8>, String>,
    /// The last hour in figures.
    pub series: Vec<Point>,
    /// What is suspected.
    pub findings: Vec<Finding>,
    /// What is proven.
    pub proof: Option<(u64, Outcome)>,
    /// Where, and how much.
    pub config: Evidence,
}

/// One file of a folder, in its `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of its content.
    pub crc32: u32,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    files: Vec<Listed>,
    /// What should be there and is not, and why.
    missing: Vec<String>,
}

const PARTIAL: &str = ".partial-";
const MANIFEST: &str = "manifest.json";

/// Writes a folder of evidence; gives its path.
///
/// # Errors
///
/// If it cannot be written whole; then nothing is left of it.
pub fn write(material: &Material) -> Result<PathBuf, EvidenceError> {
    let directory = &material.config.directory;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| EvidenceError::Io { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
    let (files, missing) = gather(material);
    let manifest = Manifest { files: files.iter().map(|(name, bytes)| listed(name, bytes)).collect(), missing };
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from).map_err(at(directory))?;
    let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() + manifest.len() as u64;
    make_room(&material.config, bytes)?;

    let name = name(material);
    let partial = directory.join(format!("{PARTIAL}{name}"));
    let written = (|| {
        fs::DirBuilder::new().mode(0o700).create(&partial).map_err(at(&partial))?;
        for (file, bytes) in files.iter().map(|(name, bytes)| (*name, bytes)).chain([(MANIFEST, &manifest)]) {
            let path = partial.join(file);
            write_file(&path, bytes).map_err(at(&path))?;
        }
        sync(&partial).map_err(at(&partial))?;
        drop(files);
        verify(&partial)?;
        // Two alarms of one process in one second.
        let whole = (0..100)
            .map(|n| if n == 0 { directory.join(&name) } else { directory.join(format!("{name}-{n}")) })
            .find(|path| !path.exists())
            .unwrap_or_else(|| directory.join(&name));
        fs::rename(&partial, &whole).map_err(at(&whole))?;
        sync(directory).map_err(at(directory))?;
        Ok(whole)
    })();
    if written.is_err() {
        // What is left of it is no evidence.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

/// Adds what was done to a folder that is whole.
///
/// # Errors
///
/// If it cannot be written.
pub fn note_actions(folder: &Path, done: &[Done]) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(done)?;
    let partial = folder.join(".actions.json");
    write_file(&partial, &bytes)?;
    fs::rename(&partial, folder.join("actions.json"))?;
    sync(folder)
}

/// Removes what an agent left that was killed while it wrote.
///
/// # Errors
///
/// If the folder is there and cannot be read.
pub fn clean(directory: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(PARTIAL.as_bytes()) {
            fs::remove_dir_all(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Reads a folder back: every file of the manifest is there and as it was.
///
/// # Errors
///
/// If one is not.
pub fn verify(folder: &Path) -> Result<Vec<Listed>, EvidenceError> {
    let wrong = |path: &Path, why: String| EvidenceError::Verify { path: path.to_owned(), why };
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| wrong(&path, error.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(&path, error.to_string()))?;
    for expected in &manifest.files {
        let path = folder.join(&expected.file);
        let found = checksum(&path).map_err(|error| wrong(&path, error.to_string()))?;
        if found != (expected.bytes, expected.crc32) {
            return Err(wrong(&path, format!("{found:?} instead of {:?}", (expected.bytes, expected.crc32))));
        }
    }
    Ok(manifest.files)
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    // What we have just written is read from the disk, as far as the kernel can be asked for that.
    // SAFETY: an open descriptor; an advice, which changes no memory.
    unsafe { libc::posix_fadvise(std::os::fd::AsRawFd::as_raw_fd(&file), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let (mut crc, mut buffer, mut bytes) = (Crc::new(), vec![0; 64 << 10], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, crc.sum())),
            n => {
                crc.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn listed(name: &str, bytes: &[u8]) -> Listed {
    let mut crc = Crc::new();
    crc.update(bytes);
    Listed { file: name.to_owned(), bytes: bytes.len() as u64, crc32: crc.sum() }
}

/// Sorts as it happened: `20261123T184512Z-goroutines-shop-4711`.
fn name(material: &Material) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let process: String = material.incident.process.process.chars().filter(|c| fits(*c)).take(64).collect();
    let pid = material.incident.process.pid;
    format!("{}-{}-{process}-{pid}", timestamp(material.at), material.incident.alarm)
}

/// `20261123T184512Z`.
fn timestamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let time = seconds as libc::time_t;
    // SAFETY: zeros are a valid tm, which the call fills in; both pointers live through it.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&raw const time, &raw mut tm);
        tm
    };
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// All that there is, and what is missing.
fn gather(material: &Material) -> (Files, Vec<String>) {
    let (mut files, mut missing): (Files, Vec<String>) = (Vec::new(), Vec::new());
    let incident = serde_json::json!({ "incident": material.incident, "alarm": material.alarm });
    let json = |value: &serde_json::Value| format!("{value:#}\n").into_bytes();
    files.push(("alarm.json", json(&incident)));
    files.push(("findings.json", json(&serde_json::json!({ "findings": material.findings }))));
    let mut series = Vec::new();
    for point in &material.series {
        if serde_json::to_writer(&mut series, point).is_ok() {
            series.push(b'\n');
        }
    }
    files.push(("series.jsonl", series));
    match &material.proof {
        Some((unix_ms, Ok(report))) => {
            files.push(("proof.json", json(&serde_json::json!({ "unix_ms": unix_ms, "report": **report }))));
            let mut text = Vec::new();
            match proof::write_text(&mut text, report, proof::SITES) {
                Ok(()) => files.push(("proof.txt", text)),
                Err(error) => missing.push(format!("proof.txt: {error}")),
            }
        }
        Some((_, Err(why))) => missing.push(format!("proof.json, proof.txt: {why}")),
        None => missing.push("proof.json, proof.txt: it was not this process's turn yet ([proof])".into()),
    }
    match &material.recording {
        Ok(bytes) if !bytes.is_empty() => files.push(("events.gtr", bytes.clone())),
        Ok(_) => {
            missing.push("events.gtr: the flight recorder keeps nothing ([flight_recorder] memory = \"0\")".into())
        }
        Err(why) => missing.push(format!("events.gtr: {why}")),
    }
    match dumps(material) {
        Ok((text, pprof)) => {
            files.push(("goroutines.txt", text));
            files.push(("goroutines.pb.gz", pprof));
        }
        Err(why) => missing.push(format!("goroutines.txt, goroutines.pb.gz: {why}")),
    }
    (files, missing)
}

fn dumps(material: &Material) -> Result<(Vec<u8>, Vec<u8>), String> {
    let subject = material.subject.as_ref().ok_or("it is not known where the program is loaded")?;
    with_source(material.tracee.process(), subject, |source| {
        let snapshot = snapshot::take(source, snapshot::Options::default()).map_err(|error| error.to_string())?;
        let program = &subject.program;
        let view = View::new(&snapshot, Symbols::new(&program.binary), &program.wait_reasons, subject.bias);
        let selected = view.select(&DumpFilter::default());
        // Half of what all evidence may take: of a million goroutines the text is cut, and the profile has them all.
        let mut text = Bounded { bytes: Vec::new(), most: (material.config.max_size.0 / 2) as usize, cut: false };
        write_text(&mut text, &view, &selected).map_err(|error| error.to_string())?;
        if text.cut {
            text.bytes.extend_from_slice(b"\n(cut off: [evidence] max_size)\n");
        }
        let (mut profile, executable) = (Vec::new(), pprof::Executable::of(program, subject.bias));
        pprof::write_pprof(&mut profile, &view, &groups(&view, &selected), executable)
            .map_err(|error| error.to_string())?;
        Ok((text.bytes, profile))
    })
}

/// Takes bytes up to a bound and drops the rest.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    cut: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() <= self.most && !self.cut {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.cut = true;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes the oldest folders until `bytes` more fit.
fn make_room(config: &Evidence, bytes: u64) -> Result<(), EvidenceError> {
    let at = |source| EvidenceError::Io { path: config.directory.clone(), source };
    if bytes > config.max_size.0 {
        return Err(EvidenceError::TooLarge { bytes, max_size: config.max_size.0 });
    }
    let mut folders: Vec<(PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(&config.directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        // Only what is ours: a folder with a manifest.
        let path = entry.path();
        if path.join(MANIFEST).is_file() && !entry.file_name().as_bytes().starts_with(b".") {
            let size = size_of_folder(&path);
            folders.push((path, size));
        }
    }
    folders.sort();
    let mut total: u64 = folders.iter().map(|(_, size)| size).sum();
    let mut oldest = folders.into_iter();
    loop {
        let free = free_bytes(&config.directory).map_err(at)?;
        let full = free < config.min_free.0.saturating_add(bytes);
        if !full && total + bytes <= config.max_size.0 {
            return Ok(());
        }
        let Some((folder, size)) = oldest.next() else {
            return Err(EvidenceError::Full { path: config.directory.clone(), free, min_free: config.min_free.0 });
        };
        log::warn!("{} is removed to make room for newer evidence", folder.display());
        fs::remove_dir_all(&folder).map_err(at)?;
        total -= size;
    }
}

fn size_of_folder(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: zeros are a valid statvfs, which the call fills in.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string with its end, and a statvfs to write to.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail as u64 * stat.f_frsize as u64)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a folder last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gotracer-evidence-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    fn put(directory: &Path, name: &str, bytes: usize) {
        let path = directory.join(name);
        fs::create_dir(&path).expect("a folder");
        let content = vec![7; bytes];
        let manifest = Manifest { files: vec![listed("a", &content)], missing: Vec::new() };
        write_file(&path.join("a"), &content).expect("writes");
        write_file(&path.join(MANIFEST), &serde_json::to_vec(&manifest).expect("JSON")).expect("writes");
    }

    fn left(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("there").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_changed_byte_is_found() {
        let directory = folder("verify");
        put(&directory, "x", 100);
        assert_eq!(verify(&directory.join("x")).expect("whole").len(), 1);
        fs::write(directory.join("x/a"), [vec![7; 99], vec![8]].concat()).expect("writes");
        assert!(matches!(verify(&directory.join("x")), Err(EvidenceError::Verify { .. })));
        fs::remove_file(directory.join("x/a")).expect("removes");
        assert!(matches!(verify(&directory.join("x")), Err(EvidenceError::Verify { .. })));
        fs::remove_dir_all(directory).expect("removes");
    }

    #[test]
    fn the_oldest_make_room_and_what_is_not_ours_stays() {
        let directory = folder("room");
        for name in ["1", "2", "3"] {
            put(&directory, name, 1000);
        }
        fs::create_dir(directory.join("0-not-ours")).expect("a folder");
        let config = Evidence {
            directory: directory.clone(),
            max_size: crate::agent::config::Size(3500),
            min_free: crate::agent::config::Size(0),
            ..Evidence::default()
        };
        make_room(&config, 1000).expect("two are enough");
        assert_eq!(left(&directory), ["0-not-ours", "2", "3"]);
        assert!(matches!(make_room(&config, 5000), Err(EvidenceError::TooLarge { .. })));
        let full = Evidence { min_free: crate::agent::config::Size(u64::MAX), ..config };
        assert!(matches!(make_room(&full, 1), Err(EvidenceError::Full { .. })));
        fs::remove_dir_all(directory).expect("removes");
    }

    #[test]
    fn what_a_killed_agent_left_is_removed() {
        let directory = folder("clean");
        put(&directory, "1", 10);
        put(&directory, ".partial-2", 10);
        assert_eq!(clean(&directory).expect("cleans"), 1);
        assert_eq!(left(&directory), ["1"]);
        assert_eq!(clean(Path::new("/nonexistent/evidence")).expect("nothing there"), 0);
        fs::remove_dir_all(directory).expect("removes");
    }

    #[test]
    fn names_sort_by_time() {
        assert_eq!(timestamp(UNIX_EPOCH + std::time::Duration::from_secs(1_795_459_512)), "20261123T184512Z");
    }
}

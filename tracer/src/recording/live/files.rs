//! Files that can be read whatever happens to who writes them.
//!
//! In: bytes that make a whole file up to there. Out: files. Space for the end is reserved ahead, so that a disk that fills
//! up leaves a file with its end, and some of the disk to the others; what is written only in part is taken back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::recording::Parts;

/// Kept free in each file, beside what the encoder wants for its end: more than it makes of one batch.
const RESERVE: u64 = 4 << 20;
/// Reserved at a time, so that not each batch asks the file system.
const STEP: u64 = 4 << 20;

/// Where a recording goes.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The file.
    pub main: PathBuf,
    /// The one beside it, for forms that have two.
    pub beside: Option<PathBuf>,
    /// Whether files that are there may be replaced.
    pub force: bool,
}

/// How large a recording may get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// It ends at so many bytes, all files together.
    pub max_size: Option<u64>,
    /// A new file is begun at so many bytes.
    pub rotate: Option<u64>,
    /// So many files are kept, the newest.
    pub keep: Option<usize>,
}

/// Why a recording cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Nothing is overwritten unasked.
    #[error("{path} exists; with --force it is replaced")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be created.
    #[error("cannot write {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start a thread for the recording")]
    Thread(#[source] io::Error),
}

/// The files of a recording.
pub(super) struct Files {
    paths: Paths,
    limits: Limits,
    main: Growing,
    beside: Option<Growing>,
    /// The number of this file, from 1, where there are several.
    number: u64,
    /// Of the files before.
    bytes_before: u64,
    done: Vec<(PathBuf, Option<PathBuf>)>,
    /// Files, and the folder that has a new name in it, that were not given to [`Files::take_unsynced`] yet.
    ended: Vec<File>,
    named: bool,
}

impl Files {
    pub(super) fn create(paths: Paths, limits: Limits) -> Result<Self, FilesError> {
        let number = u64::from(limits.rotate.is_some());
        let (main, beside) = (numbered(&paths.main, number), paths.beside.as_ref().map(|path| numbered(path, number)));
        // Both or none, so that nothing is left of what cannot be.
        for path in [Some(&main), beside.as_ref()].into_iter().flatten() {
            if !paths.force && path.symlink_metadata().is_ok() {
                return Err(FilesError::Exists { path: path.clone() });
            }
        }
        if number > 0 {
            for path in [Some(&paths.main), paths.beside.as_ref()].into_iter().flatten() {
                make_way(path, paths.force)?;
            }
        }
        let main = Growing::create(&main, paths.force)?;
        let beside = match beside.map(|path| Growing::create(&path, paths.force)).transpose() {
            Ok(beside) => beside,
            Err(error) => {
                let _ = std::fs::remove_file(&main.path);
                return Err(error);
            }
        };
        Ok(Self {
            paths,
            limits,
            main,
            beside,
            number,
            bytes_before: 0,
            done: Vec::new(),
            ended: Vec::new(),
            named: false,
        })
    }

    /// Why the file could not be begun.
    pub(super) fn failed(&self, source: io::Error) -> FilesError {
        FilesError::Create { path: self.main.path.clone(), source }
    }

    /// Sees to it that what comes next, and the end, has space: `end` bytes and some.
    pub(super) fn reserve(&mut self, end: usize) -> io::Result<()> {
        let wanted = RESERVE + end as u64;
        self.main.reserve(wanted)?;
        match &mut self.beside {
            Some(beside) => beside.reserve(wanted),
            None => Ok(()),
        }
    }

    /// Writes the bytes, all of them or none.
    pub(super) fn write(&mut self, parts: &mut Parts) -> io::Result<()> {
        self.main.write(&parts.main)?;
        parts.main.clear();
        if let Some(beside) = &mut self.beside {
            beside.write(&parts.beside)?;
        }
        parts.beside.clear();
        Ok(())
    }

    /// Writes the last bytes, and gives back what was reserved and not used.
    pub(super) fn finish(&mut self, parts: &mut Parts) -> io::Result<()> {
        self.write(parts)?;
        self.main.finish();
        if let Some(beside) = &mut self.beside {
            beside.finish();
        }
        Ok(())
    }

    /// Takes this file away again.
    pub(super) fn remove(&self) {
        for file in [Some(&self.main), self.beside.as_ref()].into_iter().flatten() {
            // What cannot be removed stays; the failure that led here is told.
            let _ = std::fs::remove_file(&file.path);
        }
    }

    /// The next file of several.
    pub(super) fn next(&mut self) -> io::Result<()> {
        self.bytes_before = self.bytes();
        self.number += 1;
        let create = |path: &PathBuf| {
            let path = numbered(path, self.number);
            let created = Growing::create(&path, self.paths.force);
            created.map_err(|error| match error {
                FilesError::Create { source, .. } => source,
                other => io::Error::new(io::ErrorKind::AlreadyExists, other.to_string()),
            })
        };
        let main = create(&self.paths.main)?;
        let beside = self.paths.beside.as_ref().map(create).transpose()?;
        for file in [Some(&self.main), self.beside.as_ref()].into_iter().flatten() {
            self.ended.push(file.file.try_clone()?);
        }
        self.named = false;
        let main = std::mem::replace(&mut self.main, main);
        let beside = std::mem::replace(&mut self.beside, beside);
        self.done.push((main.path.clone(), beside.map(|file| file.path.clone())));
        // This one counts.
        while self.limits.keep.is_some_and(|keep| self.done.len() >= keep.max(1)) {
            let (main, beside) = self.done.remove(0);
            // Gone already is as good.
            let _ = std::fs::remove_file(main);
            if let Some(beside) = beside {
                let _ = std::fs::remove_file(beside);
            }
        }
        Ok(())
    }

    /// All that is to be brought to disk: the files that were written to since this was last asked, and their folder where
    /// it has a new name in it.
    pub(super) fn take_unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files = std::mem::take(&mut self.ended);
        for file in [Some(&self.main), self.beside.as_ref()].into_iter().flatten() {
            files.push(file.file.try_clone()?);
        }
        if !std::mem::replace(&mut self.named, true) {
            // One that may be written to and not read keeps its names by itself.
            files.extend(File::open(folder_of(&self.paths.main)));
        }
        Ok(files)
    }

    /// Bytes written, in all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_before + self.this_one()
    }

    fn this_one(&self) -> u64 {
        self.main.written + self.beside.as_ref().map_or(0, |file| file.written)
    }

    /// Whether nothing was written in part only.
    pub(super) fn is_whole(&self) -> bool {
        !self.main.broken && !self.beside.as_ref().is_some_and(|file| file.broken)
    }

    pub(super) fn is_at_max_size(&self) -> bool {
        self.limits.max_size.is_some_and(|most| self.bytes() >= most)
    }

    /// Whether this file is large enough. One without a reading of all goroutines tells little, and a reading belongs to
    /// one file: until it has come the file may become ten times as large.
    pub(super) fn is_to_rotate(&self, has_reading: bool) -> bool {
        let times = if has_reading { 1 } else { 10 };
        self.limits.rotate.is_some_and(|most| self.this_one() >= most.saturating_mul(times))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The files of an earlier recording that went over several: all of them make way, or none.
fn make_way(path: &Path, force: bool) -> Result<(), FilesError> {
    let folder = folder_of(path);
    // A folder that cannot be read is complained of when the file is created.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.path();
        let number = found.file_name().and_then(|name| number_in(path, &name.to_string_lossy()));
        let is_ours = number.is_some();
        if is_ours && !force {
            return Err(FilesError::Exists { path: found });
        }
        if is_ours {
            std::fs::remove_file(&found).map_err(|source| FilesError::Create { path: found, source })?;
        }
    }
    Ok(())
}

/// `name.gtr` is the first of `name-000001.gtr`, `name-000002.gtr`, ...; 0 is `name.gtr` itself.
fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = split(&name);
    path.with_file_name(format!("{stem}-{number:06}{extension}"))
}

/// The number of a file of the row that `path` names.
fn number_in(path: &Path, name: &str) -> Option<u64> {
    let whole = path.file_name()?.to_string_lossy();
    let (stem, extension) = split(&whole);
    let digits = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(extension)?;
    let is_number = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// A name up to its first dot, and from there on: .jsonl.zst has two.
fn split(name: &str) -> (&str, &str) {
    match name.get(1..).and_then(|rest| rest.find('.')) {
        Some(dot) => name.split_at(dot + 1),
        None => (name, ""),
    }
}

/// A file that grows.
struct Growing {
    path: PathBuf,
    file: File,
    written: u64,
    /// The file system has promised space up to here.
    reserved: u64,
    /// It does not make promises.
    promises: bool,
    /// A write failed behind bytes of which the encoder thinks that they are there.
    broken: bool,
}

impl Growing {
    fn create(path: &Path, force: bool) -> Result<Self, FilesError> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644);
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => FilesError::Exists { path: path.to_owned() },
            _ => FilesError::Create { path: path.to_owned(), source },
        })?;
        Ok(Self { path: path.to_owned(), file, written: 0, reserved: 0, promises: true, broken: false })
    }

    fn reserve(&mut self, wanted: u64) -> io::Result<()> {
        let until = self.written.saturating_add(wanted);
        if !self.promises || until <= self.reserved {
            return Ok(());
        }
        let mut error = self.allocate(until.saturating_add(STEP));
        if matches!(&error, Err(error) if error.kind() == io::ErrorKind::StorageFull) {
            error = self.allocate(until);
        }
        match error {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
            // A pipe, or a file system that cannot: then a full disk is noticed when it is.
            Err(_) => {
                self.promises = false;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn allocate(&mut self, until: u64) -> io::Result<()> {
        let len = until.saturating_sub(self.written);
        self.fallocate(libc::FALLOC_FL_KEEP_SIZE, len)?;
        self.reserved = until;
        Ok(())
    }

    fn fallocate(&self, mode: libc::c_int, len: u64) -> io::Result<()> {
        let (from, len) = (self.written as libc::off_t, len as libc::off_t);
        // SAFETY: takes numbers only, and the descriptor is open for as long as `self.file` lives.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), mode, from, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.broken = true;
            // What is there in part is of no use to a reader.
            let _ = self.file.set_len(self.written);
            return Err(error);
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) {
        if self.reserved > self.written {
            let len = self.reserved - self.written;
            // Where that does not work, the file keeps some blocks more than it needs.
            let _ = self.fallocate(libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE, len);
            let _ = self.file.set_len(self.written);
            self.reserved = self.written;
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_row_are_numbered_before_the_extension() {
        let number = |path: &str| numbered(Path::new(path), 7).display().to_string();
        assert_eq!(number("/tmp/a.gtr"), "/tmp/a-000007.gtr");
        assert_eq!(number("a.jsonl.zst"), "a-000007.jsonl.zst");
        assert_eq!(number(".hidden"), ".hidden-000007");
        assert_eq!(number("plain"), "plain-000007");
        assert_eq!(numbered(Path::new("a.gtr"), 0), Path::new("a.gtr"));
        let found = |name: &str| number_in(Path::new("/tmp/a.jsonl.zst"), name);
        assert_eq!(found("a-000007.jsonl.zst"), Some(7));
        for other in ["a.jsonl.zst", "a-7.jsonl.zst", "a-000007.gtr", "ab-000007.jsonl.zst", "a-+00007.jsonl.zst"] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}

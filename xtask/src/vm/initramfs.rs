//! The guest's whole file system: a cpio archive ("newc") of busybox, an init script and what is to be run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache;
use super::debian::Suite;
use crate::cross::Arch;

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An initramfs being put together. It is left uncompressed: inflating costs an emulated machine more than reading.
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    entries: u32,
    folders: Vec<PathBuf>,
}

impl Initramfs {
    /// Busybox and init, which runs `script` with sh.
    pub(crate) fn new(arch: Arch, script: &str) -> Result<Self> {
        let mut rd = Initramfs { archive: Vec::new(), entries: 0, folders: Vec::new() };
        for folder in ["bin", "dev", "etc", "lib", "proc", "root", "sys", "tmp", "var"] {
            rd.folder(Path::new(folder));
        }
        // The kernel gives init its standard streams from this node, before anything is mounted.
        rd.entry(Path::new("dev/console"), CHARACTER_DEVICE | 0o600, (5, 1), &[]);
        rd.file("bin/busybox", &fs::read(busybox(arch)?)?, true);
        rd.file("init", include_bytes!("init.sh"), true);
        rd.file("run.sh", script.as_bytes(), false);
        rd.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", false);
        rd.file("etc/hosts", b"127.0.0.1 localhost guest\n", false);
        Ok(rd)
    }

    /// Adds a file and the folders above it.
    pub(crate) fn file(&mut self, path: &str, content: &[u8], executable: bool) {
        let mode = if executable { 0o755 } else { 0o644 };
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.entry(path, FILE | mode, (0, 0), content);
    }

    /// Adds a file of the host, or a folder and all in it.
    pub(crate) fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let metadata = fs::symlink_metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        if metadata.is_symlink() {
            let target = fs::read_link(from)?;
            self.entry(Path::new(to), SYMLINK | 0o777, (0, 0), target.as_os_str().as_encoded_bytes());
        } else if metadata.is_dir() {
            self.folder(Path::new(to));
            let mut entries = fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self.copy(&entry.path(), &format!("{to}/{}", entry.file_name().to_string_lossy()))?;
            }
        } else {
            self.file(to, &fs::read(from)?, metadata.permissions().mode() & 0o100 != 0);
        }
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.archive
    }

    fn folder(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.folders.iter().any(|known| known == path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.folders.push(path.to_path_buf());
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// One record: a header of hexadecimal fields, the name, the content, each padded to 4 bytes.
    /// <https://www.kernel.org/doc/Documentation/early-userspace/buffer-format.txt>
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = path.as_os_str().as_encoded_bytes();
        let links = if mode & 0o170_000 == FOLDER { 2 } else { 1 };
        let (no_owner, no_time, no_device, no_sum) = (0, 0, 0, 0);
        let fields = [
            self.entries,
            mode,
            no_owner,
            no_owner,
            links,
            no_time,
            content.len() as u32,
            no_device,
            no_device,
            device.0,
            device.1,
            name.len() as u32 + 1,
            no_sum,
        ];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name);
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

fn busybox(arch: Arch) -> Result<PathBuf> {
    let folder = cache::folder(&format!("vm/busybox-{arch}"), |folder| {
        Suite::open("bookworm")?.unpack(&[format!("busybox-static:{}", arch.debian())], folder)
    })?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
    places.into_iter().find(|place| place.exists()).context("Debian's busybox-static has no busybox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_padded_and_folders_come_first_and_once() {
        let mut rd = Initramfs { archive: Vec::new(), entries: 0, folders: Vec::new() };
        rd.file("a/b/one", b"12345", true);
        rd.file("a/b/two", b"", false);
        let archive = rd.finish();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        let names: Vec<&str> =
            text.split("070701").skip(1).map(|record| record[104..].split('\0').next().unwrap_or("")).collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }
}

//! Which Debian package holds the kernel to boot, and its image in the cache.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::cache;
use super::debian::Suite;
use crate::cross::Arch;
use crate::toolchains::install_debian_packages;
use crate::workspace::{self, output};

/// A line of kernels that we promise to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 11's.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
    /// The newest that any suite carries.
    Newest,
    /// With pages of 16 KiB (arm64).
    #[value(name = "16k")]
    Pages16k,
    /// User-mode Linux, a kernel without perf events and uprobes that runs as a process (x86_64)
    #[value(name = "uml")]
    UserMode,
}

/// A bootable kernel image and the package it came from.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) package: String,
}

impl Kernel {
    /// Those that gotracer traces on, on this architecture.
    pub(crate) fn all(arch: Arch) -> &'static [Kernel] {
        match arch {
            Arch::X86_64 => &[Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::Newest],
            Arch::Aarch64 => &[Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::Newest, Kernel::Pages16k],
        }
    }

    /// Whether the kernel is a program of the host, not one for a machine.
    pub(crate) fn is_program(self) -> bool {
        self == Kernel::UserMode
    }

    /// Suites and the names' first part, most wanted first. Debian keeps the newest builds only, and index and pool
    /// disagree at times, so that there is a second choice everywhere.
    fn sources(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kernel::V5_10 => &[("bullseye", "linux-image-5.10.")],
            Kernel::V6_1 => &[("bookworm-security", "linux-image-6.1."), ("bookworm", "linux-image-6.1.")],
            Kernel::V6_12 => &[("bookworm-backports", "linux-image-6.12."), ("trixie", "linux-image-6.12.")],
            // Since 7.3 linux-image only depends on linux-binary, which has the file.
            Kernel::Newest | Kernel::Pages16k => &[("trixie-backports", "linux-binary-"), ("sid", "linux-image-")],
            // Before 6.13 it has no room for the registers of a processor with AMX, and ends with its first process.
            Kernel::UserMode => &[("sid", "user-mode-linux"), ("bookworm", "user-mode-linux")],
        }
    }

    /// The kernel's image, downloaded at the first call. Remove its folder from the cache to get a newer build.
    ///
    /// # Errors
    ///
    /// When no suite gives a package with a kernel in it.
    pub(crate) fn image(self, arch: Arch) -> Result<Image> {
        let name = format!("vm/kernel-{self}-{arch}");
        let folder = cache::folder(&name, |folder| {
            self.fetch(arch, folder)?;
            if self.is_program() { bind_to_libc(folder, &workspace::cache()?.join(&name)) } else { Ok(()) }
        })?;
        let package = fs::read_to_string(folder.join("package"))?;
        Ok(Image { path: folder.join("vmlinuz"), package })
    }

    fn fetch(self, arch: Arch, folder: &Path) -> Result<()> {
        let only = match self {
            Kernel::Pages16k => Arch::Aarch64,
            Kernel::UserMode => Arch::X86_64,
            _ => arch,
        };
        ensure!(arch == only, "kernel {self} is for {only} only");
        let mut refusals = Vec::new();
        for (suite_name, prefix) in self.sources() {
            let suite = Suite::open(suite_name)?;
            // The cloud flavour is a third of the size and has the serial console, uprobes, BPF and BTF built in.
            let suffix = match self {
                Kernel::Pages16k => format!("-{}-16k", arch.debian()),
                Kernel::UserMode => String::new(),
                _ => format!("-cloud-{}", arch.debian()),
            };
            let mut names = suite.names(prefix)?;
            names.retain(|name| match self {
                Kernel::UserMode => name == prefix,
                _ => name.ends_with(&suffix) && name[prefix.len()..].starts_with(|c: char| c.is_ascii_digit()),
            });
            names.sort_by(|a, b| by_numbers(b, a));
            for name in names.into_iter().take(3) {
                let unpacked = folder.join("unpacked");
                let mut packages = vec![format!("{name}:{}", arch.debian())];
                if self.is_program() {
                    packages.push(format!("libc6:{}", arch.debian()));
                }
                match suite.unpack(&packages, &unpacked).and_then(|()| find_image(&unpacked)) {
                    Ok(image) => {
                        fs::rename(&image, folder.join("vmlinuz"))?;
                        if self.is_program() {
                            keep_libc(&unpacked, folder)?;
                        }
                        fs::write(folder.join("package"), &name)?;
                        fs::remove_dir_all(&unpacked)?;
                        return Ok(());
                    }
                    Err(error) => refusals.push(format!("{name} of {suite_name}: {error:#}")),
                }
                fs::remove_dir_all(&unpacked)?;
            }
        }
        bail!("no package has kernel {self} for {arch}; tried {}", refusals.join(" | "))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().ok_or(fmt::Error)?;
        f.write_str(value.get_name())
    }
}

fn find_image(unpacked: &Path) -> Result<PathBuf> {
    let program = unpacked.join("usr/bin/linux.uml");
    if program.exists() {
        return Ok(program);
    }
    let mut folders = vec![unpacked.join("boot")];
    if let Ok(modules) = fs::read_dir(unpacked.join("usr/lib/modules")) {
        folders.extend(modules.flatten().map(|entry| entry.path()));
    }
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("it has no vmlinuz")
}

/// The libc of a kernel that is a program: its suite's may be newer than this machine's.
const LIBC: [&str; 2] = ["ld-linux-x86-64.so.2", "libc.so.6"];

/// Moves the libc that was unpacked beside the kernel.
fn keep_libc(unpacked: &Path, folder: &Path) -> Result<()> {
    for name in LIBC {
        // Where it lies depends on whether /lib has moved to /usr/lib in that suite.
        let places = ["usr/lib", "lib"].map(|place| unpacked.join(place).join("x86_64-linux-gnu").join(name));
        let found = places.iter().find(|path| path.exists()).with_context(|| format!("libc6 has no {name}"))?;
        fs::rename(found, folder.join(name))?;
    }
    Ok(())
}

/// Makes the kernel in `folder` use the libc beside it, where both will be.
fn bind_to_libc(folder: &Path, home: &Path) -> Result<()> {
    install_debian_packages(&["patchelf"], "user-mode Linux")?;
    let mut patchelf = Command::new("patchelf");
    patchelf.arg("--set-interpreter").arg(home.join(LIBC[0])).arg("--set-rpath").arg(home).arg(folder.join("vmlinuz"));
    output(&mut patchelf).map(drop)
}

/// Orders names as people read them: `5.10.0-9` before `5.10.0-30`.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let key = |text: &str| -> Vec<(String, u64)> {
        let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
        let mut in_number = false;
        for c in text.chars() {
            if let (Some(digit), Some(last)) = (c.to_digit(10), parts.last_mut()) {
                last.1 = last.1.saturating_mul(10).saturating_add(u64::from(digit));
                in_number = true;
            } else {
                if in_number {
                    parts.push((String::new(), 0));
                    in_number = false;
                }
                if let Some(last) = parts.last_mut() {
                    last.0.push(c);
                }
            }
        }
        parts
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names =
            ["linux-image-6.1.0-9-cloud-arm64", "linux-image-6.1.0-56-cloud-arm64", "linux-image-6.1.0-30-cloud-arm64"];
        names.sort_by(|a, b| by_numbers(b, a));
        assert_eq!(names[0], "linux-image-6.1.0-56-cloud-arm64");
        assert_eq!(names[2], "linux-image-6.1.0-9-cloud-arm64");
    }
}

//! What goes into a machine to be traced: Go programs of `cargo xtask programs`, and what the dynamically linked ones
//! among them load.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::cache;
use super::debian::Suite;
use super::initramfs::Initramfs;
use crate::cross::Arch;
use crate::programs;
use crate::toolchains::GO_VERSIONS;

/// The versions asked for; without any, all that gotracer is tested with, or the newest of them. Their programs are
/// built where they are not up to date.
pub(crate) fn build(arch: Arch, asked: &[String], newest_only: bool) -> Result<Vec<String>> {
    let known: Vec<String> = GO_VERSIONS.iter().map(|&version| version.to_owned()).collect();
    let newest = known.last().cloned().context("gotracer is tested with no Go version")?;
    let versions = match (asked, newest_only) {
        ([], false) => known,
        ([], true) => vec![newest],
        (asked, _) => asked.to_vec(),
    };
    programs::build(arch.debian(), &versions)?;
    Ok(versions)
}

/// Puts one version's programs into the machine, in the folders that the tests look in.
pub(crate) fn pack(rd: &mut Initramfs, arch: Arch, version: &str) -> Result<()> {
    let place = format!("{}/{version}", arch.debian());
    let folder = programs::folder().join(&place);
    ensure!(folder.is_dir(), "no Go {version} programs in {}", folder.display());
    rd.copy(&folder, &format!("programs/{place}"))?;
    // Position-independent programs name a dynamic linker too, though they load nothing.
    pack_libc(rd, arch)
}

/// The C library of the guest's architecture: what a program linked by gcc loads.
fn pack_libc(rd: &mut Initramfs, arch: Arch) -> Result<()> {
    let folder = cache::folder(&format!("vm/libc6-{arch}"), |folder| {
        Suite::open("bookworm")?.unpack(&[format!("libc6:{}", arch.debian())], folder)
    })?;
    let from: PathBuf = folder.join(format!("lib/{arch}-linux-gnu"));
    let to = format!("lib/{arch}-linux-gnu");
    for library in ["libc.so.6", "libpthread.so.0", "libresolv.so.2", "libm.so.6", "libdl.so.2"] {
        rd.copy(&from.join(library), &format!("{to}/{library}"))?;
    }
    let (loader, path) = match arch {
        Arch::Aarch64 => ("ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1"),
        Arch::X86_64 => ("ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    };
    rd.file(path, &fs::read(from.join(loader))?, true);
    Ok(())
}

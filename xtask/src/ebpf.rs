//! `cargo xtask ebpf`: the kernel programs of tracer-ebpf, compiled into tracer/gotracer.bpf.o, and into
//! tracer/gotracer-perf-buffer.bpf.o for kernels without the atomics that the first has.
//!
//! The objects are committed, so that building gotracer needs a stable Rust alone. For that the build must give the
//! same bytes from the same sources wherever the checkout lies: paths are remapped, and DWARF (which the kernel does
//! not read; it reads the BTF made from it) is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

use crate::toolchains::{self, Bpf};
use crate::workspace::{execute, root, say, target};

const TARGET: &str = "bpfel-unknown-none";
const MEND: &str = "cargo xtask ebpf";

#[derive(clap::Args)]
pub struct Args {
    /// Write nothing: fail if the committed object is not what the sources give
    #[arg(long)]
    check: bool,
}

/// The committed objects, and the features of tracer-ebpf that each is built with.
const OBJECTS: [(&str, &str); 2] =
    [("tracer/gotracer.bpf.o", "kernel"), ("tracer/gotracer-perf-buffer.bpf.o", "kernel,perf-buffer")];

pub fn run(args: &Args) -> Result<()> {
    let toolchain = toolchains::bpf()?;
    if args.check && !toolchain.is_reference() {
        bail!(
            "{toolchain} cannot check the committed object: another compiler gives other bytes. \
             Debian's rustc-web with libstd-rust-web-dev-bpf is the reference"
        );
    }
    OBJECTS.iter().try_for_each(|(name, features)| one(&toolchain, name, features, args.check))
}

/// Builds or checks one object.
fn one(toolchain: &Bpf, name: &str, features: &str, check: bool) -> Result<()> {
    let built = build(toolchain, features)?;
    let object = root().join(name);
    let committed = match fs::read(&object) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", object.display())),
    };
    match committed {
        Some(committed) if committed == built => {
            say(format!("{name} is what the sources give ({} bytes)", built.len()))
        }
        Some(_) if check => {
            bail!("{name} is not what tracer-ebpf's sources give with {toolchain}: run `{MEND}` and commit it")
        }
        None if check => bail!("{name} is missing: run `{MEND}` and commit it"),
        _ => {
            // Cargo looks at the time of the file that include_bytes! names, so an equal object is not written again.
            fs::write(&object, &built).with_context(|| format!("cannot write {}", object.display()))?;
            say(format!("{name} written ({} bytes, {toolchain})", built.len()));
        }
    }
    Ok(())
}

/// Compiles, and gives the object's bytes.
fn build(toolchain: &Bpf, features: &str) -> Result<Vec<u8>> {
    let target_dir = target().join("ebpf");
    let mut cargo = crate::workspace::cargo();
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--package", "gotracer-ebpf", "--bin", "gotracer-ebpf"])
        .args(["--features", features, "--target", TARGET])
        .args(toolchain.build_std.then_some("-Zbuild-std=core"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &toolchain.rustc)
        // aya-ebpf uses features that a stable compiler admits only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?.join("\x1f"))
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        // The workspace's release profile is for user space. BTF is made from full debug information, and one
        // codegen unit keeps the order of functions what the sources say.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_INCREMENTAL", "0");
    execute(&mut cargo).with_context(|| format!("the eBPF object was not built ({toolchain})"))?;
    let object = target_dir.join(TARGET).join("release/gotracer-ebpf");
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    without_dwarf(&bytes).context("the object that bpf-linker wrote cannot be stripped")
}

/// Drops DWARF, four fifths of the object. The kernel and aya read the BTF that was made from it.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            section.delete = true;
        }
    }
    elf.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; the writer wants two.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    elf.set_section_sizes();
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

fn rustflags(toolchain: &Bpf) -> Result<Vec<String>> {
    let mut flags: Vec<String> = ["-Clinker=bpf-linker", "-Clink-arg=--btf"].map(String::from).to_vec();
    // aya-ebpf's pt_regs code must be told one architecture. Our programs read registers by offsets of their own, so
    // the object serves x86_64 and arm64 alike.
    flags.push("--cfg=bpf_target_arch=\"x86_64\"".into());
    let mut remapped = vec![(root(), "/gotracer"), (toolchain.sysroot.clone(), "/rust")];
    // The name of a registry's folder below this is cargo's own hash of where the registry is.
    if let Ok(registries) = fs::read_dir(cargo_home()?.join("registry/src")) {
        for registry in registries {
            remapped.push((registry?.path(), "/crates"));
        }
    }
    flags.extend(remapped.into_iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

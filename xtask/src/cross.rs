//! Statically linked executables for both architectures, from whatever Rust this machine has.
//!
//! In: an architecture and what to build. Out: the path of an executable that needs no file of the machine it will
//! run on. rustup's standard library of the target is taken where it is installed; otherwise Debian's compiler with
//! Debian's standard library of the other architecture, unpacked to the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::toolchains::install_debian_packages;
use crate::vm::{cache, debian};
use crate::workspace;

/// What the static `gotracer` may weigh, stripped: it is copied into containers and onto hosts by hand.
const MAX_SIZE: u64 = 15 << 20;

/// An architecture that gotracer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
    /// 64-bit x86.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
}

impl Arch {
    pub(crate) const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    /// By Debian's name, which is Go's as well.
    pub(crate) fn from_debian(name: &str) -> Option<Self> {
        Arch::ALL.into_iter().find(|arch| arch.debian() == name)
    }

    /// Debian's name of it, which is Go's as well.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Arch::Aarch64 => "arm64",
            Arch::X86_64 => "amd64",
        }
    }

    fn triple(self) -> String {
        format!("{self}-unknown-linux-gnu")
    }

    fn is_host(self) -> bool {
        env::consts::ARCH == self.to_string()
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::Aarch64 => "aarch64",
            Arch::X86_64 => "x86_64",
        })
    }
}

/// Builds statically linked executables: gotracer, or a test executable
#[derive(Args)]
pub(crate) struct CrossArgs {
    /// Architecture to build for
    #[arg(long)]
    arch: Arch,
    /// Build this test executable instead of gotracer, as PACKAGE:TEST (such as gotracer-tests:e2e)
    #[arg(long, value_name = "PACKAGE:TEST")]
    test: Option<String>,
}

/// `cargo xtask cross`: prints the path of what it built.
pub(crate) fn run(args: CrossArgs) -> Result<()> {
    let path = match &args.test {
        Some(name) => {
            let (package, test) = name.split_once(':').context("--test takes PACKAGE:TEST")?;
            test_executable(args.arch, package, test)?
        }
        None => gotracer(args.arch)?,
    };
    eprintln!("{:.1} MiB, statically linked", fs::metadata(&path)?.len() as f64 / f64::from(1 << 20));
    println!("{}", path.display());
    Ok(())
}

/// The static, stripped release `gotracer` for an architecture.
pub(crate) fn gotracer(arch: Arch) -> Result<PathBuf> {
    build(arch, &["build", "--package", "gotracer", "--bin", "gotracer"])?;
    let path = target_folder().join(arch.triple()).join("release/gotracer");
    ensure_static(&path)?;
    let size = fs::metadata(&path)?.len();
    ensure!(size <= MAX_SIZE, "{} has {size} bytes: more than the {MAX_SIZE} it may have", path.display());
    Ok(path)
}

/// A static test executable, for a machine that has neither the sources nor cargo.
pub(crate) fn test_executable(arch: Arch, package: &str, test: &str) -> Result<PathBuf> {
    let out = build(arch, &["test", "--no-run", "--package", package, "--test", test, "--message-format=json"])?;
    let path = out
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == test)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo named no executable for the test {test} of {package}"))?;
    ensure_static(&path)?;
    Ok(path)
}

/// Runs cargo for `arch` and returns what it wrote to stdout.
fn build(arch: Arch, args: &[&str]) -> Result<String> {
    let triple = arch.triple();
    let mut rustflags = "-C target-feature=+crt-static".to_owned();
    if arch == Arch::X86_64 {
        // A static PIE relocates itself: written in bits (RELR), what it needs for that takes a fiftieth of the place.
        // Debian 12's linker cannot do so for arm64.
        rustflags += " -C link-arg=-Wl,-z,pack-relative-relocs";
    }
    let mut cargo = workspace::cargo();
    cargo.args(args).args(["--release", "--target", &triple]);
    // A folder of its own: another compiler in the same one would rebuild everything at every switch.
    cargo.arg("--target-dir").arg(target_folder());
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    if !active_rust_has(&triple)? {
        install_debian_packages(&["rustc-web"], "a static build")?;
        cargo.env("RUSTC", "/usr/bin/rustc");
        if !arch.is_host() {
            rustflags += &format!(" --sysroot={}", debian_sysroot(arch)?.display());
        }
    }
    let key = triple.to_uppercase().replace('-', "_");
    let gcc = c_compiler(arch)?;
    cargo.env(format!("CARGO_TARGET_{key}_LINKER"), &gcc);
    cargo.env(format!("CC_{}", triple.replace('-', "_")), &gcc);
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env(format!("CARGO_TARGET_{key}_RUSTFLAGS"), rustflags);
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(out.status.success(), "cargo {} for {triple}: {}", args.join(" "), out.status);
    Ok(String::from_utf8(out.stdout)?)
}

/// The gcc that compiles and links for an architecture, installed if need be.
pub(crate) fn c_compiler(arch: Arch) -> Result<String> {
    if arch.is_host() {
        install_debian_packages(&["gcc", "libc6-dev"], "compiling C")?;
        return Ok("gcc".to_owned());
    }
    let gnu = format!("{arch}-linux-gnu");
    let packages = [format!("gcc-{}", gnu.replace('_', "-")), format!("libc6-dev-{}-cross", arch.debian())];
    install_debian_packages(&packages.each_ref().map(String::as_str), "compiling C for the other architecture")?;
    Ok(format!("{gnu}-gcc"))
}

/// Whether the rustc that cargo would use has the target's standard library.
fn active_rust_has(triple: &str) -> Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).args(["--print", "target-libdir", "--target", triple]).output();
    let out = out.context("cannot run rustc")?;
    let folder = String::from_utf8(out.stdout)?;
    Ok(out.status.success() && fs::read_dir(folder.trim()).is_ok_and(|mut files| files.next().is_some()))
}

/// Debian's standard library for `arch`, of the very version of the installed rustc-web.
fn debian_sysroot(arch: Arch) -> Result<PathBuf> {
    let version = debian::installed_version("rustc-web").context("rustc-web is not installed")?;
    let mut numbers = version.split('.');
    let minor = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => anyhow::bail!("cannot read rustc-web's version {version}"),
    };
    let file_name: String = version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let folder = cache::folder(&format!("cross/std-{file_name}-{arch}"), |folder| {
        let packages = ["libstd-rust-web-dev".to_owned(), format!("libstd-rust-web-{minor}")]
            .map(|name| format!("{name}:{}={version}", arch.debian()));
        let release = debian::host_release()?;
        let from = |suite: &str| debian::Suite::open(suite)?.unpack(&packages, folder);
        from(&format!("{release}-security")).or_else(|_| from(&release))
    })?;
    Ok(folder.join("usr"))
}

fn target_folder() -> PathBuf {
    workspace::target().join("cross")
}

/// Fails unless an ELF file asks for no dynamic linker.
fn ensure_static(path: &Path) -> Result<()> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let interpreter = program_header_types(&bytes).with_context(|| format!("{} is no 64-bit ELF", path.display()))?;
    ensure!(!interpreter.contains(&PT_INTERP), "{} is dynamically linked: crt-static had no effect", path.display());
    Ok(())
}

/// The `p_type` of each program header (little-endian ELF64).
fn program_header_types(elf: &[u8]) -> Option<Vec<u32>> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let table = usize::try_from(u64::from_le_bytes(elf.get(0x20..0x28)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(u16_at(0x36)?), usize::from(u16_at(0x38)?));
    (0..count)
        .map(|index| {
            let at = table + index * size;
            Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?))
        })
        .collect()
}

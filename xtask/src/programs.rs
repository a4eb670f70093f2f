//! `cargo xtask programs`: the Go programs of tests/programs, built with each Go version in each way that is met in
//! the field, into `target/programs/GOARCH/VERSION/VARIANT/NAME`.
//!
//! A binary newer than its sources is kept. The tests find what they need by that path and by nothing else, so that
//! they can run where neither Go nor cargo is, in a virtual machine for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cross::{self, Arch};
use crate::toolchains::{self, GO_VERSIONS};
use crate::workspace::{output, root, say, target};

/// How a program is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Variant {
    /// `go build`, without cgo
    Plain,
    /// No symbol table, no DWARF, paths trimmed: what most images carry
    Stripped,
    /// Position-independent
    Pie,
    /// Linked by gcc, with C code in it
    Cgo,
}

impl Variant {
    const ALL: [Variant; 4] = [Variant::Plain, Variant::Stripped, Variant::Pie, Variant::Cgo];

    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Stripped => "stripped",
            Variant::Pie => "pie",
            Variant::Cgo => "cgo",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Variant::Plain | Variant::Cgo => &[],
            Variant::Stripped => &["-trimpath", "-ldflags=-s -w"],
            Variant::Pie => &["-buildmode=pie"],
        }
    }
}

/// In which Go versions and variants a program is wanted when nothing else is asked for.
#[derive(Clone, Copy)]
enum Coverage {
    /// Every version, every variant: the program that every count is checked by.
    Everything,
    /// Every version, plain.
    Versions,
    /// Every version, plain and with C in it.
    WithC,
    /// The newest version, plain: load, and what is large because of net/http.
    Newest,
}

const PROGRAMS: &[(&str, Coverage)] = &[
    ("tally", Coverage::Everything),
    ("storm", Coverage::Versions),
    ("deepstack", Coverage::Versions),
    ("goexit", Coverage::Versions),
    ("coroutines", Coverage::Versions),
    ("lockthread", Coverage::Versions),
    ("forkexec", Coverage::Versions),
    ("pingpong", Coverage::Versions),
    ("surge", Coverage::Newest),
    ("httpload", Coverage::Newest),
    ("idle", Coverage::Versions),
    ("stacks", Coverage::Everything),
    ("leakyserver", Coverage::Newest),
    ("manysites", Coverage::Newest),
    ("degrading", Coverage::Newest),
    ("leaks", Coverage::WithC),
    ("reach", Coverage::Everything),
    ("elusive", Coverage::Versions),
    ("heap", Coverage::Versions),
];

#[derive(clap::Args, Default)]
pub struct Args {
    /// Only these programs
    #[arg(long = "program", value_name = "NAME")]
    programs: Vec<String>,
    /// Only these Go versions
    #[arg(long = "go", value_name = "VERSION")]
    versions: Vec<String>,
    /// These variants, also of programs that are otherwise built plain
    #[arg(long = "variant", value_name = "VARIANT", value_enum)]
    variants: Vec<Variant>,
    /// The processor they are to run on, in Go's terms
    #[arg(long, value_name = "GOARCH", value_parser = ["amd64", "arm64", "386"])]
    goarch: Option<String>,
}

/// One binary to be built.
struct Job {
    name: String,
    version: String,
    variant: Variant,
    goarch: String,
}

pub fn run(args: &Args) -> Result<()> {
    let mut jobs = jobs(args)?;
    if args.goarch.is_none() && args.programs.is_empty() && args.versions.is_empty() && args.variants.is_empty() {
        // What gotracer must refuse with a clear sentence.
        jobs.push(Job { goarch: "386".into(), ..newest("tally") });
    }
    build_all(jobs)
}

/// What the tests look for, of these Go versions, for another processor too.
pub fn build(goarch: &str, versions: &[String]) -> Result<()> {
    let mut jobs = jobs(&Args { goarch: Some(goarch.to_owned()), ..Args::default() })?;
    jobs.retain(|job| versions.contains(&job.version));
    build_all(jobs)
}

/// One program, plain, by the newest Go, for this machine; gives its path.
pub fn build_one(name: &str) -> Result<PathBuf> {
    let job = newest(name);
    let path = job.path();
    build_all(vec![job])?;
    Ok(path)
}

/// One program, plain, by Go `version`, for this machine; gives its path.
pub fn build_with(name: &str, version: &str) -> Result<PathBuf> {
    let job = Job { version: version.to_string(), ..newest(name) };
    let path = job.path();
    build_all(vec![job])?;
    Ok(path)
}

/// A program by GCC's Go compiler, into GOARCH/gccgo/plain.
pub fn build_gccgo() -> Result<()> {
    let path = folder().join(host_goarch()).join("gccgo/plain/waits");
    let source = sources().join("waits/main.go");
    if path.is_file() && fs::metadata(&path)?.modified()? > fs::metadata(&source)?.modified()? {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("no parent")?)?;
    output(Command::new("gccgo").arg("-o").arg(&path).arg(&source)).context("gccgo did not build its program")?;
    Ok(())
}

/// Where the tests look for programs: the folder above GOARCH.
pub fn folder() -> PathBuf {
    target().join("programs")
}

fn sources() -> PathBuf {
    root().join("tests/programs")
}

/// This machine's processor, in Go's terms.
pub fn host_goarch() -> String {
    gotracer_tests::environment::host_goarch().to_string()
}

fn newest(name: &str) -> Job {
    let version = GO_VERSIONS.last().copied().unwrap_or_default().to_string();
    Job { name: name.to_string(), version, variant: Variant::Plain, goarch: host_goarch() }
}

fn jobs(args: &Args) -> Result<Vec<Job>> {
    for name in &args.programs {
        if !PROGRAMS.iter().any(|(known, _)| known == name) {
            let known: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
            bail!("there is no program {name:?} in tests/programs; there are {}", known.join(", "));
        }
    }
    let goarch = args.goarch.clone().unwrap_or_else(host_goarch);
    let newest = GO_VERSIONS.last().copied().unwrap_or_default();
    let mut jobs = Vec::new();
    for (name, coverage) in PROGRAMS {
        if !args.programs.is_empty() && !args.programs.iter().any(|asked| asked == name) {
            continue;
        }
        let versions: Vec<&str> = match coverage {
            _ if !args.versions.is_empty() => args.versions.iter().map(String::as_str).collect(),
            Coverage::Newest => vec![newest],
            Coverage::Everything | Coverage::WithC | Coverage::Versions => GO_VERSIONS.to_vec(),
        };
        let variants: &[Variant] = match coverage {
            _ if !args.variants.is_empty() => &args.variants,
            Coverage::Everything => &Variant::ALL,
            Coverage::WithC => &[Variant::Plain, Variant::Cgo],
            _ => &[Variant::Plain],
        };
        for version in versions {
            for &variant in variants {
                let (name, version, goarch) = (name.to_string(), version.to_string(), goarch.clone());
                jobs.push(Job { name, version, variant, goarch });
            }
        }
    }
    Ok(jobs)
}

fn build_all(jobs: Vec<Job>) -> Result<()> {
    let total = jobs.len();
    let mut to_build = Vec::new();
    for job in jobs {
        if !job.is_fresh()? {
            to_build.push(job);
        }
    }
    if to_build.is_empty() {
        say(format!("all {total} Go programs are up to date"));
        return Ok(());
    }
    // First, and one after the other: both builders would fetch the same one.
    let mut versions: Vec<&str> = to_build.iter().map(|job| job.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    for version in versions {
        toolchains::go(version)?;
    }
    say(format!("building {} of {total} Go programs", to_build.len()));
    let next = AtomicUsize::new(0);
    let first_error = Mutex::new(None);
    // `go build` is parallel in itself; two of them fill the gaps that its linker leaves.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = to_build.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = job.build() {
                        next.store(to_build.len(), Ordering::Relaxed);
                        first_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                    }
                }
            });
        }
    });
    first_error.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
}

impl Job {
    fn path(&self) -> PathBuf {
        folder().join(&self.goarch).join(&self.version).join(self.variant.name()).join(&self.name)
    }

    fn is_fresh(&self) -> Result<bool> {
        let Ok(built) = fs::metadata(self.path()).and_then(|meta| meta.modified()) else { return Ok(false) };
        let own = last_change(&sources().join(&self.name))?;
        let shared = last_change(&sources().join("report"))?;
        Ok(built > own.max(shared))
    }

    fn build(&self) -> Result<()> {
        let path = self.path();
        fs::create_dir_all(path.parent().context("no parent")?)?;
        output(self.go_build(&path)?.current_dir(sources()))
            .with_context(|| format!("{} was not built with Go {}", self.name, self.version))?;
        Ok(())
    }

    fn go_build(&self, path: &Path) -> Result<Command> {
        let mut go = toolchains::go_command(&self.version)?;
        go.env("GOARCH", &self.goarch).env("GOOS", "linux");
        go.env("CGO_ENABLED", if self.variant == Variant::Cgo { "1" } else { "0" });
        if self.variant == Variant::Cgo
            && let Some(arch) = Arch::from_debian(&self.goarch)
        {
            go.env("CC", cross::c_compiler(arch)?);
        }
        // Go 1.26 has the profile that this program is held against as an experiment, 1.27 for good.
        if self.name == "reach" && self.version.starts_with("1.26") {
            go.env("GOEXPERIMENT", "goroutineleakprofile");
        }
        go.args(["build", "-buildvcs=false"]).args(self.variant.flags());
        go.arg(format!("-modfile={}", mod_file(&self.version)?.display()));
        go.arg("-o").arg(path).arg(format!("./{}", self.name));
        Ok(go)
    }
}

/// A go.mod that names the toolchain's own version, as a program of that time has: the version there decides what
/// loop variables and timers mean.
fn mod_file(version: &str) -> Result<PathBuf> {
    let minor: Vec<&str> = version.splitn(3, '.').take(2).collect();
    let path = folder().join(format!("go{version}.mod"));
    let text = format!("module gotracer.test/programs\n\ngo {}\n", minor.join("."));
    if !fs::read_to_string(&path).is_ok_and(|there| there == text) {
        // By a rename, for the other builder may be reading it.
        let temporary = folder().join(format!(".go{version}.mod.{:?}", std::thread::current().id()));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &path)?;
    }
    Ok(path)
}

fn last_change(folder: &Path) -> Result<SystemTime> {
    let mut last = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        last = last.max(entry?.metadata()?.modified()?);
    }
    Ok(last)
}

//! One cell of the matrix: one machine booted with one Go version's programs, and what came of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs, process};

use anyhow::{Context, Result};

use super::emulator::Machine;
use super::initramfs::Initramfs;
use super::kernels::Kernel;
use super::results::Results;
use super::{VmArgs, programs};
use crate::cross::{self, Arch};
use crate::toolchains::GO_VERSIONS;
use crate::workspace;

/// Where a machine stands in the matrix.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) arch: Arch,
    pub(crate) kernel: Kernel,
    /// The Go version whose programs are in the machine; none when a command needs no program.
    pub(crate) go: Option<String>,
    /// What the machine is made to lack, to see whether that is said.
    pub(crate) lacks: Option<Lack>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, kernel {}", self.arch, self.kernel)?;
        if let Some(go) = &self.go {
            write!(f, ", Go {go}")?;
        }
        match self.lacks {
            Some(lack) => write!(f, ", lacking {lack}"),
            None => Ok(()),
        }
    }
}

/// What a machine can lack; the tests `lacking::*` of that name are run in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Reading of memory by eBPF.
    Lockdown,
    /// Uprobes, and perf events at all.
    Uprobes,
}

impl Lack {
    fn kernel_parameters(self) -> &'static str {
        match self {
            Lack::Lockdown => "lockdown=confidentiality",
            Lack::Uprobes => "",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::Lockdown => "lockdown",
            Lack::Uprobes => "uprobes",
        })
    }
}

/// What is built once for all machines of an architecture.
pub(crate) struct Payload {
    gotracer: Option<PathBuf>,
    tests: Option<PathBuf>,
    /// Of what they were built.
    commit: String,
}

impl Payload {
    /// gotracer and the end-to-end tests.
    pub(crate) fn tests(arch: Arch) -> Result<Self> {
        let tests = Some(cross::test_executable(arch, "gotracer-tests", "e2e")?);
        Ok(Payload { tests, ..Self::tracer(arch)? })
    }

    /// gotracer alone, for a command that was given.
    pub(crate) fn tracer(arch: Arch) -> Result<Self> {
        Ok(Payload { gotracer: Some(cross::gotracer(arch)?), ..Self::bare() })
    }

    /// Nothing of ours.
    pub(crate) fn bare() -> Self {
        Payload { gotracer: None, tests: None, commit: workspace::commit() }
    }
}

/// Begins what [`Outcome::epilogue`] gives: exit status, the kernel's release, seconds, and the commit.
const EPILOGUE: &str = "xtask: machine ended: ";

/// What a machine gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) results: Results,
    pub(crate) status: i32,
    pub(crate) release: String,
    pub(crate) took: Duration,
    /// Of what it was built.
    pub(crate) commit: String,
}

impl Outcome {
    pub(crate) fn green(&self) -> bool {
        self.status == 0 && self.results.green()
    }

    /// The last line of a machine's console in its file, if all of the matrix's tests were to run in it: a later run of the
    /// matrix can take it for its own.
    fn epilogue(&self) -> String {
        let Self { status, release, took, commit, .. } = self;
        format!("{EPILOGUE}{status} {release} {} {commit}", took.as_secs())
    }

    /// What a machine gave whose console this is; `None` unless all of the matrix's tests were to run in it.
    fn read_back(console: &str) -> Option<Self> {
        let lines: Vec<String> = console.lines().map(str::to_owned).collect();
        let mut fields = lines.last()?.strip_prefix(EPILOGUE)?.split(' ');
        let (status, release) = (fields.next()?.parse().ok()?, fields.next()?.to_owned());
        let (took, commit) = (Duration::from_secs(fields.next()?.parse().ok()?), fields.next()?.to_owned());
        Some(Self { results: Results::read(&lines), status, release, took, commit })
    }

    /// For a table: passed/failed/skipped, bold when something is wrong.
    pub(crate) fn short(&self) -> String {
        let Results { passed, failed, skipped, .. } = &self.results;
        let counts = format!("{passed}/{}/{}", failed.len(), skipped.len());
        if self.green() { counts } else { format!("**{counts}**") }
    }
}

impl Cell {
    /// Boots the machine; each line of its console goes to `on_line` and to a file in target/vm.
    pub(crate) fn run(&self, payload: &Payload, args: &VmArgs, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
        let image = self.kernel.image(self.arch)?;
        let folder = workspace::target().join("vm");
        fs::create_dir_all(&folder)?;
        let name = self.file_name();
        // Another run may be at the same cell.
        let initramfs = RemovedAtEnd(folder.join(format!("{name}.initramfs.{}", process::id())));
        fs::write(&initramfs.0, self.pack(payload, args)?).context("cannot write the initramfs")?;
        let parameters = format!("{} {}", args.append, self.lacks.map_or("", Lack::kernel_parameters));
        let machine = Machine {
            arch: self.arch,
            kernel: &image.path,
            is_program: self.kernel.is_program(),
            initramfs: &initramfs.0,
            memory_mib: args.memory,
            kernel_parameters: &parameters,
            deadline: Duration::from_secs(args.timeout),
        };
        let log_path = folder.join(format!("{name}.log"));
        let mut log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let ending = machine
            .run(|line| {
                // Written as it comes: of a machine that hangs this is all there will be. A full disk is no reason to
                // give up the run.
                let _ = writeln!(log, "{line}");
                on_line(line);
            })
            .with_context(|| format!("{} ({}); its console is in {}", self, image.package, log_path.display()))?;
        let results = Results::read(&ending.lines);
        let commit = payload.commit.clone();
        let outcome = Outcome { results, status: ending.status, release: ending.release, took: ending.took, commit };
        if args.filter.is_none() && args.command.is_empty() && args.append.is_empty() {
            writeln!(log, "{}", outcome.epilogue())?;
        }
        Ok(outcome)
    }

    /// What the machine gave when it was run last; `None` if it was not, or not to its end, or for something else.
    pub(crate) fn last_outcome(&self) -> Option<Outcome> {
        let log = workspace::target().join("vm").join(format!("{}.log", self.file_name()));
        Outcome::read_back(&fs::read_to_string(log).ok()?)
    }

    /// Of the cell alone: others run at the same time.
    pub(super) fn file_name(&self) -> String {
        let go = self.go.as_deref().unwrap_or("none");
        let lacks = self.lacks.map(|lack| format!("-without-{lack}")).unwrap_or_default();
        format!("{}-{}-go{go}{lacks}", self.arch, self.kernel)
    }

    fn pack(&self, payload: &Payload, args: &VmArgs) -> Result<Vec<u8>> {
        let mut rd = Initramfs::new(self.arch, &script(self, args))?;
        if let Some(path) = &payload.gotracer {
            rd.copy(path, "bin/gotracer")?;
        }
        if let Some(path) = &payload.tests {
            rd.copy(path, "bin/e2e")?;
        }
        if let Some(go) = &self.go {
            programs::pack(&mut rd, self.arch, go)?;
        }
        for path in &args.add {
            let name = path.file_name().with_context(|| format!("--add {}: not a file", path.display()))?;
            rd.copy(path, &format!("root/{}", name.to_string_lossy()))?;
        }
        Ok(rd.finish())
    }
}

/// What init runs.
fn script(cell: &Cell, args: &VmArgs) -> String {
    let mut script = format!(
        "export GOTRACER_BIN=/bin/gotracer GOTRACER_PROGRAMS=/programs/{} GOTRACER_VM=1 GOTRACER_TEST_PATIENCE={}\n",
        cell.arch.debian(),
        // An emulated processor is some twenty times slower than the one it is emulated on.
        args.timeout / 3,
    );
    if args.filter.is_none() {
        script += &format!("export GOTRACER_TESTS={}\n", super::matrix::TESTS.join(","));
    }
    if let Some(lack) = cell.lacks {
        script += &format!("export GOTRACER_TESTS= GOTRACER_LACKING={lack}\nexec e2e --test-threads=1 lacking::{lack}");
    } else if args.command.is_empty() {
        script += "export GOTRACER_PLACEMENTS=/tmp/placements\ne2e --test-threads=1";
        script += &tests_of(cell.go.as_deref().unwrap_or_default(), args.filter.as_deref());
        script += "\nstatus=$?\ncat /tmp/placements 2> /dev/null\nexit $status";
    } else if let [line] = args.command.as_slice() {
        // A single argument is a line of shell.
        script += line;
    } else {
        script += &args.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    }
    script + "\n"
}

/// libtest's arguments for the tests of one Go version. Those that are of no version use the newest's programs and are
/// run with it.
fn tests_of(version: &str, filter: Option<&str>) -> String {
    let name = |version: &str| format!("::go{version}");
    let newest = GO_VERSIONS.last() == Some(&version);
    match filter {
        None if !newest => format!(" {}", name(version)),
        filter => {
            let others = GO_VERSIONS.iter().filter(|&&other| other != version);
            let skip: String = others.map(|other| format!(" --skip {}", name(other))).collect();
            filter.map(|filter| format!(" {}", quoted(filter))).unwrap_or_default() + &skip
        }
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_ended_is_read_back() {
        let console = "test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        assert!(Outcome::read_back(console).is_none());
        let results = Results { passed: 1, complete: true, ..Results::default() };
        let (release, commit) = ("6.1.0-9".to_owned(), "cafe845".to_owned());
        let outcome = Outcome { results, status: 0, release, took: Duration::from_secs(7), commit };
        let again = Outcome::read_back(&format!("{console}{}\n", outcome.epilogue())).expect("an outcome");
        assert_eq!(format!("{again:?}"), format!("{outcome:?}"));
    }

    #[test]
    fn every_test_runs_with_some_version_and_none_with_two() {
        assert_eq!(tests_of("1.19", None), " ::go1.19");
        let newest = GO_VERSIONS.last().copied().unwrap_or_default();
        let arguments = tests_of(newest, None);
        assert!(!arguments.contains(newest) && arguments.starts_with(" --skip ::go1.19"), "{arguments}");
        assert!(tests_of("1.19", Some("storm")).starts_with(" 'storm' --skip ::go1.21"));
    }
}

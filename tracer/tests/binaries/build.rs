//! Builds the sample program with every toolchain there is, in every form that is met in the field.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::{env, fs};

use gotracer::binary::{Arch, Binary};

/// The releases that layouts are known for; the newest also lends its `nm` and `addr2line`.
pub(crate) const VERSIONS: [&str; 8] =
    ["1.19", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];

/// A form of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    pub(crate) arch: Arch,
    pub(crate) pie: bool,
    pub(crate) cgo: bool,
    pub(crate) stripped: bool,
}

impl Form {
    /// Whether the program can be run here.
    pub(crate) fn is_ours(self) -> bool {
        env::consts::ARCH == if self.arch == Arch::Amd64 { "x86_64" } else { "aarch64" }
    }
}

/// A built program.
pub(crate) struct Program {
    pub(crate) version: &'static str,
    pub(crate) form: Form,
    pub(crate) path: PathBuf,
}

impl Program {
    pub(crate) fn open(&self) -> Binary {
        let file = fs::File::open(&self.path).expect("the program was built");
        Binary::open(file).unwrap_or_else(|error| panic!("{self}: {error}"))
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Go {} {:?}", self.version, self.form)
    }
}

/// The forms: plain, position-independent, with cgo for our own processor (it needs a C compiler), each also stripped.
pub(crate) fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for arch in [Arch::Amd64, Arch::Arm64] {
        for (pie, cgo) in [(false, false), (true, false), (false, true), (true, true)] {
            let form = Form { arch, pie, cgo, stripped: false };
            if !cgo || form.is_ours() {
                forms.extend([form, Form { stripped: true, ..form }]);
            }
        }
    }
    forms
}

/// The `go` command of a release; where it is missing, says so, and under CI fails.
pub(crate) fn toolchain(version: &str) -> Option<PathBuf> {
    let home = env::var("HOME").unwrap_or_default();
    let cache = env::var("GOTRACER_CACHE").unwrap_or_else(|_| format!("{home}/.cache/gotracer"));
    let candidates = [format!("{cache}/go/{version}/bin/go"), format!("/usr/lib/go-{version}/bin/go")];
    let found = candidates.iter().map(PathBuf::from).find(|go| go.is_file());
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "no Go {version} toolchain, and this is CI");
        // Unlike the test's own output, this is seen though the test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: Go {version} is not tested: no toolchain at {candidates:?}");
    }
    found
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("binaries")
}

/// The program in `form` by the toolchain of `version`; built once.
pub(crate) fn program(version: &'static str, form: Form) -> Option<Program> {
    static BUILT: OnceLock<Mutex<BTreeMap<(&'static str, Form), PathBuf>>> = OnceLock::new();
    let go = toolchain(version)?;
    let mut built = BUILT.get_or_init(Mutex::default).lock().expect("no builder panicked");
    let path = built.entry((version, form)).or_insert_with(|| build(&go, version, form)).clone();
    Some(Program { version, form, path })
}

fn build(go: &Path, version: &str, form: Form) -> PathBuf {
    let directory = directory();
    let source = directory.join("source");
    fs::create_dir_all(&source).expect("a directory for the sample");
    let files = [
        ("go.mod", "module example.com/sample\n\ngo 1.19\n"),
        ("sample.go", include_str!("sample.go")),
        ("cgo.go", include_str!("cgo.go")),
    ];
    for (name, text) in files {
        fs::write(source.join(name), text).expect("the sample can be written");
    }
    let arch = form.arch.name();
    let words = [("pie", form.pie), ("cgo", form.cgo), ("stripped", form.stripped)];
    let words: String = words.iter().filter(|(_, on)| *on).map(|(word, _)| format!("-{word}")).collect();
    let path = directory.join(format!("sample-{version}-{arch}{words}"));
    let mut command = Command::new(go);
    command.current_dir(&source).args(["build", "-o"]).arg(&path);
    command.arg(if form.pie { "-buildmode=pie" } else { "-buildmode=exe" });
    if form.stripped {
        command.arg("-ldflags=-s -w");
    }
    if env::var_os("GOCACHE").is_none() {
        command.env("GOCACHE", directory.join("gocache"));
    }
    let settings = [("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOOS", "linux"), ("GOARCH", arch)];
    command.envs(settings).env("CGO_ENABLED", if form.cgo { "1" } else { "0" });
    let status = command.status().unwrap_or_else(|error| panic!("{}: {error}", go.display()));
    assert!(status.success(), "Go {version} cannot build {form:?}");
    path
}

/// What `go tool TOOL` of the newest toolchain prints about `program`, given `input`.
pub(crate) fn tool(tool: &str, program: &Program, input: &str) -> Option<String> {
    let go = toolchain(VERSIONS[VERSIONS.len() - 1])?;
    let mut command = Command::new(go);
    command.args(["tool", tool]).arg(&program.path).env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
    if env::var_os("GOCACHE").is_none() {
        command.env("GOCACHE", directory().join("gocache"));
    }
    Some(answer(command, input))
}

/// The output of `command`, given `input`.
pub(crate) fn answer(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_owned());
    // Both ends fill up: one thread writes while this one reads.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the program can be waited for");
    let _ = writer.join();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

//! Debian packages, of any suite and architecture, unpacked to folders of the cache and never installed.
//!
//! In: a suite's name and packages of it. Out: a folder with their files. Every suite has a sources list, index and
//! status file of its own below the cache, so what apt knows about this machine stays as it is. Knows nothing of
//! kernels, emulators or compilers.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::{cache, output, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One Debian suite, such as `bookworm-backports`, readable for amd64 and arm64.
pub(crate) struct Suite {
    name: String,
    folder: PathBuf,
    // Two xtasks at once would otherwise write the same index files.
    _lock: fs::File,
}

impl Suite {
    /// Opens a suite, reading its index when it was never read before.
    ///
    /// # Errors
    ///
    /// When this is no machine with apt and Debian's keyring, or the suite cannot be read.
    pub(crate) fn open(name: &str) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: packages come from Debian's archive; on Debian or Ubuntu `apt-get install \
             debian-archive-keyring` and run this again"
        );
        let folder = cache()?.join("debian").join(name);
        fs::create_dir_all(folder.join("state/lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let lock = fs::File::create(folder.join("lock"))?;
        lock.lock().context("cannot lock the package index")?;
        let suite = Suite { name: name.to_owned(), folder, _lock: lock };
        let fresh = !suite.folder.join("apt.conf").exists();
        suite.configure()?;
        if fresh && let Err(error) = suite.update() {
            fs::remove_file(suite.folder.join("apt.conf"))?;
            return Err(error);
        }
        Ok(suite)
    }

    /// The names of this suite's packages that start with `prefix`, of all architectures.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let out = self.apt("apt-cache").args(["pkgnames", prefix]).output().context("cannot run apt-cache")?;
        ensure!(out.status.success(), "apt-cache pkgnames: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8(out.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Downloads packages (`name`, `name:arch` or `name:arch=version`) and unpacks them into `folder`.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        say(format!("fetching {} from Debian {}", packages.join(", "), self.name));
        let debs = folder.join(".debs");
        fs::create_dir_all(&debs)?;
        let download = || {
            let mut apt = self.apt("apt-get");
            output(apt.current_dir(&debs).arg("download").args(packages))
        };
        if download().is_err() {
            // A point release may have replaced the file since the index was read.
            self.update()?;
            download()?;
        }
        extract(&debs, folder)?;
        fs::remove_dir_all(&debs)?;
        Ok(())
    }

    /// Like [`Suite::unpack`], with the libraries they need that this machine has not installed.
    pub(crate) fn unpack_with_missing_libraries(&self, packages: &[String], folder: &Path) -> Result<()> {
        say(format!("fetching {} from Debian {}", packages.join(", "), self.name));
        let debs = folder.join(".debs");
        fs::create_dir_all(debs.join("partial"))?;
        let mut apt = self.apt("apt-get");
        // The machine's own status tells what it has already; `--download-only` writes nothing to it.
        apt.args(["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Debug::NoLocking=1"]);
        apt.arg("-o").arg(join_option("Dir::Cache::archives=", &debs));
        apt.args(["-t", &self.name, "install", "-y", "--download-only", "--no-install-recommends"]).args(packages);
        output(&mut apt)?;
        extract(&debs, folder)?;
        fs::remove_dir_all(&debs)?;
        Ok(())
    }

    fn update(&self) -> Result<()> {
        say(format!("reading the package index of Debian {}", self.name));
        output(self.apt("apt-get").arg("update")).map(drop).with_context(|| {
            format!("cannot read the package index of Debian {}; is Debian's archive reachable?", self.name)
        })
    }

    fn configure(&self) -> Result<()> {
        let line = |suite: &str| -> Result<String> {
            let archive = archive(if suite.ends_with("-security") { "debian-security" } else { "debian" })?;
            Ok(format!("deb [arch=amd64,arm64 signed-by={KEYRING}] {archive} {suite} main\n"))
        };
        let mut sources = line(&self.name)?;
        if let Some(base) = self.name.strip_suffix("-backports") {
            // What was backported leans on its base suite for libraries.
            sources += &line(base)?;
        }
        fs::write(self.folder.join("sources.list"), sources)?;
        fs::write(self.folder.join("status"), "")?;
        let folder = self.folder.display();
        // The machine's own hooks and extra indexes (icons, command names) are of no use here.
        let conf = format!(
            "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
             #clear Acquire::IndexTargets::deb::DEP-11;\n#clear Acquire::IndexTargets::deb::CNF;\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n\
             Dir::Etc {{ sourcelist \"{folder}/sources.list\"; sourceparts \"/dev/null\"; preferences \"/dev/null\"; \
             preferencesparts \"/dev/null\"; }};\n\
             Dir::State \"{folder}/state\";\nDir::State::status \"{folder}/status\";\nDir::Cache \"{folder}/cache\";\n"
        );
        fs::write(self.folder.join("apt.conf"), conf)?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf"));
        command
    }
}

/// The code name of the Debian release this machine runs, such as `bookworm`.
pub(crate) fn host_release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_matches('"').to_owned())
    };
    ensure!(
        field("ID=").as_deref() == Some("debian"),
        "this needs a Debian machine (or container): compilers and emulators are taken from its suites"
    );
    field("VERSION_CODENAME=").context("/etc/os-release has no VERSION_CODENAME")
}

/// The version of an installed package.
pub(crate) fn installed_version(package: &str) -> Option<String> {
    let out = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Version}", package])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

fn extract(debs: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(debs)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            output(Command::new("dpkg").arg("-x").arg(&path).arg(folder))?;
        }
    }
    Ok(())
}

fn join_option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

/// Where this machine's own apt finds Debian's archive of that name.
fn archive(name: &str) -> Result<String> {
    let mut apt = Command::new("apt-get");
    let listed = output(apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
    let found = listed.lines().map(|uri| uri.trim_end_matches('/')).find(|uri| uri.ends_with(&format!("/{name}")));
    let found = found.with_context(|| {
        format!("apt on this machine knows no archive called {name}: put Debian's archive in its list of sources")
    })?;
    Ok(found.to_owned())
}

//! A running `gotracer agent` of a test's own: a folder with its configuration and evidence, an address of the kernel's
//! choice, and rules that keep it to the test's own programs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::child::{Running, poll};
use crate::environment::{gotracer, patience};

/// A folder that is gone when its test is.
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gotracer-agent-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of a program in it: an inode of its own, which nobody else runs.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().context("a program has a name")?;
        let copy = self.0.join(name);
        if !copy.exists() {
            std::fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        }
        Ok(copy)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running agent. Killed when dropped.
pub struct Agent {
    running: Running,
    address: SocketAddr,
}

impl Agent {
    /// Starts one that watches the programs in `folder` alone. `more` is put behind the rest of its configuration.
    ///
    /// # Errors
    /// When it does not listen, with what it said.
    pub fn start(folder: &Folder, more: &str) -> Result<Self> {
        Self::start_with(folder, more, |_| {})
    }

    /// As [`Agent::start`], with a say in the command.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(folder: &Folder, more: &str, change: impl FnOnce(&mut Command)) -> Result<Self> {
        let config = folder.path().join("agent.toml");
        std::fs::write(&config, Self::config(folder, more))?;
        let mut command = Command::new(gotracer()?);
        command.args(["-v", "agent", "--config"]).arg(&config);
        change(&mut command);
        let mut running = Running::start("gotracer agent", &mut command)?;
        let rest = running.stderr.await_start("watching this host's Go processes; metrics at http://");
        let rest = rest.with_context(|| format!("{:?}", running.try_exit()))?;
        let address = rest.trim_end_matches("/metrics").parse().with_context(|| format!("no address: {rest}"))?;
        Ok(Self { running, address })
    }

    /// What [`Agent::start`] writes down.
    pub fn config(folder: &Folder, more: &str) -> String {
        let path = folder.path().display();
        let evidence = folder.path().join("evidence");
        format!(
            "rule = [{{ action = \"allow\", exe = \"^{path}/\" }}, {{ action = \"deny\" }}]\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\
             [evidence]\ndirectory = \"{}\"\nmin_free = \"1MiB\"\n{more}",
            evidence.display()
        )
    }

    /// The process.
    pub fn child(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The body of an answer.
    ///
    /// # Errors
    /// When there is none, or it is no success.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let (status, body) = self.ask(path, "")?;
        ensure!(status == 200, "{path} answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Status and body of an answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&self, path: &str, headers: &str) -> Result<(u16, Vec<u8>)> {
        ask(self.address, path, headers)
    }

    /// An answer that is JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self, path: &str) -> Result<Value> {
        let body = self.get(path)?;
        serde_json::from_slice(&body).with_context(|| format!("{path} is no JSON: {}", String::from_utf8_lossy(&body)))
    }

    /// All figures.
    ///
    /// # Errors
    /// When they are not told.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&String::from_utf8(self.get("/metrics")?)?)
    }

    /// Waits until the process is watched and its older goroutines are known.
    ///
    /// # Errors
    /// When it is not in time, with what the agent says of it.
    pub fn await_watched(&self, pid: u32) -> Result<()> {
        let found = poll(|| Ok((self.metrics()?.of(pid, "gotracer_complete") == Some(1.0)).then_some(())));
        found.with_context(|| format!("{pid} is not watched: {}", self.json("/processes").unwrap_or_default()))
    }

    /// Ends it, and expects that it ends well.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> Result<()> {
        self.running.signal(libc::SIGTERM)?;
        let status = self.running.await_exit()?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", self.running.stderr.so_far());
        Ok(())
    }
}

/// Asks by HTTP/1.1; gives status and body.
///
/// # Errors
/// When there is no answer.
pub fn ask(address: SocketAddr, path: &str, headers: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience()))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the headers")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer.split_off(end + 4)))
}

/// One answer of `/metrics`.
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| line.to_owned())).collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples of one name with these labels.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(&BTreeMap<String, String>, f64)> {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
        };
        let wanted = self.samples.iter().filter(|(found, of, _)| found == name && fits(of));
        wanted.map(|(_, of, value)| (of, *value)).collect()
    }

    /// The sum of these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).iter().map(|(_, value)| value).sum()
    }

    /// The one figure of a process.
    pub fn of(&self, pid: u32, name: &str) -> Option<f64> {
        match self.all(name, &[("pid", &pid.to_string())]).as_slice() {
            [(_, value)] => Some(*value),
            _ => None,
        }
    }
}

fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64)> {
    let (head, value) = line.rsplit_once(' ').context("no value")?;
    let value = match value {
        "+Inf" | "inf" => f64::INFINITY,
        value => value.parse()?,
    };
    let Some((name, labels)) = head.split_once('{') else { return Ok((head.to_owned(), BTreeMap::new(), value)) };
    let mut rest = labels.strip_suffix('}').context("no }")?;
    let mut found = BTreeMap::new();
    while let Some((key, behind)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut characters = behind.char_indices();
        let end = loop {
            match characters.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, c)) => text.push(c),
                    None => bail!("the label ends in a backslash"),
                },
                Some((_, c)) => text.push(c),
                None => bail!("the label does not end"),
            }
        };
        found.insert(key.trim_start_matches(',').to_owned(), text);
        rest = &behind[end + 1..];
    }
    Ok((name.to_owned(), found, value))
}

/// How long a soak lasts: some seconds, or with `GOTRACER_TEST_LONG` an hour or so many seconds as that says.
pub fn soak() -> Duration {
    match std::env::var("GOTRACER_TEST_LONG") {
        Ok(text) => Duration::from_secs(text.parse().ok().filter(|s| *s > 1).unwrap_or(3600)),
        Err(_) => Duration::from_secs(12),
    }
}

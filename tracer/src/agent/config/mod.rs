//! What the agent is told: TOML in, a checked [`Config`] out. Every default is written out in `defaults.toml`, which
//! `gotracer agent --print-config` prints; a test holds the two together. What is wrong is said with its line and key.

mod quantities;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use quantities::{MemoryHigh, Pattern, Signal, Size, Span};

/// The default configuration, with an explanation of every key.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or has a key that does not exist, or a value that makes no sense.
    #[error("the configuration {path} is wrong, nothing of it was taken: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        why: String,
    },
}

/// All that the agent can be told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How processes are found.
    pub discovery: Discovery,
    /// Which processes are watched; the first rule that fits decides, and where none does, the process is watched.
    pub rule: Vec<RuleConfig>,
    /// What is measured, how often, and how much of it is shown.
    pub metrics: Metrics,
    /// What watching may cost.
    pub budget: Budget,
    /// Who may ask.
    pub http: Http,
    /// Where metrics and alarms are sent by OTLP.
    pub otlp: Otlp,
    /// Where findings and alarms are written as JSON lines.
    pub log: Log,
    /// How it is proven what is leaked.
    pub proof: Proof,
    /// What is kept of the last minutes.
    pub flight_recorder: FlightRecorder,
    /// Where evidence is put.
    pub evidence: Evidence,
    /// When to act.
    #[serde(default = "default_alarms")]
    pub alarm: Vec<Alarm>,
}

/// How processes are found.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// How often /proc is looked through for what the kernel's exec events did not tell.
    pub scan_interval: Span,
    /// A process younger than this is left alone unless its executable is known already.
    pub min_age: Span,
    /// Processes watched at the same time.
    pub max_processes: usize,
    /// Probes stay in an executable for so long after its last process has ended.
    pub keep_probes: Span,
    /// Where the host's cgroups are mounted.
    pub cgroups: PathBuf,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            scan_interval: Span::seconds(30),
            min_age: Span(std::time::Duration::from_millis(200)),
            max_processes: 1000,
            keep_probes: Span::seconds(60),
            cgroups: PathBuf::from("/sys/fs/cgroup"),
        }
    }
}

/// What a rule or an alarm is about. All patterns that are given must fit; none given fits everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The executable's path, as the process's own namespace has it.
    pub exe: Option<Pattern>,
    /// The command line, arguments separated by spaces.
    pub args: Option<Pattern>,
    /// The container's id.
    pub container: Option<Pattern>,
    /// The cgroup's path.
    pub cgroup: Option<Pattern>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// The process is watched.
    Allow,
    /// It is left alone.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What it does.
    pub action: RuleAction,
    /// The executable's path.
    pub exe: Option<Pattern>,
    /// The command line.
    pub args: Option<Pattern>,
    /// The container's id.
    pub container: Option<Pattern>,
    /// The cgroup's path.
    pub cgroup: Option<Pattern>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// How often growth, findings and alarms are looked at.
    pub sample_interval: Span,
    /// How often the runtime's own figures (memory, collector, timers, channels) are read. A process whose reading takes
    /// longer than a hundredth of this is read less often.
    pub snapshot_interval: Span,
    /// Creation sites of a process that have series of their own because they hold most goroutines.
    pub top_sites_by_size: usize,
    /// And because they grow most.
    pub top_sites_by_growth: usize,
    /// Wait reasons of a process that have series of their own.
    pub top_reasons: usize,
    /// Processes that have series of their own; those with the most goroutines.
    pub max_processes: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sample_interval: Span::seconds(5),
            snapshot_interval: Span::seconds(15),
            top_sites_by_size: 20,
            top_sites_by_growth: 10,
            top_reasons: 8,
            max_processes: 250,
        }
    }
}

/// What watching may cost.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// What probes may add to a process, in per cent of the CPU time it uses itself.
    pub process_percent: f64,
    /// What probes may cost all processes together, in per cent of one CPU for each CPU of the host.
    pub host_percent: f64,
    /// Memory for the buffers by which events come from the kernel.
    pub buffers: Size,
}

impl Default for Budget {
    fn default() -> Self {
        Self { process_percent: 5.0, host_percent: 2.0, buffers: Size(8 << 20) }
    }
}

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen; a loopback address, unless TLS and a token are given.
    pub listen: SocketAddr,
    /// PEM file with the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub tls_key: Option<PathBuf>,
    /// File with the token that a request must carry: `Authorization: Bearer TOKEN`.
    pub token_file: Option<PathBuf>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9467)),
            tls_certificate: None,
            tls_key: None,
            token_file: None,
        }
    }
}

/// Where metrics and alarms are sent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base address of a collector that takes OTLP by HTTP, as `http://127.0.0.1:4318`; none: nothing is sent.
    pub endpoint: Option<String>,
    /// How often metrics are sent.
    pub interval: Span,
    /// How long the collector may take.
    pub timeout: Span,
    /// Header lines that go with each request, for a token for example.
    pub headers: std::collections::BTreeMap<String, String>,
    /// PEM file with the certificates that are trusted for `https`; also for webhooks.
    pub ca_file: PathBuf,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: Span::seconds(15),
            timeout: Span::seconds(10),
            headers: Default::default(),
            ca_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        }
    }
}

/// Where findings and alarms are written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A file that gets one JSON object a line; none: they go to stdout.
    pub file: Option<PathBuf>,
}

/// How it is proven what is leaked.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proof {
    /// Whether it is.
    pub enabled: bool,
    /// How often for one process; newly suspected goroutines wait for a tenth of it.
    pub interval: Span,
    /// Passes each time: three for *leaked*, eight for *confirmed*.
    pub passes: u32,
    /// How long one pass may take.
    pub deadline: Span,
    /// A process whose heap is larger is left out.
    pub max_heap: Size,
    /// What all passes may take, in per cent of one CPU.
    pub cpu_percent: f64,
}

impl Default for Proof {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Span::seconds(600),
            passes: 3,
            deadline: Span::seconds(20),
            max_heap: Size(1 << 30),
            cpu_percent: 0.1,
        }
    }
}

/// What is kept of the last minutes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlightRecorder {
    /// Memory for the last events of all processes together; 0 keeps none.
    pub memory: Size,
    /// Events older than this are dropped.
    pub keep: Span,
}

impl Default for FlightRecorder {
    fn default() -> Self {
        Self { memory: Size(16 << 20), keep: Span::seconds(120) }
    }
}

/// Where evidence is put.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evidence {
    /// A folder for each time that an alarm fires.
    pub directory: PathBuf,
    /// All of it together; the oldest goes first.
    pub max_size: Size,
    /// Free space that is left on the file system.
    pub min_free: Size,
    /// Whether what an alarm says is done even if its evidence could not be written.
    pub act_without: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/gotracer/evidence"),
            max_size: Size(1 << 30),
            min_free: Size(256 << 20),
            act_without: true,
        }
    }
}

/// What an alarm looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// The program's own goroutines.
    Goroutines,
    /// The share of them that is blocked, 0 to 1.
    BlockedShare,
    /// Goroutines more or less a second, since the last sample.
    GrowthPerSecond,
    /// Seconds until the memory limit is reached, by the pessimistic end of the forecast; nothing while memory does not grow.
    MemoryForecastSeconds,
    /// Resident memory as a share of the limit (cgroup or GOMEMLIMIT), 0 to 1.
    MemoryShare,
    /// Resident bytes.
    ResidentBytes,
    /// Bytes of goroutines' stacks.
    StackBytes,
    /// Channels that goroutines are blocked on.
    BlockedChannels,
    /// Timers that are set.
    ActiveTimers,
    /// Goroutines that are proven to be leaked.
    LeakedGoroutines,
}

/// When to act, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Its name, in metrics, logs and folders: letters, digits, `-`, `_`.
    pub name: AlarmName,
    /// What it looks at.
    pub figure: Figure,
    /// Fires above this ...
    pub above: Option<f64>,
    /// ... or below this.
    pub below: Option<f64>,
    /// So many samples in a row.
    #[serde(default = "three")]
    pub samples: u32,
    /// Only for a process with more goroutines than this.
    #[serde(default)]
    pub min_goroutines: u64,
    /// Which processes.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// After it has fired for a process it does nothing for that process for so long.
    #[serde(default = "ten_minutes")]
    pub cooldown: Span,
    /// And no more often than this in an hour, all processes together.
    #[serde(default = "six")]
    pub max_per_hour: u32,
    /// Only say what would be done; evidence is written all the same.
    #[serde(default)]
    pub dry_run: bool,
    /// What to do once the evidence is safe.
    #[serde(default)]
    pub act: Act,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Act {
    /// A file that is created: a load balancer's health check looks at it.
    pub touch: Option<PathBuf>,
    /// A signal to the process.
    pub signal: Option<Signal>,
    /// What its cgroup's `memory.high` is set to.
    pub memory_high: Option<MemoryHigh>,
    /// A program and its arguments; no shell.
    pub hook: Vec<String>,
    /// How long the hook may take; then it is killed.
    pub hook_timeout: Span,
    /// An address that gets the alarm as JSON by POST.
    pub webhook: Option<String>,
    /// How long the webhook may take.
    pub webhook_timeout: Span,
}

impl Default for Act {
    fn default() -> Self {
        Self {
            touch: None,
            signal: None,
            memory_high: None,
            hook: Vec::new(),
            hook_timeout: Span::seconds(30),
            webhook: None,
            webhook_timeout: Span::seconds(10),
        }
    }
}

/// The name of an alarm, which is part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AlarmName(String);

impl AlarmName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AlarmName {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let name = String::deserialize(input)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            let why = format!("`{name}` is no name of an alarm; use up to 64 letters, digits, - and _");
            return Err(serde::de::Error::custom(why));
        }
        Ok(Self(name))
    }
}

fn three() -> u32 {
    3
}

fn six() -> u32 {
    6
}

fn ten_minutes() -> Span {
    Span::seconds(600)
}

fn default_alarms() -> Vec<Alarm> {
    toml::from_str::<OnlyAlarms>(DEFAULTS).map(|defaults| defaults.alarm).unwrap_or_default()
}

#[derive(Deserialize)]
struct OnlyAlarms {
    alarm: Vec<Alarm>,
}

impl Config {
    /// Reads the configuration at `path`; without one, the defaults.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or something in it is wrong; then the error says where.
    pub fn load(path: Option<&std::path::Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse(DEFAULTS).map_err(|why| ConfigError::Wrong { path: PathBuf::from("(built in)"), why });
        };
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|why| ConfigError::Wrong { path: path.to_owned(), why })
    }

    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// Where and what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        // TOML's own errors name line, column and key, and quote the line.
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    /// What no single key can say of itself.
    fn check(&self) -> Result<(), String> {
        let http = &self.http;
        let tls = http.tls_certificate.is_some() && http.tls_key.is_some();
        if http.tls_certificate.is_some() != http.tls_key.is_some() {
            return Err("[http] tls_certificate and tls_key belong together: give both or neither".into());
        }
        if !http.listen.ip().is_loopback() && (!tls || http.token_file.is_none()) {
            return Err(format!(
                "[http] listen = \"{}\" is not a loopback address: stacks and names of functions would be for everybody. \
                 Give tls_certificate, tls_key and token_file, or listen on 127.0.0.1",
                http.listen
            ));
        }
        for (key, percent) in [
            ("[budget] process_percent", self.budget.process_percent),
            ("[budget] host_percent", self.budget.host_percent),
            ("[proof] cpu_percent", self.proof.cpu_percent),
        ] {
            if !(percent > 0.0 && percent <= 100.0) {
                return Err(format!("{key} = {percent} is not above 0 and up to 100"));
            }
        }
        if self.proof.passes == 0 {
            return Err("[proof] passes = 0 proves nothing; enabled = false leaves it".into());
        }
        for (key, span) in [
            ("[discovery] scan_interval", self.discovery.scan_interval),
            ("[metrics] sample_interval", self.metrics.sample_interval),
            ("[metrics] snapshot_interval", self.metrics.snapshot_interval),
            ("[otlp] interval", self.otlp.interval),
            ("[proof] interval", self.proof.interval),
        ] {
            if span.0 < std::time::Duration::from_millis(100) {
                return Err(format!("{key} is shorter than 100ms"));
            }
        }
        if let Some(endpoint) = &self.otlp.endpoint {
            check_url("[otlp] endpoint", endpoint)?;
        }
        let mut names = std::collections::BTreeSet::new();
        for alarm in &self.alarm {
            let name = alarm.name.as_str();
            if !names.insert(name) {
                return Err(format!("[[alarm]] two of them are called {name}"));
            }
            if alarm.above.is_some() == alarm.below.is_some() {
                return Err(format!("[[alarm]] {name}: give either above or below"));
            }
            if alarm.samples == 0 {
                return Err(format!("[[alarm]] {name}: samples = 0 never holds; 1 is the fewest"));
            }
            if let Some(webhook) = &alarm.act.webhook {
                check_url(&format!("[[alarm]] {name}: act.webhook"), webhook)?;
            }
            if alarm.act.hook.first().is_some_and(|program| !program.starts_with('/')) {
                return Err(format!("[[alarm]] {name}: act.hook names no program by its full path"));
            }
        }
        Ok(())
    }
}

fn check_url(key: &str, url: &str) -> Result<(), String> {
    let uri: Result<hyper::Uri, _> = url.parse();
    match uri {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => Ok(()),
        _ => Err(format!("{key} = \"{url}\" is no http:// or https:// address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_holds_without_a_file() {
        let printed = Config::parse(DEFAULTS).expect("the defaults are right");
        let empty = Config::parse("").expect("nothing is a configuration");
        assert_eq!(printed, empty);
        assert_eq!(printed.alarm.len(), 4);
    }

    /// Keys of `config` that `text` does not have, commented out or not.
    fn missing(config: &toml::Value, path: &str, text: &str, found: &mut Vec<String>) {
        let Some(table) = config.as_table() else { return };
        for (key, value) in table {
            let written = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{key} =")) || line.contains(&format!("{key}]"))
            });
            if !written {
                found.push(format!("{path}.{key}"));
            }
            missing(value, key, text, found);
        }
    }

    #[test]
    fn every_key_is_printed() {
        let full = r#"
            [[rule]]
            action = "deny"
            exe = "x"
            args = "x"
            container = "x"
            cgroup = "x"
            [http]
            tls_certificate = "/c"
            tls_key = "/k"
            token_file = "/t"
            [otlp]
            endpoint = "http://x"
            [log]
            file = "/f"
            [[alarm]]
            name = "x"
            figure = "goroutines"
            above = 1.0
            act = { touch = "/t", signal = "SIGUSR1", memory_high = "90%", hook = ["/x"], webhook = "http://x" }
            match = { exe = "x", args = "x", container = "x", cgroup = "x" }
        "#;
        let config = Config::parse(full).expect("right");
        let value = toml::Value::try_from(&config).expect("serialises");
        let mut found = Vec::new();
        missing(&value, "", DEFAULTS, &mut found);
        assert!(found.is_empty(), "not in defaults.toml: {found:?}");
    }

    #[test]
    fn errors_name_line_and_key() {
        let error = Config::parse("[http]\nlisten = \"127.0.0.1:1\"\nport = 3\n").expect_err("no such key");
        assert!(error.contains("line 3") && error.contains("port"), "{error}");
        let error = Config::parse("[discovery]\nscan_interval = \"5x\"\n").expect_err("no duration");
        assert!(error.contains("line 2") && error.contains("5x"), "{error}");
        let error = Config::parse("[[rule]]\naction = \"deny\"\nexe = \"(\"\n").expect_err("no pattern");
        assert!(error.contains("line 3") && error.contains("regular expression"), "{error}");
        let error = Config::parse("[http]\nlisten = \"0.0.0.0:9467\"\n").expect_err("for everybody");
        assert!(error.contains("listen") && error.contains("token_file"), "{error}");
        let alarm = "[[alarm]]\nname = \"a b\"\nfigure = \"goroutines\"\nabove = 1\n";
        let error = Config::parse(alarm).expect_err("no name");
        assert!(error.contains("line 2") && error.contains("a b"), "{error}");
        let alarm = "[[alarm]]\nname = \"a\"\nfigure = \"goroutines\"\n";
        assert!(Config::parse(alarm).expect_err("no bound").contains("above or below"));
        assert!(Config::parse("[budget]\nhost_percent = 0\n").expect_err("no budget").contains("host_percent"));
    }
}

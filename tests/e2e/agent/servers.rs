//! Servers that nobody here wrote, as Debian builds them: does the agent see of them what they say of themselves?

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder, ask};
use gotracer_tests::child::{Running, poll};
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    let trial = |server: &'static Server| trial(format!("agent::beside_ours::{}", server.name), || beside_ours(server));
    SERVERS.iter().map(trial).collect()
}

/// Where each tells how many goroutines it has, in the first line. Not from `go_goroutines` of its own metrics: that is
/// counted while the collectors run, each in a goroutine of its own, and Caddy then has five more than a moment before.
const PROFILE: &str = "/debug/pprof/goroutine?debug=1";

struct Server {
    name: &'static str,
    program: &'static str,
    /// Where it tells Prometheus how many threads it has.
    metrics: Option<&'static str>,
    /// Its arguments: a folder of its own, where it is to tell, and two free ports.
    arrange: fn(&mut Command, &Path, &str, [u16; 2]) -> Result<()>,
}

const SERVERS: [Server; 4] = [
    Server {
        name: "prometheus",
        program: "/usr/bin/prometheus",
        metrics: Some("/metrics"),
        arrange: |command, folder, address, _| {
            let config = folder.join("prometheus.yml");
            let scrape = format!("- job_name: self\n  static_configs: [{{targets: ['{address}']}}]\n");
            fs::write(&config, format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{scrape}"))?;
            command.arg("--config.file").arg(config).arg("--storage.tsdb.path").arg(folder.join("data"));
            command.arg(format!("--web.listen-address={address}"));
            Ok(())
        },
    },
    Server {
        name: "etcd",
        program: "/usr/bin/etcd",
        metrics: Some("/metrics"),
        arrange: |command, folder, address, [peers, _]| {
            let (clients, peers) = (format!("http://{address}"), format!("http://127.0.0.1:{peers}"));
            command.arg("--data-dir").arg(folder.join("data"));
            command.arg("--enable-pprof").args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
            command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
            command.args(["--initial-cluster", &format!("default={peers}")]);
            Ok(())
        },
    },
    Server {
        name: "caddy",
        program: "/usr/bin/caddy",
        metrics: Some("/metrics"),
        arrange: |command, folder, address, [port, _]| {
            let config = folder.join("caddy.json");
            let routes = r#"[{"handle":[{"handler":"static_response","body":"hello"}]}]"#;
            let server = format!(r#"{{"listen":["127.0.0.1:{port}"],"routes":{routes}}}"#);
            let apps = format!(r#"{{"http":{{"servers":{{"one":{server}}}}}}}"#);
            fs::write(
                &config,
                format!(r#"{{"admin":{{"listen":"{address}","origins":["localhost"]}},"apps":{apps}}}"#),
            )?;
            command.env("HOME", folder).args(["run", "--config"]).arg(config);
            Ok(())
        },
    },
    Server {
        name: "nats-server",
        program: "/usr/sbin/nats-server",
        metrics: None,
        arrange: |command, folder, address, [port, _]| {
            let profile = address.rsplit(':').next().unwrap_or_default();
            let config = folder.join("nats.conf");
            fs::write(&config, format!("host: 127.0.0.1\nport: {port}\nprof_port: {profile}\n"))?;
            command.arg("-c").arg(config);
            Ok(())
        },
    },
];

impl Server {
    /// Goroutines, and threads where it tells them.
    fn ask(&self, address: SocketAddr) -> Result<(f64, Option<f64>)> {
        let goroutines = figure(address, PROFILE, "goroutine profile: total ")?;
        let threads = self.metrics.map(|path| figure(address, path, "go_threads ")).transpose()?;
        Ok((goroutines, threads))
    }
}

/// The figure in the first line of an answer that starts with `name`.
fn figure(address: SocketAddr, path: &str, name: &str) -> Result<f64> {
    let (status, body) = ask(address, path, "")?;
    let text = String::from_utf8_lossy(&body);
    ensure!(status == 200, "{path} answers {status}: {text}");
    let figure = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    figure.with_context(|| format!("no {name:?} in {path}"))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn beside_ours(server: &Server) -> Result<()> {
    require_root_and_bpf()?;
    let program = Path::new(server.program);
    if !program.is_file() {
        return Err(Skip(format!("there is no {} (Debian has it)", server.program)).into());
    }
    let folder = Folder::new(server.name)?;
    let ours = Program::start(&folder.copy(&newest("idle")?)?, &["-n", "1"])?;
    let address: SocketAddr = format!("127.0.0.1:{}", free_port()?).parse()?;
    let mut command = Command::new(folder.copy(program)?);
    (server.arrange)(&mut command, folder.path(), &address.to_string(), [free_port()?, free_port()?])?;
    let running = Running::start(server.name, &mut command)?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(ours.pid())?;
    agent.await_watched(running.pid())?;
    // What it says of itself, as near as two moments can be: it has a goroutine or two more while it answers.
    let mut seen = None;
    let near = poll(|| {
        let Ok((goroutines, threads)) = server.ask(address) else { return Ok(None) };
        let metrics = agent.metrics()?;
        let figure = |name| metrics.of(running.pid(), name);
        let found = (figure("go_goroutines"), figure("go_threads"));
        seen = Some((goroutines, threads, found));
        let goroutines_fit = found.0.is_some_and(|found| (found - goroutines).abs() <= 3.0);
        let threads_fit = threads.is_none_or(|threads| found.1.is_some_and(|found| (found - threads).abs() <= 3.0));
        Ok((goroutines_fit && threads_fit).then_some(()))
    });
    near.with_context(|| format!("it says, and the agent says: {seen:?}"))?;
    let lost = agent.metrics()?.of(running.pid(), "gotracer_events_lost_around_total");
    ensure!(lost == Some(0.0), "events were lost: {lost:?}");
    agent.stop()
}

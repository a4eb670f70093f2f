//! Servers that nobody here wrote, beside ours.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::real_servers_beside_ours", real_servers)]
}

/// Debian's Prometheus, stripped and built with an old Go, beside a program of ours.
fn real_servers() -> Result<()> {
    require_root_and_bpf()?;
    let prometheus = Path::new("/usr/bin/prometheus");
    if !prometheus.is_file() {
        return Err(Skip("there is no /usr/bin/prometheus (Debian's package prometheus)".into()).into());
    }
    let folder = Folder::new("servers")?;
    let server = folder.copy(prometheus)?;
    let ours = folder.copy(&newest("idle")?)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = folder.path().join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        ),
    )?;
    let mut command = Command::new(&server);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let running = gotracer_tests::child::Running::start("prometheus", &mut command)?;
    let program = Program::start(&ours, &["-n", "1"])?;
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    agent.await_watched(running.pid())?;
    // What it says of itself, as near as two moments can be.
    let address = format!("127.0.0.1:{port}").parse()?;
    let near = poll(|| {
        let text = String::from_utf8(gotracer_tests::agent::ask(address, "/metrics", "")?.1)?;
        let of = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        let metrics = agent.metrics()?;
        let (theirs, threads) = (of("go_goroutines ").context("none")?, of("go_threads ").context("none")?);
        let seen = metrics.of(running.pid(), "go_goroutines").context("none")?;
        let seen_threads = metrics.of(running.pid(), "go_threads").unwrap_or_default();
        Ok(((seen - theirs).abs() <= 3.0 && (seen_threads - threads).abs() <= 3.0).then_some((seen, theirs)))
    });
    near.context("its own go_goroutines and go_threads are others than ours")?;
    agent.stop()
}

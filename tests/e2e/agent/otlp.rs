//! What reaches a collector?

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::environment::require_root_and_bpf;
use libtest_mimic::Trial;

use super::{QUICK, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::otlp_reaches_a_collector", otlp)]
}

fn otlp() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("otlp")?;
    let path = folder.copy(&newest("idle")?)?;
    let program = Program::start(&path, &["-n", "2"])?;
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = collector.local_addr()?;
    let more = format!(
        "{QUICK}[otlp]\nendpoint = \"http://{endpoint}\"\ninterval = \"300ms\"\nheaders = {{ x-test = \"yes\" }}\n"
    );
    let agent = Agent::start(&folder, &more)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        ensure!(Instant::now() < deadline, "no figures of the program reach the collector");
        let (mut stream, _) = collector.accept()?;
        let (head, body) = read_request(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        ensure!(head.starts_with("POST /v1/metrics ") && head.to_lowercase().contains("x-test: yes"), "{head}");
        ensure!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
        // Strings stand as they are in protobuf; the unit tests read the messages.
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        if has("go.goroutine.count") && has("main.startIdle") {
            ensure!(has("service.name") && has("process.runtime.version"), "no resource");
            break;
        }
    }
    drop(program);
    agent.stop()
}

fn read_request(stream: &mut impl std::io::Read) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the request ends in its head");
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes)?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.context("no length")?.trim().parse()?;
    let mut rest = vec![0; length - body.len()];
    stream.read_exact(&mut rest)?;
    Ok((head, [body, rest].concat()))
}

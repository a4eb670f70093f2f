//! Is a wrong configuration told, and is nothing told to who has no token?

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use gotracer_tests::tracer::Refusal;
use libtest_mimic::Trial;

use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::wrong_configurations", wrong_configurations),
        trial("agent::a_token_and_tls_from_elsewhere", elsewhere),
    ]
}

fn wrong_configurations() -> Result<()> {
    let folder = Folder::new("wrong")?;
    let refuse = |text: &str| -> Result<String> {
        let path = folder.path().join("wrong.toml");
        fs::write(&path, text)?;
        let refusal = Refusal::of(
            Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--check", "--config"]).arg(&path),
        )?;
        ensure!(refusal.status.code() == Some(1), "{text} was not refused: {refusal:?}");
        Ok(refusal.stderr.join("\n"))
    };
    for (text, expected) in [
        ("[discovery]\nscan = 1\n", "line 2"),
        ("[discovery]\nscan = 1\n", "scan"),
        ("[metrics]\n\nsample_interval = \"soon\"\n", "line 3"),
        ("[http]\nlisten = \"0.0.0.0:80\"\n", "token_file"),
        ("[[alarm]]\nname = \"x\"\nfigure = \"mood\"\nabove = 1\n", "mood"),
        ("not toml", "line 1"),
    ] {
        let said = refuse(text)?;
        ensure!(said.contains(expected), "{expected} is not in\n{said}");
    }
    // What is printed is a configuration, and right.
    let printed = Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--print-config"]).output()?;
    let path = folder.path().join("printed.toml");
    fs::write(&path, printed.stdout)?;
    let status = Command::new(gotracer_tests::environment::gotracer()?)
        .args(["agent", "--check", "--config"])
        .arg(&path)
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "the printed configuration is refused");
    require_root_and_bpf()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let config = Agent::config(&folder, "").replace("127.0.0.1:0", &taken.local_addr()?.to_string());
    fs::write(&path, config)?;
    let refusal =
        Refusal::of(Command::new(gotracer_tests::environment::gotracer()?).args(["agent", "--config"]).arg(&path))?;
    let said = refusal.stderr.join("\n");
    ensure!(refusal.status.code() == Some(1) && said.contains("cannot listen on"), "{said}");
    Ok(())
}

fn elsewhere() -> Result<()> {
    require_root_and_bpf()?;
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return Err(Skip("there is no openssl to make a certificate with".into()).into());
    }
    let folder = Folder::new("tls")?;
    let (certificate, key, token) =
        (folder.path().join("c.pem"), folder.path().join("k.pem"), folder.path().join("token"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl made no certificate");
    fs::write(&token, "sesame\n")?;
    let http = format!(
        "listen = \"0.0.0.0:0\"\ntls_certificate = \"{}\"\ntls_key = \"{}\"\ntoken_file = \"{}\"",
        certificate.display(),
        key.display(),
        token.display()
    );
    let config = folder.path().join("agent.toml");
    let agent = Agent::start_with(&folder, "", |_| {
        let _ = fs::write(&config, Agent::config(&folder, "").replace("listen = \"127.0.0.1:0\"", &http));
    })?;
    let port = agent.address().port();
    let ask = |header: &str| -> Result<String> {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdin = openssl.stdin.take().context("no stdin")?;
        write!(stdin, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")?;
        let mut answer = String::new();
        openssl.stdout.take().context("no stdout")?.read_to_string(&mut answer)?;
        openssl.wait()?;
        Ok(answer)
    };
    ensure!(ask("Authorization: Bearer sesame\r\n")?.starts_with("HTTP/1.1 200"), "who has the token is refused");
    ensure!(ask("")?.starts_with("HTTP/1.1 401") && ask("Authorization: Bearer x\r\n")?.starts_with("HTTP/1.1 401"));
    agent.stop()
}

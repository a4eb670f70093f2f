//! Load from wrk, and what wrk says of it.

use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::bench::subject::with_us;
use crate::workspace::{output, target};

/// How the requests come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Load {
    /// Each connection asks again at once.
    Saturating,
    /// Each connection waits first: a rate that the server can serve with probes, too.
    Paced,
}

/// What wrk says of a run.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    pub requests: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Load {
    const fn connections(self) -> u32 {
        match self {
            Self::Saturating => 32,
            Self::Paced => 40,
        }
    }

    /// wrk's script.
    const fn script(self) -> Option<&'static str> {
        match self {
            Self::Saturating => None,
            Self::Paced => Some("function delay() return 2 end\n"),
        }
    }

    /// What tells the two apart in a heading.
    pub fn title(self) -> String {
        let connections = self.connections();
        match self {
            Self::Saturating => format!("all that wrk's {connections} connections can ask"),
            Self::Paced => format!("{connections} connections that wait 2 ms before each request"),
        }
    }

    /// wrk, asking a server on this machine; it does not outlive us.
    pub fn wrk(self, port: u64, seconds: u64) -> Result<Command> {
        let mut command = Command::new("wrk");
        command.args(["--latency", "-t", "1", "-c", &self.connections().to_string(), "-d", &format!("{seconds}s")]);
        if let Some(script) = self.script() {
            let path = target().join("wrk.lua");
            std::fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
            command.arg("-s").arg(path);
        }
        with_us(&mut command).arg(format!("http://127.0.0.1:{port}/"));
        Ok(command)
    }

    /// Asks for so long.
    pub fn run(self, port: u64, seconds: u64) -> Result<Answers> {
        let said = output(&mut self.wrk(port, seconds)?)?;
        let field = |start: &str| {
            let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix(start));
            line.map(str::trim).with_context(|| format!("wrk did not say {start:?}:\n{said}"))
        };
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")).map(|(count, _)| count);
        let requests =
            requests.and_then(|count| count.parse().ok()).with_context(|| format!("wrk made none:\n{said}"))?;
        Ok(Answers {
            requests,
            per_second: field("Requests/sec:")?.parse()?,
            p50_us: microseconds(field("50%")?)?,
            p99_us: microseconds(field("99%")?)?,
        })
    }
}

/// wrk's times: `12.3us`, `1.2ms`, `1.00s`.
fn microseconds(text: &str) -> Result<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return Err(anyhow!("wrk's time {text:?} is none")),
    };
    Ok(number.parse::<f64>()? * factor)
}

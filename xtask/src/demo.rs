//! `cargo xtask demo`: on a fresh machine, from nothing to a table of leaked goroutines.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::privileges::is_root;
use crate::programs;
use crate::workspace::{cargo, execute, on_path, say, target};

#[derive(clap::Args)]
pub struct Args {
    /// How long to trace
    #[arg(long = "for", value_name = "DURATION", default_value = "5s")]
    duration: String,
    /// Requests a second that the server gets
    #[arg(long, default_value_t = 100)]
    load: u32,
}

pub fn run(args: &Args) -> Result<()> {
    say("building gotracer");
    execute(cargo().args(["build", "--release", "--package", "gotracer"]))?;
    let gotracer = target().join("release/gotracer");
    let server = programs::build_one("leakyserver")?;

    let mut server = Server::start(Command::new(&server).args(["-load", &args.load.to_string()]))?;
    let pid = server.await_ready()?.to_string();
    say(format!("a server that leaks goroutines runs as process {pid}, unmodified, with {} requests/s", args.load));

    let mut trace = if is_root() {
        Command::new(&gotracer)
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&gotracer);
        sudo
    } else {
        bail!("tracing needs root: run `cargo xtask demo` as root");
    };
    // Each event would be a line; here the table at the end is what counts.
    trace.args(["trace", "--pid", &pid, "--for", &args.duration, "--output", "/dev/null"]);
    say(format!("gotracer trace --pid {pid} --for {}", args.duration));
    execute(&mut trace)?;
    say("the go statements of main.search, main.makeReport and main.subscribe leak; that of main.healthy does not");
    Ok(())
}

/// The server, which ends with the demo.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?))
    }

    /// Its process id, once it serves.
    fn await_ready(&mut self) -> Result<u32> {
        let stdout = self.0.stdout.as_mut().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("READY") {
            bail!("the server did not get ready: {line:?}");
        }
        Ok(self.0.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

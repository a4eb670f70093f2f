//! `cargo xtask demo`: on a fresh machine, from nothing to the line that leaks goroutines.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::privileges::is_root;
use crate::programs;
use crate::workspace::{cargo, execute, on_path, say, target};

#[derive(clap::Args)]
pub struct Args {
    /// How the server leaks
    #[arg(long, value_enum, default_value_t = Leak::All)]
    leak: Leak,
    /// How long to observe
    #[arg(long = "for", value_name = "DURATION", default_value = "15s")]
    duration: String,
    /// Requests a second that the server gets
    #[arg(long, default_value_t = 100)]
    load: u32,
}

/// The ways in which the server can leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Leak {
    /// A result that nobody waits for any more
    Channel,
    /// A worker that is not told of its request's end
    Context,
    /// A ticker that is never stopped
    Ticker,
    /// All three
    All,
    /// It does not
    None,
}

impl Leak {
    /// As the server's flag calls it.
    fn flag(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Context => "context",
            Self::Ticker => "ticker",
            Self::All => "all",
            Self::None => "none",
        }
    }

    /// Where it does.
    fn told(self) -> &'static str {
        match self {
            Self::Channel => "the go statement of main.search leaks",
            Self::Context => "the go statement of main.makeReport leaks",
            Self::Ticker => "the go statement of main.subscribe leaks",
            Self::All => {
                "the go statements of main.search, main.makeReport and main.subscribe leak; that of main.healthy does not"
            }
            Self::None => "nothing leaks: what was told is steady",
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    say("building gotracer");
    execute(cargo().args(["build", "--release", "--package", "gotracer"]))?;
    let gotracer = target().join("release/gotracer");
    let server = programs::build_one("leakyserver")?;

    let mut server =
        Server::start(Command::new(&server).args(["-load", &args.load.to_string(), "-leak", args.leak.flag()]))?;
    let pid = server.await_ready()?.to_string();
    say(format!("a Go server runs as process {pid}, unmodified, with {} requests/s", args.load));

    let mut leaks = if is_root() {
        Command::new(&gotracer)
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&gotracer);
        sudo
    } else {
        bail!("tracing needs root: run `cargo xtask demo` as root");
    };
    leaks.args(["leaks", "--pid", &pid, "--for", &args.duration]);
    say(format!("gotracer leaks --pid {pid} --for {}", args.duration));
    execute(&mut leaks)?;
    say(args.leak.told());
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

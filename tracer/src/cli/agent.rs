//! `gotracer agent`: every Go process of this host, for as long as it runs.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::agent::config::{Config, DEFAULTS};

/// Watch every Go process of this host: metrics for Prometheus, alarms, evidence before a crash
#[derive(Args)]
#[command(after_help = "\
Examples:
  gotracer agent                                      with the defaults; then: curl localhost:9467/metrics
  gotracer agent --print-config > agent.toml          every default with its meaning, to be changed
  gotracer agent --config agent.toml
  gotracer agent --config agent.toml --check          is the file right? exit code 1 and the line if not

SIGHUP reads the file again, SIGTERM ends it. docs/agent.md has the metrics, the addresses and how to install it.")]
pub(super) struct AgentArguments {
    /// The configuration, TOML
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the default configuration with the meaning of every key, and end
    #[arg(long)]
    print_config: bool,
    /// Check the configuration, and end
    #[arg(long, conflicts_with = "print_config")]
    check: bool,
}

pub(super) fn agent(arguments: AgentArguments) -> Result<ExitCode, Failure> {
    if arguments.print_config {
        std::io::stdout().write_all(DEFAULTS.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(arguments.config.as_deref())?;
    if arguments.check {
        eprintln!("the configuration is right");
        return Ok(ExitCode::SUCCESS);
    }
    crate::agent::run(arguments.config, config, Box::new(std::io::stdout()), |address| {
        eprintln!("watching this host's Go processes; metrics at http://{address}/metrics");
    })?;
    Ok(ExitCode::SUCCESS)
}

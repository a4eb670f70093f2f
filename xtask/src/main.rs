//! `cargo xtask`: everything around gotracer that is not gotracer itself.

mod cross;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Cross(cross::CrossArgs),
    Vm(vm::VmArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Cross(args) => cross::run(args),
        Command::Vm(args) => vm::run(args),
    }
}

//! `cargo xtask`: everything around gotracer that is not gotracer itself.
//!
//! One file per subcommand. What several of them need stands in [`workspace`] (where things are, running commands)
//! and [`toolchains`] (Go, the eBPF compiler and linker, Debian packages: found, or fetched, or asked for).

mod bench;
mod cross;
mod demo;
mod ebpf;
mod layouts;
mod privileges;
mod programs;
mod test;
mod toolchains;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try and check gotracer", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trace a small Go server that leaks goroutines, and print what was seen
    Demo(demo::Args),
    /// Everything the tests need, then the tests
    Test(test::Args),
    /// Build the eBPF objects from tracer-ebpf into tracer/*.bpf.o
    Ebpf(ebpf::Args),
    /// Make the layout tables of the Go runtime from real toolchains
    Layouts(layouts::Args),
    /// Build the Go programs that the tests trace
    Programs(programs::Args),
    /// Find or fetch Go toolchains and what else a full build needs
    Toolchains(toolchains::Args),
    /// Measure what tracing costs, beside its baselines, and print the figures as Markdown
    Bench(bench::Args),
    /// Build static release binaries, also for the other architecture
    Cross(cross::CrossArgs),
    /// Run the end-to-end tests in a virtual machine of another kernel or architecture
    Vm(vm::VmArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Layouts(args) => layouts::run(&args),
        Command::Programs(args) => programs::run(&args),
        Command::Toolchains(args) => toolchains::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Cross(args) => cross::run(args),
        Command::Vm(args) => vm::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, and no backtrace: these are mostly other programs' failures.
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

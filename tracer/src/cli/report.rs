//! `gotracer report`: what a recording tells.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::convert::open;
use super::{Failure, sink};
use crate::output::report::{Report, html, text};

/// Show what is in a recording: sites, wait reasons, longest blocks, lifetimes, who creates whom
#[derive(Args)]
#[command(after_help = "\
Reads .gtr and .jsonl (also .jsonl.zst, and what gotracer trace --json printed).

Examples:
  gotracer report shop.gtr
  gotracer report shop.gtr --html shop.html    one page with plots, to be opened in a browser, also offline
  gotracer report shop.gtr --json | jq '.sites[0]'")]
pub(super) struct ReportArguments {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write a page with plots to this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Replace the page if it is there
    #[arg(long, requires = "html")]
    force: bool,
}

pub(super) fn report(arguments: &ReportArguments) -> Result<ExitCode, Failure> {
    let mut source = open(&arguments.file)?;
    let report = Report::of(&mut source).map_err(|error| format!("{}: {error}", arguments.file.display()))?;
    if let Some(path) = &arguments.html {
        let mut options = OpenOptions::new();
        options.write(true);
        if arguments.force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => format!("{} exists; with --force it is replaced", path.display()),
            _ => format!("cannot write {}: {error}", path.display()),
        })?;
        let mut page = BufWriter::new(file);
        let written = html::write(&mut page, &report).and_then(|()| page.flush());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        eprintln!("{}", path.display());
    } else {
        let mut out = sink(None)?;
        if arguments.json {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        } else {
            text::write(&mut out, &report)?;
        }
        out.flush()?;
    }
    Ok(if report.damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

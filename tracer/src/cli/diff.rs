//! `gotracer diff`: what is different between two dumps or recordings.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::leaks::{Material, open};
use super::{Failure, sink};
use crate::analysis::diff;
use crate::output::leaks::write_diff;

/// Compare two dumps or recordings: which go statement has more goroutines, where they stand
#[derive(Args)]
#[command(after_help = "\
Of a recording its end is compared. Two dumps of one process also tell rates and how many stayed.

Examples:
  gotracer dump --pid 1234 --json > a.json
  gotracer dump --pid 1234 --json > b.json
  gotracer diff a.json b.json
  gotracer diff yesterday.gtr today.gtr --json | jq '.sites[0]'")]
pub(super) struct DiffArguments {
    /// The first: the output of `dump --json`, or a recording
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// So many sites at most
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
    /// Print to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn diff_files(arguments: &DiffArguments) -> Result<ExitCode, Failure> {
    let mut out = sink(arguments.output.as_ref())?;
    let (before, after) = (open(&arguments.before, |_| {})?, open(&arguments.after, |_| {})?);
    let found = diff(&before.last, &after.last, stayed(&before, &after).as_ref());
    if arguments.json {
        crate::output::json::line(&mut out, &found)?;
    } else {
        let names = [&arguments.before, &arguments.after].map(|path| path.display().to_string());
        write_diff(&mut out, &found, [&names[0], &names[1]], arguments.limit)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// For each site, how many goroutines are in both; `None` if the two are of different processes.
fn stayed(before: &Material, after: &Material) -> Option<hashbrown::HashMap<crate::analysis::SiteKey, u64>> {
    let (first, second) = (before.sites_of.as_ref()?, after.sites_of.as_ref()?);
    if before.subject.name != after.subject.name || before.pid != after.pid || before.pid.is_none() {
        return None;
    }
    let mut stayed = hashbrown::HashMap::new();
    for (goid, key) in first {
        if second.get(goid) == Some(key) {
            *stayed.entry(key.clone()).or_default() += 1;
        }
    }
    Some(stayed)
}

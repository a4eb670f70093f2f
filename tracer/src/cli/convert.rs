//! `gotracer convert`: a recording in another form.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::output::recording::{Format, jsonl};
use crate::recording::live::{Convert, Paths};
use crate::recording::{Damage, ReadError, Source, gtr};

/// Convert a recording to another form
#[derive(Args)]
#[command(after_help = "\
Reads .gtr and .jsonl (also .jsonl.zst, and what gotracer trace --json printed); writes whatever gotracer record writes.

Examples:
  gotracer convert shop.gtr shop.pftrace      then open it in https://ui.perfetto.dev
  gotracer convert shop.gtr shop.parquet      then: duckdb -c \"select event, count(*) from 'shop.parquet' group by 1\"
  gotracer convert shop.gtr shop.pb.gz        then: go tool pprof -top shop.pb.gz")]
pub(super) struct ConvertArguments {
    /// The recording
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The file to write; its extension says what
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// What is written, whatever the file is called
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// What can be read.
const RECORDINGS: &str = "what can be read is .gtr, .jsonl, .jsonl.zst and what trace --json prints";

/// Opens a recording of any form that can be read: by what is in it, whatever it is called.
pub(super) fn open(path: &Path) -> Result<Box<dyn Source>, Failure> {
    open_or(path, RECORDINGS)
}

/// As [`open`], where more than recordings can be read: `forms` says what, to who comes with something else.
pub(super) fn open_or(path: &Path, forms: &str) -> Result<Box<dyn Source>, Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let refused = |error: ReadError| match error {
        ReadError::Foreign { .. } => named(&format!("{error}; {forms}")),
        error => named(&error),
    };
    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(named(&"this is a directory").into());
    }
    // Enough to tell the forms apart. It stays in front: the file may be a pipe.
    let mut first = Vec::new();
    (&file).take(8).read_to_end(&mut first).map_err(|error| named(&error))?;
    if let Some(form) = written_only(&first) {
        return Err(named(&format!("this is {form}, which gotracer writes and does not read; {forms}")).into());
    }
    let is_lines = first.starts_with(b"{") || first.starts_with(&jsonl::ZSTD);
    let whole = std::io::Cursor::new(first).chain(file);
    Ok(match is_lines {
        true => Box::new(jsonl::Reader::new(whole).map_err(refused)?),
        false => Box::new(gtr::Reader::new(whole).map_err(refused)?),
    })
}

/// The form of a file that begins so, if it is one that only others read. Perfetto's has no sign to tell it by.
fn written_only(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'P', b'A', b'R', b'1', ..] => Some("Parquet"),
        [0x1f, 0x8b, ..] => Some("compressed, as a profile for go tool pprof is"),
        _ => None,
    }
}

pub(super) fn convert(arguments: &ConvertArguments) -> Result<ExitCode, Failure> {
    let format = match arguments.format {
        Some(format) => format,
        None => Format::of(&arguments.to)?,
    };
    if same_file(&arguments.from, &arguments.to) {
        return Err("a recording cannot be converted into itself".into());
    }
    let mut source = open(&arguments.from)?;
    let paths = Paths { main: arguments.to.clone(), beside: format.beside(&arguments.to), force: arguments.force };
    let encoder = format.encoder(source.header())?;
    let mut convert = Convert::begin(paths, encoder)?;
    let mut ended = false;
    let mut damages = Vec::new();
    while let Some(item) = source.next().map_err(|error| format!("{}: {error}", arguments.from.display()))? {
        match &item {
            crate::recording::Item::End(_) => ended = true,
            crate::recording::Item::Damage(damage) => damages.push(damage.clone()),
            _ => {}
        }
        let failed = |error| format!("cannot write {}: {error}", arguments.to.display());
        convert.put(&item).map_err(failed)?;
    }
    convert.finish().map_err(|error| format!("cannot write {}: {error}", arguments.to.display()))?;
    Ok(tell_state(&arguments.from, ended, &damages))
}

/// Says what is not as it should be with a recording that was read to its end. What was lost of it makes the exit code 1; that
/// it was cut off does not, for nothing of it was lost.
pub(super) fn tell_state(path: &Path, ended: bool, damages: &[Damage]) -> ExitCode {
    for damage in damages.iter().take(5) {
        let events = damage.events.map_or(String::new(), |events| format!(", {events} events are missing"));
        eprintln!(
            "{} is damaged at byte {}: {} ({} bytes passed over{events})",
            path.display(),
            damage.offset,
            damage.what,
            damage.bytes
        );
    }
    if damages.len() > 5 {
        eprintln!("and in {} more places", damages.len() - 5);
    }
    if !damages.is_empty() {
        return ExitCode::FAILURE;
    }
    if !ended {
        eprintln!(
            "{} has no end: whoever wrote it was killed, or still writes; all up to there was read",
            path.display()
        );
    }
    ExitCode::SUCCESS
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

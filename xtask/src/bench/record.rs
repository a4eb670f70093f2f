//! What a recorded event costs: bytes in the file and CPU time to write it, of two real loads, beside the forms that others
//! read. Then what converting costs.
//!
//! The events are gathered first, by a session in this process; then each form is made of the same events, on one thread, into
//! a file. So a form's figure is its own, and not the load's or the kernel's.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gotracer::events::Event;
use gotracer::output::recording::Format;
use gotracer::process::Process;
use gotracer::recording::live::{Convert, Paths};
use gotracer::recording::names::RecordedNames;
use gotracer::recording::{Definitions, Header, Item, Program as RecordedProgram, Source as _, gtr};
use gotracer::session::Session;
use gotracer::units::{Pid, RemoteAddr};
use gotracer_tests::Program;

use super::stats::{Spread, shown};
use super::{Goal, Plan, cpu_time, report};
use crate::programs;
use crate::workspace::say;

/// A load, and what it is called.
const LOADS: [(&str, &str, &[&str]); 2] =
    [("ping-pong", "pingpong", &["-pairs", "16"]), ("HTTP", "httpload", &["-clients", "16"])];

/// What is written, the baseline of everybody's habit among it: JSON lines compressed by zstd.
const FORMS: [(Format, &str); 6] = [
    (Format::Gtr, "**.gtr**"),
    (Format::JsonlZst, ".jsonl.zst"),
    (Format::Jsonl, ".jsonl"),
    (Format::Parquet, ".parquet, both files"),
    (Format::Pftrace, ".pftrace"),
    (Format::PbGz, ".pb.gz"),
];

/// Events gathered at most: some 500 MB.
const MOST: usize = 8_000_000;

pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    let mut text = String::new();
    let mut goals = Vec::new();
    for (name, program, args) in LOADS {
        say(format!("recording {name}"));
        let (header, items) = gather(version, program, args, plan.load)?;
        let events: usize = items.iter().map(events_in).sum();
        let folder = std::env::temp_dir().join(format!("gotracer-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let _removed = Removed(folder.clone());
        let gtr = folder.join("bench.gtr");
        let _ = writeln!(
            text,
            "\n| {name}, {events} events | bytes an event | written, ns of CPU an event | events/s on one CPU | converted from .gtr, events/s on one CPU |\n| --- | --- | --- | --- | --- |"
        );
        for (format, title) in FORMS {
            let path = folder.join(format!("bench.{}", format.extension()));
            let (mut writing, mut converting, mut bytes) = (Vec::new(), Vec::new(), 0);
            for _ in 0..plan.loads {
                let begin = cpu_time::of_this_thread();
                write(&header, items.iter().map(|item| Ok(item.clone())), format, &path)?;
                writing.push(nanoseconds(begin, events));
                bytes = size(&path, format)?;
            }
            let copy = folder.join(format!("converted.{}", format.extension()));
            for _ in 0..plan.loads {
                let begin = cpu_time::of_this_thread();
                let mut reader = gtr::Reader::new(BufReader::new(File::open(&gtr)?))?;
                let header = reader.header().clone();
                write(&header, std::iter::from_fn(|| reader.next().transpose()), format, &copy)?;
                converting.push(1e9 / nanoseconds(begin, events));
            }
            let writing = Spread::of(writing);
            let rate = Spread::of(writing.into_iter().map(|spread| 1e9 / spread.middle));
            let converting = Spread::of(converting);
            let each = bytes as f64 / events as f64;
            let _ = writeln!(
                text,
                "| {title} | {each:.1} | {} | {} | {} |",
                shown(writing, 0),
                shown(rate, 0),
                shown(converting, 0)
            );
            if format == Format::Gtr {
                goals.push(Goal::at_most(format!("bytes an event of {name}"), Spread::of([each]), 12.0));
                goals.push(Goal::at_least(format!("events/s of {name} into .gtr on one CPU"), rate, 1e6));
            } else {
                let name = format!("events/s of {name} converted to .{} on one CPU", format.extension());
                goals.push(Goal::at_least(name, converting, 2e6));
            }
        }
    }
    text += &format!("\n{}", report::goals(&goals));
    Ok(text)
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nanoseconds(begin: Duration, events: usize) -> f64 {
    (cpu_time::of_this_thread() - begin).as_nanos() as f64 / events as f64
}

fn events_in(item: &Item) -> usize {
    if let Item::Events(events) = item { events.len() } else { 0 }
}

fn size(path: &Path, format: Format) -> Result<u64> {
    let beside = format.beside(path).map_or(Ok(0), |path| fs::metadata(path).map(|metadata| metadata.len()))?;
    Ok(fs::metadata(path)?.len() + beside)
}

fn write(
    header: &Header,
    items: impl Iterator<Item = Result<Item, gotracer::recording::ReadError>>,
    format: Format,
    path: &Path,
) -> Result<()> {
    let paths = Paths { main: path.to_owned(), beside: format.beside(path), force: true };
    let mut convert = Convert::begin(paths, format.encoder(header)?)?;
    for item in items {
        convert.put(&item?)?;
    }
    Ok(convert.finish()?)
}

/// What a session sees of a program for so long, named as a recording names it.
fn gather(version: &str, name: &str, args: &[&str], time: Duration) -> Result<(Header, Vec<Item>)> {
    let path = programs::build_with(name, version)?;
    let mut program = Program::start(&path, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let recorded = runtime.block_on(async {
        let mut session = Session::attach(Process::open(Pid(program.pid()))?)?;
        program.send("go")?;
        program.await_line("RUNNING")?;
        let header = Header::here(session.pid(), session.started(), session.level().name());
        let tracee = session.tracee().context("the program is gone")?;
        let bias = tracee.bias().context("the program is not located")?;
        let mut items = vec![Item::Program(RecordedProgram::of(tracee.program(), bias, 0))];
        let (end, mut events, mut named) = (Instant::now() + time, Vec::new(), RecordedNames::default());
        let mut gathered = 0;
        while Instant::now() < end && gathered < MOST {
            events.clear();
            session.next(Duration::from_millis(20), &mut events).await?;
            let definitions = definitions(&events, &mut session, &mut named);
            items.extend((!definitions.is_empty()).then_some(Item::Definitions(definitions)));
            gathered += events.len();
            // As the recording thread hands them to an encoder.
            items.extend(events.chunks(4096).map(|chunk| Item::Events(chunk.to_vec())));
        }
        Ok::<_, anyhow::Error>((header, items))
    });
    program.send("stop")?;
    program.tally().map_err(|error| anyhow!("{name}: {error:#}"))?;
    recorded
}

/// The names that events need for the first time.
fn definitions(events: &[Event], session: &mut Session, known: &mut RecordedNames) -> Definitions {
    use gotracer::events::Transition;
    use gotracer::output::Names;
    let mut new = Definitions::default();
    for event in events {
        if let Event::Goroutine { transition: Transition::Created { gopc, startpc, .. }, .. } = *event {
            let unknown = |name: &str, address: RemoteAddr| name == address.to_string();
            if unknown(&known.last().site(gopc).function, gopc) {
                let one = Definitions {
                    sites: vec![(gopc, session.names().site(gopc))],
                    functions: vec![(startpc, session.names().function(startpc))],
                    ..Definitions::default()
                };
                known.take(&Item::Definitions(one.clone()));
                new.sites.extend(one.sites);
                new.functions.extend(one.functions);
            }
        }
    }
    new
}

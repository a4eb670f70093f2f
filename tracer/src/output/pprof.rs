//! A goroutine profile in pprof's format, for `go tool pprof` and whatever else reads it.
//!
//! In: groups of equal goroutines. Out: gzip of a `profile.proto`. Samples have two values, goroutines and bytes of stack
//! memory, and the labels `state` and those of the goroutine's own.
//!
//! The messages: <https://github.com/google/pprof/blob/main/proto/profile.proto>.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use hashbrown::HashMap;
use prost::Message;

use super::dump::{Group, View};
use crate::snapshot::ShownFrame;
use crate::units::Pc;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub(super) string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(super) time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub(super) duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub(super) period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub(super) period: i64,
    #[prost(int64, tag = "14")]
    pub(super) default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(int64, tag = "1")]
    pub(super) kind: i64,
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub(super) value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(int64, tag = "1")]
    pub(super) key: i64,
    #[prost(int64, tag = "2")]
    pub(super) text: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub(super) memory_limit: u64,
    #[prost(int64, tag = "5")]
    pub(super) filename: i64,
    #[prost(int64, tag = "6")]
    pub(super) build_id: i64,
    #[prost(bool, tag = "7")]
    pub(super) has_functions: bool,
    #[prost(bool, tag = "8")]
    pub(super) has_filenames: bool,
    #[prost(bool, tag = "9")]
    pub(super) has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    pub(super) has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Location {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub(super) address: u64,
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Line {
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
    #[prost(int64, tag = "2")]
    pub(super) line: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Function {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    #[prost(int64, tag = "3")]
    pub(super) system_name: i64,
    #[prost(int64, tag = "4")]
    pub(super) filename: i64,
    #[prost(int64, tag = "5")]
    pub(super) start_line: i64,
}

/// What the profile's mapping says: the executable and where its text is.
#[derive(Clone, Copy, Debug)]
pub struct Executable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its build id.
    pub build_id: &'a str,
    /// The first address of its text.
    pub start: u64,
    /// The address behind its text.
    pub end: u64,
}

impl<'a> Executable<'a> {
    /// Of a program, loaded at `bias`.
    #[must_use]
    pub fn of(program: &'a crate::tracee::Program, bias: crate::tracee::LoadBias) -> Self {
        let (module, ids) = (program.binary.module(), program.binary.build_ids());
        Self {
            name: &program.name,
            build_id: ids.gnu.as_deref().or(ids.go.as_deref()).unwrap_or_default(),
            start: bias.remote(module.text).0,
            end: bias.remote(module.etext).0,
        }
    }
}

/// Gathers a profile's tables, each thing in them once.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<Vec<(u64, u32)>, HashMap<Pc, u64>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut builder = Self::default();
        // The first string is the empty one.
        builder.string("");
        builder
    }

    pub(super) fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    pub(super) fn function(&mut self, name: &str, file: &str, start_line: u32) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            let start_line = i64::from(start_line);
            self.profile.function.push(Function { id, name, system_name: name, filename, start_line });
        }
        id
    }

    /// One location is one physical frame: the calls inlined at its program counter, innermost first.
    pub(super) fn location(&mut self, pc: Pc, address: u64, lines: Vec<(u64, u32)>) -> u64 {
        let next = self.profile.location.len() as u64 + 1;
        let id = *self.locations.entry(lines.clone()).or_default().entry(pc).or_insert(next);
        if id == next {
            let line = lines.iter().map(|&(function_id, line)| Line { function_id, line: i64::from(line) }).collect();
            self.profile.location.push(Location { id, mapping_id: 1, address, line });
        }
        id
    }

    fn locations_of(&mut self, view: &View<'_>, frames: &[ShownFrame<'_>]) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut lines = Vec::new();
        for frame in frames.iter().filter(|frame| frame.function != "runtime.goexit") {
            let name = if frame.function == "panic" { "runtime.gopanic" } else { &*frame.function };
            lines.push((self.function(name, frame.file, frame.start_line), frame.line));
            if !frame.inlined {
                // The address of the call, not of what follows it.
                let address = view.remote(frame.pc).0.saturating_sub(1);
                ids.push(self.location(frame.pc, address, std::mem::take(&mut lines)));
            }
        }
        ids
    }
}

/// Writes a gzipped goroutine profile.
///
/// # Errors
///
/// If `out` fails.
pub fn write_pprof(
    out: impl Write,
    view: &View<'_>,
    groups: &[Group<'_>],
    executable: Executable<'_>,
) -> io::Result<()> {
    let mut builder = Builder::new();
    let goroutine = ValueType { kind: builder.string("goroutine"), unit: builder.string("count") };
    let stack = ValueType { kind: builder.string("stack_space"), unit: builder.string("bytes") };
    let mapping = Mapping {
        id: 1,
        memory_start: executable.start,
        memory_limit: executable.end,
        filename: builder.string(executable.name),
        build_id: builder.string(executable.build_id),
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    };
    let state_key = builder.string("state");
    for group in groups {
        let g = group.example;
        let location_id = match view.snapshot.stack(g) {
            Some(stack) => builder.locations_of(view, &view.all_frames(stack)),
            None => {
                let name = view.start_function(g).unwrap_or("unknown");
                let function = builder.function(name, "", 0);
                vec![builder.location(Pc(g.startpc.0), g.startpc.0, vec![(function, 0)])]
            }
        };
        let mut label = vec![Label { key: state_key, text: builder.string(view.status(g)) }];
        for (key, value) in view.snapshot.labels(g).unwrap_or_default() {
            label.push(Label { key: builder.string(key), text: builder.string(value) });
        }
        let value = vec![group.count as i64, i64::try_from(group.stack_bytes).unwrap_or(i64::MAX)];
        builder.profile.sample.push(Sample { location_id, value, label });
    }
    let mut profile = builder.profile;
    profile.sample_type = vec![goroutine.clone(), stack];
    profile.mapping = vec![mapping];
    profile.default_sample_type = goroutine.kind;
    profile.period_type = Some(goroutine);
    profile.period = 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    profile.time_nanos = i64::try_from(now.as_nanos()).unwrap_or_default();
    write_gzip(out, &profile)
}

/// Writes a profile as `go tool pprof` reads it.
pub(super) fn write_gzip(out: impl Write, profile: &Profile) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    gzip.finish()?.flush()
}

//! Apache Parquet: a file of events and a file of goroutines, with names in dictionaries.
//!
//! In: items. Out: two files, row group by row group; docs/formats.md has the columns. A Parquet file can be read only once
//! its footer is written: of one whose writer was killed nothing is left.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use crate::events::{Event, Transition};
use crate::go_runtime::Owner;
use crate::goroutines::{self, Ended, Goroutine, SiteId};
use crate::output::{EventName, Names, cause_name};
use crate::recording::replay::{State, Visitor};
use crate::recording::{Encode, Header, Item, Parts};
use crate::units::{MonotonicNs, RemoteAddr};

/// Rows of a row group: some 10 MiB of memory.
const ROWS: usize = 1 << 17;

const EVENTS: &str = "message events {
    required int64 time_ns;
    required int64 time (TIMESTAMP(NANOS, true));
    required binary event (STRING);
    optional int64 goid;
    optional int64 parent;
    optional binary site_function (STRING);
    optional binary site_file (STRING);
    optional int32 site_line;
    optional binary start (STRING);
    optional binary reason (STRING);
    optional int32 cpu;
    optional int64 count;
    optional binary cause (STRING);
}";

const GOROUTINES: &str = "message goroutines {
    required int64 goid;
    required int64 parent;
    required int32 program;
    optional binary site_function (STRING);
    optional binary site_file (STRING);
    optional int32 site_line;
    optional binary start (STRING);
    required boolean system;
    required int64 created_ns;
    required int64 created (TIMESTAMP(NANOS, true));
    required boolean first_seen;
    optional int64 ended_ns;
    optional binary ended (STRING);
    optional binary state (STRING);
    optional binary reason (STRING);
    optional int64 since_ns;
    required int64 running_ns;
    required int64 blocked_ns;
    required int64 runnable_ns;
    required int64 longest_block_ns;
    required int64 parks;
    required boolean estimated;
}";

/// Columns of rising times or of numbers: differences are shorter than a dictionary.
const NUMBERS: [&str; 14] = [
    "time_ns",
    "time",
    "goid",
    "parent",
    "count",
    "created_ns",
    "created",
    "ended_ns",
    "since_ns",
    "running_ns",
    "blocked_ns",
    "runnable_ns",
    "longest_block_ns",
    "parks",
];

/// A buffer that the library writes to, and from which we take.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self, into: &mut Vec<u8>) {
        into.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A column that has a value in some rows.
#[derive(Debug)]
struct Optional<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> Optional<T> {
    #[inline]
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.levels.clear();
    }
}

/// Writes Parquet.
pub struct Encoder {
    state: State,
    rows: Rows,
}

/// The rows that wait for their group, and the files.
struct Rows {
    header: Header,
    texts: Texts,
    events: EventColumns,
    goroutines: GoroutineColumns,
    event_file: Table,
    goroutine_file: Table,
    failed: Option<io::Error>,
}

/// Texts, each made once.
#[derive(Default)]
struct Texts {
    sites: HashMap<(u32, RemoteAddr, RemoteAddr), Site>,
    reasons: HashMap<(u32, u8), ByteArray>,
    words: HashMap<&'static str, ByteArray>,
}

#[derive(Clone, Default)]
struct Site {
    function: Option<ByteArray>,
    file: Option<ByteArray>,
    line: Option<i32>,
    start: Option<ByteArray>,
    system: bool,
}

impl Texts {
    fn word(&mut self, word: &'static str) -> ByteArray {
        self.words.entry(word).or_insert_with(|| word.into()).clone()
    }

    fn site(&mut self, generation: u32, gopc: RemoteAddr, startpc: RemoteAddr, state: &mut State) -> &Site {
        if self.sites.len() > 1 << 17 {
            self.sites.clear();
        }
        self.sites.entry((generation, gopc, startpc)).or_insert_with(|| {
            let Some(names) = state.names.of_generation(generation).filter(|_| (gopc.0, startpc.0) != (0, 0)) else {
                return Site::default();
            };
            let text = |text: &str| (!text.is_empty()).then(|| ByteArray::from(text));
            let (site, start) = (names.site(gopc), names.function(startpc));
            Site {
                function: (gopc.0 != 0).then(|| text(&site.function)).flatten(),
                file: text(&site.file),
                line: i32::try_from(site.line).ok().filter(|line| *line != 0),
                system: Owner::of(&start).is_system(),
                start: text(&start),
            }
        })
    }

    fn reason(&mut self, generation: u32, reason: u8, state: &mut State) -> ByteArray {
        let mut text = || {
            let names = state.names.of_generation(generation);
            names.map_or_else(|| format!("wait reason {reason}"), |names| names.reason(reason).into_owned())
        };
        self.reasons.entry((generation, reason)).or_insert_with(|| text().into_bytes().into()).clone()
    }
}

/// One file.
struct Table {
    writer: Option<SerializedFileWriter<Shared>>,
    bytes: Shared,
    row_groups: usize,
}

impl Table {
    fn new(schema: &str, header: &Header) -> io::Result<Self> {
        let schema = parse_message_type(schema).map_err(io::Error::other)?;
        let level = ZstdLevel::try_new(1).map_err(io::Error::other)?;
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by(format!("gotracer {}", header.gotracer))
            .set_compression(Compression::ZSTD(level))
            .set_key_value_metadata(
                serde_json::to_string(header)
                    .ok()
                    .map(|json| vec![parquet::file::metadata::KeyValue::new("gotracer".to_owned(), json)]),
            );
        for column in NUMBERS {
            let path = ColumnPath::from(column);
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        let bytes = Shared::default();
        let writer = SerializedFileWriter::new(bytes.clone(), Arc::new(schema), Arc::new(properties.build()));
        Ok(Self { writer: Some(writer.map_err(io::Error::other)?), bytes, row_groups: 0 })
    }

    fn row_group(&mut self, write: impl FnOnce(&mut Group<'_>) -> parquet::errors::Result<()>) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        self.row_groups += 1;
        let done = || {
            let mut group = Group(writer.next_row_group()?);
            write(&mut group)?;
            group.0.close()?;
            Ok(())
        };
        done().map_err(|error: parquet::errors::ParquetError| io::Error::other(error))
    }

    fn finish(&mut self) -> io::Result<()> {
        match self.writer.take() {
            Some(writer) => writer.close().map(|_| ()).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// The columns of a row group, each written whole, in the order of the schema.
struct Group<'a>(SerializedRowGroupWriter<'a, Shared>);

impl Group<'_> {
    fn write<T: parquet::data_type::DataType>(
        &mut self,
        values: &[T::T],
        levels: Option<&[i16]>,
    ) -> parquet::errors::Result<()> {
        let missing = || parquet::errors::ParquetError::General("the schema has fewer columns".to_owned());
        let mut column = self.0.next_column()?.ok_or_else(missing)?;
        column.typed::<T>().write_batch(values, levels, None)?;
        column.close()
    }

    fn required<T: parquet::data_type::DataType>(&mut self, values: &[T::T]) -> parquet::errors::Result<()> {
        self.write::<T>(values, None)
    }

    fn optional<T: parquet::data_type::DataType>(&mut self, column: &Optional<T::T>) -> parquet::errors::Result<()> {
        self.write::<T>(&column.values, Some(&column.levels))
    }
}

#[derive(Default)]
struct EventColumns {
    time_ns: Vec<i64>,
    time: Vec<i64>,
    event: Vec<ByteArray>,
    goid: Optional<i64>,
    parent: Optional<i64>,
    site_function: Optional<ByteArray>,
    site_file: Optional<ByteArray>,
    site_line: Optional<i32>,
    start: Optional<ByteArray>,
    reason: Optional<ByteArray>,
    cpu: Optional<i32>,
    count: Optional<i64>,
    cause: Optional<ByteArray>,
}

#[derive(Default)]
struct GoroutineColumns {
    goid: Vec<i64>,
    parent: Vec<i64>,
    program: Vec<i32>,
    site_function: Optional<ByteArray>,
    site_file: Optional<ByteArray>,
    site_line: Optional<i32>,
    start: Optional<ByteArray>,
    system: Vec<bool>,
    created_ns: Vec<i64>,
    created: Vec<i64>,
    first_seen: Vec<bool>,
    ended_ns: Optional<i64>,
    ended: Optional<ByteArray>,
    state: Optional<ByteArray>,
    reason: Optional<ByteArray>,
    since_ns: Optional<i64>,
    running_ns: Vec<i64>,
    blocked_ns: Vec<i64>,
    runnable_ns: Vec<i64>,
    longest_block_ns: Vec<i64>,
    parks: Vec<i64>,
    estimated: Vec<bool>,
}

impl EventColumns {
    fn clear(&mut self) {
        self.time_ns.clear();
        self.time.clear();
        self.event.clear();
        for column in [&mut self.goid, &mut self.parent, &mut self.count] {
            column.clear();
        }
        for column in [&mut self.site_function, &mut self.site_file, &mut self.start, &mut self.reason, &mut self.cause]
        {
            column.clear();
        }
        self.site_line.clear();
        self.cpu.clear();
    }

    fn write(&mut self, table: &mut Table) -> io::Result<()> {
        if self.time_ns.is_empty() {
            return Ok(());
        }
        table.row_group(|group| {
            group.required::<Int64Type>(&self.time_ns)?;
            group.required::<Int64Type>(&self.time)?;
            group.required::<ByteArrayType>(&self.event)?;
            group.optional::<Int64Type>(&self.goid)?;
            group.optional::<Int64Type>(&self.parent)?;
            group.optional::<ByteArrayType>(&self.site_function)?;
            group.optional::<ByteArrayType>(&self.site_file)?;
            group.optional::<Int32Type>(&self.site_line)?;
            group.optional::<ByteArrayType>(&self.start)?;
            group.optional::<ByteArrayType>(&self.reason)?;
            group.optional::<Int32Type>(&self.cpu)?;
            group.optional::<Int64Type>(&self.count)?;
            group.optional::<ByteArrayType>(&self.cause)
        })?;
        self.clear();
        Ok(())
    }
}

impl GoroutineColumns {
    fn write(&mut self, table: &mut Table) -> io::Result<()> {
        if self.goid.is_empty() {
            return Ok(());
        }
        table.row_group(|group| {
            group.required::<Int64Type>(&self.goid)?;
            group.required::<Int64Type>(&self.parent)?;
            group.required::<Int32Type>(&self.program)?;
            group.optional::<ByteArrayType>(&self.site_function)?;
            group.optional::<ByteArrayType>(&self.site_file)?;
            group.optional::<Int32Type>(&self.site_line)?;
            group.optional::<ByteArrayType>(&self.start)?;
            group.required::<BoolType>(&self.system)?;
            group.required::<Int64Type>(&self.created_ns)?;
            group.required::<Int64Type>(&self.created)?;
            group.required::<BoolType>(&self.first_seen)?;
            group.optional::<Int64Type>(&self.ended_ns)?;
            group.optional::<ByteArrayType>(&self.ended)?;
            group.optional::<ByteArrayType>(&self.state)?;
            group.optional::<ByteArrayType>(&self.reason)?;
            group.optional::<Int64Type>(&self.since_ns)?;
            group.required::<Int64Type>(&self.running_ns)?;
            group.required::<Int64Type>(&self.blocked_ns)?;
            group.required::<Int64Type>(&self.runnable_ns)?;
            group.required::<Int64Type>(&self.longest_block_ns)?;
            group.required::<Int64Type>(&self.parks)?;
            group.required::<BoolType>(&self.estimated)
        })?;
        *self = Self::default();
        Ok(())
    }
}

/// Parquet has signed numbers; none of ours is as large.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Rows {
    fn event(&mut self, event: &Event, state: &mut State) {
        let (time, generation) = (event.time(), state.table.generation());
        let (mut goid, mut parent, mut site, mut reason) = (None, None, None, None);
        let (mut cpu, mut count, mut cause) = (None, None, None);
        match *event {
            Event::Goroutine { goid: of, transition, .. } => {
                goid = Some(signed(of.0));
                match transition {
                    Transition::Created { parent: of, gopc, startpc } => {
                        parent = Some(signed(of.0));
                        site = Some(self.texts.site(generation, gopc, startpc, state).clone());
                    }
                    Transition::Blocked { reason: of } => reason = Some(self.texts.reason(generation, of, state)),
                    Transition::Running | Transition::Exited => {}
                }
            }
            Event::Exec { .. } => {}
            Event::Lost { cpu: on, count: of, cause: why, .. } => {
                (cpu, count) = (i32::try_from(on).ok(), Some(signed(of)));
                cause = Some(cause_name(why).as_str().into());
            }
        }
        let columns = &mut self.events;
        columns.time_ns.push(signed(time.0));
        columns.time.push(self.header.wall_ns(time));
        columns.event.push(self.texts.word(event_name(EventName::of(event))));
        columns.goid.push(goid);
        columns.parent.push(parent);
        let Site { function, file, line, start, .. } = site.unwrap_or_default();
        columns.site_function.push(function);
        columns.site_file.push(file);
        columns.site_line.push(line);
        columns.start.push(start);
        columns.reason.push(reason);
        columns.cpu.push(cpu);
        columns.count.push(count);
        columns.cause.push(cause);
        if columns.time_ns.len() >= ROWS {
            let done = columns.write(&mut self.event_file);
            self.note(done);
        }
    }

    fn note(&mut self, done: io::Result<()>) {
        if let (Err(error), None) = (done, &self.failed) {
            self.failed = Some(error);
        }
    }

    fn goroutine(&mut self, g: &Goroutine, ended: Option<&Ended>, state: &mut State) {
        let (generation, gopc, startpc) = match state.table.site(g.site).filter(|_| g.site != SiteId::UNKNOWN) {
            Some(site) => (site.generation, site.gopc, site.startpc),
            None => (state.table.generation(), RemoteAddr(0), RemoteAddr(0)),
        };
        let Site { function, file, line, start, system } = self.texts.site(generation, gopc, startpc, state).clone();
        let (now, reason) = match g.state {
            goroutines::State::Runnable => ("runnable", None),
            goroutines::State::Running => ("running", None),
            goroutines::State::Blocked { reason } => ("blocked", Some(self.texts.reason(generation, reason, state))),
        };
        let alive = ended.is_none();
        let how = ended.map(|ended| match ended.end {
            goroutines::End::Exited => "exited",
            goroutines::End::Unseen => "unseen",
            goroutines::End::Exec => "exec",
        });
        let (how, now) = (how.map(|how| self.texts.word(how)), alive.then(|| self.texts.word(now)));
        let columns = &mut self.goroutines;
        columns.goid.push(signed(g.goid.0));
        columns.parent.push(signed(g.parent.0));
        columns.program.push(i32::try_from(generation).unwrap_or(i32::MAX));
        columns.site_function.push(function);
        columns.site_file.push(file);
        columns.site_line.push(line);
        columns.start.push(start);
        columns.system.push(system);
        columns.created_ns.push(signed(g.created.0));
        columns.created.push(self.header.wall_ns(g.created));
        columns.first_seen.push(g.first_seen);
        columns.ended_ns.push(ended.map(|ended| signed(ended.time.0)));
        columns.ended.push(how);
        columns.state.push(now);
        columns.reason.push(reason.filter(|_| alive));
        columns.since_ns.push(alive.then(|| signed(g.since.0)));
        columns.running_ns.push(signed(g.running_ns));
        columns.blocked_ns.push(signed(g.blocked_ns));
        columns.runnable_ns.push(signed(g.runnable_ns));
        columns.longest_block_ns.push(signed(g.longest_block_ns));
        columns.parks.push(signed(g.parks));
        columns.estimated.push(g.estimated);
        if columns.goid.len() >= ROWS {
            let done = columns.write(&mut self.goroutine_file);
            self.note(done);
        }
    }
}

fn event_name(name: EventName) -> &'static str {
    match name {
        EventName::Created => "created",
        EventName::Blocked => "blocked",
        EventName::Running => "running",
        EventName::Exited => "exited",
        EventName::Exec => "exec",
        EventName::Lost => "lost",
        EventName::Detail => "detail",
        EventName::Overhead => "overhead",
    }
}

impl Visitor for Rows {
    fn event(&mut self, event: &Event, _: Option<&Goroutine>, state: &mut State) {
        Rows::event(self, event, state);
    }

    fn ended(&mut self, ended: &Ended, state: &mut State) {
        self.goroutine(&ended.goroutine, Some(ended), state);
    }
}

impl Encoder {
    /// Files of the recording with this header.
    ///
    /// # Errors
    ///
    /// If the library does not take the schema.
    pub fn new(header: Header) -> io::Result<Self> {
        let rows = Rows {
            texts: Texts::default(),
            events: EventColumns::default(),
            goroutines: GoroutineColumns::default(),
            event_file: Table::new(EVENTS, &header)?,
            goroutine_file: Table::new(GOROUTINES, &header)?,
            failed: None,
            header,
        };
        Ok(Self { state: State::new(&rows.header), rows })
    }

    fn give(&mut self, out: &mut Parts) -> io::Result<()> {
        if let Some(error) = self.rows.failed.take() {
            return Err(error);
        }
        self.rows.event_file.bytes.take(&mut out.main);
        self.rows.goroutine_file.bytes.take(&mut out.beside);
        Ok(())
    }
}

impl Encode for Encoder {
    fn put(&mut self, item: &Item, out: &mut Parts) -> io::Result<()> {
        self.state.take(item, &mut self.rows);
        self.give(out)
    }

    /// A row group of a second of a quiet program would be a waste, and nothing can be read before the end anyway.
    fn flush(&mut self, out: &mut Parts) -> io::Result<()> {
        self.give(out)
    }

    fn finish(&mut self, out: &mut Parts) -> io::Result<()> {
        let now: MonotonicNs = self.state.newest;
        let live: Vec<Goroutine> = self.state.table.iter().collect();
        for goroutine in live {
            self.rows.goroutine(&goroutine.at(now), None, &mut self.state);
        }
        self.rows.events.write(&mut self.rows.event_file)?;
        self.rows.goroutines.write(&mut self.rows.goroutine_file)?;
        self.rows.event_file.finish()?;
        self.rows.goroutine_file.finish()?;
        self.give(out)
    }

    fn reserve(&self) -> usize {
        let groups = self.rows.event_file.row_groups + self.rows.goroutine_file.row_groups;
        let live = usize::try_from(self.state.table.live().total()).unwrap_or(usize::MAX);
        let rows = self.rows.events.time_ns.len() + self.rows.goroutines.goid.len();
        // A group's entry in the footer; a row, and it is compressed; and texts.
        groups * 4096 + rows * 64 + live.saturating_mul(64) + (1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Row, RowAccessor};
    use proptest::prelude::*;

    use super::*;
    use crate::recording::samples::{any_event, header, small};

    fn written(items: &[Item]) -> Parts {
        let (mut encoder, mut parts) = (Encoder::new(header()).expect("begins"), Parts::default());
        for item in items {
            encoder.put(item, &mut parts).expect("writes");
        }
        encoder.finish(&mut parts).expect("ends");
        parts
    }

    fn rows(file: Vec<u8>) -> Vec<Row> {
        let reader = SerializedFileReader::new(Bytes::from(file)).expect("is Parquet");
        reader.get_row_iter(None).expect("has rows").map(|row| row.expect("reads")).collect()
    }

    /// What an event's row must say, in the order of the columns that are read below.
    fn told(event: &Event) -> (i64, &'static str, Option<i64>, Option<i64>, Option<i64>) {
        let (goid, parent, count) = match *event {
            Event::Goroutine { goid, transition: Transition::Created { parent, .. }, .. } => {
                (Some(signed(goid.0)), Some(signed(parent.0)), None)
            }
            Event::Goroutine { goid, .. } => (Some(signed(goid.0)), None, None),
            Event::Exec { .. } => (None, None, None),
            Event::Lost { count, .. } => (None, None, Some(signed(count))),
        };
        (signed(event.time().0), event_name(EventName::of(event)), goid, parent, count)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(events in prop::collection::vec(any_event(), 0..80)) {
            let mut items = small(0)[..4].to_vec();
            items.push(Item::Events(events.clone()));
            let rows = rows(written(&items).main);
            prop_assert_eq!(rows.len(), events.len());
            for (row, event) in rows.iter().zip(&events) {
                let (time, name, goid, parent, count) = told(event);
                prop_assert_eq!(row.get_long(0).expect("time"), time);
                prop_assert_eq!(row.get_string(2).expect("event"), name);
                prop_assert_eq!(row.get_long(3).ok(), goid);
                prop_assert_eq!(row.get_long(4).ok(), parent);
                prop_assert_eq!(row.get_long(11).ok(), count);
            }
        }
    }

    #[test]
    fn names_and_goroutines_are_those_of_the_table() {
        let items = small(6_000);
        let parts = written(&items);
        let events = rows(parts.main);
        assert_eq!(events.len(), 6_001);
        let created: Vec<&Row> = events.iter().filter(|row| row.get_string(2).is_ok_and(|e| e == "created")).collect();
        assert!(created.iter().all(|row| row.get_string(5).is_ok_and(|name| name.starts_with("main.site"))));
        assert!(created.iter().all(|row| row.get_string(8).is_ok_and(|name| name.starts_with("main.run"))));
        let reasons =
            events.iter().filter(|row| row.get_string(9).is_ok_and(|name| name.starts_with("reason 1"))).count();
        assert_eq!(reasons, 2_000);
        let goroutines = rows(parts.beside);
        // A thousand that were born, and two that a reading found.
        assert_eq!(goroutines.len(), 1_002);
        let ended = goroutines.iter().filter(|row| row.get_string(12).is_ok_and(|how| how == "exited")).count();
        let parks: i64 = goroutines.iter().map(|row| row.get_long(20).expect("parks")).sum();
        assert_eq!((ended, parks), (800, 2_000));
    }
}

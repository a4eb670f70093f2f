//! Lines into items again: of a recording, or of `gotracer trace --json`.
//!
//! Lines hold names where items have addresses, so each name gets an address, of no meaning, at first sight.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use hashbrown::HashMap;
use serde::Deserialize;

use super::lines::{self, Line, State};
use crate::events::{Event, LossCause, Transition};
use crate::goroutines::{self, Coverage, SnapshotGoroutine};
use crate::output::SiteName;
use crate::recording::{Damage, Definitions, Header, Item, Parked, Program, ReadError, Reading, Source, StackNumber};
use crate::units::{Goid, MonotonicNs, RemoteAddr};

/// Events in an item at most.
const BATCH: usize = 4096;
/// No line is longer.
const LONGEST: u64 = 8 << 20;
/// What zstd's data begin with.
pub const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A line of an event.
#[derive(Deserialize)]
struct EventLine<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    time_ns: MonotonicNs,
    #[serde(default)]
    goid: u64,
    #[serde(default)]
    parent: u64,
    #[serde(borrow)]
    site: Option<Place<'a>>,
    #[serde(borrow)]
    start: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    cpu: u32,
    #[serde(default)]
    count: u64,
    cause: Option<LossCause>,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Place<'a> {
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow)]
    file: Cow<'a, str>,
    line: u32,
}

/// Reads JSON lines, plain or compressed by zstd.
pub struct Reader<'r> {
    lines: Box<dyn BufRead + 'r>,
    header: Header,
    has_header: bool,
    program: Program,
    sites: HashMap<SiteName, RemoteAddr>,
    functions: HashMap<Arc<str>, RemoteAddr>,
    reasons: HashMap<String, u8>,
    new: Definitions,
    program_changed: bool,
    events: Vec<Event>,
    ready: VecDeque<Item>,
    reading: Option<(Reading, u64)>,
    line: Vec<u8>,
    offset: u64,
    over: bool,
}

impl<'r> Reader<'r> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// If it is no such file.
    pub fn new(from: impl Read + 'r) -> Result<Self, ReadError> {
        let mut from = BufReader::with_capacity(1 << 18, from);
        let compressed = from.fill_buf()?.starts_with(&ZSTD);
        let lines: Box<dyn BufRead + 'r> = if compressed {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
            // A window of 8 MiB at most, which is zstd's own default.
            decoder.window_log_max(27)?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        } else {
            Box::new(from)
        };
        let mut reader = Self {
            lines,
            header: Header::default(),
            has_header: false,
            program: Program::default(),
            sites: HashMap::new(),
            functions: HashMap::new(),
            reasons: HashMap::new(),
            new: Definitions::default(),
            program_changed: false,
            events: Vec::new(),
            ready: VecDeque::new(),
            reading: None,
            line: Vec::new(),
            offset: 0,
            over: false,
        };
        let foreign = |why: &str| ReadError::Foreign { why: why.to_owned() };
        if !reader.read_line()? {
            return Err(foreign("there is not one whole line in it"));
        }
        let line = std::mem::take(&mut reader.line);
        let taken = reader.take_line(&line);
        reader.line = line;
        let (false, Ok(())) = (reader.line.is_empty(), taken) else {
            return Err(foreign("its first line is not one of a recording"));
        };
        if !reader.has_header {
            let first = reader.events.first().map(Event::time);
            reader.header.started_ns = first.unwrap_or_default();
        }
        Ok(reader)
    }

    /// Reads a line, whole, without its end; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, ReadError> {
        self.offset += self.line.len() as u64 + u64::from(!self.line.is_empty());
        self.line.clear();
        let read = (&mut self.lines).take(LONGEST).read_until(b'\n', &mut self.line);
        match read {
            Ok(_) if self.line.last() == Some(&b'\n') => {
                self.line.pop();
                Ok(true)
            }
            Ok(0) => Ok(false),
            Ok(len) if len as u64 == LONGEST => {
                Err(ReadError::Damaged { offset: self.offset, what: "a line is too long".to_owned() })
            }
            // Cut off in the middle: of a line, or of what zstd made of some.
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) if self.offset == 0 => Err(ReadError::Foreign { why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::Other || error.kind() == io::ErrorKind::InvalidData => {
                self.flush();
                self.ready.push_back(Item::Damage(Damage {
                    offset: self.offset,
                    bytes: 0,
                    events: None,
                    what: format!("it cannot be decompressed from here on ({error})"),
                }));
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), ()> {
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with(b"{\"event\":") {
            let event: EventLine<'_> = serde_json::from_slice(line).map_err(|_| ())?;
            return self.take_event(event);
        }
        // The key says what it is; of what we do not know, as the summary of `trace --json`, we want nothing.
        match serde_json::from_slice::<Line>(line) {
            Ok(line) => self.take_other(line),
            Err(error) if error.is_data() && self.offset > 0 && is_object(line) => Ok(()),
            Err(_) if line.starts_with(b"{\"summary\":") && is_object(line) => Ok(()),
            Err(_) => Err(()),
        }
    }

    fn site(&mut self, site: &SiteName) -> RemoteAddr {
        if &*site.function == "(none)" && site.file.is_empty() {
            return RemoteAddr(0);
        }
        if let Some(&address) = self.sites.get(site) {
            return address;
        }
        let address = RemoteAddr(0x1000 + self.sites.len() as u64);
        self.sites.insert(site.clone(), address);
        self.new.sites.push((address, site.clone()));
        address
    }

    fn function(&mut self, name: &str) -> RemoteAddr {
        if name == "(none)" {
            return RemoteAddr(0);
        }
        if let Some(&address) = self.functions.get(name) {
            return address;
        }
        let (address, name): (_, Arc<str>) = (RemoteAddr(0x1000_0000 + self.functions.len() as u64), name.into());
        self.functions.insert(Arc::clone(&name), address);
        self.new.functions.push((address, name));
        address
    }

    fn reason(&mut self, name: &str) -> u8 {
        if let Some(&number) = self.reasons.get(name) {
            return number;
        }
        if let Some(Ok(number)) = name.strip_prefix("wait reason ").map(str::parse) {
            return number;
        }
        let reasons = &mut self.program.wait_reasons;
        if reasons.is_empty() {
            reasons.push(String::new());
        }
        let Ok(number) = u8::try_from(reasons.len()) else { return u8::MAX };
        reasons.push(name.to_owned());
        self.reasons.insert(name.to_owned(), number);
        self.program_changed = true;
        number
    }

    fn take_event(&mut self, line: EventLine<'_>) -> Result<(), ()> {
        let (time, pid) = (line.time_ns, self.header.pid);
        let transition = match &*line.event {
            "running" => Transition::Running,
            "blocked" => Transition::Blocked { reason: self.reason(&line.reason.ok_or(())?) },
            "exited" => Transition::Exited,
            "created" => {
                let Place { function, file, line: number } = line.site.ok_or(())?;
                let site = SiteName { function: (*function).into(), file: (*file).into(), line: number };
                let (gopc, startpc) = (self.site(&site), self.function(&line.start.ok_or(())?));
                Transition::Created { parent: Goid(line.parent), gopc, startpc }
            }
            "exec" => {
                self.events.push(Event::Exec { time, pid });
                self.flush();
                if !self.has_header {
                    let generation = self.program.generation.saturating_add(1);
                    self.take_program(Program { generation, ..self.program.clone() });
                }
                return Ok(());
            }
            "lost" => {
                let cause = line.cause.ok_or(())?;
                self.events.push(Event::Lost { time, cpu: line.cpu, count: line.count, cause });
                return Ok(());
            }
            // Of a later version.
            _ => return Ok(()),
        };
        self.events.push(Event::Goroutine { time, pid, goid: Goid(line.goid), transition });
        if self.events.len() >= BATCH {
            self.flush();
        }
        Ok(())
    }

    fn take_program(&mut self, program: Program) {
        self.flush();
        self.reasons = (0..=u8::MAX).zip(&program.wait_reasons).map(|(n, name)| (name.clone(), n)).collect();
        self.program = program;
        self.program_changed = true;
        self.sites.clear();
        self.functions.clear();
        self.new = Definitions { generation: self.program.generation, ..Definitions::default() };
    }

    fn take_other(&mut self, line: Line) -> Result<(), ()> {
        match line {
            Line::Recording(header) => {
                self.header = header;
                self.has_header = true;
            }
            Line::Program(program) => self.take_program(program),
            Line::Stack(lines::Stack { stack, frames }) => self.new.stacks.push((StackNumber(stack), frames)),
            Line::ReadingBegun(lines::Moment { time_ns }) => {
                self.flush();
                self.ready.push_back(Item::ReadingBegun(time_ns));
            }
            Line::Reading(lines::Reading { from_ns, to_ns, whole, goroutines }) => {
                self.flush();
                let coverage = if whole { Coverage::Whole } else { Coverage::Part };
                let reading = Reading { taken_from: from_ns, taken_to: to_ns, coverage, goroutines: Vec::new() };
                self.reading = Some((reading, goroutines));
                self.end_reading();
            }
            Line::Goroutine(parked) => self.take_goroutine(*parked)?,
            Line::Detail(lines::Detail { time_ns, level }) => {
                self.flush();
                self.ready.push_back(Item::Detail { time: time_ns, level });
            }
            Line::End(end) => {
                self.flush();
                self.ready.push_back(Item::End(end));
            }
        }
        Ok(())
    }

    fn take_goroutine(&mut self, line: lines::Parked) -> Result<(), ()> {
        let (gopc, startpc) = (self.site(&line.site), self.function(&line.start));
        let state = match (line.state, line.reason) {
            (State::Runnable, _) => goroutines::State::Runnable,
            (State::Running, _) => goroutines::State::Running,
            (State::Blocked, reason) => goroutines::State::Blocked { reason: self.reason(&reason.unwrap_or_default()) },
        };
        let goroutine = SnapshotGoroutine {
            goid: Goid(line.goid),
            parent: Goid(line.parent),
            gopc,
            startpc,
            state,
            since: line.since_ns,
        };
        let (reading, _) = self.reading.as_mut().ok_or(())?;
        let stack = line.stack.map(StackNumber);
        reading.goroutines.push(Parked { goroutine, stack, stack_bytes: line.stack_bytes });
        self.end_reading();
        Ok(())
    }

    fn end_reading(&mut self) {
        if let Some((reading, _)) =
            self.reading.take_if(|(reading, goroutines)| reading.goroutines.len() as u64 >= *goroutines)
        {
            self.flush();
            self.ready.push_back(Item::Reading(reading));
        }
    }

    /// Gives out what is there: names before what needs them.
    fn flush(&mut self) {
        if std::mem::take(&mut self.program_changed) {
            self.ready.push_back(Item::Program(self.program.clone()));
        }
        if !self.new.is_empty() {
            let next = Definitions { generation: self.program.generation, ..Definitions::default() };
            self.ready.push_back(Item::Definitions(std::mem::replace(&mut self.new, next)));
        }
        if !self.events.is_empty() {
            self.ready.push_back(Item::Events(std::mem::take(&mut self.events)));
        }
    }
}

fn is_object(line: &[u8]) -> bool {
    line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

impl Source for Reader<'_> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        while self.ready.is_empty() && !self.over {
            if !self.read_line()? {
                self.over = true;
                self.flush();
                break;
            }
            let line = std::mem::take(&mut self.line);
            let taken = self.take_line(&line);
            self.line = line;
            if taken.is_err() {
                self.flush();
                let (offset, bytes) = (self.offset, self.line.len() as u64);
                let what = "a line is not one of a recording".to_owned();
                self.ready.push_back(Item::Damage(Damage { offset, bytes, events: None, what }));
            }
        }
        Ok(self.ready.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Encoder;
    use super::*;
    use crate::output::Names;
    use crate::recording::samples::{any_item, header, items_of, small};
    use crate::recording::{Encode, Parts, RecordedNames};

    fn written(items: &[Item], compressed: bool) -> Vec<u8> {
        let encoder = if compressed { Encoder::compressed(header()) } else { Ok(Encoder::new(header())) };
        let (mut encoder, mut parts) = (encoder.expect("begins"), Parts::default());
        for item in items {
            encoder.put(item, &mut parts).expect("writes");
        }
        encoder.finish(&mut parts).expect("ends");
        parts.main
    }

    /// What a reader can tell of items: all but addresses, which are told by name.
    fn told(items: &[Item]) -> Vec<String> {
        let mut names = RecordedNames::default();
        let mut told = Vec::new();
        for item in items {
            names.take(item);
            match item {
                Item::Events(events) => told.extend(events.iter().map(|event| {
                    let mut line = Vec::new();
                    crate::output::json::event(&mut line, event, names.last()).expect("writes");
                    String::from_utf8(line).expect("is text")
                })),
                Item::Reading(reading) => {
                    told.push(format!("{:?} {:?} {:?}", reading.taken_from, reading.taken_to, reading.coverage));
                    told.extend(reading.goroutines.iter().map(|parked| {
                        let (g, names) = (parked.goroutine, names.last());
                        let state = match g.state {
                            goroutines::State::Blocked { reason } => names.reason(reason).into_owned(),
                            other => format!("{other:?}"),
                        };
                        let (site, start) = (names.site(g.gopc), names.function(g.startpc));
                        let stack = (parked.stack, parked.stack_bytes);
                        format!("{:?} {:?} {:?} {site:?} {start} {state} {stack:?}", g.goid, g.parent, g.since)
                    }));
                }
                // The reasons that were not named get a name.
                Item::Program(program) => told.push(format!("{} {}", program.generation, program.exe)),
                Item::Definitions(definitions) => {
                    told.extend(definitions.stacks.iter().map(|stack| format!("{stack:?}")));
                }
                other => told.push(format!("{other:?}")),
            }
        }
        told.dedup();
        told
    }

    #[test]
    fn a_recording_comes_back() {
        let items = small(5_000);
        for compressed in [false, true] {
            let bytes = written(&items, compressed);
            let mut reader = Reader::new(bytes.as_slice()).expect("is a recording");
            assert_eq!(reader.header(), &header());
            assert_eq!(told(&items_of(&mut reader)), told(&items));
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(items in prop::collection::vec(any_item(), 0..8), compressed in any::<bool>()) {
            // Programs and their names as they come in life: before all else.
            let mut all = small(0)[..4].to_vec();
            all.extend(items.into_iter().filter(|item| !matches!(item, Item::Program(_) | Item::Definitions(_))));
            let bytes = written(&all, compressed);
            let mut reader = Reader::new(bytes.as_slice()).expect("is a recording");
            prop_assert_eq!(told(&items_of(&mut reader)), told(&all));
        }

        #[test]
        fn any_lines_are_read_or_refused(lines in prop::collection::vec("[ -~]{0,40}", 0..10), cut in any::<prop::sample::Index>()) {
            let mut bytes = written(&small(30), false);
            bytes.truncate(cut.index(bytes.len()));
            bytes.extend(lines.join("\n").bytes());
            for bytes in [bytes.as_slice(), lines.join("\n").as_bytes()] {
                if let Ok(mut reader) = Reader::new(bytes) {
                    while let Ok(Some(_)) = reader.next() {}
                }
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_off_reads_back() {
        let items = small(30);
        let whole = told(&items);
        for compressed in [false, true] {
            let bytes = written(&items, compressed);
            for len in 0..bytes.len() {
                let Ok(mut reader) = Reader::new(&bytes[..len]) else { continue };
                let read = items_of(&mut reader);
                assert!(!read.iter().any(|item| matches!(item, Item::Damage(_))), "cut at {len}: {:?}", read.last());
                let read = told(&read);
                assert!(whole.starts_with(&read), "cut at {len}: {read:?}");
            }
        }
    }

    #[test]
    fn what_trace_prints_is_read_and_what_is_foreign_is_refused() {
        let mut bytes = Vec::new();
        let mut names = RecordedNames::default();
        small(60).iter().for_each(|item| names.take(item));
        let mut events = Vec::new();
        for item in small(60) {
            if let Item::Events(some) = item {
                for event in &some {
                    crate::output::json::event(&mut bytes, event, names.last()).expect("writes");
                }
                events.extend(some);
            }
        }
        bytes.extend(b"{\"summary\":{\"pid\":4711,\"created\":10}}\n");
        let mut reader = Reader::new(bytes.as_slice()).expect("is a recording");
        assert_eq!(reader.header().started_ns, events[0].time());
        let read: usize = items_of(&mut reader)
            .iter()
            .map(|item| if let Item::Events(events) = item { events.len() } else { 0 })
            .sum();
        assert_eq!(read, events.len());
        for foreign in ["", "{}", "\n", "{\"a\":1}\n", "hello\nworld\n", "\x7fELF\n", "[1,2]\n", "{\"event\":1}\n"] {
            assert!(matches!(Reader::new(foreign.as_bytes()), Err(ReadError::Foreign { .. })), "{foreign:?}");
        }
    }
}

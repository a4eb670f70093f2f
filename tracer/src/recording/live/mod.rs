//! Recording a live session: what it sees goes into files as it comes.
//!
//! In: batches of events, programs, readings. Out: files, by way of an [`Encode`]. What records has a thread of its own
//! behind a bounded queue, so a slow disk slows neither the session nor, much less, the target: what the queue has no room
//! for is dropped, counted, and told in the recording itself as a loss.
//!
//! - [`symbolise`] turns what a session has into [`Item`]s, names and all;
//! - [`files`] writes bytes so that a file is whole whatever happens, and begins a new one where that is wanted;
//! - [`sync`] brings them to disk each second, so that no more is lost when power fails.

mod convert;
mod files;
mod symbolise;
mod sync;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use convert::Convert;
pub use files::{FilesError, Limits, Paths};

use super::{Encode, End, Header, Item, Parts, Program, wall_offset_ns};
use crate::events::{Event, LossCause};
use crate::snapshot::Snapshot;
use crate::tracee::{LoadBias, Program as TraceeProgram};
use crate::units::MonotonicNs;
use files::Files;
use symbolise::Symboliser;
use sync::Syncer;

/// Events that wait for the recording thread at most: some 60 MiB, a second of the busiest target.
const QUEUE: u64 = 1 << 20;
/// Events that an encoder is given at a time: what it makes of them fits into what is kept free on the disk.
const CHUNK: usize = 4096;
/// No event waits longer than this for its place in the file.
const FLUSH: Duration = Duration::from_secs(1);

/// Makes an encoder for each file: for a recording that goes over several, one each.
pub type NewEncoder = Box<dyn FnMut(&Header) -> io::Result<Box<dyn Encode>> + Send>;

/// What goes to the recording thread.
enum Message {
    Program(Box<TraceeProgram>, LoadBias, u32),
    Events(Vec<Event>),
    ReadingBegun(MonotonicNs),
    Reading(Box<Snapshot>),
    Detail(MonotonicNs, String),
    End(End),
}

impl Message {
    /// What it takes in the queue.
    fn weight(&self) -> u64 {
        match self {
            Message::Events(events) => events.len() as u64,
            Message::Reading(snapshot) => snapshot.goroutines.len() as u64,
            _ => 1,
        }
    }
}

/// How a recording goes, for who asks while it does.
#[derive(Debug, Default)]
pub struct Gauges {
    events: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    dropped: AtomicU64,
    wants_reading: AtomicBool,
    stopped: AtomicBool,
    last_file: AtomicBool,
}

impl Gauges {
    /// Events recorded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Bytes written, in all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Events that were not recorded because what records did not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Files begun.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.load(Relaxed)
    }

    /// Whether a new file has begun since this was last asked: it wants a reading of all goroutines soon.
    pub fn take_wants_reading(&self) -> bool {
        self.wants_reading.swap(false, Relaxed)
    }

    /// Whether nothing more is recorded: the disk is full, or the size that was allowed is reached, or writing failed.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}

/// What became of a recording.
#[derive(Debug)]
pub struct Outcome {
    /// Its end, as it stands in the last file.
    pub end: End,
    /// Why it ended before it was told to, if it did.
    pub stopped: Option<Stop>,
    /// Bytes written, in all files.
    pub bytes: u64,
    /// Files that were begun.
    pub files: u64,
}

/// Why a recording ended before it was told to.
#[derive(Debug)]
pub enum Stop {
    /// It has the size that it may have.
    MaxSize,
    /// The disk is full but for a reserve, with which the file was brought to its end.
    DiskFull,
    /// Writing failed; what had been written before is there.
    Failed(io::Error),
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    weight: u64,
    /// Events dropped since the last that were taken, and when the newest of them happened.
    dropped: u64,
    dropped_until: MonotonicNs,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    gauges: Gauges,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records a session. Nothing that is put here waits for a disk.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Recorder {
    /// Creates the (first) file and begins.
    ///
    /// # Errors
    ///
    /// If the file is there already, or cannot be created; then nothing was changed.
    pub fn begin(
        header: Header,
        paths: Paths,
        limits: Limits,
        mut new_encoder: NewEncoder,
    ) -> Result<Self, FilesError> {
        let files = Files::create(paths, limits)?;
        let encoder = new_encoder(&header).map_err(|source| files.failed(source))?;
        let shared = Arc::new(Shared::default());
        shared.gauges.files.store(1, Relaxed);
        let thread = Thread {
            shared: Arc::clone(&shared),
            header,
            files,
            syncer: Some(Syncer::start().map_err(FilesError::Thread)?),
            encoder,
            new_encoder,
            symbols: Symboliser::default(),
            parts: Parts::default(),
            end: End::default(),
            newest: MonotonicNs(0),
            flushed: Instant::now(),
            reading: InFile::No,
            stop: None,
        };
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || thread.run());
        Ok(Self { shared, thread: Some(thread.map_err(FilesError::Thread)?) })
    }

    fn put(&self, message: Message) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        queue.weight += message.weight();
        queue.messages.push_back(message);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// A program begins: the first, or after an `execve`.
    pub fn program(&self, program: &TraceeProgram, bias: LoadBias, generation: u32) {
        self.put(Message::Program(Box::new(program.clone()), bias, generation));
    }

    /// A reading of all goroutines began at this time: before the events that come next.
    pub fn reading_begun(&self, time: MonotonicNs) {
        self.put(Message::ReadingBegun(time));
    }

    /// A reading was merged: behind the events that came before. Left out where the queue has no room for it.
    pub fn reading(&self, snapshot: Box<Snapshot>) {
        if self.shared.lock().weight < QUEUE {
            self.put(Message::Reading(snapshot));
        }
    }

    /// From this time on, events of these kinds are recorded.
    pub fn detail(&self, time: MonotonicNs, level: &str) {
        self.put(Message::Detail(time, level.to_owned()));
    }

    /// Records these events, or drops and counts them if what records is too far behind.
    pub fn events(&self, events: &[Event]) {
        let Some(last) = events.last() else { return };
        let mut queue = self.shared.lock();
        if queue.closed || queue.weight.saturating_add(events.len() as u64) > QUEUE {
            queue.dropped += events.len() as u64;
            queue.dropped_until = queue.dropped_until.max(last.time());
            self.shared.gauges.dropped.fetch_add(events.len() as u64, Relaxed);
            return;
        }
        if let Some(loss) = queue.take_loss() {
            queue.messages.push_back(Message::Events(vec![loss]));
        }
        drop(queue);
        self.put(Message::Events(events.to_vec()));
    }

    /// No new file is begun any more: the recording is about to end, and its last file is to have the last reading.
    pub fn stay_in_file(&self) {
        self.shared.gauges.last_file.store(true, Relaxed);
    }

    /// How it goes.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.shared.gauges
    }

    /// Brings the recording to its end: waits until all is written.
    #[must_use]
    pub fn finish(mut self, time: MonotonicNs, why: &str) -> Outcome {
        let loss = self.shared.lock().take_loss();
        if let Some(loss) = loss {
            self.put(Message::Events(vec![loss]));
        }
        self.put(Message::End(End { time_ns: time, why: why.to_owned(), ..End::default() }));
        let joined = self.thread.take().map(JoinHandle::join);
        let broken = || Outcome {
            end: End::default(),
            stopped: Some(Stop::Failed(io::Error::other(
                "the recording thread ended badly: this is a bug in gotracer",
            ))),
            bytes: 0,
            files: 0,
        };
        joined.and_then(Result::ok).unwrap_or_else(broken)
    }
}

impl Drop for Recorder {
    /// Whoever gives up in the middle leaves a file without a regular end, but with all that was put.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // What it has to say nobody waits for.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn take_loss(&mut self) -> Option<Event> {
        let count = std::mem::take(&mut self.dropped);
        (count > 0).then_some(Event::Lost { time: self.dropped_until, cpu: 0, count, cause: LossCause::NotRecorded })
    }
}

/// What there is of a reading of all goroutines in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFile {
    No,
    /// The moment at which it began.
    Begun,
    Whole,
    /// One, and the moment at which another began.
    BegunAgain,
}

struct Thread {
    shared: Arc<Shared>,
    header: Header,
    files: Files,
    /// Until all is written.
    syncer: Option<Syncer>,
    encoder: Box<dyn Encode>,
    new_encoder: NewEncoder,
    symbols: Symboliser,
    parts: Parts,
    end: End,
    newest: MonotonicNs,
    flushed: Instant,
    /// How far this file is with a reading of all goroutines.
    reading: InFile,
    stop: Option<Stop>,
}

impl Thread {
    fn run(mut self) -> Outcome {
        loop {
            let messages = self.await_messages();
            let Some(messages) = messages else { break };
            for message in messages {
                if let Message::End(end) = message {
                    self.end = End { events: self.end.events, lost: self.end.lost, late: self.end.late, ..end };
                    self.finish_file();
                    return self.outcome();
                }
                self.take(message);
            }
            if self.flushed.elapsed() >= FLUSH {
                self.flushed = Instant::now();
                self.attempt(|this| {
                    this.encoder.flush(&mut this.parts)?;
                    this.write()?;
                    let files = &mut this.files;
                    this.syncer.as_ref().map_or(Ok(()), |syncer| syncer.sync(|| files.take_unsynced()))
                });
            }
            if self.stop.is_some() {
                break;
            }
        }
        if let Some(stop) = &self.stop {
            self.end.why = if matches!(stop, Stop::Failed(_)) { "failed" } else { "full" }.to_owned();
            self.end.time_ns = self.newest;
            if !matches!(stop, Stop::Failed(_)) {
                self.finish_file();
            }
        } else {
            self.attempt(|this| {
                this.encoder.flush(&mut this.parts)?;
                this.write()
            });
        }
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        let rest = self.files.take_unsynced();
        let synced = rest.and_then(|rest| self.syncer.take().map_or(Ok(()), |syncer| syncer.finish(rest)));
        if let Err(error) = synced
            && !matches!(self.stop, Some(Stop::Failed(_)))
        {
            self.stop = Some(Stop::Failed(error));
        }
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.messages.clear();
        self.shared.gauges.stopped.store(true, Relaxed);
        drop(queue);
        let gauges = &self.shared.gauges;
        Outcome { end: self.end, stopped: self.stop, bytes: gauges.bytes(), files: gauges.files() }
    }

    /// What there is, once there is something or it is time to flush; `None` once nothing can come any more.
    fn await_messages(&self) -> Option<VecDeque<Message>> {
        let mut queue = self.shared.lock();
        if queue.messages.is_empty() && !queue.closed {
            let wait = FLUSH.saturating_sub(self.flushed.elapsed());
            let waited = self.shared.filled.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.messages.is_empty() && queue.closed {
            return None;
        }
        // One at a time where they are large: what is taken no longer counts as waiting.
        let first = queue.messages.pop_front();
        let weight = first.as_ref().map_or(0, Message::weight);
        queue.weight = queue.weight.saturating_sub(weight);
        Some(first.into_iter().collect())
    }

    fn take(&mut self, message: Message) {
        if self.stop.is_some() {
            self.count_dropped(&message);
            return;
        }
        match message {
            Message::Program(program, bias, generation) => {
                let item = Item::Program(Program::of(&program, bias, generation));
                self.symbols.program(*program, bias, generation, item.clone());
                self.put(&item);
            }
            Message::Events(events) => {
                if let Some(definitions) = self.symbols.of_events(&events) {
                    self.put(&Item::Definitions(definitions));
                }
                for chunk in events.chunks(CHUNK) {
                    if self.put(&Item::Events(chunk.to_vec())) {
                        self.count(chunk);
                    }
                }
            }
            Message::ReadingBegun(time) => {
                if self.put(&Item::ReadingBegun(time)) {
                    self.reading = match self.reading {
                        InFile::No | InFile::Begun => InFile::Begun,
                        InFile::Whole | InFile::BegunAgain => InFile::BegunAgain,
                    };
                }
            }
            // It began in the file before: a reader, who knows only this one, could not merge it.
            Message::Reading(_) if self.reading == InFile::No => {}
            Message::Reading(snapshot) => {
                let (definitions, reading) = self.symbols.of_snapshot(&snapshot);
                drop(snapshot);
                if let Some(definitions) = definitions {
                    self.put(&Item::Definitions(definitions));
                }
                if let Some(reading) = reading
                    && self.put(&Item::Reading(reading))
                {
                    self.reading = InFile::Whole;
                }
            }
            Message::Detail(time, level) => {
                self.put(&Item::Detail { time, level });
            }
            Message::End(_) => {}
        }
        self.rotate();
    }

    fn count(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Lost { count, .. } => self.end.lost = self.end.lost.saturating_add(count),
                Event::Goroutine { time, .. } | Event::Exec { time, .. } => {
                    self.end.events += 1;
                    self.end.late += u64::from(time < self.newest);
                    self.newest = self.newest.max(time);
                }
            }
        }
        self.shared.gauges.events.store(self.end.events, Relaxed);
    }

    fn count_dropped(&self, message: &Message) {
        if let Message::Events(events) = message {
            self.shared.gauges.dropped.fetch_add(events.len() as u64, Relaxed);
        }
    }

    /// Whether it was recorded.
    fn put(&mut self, item: &Item) -> bool {
        if self.stop.is_some() {
            return false;
        }
        self.attempt(|this| {
            this.files.reserve(this.encoder.reserve())?;
            this.encoder.put(item, &mut this.parts)?;
            this.write()
        });
        matches!(self.stop, None | Some(Stop::MaxSize))
    }

    fn write(&mut self) -> io::Result<()> {
        self.files.write(&mut self.parts)?;
        self.shared.gauges.bytes.store(self.files.bytes(), Relaxed);
        Ok(())
    }

    /// Does something that may fail for want of space, which ends the recording.
    fn attempt(&mut self, done: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.stop.is_some() {
            return;
        }
        self.stop = match done(self) {
            Ok(()) if self.files.is_at_max_size() => Some(Stop::MaxSize),
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.files.is_whole() => Some(Stop::DiskFull),
            Err(error) => Some(Stop::Failed(error)),
        };
    }

    /// Ends the file with what was reserved for that.
    fn finish_file(&mut self) {
        if matches!(self.stop, Some(Stop::Failed(_))) {
            return;
        }
        self.end.wall_offset_ns = wall_offset_ns();
        let end = Item::End(self.end.clone());
        let done = self.encoder.put(&end, &mut self.parts);
        let done = done.and_then(|()| self.encoder.finish(&mut self.parts));
        let done = done.and_then(|()| self.files.finish(&mut self.parts));
        self.shared.gauges.bytes.store(self.files.bytes(), Relaxed);
        if let Err(error) = done {
            self.stop = Some(Stop::Failed(error));
        }
    }

    /// Goes on in a new file if this one is large enough: complete on its own, names and all.
    fn rotate(&mut self) {
        let stays = self.stop.is_some() || self.shared.gauges.last_file.load(Relaxed);
        if stays || !self.files.is_to_rotate(self.reading == InFile::Whole) {
            return;
        }
        self.reading = InFile::No;
        let end = End { why: "rotated".to_owned(), time_ns: self.newest, ..self.end.clone() };
        let kept = std::mem::replace(&mut self.end, end);
        self.finish_file();
        self.end = End { events: 0, lost: 0, late: 0, ..kept };
        self.attempt(|this| {
            this.header.started_ns = this.newest;
            this.header.wall_offset_ns = wall_offset_ns();
            this.files.next()?;
            this.encoder = (this.new_encoder)(&this.header)?;
            Ok(())
        });
        for item in self.symbols.all() {
            self.put(&item);
        }
        self.shared.gauges.files.fetch_add(1, Relaxed);
        self.shared.gauges.wants_reading.store(true, Relaxed);
    }
}

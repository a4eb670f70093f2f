//! The reader of events, on a thread of its own as in the command line: drains every 20 ms or at a watermark, and puts
//! what comes into a table.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use gotracer::events::{Event, EventStream, Transition};
use gotracer::goroutines::GoroutineTable;
use gotracer::probes::attach::EventMaps;
use gotracer::units::Pid;

/// As the command line has it.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// What the reader has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub created: u64,
    pub blocked: u64,
    pub running: u64,
    pub exited: u64,
    pub lost: u64,
}

impl Seen {
    /// Adds a batch.
    pub fn add(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Goroutine { transition, .. } => match transition {
                    Transition::Created { .. } => self.created += 1,
                    Transition::Blocked { .. } => self.blocked += 1,
                    Transition::Running => self.running += 1,
                    Transition::Exited => self.exited += 1,
                },
                Event::Lost { count, .. } => self.lost += count,
                Event::Exec { .. } => {}
            }
        }
    }

    pub fn events(&self) -> u64 {
        self.created + self.blocked + self.running + self.exited
    }
}

/// The thread. It ends when this is dropped.
pub struct Reader {
    requests: Option<Sender<Sender<Seen>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Reader {
    /// Opens the buffers and begins to read.
    pub fn start(maps: EventMaps, pid: Pid) -> Result<Self> {
        let (requests, incoming) = channel();
        let (opened, is_open) = channel();
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // Programs that are loaded later refer to these.
            let _kept = maps.kept;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let stream = EventStream::open(maps.events, maps.counts)?;
                let _ = opened.send(());
                read(stream, pid, &incoming).await
            })
        })?;
        let mut reader = Self { requests: Some(requests), thread: Some(thread) };
        if is_open.recv().is_err() {
            return Err(reader.failure());
        }
        Ok(reader)
    }

    /// What it has seen since it was last asked, up to now.
    pub fn take(&mut self) -> Result<Seen> {
        let (reply, seen) = channel();
        let asked = self.requests.as_ref().is_some_and(|requests| requests.send(reply).is_ok());
        match seen.recv() {
            Ok(seen) if asked => Ok(seen),
            _ => Err(self.failure()),
        }
    }

    fn failure(&mut self) -> anyhow::Error {
        self.requests = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error.context("the reader failed"),
            _ => anyhow!("the reader is gone"),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn read(mut stream: EventStream, pid: Pid, requests: &Receiver<Sender<Seen>>) -> Result<()> {
    let mut table = GoroutineTable::new(pid);
    let mut seen = Seen::default();
    let mut batch = Vec::new();
    loop {
        let request = match requests.try_recv() {
            Ok(request) => Some(request),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        // Who asks has detached: what the drain after the question finds is the rest.
        let interval = if request.is_some() { Duration::ZERO } else { INTERVAL };
        batch.clear();
        stream.next_batch(interval, &mut batch).await.context("events cannot be read")?;
        if request.is_some() {
            // Events are given out one drain late.
            stream.next_batch(interval, &mut batch).await.context("events cannot be read")?;
        }
        table.apply_all(&batch);
        seen.add(&batch);
        if let Some(request) = request {
            let _ = request.send(std::mem::take(&mut seen));
        }
    }
}

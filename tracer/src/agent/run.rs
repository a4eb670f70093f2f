//! The agent from its start to its end: one thread on which events are read, processes looked at and questions answered.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use super::allocator;
use super::config::{Config, ConfigError};
use super::http::{self, HttpError};
use super::kernel::Kernel;
use super::state::{self, Shared, State, TICK};
use super::systemd;
use super::take_on::{self, chain};
use super::{circuit_breaker, evidence, export};
use crate::events::{EventStream, StreamError};
use crate::probes::calibration::calibrate;
use crate::probes::{AttachError, Capacity, Execs, KernelPrograms};
use crate::tracee::{TraceeError, in_host_pid_namespace};

/// Why the agent cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// We are in a PID namespace.
    #[error(transparent)]
    Namespace(#[from] TraceeError),
    /// The kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Events cannot be read.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Nobody can ask.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The system refused a thread or a signal handler.
    #[error("the system does not let the agent begin")]
    System(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. Findings and alarms go to `lines`, one JSON object a line, unless the configuration names a
/// file. `path` is the configuration's file, which SIGHUP reads again; `ready` is told where the
/// agent listens once it does.
///
/// # Errors
///
/// If it cannot begin, or the kernel can no longer be read.
pub fn run(
    path: Option<PathBuf>,
    config: Config,
    lines: Box<dyn Write>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), AgentError> {
    in_host_pid_namespace()?;
    allocator::share();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(path, config, lines, ready))
}

async fn serve(
    path: Option<PathBuf>,
    config: Config,
    mut lines: Box<dyn Write>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), AgentError> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // First what fails for a reason of ours: a port in use is not worth a probe.
    let listener = http::Listener::bind(&config.http).await?;
    match evidence::clean(&config.evidence.directory) {
        Ok(0) => {}
        Ok(n) => log::warn!("{n} unfinished folders of evidence were removed"),
        Err(error) => log::warn!("{}: {error}", config.evidence.directory.display()),
    }
    let capacity = Capacity { buffers: config.budget.buffers.0 as usize, ..Capacity::NONE };
    let (mut programs, maps) = KernelPrograms::load_with(capacity, Execs::Every)?;
    let hit_ns = match calibrate(&mut programs) {
        // The probes on our own code are detached on the way: it takes a moment that nobody waits for.
        Ok((cost, probes)) => {
            std::thread::spawn(move || drop(probes));
            cost.trap.emulated_ns + cost.event_ns
        }
        Err(error) => {
            log::warn!(
                "what a probe costs could not be measured ({}); overheads are worked out with 1,000 ns a hit",
                chain(&error)
            );
            1000.0
        }
    };
    let mut stream = EventStream::open(maps.events, maps.counts)?;
    let kernel = Kernel::start(programs)?;
    let shared: Shared = Rc::new(RefCell::new(State::new(config, kernel, hit_ns)));
    let address = listener.address();
    listener.serve(&shared);
    ready(address);
    export::start(&shared);
    systemd::notify("READY=1");
    let watchdog = systemd::watchdog();
    let mut told = Instant::now();
    state::scan(&shared);

    let (mut events, mut scanned, mut advanced) = (Vec::new(), Instant::now(), Instant::now());
    loop {
        events.clear();
        tokio::select! {
            read = stream.next_batch(TICK, &mut events) => read?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => {
                systemd::notify_reloading();
                match Config::load(path.as_deref()) {
                    Ok(config) => {
                        state::reload(&shared, config);
                        log::warn!("the configuration was read again");
                    }
                    Err(error) => {
                        log::error!("{error}\nthe configuration stays as it was");
                        shared.borrow_mut().count_error("reading_configuration");
                    }
                }
                systemd::notify("READY=1");
                continue;
            }
        }
        let replaced = shared.borrow_mut().dispatch(&events);
        for pid in replaced {
            take_on::start(&shared, pid);
        }
        let now = Instant::now();
        // A storm of events wakes us more often than anything else need be looked at.
        if now.duration_since(advanced) >= TICK / 2 {
            advanced = now;
            state::advance(&shared, stream.released());
            let sampled = {
                let mut state = shared.borrow_mut();
                state.fullest = stream.fullest();
                state.released = stream.released();
                state.sample(stream.released(), now)
            };
            if sampled {
                state::keep_budget(&shared, now);
                state::prove(&shared, now);
                circuit_breaker::evaluate(&shared, stream.released(), now);
            }
            say(&shared, &mut lines);
        }
        if now.duration_since(scanned) >= shared.borrow().config.discovery.scan_interval.0 {
            scanned = now;
            state::scan(&shared);
        }
        if watchdog.is_some_and(|every| now.duration_since(told) >= every) {
            told = now;
            systemd::notify("WATCHDOG=1");
        }
    }
    systemd::notify("STOPPING=1");
    shared.borrow().detach();
    Ok(())
}

/// Says what there is to say: to the file that the configuration names, or to `lines`.
fn say(shared: &Shared, lines: &mut dyn Write) {
    let (notices, file) = {
        let mut state = shared.borrow_mut();
        if state.notices.is_empty() {
            return;
        }
        (std::mem::take(&mut state.notices), state.config.log.file.clone())
    };
    export::keep(shared, &notices);
    let mut text = Vec::new();
    for notice in &notices {
        if serde_json::to_writer(&mut text, notice).is_ok() {
            text.push(b'\n');
        }
    }
    // Opened each time: whoever rotates it need not tell us.
    let written = match &file {
        Some(path) => {
            OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(&text))
        }
        None => lines.write_all(&text).and_then(|()| lines.flush()),
    };
    if let Err(error) = written {
        log::warn!("{} notices could not be written: {error}", notices.len());
        shared.borrow_mut().count_error("writing_log");
    }
}

/// Each process and each probe takes a descriptor; the usual soft limit is 1,024.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a rlimit to write to, then the same to read from.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        log::warn!("the limit of open files could not be raised: {}", std::io::Error::last_os_error());
    }
}

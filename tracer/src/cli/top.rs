//! `gotracer top`: a picture of a running process that keeps itself up to date.
//!
//! One thread follows the session and draws; the terminal is written and read by threads of their own, and stacks and
//! memory are read by [`Watch`]'s.

mod outbox;
mod proving;
mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::live::{CostArguments, runtime};
use super::{Failure, logger, parse_duration, sink};
use crate::analysis::{Analysis, Thresholds};
use crate::events::{Event, now};
use crate::kernel::ticks_per_second;
use crate::output::tui::{
    Action, Column, Diagnosis, Effect, Facts, GroupBy, Look as Appearance, Price, Reading, State, action, draw, json,
    text,
};
use crate::process::Process;
use crate::session::{End, Progress, Session};
use crate::snapshot::Symbols;
use crate::units::{MonotonicNs, Pid};
use crate::watch::{Look, Pace, Watch};

use proving::Proving;
use terminal::Screen;

/// Watch a running Go process: its goroutines by creation site, their stacks, what is suspected, how long memory lasts
#[derive(Args)]
#[command(after_help = "\
Keys are as in htop; F1 or ? explains them. Pipes and files get one picture: --once.

Examples:
  gotracer top --pid 1234                          watch it
  gotracer top --pid 1234 --group reason           what is everything waiting for?
  gotracer top --pid 1234 --sort net               who grows?
  gotracer top --pid 1234 --once                   one picture, as text
  gotracer top --pid 1234 --once --for 30s --json  for other programs, with what half a minute's watching found")]
pub(super) struct TopArguments {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pid: u32,
    /// From one look to the next (+ and - change it)
    #[arg(short, long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// Group by
    #[arg(short, long, value_name = "WHAT", value_enum, default_value = "site")]
    group: GroupBy,
    /// Sort by
    #[arg(short, long, value_name = "COLUMN", value_enum, default_value = "live")]
    sort: Sort,
    /// Show only rows that contain these words
    #[arg(short, long, value_name = "WORDS")]
    filter: Option<String>,
    /// Print one picture as text and end
    #[arg(long)]
    once: bool,
    /// With --once: as one JSON object, with all rows
    #[arg(long, requires = "once")]
    json: bool,
    /// With --once: watch for so long before (default: one interval)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, requires = "once")]
    duration: Option<Duration>,
    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,
    #[command(flatten)]
    cost: CostArguments,
}

/// The columns of `--sort`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// Live goroutines
    Live,
    /// Growth of their number
    Net,
    /// Created a second
    Born,
    /// Ended a second
    Died,
    /// Parks a second
    Parks,
    /// Blocked goroutines
    Blocked,
    /// Age of the oldest
    Oldest,
    /// Stack memory
    Stacks,
    /// Name
    Name,
}

impl Sort {
    fn column(self) -> Column {
        match self {
            Self::Live => Column::Live,
            Self::Net => Column::Net,
            Self::Born => Column::Born,
            Self::Died => Column::Died,
            Self::Parks => Column::Parks,
            Self::Blocked => Column::Blocked,
            Self::Oldest => Column::Oldest,
            Self::Stacks => Column::Stack,
            Self::Name => Column::Name,
        }
    }
}

/// Shorter than a drawing takes on a slow connection, and longer than anybody waits.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3_600));

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < INTERVALS.0 || interval > INTERVALS.1 {
        return Err(format!("`{text}` is not between 100ms and 1h"));
    }
    Ok(interval)
}

/// How often to look for events when no filling buffer wakes us.
const POLL: Duration = Duration::from_millis(50);
/// The picture of before the goroutines that are there were read is of no use; if they cannot be read it has to do.
const FOR_SEEDING: Duration = Duration::from_secs(3);

pub(super) fn top(arguments: &TopArguments) -> Result<ExitCode, Failure> {
    if !arguments.once && !std::io::stdout().is_terminal() {
        return Err("stdout is no terminal; --once prints one picture to a file or pipe".into());
    }
    if !arguments.once && std::env::var("TERM").is_ok_and(|term| term == "dumb") {
        return Err("this terminal (TERM=dumb) cannot show a picture that moves; --once prints one".into());
    }
    let process = Process::open(Pid(arguments.pid))?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let follower = Follower::begin(process, arguments)?;
        if arguments.once { once(follower, arguments).await } else { watch(follower, arguments).await }
    });
    // A thread that still reads the process's memory is not worth waiting for.
    runtime.shutdown_background();
    // Warnings of while the picture was there.
    logger::release();
    done
}

/// Everything that keeps the model up to date.
struct Follower {
    session: Session,
    state: State,
    events: Vec<Event>,
    watch: Option<Watch>,
    proving: Option<Proving>,
    analysis: Analysis,
    /// A thread that names what was read.
    naming: Option<JoinHandle<Reading>>,
    began: Instant,
    used: Used,
    ended: bool,
}

/// The processor's time that this process has used, when it was last asked.
#[derive(Default)]
struct Used(Option<(Instant, Duration)>);

impl Used {
    /// The share of one processor since the last call; `None` at the first.
    fn share_since_last(&mut self) -> Option<f64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a timespec to write to. The clock exists, so this cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        let used = Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        let now = Instant::now();
        let (last, was) = self.0.replace((now, used))?;
        let seconds = now.duration_since(last).as_secs_f64();
        (seconds > 0.0).then(|| used.saturating_sub(was).as_secs_f64() / seconds)
    }
}

/// What happened.
enum News {
    /// Nothing that needs a picture at once.
    Little,
    /// Something to be shown.
    Worth,
}

impl Follower {
    fn begin(process: Process, arguments: &TopArguments) -> Result<Self, Failure> {
        let session = Session::attach_with(process, arguments.cost.options())?;
        let mut state = State::new(facts(&session), (80, 24), arguments.interval);
        state.arrange(arguments.group, Some(arguments.sort.column()), arguments.filter.as_deref());
        let mut follower = Self {
            session,
            state,
            events: Vec::new(),
            watch: None,
            proving: None,
            analysis: Analysis::new(Thresholds::default()),
            naming: None,
            began: Instant::now(),
            used: Used::default(),
            ended: false,
        };
        follower.begin_to_watch();
        Ok(follower)
    }

    /// Stacks and memory are read only if that works; the rest is there without them.
    fn begin_to_watch(&mut self) {
        let Some(tracee) = self.session.tracee() else { return };
        self.proving = Proving::begin(tracee);
        self.watch = match Watch::new(tracee, Pace::Gentle) {
            Ok(watch) => Some(watch),
            Err(error) => {
                log::warn!("no stacks and no memory figures: {error}");
                None
            }
        };
    }

    /// Waits for the next thing that happens, and takes it in. May be dropped and called again.
    async fn next(&mut self) -> Result<News, Failure> {
        let Self { session, watch, naming, events, .. } = self;
        if self.ended {
            return std::future::pending().await;
        }
        events.clear();
        tokio::select! {
            progress = session.next(POLL, events) => {
                let progress = progress?;
                self.take_in(progress)
            }
            look = look(watch) => {
                match look {
                    Ok(look) => self.take_look(look),
                    // The session will say so if the process has ended.
                    Err(error) => log::debug!("no look at the process: {error}"),
                }
                Ok(News::Little)
            }
            reading = named(naming) => {
                self.naming = None;
                if let Some(reading) = reading {
                    self.state.take_reading(reading);
                }
                Ok(News::Little)
            }
        }
    }

    fn take_in(&mut self, progress: Progress) -> Result<News, Failure> {
        self.state.take_in(&self.events);
        if let Some(watch) = &mut self.watch {
            watch.learn(&self.events, self.session.table());
        }
        match progress {
            Progress::Running | Progress::Merged(_) => Ok(News::Little),
            Progress::Followed => {
                self.state.follow(facts(&self.session));
                self.analysis = Analysis::new(Thresholds::default());
                self.naming = None;
                self.begin_to_watch();
                Ok(News::Worth)
            }
            Progress::Ended(end) => {
                self.events.clear();
                self.session.finish(&mut self.events)?;
                self.state.take_in(&self.events);
                self.observe();
                self.state.end(match end {
                    End::Exited => "the process exited".to_owned(),
                    End::Replaced(why) => format!("replaced by another program: {why}"),
                });
                self.ended = true;
                self.watch = None;
                self.proving = None;
                Ok(News::Worth)
            }
        }
    }

    fn take_look(&mut self, look: Look) {
        let Look { mut sample, snapshot, .. } = look;
        let table = self.session.table();
        if let Some(watch) = &mut self.watch {
            watch.add_counts(&mut sample, table);
        }
        sample.lost = table.totals().lost;
        self.analysis.observe(&sample);
        self.state.take_diagnosis(Diagnosis {
            findings: self.analysis.findings().to_vec(),
            memory: self.analysis.memory().clone(),
            forecast: self.analysis.forecast().cloned(),
            verdict: Some(self.analysis.verdict().clone()),
        });
        if let (None, Some(tracee)) = (&self.naming, self.session.tracee()) {
            let program = tracee.program().clone();
            self.naming =
                Some(tokio::task::spawn_blocking(move || Reading::of(&snapshot, &mut Symbols::new(&program.binary))));
        }
    }

    /// Whether there is a picture worth showing.
    fn is_ready(&self) -> bool {
        self.session.is_seeded() || self.began.elapsed() > FOR_SEEDING
    }

    /// One look at the table.
    fn observe(&mut self) {
        if self.is_ready() {
            let (table, names) = self.session.table_and_names();
            self.state.observe(now(), table, names);
            let own = self.used.share_since_last();
            let target = self.session.overhead().map(|overhead| overhead.of_target);
            if let Some(proofs) = self.proving.as_ref().and_then(Proving::take) {
                self.state.take_proofs(proofs);
            }
            self.state.take_price(Price { level: Some(self.session.level()), target, own });
        }
    }
}

/// The next look, if anybody looks.
async fn look(watch: &mut Option<Watch>) -> Result<Look, crate::watch::WatchError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// What was named, if something is being named.
async fn named(naming: &mut Option<JoinHandle<Reading>>) -> Option<Reading> {
    match naming {
        Some(thread) => thread.await.ok(),
        None => std::future::pending().await,
    }
}

fn facts(session: &Session) -> Facts {
    let tracee = session.tracee();
    let path = tracee.map(|tracee| tracee.program().name.clone()).unwrap_or_default();
    let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default().to_owned();
    Facts {
        pid: session.pid(),
        name,
        go_version: session.go_version().unwrap_or_default(),
        started: tracee.map(|tracee| started(tracee.process().start_ticks())),
    }
}

/// The kernel counts from the machine's start, in ticks; a machine that slept has slept for both.
fn started(ticks: u64) -> MonotonicNs {
    MonotonicNs(ticks.saturating_mul(1_000_000_000 / ticks_per_second() as u64))
}

/// Whether the locale says that the terminal knows more than ASCII.
fn knows_unicode() -> bool {
    let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = of("LC_ALL").or_else(|| of("LC_CTYPE")).or_else(|| of("LANG")).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// One picture, printed.
async fn once(mut follower: Follower, arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    while !follower.is_ready() && !follower.ended {
        tokio::select! {
            news = follower.next() => { news?; }
            () = signals.end() => return Ok(ExitCode::SUCCESS),
        }
    }
    follower.observe();
    let until = Instant::now() + arguments.duration.unwrap_or(arguments.interval);
    let mut tick = ticks(arguments.interval);
    tick.reset();
    while !follower.ended {
        tokio::select! {
            news = follower.next() => { news?; }
            // Growth is told from several looks.
            _ = tick.tick() => follower.observe(),
            () = tokio::time::sleep_until(until) => break,
            () = signals.end() => break,
        }
    }
    if !follower.ended {
        // A rate over a moment says nothing.
        if follower.state.since_look(now()) > arguments.interval / 2 {
            follower.observe();
        }
        // The names of the last look.
        while follower.naming.is_some() && !follower.ended {
            follower.next().await?;
        }
    }
    let size = size_of_text();
    follower.state.act(Action::Resize { width: size.width, height: size.height });
    follower.state.fill(follower.session.table());
    let mut out = sink(None)?;
    if arguments.json {
        serde_json::to_writer(&mut out, &json(&follower.state))?;
        writeln!(out)?;
    } else {
        let mut buffer = Buffer::empty(size);
        let look = Appearance { colour: false, unicode: knows_unicode(), keys: false };
        let _ = draw(&mut buffer, &follower.state, look);
        out.write_all(text(&buffer).as_bytes())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The terminal's, or what COLUMNS and LINES say, or as much as is read in a mail.
fn size_of_text() -> Rect {
    let of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u16>().ok()).filter(|n| *n > 0);
    let terminal = std::io::stdout().is_terminal().then(ratatui::crossterm::terminal::size).and_then(Result::ok);
    let (width, height) = terminal.unwrap_or((of("COLUMNS").unwrap_or(120), of("LINES").unwrap_or(40)));
    Rect::new(0, 0, width.clamp(60, 1_000), height.clamp(16, 1_000))
}

fn ticks(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    // After we were stopped, one look makes up for those that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The signals that end us, and the one that we get when we go on after a stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    goes_on: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            goes_on: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    /// Waits for one that ends us.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// The picture, until somebody has seen enough.
async fn watch(mut follower: Follower, arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let look = Appearance { colour, unicode: knows_unicode(), keys: true };
    let (mut ends, mut goes_on) = {
        let signals = Signals::new()?;
        let Signals { interrupt, terminate, hangup, quit, goes_on } = signals;
        ([interrupt, terminate, hangup, quit], goes_on)
    };
    let [interrupt, terminate, hangup, quit] = &mut ends;
    logger::hold();
    let mut screen = Screen::take(!arguments.no_mouse)?;
    let mut input = terminal::events()?;
    let delivery = screen.delivery();
    let (width, height) = screen.size();
    follower.state.act(Action::Resize { width, height });
    let mut interval = follower.state.interval();
    let mut tick = ticks(interval);
    // Until the first look something is to be seen, too.
    let mut stale = true;
    let mut looked = false;
    loop {
        if stale && delivery.is_idle() {
            stale = false;
            follower.state.fill(follower.session.table());
            let hits = screen.draw(|buffer| draw(buffer, &follower.state, look))?;
            follower.state.drawn(hits);
        }
        if screen.is_lost() {
            return Err("the terminal is gone".into());
        }
        tokio::select! {
            news = follower.next() => {
                if matches!(news?, News::Worth) {
                    stale = true;
                }
                if !looked && follower.is_ready() {
                    looked = true;
                    follower.observe();
                    stale = true;
                }
            }
            _ = tick.tick(), if !follower.ended => {
                follower.observe();
                if let Some(line) = logger::held() {
                    follower.state.notify(Some(line));
                }
                stale = true;
            }
            event = input.recv() => {
                let Some(event) = event else { return Err("the terminal is gone".into()) };
                let mut event = Some(event);
                // All that has come: what a wheel says in a moment is one picture.
                while let Some(next) = event {
                    if let Some(action) = action(&next, follower.state.focus()) {
                        match follower.state.act(action) {
                            Effect::None => {}
                            Effect::Quit => return Ok(ExitCode::SUCCESS),
                            Effect::Redraw => {
                                screen.forget()?;
                                let (width, height) = screen.size();
                                follower.state.resized(width, height);
                            }
                        }
                        // A window that is to be moved in must be there.
                        follower.state.fill(follower.session.table());
                    }
                    event = input.try_recv().ok();
                }
                stale = true;
            }
            () = delivery.delivered(), if stale => {}
            _ = goes_on.recv() => {
                screen.take_again()?;
                stale = true;
            }
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = hangup.recv() => return Ok(ExitCode::SUCCESS),
            _ = quit.recv() => return Ok(ExitCode::SUCCESS),
        }
        if interval != follower.state.interval() {
            interval = follower.state.interval();
            tick = ticks(interval);
        }
    }
}

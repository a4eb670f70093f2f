//! `gotracer top` of 100,000 goroutines: what a look and a picture take in this process, without a kernel or a terminal;
//! then the processor's share of the real thing in a real terminal (tmux), beside a gotracer that follows the same process
//! and draws nothing.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gotracer::events::{Event, Transition};
use gotracer::goroutines::GoroutineTable;
use gotracer::output::tui::{Action, Facts, Look, Motion, State, draw};
use gotracer::output::{Names, SiteName};
use gotracer::units::{Goid, MonotonicNs, Pid, RemoteAddr};
use gotracer_tests::Gotracer;
use gotracer_tests::terminal::Terminal;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::stats::{Spread, shown};
use super::{Goal, Plan, cpu_time, dump, report};
use crate::toolchains;
use crate::workspace::{cargo, execute, say, target};

const CROWD: u64 = 100_000;
/// Sites of the goroutines in this process: as many as a large program has `go` statements.
const SITES: u64 = 1_000;
const SIZE: (u16, u16) = (200, 50);
/// The default of `--interval`.
const INTERVAL: Duration = Duration::from_secs(1);

/// All of the section, its goals included.
pub fn measure(version: &str, plan: &Plan) -> Result<String> {
    say(format!("pictures of {CROWD} goroutines"));
    let pictures = Pictures::measure(plan);
    execute(cargo().args(["build", "--quiet", "--release", "--package", "gotracer"]))?;
    toolchains::install_debian_packages(&["tmux"], "top in a terminal")?;
    say(format!("Go {version}: top of {CROWD} goroutines"));
    let shares = Shares::measure(&target().join("release/gotracer"), version, plan)?;
    let goals = [pictures.goal(), shares.goal()];
    Ok(format!("{}\n{}\n{}", pictures.table(), shares.table(), report::goals(&goals)))
}

/// Names as long as real ones.
struct Invented;

impl Names for Invented {
    fn site(&mut self, gopc: RemoteAddr) -> SiteName {
        let function = format!("example.com/some/service/internal/part{0}.(*Server).handle{0}", gopc.0 % 100);
        let file = format!("/src/service/internal/part{}/server.go", gopc.0 % 100);
        SiteName { function: function.into(), file: file.into(), line: gopc.0 as u32 }
    }

    fn function(&mut self, startpc: RemoteAddr) -> Arc<str> {
        format!("example.com/some/service/internal.(*Server).work{}.func1", startpc.0).into()
    }

    fn reason(&self, reason: u8) -> Cow<'_, str> {
        format!("reason {reason}").into()
    }
}

/// Milliseconds of this thread.
#[derive(Default)]
struct Pictures {
    look: Vec<f64>,
    rows: Vec<f64>,
    members: Vec<f64>,
    key: Vec<f64>,
    cells: Vec<f64>,
}

impl Pictures {
    fn measure(plan: &Plan) -> Self {
        let table = crowd();
        let facts = Facts { name: "service".to_owned(), ..Facts::default() };
        let mut state = State::new(facts, SIZE, INTERVAL);
        let mut pictures = Self::default();
        let mut shown = Buffer::empty(Rect::new(0, 0, SIZE.0, SIZE.1));
        let mut at = 1_000_000_000;
        for round in 0..plan.pictures * 2 {
            // Half of the rounds with the rows, half with 100 of one of them, in turn.
            let inside = round % 2 == 1;
            at += INTERVAL.as_nanos() as u64;
            let look = timed(|| state.observe(MonotonicNs(at), &table, &mut [Invented]));
            if inside {
                // By state: all goroutines are in one row.
                state.act(Action::GroupMenu);
                state.act(Action::Choose(3));
                state.fill(&table);
                state.act(Action::Enter);
            }
            let mut next = Buffer::empty(shown.area);
            let mut hits = None;
            let picture = timed(|| {
                state.fill(&table);
                hits = Some(draw(&mut next, &state, LOOK));
            });
            state.drawn(hits.take().unwrap_or_default());
            let key = timed(|| {
                state.act(Action::Go(Motion::By(1)));
                state.fill(&table);
                hits = Some(draw(&mut next, &state, LOOK));
            });
            let mut changed = 0;
            let cells = timed(|| changed = shown.diff(&next).len());
            std::hint::black_box(changed);
            std::mem::swap(&mut shown, &mut next);
            // The first of each kind names the sites.
            if round >= 2 {
                pictures.look.push(look);
                if inside {
                    pictures.members.push(picture)
                } else {
                    pictures.rows.push(picture)
                }
                pictures.key.push(key);
                pictures.cells.push(cells);
            }
            if inside {
                state.act(Action::Back);
                state.act(Action::GroupMenu);
                state.act(Action::Choose(0));
            }
        }
        pictures
    }

    fn table(&self) -> String {
        let row = |name: &str, of: &[f64]| format!("| {name} | {} |\n", shown(Spread::of(of.iter().copied()), 2));
        format!("| {CROWD} goroutines in {SITES} sites, {}x{}, in one thread | ms |\n| --- | --- |\n", SIZE.0, SIZE.1)
            + &row("a look: sums by site, one pass over all goroutines", &self.look)
            + &row("a picture of the sites", &self.rows)
            + &row("a picture of the goroutines in one row, all of them in it", &self.members)
            + &row("a key and the picture after it", &self.key)
            + &row("finding the cells that changed", &self.cells)
    }

    /// Looks and pictures of one second, the dearer ones.
    fn goal(&self) -> Goal {
        let rounds = self.look.iter().zip(&self.cells).zip(self.members.iter().cycle());
        let shares = rounds.map(|((look, cells), picture)| (look + cells + picture) / INTERVAL.as_secs_f64() / 10.0);
        let name = format!("looks and pictures of {CROWD} goroutines, % of a core at the default interval");
        Goal::at_most(name, Spread::of(shares), 5.0)
    }
}

const LOOK: Look = Look { colour: true, unicode: true, keys: true };

fn timed(work: impl FnOnce()) -> f64 {
    let before = cpu_time::of_this_thread();
    work();
    cpu_time::of_this_thread().saturating_sub(before).as_secs_f64() * 1e3
}

/// A table of goroutines that are all blocked.
fn crowd() -> GoroutineTable {
    let pid = Pid(1);
    let mut table = GoroutineTable::new(pid);
    for goid in 1..=CROWD {
        // Scattered, as goroutines of many sites are.
        let site = goid * 7_919 % SITES + 1;
        let created =
            Transition::Created { parent: Goid(1), gopc: RemoteAddr(site), startpc: RemoteAddr(site + (1 << 20)) };
        let steps = [created, Transition::Running, Transition::Blocked { reason: (site % 20) as u8 }];
        for (time, transition) in (goid * 4..).zip(steps) {
            table.apply(&Event::Goroutine { time: MonotonicNs(time), pid, goid: Goid(goid), transition });
        }
    }
    table
}

/// Percent of one processor.
#[derive(Default)]
struct Shares {
    bare: Vec<f64>,
    rows: Vec<[f64; 2]>,
    members: Vec<[f64; 2]>,
}

impl Shares {
    fn measure(gotracer: &Path, version: &str, plan: &Plan) -> Result<Self> {
        let program = dump::crowd(version, CROWD)?;
        let pid = program.pid();
        let mut shares = Self::default();
        for _ in 0..plan.tops {
            shares.bare.push({
                let mut trace = Command::new(gotracer);
                trace.args(["trace", "--json", "--only", "exec", "--pid", &pid.to_string()]);
                let mut tracer = Gotracer::start(&mut trace)?;
                let of = Pid(tracer.child().pid());
                // What the reading of the older goroutines costs is not what following them costs.
                std::thread::sleep(Duration::from_secs(2));
                over(plan.top, || cpu_time::of_process(of))?
            });
            for inside in [false, true] {
                let command = format!("exec '{}' top --pid {pid}", gotracer.display());
                let terminal = Terminal::start(SIZE, &command)?;
                let of = Pid(terminal.flag("pane_pid")?.parse()?);
                terminal.until_shown("main.gather")?;
                if inside {
                    terminal.keys(&["Enter"])?;
                    terminal.until_shown("Stack of goroutine")?;
                }
                std::thread::sleep(Duration::from_secs(2));
                let drawing = over_both(plan.top, of)?;
                if inside {
                    shares.members.push(drawing)
                } else {
                    shares.rows.push(drawing)
                }
                terminal.keys(&["q"])?;
            }
        }
        Ok(shares)
    }

    fn table(&self) -> String {
        let mut table = format!(
            "| following {CROWD} goroutines that wait, a look a second | % of a core, drawing thread | % of a core, with the threads that read stacks |\n\
             | --- | --- | --- |\n"
        );
        let column = |of: &[[f64; 2]], at: usize| shown(Spread::of(of.iter().map(|both| both[at])), 2);
        for (name, of) in [("top, the sites", &self.rows), ("top, the goroutines of one site", &self.members)] {
            let _ = writeln!(table, "| **{name}** | {} | {} |", column(of, 0), column(of, 1));
        }
        let bare = shown(Spread::of(self.bare.iter().copied()), 2);
        let _ = writeln!(table, "| trace, which draws nothing | - | {bare} |");
        table
    }

    fn goal(&self) -> Goal {
        let all = self.rows.iter().chain(&self.members).map(|both| both[1]);
        Goal::at_most(format!("top of {CROWD} goroutines, all its threads, % of a core"), Spread::of(all), 5.0)
    }
}

/// What `of` grows by in `time`, in percent of it.
fn over(time: Duration, of: impl Fn() -> Result<Duration>) -> Result<f64> {
    let (begin, before) = (Instant::now(), of()?);
    std::thread::sleep(time);
    let used = of()?.saturating_sub(before);
    Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0)
}

/// Of the threads that follow, draw and write, and of the whole process.
fn over_both(time: Duration, pid: Pid) -> Result<[f64; 2]> {
    let (begin, drawing, all) = (Instant::now(), drawing(pid)?, cpu_time::of_process(pid)?);
    std::thread::sleep(time);
    let (drawing, all) = (self::drawing(pid)?.saturating_sub(drawing), cpu_time::of_process(pid)?.saturating_sub(all));
    let seconds = begin.elapsed().as_secs_f64();
    Ok([drawing, all].map(|used| used.as_secs_f64() / seconds * 100.0))
}

/// The processor's time of the first thread and of the one that writes to the terminal.
fn drawing(pid: Pid) -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if task.file_name().to_string_lossy() == pid.to_string() || name.trim() == "terminal" {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).context("no schedstat in this kernel")?;
            let ns: u64 = stat.split(' ').next().unwrap_or_default().parse().context("schedstat is no number")?;
            sum += ns;
        }
    }
    Ok(Duration::from_nanos(sum))
}

//! Does the picture show what the program did, and is the terminal left as it was?
//!
//! In a real terminal (tmux): what is typed and what is on the screen. Every wait has a condition.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{gotracer, require_root_and_bpf};
use gotracer_tests::terminal::Terminal;
use gotracer_tests::traceback::{get, parse};
use gotracer_tests::tracer::Refusal;
use gotracer_tests::{GO_VERSIONS, Program, Tally};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &version in GO_VERSIONS {
        trials.push(trial(format!("top::counts_are_the_programs_own::go{version}"), move || counts(version)));
    }
    trials.push(trial("top::a_goroutine_is_found", a_goroutine_is_found));
    trials.push(trial("top::sorting_and_filtering", sorting_and_filtering));
    trials.push(trial("top::what_a_goroutine_does", what_a_goroutine_does));
    trials.push(trial("top::sizes", sizes));
    trials.push(trial("top::mouse", mouse));
    trials.push(trial("top::the_terminal_is_given_back", the_terminal_is_given_back));
    trials.push(trial("top::the_process_exits", the_process_exits));
    trials.push(trial("top::once", once));
    trials.push(trial("top::refusals", refusals));
    trials
}

fn newest() -> Result<&'static str> {
    GO_VERSIONS.last().copied().context("no Go versions")
}

/// So many goroutines in each way of waiting.
const EACH: u64 = 25;

/// The program whose goroutines all wait, and what it says of them.
fn idle(version: &str) -> Result<(Program, Tally)> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, "plain", "idle")?, &["-n", &EACH.to_string()])?;
    program.send("go")?;
    let tally = program.tally()?;
    Ok((program, tally))
}

/// A terminal with `gotracer top` of `pid`, then its exit code.
fn top(size: (u16, u16), pid: u32, args: &str) -> Result<Terminal> {
    let gotracer = gotracer()?;
    Terminal::start(size, &format!("'{}' top --pid {pid} {args}; echo EXIT=$?; read line", gotracer.display()))
}

/// The row whose text contains `name`, without the mark of a finding: its figures and words.
fn row(screen: &str, name: &str) -> Option<Vec<String>> {
    let line = screen.lines().find(|line| line.contains(name))?;
    Some(line.trim_start_matches('!').split_whitespace().map(str::to_owned).collect())
}

fn live_of(screen: &str, name: &str) -> Option<u64> {
    row(screen, name)?.first()?.parse().ok()
}

/// The picture's count of one `go` statement, and of each reason to wait in it, are the program's own, in every version.
fn counts(version: &str) -> Result<()> {
    let (program, tally) = idle(version)?;
    let [site] = &tally.sites[..] else { bail!("{} sites", tally.sites.len()) };
    let terminal = top((80, 24), program.pid(), "--interval 200ms")?;
    let place = format!("main.startIdle idle/main.go:{}", site.site.line);
    let screen = terminal.until_shown(&place)?;
    ensure!(live_of(&screen, &place) == Some(site.created), "{} were started:\n{screen}", site.created);
    ensure!(screen.contains("lost 0"), "events were lost:\n{screen}");

    terminal.keys(&["Enter"])?;
    terminal.until_shown(&format!("{place}: {} goroutines", site.created))?;
    for (reason, count) in &site.reasons {
        terminal.keys(&["/"])?;
        terminal.text(reason)?;
        terminal.until_shown(&format!("Filter: {reason}"))?;
        terminal.keys(&["Enter"])?;
        terminal.until(&format!("{count} goroutines that wait for {reason}"), |screen| {
            let rows = screen.lines().skip_while(|line| !line.contains("GOID")).skip(1);
            let rows: Vec<&str> = rows.take_while(|line| !line.contains("Stack of")).collect();
            screen.contains(&format!(": {count} goroutines"))
                && rows.len() >= 5
                && rows.iter().all(|line| line.contains(reason.as_str()))
        })?;
        // Without the filter, in the same place.
        terminal.keys(&["Escape"])?;
        terminal.until_shown(&format!("{place}: {} goroutines", site.created))?;
    }
    terminal.keys(&["q"])?;
    terminal.until_shown("EXIT=0")?;
    program.quit_in_peace()
}

/// From the table to a wait reason to one goroutine: its lines are those of the program's own traceback.
fn a_goroutine_is_found() -> Result<()> {
    let (program, tally) = idle(newest()?)?;
    let port = program.ready()["port"].as_u64().context("no port")?;
    let [site] = &tally.sites[..] else { bail!("{} sites", tally.sites.len()) };
    let terminal = top((120, 40), program.pid(), "--interval 200ms")?;
    terminal.until_shown("main.startIdle")?;
    terminal.keys(&["F5"])?;
    terminal.until_shown("Group by")?;
    terminal.keys(&["3"])?;
    let screen = terminal.until_shown("WAIT REASON")?;
    ensure!(live_of(&screen, "sync.WaitGroup.Wait") == Some(EACH), "not {EACH} wait for the group:\n{screen}");
    terminal.keys(&["F4"])?;
    terminal.text("waitgroup")?;
    terminal.keys(&["Enter"])?;
    terminal.until_shown("filter: waitgroup")?;
    terminal.keys(&["Enter"])?;
    terminal.until_shown(&format!("sync.WaitGroup.Wait: {EACH} goroutines"))?;
    terminal.keys(&["Down", "Down", "Enter"])?;
    let screen = terminal.until("a goroutine and its stack", |screen| {
        screen.contains("> goroutine ") && screen.contains("main.idleGroup")
    })?;
    let goid = screen.split("> goroutine ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let goid: u64 = goid.context("no goid")?.parse()?;

    let told = parse(&get(port, "/debug/pprof/goroutine?debug=2")?)?;
    let told = told.get(&goid).with_context(|| format!("the program has no goroutine {goid}"))?;
    ensure!(told.state.starts_with("sync.WaitGroup.Wait"), "it says of {goid}: {told:?}");
    // Go's lines are `function(...)` and `\tfile:line +0x..`.
    for pair in told.lines.chunks(2) {
        let [function, place] = pair else { continue };
        // The arguments are not shown.
        let function = function.rsplit_once('(').map_or(function.as_str(), |(name, _)| name);
        let file = place.trim().split(' ').next().and_then(|file| file.rsplit('/').next()).unwrap_or_default();
        let Some(created) = pair[0].strip_prefix("created by ") else {
            ensure!(
                screen.lines().any(|line| line.contains(function) && line.contains(file)),
                "{function} {file} is not on the screen:\n{screen}"
            );
            continue;
        };
        let created = created.split(' ').next().unwrap_or_default();
        let line = screen.lines().find(|line| line.contains("created at")).context("no creation site")?;
        ensure!(line.contains(created) && line.contains(file), "it was created by {created} at {file}: {line}");
        ensure!(file == format!("main.go:{}", site.site.line), "{file} is not the tally's {}", site.site.line);
    }
    for _ in 0..4 {
        terminal.keys(&["Escape"])?;
    }
    terminal.until("all rows again", |screen| screen.contains("WAIT REASON") && !screen.contains("filter:"))?;
    // Escape and a key at once, as a slow line brings them.
    terminal.text("\x1bq")?;
    terminal.until_shown("EXIT=0")?;
    program.quit_in_peace()
}

fn lives(screen: &str) -> Vec<u64> {
    let rows = screen.lines().skip_while(|line| !line.contains("CREATED AT")).skip(1);
    let numbers = rows.map_while(|line| line.trim_start_matches('!').split_whitespace().next()?.parse().ok());
    numbers.collect()
}

fn sorting_and_filtering() -> Result<()> {
    let (program, _) = idle(newest()?)?;
    let terminal = top((110, 30), program.pid(), "--interval 200ms")?;
    let screen = terminal.until_shown("main.startIdle")?;
    let descending = lives(&screen);
    ensure!(descending.len() >= 3 && descending[0] == 7 * EACH, "{descending:?}:\n{screen}");
    ensure!(descending.is_sorted_by(|a, b| a >= b), "not the largest first: {descending:?}");
    terminal.keys(&["I"])?;
    terminal.until("the smallest first", |screen| {
        let lives = lives(screen);
        lives.last() == Some(&(7 * EACH)) && lives.is_sorted()
    })?;
    // By name, from a menu.
    terminal.keys(&["F6"])?;
    terminal.until_shown("Sort by")?;
    terminal.keys(&["End", "Up", "Enter"])?;
    let names = |screen: &str| -> Vec<String> {
        let sorted: Vec<&str> = screen.lines().skip_while(|line| !line.contains("CREATED AT")).skip(1).collect();
        let rows = sorted.iter().take_while(|line| !line.trim().is_empty());
        rows.filter_map(|line| line.split_whitespace().rev().nth(1).map(str::to_owned)).collect()
    };
    terminal.until("rows by name", |screen| {
        let names: Vec<String> = names(screen).into_iter().filter(|name| name.starts_with("main.")).collect();
        screen.contains("CREATED AT\u{25b2}") && names.is_sorted() && !names.is_empty()
    })?;
    // The runtime's own, of which there are some in every program.
    let without = lives(&terminal.screen()?).len();
    terminal.keys(&["F2"])?;
    terminal.until("the runtime's own goroutines", |screen| lives(screen).len() > without)?;
    terminal.keys(&["F2"])?;
    terminal.until("none of the runtime's own", |screen| lives(screen).len() == without)?;
    terminal.keys(&["/"])?;
    terminal.text("STARTidle")?;
    terminal.until("one row", |screen| lives(screen) == [7 * EACH])?;
    terminal.keys(&["Escape"])?;
    terminal.until("all rows", |screen| lives(screen).len() == without)?;
    terminal.keys(&["?"])?;
    terminal.until_shown("nothing of gotracer stays in the process")?;
    terminal.keys(&["x", "Space"])?;
    terminal.until_shown("PAUSED")?;
    terminal.keys(&["Space"])?;
    terminal.until("that it goes on", |screen| !screen.contains("PAUSED") && screen.contains("every 200ms"))?;
    terminal.keys(&["F10"])?;
    terminal.until_shown("EXIT=0")?;
    program.quit_in_peace()
}

/// The timeline of a goroutine that is woken again and again.
fn what_a_goroutine_does() -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(newest()?, "plain", "pingpong")?, &[])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let terminal = top((120, 40), program.pid(), "--interval 200ms --filter pong")?;
    terminal.until_shown("pingpong/main.go")?;
    terminal.keys(&["Enter"])?;
    terminal.until_shown("goroutine")?;
    terminal.keys(&["Enter"])?;
    let screen = terminal.until("steps in both states", |screen| {
        let steps = screen.lines().skip_while(|line| !line.contains("Timeline"));
        let steps: Vec<&str> = steps.filter(|line| line.contains(" ago ")).collect();
        let of = |state: &str| steps.iter().filter(|line| line.trim_end().ends_with(state)).count();
        of("running") >= 3 && of("chan receive") + of("chan send") >= 3
    })?;
    ensure!(screen.contains("pong") && screen.contains(" parks"), "no figures:\n{screen}");
    terminal.keys(&["q"])?;
    terminal.until_shown("EXIT=0")?;
    program.send("stop")?;
    program.tally()?;
    program.quit_in_peace()
}

/// From small to large and back; what is too small says so.
fn sizes() -> Result<()> {
    let (program, _) = idle(newest()?)?;
    let terminal = top((80, 24), program.pid(), "--interval 200ms")?;
    terminal.until_shown("main.startIdle")?;
    for ((width, height), shows) in [
        ((200, 50), "RUNS"),
        ((40, 10), "needs 60x16"),
        ((60, 16), "main.startIdle"),
        ((120, 45), "Findings:"),
        ((80, 24), "main.startIdle"),
    ] {
        terminal.resize(width, height)?;
        let screen = terminal.until(&format!("{shows:?} in {width}x{height}"), |screen| {
            // The last line tells that all was drawn for this size.
            screen.contains(shows) && (height < 16 || screen.lines().last().is_some_and(|line| line.starts_with("F1")))
        })?;
        let widest = screen.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        ensure!(widest <= usize::from(width), "{widest} columns in {width}:\n{screen}");
    }
    terminal.keys(&["q"])?;
    terminal.until_shown("EXIT=0")?;
    program.quit_in_peace()
}

fn mouse() -> Result<()> {
    let (program, _) = idle(newest()?)?;
    let terminal = top((80, 24), program.pid(), "--interval 200ms")?;
    let screen = terminal.until_shown("main.startIdle")?;
    let position = |screen: &str, text: &str| -> Result<(usize, usize)> {
        let found = screen.lines().enumerate().find_map(|(y, line)| {
            let before = line.split_once(text)?.0;
            Some((before.chars().count(), y))
        });
        found.with_context(|| format!("no {text:?} on\n{screen}"))
    };
    let (x, y) = position(&screen, "main.startIdle")?;
    // It is selected already: a click opens it.
    terminal.click(x, y)?;
    let screen = terminal.until_shown(&format!("{} goroutines", 7 * EACH))?;
    let (x, y) = position(&screen, "AGE")?;
    terminal.click(x, y)?;
    terminal.until_shown("AGE\u{25bc}")?;
    let (x, y) = position(&terminal.screen()?, "Back")?;
    terminal.click(x, y)?;
    let screen = terminal.until_shown("3 Memory")?;
    let (x, y) = position(&screen, "3 Memory")?;
    terminal.click(x, y)?;
    terminal.until_shown("GOMEMLIMIT")?;
    let (x, y) = position(&terminal.screen()?, "Quit")?;
    terminal.click(x, y)?;
    terminal.until_shown("EXIT=0")?;
    program.quit_in_peace()
}

/// What a terminal is like, by what it tells of itself: its modes, the cursor, the mouse, which of its screens is shown.
fn manners(terminal: &Terminal) -> Result<BTreeMap<&'static str, String>> {
    let names = ["alternate_on", "cursor_flag", "mouse_any_flag", "mouse_sgr_flag", "wrap_flag", "keypad_flag"];
    names.into_iter().map(|name| Ok((name, terminal.flag(name)?))).collect()
}

/// After a quit, and after each signal that ends us, the terminal is as it was and the process as before.
fn the_terminal_is_given_back() -> Result<()> {
    let (program, _) = idle(newest()?)?;
    let gotracer = gotracer()?;
    for way in ["q", "C-c", "TERM", "HUP", "INT", "QUIT"] {
        let script = format!(
            "BEFORE=$(stty -g); echo earlier lines; '{}' top --pid {} & wait $!; echo EXIT=$?; \
             test \"$(stty -g)\" = \"$BEFORE\" && echo SAME MODES; read line",
            gotracer.display(),
            program.pid()
        );
        // In the foreground by keys, else known by its number.
        let script = if way.len() > 2 && way != "C-c" {
            script.replace("& wait $!", "& echo PID=$! > /dev/null; fg >/dev/null 2>&1 || wait $!")
        } else {
            script.replace("& wait $!", "")
        };
        let terminal = Terminal::start((80, 24), &format!("set -m; {script}"))?;
        terminal.until_shown("main.startIdle")?;
        ensure!(terminal.flag("alternate_on")? == "1", "the picture is not on the other screen");
        if matches!(way, "q" | "C-c") {
            terminal.keys(&[way])?;
        } else {
            signal(&terminal, way)?;
        }
        let screen = terminal.until_shown("SAME MODES").with_context(|| format!("after {way}"))?;
        ensure!(screen.contains("EXIT=0") && screen.contains("earlier lines"), "after {way}:\n{screen}");
        ensure!(!screen.contains("goroutines"), "after {way} something of the picture is left:\n{screen}");
        let fresh = Terminal::start((80, 24), "read line")?;
        let (left, expected) = (manners(&terminal)?, manners(&fresh)?);
        ensure!(left == expected, "after {way} the terminal is {left:?}, a new one {expected:?}");
    }
    poll(|| Ok(gotracer_tests::text::changed_bytes(program.pid())?.is_empty().then_some(())))
        .context("a probe is left")?;
    program.quit_in_peace()
}

/// Sends a signal to the gotracer in a terminal.
fn signal(terminal: &Terminal, name: &str) -> Result<()> {
    let shell: u32 = terminal.flag("pane_pid")?.parse()?;
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let child = children.split_whitespace().next().context("the shell has no child")?;
    let status = Command::new("kill").args(["-s", name, child]).status()?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

/// The last picture stays, and says why it does.
fn the_process_exits() -> Result<()> {
    let (program, tally) = idle(newest()?)?;
    let terminal = top((80, 24), program.pid(), "--interval 200ms")?;
    terminal.until_shown("main.startIdle")?;
    program.quit_in_peace()?;
    let screen = terminal.until_shown("ENDED: the process exited")?;
    ensure!(live_of(&screen, "main.startIdle") == Some(tally.created), "the last picture is gone:\n{screen}");
    // It can still be looked at.
    terminal.keys(&["Enter", "Enter"])?;
    terminal.until_shown("> goroutine ")?;
    terminal.keys(&["q"])?;
    terminal.until_shown("EXIT=0")?;
    Ok(())
}

fn output(args: &[&str]) -> Result<String> {
    let output = Command::new(gotracer()?).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{args:?} ended with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// One picture into a pipe, as text and as JSON.
fn once() -> Result<()> {
    let (program, tally) = idle(newest()?)?;
    let [site] = &tally.sites[..] else { bail!("{} sites", tally.sites.len()) };
    let pid = program.pid().to_string();
    let text = output(&["top", "--pid", &pid, "--once", "--interval", "200ms"])?;
    let place = format!("main.startIdle idle/main.go:{}", site.site.line);
    ensure!(live_of(&text, &place) == Some(tally.created), "{text}");
    ensure!(!text.contains('\x1b') && !text.contains("F10"), "not plain text: {text:?}");

    let json = output(&["top", "--pid", &pid, "--once", "--json", "--for", "500ms"])?;
    let json: Value = serde_json::from_str(&json)?;
    let rows = json["rows"].as_array().context("no rows")?;
    let row = rows.iter().find(|row| row["site"]["function"] == "main.startIdle").context("no row")?;
    ensure!(row["site"]["line"] == site.site.line && row["live"] == tally.created, "{row}");
    ensure!(row["blocked"] == tally.created && row["system"] == false, "{row}");
    ensure!(json["lost"] == 0 && json["pid"] == program.pid(), "{json}");
    let own = json["goroutines"]["live"].as_u64().context("no sum")?;
    let sum: u64 = rows.iter().filter_map(|row| row["live"].as_u64()).sum();
    ensure!(own == sum && own > tally.created, "{own} goroutines, {sum} in rows");
    ensure!(json["memory"]["now"]["rss"].as_u64().is_some_and(|rss| rss > 1 << 20), "no memory: {}", json["memory"]);

    let json = output(&["top", "--pid", &pid, "--once", "--json", "--group", "reason"])?;
    let json: Value = serde_json::from_str(&json)?;
    for (reason, count) in &site.reasons {
        let row = json["rows"].as_array().and_then(|rows| rows.iter().find(|row| row["reason"] == reason.as_str()));
        let row = row.with_context(|| format!("no row for {reason}"))?;
        ensure!(row["live"].as_u64() >= Some(*count), "{count} wait for {reason}: {row}");
    }
    program.quit_in_peace()
}

fn refusals() -> Result<()> {
    require_root_and_bpf()?;
    let refused = |args: &[&str], code: i32, says: &str| -> Result<()> {
        let refusal = Refusal::of(Command::new(gotracer()?).arg("top").args(args))?;
        let said = refusal.stderr.join("\n");
        ensure!(refusal.status.code() == Some(code) && said.contains(says), "{args:?}: {} {said}", refusal.status);
        ensure!(refusal.stdout.is_empty(), "{args:?} printed {:?}", refusal.stdout);
        Ok(())
    };
    let own = std::process::id().to_string();
    refused(&["--pid", &own], 1, "--once prints one picture")?;
    refused(&["--pid", &own, "--once"], 1, "cannot trace")?;
    refused(&["--pid", &own, "--json"], 2, "--once")?;
    refused(&["--pid", &own, "--interval", "1ms"], 2, "between 100ms and 1h")?;
    refused(&["--pid", "8388608", "--once"], 1, "8388608")?;
    refused(&[], 2, "--pid")
}

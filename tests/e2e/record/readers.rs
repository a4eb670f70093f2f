//! Do the tools that people have read what gotracer writes, and find the same counts?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::{Skip, go, require_root_and_bpf};
use gotracer_tests::{Program, Tally};
use libtest_mimic::Trial;
use serde_json::Value;

use super::newest;
use super::recording::{self, Recorder, convert, number, recorded_whole, report, text};
use crate::executables::Folder;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("record::read_by_others", read_by_others),
        trial("record::read_by_others_of_a_server", of_a_server),
        trial("record::each_form_while_it_happens", each_form),
        trial("record::page_in_a_browser", page),
    ]
}

/// Runs `tests/e2e/record/read.py`, with the packages at GOTRACER_PYTHON.
fn read(events: &Path, goroutines: &Path, trace: &Path) -> Result<Value> {
    let packages = std::env::var_os("GOTRACER_PYTHON");
    let packages = packages.ok_or_else(|| Skip("GOTRACER_PYTHON does not name a folder of Python packages".into()))?;
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages).arg("-c").arg(include_str!("read.py")).args([events, goroutines, trace]);
    let output = python.output().context("cannot run python3")?;
    ensure!(output.status.success(), "the readers failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn recorded(folder: &Folder, name: &str, program_args: &[&str]) -> Result<(PathBuf, Tally)> {
    require_root_and_bpf()?;
    let file = folder.path("recording.gtr");
    let program = Program::start(&Program::find(newest()?, "plain", name)?, program_args)?;
    let tally = recorded_whole(program, &file)?;
    Ok((file, tally))
}

fn converted(file: &Path) -> Result<(Value, Value)> {
    let (parquet, perfetto) = (convert(file, "parquet")?, convert(file, "pftrace")?);
    let seen = read(&parquet, &file.with_extension("goroutines.parquet"), &perfetto)?;
    Ok((report(file)?, seen))
}

/// The counts of a report are those of each reader.
fn compare(file: &Path) -> Result<(Value, Value)> {
    let (report, seen) = converted(file)?;
    let totals = &report["totals"];
    for reader in ["duckdb", "pyarrow"] {
        for kind in ["created", "exited", "blocked", "running"] {
            let found = seen[reader]["events"][kind].as_u64().unwrap_or(0);
            ensure!(Some(found) == totals[kind].as_u64(), "{reader} has {found} {kind}, gotracer {}", totals[kind]);
        }
    }
    ensure!(seen["duckdb"]["live"] == totals["live"], "{} live, gotracer {totals}", seen["duckdb"]["live"]);
    let times = &seen["duckdb"]["times"];
    let offset = report["recording"]["wall_offset_ns"].as_i64().context("no offset")?;
    for (monotonic, wall) in [(&times[0], &times[2]), (&times[1], &times[3])] {
        ensure!(
            monotonic.as_i64().and_then(|ns| ns.checked_add(offset)) == wall.as_i64(),
            "the clocks do not agree: {times}, {offset}"
        );
    }
    let header = &seen["pyarrow"]["header"];
    ensure!(header["pid"] == report["recording"]["pid"] && header["kernel"] != "", "{header}");
    let dictionaries = seen["pyarrow"]["dictionaries"].to_string();
    for column in ["site_function", "start", "reason", "event"] {
        ensure!(dictionaries.contains(column), "{column} has no dictionary: {dictionaries}");
    }
    let perfetto = &seen["perfetto"];
    ensure!(perfetto["problems"] == serde_json::json!([]), "{}", perfetto["problems"]);
    ensure!(perfetto["slices"]["runnable"] == totals["created"], "{perfetto}");
    for (reason, count) in seen["duckdb"]["reasons"].as_object().context("no reasons")? {
        // A slice more for each that waited already when the recording began.
        let slices = perfetto["slices"][reason].as_u64().unwrap_or(0);
        ensure!(slices >= number(count)?, "{slices} slices of {reason}, {count} blocks");
    }
    let goroutines: u64 =
        perfetto["goroutines"].as_object().context("no tracks")?.values().filter_map(Value::as_u64).sum();
    ensure!(Some(goroutines) == seen["pyarrow"]["goroutines"].as_u64(), "{goroutines} tracks: {seen}");
    let counted: u64 =
        perfetto["counters"].as_object().context("no counters")?.values().filter_map(Value::as_u64).sum();
    ensure!(
        counted == number(&totals["live"])? + number(&totals["system"])?,
        "the last counters say {counted}: {totals}"
    );
    profile(file, &report)?;
    Ok((report, seen))
}

/// `go tool pprof` finds the same time blocked, for each reason, and as many who wait.
fn profile(file: &Path, report: &Value) -> Result<()> {
    let profile = convert(file, "pb.gz")?;
    let raw = pprof(&["-raw"], &profile)?;
    ensure!(raw.contains("blocks/count blocked/nanoseconds[dflt] goroutine/count"), "{raw}");
    let (mut sums, mut values) = (BTreeMap::<String, [u64; 3]>::new(), [0; 3]);
    // A line of values and locations, then one of labels.
    for line in raw.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "reason:[" || word.starts_with("reason:[")) {
            let label = words[at..].join(" ");
            let reason = label.trim_start_matches("reason:[").split(']').next().unwrap_or_default().to_owned();
            let sum = sums.entry(reason).or_default();
            (0..3).for_each(|i| sum[i] += values[i]);
        } else if let [a, b, c, ..] = words.as_slice()
            && let (Ok(a), Ok(b), Ok(c)) = (a.parse(), b.parse(), c.trim_end_matches(':').parse())
        {
            values = [a, b, c];
        }
    }
    for row in report["reasons"].as_array().context("no reasons")? {
        let reason = row["reason"].as_str().unwrap_or_default();
        let [_, ns, waiting] = sums.get(reason).copied().unwrap_or_default();
        ensure!(Some(ns) == row["blocked_ns"].as_u64(), "pprof has {ns} ns of {reason}, gotracer {row}\n{raw}");
        ensure!(Some(waiting) == row["waiting"].as_u64(), "pprof has {waiting} in {reason}, gotracer {row}");
    }
    let top = pprof(&["-top"], &profile)?;
    ensure!(top.contains("Type: blocked"), "{top}");
    Ok(())
}

fn pprof(args: &[&str], profile: &Path) -> Result<String> {
    let output = Command::new(go()?).args(["tool", "pprof"]).args(args).arg(profile).output()?;
    ensure!(output.status.success(), "go tool pprof: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn read_by_others() -> Result<()> {
    let folder = Folder::new("record-readers")?;
    let (file, tally) = recorded(&folder, "tally", &[])?;
    let (_, seen) = compare(&file)?;
    for told in &tally.sites {
        let (place, count) = (&told.site, Value::from(told.created));
        let row = |rows: &Value| -> Result<Vec<Value>> {
            let rows = rows.as_array().context("no rows")?;
            let of = |row: &&Value| row[0] == *place.function && row[1] == *place.file && row[2] == place.line;
            Ok(rows.iter().filter(of).cloned().collect())
        };
        let created = row(&seen["duckdb"]["sites"])?;
        ensure!(created.iter().map(|row| &row[3]).eq([&count]), "{place:?}: {created:?}, the program {count}");
        let lives = row(&seen["duckdb"]["lives"])?;
        let expected = [told.created, told.exited, told.created - told.exited].map(Value::from);
        ensure!(
            lives.iter().map(|row| [row[3].clone(), row[4].clone(), row[5].clone()]).eq([expected.clone()]),
            "{place:?}: {lives:?}, the program {expected:?}"
        );
        if told.blocked >= 0 {
            ensure!(lives[0][6] == told.blocked, "{place:?}: {lives:?}, the program {}", told.blocked);
        }
        // The tracks below this site's: one a goroutine.
        let name =
            format!("{}:{}", Path::new(&place.file).file_name().unwrap_or_default().to_string_lossy(), place.line);
        let tracks = seen["perfetto"]["goroutines"].as_object().context("no tracks")?;
        let tracks: u64 =
            tracks.iter().filter(|(site, _)| site.ends_with(&name)).filter_map(|(_, count)| count.as_u64()).sum();
        ensure!(tracks == told.created, "{tracks} tracks below {name}, the program {}", told.created);
    }
    ensure!(number(&seen["perfetto"]["flows"])? == tally.created, "{}", seen["perfetto"]);
    Ok(())
}

/// A server under load, with goroutines that are there before and after.
fn of_a_server() -> Result<()> {
    let folder = Folder::new("record-server")?;
    let (file, tally) = recorded(&folder, "httpload", &["-seconds", "1"])?;
    let (report, seen) = compare(&file)?;
    let served = tally.sites.iter().map(|site| site.created).max().unwrap_or(0);
    ensure!(served > 100 && number(&report["totals"]["created"])? >= tally.created, "{report}");
    let rows = seen["duckdb"]["sites"].as_array().context("no sites")?;
    for told in &tally.sites {
        let of = |row: &&Value| row[0] == *told.site.function && row[2] == told.site.line;
        let created: u64 = rows.iter().filter(of).filter_map(|row| row[3].as_u64()).sum();
        ensure!(created == told.created, "{:?}: {created}, the program {}", told.site, told.created);
    }
    // What goes round through every form comes back the same.
    let compressed = convert(&file, "jsonl.zst")?;
    let back = convert(&compressed, "back.gtr")?;
    let again = self::report(&back)?;
    for part in ["totals", "reasons", "lifetimes", "timeline", "creators"] {
        ensure!(again[part] == report[part], "{part} came back as {}, was {}", again[part], report[part]);
    }
    Ok(())
}

/// Written as it happens, each form has what the program did.
fn each_form() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("record-forms")?;
    for form in ["jsonl", "jsonl.zst", "parquet", "pftrace", "pb.gz"] {
        let file = folder.path(&format!("live.{form}"));
        let mut program = Program::start(&Program::find(newest()?, "pie", "tally")?, &[])?;
        let recorder = Recorder::start(program.pid(), &file, &[])?;
        program.send("go")?;
        let tally = program.tally()?;
        recorder.stop()?.well()?;
        program.quit_in_peace()?;
        if form.starts_with("jsonl") {
            let counted = number(&report(&file)?["totals"]["created"])?;
            ensure!(counted == tally.created, "{form} has {counted} created, the program {}", tally.created);
        }
    }
    let live = |form: &str| folder.path(&format!("live.{form}"));
    let seen = read(&live("parquet"), &live("goroutines.parquet"), &live("pftrace"))?;
    ensure!(seen["perfetto"]["problems"] == serde_json::json!([]), "{}", seen["perfetto"]["problems"]);
    let tally = number(&report(&live("jsonl"))?["totals"]["created"])?;
    ensure!(seen["duckdb"]["events"]["created"] == tally, "{}", seen["duckdb"]["events"]);
    ensure!(seen["perfetto"]["slices"]["runnable"] == tally, "{}", seen["perfetto"]);
    pprof(&["-top"], &live("pb.gz"))?;
    Ok(())
}

/// The page works in a real browser, without a network, and says what the report says.
fn page() -> Result<()> {
    let folder = Folder::new("record-page")?;
    let (file, tally) = recorded(&folder, "tally", &[])?;
    let page = folder.path("page.html");
    recording::output(&["report", &text(&file), "--html", &text(&page)])?;
    let browser = ["chromium", "chromium-browser", "google-chrome"];
    let browser = browser.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = browser else {
        return Err(Skip("there is no chromium".into()).into());
    };
    let profile = folder.path("profile");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    // No name resolves: whatever it tried to load would fail.
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("file://{}", page.display()));
    let output = command.output()?;
    let dom = String::from_utf8_lossy(&output.stdout);
    ensure!(
        dom.contains("data-ready=\"true\""),
        "the script did not run to its end: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let source = std::fs::read_to_string(&page)?;
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let used = source.replace("http://www.w3.org/2000/svg", "");
        let used = used.split("id=\"figures\"").next().unwrap_or_default();
        ensure!(!used.contains(outside), "the page speaks of {outside}");
    }
    let report = report(&file)?;
    let drawn = |mark: &str| dom.matches(mark).count();
    ensure!(drawn("class=\"area\"") >= 2 && drawn("class=\"line\"") == 3, "plots are missing");
    let lives = report["lifetimes"].as_array().map_or(0, Vec::len);
    ensure!(drawn("class=\"life\"") == lives, "{} bars of {lives}", drawn("class=\"life\""));
    for (label, count) in [("created", tally.created), ("exited", tally.exited)] {
        let card = format!("<b>{count}</b><span>{label}</span>");
        ensure!(dom.contains(&card), "there is no {card}");
    }
    for told in &tally.sites {
        let name = format!(":{}", told.site.line);
        ensure!(dom.contains(&name) && dom.contains(told.site.function.as_str()), "{:?} is not on the page", told.site);
    }
    Ok(())
}

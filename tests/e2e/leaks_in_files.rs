//! Do `gotracer leaks FILE` and `gotracer diff A B` tell of recordings and dumps what the program itself counted?

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::environment::{gotracer, require_root_and_bpf};
use gotracer_tests::tally::TallySite;
use gotracer_tests::{Program, Tally};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::executables::Folder;
use crate::record::newest;
use crate::record::recording::{convert, recorded_whole, text};
use crate::trial;

/// Of so many requests one leaves its goroutine behind.
const EVERY: u64 = 3;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("leaks_in_files::recordings", recordings),
        trial("leaks_in_files::dumps", dumps),
        trial("leaks_in_files::refuses", refuses),
    ]
}

/// A program that serves so many requests, 60 a second, once it is told to go.
fn program(requests: u64, more: &[&str]) -> Result<Program> {
    require_root_and_bpf()?;
    let (requests, every) = (requests.to_string(), EVERY.to_string());
    let mut arguments = vec!["-kind", "send", "-rate", "60", "-count", &requests, "-every", &every];
    arguments.extend(more);
    Program::start(&Program::find(newest()?, "plain", "leaks")?, &arguments)
}

/// Exit code, stdout and stderr of a gotracer command.
fn run(args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = std::process::Command::new(gotracer()?).args(args).output()?;
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes);
    Ok((output.status.code(), utf8(output.stdout)?, utf8(output.stderr)?))
}

/// What a command prints as one JSON object, where it ends with this code.
fn json_of(args: &[&str], code: i32) -> Result<Value> {
    let (ended, stdout, stderr) = run(args)?;
    ensure!(ended == Some(code), "{args:?} ended with {ended:?}, not {code}:\n{stdout}\n{stderr}");
    Ok(serde_json::from_str(&stdout)?)
}

/// Records all requests of a program, into a .gtr file.
fn recorded(folder: &Folder, name: &str, requests: u64, more: &[&str]) -> Result<(PathBuf, Tally)> {
    let file = folder.path(name);
    let tally = recorded_whole(program(requests, more)?, &file)?;
    Ok((file, tally))
}

fn the_site(tally: &Tally) -> Result<&TallySite> {
    tally.sites.first().context("no site in the tally")
}

/// Those of `sites` (whose `key` may be a member of that name, or nothing) at the program's `go` statement.
fn of_site<'v>(sites: &'v Value, told: &TallySite) -> Vec<&'v Value> {
    let is_it = |site: &&Value| {
        let key = &site["key"];
        key["function"] == *told.site.function && key["file"] == *told.site.file && key["line"] == told.site.line
    };
    sites.as_array().into_iter().flatten().filter(is_it).collect()
}

/// The leak is named with its line, in each form; births, ends and those left are the program's; a program that does the same as
/// it should be done has no finding.
fn recordings() -> Result<()> {
    let folder = Folder::new("leaks-recordings")?;
    let (leaking, tally) = recorded(&folder, "leaking.gtr", 600, &[])?;
    let told = the_site(&tally)?;
    ensure!((told.created, told.exited) == (600, 400), "the program counted otherwise: {told:?}");
    let lines = convert(&leaking, "jsonl")?;
    for file in [&leaking, &lines] {
        let file = text(file);
        let report = json_of(&["leaks", &file, "--json", "--fail"], 3)?;
        let findings = report["findings"].as_array().context("no findings")?;
        ensure!(findings.len() == 1, "{file}: one finding was expected: {findings:?}");
        let (finding, site) = (&findings[0], &findings[0]["site"]);
        ensure!(finding["kind"] == "channel" && report["by"] == "recording", "{file}: {finding}");
        ensure!(
            site["function"] == *told.site.function && site["line"] == told.site.line,
            "{file}: {site} is not {:?}",
            told.site
        );
        let [counts] = of_site(&report["sites"], told)[..] else { anyhow::bail!("{file}: {}", report["sites"]) };
        ensure!(
            (&counts["created"], &counts["exited"], &counts["live"]) == (&json!(600), &json!(400), &json!(200)),
            "{file}: {counts}"
        );
        let (code, said, _) = run(&["leaks", &file])?;
        let place = format!("main.send leaks/{}:{}", file_name(&told.site.file), told.site.line);
        ensure!(code == Some(0) && said.contains(&place) && said.contains("1 suspected"), "{file}: {place}: {said}");
    }

    let (healthy, tally) = recorded(&folder, "healthy.gtr", 600, &["-twin"])?;
    let report = json_of(&["leaks", &text(&healthy), "--json", "--fail"], 0)?;
    ensure!(report["findings"] == json!([]), "{}", report["findings"]);
    let [counts] = of_site(&report["sites"], the_site(&tally)?)[..] else { anyhow::bail!("{}", report["sites"]) };
    ensure!(
        (&counts["created"], &counts["exited"], &counts["live"]) == (&json!(600), &json!(600), &json!(0)),
        "{counts}"
    );

    // Two runs of one program: by how many more there are at the end.
    let (shorter, _) = recorded(&folder, "shorter.gtr", 150, &[])?;
    for (before, after, counts) in [(&shorter, &leaking, [50, 200, 150]), (&lines, &shorter, [200, 50, -150])] {
        let (before, after) = (text(before), text(after));
        let diff = json_of(&["diff", &before, &after, "--json"], 0)?;
        let [site] = of_site(&diff["sites"], told)[..] else { anyhow::bail!("{}", diff["sites"]) };
        let seen = [&site["before"], &site["after"], &site["more"]].map(Value::as_i64);
        ensure!(seen == counts.map(Some) && diff["seconds"].is_null() && site["stayed"].is_null(), "{site}");
        let (_, said, _) = run(&["diff", &before, &after])?;
        let row = said.lines().find(|line| line.contains(&format!(":{}", told.site.line))).unwrap_or_default();
        ensure!(row.contains(&format!("{:+}", counts[2])) && row.contains("main.send"), "{said}");
    }
    Ok(())
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Of dumps what stands is compared, and, as they are of one process, who stayed.
fn dumps() -> Result<()> {
    let folder = Folder::new("leaks-dumps")?;
    let mut program = program(90, &[])?;
    let pid = program.pid().to_string();
    let dump = |name: &str| -> Result<String> {
        let file = text(&folder.path(name));
        let (code, _, stderr) = run(&["dump", "--pid", &pid, "--json", "--output", &file])?;
        ensure!(code == Some(0), "no dump: {stderr}");
        Ok(file)
    };
    let before = dump("before.json")?;
    program.send("go")?;
    let tally = program.tally()?;
    let told = the_site(&tally)?;
    ensure!((told.created, told.exited) == (90, 60), "the program counted otherwise: {told:?}");
    let (after, again) = (dump("after.json")?, dump("again.json")?);

    let diff = json_of(&["diff", &before, &after, "--json"], 0)?;
    let seconds = diff["seconds"].as_f64().context("two dumps of one process have a time between them")?;
    let [site] = of_site(&diff["sites"], told)[..] else { anyhow::bail!("{}", diff["sites"]) };
    let counts = [&site["before"], &site["after"], &site["more"], &site["stayed"]].map(Value::as_i64);
    ensure!(counts == [0, 30, 30, 0].map(Some), "{site}");
    let rate = site["per_second"].as_f64().context("no rate")?;
    ensure!((rate - 30.0 / seconds).abs() < 1e-6, "{rate} a second in {seconds} s");
    ensure!(site["reason"] == "chan send" && site["stack"][0]["function"] == "main.query", "{site}");
    // The other way round they went.
    let diff = json_of(&["diff", &after, &before, "--json"], 0)?;
    let [site] = of_site(&diff["sites"], told)[..] else { anyhow::bail!("{}", diff["sites"]) };
    ensure!((&site["before"], &site["more"]) == (&json!(30), &json!(-30)), "{site}");
    let diff = json_of(&["diff", &after, &again, "--json"], 0)?;
    ensure!(of_site(&diff["sites"], told).is_empty() && diff["same"].as_u64() > Some(0), "nothing has changed: {diff}");

    // A single look tells who is there, and that it cannot tell growth.
    let report = json_of(&["leaks", &after, "--json"], 0)?;
    let [counts] = of_site(&report["sites"], told)[..] else { anyhow::bail!("{}", report["sites"]) };
    ensure!(counts["live"] == 30 && counts["created"].is_null() && report["by"] == "dump", "{counts}");
    let (code, _, stderr) = run(&["leaks", &after, "--fail"])?;
    ensure!(code == Some(1) && stderr.contains("too shortly"), "{code:?}: {stderr}");
    program.quit_in_peace()?;

    // Of another process, with goroutines that were left long ago: no time between, but the same line.
    let other = Program::start(&Program::find(newest()?, "plain", "leaks")?, &["-kind", "accumulated"])?;
    let site = other.ready().clone();
    let file = text(&folder.path("other.json"));
    let (code, ..) = run(&["dump", "--pid", &other.pid().to_string(), "--json", "--output", &file])?;
    other.quit_in_peace()?;
    let diff = json_of(&["diff", &before, &file, "--json"], 0)?;
    let most = &diff["sites"][0];
    ensure!(code == Some(0) && diff["seconds"].is_null() && most["stayed"].is_null(), "{most}");
    ensure!(most["key"]["line"] == site["line"] && most["more"] == 2000, "{most}");
    Ok(())
}

fn refuses() -> Result<()> {
    let folder = Folder::new("leaks-refuses")?;
    std::fs::write(folder.path("no.json"), "{\"taken_to_ns\": 1, \"goroutines\": 7}")?;
    for file in ["/nonexistent".to_owned(), text(&folder.path("no.json"))] {
        let (code, _, stderr) = run(&["leaks", &file])?;
        ensure!(code == Some(1) && stderr.contains(&file), "{file}: {code:?}: {stderr}");
    }
    Ok(())
}

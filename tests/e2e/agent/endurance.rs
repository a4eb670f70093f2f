//! Does it bear what hosts do to it: `kill -9`, and running for long?

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder, soak};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::text::changed_bytes;
use libtest_mimic::Trial;

use super::{QUICK, check_evidence, count_folders, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("agent::killed_at_any_moment", killed), trial("agent::a_soak_leaves_memory_flat", memory_flat)]
}

/// `kill -9` at moments that nobody chose: the targets go on, what is left of evidence is whole, the next agent goes on.
fn killed() -> Result<()> {
    require_root_and_bpf()?;
    let folder = Folder::new("killed")?;
    let path = folder.copy(&newest("pingpong")?)?;
    let mut program = Program::start(&path, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let alarm = "[[alarm]]\nname = \"always\"\nfigure = \"goroutines\"\nabove = 1\nsamples = 1\ncooldown = \"1ms\"\nmax_per_hour = 100000\n";
    let quick = "[metrics]\nsample_interval = \"100ms\"\nsnapshot_interval = \"1s\"\n";
    let evidence = folder.path().join("evidence");
    let mut moment = 7_u64;
    for round in 0..6 {
        let mut agent = Agent::start(&folder, &format!("{quick}{alarm}"))?;
        if round == 0 {
            // Else the test might be over before there is anything to be whole.
            poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
        }
        // A pseudo-random part of a second, the same in each run.
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(moment >> 54));
        agent.child().signal(libc::SIGKILL)?;
        agent.child().await_exit()?;
    }
    poll(|| Ok(changed_bytes(program.pid())?.is_empty().then_some(()))).context("probes are left")?;
    let mut whole = 0;
    for entry in fs::read_dir(&evidence)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            check_evidence(&path)?;
            whole += 1;
        }
    }
    ensure!(whole > 0, "no evidence at all");
    let agent = Agent::start(&folder, QUICK)?;
    agent.await_watched(program.pid())?;
    for entry in fs::read_dir(&evidence)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with(".partial-"), "{name} is left by a killed agent");
    }
    program.send("stop")?;
    let tally = program.tally()?;
    ensure!(tally.iterations > 1_000, "the program hardly went on: {} iterations", tally.iterations);
    program.quit_in_peace()?;
    agent.stop()
}

/// Programs that come and go, watched ones and such that a rule denies: what was kept of them goes with them.
fn memory_flat() -> Result<()> {
    require_root_and_bpf()?;
    let (folder, elsewhere) = (Folder::new("soak")?, Folder::new("soak-denied")?);
    let path = folder.copy(&newest("idle")?)?;
    let config = "[discovery]\nkeep_probes = \"1s\"\nmin_age = \"1ms\"\n";
    let mut agent = Agent::start(&folder, &format!("{QUICK}{config}"))?;
    let pid = agent.child().pid();
    let resident =
        |agent: &Agent| -> Result<f64> { Ok(agent.metrics()?.sum("gotracer_agent_resident_memory_bytes", &[])) };
    let open_files = || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count()) };
    let is_denied = |agent: &Agent, pid: u32| -> Result<Option<()>> {
        let all = agent.json("/processes")?;
        let rows = all["processes"].as_array().context("no processes")?;
        Ok(rows.iter().any(|row| row["pid"] == pid && row["verdict"] == "denied").then_some(()))
    };
    let round = |agent: &Agent| -> Result<()> {
        let programs: Vec<Program> = (0..10).map(|_| Program::start(&path, &["-n", "20"])).collect::<Result<_>>()?;
        // A file that was never met before.
        let denied = elsewhere.copy(&newest("tally")?)?;
        let other = Program::start(&denied, &[])?;
        for program in &programs {
            agent.await_watched(program.pid())?;
        }
        poll(|| is_denied(agent, other.pid())).context("it is not told that it is denied")?;
        drop(other);
        Ok(fs::remove_file(denied)?)
    };
    // What is allocated once is allocated.
    for _ in 0..5 {
        round(&agent)?;
    }
    let (bytes, files) = (resident(&agent)?, open_files()?);
    let (begin, mut rounds) = (Instant::now(), 0_u64);
    while begin.elapsed() < soak() {
        round(&agent)?;
        rounds += 1;
    }
    // Other programs of the machine come and go, too.
    let most_files = files + 30;
    poll(|| Ok((open_files()? <= most_files).then_some(())))
        .with_context(|| format!("{rounds} rounds: {files} open files became {}", open_files().unwrap_or_default()))?;
    let after = resident(&agent)?;
    let figures = format!(
        "{rounds} rounds of eleven processes in {} s: {:.1} MB became {:.1}, {files} open files {}",
        begin.elapsed().as_secs(),
        bytes / 1e6,
        after / 1e6,
        open_files()?
    );
    ensure!(after < bytes * 1.25 + 4e6, "{figures}");
    eprintln!("{figures}");
    agent.stop()
}

//! Is the target as it was when gotracer has ended, in whatever way it ended?

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::child::poll;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::text::changed_bytes;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program};
use libtest_mimic::Trial;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("leaves_no_trace::after_kill_9", || after(Ending::Kill)),
        trial("leaves_no_trace::after_ctrl_c", || after(Ending::CtrlC)),
        trial("leaves_no_trace::after_for", || after(Ending::For)),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Kill,
    CtrlC,
    For,
}

fn after(ending: Ending) -> Result<()> {
    require_root_and_bpf()?;
    let version = GO_VERSIONS.last().context("no Go versions")?;
    let mut program = Program::start(&Program::find(version, "plain", "pingpong")?, &["-pairs", "2"])?;
    program.send("go")?;
    program.await_line("RUNNING")?;
    let pid = program.pid();
    ensure!(changed_bytes(pid)?.is_empty(), "the program is not what its file holds, before any probe");

    let args: &[&str] = if ending == Ending::For { &["--only", "exec", "--for", "1s"] } else { &["--only", "exec"] };
    let mut tracer = Gotracer::trace(pid, args)?;
    // Else the test would pass without probes.
    ensure!(!changed_bytes(pid)?.is_empty(), "no probe is to be seen in the program while it is traced");
    match ending {
        Ending::Kill => {
            tracer.child().signal(libc::SIGKILL)?;
            tracer.child().await_exit()?;
        }
        Ending::CtrlC => drop(tracer.stop()?),
        Ending::For => drop(tracer.finish()?),
    }
    // The kernel takes the probes out after the last reference to them is gone, a little after the process.
    poll(|| Ok(changed_bytes(pid)?.is_empty().then_some(())))
        .with_context(|| format!("probes are left at {:x?}", changed_bytes(pid)))?;

    program.send("stop")?;
    let tally = program.tally()?;
    ensure!(tally.iterations > 1_000, "the program hardly went on: {} iterations", tally.iterations);
    program.quit_in_peace()
}

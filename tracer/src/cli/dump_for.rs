//! `gotracer dump --for`: watches a process for some time, so that a snapshot's waits are known exactly.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::Failure;
use super::live::{INTERVAL, runtime};
use crate::process::Process;
use crate::session::{Progress, Session};
use crate::snapshot::Snapshot;
use crate::tracee::Tracee;
use crate::units::Pid;

/// A session that has watched and still does.
pub(super) struct Watching {
    runtime: tokio::runtime::Runtime,
    session: Session,
}

/// Watches for `duration`, or until a signal asks for the result now. Also opens the process once more, to be read.
pub(super) fn watch(process: Process, duration: Duration) -> Result<(Tracee, Watching), Failure> {
    let pid = process.pid();
    let runtime = runtime()?;
    let session = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut session = Session::attach(process)?;
        eprintln!("watching process {pid} with {} probes for {duration:?}", session.probes());
        let end = Instant::now() + duration;
        let mut events = Vec::new();
        loop {
            events.clear();
            tokio::select! {
                progress = session.next(INTERVAL, &mut events) => match progress? {
                    Progress::Running | Progress::Merged(_) | Progress::Followed => {}
                    Progress::Ended(_) => return Err(exited(pid)),
                },
                () = tokio::time::sleep_until(end) => break,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        Ok(session)
    })?;
    let tracee = Tracee::open(Process::open(pid)?)?;
    let same = session.tracee().is_some_and(|t| t.process().start_ticks() == tracee.process().start_ticks());
    if !same {
        return Err(exited(pid));
    }
    Ok((tracee, Watching { runtime, session }))
}

fn exited(pid: Pid) -> Failure {
    format!("process {pid} exited while it was watched").into()
}

impl Watching {
    /// Detaches, and gives the goroutines of `snapshot` the times that were seen.
    pub(super) fn refine(mut self, mut snapshot: Snapshot) -> Result<Snapshot, Failure> {
        let _entered = self.runtime.enter();
        self.session.finish(&mut Vec::new())?;
        let waiting = snapshot.goroutines.iter().filter(|g| !g.system && g.is_waiting()).count();
        self.session.refine(&mut snapshot);
        let seen = snapshot.goroutines.iter().filter(|g| !g.system && g.wait_seen).count();
        eprintln!("of {waiting} goroutines that wait, {seen} were seen to block; their times are exact");
        if self.session.table().uncertain_since().is_some() {
            eprintln!("events were lost: all times are what the runtime noted");
        }
        Ok(snapshot)
    }
}

//! Work with a session beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};
use gotracer::process::Process;
use gotracer::session::{Options, Progress, Session};
use gotracer::units::Pid;

use crate::bench::reader::INTERVAL;

/// Does `work` while `pid` is traced, from before it until behind it. Gives what `work` gives, and what gotracer says that
/// tracing took, as a share of the process's CPU time.
pub fn beside<T>(pid: Pid, options: Options, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<f64>)> {
    let stop = AtomicBool::new(false);
    let (attached, is_attached) = channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        let session = scope.spawn(move || follow(pid, options, stop, attached));
        let done = match is_attached.recv() {
            Ok(()) => work(),
            Err(_) => Err(anyhow!("the session did not begin")),
        };
        stop.store(true, Ordering::Relaxed);
        let told = session.join().map_err(|_| anyhow!("the session panicked"))??;
        Ok((done?, told))
    })
}

fn follow(pid: Pid, options: Options, stop: &AtomicBool, attached: Sender<()>) -> Result<Option<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut session = Session::attach_with(Process::open(pid)?, options)?;
        attached.send(()).context("nobody waits for the session")?;
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            if let Progress::Ended(end) = session.next(INTERVAL, &mut events).await? {
                return Err(anyhow!("the server ended: {end:?}"));
            }
        }
        let told = session.mean_overhead();
        session.finish(&mut Vec::new())?;
        Ok(told)
    })
}

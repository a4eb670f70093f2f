//! Passes of a proof while a picture is shown, in a thread of their own.
//!
//! In: a process. Out: [`Proofs`], after each pass. Gently: one processor, and of that a fiftieth, for the longer a pass takes
//! the longer the rest behind it; where one takes more than some seconds there is none. Knows nothing of pictures.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::cli::Failure;
use crate::output::tui::Proofs;
use crate::process::Process;
use crate::proof::Options;
use crate::proving::{LEAST_AGE, ProvingError, Subject, any_seed, pause};
use crate::tracee::Tracee;

/// Of the time of one processor, a pass and the rest behind it.
const SHARE: u32 = 50;
/// At least so long a rest.
const REST: Duration = Duration::from_secs(1);
/// A pass that takes longer is given up, and there are none.
const DEADLINE: Duration = Duration::from_secs(5);

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Proving {
    proofs: Receiver<Proofs>,
    cancel: Arc<AtomicBool>,
}

impl Proving {
    /// Begins to prove; `None` where that cannot be.
    pub(super) fn begin(tracee: &Tracee) -> Option<Self> {
        let (pid, start, program) = (tracee.process().pid(), tracee.process().start_ticks(), tracee.program().clone());
        let bias = tracee.bias()?;
        let (send, proofs) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&cancel);
        let work = move || -> Result<(), Failure> {
            let process = Process::open(pid)?;
            if process.start_ticks() != start {
                return Err("the process is over".into());
            }
            let options =
                Options { threads: 1, deadline: DEADLINE, least_age: LEAST_AGE, seed: any_seed(), cancel: &stop };
            let subject = Subject { process: &process, program: &program, bias, weigh: false };
            subject.each_pass(options, |prover, figures| -> Result<_, ProvingError> {
                let gone = send.send(Proofs::of(&prover.leaks()?, prover.passes())).is_err();
                let rest = REST.max(figures.took * (SHARE - 1));
                Ok(if gone || pause(rest, &stop) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            Ok(())
        };
        let thread = std::thread::Builder::new().name("proof".to_owned()).spawn(move || {
            if let Err(error) = work() {
                log::info!("no goroutine is proven to be leaked: {error}");
            }
        });
        thread.is_ok().then_some(Self { proofs, cancel })
    }

    /// The newest, if there are any that were not taken yet.
    pub(super) fn take(&self) -> Option<Proofs> {
        self.proofs.try_iter().last()
    }
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

//! The kernel programs, on a thread of their own: attaching takes tens of milliseconds, and events flow meanwhile.
//!
//! In: files to attach to, processes to begin with and to forget. Out: what came of it. Detaching, for which the kernel
//! waits some 100 ms, is done by a second thread.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::probes::{AttachError, FileProbes, KernelPrograms, Placement};
use crate::units::{FileOffset, Pid};

/// Where the kernel's answer goes.
type Reply<T> = oneshot::Sender<Result<T, AttachError>>;

enum Command {
    Attach { exe: PathBuf, name: String, placements: Vec<Placement>, reply: Reply<FileProbes> },
    Anchor { exe: PathBuf, anchor: FileOffset, reply: Reply<FileProbes> },
    Begin { pid: Pid, entry: gotracer_ebpf::Target, reply: Reply<()> },
    Forget { pid: Pid },
}

/// The way to the threads; they end when this is dropped, which waits until what is to be detached is.
#[derive(Debug)]
pub struct Kernel {
    commands: Sender<Command>,
    /// `None` once this is being dropped.
    detached: Option<Sender<FileProbes>>,
    detaching: Option<JoinHandle<()>>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        drop(self.detached.take());
        if self.detaching.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that detaches probes has panicked: this is a bug in gotracer");
        }
    }
}

/// Why nothing came of a command.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The thread has ended, which it does only if it panicked.
    #[error("the thread of the kernel programs has ended: this is a bug in gotracer")]
    Gone,
}

impl Kernel {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub fn start(programs: KernelPrograms) -> std::io::Result<Self> {
        let (commands, received) = channel();
        let (detached, to_detach) = channel::<FileProbes>();
        std::thread::Builder::new().name("kernel".into()).spawn(move || serve(programs, &received))?;
        let detaching = std::thread::Builder::new().name("detach".into()).spawn(move || detach(&to_detach))?;
        Ok(Self { commands, detached: Some(detached), detaching: Some(detaching) })
    }

    /// Attaches `placements` in the executable at `exe`, which must stay open until this is done.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn attach(
        &self,
        exe: PathBuf,
        name: String,
        placements: Vec<Placement>,
    ) -> Result<FileProbes, KernelError> {
        self.ask(|reply| Command::Attach { exe, name, placements, reply }).await
    }

    /// Attaches the anchor of the executable at `exe`, which must stay open until this is done.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn anchor(&self, exe: PathBuf, anchor: FileOffset) -> Result<FileProbes, KernelError> {
        self.ask(|reply| Command::Anchor { exe, anchor, reply }).await
    }

    /// From here on the process's events come.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn begin(&self, pid: Pid, entry: gotracer_ebpf::Target) -> Result<(), KernelError> {
        self.ask(|reply| Command::Begin { pid, entry, reply }).await
    }

    /// No events of this process any more, soon.
    pub fn forget(&self, pid: Pid) {
        let _ = self.send(Command::Forget { pid });
    }

    /// Takes probes away, in its time.
    pub fn detach(&self, probes: FileProbes) {
        // If the thread has ended they are dropped here.
        let _ = self.detached.as_ref().map(|detached| detached.send(probes));
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        Ok(answer.await.map_err(|_| KernelError::Gone)??)
    }

    fn send(&self, command: Command) -> Result<(), KernelError> {
        self.commands.send(command).map_err(|_| KernelError::Gone)
    }
}

/// Takes away all that has come meanwhile at once.
fn detach(probes: &Receiver<FileProbes>) {
    while let Ok(mut together) = probes.recv() {
        probes.try_iter().for_each(|more| together.join(more));
        drop(together);
    }
}

fn serve(mut programs: KernelPrograms, commands: &Receiver<Command>) {
    for command in commands {
        // Who asked may have given up; then what was attached is dropped with the answer.
        match command {
            Command::Attach { exe, name, placements, reply } => {
                let _ = reply.send(programs.attach_file(&exe, &name, &placements));
            }
            Command::Anchor { exe, anchor, reply } => {
                let _ = reply.send(programs.anchor_file(&exe, anchor));
            }
            Command::Begin { pid, entry, reply } => {
                let _ = reply.send(programs.begin(pid, entry));
            }
            Command::Forget { pid } => {
                if let Err(error) = programs.forget(pid) {
                    log::warn!("process {pid} is not forgotten: {error}");
                }
            }
        }
        programs.flush_log();
    }
}

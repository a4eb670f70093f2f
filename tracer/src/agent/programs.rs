//! Executables: read once for all their processes, probed once for all their processes.
//!
//! In: candidates. Out: what is known of their files, and probes in those that are worth it. A file that nobody runs any
//! more keeps its probes for a while, for the next process of it comes soon, as a rule.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::OnceCell;

use super::discovery::FileKey;
use super::kernel::Kernel;
use crate::binary::BinaryError;
use crate::probes::{FileProbes, Verdict};
use crate::session;
use crate::tracee::{Program, TraceeError};

/// What a file is.
#[derive(Clone, Debug)]
pub enum Known {
    /// No Go program.
    NotGo,
    /// A Go program, or what looks like one, that cannot be traced, and why.
    Unsupported(Arc<str>),
    /// A Go program.
    Go(Arc<GoProgram>),
}

/// A Go program and where its probes go.
#[derive(Debug)]
pub struct GoProgram {
    /// Its facts.
    pub program: Program,
    /// What becomes of each probe.
    pub verdicts: Vec<Verdict>,
    /// What the kernel programs must know of its runtime.
    pub entry: gotracer_ebpf::Target,
    /// GNU's build id, else the last part of Go's.
    pub build_id: String,
}

/// One file.
#[derive(Default)]
pub struct Slot {
    known: OnceCell<Known>,
    probes: tokio::sync::Mutex<Option<Rc<FileProbes>>>,
    /// When its last process ended; `None` while there are some.
    idle_since: std::cell::Cell<Option<Instant>>,
    users: std::cell::Cell<usize>,
}

/// A process's share in the probes of its file.
pub struct Use {
    slot: Rc<Slot>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.slot.users.set(self.slot.users.get().saturating_sub(1));
        if self.slot.users.get() == 0 {
            self.slot.idle_since.set(Some(Instant::now()));
        }
    }
}

/// All files met.
#[derive(Default)]
pub struct Programs {
    slots: HashMap<FileKey, Rc<Slot>>,
}

/// Files remembered that are no Go programs; beyond it they are looked at again.
const MOST: usize = 8192;

impl Programs {
    /// The place of a file.
    pub fn slot(&mut self, key: FileKey) -> Rc<Slot> {
        if self.slots.len() >= MOST {
            self.slots.retain(|_, slot| Rc::strong_count(slot) > 1 || slot.is_probed());
        }
        Rc::clone(self.slots.entry(key).or_default())
    }

    /// Takes the probes out of files that nobody has run for `keep`, and forgets what was read of them.
    pub fn tidy(&mut self, keep: Duration, kernel: &Kernel) {
        self.slots.retain(|_, slot| {
            let unused = slot.users.get() == 0 && Rc::strong_count(slot) == 1;
            if !unused || slot.idle_since.get().is_none_or(|since| since.elapsed() < keep) {
                return true;
            }
            // Nobody else has the slot, so nobody holds the lock.
            if let Some(probes) = slot.probes.try_lock().ok().and_then(|mut probes| probes.take())
                && let Ok(probes) = Rc::try_unwrap(probes)
            {
                kernel.detach(probes);
            }
            false
        });
    }

    /// Executables with probes in them.
    #[must_use]
    pub fn probed(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_probed()).count()
    }
}

impl Slot {
    fn is_probed(&self) -> bool {
        self.probes.try_lock().is_ok_and(|probes| probes.is_some())
    }

    /// What the file is, if it was read before.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        self.known.get()
    }

    /// What the file is; reads it if nobody has yet.
    pub async fn read(&self, name: &str, file: &std::fs::File) -> Known {
        let read = || async {
            let (Ok(file), name) = (file.try_clone(), name.to_owned()) else {
                return Known::Unsupported("no more files can be opened".into());
            };
            let read = tokio::task::spawn_blocking(move || open(name, file)).await;
            read.unwrap_or_else(|error| Known::Unsupported(format!("it could not be read: {error}").into()))
        };
        self.known.get_or_init(read).await.clone()
    }

    /// Probes in the file for one more process; attaches them if they are not there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn probe(self: &Rc<Self>, go: &GoProgram, kernel: &Kernel) -> Result<Use, super::kernel::KernelError> {
        self.users.set(self.users.get() + 1);
        self.idle_since.set(None);
        let in_use = Use { slot: Rc::clone(self) };
        let mut probes = self.probes.lock().await;
        if probes.is_none() {
            let placements = go.verdicts.iter().filter_map(Verdict::placement).cloned().collect();
            let attached = kernel.attach(go.program.exe.clone(), go.program.name.clone(), placements).await?;
            *probes = Some(Rc::new(attached));
        }
        Ok(in_use)
    }
}

fn open(name: String, file: std::fs::File) -> Known {
    let program = match Program::open(name, file) {
        Ok(program) => program,
        Err(error) if is_no_go(&error) => return Known::NotGo,
        Err(error) => return Known::Unsupported(error.to_string().into()),
    };
    match session::verdicts(&program) {
        Ok(verdicts) => {
            let entry = session::entry(&program);
            let ids = program.binary.build_ids();
            // The last part of Go's is of the file's content; the others are of how it came about.
            let go = ids.go.as_deref().and_then(|id| id.rsplit('/').next());
            let build_id = ids.gnu.as_deref().or(go).unwrap_or_default().to_owned();
            Known::Go(Arc::new(GoProgram { program, verdicts, entry, build_id }))
        }
        Err(error) => Known::Unsupported(error.to_string().into()),
    }
}

/// Whether nothing of the file speaks of Go: most of a host's processes, of which nothing need be said.
fn is_no_go(error: &TraceeError) -> bool {
    use BinaryError as E;
    let TraceeError::Binary { why, .. } = error else { return false };
    match why {
        E::NotGo | E::NotElf | E::Bits32 | E::BigEndian | E::Machine { .. } | E::NotExecutable { .. } => true,
        E::Io { .. }
        | E::Packed
        | E::GccGo
        | E::TinyGo
        | E::GoTooOld { .. }
        | E::Version { .. }
        | E::PclntabMagic { .. }
        | E::NoPclntab { .. }
        | E::NoModuleData { .. }
        | E::Corrupt { .. }
        | E::TooLarge { .. }
        | E::Unmapped { .. } => false,
    }
}

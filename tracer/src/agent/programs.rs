//! Executables: read once for all their processes, probed once for all their processes.
//!
//! In: candidates. Out: what is known of their files, and probes in those that are worth it. A file that nobody runs any
//! more keeps its probes for a while, for the next process of it comes soon, as a rule.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::OnceCell;

use super::budget::{Governor, Level};
use super::discovery::FileKey;
use super::kernel::Kernel;
use crate::binary::BinaryError;
use crate::probes::catalogue::Event;
use crate::probes::placement::anchor;
use crate::probes::{FileProbes, Verdict};
use crate::session;
use crate::tracee::{Program, TraceeError};
use crate::units::FileOffset;

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
    /// Where their anchor goes.
    pub anchor: Option<FileOffset>,
    /// What the kernel programs must know of its runtime.
    pub entry: gotracer_ebpf::Target,
    /// GNU's build id, else the last part of Go's.
    pub build_id: String,
}

/// One file.
pub struct Slot {
    known: OnceCell<Known>,
    probes: tokio::sync::Mutex<Attached>,
    governor: std::cell::RefCell<Governor>,
    /// When its last watched process ended, or when it was met.
    idle_since: std::cell::Cell<Instant>,
    users: std::cell::Cell<usize>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            known: OnceCell::default(),
            probes: tokio::sync::Mutex::default(),
            governor: std::cell::RefCell::default(),
            idle_since: std::cell::Cell::new(Instant::now()),
            users: std::cell::Cell::default(),
        }
    }
}

/// What is attached to a file.
#[derive(Default)]
struct Attached {
    /// Births and ends.
    lives: Option<FileProbes>,
    /// What goroutines do in between.
    states: Option<FileProbes>,
    /// Stays when the others go.
    anchor: Option<FileProbes>,
}

/// A process's share in the probes of its file.
pub struct Use {
    slot: Rc<Slot>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.slot.users.set(self.slot.users.get().saturating_sub(1));
        if self.slot.users.get() == 0 {
            self.slot.idle_since.set(Instant::now());
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

    /// The place of a file that was met before.
    #[must_use]
    pub fn find(&self, key: FileKey) -> Option<Rc<Slot>> {
        self.slots.get(&key).map(Rc::clone)
    }

    /// Takes the probes out of Go programs that nobody watched has run for `keep`, and forgets what was read of them: it takes
    /// megabytes and descriptors. Of what is no Go program nothing is kept but that.
    /// Says whether there was something to forget.
    pub fn tidy(&mut self, keep: Duration, kernel: &Kernel) -> bool {
        let before = self.slots.len();
        self.slots.retain(|_, slot| {
            let unused = slot.users.get() == 0 && Rc::strong_count(slot) == 1;
            let is_go = matches!(slot.known(), Some(Known::Go(_)));
            if !is_go || !unused || slot.idle_since.get().elapsed() < keep {
                return true;
            }
            // Nobody else has the slot, so nobody holds the lock.
            slot.detach(kernel);
            false
        });
        self.slots.len() < before
    }

    /// Takes all probes away: the end is near.
    pub fn detach(&self, kernel: &Kernel) {
        self.slots.values().for_each(|slot| slot.detach(kernel));
    }

    /// Executables with probes in them.
    #[must_use]
    pub fn probed(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_probed()).count()
    }
}

impl Slot {
    /// Takes its probes away, unless somebody is at them.
    fn detach(&self, kernel: &Kernel) {
        if let Ok(mut attached) = self.probes.try_lock() {
            let Attached { lives, states, anchor } = std::mem::take(&mut *attached);
            [lives, states, anchor].into_iter().flatten().for_each(|probes| kernel.detach(probes));
        }
    }

    fn is_probed(&self) -> bool {
        self.probes.try_lock().is_ok_and(|attached| attached.lives.is_some() || attached.states.is_some())
    }

    /// What is attached, or is to be.
    #[must_use]
    pub fn level(&self) -> Level {
        self.governor.borrow().level()
    }

    /// Takes what watching its processes cost, as a share of what it may; gives the new level if it changes.
    pub fn govern(&self, of_budget: f64, now: Instant) -> Option<Level> {
        self.governor.borrow_mut().take(of_budget, now)
    }

    /// Attaches and detaches until what is attached is what the level says.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn settle(&self, go: &GoProgram, kernel: &Kernel) -> Result<(), super::kernel::KernelError> {
        let mut attached = self.probes.lock().await;
        let level = self.level();
        if level < Level::Events {
            attached.states.take().into_iter().for_each(|probes| kernel.detach(probes));
        }
        if level < Level::Lifecycle {
            attached.lives.take().into_iter().for_each(|probes| kernel.detach(probes));
        }
        let attach = async |wanted: fn(Event) -> bool| {
            let placements = go.verdicts.iter().filter_map(Verdict::placement);
            let placements = placements.filter(|placement| wanted(placement.event)).cloned().collect();
            kernel.attach(go.program.exe.clone(), go.program.name.clone(), placements).await
        };
        if let Some(at) = go.anchor
            && level >= Level::Lifecycle
            && attached.anchor.is_none()
        {
            attached.anchor = Some(kernel.anchor(go.program.exe.clone(), at).await?);
        }
        if level >= Level::Lifecycle && attached.lives.is_none() {
            attached.lives = Some(attach(|event| matches!(event, Event::Created | Event::Exited)).await?);
        }
        if level >= Level::Events && attached.states.is_none() {
            attached.states = Some(attach(|event| matches!(event, Event::Blocked | Event::Running)).await?);
        }
        Ok(())
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
        let in_use = Use { slot: Rc::clone(self) };
        self.settle(go, kernel).await?;
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
            let anchor = anchor(&program.binary);
            let ids = program.binary.build_ids();
            // The last part of Go's is of the file's content; the others are of how it came about.
            let go = ids.go.as_deref().and_then(|id| id.rsplit('/').next());
            let build_id = ids.gnu.as_deref().or(go).unwrap_or_default().to_owned();
            Known::Go(Arc::new(GoProgram { program, verdicts, anchor, entry, build_id }))
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

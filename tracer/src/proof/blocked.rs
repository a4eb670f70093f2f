//! Which goroutines are blocked on channels, mutexes, conditions, groups and semaphores, and on which ones.
//!
//! In: the target's memory. Out: a [`Look`]: every goroutine with what became of it ([`Role`]), and a [`Candidate`] for each
//! that only what it waits on can wake. What is not sure (it moved while it was read, its sudog was not found) counts as able
//! to run, which is never wrong.
//!
//! What a goroutine waits on stands in the sudogs of `g.waiting`; but for semaphores up to Go 1.25 only in the tree of their
//! bucket of `semtable`, and for a condition nowhere that leads there from the goroutine. So a condition is not looked up: it is
//! reached when a sudog of its list is.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use hashbrown::{HashMap, HashSet};

use super::{Locate, ProofError};
use crate::go_runtime::{SCAN_BIT, Status, Variable};
use crate::snapshot::raw::{ObjectBatch, RawG};
use crate::snapshot::{Source, allgs};
use crate::units::{Goid, RemoteAddr};

/// g structs read at a time.
const CHUNK: usize = 2048;
/// Sudogs of one goroutine believed: the cases of a select.
const CASE_LIMIT: usize = 1 << 16;
/// Sudogs of one look believed.
const SUDOG_LIMIT: usize = 1 << 24;
/// Bytes of `semtable` believed.
const TABLE_LIMIT: u32 = 1 << 20;

/// What a goroutine is blocked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    /// Nothing can ever wake it: a nil channel, a select without cases.
    Forever,
    /// One channel, or those of a select.
    Channel,
    /// A mutex, a WaitGroup, a semaphore.
    Semaphore,
    /// A `sync.Cond`.
    Condition,
}

impl Blocked {
    /// By the wait reason's name; `None` for reasons under which something else wakes the goroutine.
    ///
    /// The runtime's own choice is <https://github.com/golang/go/blob/go1.27.3/src/runtime/mgcmark.go#L57-L65>; it leaves out
    /// "semacquire", under which WaitGroups wait up to Go 1.24.
    pub(crate) fn of_reason(name: &str) -> Option<Self> {
        Some(match name {
            "chan receive (nil chan)" | "chan send (nil chan)" | "select (no cases)" => Self::Forever,
            "chan receive" | "chan send" | "select" => Self::Channel,
            "sync.Mutex.Lock" | "sync.RWMutex.RLock" | "sync.RWMutex.Lock" | "sync.WaitGroup.Wait" | "semacquire" => {
                Self::Semaphore
            }
            "sync.Cond.Wait" => Self::Condition,
            _ => return None,
        })
    }
}

/// What became of a goroutine in a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It can run.
    Live,
    /// It waits: this candidate.
    Candidate(u32),
}

/// A goroutine as it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) address: RemoteAddr,
    /// Of all that changes when it runs.
    pub(super) print: u64,
    pub(super) role: Role,
    pub(super) running: bool,
}

/// A goroutine that only what it waits on can wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: RemoteAddr,
    pub(super) goid: Goid,
    pub(super) blocked: Blocked,
    pub(super) reason: u8,
    pub(super) tracking_seq: u8,
    pub(super) pc: u64,
    /// How much of its stack is in use: it survives the stack's being moved.
    pub(super) depth: u64,
    /// The channels or semaphores.
    pub(super) objects: Vec<u64>,
    pub(super) sudogs: Vec<u64>,
    /// The main goroutine that has said good-bye with `select {}`: waits forever by intent.
    pub(super) resigned: bool,
    pub(super) gopc: RemoteAddr,
    pub(super) wait_since: u64,
    pub(super) stack_size: u64,
}

/// All goroutines at about one moment.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) goroutines: Vec<Seen>,
    pub(super) candidates: Vec<Candidate>,
    /// Every g struct, dead ones included.
    pub(super) structs: Vec<RemoteAddr>,
}

/// A sudog's fields that matter.
#[derive(Clone, Copy, Debug)]
struct Sudog {
    g: u64,
    c: u64,
    elem: u64,
    waitlink: u64,
}

/// What changes when a goroutine runs, in a number. The collector's marks (the scan bit, `_Gleaked`) are left out.
pub(super) fn print(raw: &RawG) -> u64 {
    /// `_Gwaiting` and `_Gleaked`.
    const WAITING: u32 = 4;
    const LEAKED: u32 = 10;
    let status = match raw.status_word & !SCAN_BIT {
        LEAKED => WAITING,
        other => other,
    };
    let fields = (
        (raw.goid, status, raw.waitreason, raw.tracking_seq, raw.waiting),
        (raw.stack_lo, raw.stack_hi, raw.sched_pc, raw.sched_sp, raw.syscallpc, raw.syscallsp),
    );
    hashed(&fields)
}

/// A number for `fields`; keyed anew for each run of gotracer, so that no target can make two alike.
fn hashed(fields: &impl Hash) -> u64 {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYED.hash_one(fields)
}

impl Look {
    /// Looks at all goroutines.
    pub(super) fn take(source: &Source<'_>) -> Result<Self, ProofError> {
        let structs = allgs::read(source)?.addresses;
        let mut look = Self { structs, ..Self::default() };
        let structs = std::mem::take(&mut look.structs);
        for chunk in structs.chunks(CHUNK) {
            look.chunk(source, chunk)?;
        }
        look.structs = structs;
        look.find_semaphores(source)?;
        Ok(look)
    }

    /// All goroutines with their prints, and nothing of what they wait on: whether they are as they were.
    pub(super) fn glance(source: &Source<'_>) -> Result<Self, ProofError> {
        let mut look = Self::default();
        let mut batch = ObjectBatch::default();
        for chunk in allgs::read(source)?.addresses.chunks(CHUNK) {
            for (raw, status, address) in read_alive(source, chunk, &mut batch)? {
                let (print, running) = (print(&raw), status == Status::Running);
                look.goroutines.push(Seen { address, print, role: Role::Live, running });
            }
        }
        Ok(look)
    }

    fn chunk(&mut self, source: &Source<'_>, addresses: &[RemoteAddr]) -> Result<(), ProofError> {
        let (memory, layout) = (source.memory, &source.layout.g);
        let mut batch = ObjectBatch::default();
        let found = read_alive(source, addresses, &mut batch)?;
        let blocked: Vec<Option<Blocked>> =
            found.iter().map(|(raw, status, _)| blocked(source, raw, *status)).collect();
        let heads = found.iter().zip(&blocked).map(|((raw, ..), blocked)| blocked.map_or(0, |_| raw.waiting));
        let sudogs = read_sudogs(source, &heads.collect::<Vec<_>>())?;
        let again: Vec<RemoteAddr> = found.iter().map(|(_, _, address)| *address).collect();
        batch.read(memory, &again, layout.size)?;
        for (i, ((raw, status, address), blocked)) in found.into_iter().zip(blocked).enumerate() {
            let print = print(&raw);
            let later = batch.with(memory, i, address, |bytes| RawG::parse(bytes, layout));
            let still = later.is_some_and(|later| self::print(&later) == print);
            let own = sudogs.get(i).map(Vec::as_slice).unwrap_or_default();
            let candidate =
                blocked.filter(|_| still).and_then(|blocked| candidate(source, &raw, address, blocked, own));
            let role = match candidate {
                Some(candidate) => {
                    self.candidates.push(candidate);
                    Role::Candidate(self.candidates.len() as u32 - 1)
                }
                None => Role::Live,
            };
            self.goroutines.push(Seen { address, print, role, running: status == Status::Running });
        }
        Ok(())
    }

    /// Finds out on which semaphores those wait whose sudogs are only in `semtable`. The table is read behind the goroutines,
    /// and the goroutines once more behind the table: so the sudog found is that of the wait seen.
    fn find_semaphores(&mut self, source: &Source<'_>) -> Result<(), ProofError> {
        let is_open = |c: &Candidate| c.blocked == Blocked::Semaphore && c.objects.is_empty();
        let open: HashMap<u64, u32> = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(_, c)| is_open(c))
            .map(|(i, c)| (c.address.0, i as u32))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        for (address, sudog) in read_semaphores(source)? {
            let candidate = open.get(&sudog.g).and_then(|&i| self.candidates.get_mut(i as usize));
            if let Some(candidate) = candidate.filter(|_| sudog.elem != 0) {
                candidate.objects.push(sudog.elem);
                candidate.sudogs.push(address);
            }
        }
        let mut seen: Vec<&mut Seen> = self.goroutines.iter_mut().filter(|g| open.contains_key(&g.address.0)).collect();
        for chunk in seen.chunks_mut(CHUNK) {
            let addresses: Vec<RemoteAddr> = chunk.iter().map(|g| g.address).collect();
            let mut batch = ObjectBatch::default();
            batch.read(source.memory, &addresses, source.layout.g.size)?;
            for (i, g) in chunk.iter_mut().enumerate() {
                let parse = |bytes: &[u8]| RawG::parse(bytes, &source.layout.g);
                let later = batch.with(source.memory, i, g.address, parse);
                let still = later.is_some_and(|later| print(&later) == g.print);
                let found = open.get(&g.address.0).and_then(|&i| self.candidates.get(i as usize));
                // One goroutine waits on one semaphore: two were seen in the making of a change.
                if !still || found.is_none_or(|candidate| candidate.objects.len() != 1) {
                    g.role = Role::Live;
                }
            }
        }
        Ok(())
    }
}

/// The goroutines at `addresses` that are not dead.
fn read_alive(
    source: &Source<'_>,
    addresses: &[RemoteAddr],
    batch: &mut ObjectBatch,
) -> Result<Vec<(RawG, Status, RemoteAddr)>, ProofError> {
    let (memory, layout) = (source.memory, &source.layout.g);
    let minor = source.binary.version().minor();
    batch.read(memory, addresses, layout.size)?;
    let mut found = Vec::with_capacity(addresses.len());
    for (i, &address) in addresses.iter().enumerate() {
        let raw = batch.with(memory, i, address, |bytes| RawG::parse(bytes, layout));
        let Some(raw) = raw else { return Err(ProofError::corrupt("a goroutine's struct cannot be read")) };
        let Some(status) = Status::parse(raw.status_word, minor) else {
            return Err(ProofError::corrupt("a goroutine has a status that does not exist"));
        };
        if status.is_alive() {
            found.push((raw, status, address));
        }
    }
    Ok(found)
}

/// What the goroutine is blocked on, if only that can wake it.
fn blocked(source: &Source<'_>, raw: &RawG, status: Status) -> Option<Blocked> {
    if !matches!(status, Status::Waiting | Status::Leaked) || raw.m != 0 || source.is_system(raw, status) {
        return None;
    }
    Blocked::of_reason(source.reasons.name(raw.waitreason)?)
}

/// The candidate that a blocked goroutine makes; `None` where what it waits on is not sure.
fn candidate(
    source: &Source<'_>,
    raw: &RawG,
    address: RemoteAddr,
    blocked: Blocked,
    sudogs: &[(u64, Sudog)],
) -> Option<Candidate> {
    if sudogs.iter().any(|(_, sudog)| sudog.g != address.0) {
        return None;
    }
    let reason = source.reasons.name(raw.waitreason)?;
    let objects: Vec<u64> = match blocked {
        Blocked::Forever => Vec::new(),
        Blocked::Channel => {
            let channels: Vec<u64> = sudogs.iter().map(|(_, sudog)| sudog.c).collect();
            // A select whose channels are all nil has no sudogs, and no other wait has none.
            if channels.contains(&0) || (channels.is_empty() && (reason != "select" || raw.waiting != 0)) {
                return None;
            }
            channels
        }
        Blocked::Semaphore | Blocked::Condition => {
            if sudogs.len() > 1 || sudogs.iter().any(|(_, sudog)| sudog.c != 0) {
                return None;
            }
            sudogs.iter().map(|(_, sudog)| sudog.elem).filter(|elem| *elem != 0).collect()
        }
    };
    Some(Candidate {
        address,
        goid: Goid(raw.goid),
        blocked: if blocked == Blocked::Channel && objects.is_empty() { Blocked::Forever } else { blocked },
        reason: raw.waitreason,
        tracking_seq: raw.tracking_seq,
        pc: raw.sched_pc,
        depth: raw.stack_hi.wrapping_sub(raw.sched_sp),
        objects,
        sudogs: sudogs.iter().map(|(at, _)| *at).collect(),
        resigned: raw.goid == 1 && reason == "select (no cases)",
        gopc: RemoteAddr(raw.gopc),
        wait_since: raw.waitsince,
        stack_size: raw.stack_hi.saturating_sub(raw.stack_lo),
    })
}

/// The sudogs of each list that begins at `heads` (0: none), by `waitlink`.
fn read_sudogs(source: &Source<'_>, heads: &[u64]) -> Result<Vec<Vec<(u64, Sudog)>>, ProofError> {
    let mut lists = vec![Vec::new(); heads.len()];
    let mut at: Vec<(usize, RemoteAddr)> =
        heads.iter().enumerate().filter(|(_, head)| **head != 0).map(|(i, head)| (i, RemoteAddr(*head))).collect();
    let mut total = 0;
    for _ in 0..CASE_LIMIT {
        total += at.len();
        if at.is_empty() || total > SUDOG_LIMIT {
            break;
        }
        let addresses: Vec<RemoteAddr> = at.iter().map(|(_, address)| *address).collect();
        let sudogs = read_all(source, &addresses)?;
        let mut next = Vec::new();
        for (&(list, address), sudog) in at.iter().zip(sudogs) {
            // One that cannot be read is nobody's, and spoils its candidate.
            let sudog = sudog.unwrap_or(Sudog { g: 0, c: 0, elem: 0, waitlink: 0 });
            if let Some(list) = lists.get_mut(list) {
                list.push((address.0, sudog));
            }
            // Of a semaphore's sudog `waitlink` leads to the next waiter, another goroutine.
            if sudog.waitlink != 0 && sudog.c != 0 {
                next.push((list, RemoteAddr(sudog.waitlink)));
            }
        }
        at = next;
    }
    Ok(lists)
}

fn read_all(source: &Source<'_>, addresses: &[RemoteAddr]) -> Result<Vec<Option<Sudog>>, ProofError> {
    let layout = &source.layout.sudog;
    let mut batch = ObjectBatch::default();
    batch.read(source.memory, addresses, layout.size)?;
    let parse = |bytes: &[u8]| {
        Some(Sudog {
            g: layout.g.read(bytes)?,
            c: layout.c.read(bytes)?,
            elem: layout.elem.read(bytes)?,
            waitlink: layout.waitlink.read(bytes)?,
        })
    };
    Ok(addresses.iter().enumerate().map(|(i, &address)| batch.with(source.memory, i, address, parse)).collect())
}

/// The sudogs of all buckets of `semtable`: the tree by `prev` and `next`, and behind each of its nodes the other waiters of
/// the same semaphore by `waitlink`.
fn read_semaphores(source: &Source<'_>) -> Result<Vec<(u64, Sudog)>, ProofError> {
    let (table, layout) = (&source.layout.sema_table, &source.layout.sudog);
    let stride = u64::from(table.bucket.size);
    if table.size > TABLE_LIMIT || stride == 0 {
        return Err(ProofError::corrupt("its table of semaphores makes no sense"));
    }
    let bytes = source.memory.bytes(source.remote(Variable::Semtable)?, table.size as usize)?;
    let treap = (table.root.offset - table.bucket.offset + source.layout.sema_root.treap.offset) as usize;
    let root = |bucket: &[u8]| bucket.get(treap..).and_then(<[u8]>::first_chunk).map(|word| u64::from_le_bytes(*word));
    let mut at: Vec<RemoteAddr> =
        bytes.chunks_exact(stride as usize).filter_map(root).filter(|word| *word != 0).map(RemoteAddr).collect();
    let mut seen: HashSet<u64> = at.iter().map(|address| address.0).collect();
    let (mut found, mut batch) = (Vec::new(), ObjectBatch::default());
    while !at.is_empty() && seen.len() < SUDOG_LIMIT {
        batch.read(source.memory, &at, layout.size)?;
        let mut next = Vec::new();
        for (i, &address) in at.iter().enumerate() {
            let read = batch.with(source.memory, i, address, |bytes| {
                let links = [layout.prev.read(bytes)?, layout.next.read(bytes)?, layout.waitlink.read(bytes)?];
                let (g, elem) = (layout.g.read(bytes)?, layout.elem.read(bytes)?);
                Some((links, Sudog { g, c: 0, elem, waitlink: 0 }))
            });
            let Some((links, sudog)) = read else { continue };
            found.push((address.0, sudog));
            next.extend(links.into_iter().filter(|&link| link != 0 && seen.insert(link)).map(RemoteAddr));
        }
        at = next;
    }
    Ok(found)
}

impl Candidate {
    /// What stays the same for as long as it waits, whatever the collector does with its stack.
    pub(crate) fn identity(&self) -> u64 {
        hashed(&(self.address, self.goid, self.tracking_seq, self.pc, self.depth, self.reason, &self.objects))
    }
}

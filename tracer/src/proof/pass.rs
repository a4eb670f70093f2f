//! One pass: which blocked goroutines nothing that can run can reach, as far as memory that changes under the eyes can tell.
//!
//! In: a [`Source`]. Out: a [`Pass`]. Roots, marking, and the fixpoint: a blocked goroutine one of whose objects is marked can
//! be woken, so what its stack holds is reachable too; what is left over is unreachable.
//!
//! Then a second look at all that could have changed meanwhile: goroutines that ran are read once more, the program's variables
//! too, and where spans came or changed, everything that is marked is scanned again. It costs little and turns most of what a
//! single look gets wrong. What is left of it, the passes' intersection takes away ([`super::passes`]).

use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use super::blocked::{Blocked, Candidate, Look, Role};
use super::heap::Heap;
use super::mark::{Bounds, Marker, Special, Treatment};
use super::order::Order;
use super::registers::{Registers, Run};
use super::roots::{self, Weak};
use super::spans::Rules;
use super::stacks::StackScanners;
use super::threads::{self, Stay};
use super::{Locate, ProofError};
use crate::go_runtime::Variable;
use crate::process::memory::MemoryRange;
use crate::snapshot::Source;
use crate::snapshot::raw::ObjectBatch;
use crate::units::RemoteAddr;

/// Processors believed; Go's own bound is 2^10 on old versions, none later.
const PROCESSOR_LIMIT: u64 = 1 << 16;
/// Sudogs read at a time.
const CHUNK: usize = 2048;
/// So small a heap is looked at this often more in a pass: it costs little.
const SMALL_HEAP: u64 = 64 << 20;
/// How long a pass waits for a sample of each thread that runs: some of its clock's periods.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often.
const SMALL_LOOKS: usize = 2;
/// Bytes of the heap that are read for each candidate before all are looked at again, so that this takes no longer than the
/// reading.
const BYTES_A_CANDIDATE: u64 = 64;

/// What a pass found.
#[derive(Debug, Default)]
pub struct Pass {
    /// Goroutines that wait on what nothing can reach.
    pub(super) unreachable: Vec<Candidate>,
    /// Prints of all goroutines that wait on synchronisation, reachable or not.
    pub(super) blocked: HashSet<u64>,
    /// Goroutines that ran on and on and whose registers could not be read.
    pub(super) unread: Vec<Run>,
    /// What it took and met.
    pub figures: Figures,
}

/// What a pass took and met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Goroutines, the runtime's own included.
    pub goroutines: usize,
    /// Those that wait on channels, mutexes, conditions, groups, semaphores.
    pub blocked: usize,
    /// Those of them that nothing reaches.
    pub unreachable: usize,
    /// Bytes in spans of the heap.
    pub heap_bytes: u64,
    /// Objects that were reached; where every goroutine can be woken, up to the moment at which that was known.
    pub reached_objects: u64,
    /// Bytes they take.
    pub reached_bytes: u64,
    /// Bytes of the heap that were read, those read again included.
    pub read_bytes: u64,
    /// Stacks of which every word counted, for their goroutines ran.
    pub whole_stacks: usize,
    /// Samples of registers.
    pub register_samples: usize,
    /// From the first look to the last.
    pub took: Duration,
}

/// Where a pass begins.
pub(super) struct Setting<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) bounds: Bounds<'a>,
    /// The process's private writable memory.
    pub(super) writable: &'a [MemoryRange],
    /// That in which heap and stacks are read.
    pub(super) order: Order,
}

/// A pass under way, with all that it marked.
pub(super) struct Marked<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) marker: Marker<'a>,
    scanners: StackScanners<'a>,
    order: Order,
    pub(super) look: Look,
    /// By g: what it was like when its stack was read.
    scanned: HashMap<u64, u64>,
    weak: Vec<Weak>,
    /// Threads as they were found at work.
    stays: HashSet<Stay>,
}

/// Does a pass. What it marked comes back too, for whoever wants to know what the unreachable ones hold.
pub(super) fn pass<'a>(setting: &Setting<'a>, registers: &mut Registers) -> Result<(Pass, Marked<'a>), ProofError> {
    let began = Instant::now();
    let source = setting.source;
    let rules = Rules::of(source.binary.version());
    let stays = threads::at_work(source)?.into_iter().collect();
    let look = Look::take(source)?;
    let heap = Heap::read(source, rules)?;
    let special = special(source, &look)?;
    let scanners = StackScanners::new(source, setting.bounds)?;
    let order = setting.order;
    let marker = Marker::new(source, heap, special, setting.bounds, order);
    let mut marked = Marked { source, marker, scanners, order, look, scanned: HashMap::new(), weak: Vec::new(), stays };
    marked.flag_special();
    let live: Vec<RemoteAddr> =
        marked.look.goroutines.iter().filter(|g| g.role == Role::Live).map(|g| g.address).collect();
    if marked.order.coin() {
        marked.variables_and_specials()?;
        marked.stacks(live)?;
    } else {
        marked.stacks(live)?;
        marked.variables_and_specials()?;
    }
    marked.foreign(setting.writable)?;
    marked.fixpoint()?;
    let unread = if marked.left() > 0 { marked.make_sure(rules, setting, registers)? } else { Vec::new() };
    marked.still_there()?;
    let mut pass = marked.result();
    if pass.figures.unreachable > 0 {
        pass.unread = unread;
    }
    pass.figures.register_samples = registers.count();
    pass.figures.took = began.elapsed();
    Ok((pass, marked))
}

/// What is not to be followed as other objects are.
fn special(source: &Source<'_>, look: &Look) -> Result<Special, ProofError> {
    /// Size classes around that of a sudog: <https://github.com/golang/go/blob/go1.27.3/src/internal/runtime/gc/sizeclasses.go>.
    const CLASSES: [u64; 5] = [80, 96, 112, 128, 144];
    let size = u64::from(source.layout.sudog.size);
    let mut special = Special {
        sudog_slot: CLASSES.into_iter().find(|class| *class >= size).unwrap_or_default(),
        live: vec![false; look.candidates.len()],
        ..Special::default()
    };
    special.objects.extend(look.structs.iter().map(|g| (g.0, Treatment::Opaque)));
    // Where the heap does not tell pointers from other words, the end of their stacks looks like a reference to what lies behind.
    special.objects.extend(threads::structs(source)?.into_iter().map(|g| (g, Treatment::Opaque)));
    for g in &look.goroutines {
        let Role::Candidate(number) = g.role else { continue };
        let Some(candidate) = look.candidates.get(number as usize) else { continue };
        special.objects.extend(candidate.sudogs.iter().map(|sudog| (*sudog, Treatment::Sudog(number))));
        if candidate.blocked == Blocked::Condition {
            special.on_condition.insert(g.address.0, number);
        }
    }
    // Where the heap does not tell pointers from other words, a processor's caches look like references.
    let slice = source.remote(Variable::Allp)?;
    let (array, count) = (source.memory.word(slice)?, source.memory.word(RemoteAddr(slice.0.wrapping_add(8)))?);
    if count > PROCESSOR_LIMIT {
        return Err(ProofError::corrupt("its list of processors makes no sense"));
    }
    let processors = source.memory.bytes(RemoteAddr(array), 8 * count as usize)?;
    let processors = processors.chunks_exact(8).filter_map(|word| word.first_chunk().map(|w| u64::from_le_bytes(*w)));
    special.objects.extend(processors.map(|p| (p, Treatment::Processor)));
    let range = |field: crate::go_runtime::Field| u64::from(field.offset)..u64::from(field.offset + field.size);
    let p = &source.layout.p;
    special.exceptions = vec![range(p.page_cache_base), range(p.write_barrier_buffer)];
    Ok(special)
}

impl Marked<'_> {
    /// Looks again at what may have changed while it was looked at. Gives the goroutines that ran on and on and whose registers
    /// could not be read.
    fn make_sure(
        &mut self,
        rules: Rules,
        setting: &Setting<'_>,
        registers: &mut Registers,
    ) -> Result<Vec<Run>, ProofError> {
        let mut last = self.look_again(rules, setting, registers)?;
        // A register that alone holds a reference is seen in the first sample of its thread.
        let patience = Instant::now() + PATIENCE;
        while registers.is_on() && self.left() > 0 && Instant::now() < patience {
            if registers.unread(self.source, &last)?.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            self.sampled(registers);
        }
        self.fixpoint()?;
        if self.marker.heap.bytes <= SMALL_HEAP {
            for _ in 0..SMALL_LOOKS {
                if self.left() > 0 {
                    self.marker.heap.scan_again();
                    last = self.look_again(rules, setting, registers)?;
                }
            }
        }
        registers.unread(self.source, &last)
    }

    fn flag_special(&mut self) {
        let addresses: Vec<u64> = self.marker.special.objects.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.marker.heap.set_special(address));
    }

    fn variables_and_specials(&mut self) -> Result<(), ProofError> {
        let mut words = Vec::new();
        self.weak = roots::specials(self.source, &self.marker.heap, &mut |word| words.push(word))?;
        roots::variables(self.source, &mut |word| words.push(word))?;
        words.into_iter().for_each(|word| self.marker.root(word));
        Ok(())
    }

    fn sampled(&mut self, registers: &mut Registers) {
        registers.take(&mut |word| self.marker.root(word));
    }

    fn stacks(&mut self, mut goroutines: Vec<RemoteAddr>) -> Result<(), ProofError> {
        self.order.shuffle(&mut goroutines);
        let (scanned, strays) = self.scanners.scan(&goroutines, &self.marker.heap)?;
        self.scanned.extend(scanned.into_iter().map(|one| (one.address.0, one.print)));
        self.marker.strays.absorb(strays);
        Ok(())
    }

    /// What a program with C in it has outside of Go's memory, its threads' stacks among it.
    fn foreign(&mut self, writable: &[MemoryRange]) -> Result<(), ProofError> {
        let foreign = roots::not_go(self.source, &self.marker.heap, writable)?;
        let marker = &mut self.marker;
        roots::foreign(self.source, &foreign, &self.weak, &mut |word| marker.root(word))
    }

    /// What threads hold that have not got anywhere since an earlier look of this pass.
    fn threads(&mut self) -> Result<(), ProofError> {
        for stay in threads::at_work(self.source)? {
            if !self.stays.insert(stay) {
                let marker = &mut self.marker;
                threads::stacks(self.source, &stay, &mut |word| marker.root(word))?;
            }
        }
        Ok(())
    }

    /// Marks until no more goroutines are found that can be woken; or until all can, for then there is nothing left to decide.
    fn fixpoint(&mut self) -> Result<(), ProofError> {
        loop {
            let swept = self.marker.sweeps(self.look.candidates.len() as u64 * BYTES_A_CANDIDATE)?;
            let mut woken = Vec::new();
            for number in 0..self.look.candidates.len() as u32 {
                if !self.is_live(number) && self.is_reached(number) {
                    woken.push(number);
                }
            }
            let mut found = swept || !woken.is_empty();
            for weak in &self.weak {
                if self.marker.is_marked(weak.handle) != Some(false)
                    && self.marker.is_marked(weak.object) == Some(false)
                {
                    self.marker.root(weak.object);
                    found = true;
                }
            }
            self.wake(&woken)?;
            if !found || self.left() == 0 {
                return Ok(());
            }
        }
    }

    /// From now on these candidates count as able to run.
    fn wake(&mut self, numbers: &[u32]) -> Result<(), ProofError> {
        let (mut addresses, mut sudogs) = (Vec::new(), Vec::new());
        for &number in numbers {
            if let Some(live) = self.marker.special.live.get_mut(number as usize) {
                *live = true;
            }
            let Some(candidate) = self.look.candidates.get(number as usize) else { continue };
            addresses.push(candidate.address);
            // Its sudogs hide nothing any more, and may have been scanned already.
            sudogs.extend(candidate.sudogs.iter().copied().map(RemoteAddr));
            candidate.objects.iter().for_each(|object| self.marker.root(*object));
        }
        let (memory, mut batch) = (self.source.memory, ObjectBatch::default());
        for sudogs in sudogs.chunks(CHUNK) {
            batch.read(memory, sudogs, self.source.layout.sudog.size)?;
            for (i, &sudog) in sudogs.iter().enumerate() {
                // One that is gone holds nothing.
                let _ = batch.with(memory, i, sudog, |bytes| {
                    self.marker.roots(bytes);
                    Some(())
                });
            }
        }
        if addresses.is_empty() { Ok(()) } else { self.stacks(addresses) }
    }

    /// Marks what these candidates hold, as if they could run.
    pub(super) fn hold(&mut self, numbers: &[u32]) -> Result<(), ProofError> {
        self.wake(numbers)
    }

    pub(super) fn is_live(&self, number: u32) -> bool {
        self.marker.special.live.get(number as usize) != Some(&false)
    }

    /// Whether what a candidate waits on is reached. What is no object of the heap cannot be decided, and counts as reached.
    fn is_reached(&self, number: u32) -> bool {
        let Some(candidate) = self.look.candidates.get(number as usize) else { return true };
        match candidate.blocked {
            Blocked::Forever => false,
            Blocked::Channel => self.any_reached(candidate),
            Blocked::Semaphore => candidate.objects.is_empty() || self.any_reached(candidate),
            Blocked::Condition => self.marker.woken.contains(&number) || self.any_reached(candidate),
        }
    }

    fn any_reached(&self, candidate: &Candidate) -> bool {
        candidate.objects.iter().any(|object| self.marker.is_marked(*object) != Some(false))
    }

    /// How many candidates are not found able to run.
    fn left(&self) -> usize {
        self.marker.special.live.iter().filter(|live| !**live).count()
    }

    /// Takes in what has changed since the look before. Gives the goroutines as they are now.
    fn look_again(
        &mut self,
        rules: Rules,
        setting: &Setting<'_>,
        registers: &mut Registers,
    ) -> Result<Look, ProofError> {
        // What a thread has handed on by now is seen below; what it still has, here.
        self.threads()?;
        let look = Look::glance(self.source)?;
        let before: HashMap<u64, (u64, Role)> =
            self.look.goroutines.iter().map(|g| (g.address.0, (g.print, g.role))).collect();
        let (mut changed, mut stands) = (Vec::new(), HashSet::new());
        for g in &look.goroutines {
            match before.get(&g.address.0) {
                // It waits as it did; its stack is of interest only if it can be woken, and then it was read.
                Some((print, Role::Candidate(number))) if *print == g.print => {
                    stands.insert(*number);
                    if self.is_live(*number) && self.scanned.get(&g.address.0) != Some(&g.print) {
                        changed.push(g.address);
                    }
                }
                _ if g.running || self.scanned.get(&g.address.0) != Some(&g.print) => changed.push(g.address),
                _ => {}
            }
        }
        // What does not wait as it did could run.
        let gone: Vec<u32> = (0..self.look.candidates.len() as u32)
            .filter(|number| !stands.contains(number) && !self.is_live(*number))
            .collect();
        for number in gone {
            if let Some(live) = self.marker.special.live.get_mut(number as usize) {
                *live = true;
            }
            if let Some(candidate) = self.look.candidates.get(number as usize) {
                candidate.objects.iter().for_each(|object| self.marker.root(*object));
                changed.push(candidate.address);
            }
        }
        if self.marker.heap.refresh(self.source, rules)? {
            self.flag_special();
            for word in self.marker.strays.take() {
                self.marker.root(word);
            }
            self.marker.heap.scan_again();
        }
        self.stacks(changed)?;
        self.variables_and_specials()?;
        self.foreign(setting.writable)?;
        self.sampled(registers);
        self.fixpoint()?;
        Ok(look)
    }

    /// The last word is the goroutines' own: what has moved since is not unreachable.
    fn still_there(&mut self) -> Result<(), ProofError> {
        let numbers: Vec<u32> = (0..self.look.candidates.len() as u32).filter(|n| !self.is_live(*n)).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let now = Look::glance(self.source)?;
        let now: HashMap<u64, u64> = now.goroutines.iter().map(|g| (g.address.0, g.print)).collect();
        let before: HashMap<u64, u64> = self.look.goroutines.iter().map(|g| (g.address.0, g.print)).collect();
        for number in numbers {
            let Some(address) = self.look.candidates.get(number as usize).map(|c| c.address.0) else { continue };
            if now.get(&address) != before.get(&address)
                && let Some(live) = self.marker.special.live.get_mut(number as usize)
            {
                *live = true;
            }
        }
        Ok(())
    }

    fn result(&self) -> Pass {
        let (mut unreachable, mut blocked) = (Vec::new(), HashSet::new());
        for g in &self.look.goroutines {
            let Role::Candidate(number) = g.role else { continue };
            let Some(candidate) = self.look.candidates.get(number as usize) else { continue };
            blocked.insert(candidate.identity());
            if !self.is_live(number) && !candidate.resigned {
                unreachable.push(candidate.clone());
            }
        }
        unreachable.sort_unstable_by_key(|candidate| candidate.goid);
        let (reached_objects, reached_bytes) = self.marker.heap.marked();
        let figures = Figures {
            goroutines: self.look.goroutines.len(),
            blocked: blocked.len(),
            unreachable: unreachable.len(),
            heap_bytes: self.marker.heap.bytes,
            reached_objects,
            reached_bytes,
            read_bytes: self.marker.bytes_read,
            whole_stacks: self.scanners.loose(),
            ..Figures::default()
        };
        Pass { unreachable, blocked, unread: Vec::new(), figures }
    }
}

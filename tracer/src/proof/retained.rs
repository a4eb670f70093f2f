//! What leaked goroutines alone keep alive.
//!
//! In: a pass, with all that is reachable marked. Out: bytes, by group and by type. An estimate: marking goes on from the groups'
//! stacks, one group after the other, and what several hold counts for the first. What lies in small objects has no type that
//! the heap knows; from Go 1.22 larger ones begin with theirs.

use hashbrown::HashMap;

use super::ProofError;
use super::pass::Marked;
use super::spans::PointerInfo;
use super::type_names::TypeNames;
use crate::process::memory::{Batch, MemoryRange};
use crate::units::RemoteAddr;

/// Groups told apart; what more of them hold counts for the last.
pub(super) const GROUP_LIMIT: usize = 200;
/// Objects of one group whose type is looked up.
const TYPED_LIMIT: usize = 1 << 14;
/// Types told of one group.
const TYPE_LIMIT: usize = 8;

/// What one group of goroutines holds, and nothing that is reachable does.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retained {
    /// Bytes of the goroutines' stacks.
    pub stack_bytes: u64,
    /// Bytes of objects.
    pub heap_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Types that are known of them, those with the most bytes first.
    pub types: Vec<RetainedType>,
}

/// A type's part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RetainedType {
    /// Its name, as the program has it.
    pub name: String,
    /// Objects that begin with it: one, or an array of them.
    pub objects: u64,
    /// Bytes they take.
    pub bytes: u64,
}

impl Marked<'_> {
    /// What each of `groups`, candidates by number, holds.
    pub(super) fn retained(&mut self, groups: &[Vec<u32>]) -> Result<Vec<Retained>, ProofError> {
        let mut names = TypeNames::new(self.source)?;
        let mut before = self.marker.heap.snapshot();
        let mut all = Vec::new();
        for group in groups {
            self.hold(group)?;
            self.marker.drain()?;
            let mut retained = Retained::default();
            let numbers = group.iter().filter_map(|number| self.look.candidates.get(*number as usize));
            retained.stack_bytes = numbers.map(|candidate| candidate.stack_size).sum();
            let mut typed = Vec::new();
            for (run, objects) in self.marker.heap.added(&before) {
                let elem = run.kind.elem;
                retained.objects += objects.len() as u64;
                retained.heap_bytes += objects.len() as u64 * elem;
                let room = TYPED_LIMIT.saturating_sub(typed.len());
                match run.kind.info {
                    PointerInfo::Header => {
                        typed.extend(objects.iter().take(room).map(|i| (run.object(*i), 0, elem)));
                    }
                    PointerInfo::Large { kind } if room > 0 => typed.push((0, kind, elem)),
                    _ => {}
                }
            }
            retained.types = self.types(&typed, &mut names)?;
            all.push(retained);
            before = self.marker.heap.snapshot();
        }
        Ok(all)
    }

    /// Sums up objects (where their header is, or their type itself, and their size) by type.
    fn types(&self, objects: &[(u64, u64, u64)], names: &mut TypeNames<'_>) -> Result<Vec<RetainedType>, ProofError> {
        let mut batch = Batch::default();
        let mut by_name: HashMap<String, (u64, u64)> = HashMap::new();
        for chunk in objects.chunks(1024) {
            let range = |at: u64| MemoryRange { start: RemoteAddr(at), len: if at == 0 { 0 } else { 8 } };
            let ranges: Vec<MemoryRange> = chunk.iter().map(|(at, ..)| range(*at)).collect();
            batch.read(self.source.memory, &ranges)?;
            for (i, (_, kind, size)) in chunk.iter().enumerate() {
                let header = batch.get(i).and_then(<[u8]>::first_chunk).map(|word| u64::from_le_bytes(*word));
                let Some(name) = names.get(header.unwrap_or(*kind)) else { continue };
                let sum = by_name.entry(name).or_default();
                *sum = (sum.0 + 1, sum.1 + size);
            }
        }
        let named = by_name.into_iter().map(|(name, (objects, bytes))| RetainedType { name, objects, bytes });
        let mut types: Vec<RetainedType> = named.collect();
        types.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        types.truncate(TYPE_LIMIT);
        Ok(types)
    }
}

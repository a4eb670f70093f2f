//! Which goroutines are proven to be leaked.
//!
//! In: what a pass left ([`Leak`]s with their verdicts). Out: of a goroutine and of a `go` statement, whether and how many. Suspects
//! are not told: of them the next passes decide.

use hashbrown::{HashMap, HashSet};

use crate::proof::Leak;
use crate::units::{Goid, RemoteAddr};

/// What was proven up to some pass.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    leaked: HashSet<Goid>,
    by_site: HashMap<RemoteAddr, u64>,
    passes: u32,
}

impl Proofs {
    /// Of the goroutines that pass number `passes` found unreachable.
    #[must_use]
    pub fn of(leaks: &[Leak], passes: u32) -> Self {
        let proven = leaks.iter().filter(|leak| leak.verdict.is_proven()).map(|leak| (leak.goid, leak.gopc));
        Self::from_parts(proven, passes)
    }

    /// Put together by hand: goroutines with the return addresses of their `go` statements.
    #[must_use]
    pub fn from_parts(leaked: impl IntoIterator<Item = (Goid, RemoteAddr)>, passes: u32) -> Self {
        let mut proofs = Self { passes, ..Self::default() };
        for (goid, gopc) in leaked {
            if proofs.leaked.insert(goid) {
                *proofs.by_site.entry(gopc).or_default() += 1;
            }
        }
        proofs
    }

    /// Whether a goroutine is leaked.
    pub(super) fn is_leaked(&self, goid: Goid) -> bool {
        self.leaked.contains(&goid)
    }

    /// How many of the `go` statement with this return address are.
    pub(super) fn of_site(&self, gopc: RemoteAddr) -> u64 {
        self.by_site.get(&gopc).copied().unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn leaked(&self) -> u64 {
        self.leaked.len() as u64
    }

    /// How many passes there were.
    pub(super) fn passes(&self) -> u32 {
        self.passes
    }
}

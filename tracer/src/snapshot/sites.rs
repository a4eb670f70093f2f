//! Goroutines by creation site: how many, how much stack they hold, how long they have waited.

use std::fmt;

use hashbrown::HashMap;

use super::Goroutine;
use crate::units::RemoteAddr;

/// Smallest, middle and largest of some nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Spread {
    /// The smallest.
    pub min_ns: u64,
    /// The one in the middle; of an even number, the upper.
    pub median_ns: u64,
    /// The largest.
    pub max_ns: u64,
    /// Of how many.
    pub known: usize,
}

impl Spread {
    /// The spread of `times`; `None` of none.
    #[must_use]
    pub fn of(mut times: Vec<u64>) -> Option<Self> {
        times.sort_unstable();
        let (min_ns, max_ns) = (*times.first()?, *times.last()?);
        Some(Self { min_ns, median_ns: *times.get(times.len() / 2)?, max_ns, known: times.len() })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |ns: u64| match ns / 1_000_000_000 {
            s @ 0..120 => format!("{s}s"),
            s @ 120..7200 => format!("{}m", s / 60),
            s => format!("{}h", s / 3600),
        };
        write!(f, "{}", text(self.min_ns))?;
        if self.known > 1 {
            write!(f, "/{}/{}", text(self.median_ns), text(self.max_ns))?;
        }
        Ok(())
    }
}

/// What the goroutines of one `go` statement hold.
#[derive(Clone, Debug)]
pub struct SiteUse {
    /// `g.gopc`; where there is none (the runtime's first goroutine), 0.
    pub gopc: RemoteAddr,
    /// One of them.
    pub example: Goroutine,
    /// How many.
    pub count: usize,
    /// Bytes of stack they hold.
    pub stack_bytes: u64,
    /// Bytes of these in use, of those that were not running.
    pub used_bytes: u64,
    /// How long they have waited, where the runtime knows it.
    pub waited: Option<Spread>,
}

/// The uses of all creation sites of `goroutines`, the one that holds most first. `waited` says how long one has waited, in
/// nanoseconds.
pub fn site_uses<'a>(
    goroutines: impl IntoIterator<Item = &'a Goroutine>,
    waited: impl Fn(&Goroutine) -> Option<u64>,
) -> Vec<SiteUse> {
    let mut found: HashMap<RemoteAddr, (SiteUse, Vec<u64>)> = HashMap::new();
    for g in goroutines {
        let new = || {
            let use_ =
                SiteUse { gopc: g.gopc, example: g.clone(), count: 0, stack_bytes: 0, used_bytes: 0, waited: None };
            (use_, Vec::new())
        };
        let (site, times) = found.entry(g.gopc).or_insert_with(new);
        site.count += 1;
        site.stack_bytes = site.stack_bytes.saturating_add(g.stack_size());
        site.used_bytes = site.used_bytes.saturating_add(g.stack_used().unwrap_or_default());
        times.extend(waited(g));
    }
    let mut uses: Vec<SiteUse> = found
        .into_values()
        .map(|(mut site, times)| {
            site.waited = Spread::of(times);
            site
        })
        .collect();
    uses.sort_unstable_by_key(|site| (std::cmp::Reverse(site.stack_bytes), site.gopc));
    uses
}

//! Who creates whom, by site: a tree.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use crate::goroutines::SiteId;
use crate::output::SiteName;
use crate::units::Goid;

/// A tree is shown down to here, and so many nodes of it.
const DEPTH: usize = 24;
const NODES: usize = 2_000;

/// A site, and what its goroutines create.
#[derive(Debug, Serialize)]
pub struct Creator {
    /// The `go` statement.
    pub site: SiteName,
    /// The function that runs.
    pub start: Arc<str>,
    /// Goroutines of this site that were created by one of the node above.
    pub created: u64,
    /// Of these, alive at the end.
    pub live: u64,
    /// What they create; most first.
    pub creates: Vec<Creator>,
    /// It stands in the tree above already: what it creates is shown there.
    pub again: bool,
}

/// Counts who creates whom.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    edges: HashMap<(SiteId, SiteId), Counts>,
    /// By whom each live goroutine was created.
    by: HashMap<Goid, SiteId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    created: u64,
    live: u64,
}

impl Gatherer {
    pub(super) fn created(&mut self, goid: Goid, by: SiteId, site: SiteId) {
        self.by.insert(goid, by);
        let counts = self.edges.entry((by, site)).or_default();
        counts.created += 1;
        counts.live += 1;
    }

    /// Of one whose creator was not known it is known now.
    pub(super) fn turns_out(&mut self, goid: Goid, site: SiteId, by: SiteId) {
        let live = match self.by.get_mut(&goid) {
            Some(known) => {
                *known = by;
                1
            }
            None => 0,
        };
        if let Some(counts) = self.edges.get_mut(&(SiteId::UNKNOWN, site)) {
            counts.created = counts.created.saturating_sub(1);
            counts.live = counts.live.saturating_sub(live);
            if counts.created == 0 {
                self.edges.remove(&(SiteId::UNKNOWN, site));
            }
        }
        let counts = self.edges.entry((by, site)).or_default();
        counts.created += 1;
        counts.live += live;
    }

    /// Whether it is known who created it.
    pub(super) fn knows(&self, goid: Goid) -> bool {
        self.by.contains_key(&goid)
    }

    pub(super) fn ended(&mut self, goid: Goid, site: SiteId) {
        if let Some(by) = self.by.remove(&goid)
            && let Some(counts) = self.edges.get_mut(&(by, site))
        {
            counts.live = counts.live.saturating_sub(1);
        }
    }

    /// The trees: below those whose creator is not known, and what is in a circle.
    pub(super) fn finish(self, mut name: impl FnMut(SiteId) -> (SiteName, Arc<str>)) -> Vec<Creator> {
        let mut below: HashMap<SiteId, Vec<(SiteId, Counts)>> = HashMap::new();
        for (&(by, site), &counts) in &self.edges {
            below.entry(by).or_default().push((site, counts));
        }
        for sites in below.values_mut() {
            sites.sort_unstable_by_key(|(site, counts)| (std::cmp::Reverse((counts.live, counts.created)), *site));
        }
        let mut shown = HashSet::new();
        let mut left = NODES;
        let mut trees = Vec::new();
        let roots = below.get(&SiteId::UNKNOWN).cloned().unwrap_or_default();
        for (site, counts) in roots {
            trees.push(tree(site, counts, &below, &mut shown, &mut left, 0, &mut name));
        }
        // A circle that nobody outside has begun.
        let mut rest: Vec<SiteId> = below.keys().copied().filter(|site| *site != SiteId::UNKNOWN).collect();
        rest.sort_unstable();
        for site in rest {
            if !shown.contains(&site) && left > 0 {
                trees.push(tree(site, Counts::default(), &below, &mut shown, &mut left, 0, &mut name));
            }
        }
        trees
    }
}

fn tree(
    site: SiteId,
    counts: Counts,
    below: &HashMap<SiteId, Vec<(SiteId, Counts)>>,
    shown: &mut HashSet<SiteId>,
    left: &mut usize,
    depth: usize,
    name: &mut impl FnMut(SiteId) -> (SiteName, Arc<str>),
) -> Creator {
    let has_some = below.contains_key(&site);
    let again = !shown.insert(site) && has_some;
    *left = left.saturating_sub(1);
    let mut creates = Vec::new();
    if !again && depth < DEPTH {
        for (child, counts) in below.get(&site).into_iter().flatten() {
            if *left == 0 {
                break;
            }
            creates.push(tree(*child, *counts, below, shown, left, depth + 1, name));
        }
    }
    let (place, start) = name(site);
    Creator { site: place, start, created: counts.created, live: counts.live, creates, again }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_everybody_once_and_ends_where_it_goes_round() {
        let mut gatherer = Gatherer::default();
        let [main, server, worker] = [SiteId(1), SiteId(2), SiteId(3)];
        gatherer.created(Goid(1), SiteId::UNKNOWN, main);
        gatherer.created(Goid(2), main, server);
        for goid in 3..13 {
            gatherer.created(Goid(goid), server, worker);
        }
        gatherer.created(Goid(20), worker, worker);
        gatherer.ended(Goid(3), worker);
        gatherer.ended(Goid(99), worker);
        let name =
            |site: SiteId| (SiteName { function: format!("f{}", site.0).into(), file: "".into(), line: 0 }, "".into());
        let trees = gatherer.finish(name);
        let [main] = trees.as_slice() else { panic!("{trees:?}") };
        let worker = &main.creates[0].creates[0];
        assert_eq!((&*worker.site.function, worker.created, worker.live), ("f3", 10, 9));
        assert!(worker.creates[0].again && worker.creates[0].creates.is_empty());
    }
}

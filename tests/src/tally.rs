//! What a test program says that it did, per `go` statement.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Where a `go` statement stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the binary names it.
    pub file: String,
    /// The line of the `go` statement.
    pub line: u32,
    /// The function that it stands in.
    pub function: String,
}

/// What the goroutines of one `go` statement did.
#[derive(Clone, Debug, Deserialize)]
pub struct TallySite {
    /// The `go` statement.
    pub site: Place,
    /// The goroutine that ran it last.
    pub parent: u64,
    /// Goroutines started.
    pub created: u64,
    /// Goroutines ended.
    pub exited: u64,
    /// Parks of all of them, -1 where the program cannot know.
    pub blocked: i64,
    /// The parks by the runtime's name of the reason; empty where the program cannot know.
    pub reasons: BTreeMap<String, u64>,
    /// The goroutines, where the program took their numbers.
    pub goids: Vec<u64>,
}

/// The whole tally.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// The Go version lacks what the program is about.
    pub unsupported: bool,
    /// Main ended by runtime.Goexit.
    pub main_exited: bool,
    /// Goroutines started, at all sites.
    pub created: u64,
    /// Goroutines ended, of all sites.
    pub exited: u64,
    /// Each `go` statement once.
    pub sites: Vec<TallySite>,
    /// Rounds of a load.
    pub iterations: u64,
    /// Requests served.
    pub requests: u64,
    /// Goroutines that its child processes started.
    pub started_by_children: u64,
}

impl Tally {
    /// Reads what follows `TALLY `.
    ///
    /// # Errors
    /// When it is not a tally.
    pub fn parse(json: &str) -> Result<Self> {
        let mut tally: Self = serde_json::from_str(json).with_context(|| format!("no tally: {json}"))?;
        tally.merge_sites();
        Ok(tally)
    }

    /// A program may count the goroutines of one `go` statement apart, by what they were given to do.
    fn merge_sites(&mut self) {
        let mut merged: BTreeMap<Place, TallySite> = BTreeMap::new();
        for site in std::mem::take(&mut self.sites) {
            match merged.get_mut(&site.site) {
                None => {
                    merged.insert(site.site.clone(), site);
                }
                Some(sum) => {
                    sum.created += site.created;
                    sum.exited += site.exited;
                    sum.blocked = if sum.blocked < 0 || site.blocked < 0 { -1 } else { sum.blocked + site.blocked };
                    for (reason, parks) in site.reasons {
                        *sum.reasons.entry(reason).or_default() += parks;
                    }
                    sum.goids.extend(site.goids);
                }
            }
        }
        self.sites = merged.into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn sites_of_one_place_are_summed_and_an_unknown_count_stays_unknown() -> anyhow::Result<()> {
        let site = |line: u32, blocked: i64, goid: u64| {
            format!(
                r#"{{"site":{{"function":"main.f","file":"f.go","line":{line}}},"parent":1,"created":1,"exited":1,
                "blocked":{blocked},"reasons":{{"sleep":1}},"goids":[{goid}]}}"#
            )
        };
        let sites = [site(1, 2, 7), site(1, 3, 8), site(2, 1, 9), site(2, -1, 10)].join(",");
        let tally = Tally::parse(&format!(r#"{{"created":4,"exited":4,"blocked":-1,"sites":[{sites}]}}"#))?;
        let sums: Vec<_> = tally.sites.iter().map(|site| (site.created, site.blocked, site.reasons["sleep"])).collect();
        assert_eq!(sums, [(2, 5, 2), (2, -1, 2)]);
        assert_eq!(tally.sites[0].goids, [7, 8]);
        Ok(())
    }
}

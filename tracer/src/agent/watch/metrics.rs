//! What is exported of one watched process: its figures, its reasons to wait, its creation sites.
//!
//! Series are bounded here: the largest and the fastest growing, and the rest as one.

use std::sync::Arc;

use super::Watch;
use crate::agent::config::Metrics;
use crate::go_runtime::Owner;
use crate::goroutines::{Log2Histogram, SiteId};
use crate::output::Names;
use crate::output::metrics::{BLOCK_BOUNDS_LOG2_NS, BlockMetrics, ProcessMetrics, ProofMetrics, SiteMetrics};

impl Watch {
    /// All its figures.
    pub fn metrics(&mut self, config: &Metrics) -> ProcessMetrics {
        let live = self.live();
        let totals = self.table.totals();
        ProcessMetrics {
            identity: Arc::clone(&self.identity),
            since_unix_ns: self.since_unix_ms * 1_000_000,
            detail: self.level.name(),
            goroutines: live.runnable + live.running + live.blocked,
            system_goroutines: live.system,
            runnable: live.runnable,
            running: live.running,
            blocked: live.blocked,
            created: totals.created,
            ended: totals.exited + totals.ended_unseen,
            growth: self.growth.per_second().unwrap_or_default(),
            blocks: self.blocks(config.top_reasons),
            sites: self.sites(config),
            runtime: self.runtime.clone(),
            stack_bytes: self.stack_bytes,
            kernel: self.kernel,
            forecast: self.forecast(),
            findings: self.findings_by_kind(),
            proof: self
                .proven
                .report()
                .map(|report| ProofMetrics::of(report, self.proven.unix_ms, config.top_sites_by_size)),
            events: self.events,
            lost: totals.lost,
            uncertain: self.table.uncertain_since().is_some(),
            complete: self.is_complete(),
            overhead: self.overhead.share,
        }
    }

    fn findings_by_kind(&self) -> Vec<(String, String, u64)> {
        let mut counts = std::collections::BTreeMap::new();
        for finding in self.findings() {
            *counts.entry((finding.kind, finding.severity)).or_default() += 1;
        }
        counts.into_iter().map(|((kind, severity), n)| (kind.to_string(), severity.to_string(), n)).collect()
    }

    /// The reasons with the most blocks; the others as one.
    fn blocks(&self, top: usize) -> Vec<BlockMetrics> {
        let mut all: Vec<(u64, BlockMetrics)> = self
            .table
            .reasons()
            .map(|(reason, stats)| {
                let block = BlockMetrics {
                    reason: self.names.reason(reason).into_owned(),
                    blocked: self.blocked_by_reason.get(usize::from(reason)).copied().unwrap_or_default(),
                    seconds: stats.blocked_ns as f64 / 1e9,
                    buckets: buckets(&stats.blocks),
                };
                (stats.parks + block.blocked, block)
            })
            .collect();
        // Equal ones by name: whoever has a series keeps it.
        all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.reason.cmp(&b.1.reason)));
        let rest = all.split_off(top.min(all.len()));
        let mut shown: Vec<BlockMetrics> = all.into_iter().map(|(_, block)| block).collect();
        if !rest.is_empty() {
            let mut others = BlockMetrics { reason: "(others)".into(), ..BlockMetrics::default() };
            for (_, block) in rest {
                others.blocked += block.blocked;
                others.seconds += block.seconds;
                for (sum, count) in others.buckets.iter_mut().zip(block.buckets) {
                    *sum += count;
                }
            }
            shown.push(others);
        }
        shown
    }

    /// The largest sites, then those that grow most; the others as one. The runtime's own are left out.
    fn sites(&mut self, config: &Metrics) -> Vec<SiteMetrics> {
        let mut program: Vec<usize> = Vec::new();
        for (at, site) in self.table.sites().iter().enumerate() {
            let seen = site.created + site.first_seen > 0;
            if seen && !Owner::of(&self.names.function(site.startpc)).is_system() {
                program.push(at);
            }
        }
        let growth = |at: usize| self.growth.of_site(at);
        let sites = self.table.sites();
        let live = |at: usize| sites.get(at).map_or(0, |site| site.live.total());
        program.sort_by_key(|&at| (std::cmp::Reverse(live(at)), at));
        let mut rest = program.split_off(config.top_sites_by_size.min(program.len()));
        rest.sort_by(|&a, &b| growth(b).total_cmp(&growth(a)).then(a.cmp(&b)));
        let growing = rest.iter().take(config.top_sites_by_growth).take_while(|&&at| growth(at) > 0.0).count();
        let summed = rest.split_off(growing);
        program.extend(rest);

        let names = &mut self.names;
        let figures = |at: usize| {
            let site = sites.get(at)?;
            Some(SiteMetrics {
                live: site.live.total(),
                blocked: site.live.blocked,
                created: site.created,
                ended: site.exited + site.ended_unseen,
                growth: growth(at),
                ..SiteMetrics::default()
            })
        };
        let mut shown: Vec<SiteMetrics> = Vec::with_capacity(program.len() + 1);
        for at in program {
            let (Some(metrics), Some(site)) = (figures(at), sites.get(at)) else { continue };
            let unknown = SiteId(at as u32) == SiteId::UNKNOWN;
            let start = if unknown { "(unknown)".into() } else { names.function(site.startpc) };
            // The main goroutine has no `go` statement.
            let name = if site.gopc.0 == 0 { None } else { Some(names.site(site.gopc)) };
            let (function, file, line) =
                name.map_or_else(|| ("(none)".into(), "".into(), 0), |name| (name.function, name.file, name.line));
            shown.push(SiteMetrics { function, file, line, start, ..metrics });
        }
        if !summed.is_empty() {
            let mut others = SiteMetrics { function: "(others)".into(), ..SiteMetrics::default() };
            for metrics in summed.into_iter().filter_map(figures) {
                others.live += metrics.live;
                others.blocked += metrics.blocked;
                others.created += metrics.created;
                others.ended += metrics.ended;
                others.growth += metrics.growth;
            }
            shown.push(others);
        }
        merge_equal(shown)
    }
}

/// Sites whose names are equal are one series: generics, or the same code inlined in several places.
fn merge_equal(sites: Vec<SiteMetrics>) -> Vec<SiteMetrics> {
    let mut merged: Vec<SiteMetrics> = Vec::with_capacity(sites.len());
    let mut seen = hashbrown::HashMap::new();
    for site in sites {
        let key = (Arc::clone(&site.function), Arc::clone(&site.file), site.line, Arc::clone(&site.start));
        let at = *seen.entry(key).or_insert(merged.len());
        match merged.get_mut(at) {
            None => merged.push(site),
            Some(same) => {
                same.live += site.live;
                same.blocked += site.blocked;
                same.created += site.created;
                same.ended += site.ended;
                same.growth += site.growth;
            }
        }
    }
    merged
}

/// Sixty-four powers of two as the few bounds that are shown.
fn buckets(histogram: &Log2Histogram) -> [u64; BLOCK_BOUNDS_LOG2_NS.len() + 1] {
    let mut shown = [0; BLOCK_BOUNDS_LOG2_NS.len() + 1];
    for (log2, count) in (0_u32..).zip(histogram.buckets()) {
        let at = BLOCK_BOUNDS_LOG2_NS.iter().position(|bound| log2 < *bound).unwrap_or(BLOCK_BOUNDS_LOG2_NS.len());
        shown[at] += count;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_shown_hold_all_that_was_counted() {
        let mut histogram = Log2Histogram::default();
        for ns in [1, 1023, 1024, 16_383, 1 << 37, 1 << 38, u64::MAX] {
            histogram.add(ns);
        }
        assert_eq!(buckets(&histogram), [2, 2, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn sites_of_one_name_are_one_series() {
        let site = |line, live| SiteMetrics { function: "f".into(), line, live, ..SiteMetrics::default() };
        let merged = merge_equal(vec![site(1, 2), site(2, 3), site(1, 4)]);
        assert_eq!(merged.iter().map(|site| (site.line, site.live)).collect::<Vec<_>>(), [(1, 6), (2, 3)]);
    }
}

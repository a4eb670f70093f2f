//! What a live goroutine costs in memory: resident pages, as the kernel counts them.

use anyhow::{Context, Result};

use super::collector::filled;
use super::{Goal, stats::Spread};

const LIVE: u64 = 1_000_000;

/// Bytes per live goroutine. To be called before anything else has used memory and given it back, for what is reused
/// does not show.
pub fn measure() -> Result<f64> {
    let before = resident()?;
    let table = filled(LIVE);
    let after = resident()?;
    assert_eq!(table.live().total(), LIVE);
    Ok(after.saturating_sub(before) as f64 / LIVE as f64)
}

/// What is resident of ourselves, in bytes.
pub fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).context("no second field in /proc/self/statm")?.parse()?;
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    Ok(pages * page)
}

pub fn table(bytes: f64) -> String {
    format!("| table of 1,000,000 live goroutines | |\n| --- | --- |\n| resident bytes each | {bytes:.0} |\n")
}

pub fn goal(bytes: f64) -> Goal {
    Goal::at_most("resident bytes per live goroutine".to_owned(), Spread::of([bytes]), 128.0)
}

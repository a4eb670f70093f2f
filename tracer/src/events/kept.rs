//! What the kernel programs count and keep rather than send.
//!
//! In: the maps of the loaded kernel programs. Out: hits of the probes; and, where states are kept, a [`Reading`]: what
//! each goroutine does, and what was blocked since the reading before. Knows nothing of tables.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use gotracer_ebpf as wire;

use super::{StreamError, bpf_map};
use crate::probes::attach::{KeptMaps, Wire};
use crate::probes::features::Feature;
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// Hits of probes, by what they report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Of goroutines created.
    pub created: u64,
    /// Of goroutines that park.
    pub blocked: u64,
    /// Of goroutines that are given a thread.
    pub running: u64,
    /// Of goroutines that end.
    pub exited: u64,
    /// Of any, while it was not wanted.
    pub unwanted: u64,
    /// Of [`Self::created`], those that are no events because they were left out of a sample.
    pub created_left_out: u64,
    /// Of [`Self::exited`], likewise.
    pub exited_left_out: u64,
}

impl Hits {
    /// Those since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            created: self.created.saturating_sub(earlier.created),
            blocked: self.blocked.saturating_sub(earlier.blocked),
            running: self.running.saturating_sub(earlier.running),
            exited: self.exited.saturating_sub(earlier.exited),
            unwanted: self.unwanted.saturating_sub(earlier.unwanted),
            created_left_out: self.created_left_out.saturating_sub(earlier.created_left_out),
            exited_left_out: self.exited_left_out.saturating_sub(earlier.exited_left_out),
        }
    }
}

/// What a goroutine does, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptState {
    /// Created and not run yet.
    Runnable,
    /// Given a thread and not parked since.
    Running,
    /// Parked and not given a thread since.
    Blocked {
        /// The runtime's `waitReason`.
        reason: u8,
    },
}

/// What a goroutine did since the epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub goid: Goid,
    /// What it does.
    pub state: KeptState,
    /// Since when.
    pub since: MonotonicNs,
    /// When it first parked or ran in this epoch; `None` if it has not.
    pub first: Option<MonotonicNs>,
    /// Whether the first that it did was to run.
    pub first_ran: bool,
    /// How often it parked.
    pub parks: u64,
    /// Nanoseconds of the blocks that began and ended in this epoch.
    pub blocked_ns: u64,
    /// The longest of them.
    pub longest_block_ns: u64,
}

/// Blocks of some goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Those that began.
    pub parks: u64,
    /// Nanoseconds of those that began and ended while states were kept.
    pub blocked_ns: u64,
    /// How many of them took `[2^i, 2^(i+1))` nanoseconds; the last, so long or longer.
    pub buckets: [u64; wire::BUCKETS],
}

impl Blocks {
    const NONE: Self = Self { parks: 0, blocked_ns: 0, buckets: [0; wire::BUCKETS] };

    fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Of all CPUs.
    fn sum<'b>(cpus: impl IntoIterator<Item = &'b Wire<wire::Blocks>>) -> Self {
        let mut sum = Self::NONE;
        for Wire(cpu) in cpus {
            sum.parks = sum.parks.wrapping_add(cpu.parks);
            sum.blocked_ns = sum.blocked_ns.wrapping_add(cpu.blocked_ns);
            for (sum, bucket) in sum.buckets.iter_mut().zip(cpu.buckets) {
                *sum = sum.wrapping_add(bucket);
            }
        }
        sum
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets;
        for (bucket, earlier) in buckets.iter_mut().zip(earlier.buckets) {
            *bucket = bucket.saturating_sub(earlier);
        }
        Self {
            parks: self.parks.saturating_sub(earlier.parks),
            blocked_ns: self.blocked_ns.saturating_sub(earlier.blocked_ns),
            buckets,
        }
    }
}

/// What was found in the maps.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The goroutines that have a record in this epoch.
    pub goroutines: Vec<Kept>,
    /// Blocks since the reading before, by gopc and startpc; zeros for sites beyond the kernel's room.
    pub sites: Vec<(RemoteAddr, RemoteAddr, Blocks)>,
    /// Blocks since the reading before, by wait reason.
    pub reasons: Vec<(u8, Blocks)>,
}

/// The maps, and what they said before.
pub struct KeptStates {
    maps: KeptMaps,
    site_names: BTreeMap<u32, wire::SiteKey>,
    sites: BTreeMap<u32, Blocks>,
    reasons: BTreeMap<u8, Blocks>,
    /// Whether this kernel reads maps in batches; `None` before it was tried.
    batches: Option<bool>,
}

fn failed(error: MapError) -> StreamError {
    StreamError::Kept(Box::new(error))
}

impl KeptStates {
    /// Reads from these maps.
    #[must_use]
    pub fn new(maps: KeptMaps) -> Self {
        let batches = Feature::BatchLookup.is_left_out().then_some(false);
        Self { maps, site_names: BTreeMap::new(), sites: BTreeMap::new(), reasons: BTreeMap::new(), batches }
    }

    /// Hits since the programs were loaded.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read.
    pub fn hits(&self) -> Result<Hits, StreamError> {
        let of = |index| -> Result<u64, StreamError> {
            Ok(self.maps.hits.get(&index, 0).map_err(failed)?.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n)))
        };
        let mut blocked = of(wire::HIT_BLOCKED)?;
        for reason in 0..wire::REASONS {
            blocked += blocks(&self.maps.reason_blocks, reason)?.parks;
        }
        Ok(Hits {
            created: of(wire::HIT_CREATED)?,
            blocked,
            running: of(wire::HIT_RUNNING)?,
            exited: of(wire::HIT_EXITED)?,
            unwanted: of(wire::HIT_UNWANTED)?,
            created_left_out: of(wire::HIT_CREATED_LEFT_OUT)?,
            exited_left_out: of(wire::HIT_EXITED_LEFT_OUT)?,
        })
    }

    /// Reads the records of a process in this epoch, and the blocks since the last reading: those at the sites of this
    /// generation of its programs, and all by reason.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read.
    pub fn read(&mut self, pid: Pid, generation: u32, epoch: u32) -> Result<Reading, StreamError> {
        let mut reading = Reading::default();
        self.records(|key, record| {
            if key.tgid == pid.0
                && record.epoch == epoch
                && let Some(kept) = kept(record)
            {
                reading.goroutines.push(kept);
            }
        })?;
        // A site is given its number before its first park, so that of the sites read now none lacks its addresses.
        for site in self.maps.sites.iter() {
            let (Wire(key), number) = site.map_err(failed)?;
            self.site_names.insert(number, key);
        }
        let numbers = std::iter::once(0).chain(self.site_names.keys().copied());
        for number in numbers {
            let all = blocks(&self.maps.site_blocks, number)?;
            let before = self.sites.insert(number, all).unwrap_or(Blocks::NONE);
            let new = all.since(&before);
            let key = self.site_names.get(&number);
            let (gopc, startpc) = key.map_or((0, 0), |key| (key.gopc, key.startpc));
            if !new.is_none() && key.is_none_or(|key| (key.tgid, key.generation) == (pid.0, generation)) {
                reading.sites.push((RemoteAddr(gopc), RemoteAddr(startpc), new));
            }
        }
        for (index, reason) in (0..wire::REASONS).zip(0_u8..) {
            let all = blocks(&self.maps.reason_blocks, index)?;
            let new = all.since(self.reasons.get(&reason).unwrap_or(&Blocks::NONE));
            if !new.is_none() {
                self.reasons.insert(reason, all);
                reading.reasons.push((reason, new));
            }
        }
        Ok(reading)
    }

    fn records(&mut self, mut found: impl FnMut(&wire::RecordKey, &wire::Record)) -> Result<(), StreamError> {
        if let (Map::HashMap(map), false) = (&self.maps.records, self.batches == Some(false)) {
            let pair = |Wire(key): &Wire<wire::RecordKey>, Wire(record): &Wire<wire::Record>| found(key, record);
            match bpf_map::read_all(map.fd().as_fd(), pair) {
                Ok(()) => {
                    self.batches = Some(true);
                    return Ok(());
                }
                // One that has done it before fails for another reason.
                Err(source) if self.batches == Some(true) => return Err(StreamError::Batch(source)),
                Err(error) => {
                    log::info!("this kernel does not read maps in batches ({error}): they are read one by one");
                    self.batches = Some(false);
                }
            }
        }
        let map: HashMap<_, Wire<wire::RecordKey>, Wire<wire::Record>> =
            HashMap::try_from(&self.maps.records).map_err(failed)?;
        for element in map.iter() {
            let (Wire(key), Wire(record)) = element.map_err(failed)?;
            found(&key, &record);
        }
        Ok(())
    }
}

fn blocks(map: &PerCpuArray<MapData, Wire<wire::Blocks>>, index: u32) -> Result<Blocks, StreamError> {
    Ok(Blocks::sum(map.get(&index, 0).map_err(failed)?.iter()))
}

/// `None` for one that is void, or that was being written to: the next reading has it.
fn kept(record: &wire::Record) -> Option<Kept> {
    if record.goid == 0 || record.begin != record.end {
        return None;
    }
    let state = match record.state & !wire::FIRST_RAN {
        wire::STATE_RUNNABLE => KeptState::Runnable,
        wire::STATE_RUNNING => KeptState::Running,
        wire::STATE_BLOCKED => KeptState::Blocked { reason: record.reason },
        _ => return None,
    };
    Some(Kept {
        goid: Goid(record.goid),
        state,
        since: MonotonicNs(record.since_ns),
        first: (record.first_ns != 0).then_some(MonotonicNs(record.first_ns)),
        first_ran: record.state & wire::FIRST_RAN != 0,
        parks: record.parks,
        blocked_ns: record.blocked_ns,
        longest_block_ns: record.longest_ns,
    })
}

//! A Perfetto trace: a track for each goroutine, below one for its creation site.
//!
//! In: items. Out: packets, as a stream. Slices say what a goroutine did: `runnable` (created, not run yet), `running`, or
//! the reason for which it was blocked. An instant `go FUNCTION` on the creator's track, and a flow from there to the first
//! slice of the goroutine that it made. Counters of live goroutines by state, at most one value a millisecond. Which
//! goroutine woke which is not known: no probe sees it.

mod packets;

use std::io;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use prost::Message;

use crate::events::{Event, Transition};
use crate::go_runtime::Owner;
use crate::goroutines::{self, Ended, Goroutine, LiveByState, SiteId};
use crate::output::Names;
use crate::output::text::place;
use crate::recording::replay::{State, Visitor};
use crate::recording::{Encode, Header, Item, Parts, Reading};
use crate::units::{Goid, MonotonicNs, RemoteAddr};
use packets::{
    COUNTER, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation, EventName, INSTANT, InternedData, MONOTONIC,
    NEEDS_STATE, ProcessDescriptor, REALTIME, SLICE_BEGIN, SLICE_END, STATE_CLEARED, SystemInfo, Trace, TracePacket,
    TracePacketDefaults, TrackDescriptor, TrackEvent, Utsname,
};

/// All packets are of one sequence.
const SEQUENCE: u32 = 1;
/// The process's own track.
const PROCESS: u64 = 1;
/// Counters are told no oftener.
const COUNTERS_NS: u64 = 1_000_000;
/// Events that wait for the first reading at most: it names the sites of goroutines that are older than the recording.
const HELD: usize = 1 << 18;

/// Writes a Perfetto trace.
pub struct Encoder {
    state: State,
    tracks: Tracks,
    /// Until the first reading, or [`HELD`] events.
    held: Option<Vec<Item>>,
    held_events: usize,
}

impl Encoder {
    /// A trace of the recording with this header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self { state: State::new(&header), tracks: Tracks::new(header), held: Some(Vec::new()), held_events: 0 }
    }

    fn release(&mut self) {
        let held = self.held.take().unwrap_or_default();
        // Names of what is older come with the reading, behind the first events.
        for item in held.iter().filter(|item| matches!(item, Item::Definitions(_))) {
            self.state.names.take(item);
        }
        for item in held {
            self.state.take(&item, &mut self.tracks);
        }
    }

    fn give(&mut self, out: &mut Parts) {
        out.main.append(&mut self.tracks.out);
    }
}

impl Encode for Encoder {
    fn put(&mut self, item: &Item, out: &mut Parts) -> io::Result<()> {
        match &mut self.held {
            None => self.state.take(item, &mut self.tracks),
            Some(held) => {
                held.push(item.clone());
                match item {
                    Item::Events(events) => self.held_events += events.len(),
                    Item::Reading(reading) => {
                        let site =
                            |g: &crate::recording::Parked| (g.goroutine.goid, (g.goroutine.gopc, g.goroutine.startpc));
                        self.tracks.sites_ahead = reading.goroutines.iter().map(site).collect();
                        self.release();
                    }
                    _ => {}
                }
                if self.held_events > HELD {
                    self.release();
                }
            }
        }
        self.give(out);
        Ok(())
    }

    fn flush(&mut self, out: &mut Parts) -> io::Result<()> {
        self.give(out);
        Ok(())
    }

    fn finish(&mut self, out: &mut Parts) -> io::Result<()> {
        self.release();
        self.tracks.counters(&self.state, true);
        self.give(out);
        Ok(())
    }

    fn reserve(&self) -> usize {
        // What is held becomes two packets an event, of some 40 bytes.
        self.held_events * 100 + (64 << 10)
    }
}

/// What a slice is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    Runnable,
    Running,
    Blocked(u32, u8),
    Go(u32, RemoteAddr),
    Lost,
}

/// The tracks of a trace.
struct Tracks {
    header: Header,
    out: Vec<u8>,
    begun: bool,
    process_named: u32,
    names: HashMap<Name, u64>,
    sites: HashSet<(u32, RemoteAddr, RemoteAddr)>,
    sites_ahead: HashMap<Goid, (RemoteAddr, RemoteAddr)>,
    /// Goroutines with a track, and what their open slice is.
    open: HashMap<Goid, Option<Name>>,
    told: Option<(MonotonicNs, LiveByState)>,
}

/// A number for a track: kinds apart from each other, programs too.
fn uuid(kind: u64, generation: u32, number: u64) -> u64 {
    // Goids are counted up from 1, so 40 bits last long.
    2 + (number ^ u64::from(generation) << 40).wrapping_mul(4).wrapping_add(kind)
}

const GOROUTINE: u64 = 0;
const SITE: u64 = 1;
const COUNT: u64 = 2;

impl Tracks {
    fn new(header: Header) -> Self {
        Self {
            header,
            out: Vec::new(),
            begun: false,
            process_named: u32::MAX,
            names: HashMap::new(),
            sites: HashSet::new(),
            sites_ahead: HashMap::new(),
            open: HashMap::new(),
            told: None,
        }
    }

    fn packet(&mut self, packet: TracePacket) {
        let mut trace = Trace { packet: vec![packet] };
        if let Some(packet) = trace.packet.first_mut() {
            packet.trusted_packet_sequence_id = SEQUENCE;
            if packet.sequence_flags == 0 {
                packet.sequence_flags = NEEDS_STATE;
            }
        }
        // A Vec takes all there is.
        let _ = trace.encode(&mut self.out);
    }

    fn event(&mut self, time: MonotonicNs, event: TrackEvent) {
        self.packet(TracePacket { timestamp: Some(time.0), track_event: Some(event), ..TracePacket::default() });
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let started = self.header.started_ns;
        let wall = u64::try_from(self.header.wall_ns(started)).unwrap_or_default();
        let clock = |clock_id, timestamp| Clock { clock_id, timestamp };
        let clocks = vec![clock(MONOTONIC, started.0), clock(REALTIME, wall)];
        let machine = if self.header.arch == "arm64" { "aarch64" } else { "x86_64" };
        self.packet(TracePacket {
            clock_snapshot: Some(ClockSnapshot { clocks, primary_trace_clock: MONOTONIC }),
            sequence_flags: STATE_CLEARED,
            trace_packet_defaults: Some(TracePacketDefaults { timestamp_clock_id: MONOTONIC }),
            ..TracePacket::default()
        });
        let utsname = Utsname { sysname: "Linux".into(), release: self.header.kernel.clone(), machine: machine.into() };
        let system_info = Some(SystemInfo { utsname: Some(utsname) });
        self.packet(TracePacket { system_info, ..TracePacket::default() });
    }

    fn descriptor(&mut self, descriptor: TrackDescriptor) {
        self.packet(TracePacket { track_descriptor: Some(descriptor), ..TracePacket::default() });
    }

    /// The process, named by the program that it runs now.
    fn process(&mut self, state: &mut State) {
        let generation = state.table.generation();
        if self.process_named == generation {
            return;
        }
        self.begin();
        let pid = i32::try_from(self.header.pid.0).unwrap_or_default();
        let exe = state.names.last().program().exe.clone();
        let name = exe.rsplit('/').next().unwrap_or_default().to_owned();
        let process = Some(ProcessDescriptor { pid, process_name: name.clone() });
        self.descriptor(TrackDescriptor { uuid: PROCESS, name, process, ..TrackDescriptor::default() });
        if self.process_named == u32::MAX {
            for (number, name) in (0..).zip(["runnable goroutines", "running goroutines", "blocked goroutines"]) {
                let counter = Some(CounterDescriptor { unit: 2 });
                let (uuid, name, parent_uuid) = (uuid(COUNT, 0, number), name.to_owned(), PROCESS);
                self.descriptor(TrackDescriptor { uuid, name, parent_uuid, counter, ..TrackDescriptor::default() });
            }
        }
        self.process_named = generation;
    }

    /// The number of a name, given out when it is first used.
    fn name(&mut self, name: Name, state: &mut State) -> u64 {
        if let Some(&iid) = self.names.get(&name) {
            return iid;
        }
        let iid = self.names.len() as u64 + 1;
        self.names.insert(name, iid);
        let name = match name {
            Name::Runnable => "runnable".to_owned(),
            Name::Running => "running".to_owned(),
            Name::Lost => "events lost".to_owned(),
            Name::Blocked(generation, reason) => state
                .names
                .of_generation(generation)
                .map_or_else(|| format!("wait reason {reason}"), |n| n.reason(reason).into_owned()),
            Name::Go(generation, startpc) => {
                let start: Arc<str> =
                    state.names.of_generation(generation).map_or_else(|| "".into(), |names| names.function(startpc));
                format!("go {start}")
            }
        };
        let interned_data = Some(InternedData { event_names: vec![EventName { iid, name }] });
        self.packet(TracePacket { interned_data, ..TracePacket::default() });
        iid
    }

    /// The track of a goroutine, described when it is first used.
    fn track(&mut self, goid: Goid, site: Option<(RemoteAddr, RemoteAddr)>, state: &mut State) -> u64 {
        let generation = state.table.generation();
        let track = uuid(GOROUTINE, generation, goid.0);
        if self.open.contains_key(&goid) {
            return track;
        }
        self.process(state);
        self.open.insert(goid, None);
        let (gopc, startpc) = site.unwrap_or_default();
        let group = uuid(SITE, generation, gopc.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ startpc.0);
        if self.sites.insert((generation, gopc, startpc)) {
            let names = state.names.of_generation(generation);
            let name = match names.filter(|_| startpc.0 != 0) {
                Some(names) => {
                    let start = names.function(startpc);
                    let kind = if Owner::of(&start).is_system() { " (the runtime's own)" } else { "" };
                    if gopc.0 == 0 {
                        format!("{start}{kind}")
                    } else {
                        format!("{start}{kind}, at {}", place(&names.site(gopc)))
                    }
                }
                None => "(creation not seen)".to_owned(),
            };
            self.descriptor(TrackDescriptor { uuid: group, name, parent_uuid: PROCESS, ..TrackDescriptor::default() });
        }
        let name = format!("goroutine {goid}");
        self.descriptor(TrackDescriptor { uuid: track, name, parent_uuid: group, ..TrackDescriptor::default() });
        track
    }

    /// The site of a goroutine, as far as it is or will be known.
    fn site_of(&self, goid: Goid, known: Option<&Goroutine>, state: &State) -> Option<(RemoteAddr, RemoteAddr)> {
        let site = known.map(|goroutine| goroutine.site).filter(|site| *site != SiteId::UNKNOWN);
        let site = site.and_then(|site| state.table.site_addresses(site));
        site.or_else(|| self.sites_ahead.get(&goid).copied())
    }

    /// Ends what a goroutine did, and begins what it does.
    fn change(&mut self, goid: Goid, track: u64, time: MonotonicNs, name: Option<Name>, flow: bool, state: &mut State) {
        let was = self.open.insert(goid, name).flatten();
        if was.is_some() {
            self.event(time, TrackEvent { kind: SLICE_END, track_uuid: track, ..TrackEvent::default() });
        }
        if let Some(name) = name {
            let name_iid = Some(self.name(name, state));
            let terminating_flow_ids = if flow { vec![track] } else { Vec::new() };
            let begin = TrackEvent {
                kind: SLICE_BEGIN,
                track_uuid: track,
                name_iid,
                terminating_flow_ids,
                ..TrackEvent::default()
            };
            self.event(time, begin);
        }
    }

    fn counters(&mut self, state: &State, last: bool) {
        let live = state.table.live();
        let due =
            self.told.is_none_or(|(time, told)| live != told && (last || state.newest.since(time) >= COUNTERS_NS));
        if !due || !self.begun {
            return;
        }
        self.told = Some((state.newest, live));
        for (number, value) in (0..).zip([live.runnable, live.running, live.blocked]) {
            let counter_value = i64::try_from(value).ok();
            let track_uuid = uuid(COUNT, 0, number);
            self.event(state.newest, TrackEvent { kind: COUNTER, track_uuid, counter_value, ..TrackEvent::default() });
        }
    }
}

impl Visitor for Tracks {
    fn event(&mut self, event: &Event, before: Option<&Goroutine>, state: &mut State) {
        let generation = state.table.generation();
        let (time, goid, transition) = match *event {
            Event::Goroutine { time, goid, transition, .. } => (time, goid, transition),
            Event::Exec { .. } => return,
            Event::Lost { time, cpu, count, .. } => {
                self.process(state);
                let name_iid = Some(self.name(Name::Lost, state));
                let number = |name: &str, value| DebugAnnotation {
                    uint_value: Some(value),
                    name: name.to_owned(),
                    ..DebugAnnotation::default()
                };
                let debug_annotations = vec![number("count", count), number("cpu", u64::from(cpu))];
                let lost = TrackEvent {
                    kind: INSTANT,
                    track_uuid: PROCESS,
                    name_iid,
                    debug_annotations,
                    ..TrackEvent::default()
                };
                return self.event(time, lost);
            }
        };
        match transition {
            Transition::Created { parent, gopc, startpc } => {
                let track = self.track(goid, Some((gopc, startpc)), state);
                let flow = parent.0 != 0;
                if flow {
                    let known = state.table.get(parent);
                    let site = self.site_of(parent, known.as_ref(), state);
                    let creator = self.track(parent, site, state);
                    let name_iid = Some(self.name(Name::Go(generation, startpc), state));
                    let flow_ids = vec![track];
                    let go =
                        TrackEvent { kind: INSTANT, track_uuid: creator, name_iid, flow_ids, ..TrackEvent::default() };
                    self.event(time, go);
                }
                self.change(goid, track, time, Some(Name::Runnable), flow, state);
            }
            Transition::Running | Transition::Blocked { .. } => {
                let site = self.site_of(goid, before, state);
                let track = self.track(goid, site, state);
                let name = match transition {
                    Transition::Blocked { reason } => Name::Blocked(generation, reason),
                    _ => Name::Running,
                };
                // Running twice: it was preempted in between, and nobody saw when.
                if name != Name::Running || self.open.get(&goid) != Some(&Some(Name::Running)) {
                    self.change(goid, track, time, Some(name), false, state);
                }
            }
            // When it ended is told below.
            Transition::Exited => {}
        }
    }

    fn changed(&mut self, _: &Event, state: &mut State) {
        self.counters(state, false);
    }

    fn ended(&mut self, ended: &Ended, state: &mut State) {
        let goid = ended.goroutine.goid;
        let site = state.table.site(ended.goroutine.site);
        // After an execve the table is of the next program already.
        let generation = match ended.end {
            goroutines::End::Exec => state.table.generation().saturating_sub(1),
            _ => site.map_or(0, |site| site.generation).max(state.table.generation()),
        };
        if self.open.remove(&goid).flatten().is_some() {
            let track_uuid = uuid(GOROUTINE, generation, goid.0);
            self.event(ended.time, TrackEvent { kind: SLICE_END, track_uuid, ..TrackEvent::default() });
        }
    }

    fn reading(&mut self, reading: &Reading, state: &mut State) {
        let generation = state.table.generation();
        self.sites_ahead = HashMap::new();
        for parked in &reading.goroutines {
            let goid = parked.goroutine.goid;
            let Some(goroutine) = state.table.get(goid) else { continue };
            let name = match goroutine.state {
                goroutines::State::Runnable => Name::Runnable,
                goroutines::State::Running => Name::Running,
                goroutines::State::Blocked { reason } => Name::Blocked(generation, reason),
            };
            let was = self.open.get(&goid).copied();
            if was != Some(Some(name)) {
                let site = self.site_of(goid, Some(&goroutine), state);
                let track = self.track(goid, site, state);
                // One that is older than the recording has done this at least since its beginning.
                let from = if was.is_none() { goroutine.since.max(state.started) } else { reading.taken_to };
                self.change(goid, track, from, Some(name), false, state);
            }
        }
        self.counters(state, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recording::samples::{any_transition, at, header, small};

    fn written(items: &[Item]) -> Trace {
        let (mut encoder, mut parts) = (Encoder::new(header()), Parts::default());
        for item in items {
            encoder.put(item, &mut parts).expect("writes");
        }
        encoder.finish(&mut parts).expect("ends");
        Trace::decode(parts.main.as_slice()).expect("is a trace")
    }

    /// The names of slices, by track, in the order in which they begin.
    fn slices(trace: &Trace) -> HashMap<u64, Vec<(u64, String)>> {
        let (mut names, mut slices, mut open) = (HashMap::new(), HashMap::<u64, Vec<_>>::new(), HashMap::new());
        for packet in &trace.packet {
            for name in packet.interned_data.iter().flat_map(|data| &data.event_names) {
                names.insert(name.iid, name.name.clone());
            }
            let Some(event) = &packet.track_event else { continue };
            let depth: &mut i32 = open.entry(event.track_uuid).or_default();
            match event.kind {
                SLICE_BEGIN => {
                    *depth += 1;
                    let name = names[&event.name_iid.expect("a slice has a name")].clone();
                    let time = packet.timestamp.expect("an event has a time");
                    slices.entry(event.track_uuid).or_default().push((time, name));
                }
                SLICE_END => *depth -= 1,
                _ => {}
            }
            assert!((0..=1).contains(depth), "slices do not nest on a track");
        }
        slices
    }

    proptest! {
        /// Whatever happens in whatever order: each step of each goroutine is a slice, at its time, by its name.
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((1u64..6, any_transition()), 0..80)) {
            let mut items = small(0)[..4].to_vec();
            let (mut expected, mut running) = (HashMap::<u64, Vec<(u64, String)>>::new(), HashSet::new());
            let mut events = Vec::new();
            for (n, (goid, transition)) in (0..).zip(steps) {
                // Those of the reading are 1 and 2.
                let (time, goid) = (2_000 + n, goid + 10);
                events.push(at(time, goid, transition));
                let name = match transition {
                    Transition::Created { .. } => Some("runnable".to_owned()),
                    Transition::Running if running.contains(&goid) => None,
                    Transition::Running => Some("running".to_owned()),
                    Transition::Blocked { reason: 0 } => Some(String::new()),
                    Transition::Blocked { reason } if reason < 40 => Some(format!("reason {reason}")),
                    Transition::Blocked { reason } => Some(format!("wait reason {reason}")),
                    Transition::Exited => None,
                };
                if transition == Transition::Running { running.insert(goid) } else { running.remove(&goid) };
                if let Some(name) = name {
                    expected.entry(uuid(GOROUTINE, 0, goid)).or_default().push((time, name));
                }
            }
            items.push(Item::Events(events));
            let mut seen = slices(&written(&items));
            for older in [1, 2] {
                seen.remove(&uuid(GOROUTINE, 0, older));
            }
            // A creator that does nothing else has a track, and no slice.
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn flows_lead_from_creators_to_what_they_created() {
        let trace = written(&small(600));
        let events: Vec<&TrackEvent> = trace.packet.iter().filter_map(|packet| packet.track_event.as_ref()).collect();
        let begins: Vec<u64> = events.iter().flat_map(|event| event.flow_ids.clone()).collect();
        let ends: Vec<u64> = events.iter().flat_map(|event| event.terminating_flow_ids.clone()).collect();
        assert_eq!((begins.len(), &begins), (100, &ends));
        let lost = events.iter().filter(|event| event.track_uuid == PROCESS).count();
        assert_eq!(lost, 1);
    }
}

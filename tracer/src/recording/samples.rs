//! Recordings for tests: any items at all, and what a small program would leave.

use proptest::prelude::*;

use super::{Definitions, End, Frame, Header, Item, Parked, Program, ReadError, Reading, Source, StackNumber};
use crate::events::{Event, LossCause, Transition};
use crate::goroutines::{Coverage, SnapshotGoroutine, State};
use crate::output::SiteName;
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

pub(crate) const PID: Pid = Pid(4711);

pub(crate) fn header() -> Header {
    Header {
        gotracer: "0.1.0".into(),
        pid: PID,
        host: "host".into(),
        kernel: "6.18.0".into(),
        arch: "amd64".into(),
        started_ns: MonotonicNs(1_000),
        wall_offset_ns: 1_700_000_000_000_000_000,
        detail: "events".into(),
    }
}

/// Items that were made before.
pub(crate) struct Items<'a>(Header, std::slice::Iter<'a, Item>);

impl<'a> Items<'a> {
    pub(crate) fn new(items: &'a [Item]) -> Self {
        Self(header(), items.iter())
    }
}

impl Source for Items<'_> {
    fn header(&self) -> &Header {
        &self.0
    }

    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        Ok(self.1.next().cloned())
    }
}

/// All that a source gives.
pub(crate) fn items_of(source: &mut impl Source) -> Vec<Item> {
    std::iter::from_fn(|| source.next().expect("reads")).collect()
}

/// The same with events in as few items as can be, and definitions each by itself: how many are put together is of no
/// meaning.
pub(crate) fn normal(items: &[Item]) -> Vec<Item> {
    let mut normal: Vec<Item> = Vec::new();
    for item in items {
        match (normal.last_mut(), item) {
            (Some(Item::Events(all)), Item::Events(more)) => all.extend(more),
            (_, Item::Events(events)) if events.is_empty() => {}
            (_, Item::Definitions(Definitions { generation, sites, functions, stacks })) => {
                let one = || Definitions { generation: *generation, ..Definitions::default() };
                let sites = sites.iter().map(|site| Definitions { sites: vec![site.clone()], ..one() });
                let functions = functions.iter().map(|name| Definitions { functions: vec![name.clone()], ..one() });
                let stacks = stacks.iter().map(|stack| Definitions { stacks: vec![stack.clone()], ..one() });
                normal.extend(sites.chain(functions).chain(stacks).map(Item::Definitions));
            }
            _ => normal.push(item.clone()),
        }
    }
    normal
}

pub(crate) fn at(time: u64, goid: u64, transition: Transition) -> Event {
    Event::Goroutine { time: MonotonicNs(time), pid: PID, goid: Goid(goid), transition }
}

pub(crate) fn created(parent: u64, site: u64) -> Transition {
    Transition::Created {
        parent: Goid(parent),
        gopc: RemoteAddr(0x40_1000 + site),
        startpc: RemoteAddr(0x40_8000 + site),
    }
}

/// A program with some sites, `count` events on each of which some goroutine is born, waits, runs or ends, two readings.
pub(crate) fn small(count: u64) -> Vec<Item> {
    let site = |n: u64| {
        let name = SiteName { function: format!("main.site{n}").into(), file: "/src/main.go".into(), line: n as u32 };
        (RemoteAddr(0x40_1000 + n), name)
    };
    let function = |n: u64| (RemoteAddr(0x40_8000 + n), format!("main.run{n}").into());
    let frame = |name: &str, line: u32, inlined: bool| Frame {
        function: name.into(),
        file: "/src/main.go".into(),
        line,
        pc: RemoteAddr(0x40_8000 + u64::from(line)),
        inlined,
    };
    let stack =
        vec![frame("runtime.gopark", 400, false), frame("runtime.chanrecv1", 70, true), frame("main.run0", 12, false)];
    let program = Program {
        generation: 0,
        exe: "/srv/shop".into(),
        build_id: "abc".into(),
        go_version: "go1.27.3".into(),
        wait_reasons: (0..40).map(|n| if n == 0 { String::new() } else { format!("reason {n}") }).collect(),
        bias: 0,
        text_start: RemoteAddr(0x40_0000),
        text_end: RemoteAddr(0x50_0000),
    };
    let definitions = Definitions {
        generation: 0,
        sites: (0..4).map(site).collect(),
        functions: (0..4).map(function).collect(),
        stacks: vec![(StackNumber(7), stack)],
    };
    let mut events = Vec::new();
    let mut time = 1_000;
    for n in 0..count {
        time += 700 + n % 13;
        let goid = 20 + n / 6;
        events.push(match n % 6 {
            0 => at(time, goid, created(1, goid % 4)),
            1 | 3 => at(time, goid, Transition::Running),
            2 | 4 => at(time, goid, Transition::Blocked { reason: 10 + (n % 4) as u8 }),
            _ if goid.is_multiple_of(5) => at(time, goid, Transition::Running),
            _ => at(time, goid, Transition::Exited),
        });
    }
    let last = events.split_off(events.len() * 2 / 3);
    let middle = events.last().map_or(time, |event| event.time().0);
    let parked = |goid: u64, reason: u8| Parked {
        goroutine: SnapshotGoroutine {
            goid: Goid(goid),
            parent: Goid(0),
            gopc: RemoteAddr(0x40_1000),
            startpc: RemoteAddr(0x40_8000),
            state: State::Blocked { reason },
            since: (goid == 1).then_some(MonotonicNs(500)),
        },
        stack: Some(StackNumber(7)),
        stack_bytes: 2048,
    };
    let first = Reading {
        taken_from: MonotonicNs(1_001),
        taken_to: MonotonicNs(1_002),
        coverage: Coverage::Whole,
        goroutines: vec![parked(1, 11), parked(2, 12)],
    };
    let second = Reading {
        taken_from: MonotonicNs(middle),
        taken_to: MonotonicNs(middle + 1),
        coverage: Coverage::Part,
        goroutines: vec![parked(1, 11)],
    };
    let lost = Event::Lost { time: MonotonicNs(time), cpu: 1, count: 3, cause: LossCause::BufferFull };
    let end = End {
        time_ns: MonotonicNs(time + 10),
        why: "detached".into(),
        events: count,
        lost: 3,
        late: 0,
        wall_offset_ns: header().wall_offset_ns,
    };
    vec![
        Item::Program(program),
        Item::ReadingBegun(MonotonicNs(1_000)),
        Item::Definitions(definitions),
        Item::Reading(first),
        Item::Events(events),
        Item::ReadingBegun(MonotonicNs(middle - 1)),
        Item::Reading(second),
        Item::Events(last),
        Item::Events(vec![lost]),
        Item::End(end),
    ]
}

pub(crate) fn any_transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        (any::<u64>(), 0u64..9, any::<u64>()).prop_map(|(parent, gopc, startpc)| Transition::Created {
            parent: Goid(parent),
            gopc: RemoteAddr(gopc),
            startpc: RemoteAddr(startpc)
        }),
        any::<u8>().prop_map(|reason| Transition::Blocked { reason }),
        Just(Transition::Running),
        Just(Transition::Exited),
    ]
}

/// Any event of [`PID`].
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let cause = prop_oneof![
        Just(LossCause::BufferFull),
        Just(LossCause::NoBuffer),
        Just(LossCause::UnreadableG),
        Just(LossCause::NotRecorded)
    ];
    let time = || any::<u64>().prop_map(MonotonicNs);
    prop_oneof![
        12 => (any::<u64>(), prop_oneof![0u64..5, any::<u64>()], any_transition())
            .prop_map(|(time, goid, transition)| at(time, goid, transition)),
        1 => time().prop_map(|time| Event::Exec { time, pid: PID }),
        1 => (time(), any::<u32>(), any::<u64>(), cause)
            .prop_map(|(time, cpu, count, cause)| Event::Lost { time, cpu, count, cause }),
    ]
}

fn any_name() -> impl Strategy<Value = std::sync::Arc<str>> {
    "[a-zA-Zäß\u{1F600}\"\\\\./* \n]{0,12}".prop_map(Into::into)
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let state = prop_oneof![
        Just(State::Runnable),
        Just(State::Running),
        any::<u8>().prop_map(|reason| State::Blocked { reason })
    ];
    let goroutine = (any::<[u64; 4]>(), state, any::<Option<u64>>(), any::<Option<u32>>(), any::<u64>()).prop_map(
        |([goid, parent, gopc, startpc], state, since, stack, stack_bytes)| Parked {
            goroutine: SnapshotGoroutine {
                goid: Goid(goid),
                parent: Goid(parent),
                gopc: RemoteAddr(gopc),
                startpc: RemoteAddr(startpc),
                state,
                since: since.map(MonotonicNs),
            },
            stack: stack.map(StackNumber),
            stack_bytes,
        },
    );
    (any::<[u64; 2]>(), any::<bool>(), prop::collection::vec(goroutine, 0..20)).prop_map(
        |([from, to], whole, goroutines)| Reading {
            taken_from: MonotonicNs(from),
            taken_to: MonotonicNs(to),
            coverage: if whole { Coverage::Whole } else { Coverage::Part },
            goroutines,
        },
    )
}

fn any_definitions() -> impl Strategy<Value = Definitions> {
    let address = || any::<u64>().prop_map(RemoteAddr);
    let site =
        (any_name(), any_name(), any::<u32>()).prop_map(|(function, file, line)| SiteName { function, file, line });
    let frame = (any_name(), any_name(), any::<u32>(), address(), any::<bool>())
        .prop_map(|(function, file, line, pc, inlined)| Frame { function, file, line, pc, inlined });
    let stack = (any::<u32>().prop_map(StackNumber), prop::collection::vec(frame, 0..6));
    (
        any::<u32>(),
        prop::collection::vec((address(), site), 0..5),
        prop::collection::vec((address(), any_name()), 0..5),
        prop::collection::vec(stack, 0..4),
    )
        .prop_map(|(generation, sites, functions, stacks)| Definitions { generation, sites, functions, stacks })
}

/// Any item that can be written.
pub(crate) fn any_item() -> impl Strategy<Value = Item> {
    prop_oneof![
        6 => prop::collection::vec(any_event(), 0..60).prop_map(Item::Events),
        1 => any::<u64>().prop_map(|time| Item::ReadingBegun(MonotonicNs(time))),
        2 => any_reading().prop_map(Item::Reading),
        2 => any_definitions().prop_map(Item::Definitions),
        1 => (any::<u64>(), any_name())
            .prop_map(|(time, level)| Item::Detail { time: MonotonicNs(time), level: level.to_string() }),
        1 => (any::<u32>(), prop::collection::vec(any_name(), 0..5), any_name()).prop_map(|(generation, reasons, exe)| {
            Item::Program(Program {
                generation,
                exe: exe.to_string(),
                wait_reasons: reasons.iter().map(ToString::to_string).collect(),
                ..Program::default()
            })
        }),
        1 => (any::<[u64; 4]>(), any::<i64>(), any_name()).prop_map(|([time, events, lost, late], wall_offset_ns, why)| {
            Item::End(End { time_ns: MonotonicNs(time), why: why.to_string(), events, lost, late, wall_offset_ns })
        }),
    ]
}

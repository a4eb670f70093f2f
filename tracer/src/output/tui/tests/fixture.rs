//! A small service, put together by hand: three sites that leak in three ways, one that is steady, the runtime's own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::analysis::{
    Evidence, Finding, Forecast, FrameName, Kind, MemorySample, MemoryTrend, Severity, SiteKey, Trend, Verdict,
};
use crate::events::{Event, Transition};
use crate::goroutines::GoroutineTable;
use crate::governor::Level;
use crate::output::tui::{Action, Diagnosis, Facts, Look, Price, Proofs, Reading, Stack, State, draw, text};
use crate::output::{Names, SiteName};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

pub(super) const PID: Pid = Pid(4_711);
const SECOND: u64 = 1_000_000_000;

/// gopc, startpc, function, file, line, start function.
const SITES: [(u64, u64, &str, &str, u32, &str); 5] = [
    (0x10, 0x11, "main.search", "/src/shop/cmd/shop/main.go", 48, "main.search.func1"),
    (
        0x20,
        0x21,
        "github.com/acme/shop/internal/orders.(*Service).Watch.func2",
        "/src/shop/internal/orders/service.go",
        1_204,
        "github.com/acme/shop/internal/orders.(*Service).pump",
    ),
    (0x30, 0x31, "main.subscribe", "/src/shop/cmd/shop/main.go", 84, "main.pollForNews"),
    (0x40, 0x41, "net/http.(*Server).Serve", "/usr/local/go/src/net/http/server.go", 3_454, "net/http.(*conn).serve"),
    (0x50, 0x51, "runtime.gcBgMarkStartWorkers", "/usr/local/go/src/runtime/mgc.go", 1_291, "runtime.gcBgMarkWorker"),
];

/// Its names are what somebody writes into a binary to harm who looks at it.
pub(super) const HOSTILE: u64 = 0x66;

pub(super) struct FakeNames;

impl Names for FakeNames {
    fn site(&mut self, gopc: RemoteAddr) -> SiteName {
        let found = SITES.iter().find(|site| site.0 == gopc.0);
        if gopc.0 == HOSTILE {
            let function = format!("main.\u{1b}[2J\r\n\u{7}{}", "x\u{301}\u{4e16}".repeat(1 << 16));
            return SiteName { function: function.into(), file: "\u{1b}]0;title\u{7}.go".into(), line: u32::MAX };
        }
        found.map_or_else(
            || SiteName { function: gopc.to_string().into(), file: "".into(), line: 0 },
            |site| SiteName { function: site.2.into(), file: site.3.into(), line: site.4 },
        )
    }

    fn function(&mut self, startpc: RemoteAddr) -> Arc<str> {
        let found = SITES.iter().find(|site| site.1 == startpc.0);
        found.map_or_else(|| startpc.to_string().into(), |site| site.5.into())
    }

    fn reason(&self, reason: u8) -> Cow<'_, str> {
        match reason {
            1 => "chan send".into(),
            2 => "select".into(),
            3 => "chan receive".into(),
            4 => "IO wait".into(),
            5 => "GC worker (idle)".into(),
            other => format!("wait reason {other}").into(),
        }
    }
}

pub(super) struct Fixture {
    pub table: GoroutineTable,
    pub state: State,
    now: u64,
    next: u64,
}

impl Fixture {
    /// The service after `seconds` looks, a second apart.
    pub(super) fn after(seconds: u64, size: (u16, u16)) -> Self {
        let facts = Facts {
            pid: PID,
            name: "shop".to_owned(),
            go_version: "go1.27.3".to_owned(),
            started: Some(MonotonicNs(10 * SECOND)),
        };
        let state = State::new(facts, size, Duration::from_secs(1));
        let mut fixture = Self { table: GoroutineTable::new(PID), state, now: 100 * SECOND, next: 1 };
        for _ in 0..3 {
            fixture.start(4, Some(4));
        }
        for _ in 0..2 {
            fixture.start(5, Some(5));
        }
        fixture.look();
        for _ in 0..seconds {
            fixture.second();
        }
        fixture
    }

    pub(super) fn events(&mut self, events: &[Event]) {
        self.table.apply_all(events);
        self.state.take_in(events);
    }

    pub(super) fn event(&mut self, goid: u64, transition: Transition) {
        self.now += 1_000_000;
        self.events(&[Event::Goroutine { time: MonotonicNs(self.now), pid: PID, goid: Goid(goid), transition }]);
    }

    /// Starts a goroutine at the site of this number, which then blocks for this reason.
    pub(super) fn start(&mut self, site: usize, reason: Option<u8>) -> u64 {
        let goid = self.next;
        self.next += 1;
        let (gopc, startpc, ..) = SITES[site - 1];
        let created = Transition::Created { parent: Goid(1), gopc: RemoteAddr(gopc), startpc: RemoteAddr(startpc) };
        self.event(goid, created);
        self.event(goid, Transition::Running);
        if let Some(reason) = reason {
            self.event(goid, Transition::Blocked { reason });
        }
        goid
    }

    /// What happens in a second: leaks, and a request that is served.
    pub(super) fn second(&mut self) {
        let begin = self.now;
        for _ in 0..12 {
            self.start(1, Some(1));
        }
        for _ in 0..5 {
            self.start(2, Some(2));
        }
        self.start(3, Some(3));
        let served = self.start(4, None);
        self.event(served, Transition::Exited);
        self.now = begin + SECOND;
        self.look();
    }

    pub(super) fn look(&mut self) {
        self.state.observe(MonotonicNs(self.now), &self.table, &mut [FakeNames]);
    }

    pub(super) fn act(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.state.fill(&self.table);
        for action in actions {
            self.state.act(action);
            self.state.fill(&self.table);
        }
    }

    /// What a reading of the stacks gives.
    pub(super) fn read_stacks(&mut self) {
        let frame = |function: &str, file: &str, line| SiteName { function: function.into(), file: file.into(), line };
        let send: Arc<[SiteName]> = [
            frame("main.query", "/src/shop/cmd/shop/main.go", 59),
            frame("main.search.func1", "/src/shop/cmd/shop/main.go", 49),
        ]
        .into();
        let pump: Arc<[SiteName]> = [
            frame("github.com/acme/shop/internal/orders.(*Service).next", "/src/shop/internal/orders/service.go", 88),
            frame("github.com/acme/shop/internal/orders.(*Service).pump", "/src/shop/internal/orders/service.go", 61),
        ]
        .into();
        let stacks = self.table.iter().map(|g| {
            let frames = match self.table.site_addresses(g.site) {
                Some((RemoteAddr(0x10), _)) => Stack::Frames(Arc::clone(&send), 0),
                Some((RemoteAddr(0x20), _)) => Stack::Frames(Arc::clone(&pump), 3),
                Some((RemoteAddr(0x30), _)) => Stack::Moved,
                _ => Stack::Running,
            };
            (g.goid, frames)
        });
        let reading = Reading::from_parts(MonotonicNs(self.now.saturating_sub(1_500_000_000)), stacks);
        self.state.take_reading(reading);
    }

    /// What passes prove: all goroutines of the first site but one.
    pub(super) fn prove(&mut self) {
        let of_first =
            self.table.iter().filter(|g| matches!(self.table.site_addresses(g.site), Some((RemoteAddr(0x10), _))));
        let leaked: Vec<(Goid, RemoteAddr)> = of_first.skip(1).map(|g| (g.goid, RemoteAddr(0x10))).collect();
        self.state.take_proofs(Proofs::from_parts(leaked, 4));
    }

    pub(super) fn diagnose(&mut self) {
        self.state.take_diagnosis(diagnosis());
        self.state.take_price(Price { level: Some(Level::Events), target: Some(0.012), own: Some(0.004) });
    }

    /// The picture as text.
    pub(super) fn frame(&mut self, look: Look) -> String {
        text(&self.draw(look))
    }

    pub(super) fn draw(&mut self, look: Look) -> Buffer {
        self.state.fill(&self.table);
        let (width, height) = self.state.size;
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let hits = draw(&mut buffer, &self.state, look);
        self.state.drawn(hits);
        buffer
    }
}

pub(super) const PLAIN: Look = Look { colour: false, unicode: true, keys: true };

fn diagnosis() -> Diagnosis {
    let key = |site: usize| {
        let (_, _, function, file, line, start) = SITES[site - 1];
        SiteKey { function: function.into(), file: file.into(), line, start: start.into() }
    };
    let evidence =
        |what: &'static str, words: &str| Evidence { what, words: words.to_owned(), numbers: Default::default() };
    let frame = |function: &str, file: &str, line| FrameName { function: function.into(), file: file.into(), line };
    let leak = Finding {
        kind: Kind::Channel,
        severity: Severity::Critical,
        score: 0.97,
        site: Some(key(1)),
        count: 240,
        per_second: Some(12.0),
        since: Some(MonotonicNs(100 * SECOND)),
        since_ns: Some(20 * SECOND),
        evidence: vec![
            evidence("growth", "they get 12 more a second, and none of them has ended since 20 s"),
            evidence("no_counterpart", "240 of 240 send to a channel on whose other side nobody waits"),
        ],
        advice: "give the channel a buffer of one, or receive in every way out of main.search".to_owned(),
        stack: [frame("main.query", "/src/shop/cmd/shop/main.go", 59)].into(),
        reason: "chan send".into(),
        stack_bytes: 240 * 2_048,
        creators: vec![key(4)],
        examples: vec![Goid(6)],
    };
    let slow = Finding {
        kind: Kind::Timer,
        severity: Severity::Notice,
        score: 0.61,
        site: Some(key(3)),
        count: 20,
        per_second: Some(1.0),
        evidence: vec![evidence("period", "each wakes every 1.0 s on a ticker")],
        advice: "call Stop on the ticker".to_owned(),
        creators: Vec::new(),
        ..leak.clone()
    };
    let trend = |per_second: f64| Trend {
        per_second,
        low: per_second * 0.9,
        high: per_second * 1.1,
        chance: 0.001,
        values: 20,
        seconds: 20.0,
    };
    let now = MemorySample {
        heap_live: Some(40 << 20),
        heap_marked: Some(30 << 20),
        heap_goal: Some(64 << 20),
        stacks: Some(3 << 20),
        go_limit: None,
        gc_cycles: Some(1_234),
        gc_pause_ns: Some(77_000_000),
        gc_cpu_share: Some(0.013),
        timers: Some(21),
        threads: Some(9),
        rss: Some(96 << 20),
        cgroup_used: Some(110 << 20),
        cgroup_limit: Some(512 << 20),
        machine: Some(16 << 30),
    };
    Diagnosis {
        findings: vec![leak, slow],
        memory: MemoryTrend {
            now,
            used: trend(1_200_000.0),
            heap: trend(1_000_000.0),
            stacks: trend(36_000.0),
            timers: trend(1.0),
            gc_per_second: Some(0.75),
            gc_pause_ns: Some(62_000.0),
        },
        forecast: Some(Forecast {
            limit: 512 << 20,
            limit_of: "cgroup",
            used: 110 << 20,
            soonest_s: 320.0,
            latest_s: Some(391.0),
            confidence: 0.99,
            explained: Some(0.82),
            stacks_per_second: 36_000.0,
            heap_per_second: Some(700_000.0),
        }),
        verdict: Some(Verdict::Enough),
    }
}

//! A pprof profile: goroutines, and time blocked, by stack and reason.
//!
//! In: items. Out, at the end: gzip of a `profile.proto` with three values a sample: blocks, nanoseconds blocked, and
//! goroutines that still wait at the end. Labels: `reason`, and `stack`, which says how the stack is known
//! ([`Known`]). A goroutine that no reading has met shows its start function below its creation site.

use std::io;

use crate::events::Event;
use crate::goroutines::{Ended, Goroutine};
use crate::output::Names;
use crate::output::pprof::{Builder, Label, Mapping, Sample, ValueType, write_gzip};
use crate::recording::replay::{State, Visitor};
use crate::recording::waits::{Known, Place, Waits};
use crate::recording::{Encode, Header, Item, Parts, Reading};
use crate::units::Pc;

/// Gathers what a profile says.
pub struct Encoder {
    header: Header,
    state: State,
    gathered: Gathered,
}

#[derive(Default)]
struct Gathered {
    waits: Waits,
    generation: u32,
}

impl Visitor for Gathered {
    fn event(&mut self, event: &Event, before: Option<&Goroutine>, state: &mut State) {
        self.generation = state.table.generation();
        self.waits.event(event, before, state);
    }

    fn ended(&mut self, ended: &Ended, _: &mut State) {
        self.waits.ended(ended, self.generation);
    }

    fn reading(&mut self, reading: &Reading, state: &mut State) {
        self.generation = state.table.generation();
        self.waits.reading(reading, state);
    }
}

impl Encoder {
    /// A profile of the recording with this header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self { state: State::new(&header), header, gathered: Gathered::default() }
    }
}

impl Encode for Encoder {
    fn put(&mut self, item: &Item, _: &mut Parts) -> io::Result<()> {
        self.state.take(item, &mut self.gathered);
        Ok(())
    }

    /// There is nothing to be had before the end.
    fn flush(&mut self, _: &mut Parts) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, out: &mut Parts) -> io::Result<()> {
        let waits = std::mem::take(&mut self.gathered.waits);
        let sums = waits.finish(&self.state);
        let mut builder = Builder::new();
        let blocks = ValueType { kind: builder.string("blocks"), unit: builder.string("count") };
        let blocked = ValueType { kind: builder.string("blocked"), unit: builder.string("nanoseconds") };
        let goroutines = ValueType { kind: builder.string("goroutine"), unit: builder.string("count") };
        let program = self.state.names.last().program().clone();
        builder.profile.mapping = vec![Mapping {
            id: 1,
            memory_start: program.text_start.0,
            memory_limit: program.text_end.0,
            filename: builder.string(&program.exe),
            build_id: builder.string(&program.build_id),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        }];
        let (reason_key, stack_key) = (builder.string("reason"), builder.string("stack"));
        for (place, waited) in &sums.places {
            let location_id = locations(&mut builder, place, &mut self.state);
            let reason = reason(place, &mut self.state);
            let known = match place.known {
                Known::Seen => "read in this wait",
                Known::SameGoroutine => "read in another wait of the goroutine",
                Known::No => "not read",
            };
            let label = vec![
                Label { key: reason_key, text: builder.string(&reason) },
                Label { key: stack_key, text: builder.string(known) },
            ];
            let value = [waited.blocks, waited.ns, waited.waiting].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
            builder.profile.sample.push(Sample { location_id, value: value.to_vec(), label });
        }
        let mut profile = builder.profile;
        profile.sample_type = vec![blocks, blocked.clone(), goroutines];
        profile.default_sample_type = blocked.kind;
        profile.period_type = Some(blocked);
        profile.period = 1;
        profile.time_nanos = self.header.wall_ns(self.header.started_ns);
        profile.duration_nanos = i64::try_from(self.state.newest.since(self.header.started_ns)).unwrap_or(i64::MAX);
        write_gzip(&mut out.main, &profile)
    }

    fn reserve(&self) -> usize {
        // A sample takes some 100 bytes before compression.
        1 << 20
    }
}

fn reason(place: &Place, state: &mut State) -> String {
    let names = state.names.of_generation(place.generation);
    names.map_or_else(|| format!("wait reason {}", place.reason), |names| names.reason(place.reason).into_owned())
}

/// Innermost first.
fn locations(builder: &mut Builder, place: &Place, state: &mut State) -> Vec<u64> {
    if let Some(frames) = place.stack.and_then(|stack| state.names.stack(stack)) {
        let (mut ids, mut lines) = (Vec::new(), Vec::new());
        for frame in frames.iter() {
            lines.push((builder.function(&frame.function, &frame.file, 0), frame.line));
            if !frame.inlined {
                ids.push(builder.location(Pc(frame.pc.0), frame.pc.0, std::mem::take(&mut lines)));
            }
        }
        return ids;
    }
    let (gopc, startpc) = state.table.site_addresses(place.site).unwrap_or_default();
    let Some(names) = state.names.of_generation(place.generation).filter(|_| startpc.0 != 0) else {
        let unknown = builder.function("(not known)", "", 0);
        return vec![builder.location(Pc(0), 0, vec![(unknown, 0)])];
    };
    let start = builder.function(&names.function(startpc), "", 0);
    let mut ids = vec![builder.location(Pc(startpc.0), startpc.0, vec![(start, 0)])];
    if gopc.0 != 0 {
        let site = names.site(gopc);
        let creator = builder.function(&format!("{} (created it)", site.function), &site.file, 0);
        // The call, and not what follows it.
        let address = gopc.0.saturating_sub(1);
        ids.push(builder.location(Pc(address), address, vec![(creator, site.line)]));
    }
    ids
}

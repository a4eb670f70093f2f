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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use hashbrown::HashMap;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::events::Transition;
    use crate::output::pprof::Profile;
    use crate::recording::samples::{at, header, small};

    fn written(items: &[Item]) -> Profile {
        let (mut encoder, mut parts) = (Encoder::new(header()), Parts::default());
        for item in items {
            encoder.put(item, &mut parts).expect("writes");
        }
        encoder.finish(&mut parts).expect("ends");
        let mut bytes = Vec::new();
        GzDecoder::new(parts.main.as_slice()).read_to_end(&mut bytes).expect("is gzip");
        Profile::decode(bytes.as_slice()).expect("is a profile")
    }

    /// Blocks, nanoseconds and goroutines by reason.
    fn sums(profile: &Profile) -> HashMap<String, [i64; 3]> {
        let mut sums = HashMap::<String, [i64; 3]>::new();
        for sample in &profile.sample {
            assert!(!sample.location_id.is_empty());
            let text = |index: i64| profile.string_table[usize::try_from(index).expect("an index")].clone();
            let reason = sample.label.iter().find(|label| text(label.key) == "reason").expect("has a reason");
            let sum = sums.entry(text(reason.text)).or_default();
            sum.iter_mut().zip(&sample.value).for_each(|(sum, value)| *sum += value);
        }
        sums
    }

    proptest! {
        /// The time that each goroutine is blocked, by reason, whether its stack is known or not.
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((1u64..6, 0u8..3, 1u64..1_000), 0..80)) {
            let mut items = small(0)[..4].to_vec();
            // Nobody waits from before.
            items.truncate(2);
            let (mut expected, mut blocked, mut time) = (HashMap::<String, [i64; 3]>::new(), HashMap::new(), 2_000);
            let mut events = Vec::new();
            for (goid, what, passed) in steps {
                time += passed;
                let transition = match what {
                    0 => Transition::Running,
                    n => Transition::Blocked { reason: 10 + n },
                };
                events.push(at(time, goid, transition));
                let was = match transition {
                    Transition::Blocked { reason } => blocked.insert(goid, (time, reason)),
                    _ => blocked.remove(&goid),
                };
                if let Some((since, reason)) = was {
                    let sum = expected.entry(format!("reason {reason}")).or_default();
                    *sum = [sum[0] + 1, sum[1] + (time - since) as i64, sum[2]];
                }
            }
            for (since, reason) in blocked.into_values() {
                let sum = expected.entry(format!("reason {reason}")).or_default();
                *sum = [sum[0] + 1, sum[1] + (time - since) as i64, sum[2] + 1];
            }
            items.push(Item::Events(events));
            prop_assert_eq!(sums(&written(&items)), expected);
        }
    }

    #[test]
    fn a_stack_that_was_read_is_there() {
        let profile = written(&small(0));
        let names: Vec<&str> = profile
            .function
            .iter()
            .map(|f| profile.string_table[usize::try_from(f.name).expect("an index")].as_str())
            .collect();
        assert!(names.contains(&"main.run0") && names.contains(&"runtime.gopark"), "{names:?}");
        // Two goroutines that waited from before to the end.
        let sums = sums(&profile);
        assert_eq!(sums.values().map(|sum| sum[2]).sum::<i64>(), 2);
    }
}

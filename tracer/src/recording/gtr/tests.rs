//! What goes in comes out; what is cut off or damaged is told, and the rest comes out all the same.

use std::io::Cursor;
use std::time::Duration;

use proptest::prelude::*;

use super::{Index, Reader, Ring, Writer};
use crate::events::{Event, Transition};
use crate::recording::samples::{Items, any_item, at, header, items_of, normal, small};
use crate::recording::{Damage, Definitions, Item, ReadError, Source};
use crate::units::MonotonicNs;

fn written(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header()).expect("begins");
    for item in items {
        writer.put(item).expect("takes");
    }
    writer.finish().expect("ends")
}

fn read(bytes: &[u8]) -> Result<Vec<Item>, ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok(items)
}

fn damages(items: &[Item]) -> Vec<&Damage> {
    items.iter().filter_map(|item| if let Item::Damage(damage) = item { Some(damage) } else { None }).collect()
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(items in prop::collection::vec(any_item(), 0..20)) {
        let bytes = written(&items);
        let mut reader = Reader::new(bytes.as_slice()).expect("is a recording");
        prop_assert_eq!(reader.header(), &header());
        prop_assert_eq!(normal(&items_of(&mut reader)), normal(&items));
    }

    /// Anything behind a right head.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), framed in any::<bool>()) {
        let _ = read(&bytes);
        let mut file = super::frame::file_head().to_vec();
        if framed {
            let mut compressor = zstd::bulk::Compressor::new(1).expect("begins");
            for kind in (1..=9).filter_map(super::frame::Kind::of) {
                super::frame::seal(&mut file, kind, &bytes, 0, &mut compressor).expect("seals");
            }
        }
        file.extend(&bytes);
        let _ = read(&file);
    }

    #[test]
    fn several_flipped_bits_do_not_make_it_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..20)) {
        let mut bytes = written(&small(300));
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let _ = read(&bytes);
    }
}

/// Cut at any byte, what is left is a beginning of the whole, and nothing is made up.
#[test]
fn a_file_that_was_cut_off_reads_back() {
    // Frames of their own, as when each was flushed.
    let mut items = Vec::new();
    for item in small(240) {
        match item {
            Item::Events(events) => items.extend(events.chunks(20).map(|chunk| Item::Events(chunk.to_vec()))),
            other => items.push(other),
        }
    }
    let mut writer = Writer::new(Vec::new(), header()).expect("begins");
    for item in &items {
        writer.put(item).expect("takes");
        writer.flush().expect("flushes");
    }
    let bytes = writer.finish().expect("ends");
    // Where nothing is put together when read, each item that is read is one that was written.
    let events = |items: &[Item]| -> usize {
        items.iter().map(|item| if let Item::Events(events) = item { events.len() } else { 0 }).sum()
    };
    let mut longest = 0;
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Ok(read) => {
                assert!(damages(&read).is_empty(), "cut at {len}: {:?}", damages(&read));
                let normal = |items: &[Item]| -> Vec<Item> {
                    items.iter().flat_map(|item| normal(std::slice::from_ref(item))).collect()
                };
                let (read, whole) = (normal(&read), normal(&items));
                assert!(whole.starts_with(&read), "cut at {len}");
                assert!(read.len() >= longest, "cut at {len}: less than of a shorter file");
                longest = read.len();
            }
            Err(ReadError::Foreign { .. }) => assert!(len < super::frame::FILE_HEAD, "cut at {len}"),
            Err(error) => panic!("cut at {len}: {error}"),
        }
    }
    assert_eq!(events(&read(&bytes).expect("reads")), 241);
    assert_eq!(longest, normal(&items).len().max(longest));
}

/// Each single flipped bit is noticed: an error, or the damage is told, and no event that is left has changed.
#[test]
fn a_flipped_bit_is_noticed() {
    let items = small(36);
    let bytes = written(&items);
    let all: Vec<Event> = events_of(&items);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let Ok(read) = read(&flipped) else { continue };
            let damages = damages(&read);
            assert!(!damages.is_empty(), "bit {bit} of byte {at}");
            let left = events_of(&read);
            let missing: u64 = damages.iter().filter_map(|damage| damage.events).sum();
            assert!(left.iter().all(|event| all.contains(event)), "bit {bit} of byte {at}");
            // Where a later frame tells how many there were, none is missing untold.
            if matches!(read.last(), Some(Item::End(_))) {
                assert_eq!(left.len() as u64 + missing, all.len() as u64, "bit {bit} of byte {at}");
            }
        }
    }
}

fn events_of(items: &[Item]) -> Vec<Event> {
    items.iter().flat_map(|item| if let Item::Events(events) = item { events.clone() } else { Vec::new() }).collect()
}

#[test]
fn a_file_of_another_kind_or_time_is_refused() {
    for foreign in
        [&b""[..], b"{\"event\":\"created\"}\n{}", &[0; 4096], b"\x7fELF\x02\x01\x01........................."]
    {
        assert!(matches!(read(foreign), Err(ReadError::Foreign { .. })), "{foreign:?}");
    }
    let mut newer = written(&[]);
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = read(&newer).expect_err("is newer").to_string();
    assert!(error.contains("format version 2") && error.contains("newer gotracer"), "{error}");
}

/// 10,000,000 events, all compared, in memory bounded by a frame.
#[test]
fn ten_million_events_come_back() {
    const COUNT: u64 = 10_000_000;
    let event = |n: u64| {
        let time = 1_000_000 + n * 650 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 400;
        let goid = 1 + n.wrapping_mul(0x2545_f491_4f6c_dd1d) % 20_000;
        at(time, goid, if n.is_multiple_of(2) { Transition::Running } else { Transition::Blocked { reason: 14 } })
    };
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, header()).expect("begins");
    for first in (0..COUNT).step_by(10_000) {
        writer.put(&Item::Events((first..first + 10_000).map(event).collect())).expect("takes");
    }
    writer.finish().expect("ends");
    let mut reader = Reader::new(file.as_slice()).expect("is a recording");
    let mut n = 0;
    while let Some(item) = reader.next().expect("reads") {
        let Item::Events(events) = item else { panic!("{item:?}") };
        for read in events {
            assert_eq!(read, event(n));
            n += 1;
        }
    }
    assert_eq!(n, COUNT);
    assert!(file.len() as u64 <= 8 * COUNT, "{} bytes an event", file.len() as f64 / COUNT as f64);
}

#[test]
fn the_index_leads_to_a_moment() {
    let events: Vec<Event> = (0..200_000).map(|n| at(1_000 + n * 10, n % 50, Transition::Running)).collect();
    let mut items = small(0);
    items.insert(4, Item::Events(events));
    let bytes = written(&items);
    let index = Index::read(&mut Cursor::new(&bytes)).expect("reads").expect("there is one");
    assert!(!index.names().is_empty());
    let time = MonotonicNs(1_000 + 150_000 * 10);
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("is a recording");
    reader.skip_to(time).expect("skips");
    let read = items_of(&mut reader);
    assert!(damages(&read).is_empty(), "{:?}", damages(&read));
    assert!(matches!(read[0], Item::Program(_)) && read.iter().any(|item| matches!(item, Item::Definitions(_))));
    let left = events_of(&read);
    assert!(left[0].time() <= time, "nothing after the moment is passed over");
    assert!(left.len() < 100_000, "{} events were read for the last 50,000", left.len());
    // Without an index all is read.
    let mut reader = Reader::new(Cursor::new(&bytes[..bytes.len() - 1])).expect("is a recording");
    reader.skip_to(time).expect("skips");
    assert_eq!(events_of(&items_of(&mut reader)).len(), 200_001);
}

#[test]
fn a_ring_keeps_the_newest_and_all_names() {
    let mut ring = Ring::new(header(), 20_000, Duration::from_secs(3600)).expect("begins");
    let items = small(0);
    for item in &items[..4] {
        ring.put(item).expect("takes");
    }
    let event = |n: u64| at(5_000 + n * 1_000, n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 999, Transition::Running);
    for first in (0..100_000).step_by(1_000) {
        ring.put(&Item::Events((first..first + 1_000).map(event).collect())).expect("takes");
        ring.flush().expect("flushes");
        assert!(ring.bytes() <= 20_000);
    }
    ring.put(&items[1]).expect("takes");
    for _ in 0..2 {
        let mut file = Vec::new();
        ring.write(&mut file, None).expect("writes");
        let mut reader = Reader::new(file.as_slice()).expect("is a recording");
        assert_eq!(Some(reader.header().started_ns), ring.oldest());
        let read = items_of(&mut reader);
        assert!(damages(&read).is_empty(), "{:?}", damages(&read));
        let events = events_of(&read);
        assert!((1_000..50_000).contains(&events.len()));
        let first = 100_000 - events.len() as u64;
        assert_eq!(events, (first..100_000).map(event).collect::<Vec<_>>());
        assert!(
            read.iter().any(|item| matches!(item, Item::Definitions(Definitions { stacks, .. }) if !stacks.is_empty()))
        );
    }
    // By age: five thousand events of a microsecond each.
    let mut ring = Ring::new(header(), usize::MAX, Duration::from_micros(5_000)).expect("begins");
    for first in (0..100_000).step_by(1_000) {
        ring.put(&Item::Events((first..first + 1_000).map(event).collect())).expect("takes");
        ring.flush().expect("flushes");
    }
    let mut file = Vec::new();
    ring.write(&mut file, None).expect("writes");
    assert_eq!(events_of(&read(&file).expect("reads")).len(), 6_000);
}

#[test]
fn a_table_fed_from_the_file_is_the_table() {
    struct Nothing;
    impl crate::recording::replay::Visitor for Nothing {}
    let items = small(6_000);
    let bytes = written(&items);
    let direct = crate::recording::replay::play(&mut Items::new(&items), &mut Nothing).expect("plays");
    let read = crate::recording::replay::play(&mut Reader::new(bytes.as_slice()).expect("is one"), &mut Nothing);
    let read = read.expect("plays");
    assert_eq!(read.table.totals(), direct.table.totals());
    assert_eq!(read.table.sites(), direct.table.sites());
    assert_eq!((read.events, read.late), (6_000, direct.late));
    assert!(read.is_whole() && direct.table.totals().created == 1_000);
}

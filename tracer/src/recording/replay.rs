//! Items into a table again, and what each event ended.
//!
//! In: a [`Source`]. Out: calls of a [`Visitor`], with the table and the names as they are at that point. Knows nothing of
//! what is made of them.

use crate::events::{Event, Transition};
use crate::goroutines::{Ended, Goroutine, GoroutineTable};
use crate::units::MonotonicNs;

use super::{Damage, End, Header, Item, ReadError, Reading, RecordedNames, Source};

/// What a replay tells. Each has a default that does nothing.
pub trait Visitor {
    /// An event is about to change the table; `before` is its goroutine as it was, if it was known.
    fn event(&mut self, _event: &Event, _before: Option<&Goroutine>, _state: &mut State) {}
    /// A life is over.
    fn ended(&mut self, _ended: &Ended, _state: &mut State) {}
    /// An event has changed the table.
    fn changed(&mut self, _event: &Event, _state: &mut State) {}
    /// A reading of all goroutines has been merged.
    fn reading(&mut self, _reading: &Reading, _state: &mut State) {}
    /// An item has been taken in, of any kind, its events included.
    fn item(&mut self, _item: &Item, _state: &mut State) {}
}

/// A table with its names.
pub struct State {
    /// The goroutines.
    pub table: GoroutineTable,
    /// The names.
    pub names: RecordedNames,
    /// From when on all is seen.
    pub started: MonotonicNs,
    /// The newest time that any item spoke of.
    pub newest: MonotonicNs,
    /// The end, once it came.
    pub end: Option<End>,
    /// What was damaged.
    pub damages: Vec<Damage>,
    /// So many more were damaged.
    pub more_damages: u64,
    /// Events so far, losses not counted.
    pub events: u64,
    /// Events so far that follow one with a later time.
    pub late: u64,
    over: Vec<Ended>,
}

/// So many damages are told of.
const DAMAGES: usize = 100;

impl State {
    /// Nothing yet, of the recording with this header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            table: GoroutineTable::new(header.pid),
            names: RecordedNames::default(),
            started: header.started_ns,
            newest: header.started_ns,
            end: None,
            damages: Vec::new(),
            more_damages: 0,
            events: 0,
            late: 0,
            over: Vec::new(),
        }
    }

    /// Whether the recording has its regular end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.end.is_some() && self.damages.is_empty()
    }

    /// Takes in one item.
    pub fn take(&mut self, item: &Item, visitor: &mut impl Visitor) {
        self.names.take(item);
        match item {
            Item::Events(events) => {
                for event in events {
                    self.step(event, visitor);
                }
            }
            Item::ReadingBegun(time) => self.table.begin_snapshot(*time),
            Item::Reading(reading) => {
                let (from, to) = (reading.taken_from, reading.taken_to);
                let over = &mut self.over;
                let keep = |ended: &Ended| over.push(ended.clone());
                let merged = self.table.merge_snapshot_with(from, to, &reading.entries(), reading.coverage, keep);
                self.tell_ends(visitor);
                if let Err(why) = merged {
                    log::info!("a reading in the recording was not used: {why}");
                }
                self.newest = self.newest.max(reading.taken_to);
                visitor.reading(reading, self);
            }
            Item::End(end) => {
                self.newest = self.newest.max(end.time_ns);
                self.end = Some(end.clone());
            }
            Item::Damage(damage) => {
                if let Some(loss) = damage.as_loss(self.newest) {
                    self.step(&loss, visitor);
                }
                if self.damages.len() < DAMAGES {
                    self.damages.push(damage.clone());
                } else {
                    self.more_damages += 1;
                }
            }
            Item::Program(_) | Item::Definitions(_) | Item::Detail { .. } => {}
        }
        visitor.item(item, self);
    }

    fn tell_ends(&mut self, visitor: &mut impl Visitor) {
        if self.over.is_empty() {
            return;
        }
        let mut over = std::mem::take(&mut self.over);
        for ended in &over {
            visitor.ended(ended, self);
        }
        over.clear();
        self.over = over;
    }

    fn step(&mut self, event: &Event, visitor: &mut impl Visitor) {
        let time = event.time();
        match event {
            Event::Lost { .. } => {}
            Event::Goroutine { .. } | Event::Exec { .. } => {
                self.events += 1;
                self.late += u64::from(time < self.newest);
            }
        }
        let before = match event {
            Event::Goroutine { goid, .. } => self.table.get(*goid),
            Event::Exec { .. } | Event::Lost { .. } => None,
        };
        visitor.event(event, before.as_ref(), self);
        let over = &mut self.over;
        self.table.apply_with(event, |ended| over.push(ended.clone()));
        self.newest = self.newest.max(time);
        self.tell_ends(visitor);
        visitor.changed(event, self);
    }
}

/// Plays a whole recording.
///
/// # Errors
///
/// If it cannot be read.
pub fn play(source: &mut impl Source, visitor: &mut impl Visitor) -> Result<State, ReadError> {
    let mut state = State::new(source.header());
    while let Some(item) = source.next()? {
        state.take(&item, visitor);
    }
    Ok(state)
}

/// Whether an event ends what a goroutine did before, and does not merely go on with it.
#[must_use]
pub fn changes_state(transition: Transition, before: &Goroutine) -> bool {
    !matches!((transition, before.state), (Transition::Running, crate::goroutines::State::Running))
}

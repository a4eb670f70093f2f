//! The words that Go's traceback prints between the parentheses of a call.
//!
//! In: the frames of a walk, and the words of its stack. Out: for each frame that a traceback may show, its argument words;
//! later, with the function's table, their text. Read only where they are asked for: they differ from goroutine to
//! goroutine where stacks are equal, and take more memory than all else that is known of one.

use std::rc::Rc;

use hashbrown::HashMap;

use super::{Source, StackState};
use crate::binary::{Argument, Binary, Function};
use crate::units::{Pc, RemoteAddr};

/// So many program counters are remembered.
const KNOWN_LIMIT: usize = 1 << 20;
/// A frame's words are kept behind its number, of which this is the unit.
const FRAME_UNIT: u64 = 1 << 8;

/// Argument words of many goroutines.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    /// Per goroutine and frame: the frame's number times [`FRAME_UNIT`] plus the number of words, then the words.
    words: Vec<u64>,
    /// By address of the g: where its words begin and end.
    ranges: HashMap<RemoteAddr, (u32, u32)>,
}

impl Arguments {
    pub(super) fn absorb(&mut self, other: Self) {
        let base = self.words.len() as u32;
        self.words.extend(other.words);
        let moved = other.ranges.into_iter().map(|(g, (start, end))| (g, (start + base, end + base)));
        self.ranges.extend(moved);
    }

    /// The words of the frame with that number among the program counters of its stack.
    pub(super) fn of_frame(&self, g: RemoteAddr, frame: usize) -> Option<&[u64]> {
        let &(start, end) = self.ranges.get(&g)?;
        let mut left = self.words.get(start as usize..end as usize)?;
        while let Some((&head, rest)) = left.split_first() {
            let (words, behind) = rest.split_at_checked((head % FRAME_UNIT) as usize)?;
            if head / FRAME_UNIT == frame as u64 {
                return Some(words);
            }
            left = behind;
        }
        None
    }
}

/// The places of one function's argument words.
#[derive(Clone)]
struct Places {
    /// Offset and size of each.
    words: Rc<[(u8, u8)]>,
    /// One of the runtime's own, which a traceback shows only where it has nothing else to show.
    hidden: bool,
}

/// Collects the words of one goroutine after the other.
pub(super) struct Collector<'a> {
    source: &'a Source<'a>,
    places: HashMap<Pc, Places>,
    pub(super) found: Arguments,
}

impl<'a> Collector<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Self { source, places: HashMap::new(), found: Arguments::default() }
    }

    /// Keeps the words of the goroutine at `g`, whose frames stand at `pcs` and end at `tops`. `word` reads eight bytes of
    /// its stack, which ends at `hi`.
    pub(super) fn collect(
        &mut self,
        g: RemoteAddr,
        pcs: &[Pc],
        tops: &[u64],
        hi: u64,
        mut word: impl FnMut(u64) -> Option<u64>,
    ) {
        let start = self.found.words.len();
        // u32 counts 32 GiB of words; a machine that holds more has other worries.
        let Ok(first) = u32::try_from(start) else { return };
        let all_hidden = pcs.iter().all(|pc| self.places(*pc).hidden);
        let beyond = u64::from(self.source.binary.arch().min_frame_bytes());
        for (frame, (pc, top)) in pcs.iter().zip(tops).enumerate() {
            let places = self.places(*pc);
            if places.words.is_empty() || (places.hidden && !all_hidden) {
                continue;
            }
            self.found.words.push(frame as u64 * FRAME_UNIT + places.words.len() as u64);
            for &(offset, bytes) in &*places.words {
                let at = top.wrapping_add(beyond).wrapping_add(u64::from(offset));
                // The last bytes of a stack are not eight: read those that end with it.
                let before = at.wrapping_add(8).saturating_sub(hi).min(7);
                let value = word(at.wrapping_sub(before)).unwrap_or_default() >> (8 * before);
                let unused = 64 - 8 * u32::from(bytes.clamp(1, 8));
                self.found.words.push(value << unused >> unused);
            }
        }
        if let Ok(end) = u32::try_from(self.found.words.len())
            && end > first
        {
            self.found.ranges.insert(g, (first, end));
        }
    }

    fn places(&mut self, pc: Pc) -> Places {
        if let Some(known) = self.places.get(&pc) {
            return known.clone();
        }
        let function = self.source.binary.functions().find(pc);
        let arguments = function.as_ref().and_then(Function::arguments).unwrap_or_default();
        let words = arguments.iter().filter_map(|argument| match argument {
            Argument::Word { offset, bytes } => Some((*offset, *bytes)),
            _ => None,
        });
        let hidden = function.is_some_and(|function| is_hidden(function.name()));
        let places = Places { words: words.collect(), hidden };
        if self.places.len() < KNOWN_LIMIT {
            self.places.insert(pc, places.clone());
        }
        places
    }
}

/// Whether it is plain that no traceback shows it beside others: see [`super::Symbols`]. In doubt it is not.
fn is_hidden(name: &str) -> bool {
    let rest = name.strip_prefix("runtime.");
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()) && !rest.contains('.'))
        && !matches!(name, "runtime.gopanic" | "runtime.runFinalizers" | "runtime.runCleanups")
}

/// `printArgs`: the arguments of the function around `at` as Go prints them, of those words. `at` is where it stands: of a
/// call, the call. `...` where the words are not known.
pub(super) fn text(binary: &Binary, at: Pc, words: Option<&[u64]>) -> String {
    let Some(function) = binary.functions().find(at) else { return "...".to_owned() };
    let Some(arguments) = function.arguments() else { return String::new() };
    let live = function.live_arguments(at);
    let mut words = words.unwrap_or_default().iter();
    let (mut text, mut first, mut counted) = (String::new(), true, 0_u8);
    for argument in arguments {
        if !first && argument != Argument::Close {
            text.push_str(", ");
        }
        first = argument == Argument::Open;
        match argument {
            Argument::Open => text.push('{'),
            Argument::Close => text.push('}'),
            Argument::More => text.push_str("..."),
            Argument::TooFar => text.push('_'),
            Argument::Word { offset, .. } => {
                let Some(word) = words.next() else { return "...".to_owned() };
                text.push_str(&format!("{word:#x}"));
                if !live.is_live(offset, counted) {
                    text.push('?');
                }
                counted += u8::from(live.is_counted(offset));
            }
        }
    }
    text
}

impl super::Snapshot {
    /// The argument words of a frame of `goroutine`, one of this snapshot, by its place among the program counters of its
    /// stack. `None` if they were not asked for, or the frame has none.
    #[must_use]
    pub fn arguments(&self, goroutine: &super::Goroutine, frame: usize) -> Option<&[u64]> {
        match goroutine.stack {
            StackState::Read(_) => self.arguments.of_frame(goroutine.address, frame),
            StackState::Running | StackState::Moved => None,
        }
    }

    /// Whether argument words were asked for.
    #[must_use]
    pub fn has_arguments(&self) -> bool {
        self.with_arguments
    }
}

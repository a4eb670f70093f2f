//! The goroutines of one row, in the order asked for.
//!
//! In: the table, whose goroutines are gone through once a tick. Out: any window of the sorted list, of which only the
//! window is ever sorted: 100,000 goroutines cost a selection, not a sort.

use super::StateKind;
use super::columns::Column;
use super::reasons::Reasons;
use super::rows::RowKey;
use super::sites::Sites;
use crate::goroutines::{Goroutine, GoroutineTable, SiteId, State};
use crate::units::Goid;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct MemberQuery {
    pub of: RowKey,
    pub sort: Column,
    /// Largest first.
    pub descending: bool,
    /// Words that id, state and reason must contain.
    pub filter: String,
    /// By reason and by state: the runtime's own too.
    pub system: bool,
}

/// Goroutines with what they are sorted by: smallest first, whatever the order asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    entries: Vec<(u64, Goid)>,
}

impl Members {
    /// Those of `table` that `query` asks for.
    pub(super) fn collect(table: &GoroutineTable, sites: &Sites, reasons: &Reasons, query: &MemberQuery) -> Self {
        let of_site: Vec<bool> = (0..table.sites().len())
            .map(|index| {
                let id = SiteId(index as u32);
                match &query.of {
                    RowKey::Site(wanted) => *wanted == id,
                    RowKey::Start(start) => sites.get(id).is_some_and(|site| site.start == *start),
                    RowKey::Reason(_) | RowKey::State(_) => query.system || !sites.is_system(id),
                }
            })
            .collect();
        let filter = Filter::new(&query.filter, reasons);
        let wanted = |g: &Goroutine| {
            of_site.get(g.site.0 as usize).copied().unwrap_or_default()
                && match (&query.of, g.state) {
                    (RowKey::Reason(wanted), State::Blocked { reason }) => *wanted == reason,
                    (RowKey::Reason(_), _) => false,
                    (RowKey::State(wanted), state) => *wanted == StateKind::of(state),
                    (RowKey::Site(_) | RowKey::Start(_), _) => true,
                }
                && filter.wants(g)
        };
        let entries = table.iter().filter(wanted).map(|g| (key(query, &g), g.goid)).collect();
        Self { entries }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The place of `goid` in the order; `None` if it is not there.
    pub(super) fn rank(&self, goid: Goid) -> Option<usize> {
        let own = self.entries.iter().find(|(_, other)| *other == goid)?;
        Some(self.entries.iter().filter(|entry| *entry < own).count())
    }

    /// The goroutines at the places from `from` on, `count` at most.
    pub(super) fn window(&mut self, from: usize, count: usize) -> Vec<Goid> {
        let to = from.saturating_add(count).min(self.entries.len());
        if from >= to {
            return Vec::new();
        }
        let (_, _, behind) = self.entries.select_nth_unstable(from);
        if to - from - 1 < behind.len() {
            behind.select_nth_unstable(to - from - 1);
        }
        let Some(window) = self.entries.get_mut(from..to) else { return Vec::new() };
        window.sort_unstable();
        window.iter().map(|(_, goid)| *goid).collect()
    }
}

fn key(query: &MemberQuery, g: &Goroutine) -> u64 {
    let state = |state: State| match state {
        State::Running => 0,
        State::Runnable => 1,
        State::Blocked { reason } => 2 + u64::from(reason),
    };
    // What grows with the figure that is shown.
    let figure = match query.sort {
        Column::InState => !g.since.0,
        Column::Age => !g.created.0,
        Column::ParkCount => g.parks,
        Column::Parent => g.parent.0,
        Column::State => state(g.state),
        _ => g.goid.0,
    };
    if query.descending { !figure } else { figure }
}

/// The words of a filter, looked up once for each reason.
struct Filter {
    words: Vec<Word>,
}

struct Word {
    text: String,
    /// Reasons whose name contains it.
    reasons: Vec<bool>,
}

impl Filter {
    fn new(filter: &str, reasons: &Reasons) -> Self {
        let word = |text: &str| {
            let text = text.to_lowercase();
            let reasons = (0..=u8::MAX).map(|reason| reasons.name(reason).to_lowercase().contains(&text)).collect();
            Word { text, reasons }
        };
        Self { words: filter.split_whitespace().map(word).collect() }
    }

    fn wants(&self, g: &Goroutine) -> bool {
        self.words.iter().all(|word| {
            let by_reason = match g.state {
                State::Blocked { reason } => word.reasons.get(usize::from(reason)).copied().unwrap_or_default(),
                State::Runnable | State::Running => false,
            };
            by_reason || StateKind::of(g.state).name().contains(&word.text) || g.goid.to_string().contains(&word.text)
        })
    }
}

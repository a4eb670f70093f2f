//! The columns of the two tables: what they are called, how wide they are, by what they can be sorted, and which of them
//! there is room for.

use super::rows::GroupBy;

/// Something that a row shows and that rows can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// Goroutines that live.
    Live,
    /// Of them, blocked.
    Blocked,
    /// Of them, running or about to.
    Running,
    /// Growth a second over the last 30 ticks.
    Net,
    /// Created a second.
    Born,
    /// Ended a second.
    Died,
    /// Parks a second.
    Parks,
    /// Age of the oldest; by reason and by state, the longest in it.
    Oldest,
    /// Bytes of stack held.
    Stack,
    /// The course of the live ones.
    Trend,
    /// What most of them wait for.
    Waits,
    /// What the row is about.
    Name,
    /// The function that runs.
    Runs,
    /// Of one goroutine: its id.
    Goid,
    /// Its state.
    State,
    /// How long it has been in it.
    InState,
    /// Its age.
    Age,
    /// How often it parked.
    ParkCount,
    /// The goroutine that started it.
    Parent,
    /// Where it stands.
    At,
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub column: Column,
    pub title: &'static str,
    pub width: u16,
    /// Shown from this width of the table on.
    pub from: u16,
    /// Numbers stand at the right.
    pub right: bool,
    pub sortable: bool,
}

const fn number(column: Column, title: &'static str, width: u16, from: u16) -> Spec {
    Spec { column, title, width, from, right: true, sortable: true }
}

const fn text(column: Column, title: &'static str, width: u16, from: u16) -> Spec {
    Spec { column, title, width, from, right: false, sortable: true }
}

const fn picture(column: Column, title: &'static str, width: u16, from: u16) -> Spec {
    Spec { column, title, width, from, right: false, sortable: false }
}

/// Width 0: what is left.
const GROUPS: &[Spec] = &[
    number(Column::Live, "LIVE", 8, 0),
    number(Column::Net, "NET/s", 6, 0),
    number(Column::Born, "BORN/s", 6, 0),
    number(Column::Died, "DIED/s", 6, 100),
    number(Column::Blocked, "BLOCKED", 8, 110),
    number(Column::Running, "RUNNING", 7, 130),
    number(Column::Parks, "PARKS/s", 7, 120),
    number(Column::Stack, "STACKS", 6, 116),
    number(Column::Oldest, "OLDEST", 7, 70),
    picture(Column::Trend, "TREND", 16, 150),
    text(Column::Waits, "WAITS FOR", 14, 76),
    text(Column::Name, "CREATED AT", 0, 0),
    text(Column::Runs, "RUNS", 36, 170),
];

pub(super) const MEMBERS: &[Spec] = &[
    number(Column::Goid, "GOID", 9, 0),
    text(Column::State, "STATE", 20, 0),
    number(Column::InState, "FOR", 7, 0),
    number(Column::Age, "AGE", 7, 56),
    number(Column::ParkCount, "PARKS", 8, 90),
    number(Column::Parent, "PARENT", 9, 100),
    picture(Column::At, "STANDS AT", 0, 64),
];

/// The columns of the groups, of those that make sense for `by`.
pub(super) fn of_groups(by: GroupBy) -> Vec<Spec> {
    let makes_sense = |column: Column| match by {
        GroupBy::Site => true,
        GroupBy::Start => column != Column::Runs,
        GroupBy::Reason => matches!(column, Column::Live | Column::Parks | Column::Oldest | Column::Name),
        GroupBy::State => matches!(column, Column::Live | Column::Oldest | Column::Name),
    };
    GROUPS.iter().copied().filter(|spec| makes_sense(spec.column)).collect()
}

/// Whether the largest come first when somebody sorts by it.
pub(super) fn is_figure(column: Column) -> bool {
    GROUPS.iter().chain(MEMBERS).any(|spec| spec.column == column && spec.right)
}

/// The columns for which a table of `width` has room, with their left end and width. A blank stands between two.
pub(super) fn fitting(specs: &[Spec], width: u16) -> Vec<(Spec, u16, u16)> {
    let shown: Vec<Spec> = specs.iter().copied().filter(|spec| spec.from <= width).collect();
    let fixed: u16 = shown.iter().map(|spec| spec.width + 1).sum();
    let rest = width.saturating_sub(fixed);
    let mut at = 0;
    let mut placed = Vec::new();
    for spec in shown {
        let own = if spec.width == 0 { rest } else { spec.width };
        let own = own.min(width.saturating_sub(at));
        if own > 0 {
            placed.push((spec, at, own));
        }
        at = at.saturating_add(own + 1);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_overlap_and_names_have_room() {
        for width in 40..300 {
            for specs in GroupBy::ALL.map(of_groups).iter().map(Vec::as_slice).chain([MEMBERS]) {
                let placed = fitting(specs, width);
                for pair in placed.windows(2) {
                    assert!(pair[0].1 + pair[0].2 < pair[1].1, "width {width}: {pair:?}");
                }
                assert!(placed.iter().all(|(_, at, own)| at + own <= width));
                let name = placed.iter().find(|(spec, ..)| matches!(spec.column, Column::Name | Column::At));
                if width >= 80 {
                    assert!(name.is_some_and(|(_, _, own)| *own >= 24), "width {width}: {name:?}");
                }
            }
        }
    }
}

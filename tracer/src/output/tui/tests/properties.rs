//! Whatever somebody does, in whatever order and size: there is a picture, and it is right where that can be said.

use proptest::prelude::*;

use super::fixture::{Fixture, PLAIN};
use crate::events::{Event, LossCause, Transition};
use crate::output::tui::{Action, Column, Motion, Pane};
use crate::units::MonotonicNs;

#[derive(Clone, Debug)]
enum Step {
    Act(Action),
    Second,
    Diagnose,
    Read,
    Exec,
    Lose,
    End(u64),
}

fn actions() -> impl Strategy<Value = Action> {
    let columns = prop_oneof![
        Just(Column::Live),
        Just(Column::Net),
        Just(Column::Oldest),
        Just(Column::Name),
        Just(Column::Goid),
        Just(Column::State),
        Just(Column::ParkCount),
        Just(Column::Waits)
    ];
    prop_oneof![
        1 => Just(Action::Back),
        3 => Just(Action::Enter),
        2 => (-5isize..5).prop_map(|rows| Action::Go(Motion::By(rows))),
        1 => (-2isize..3).prop_map(|pages| Action::Go(Motion::Pages(pages))),
        1 => Just(Action::Go(Motion::First)),
        1 => Just(Action::Go(Motion::Last)),
        1 => any::<bool>().prop_map(Action::TurnPane),
        1 => prop_oneof![Just(Pane::Goroutines), Just(Pane::Findings), Just(Pane::Memory)].prop_map(Action::Show),
        1 => Just(Action::Help),
        1 => Just(Action::Filter),
        1 => Just(Action::GroupMenu),
        1 => Just(Action::SortMenu),
        1 => columns.prop_map(Action::SortBy),
        1 => Just(Action::Invert),
        1 => Just(Action::Pause),
        1 => Just(Action::System),
        1 => Just(Action::Paths),
        1 => any::<bool>().prop_map(Action::Faster),
        1 => any::<char>().prop_map(Action::Type),
        1 => "[a-z ]".prop_map(|text| Action::Type(text.chars().next().unwrap_or(' '))),
        1 => Just(Action::Erase),
        1 => (0usize..12).prop_map(Action::Choose),
        2 => (0u16..220, 0u16..60).prop_map(|(x, y)| Action::Click { x, y }),
        1 => (1u16..220, 1u16..60).prop_map(|(width, height)| Action::Resize { width, height }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => actions().prop_map(Step::Act),
        2 => Just(Step::Second),
        1 => Just(Step::Diagnose),
        1 => Just(Step::Read),
        1 => (1u64..60).prop_map(Step::End),
    ]
}

fn rare() -> impl Strategy<Value = Step> {
    prop_oneof![30 => steps(), 1 => Just(Step::Exec), 1 => Just(Step::Lose)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn there_is_always_a_picture(steps in prop::collection::vec(rare(), 1..60)) {
        let mut fixture = Fixture::after(2, (80, 24));
        for step in steps {
            match step {
                Step::Act(action) => fixture.act([action]),
                Step::Second => fixture.second(),
                Step::Diagnose => fixture.diagnose(),
                Step::Read => fixture.read_stacks(),
                Step::End(goid) => fixture.event(goid, Transition::Exited),
                Step::Exec => {
                    let time = MonotonicNs(fixture.state.now.0 + 1);
                    fixture.events(&[Event::Exec { time, pid: super::fixture::PID }]);
                }
                Step::Lose => {
                    let time = MonotonicNs(fixture.state.now.0 + 1);
                    fixture.events(&[Event::Lost { time, cpu: 0, count: 3, cause: LossCause::BufferFull }]);
                }
            }
            let picture = fixture.draw(PLAIN);
            let (width, height) = fixture.state.size;
            prop_assert_eq!((picture.area.width, picture.area.height), (width, height));
            for (area, _) in &fixture.state.hits {
                prop_assert!(area.right() <= width && area.bottom() <= height, "{:?} in {}x{}", area, width, height);
            }
            // No row is shown twice, and the selected one is among them.
            let keys: hashbrown::HashSet<_> = fixture.state.rows.iter().map(|row| &row.key).collect();
            prop_assert_eq!(keys.len(), fixture.state.rows.len());
            prop_assert!(fixture.state.groups.at <= fixture.state.rows.len().saturating_sub(1));
            if let Some(inside) = &fixture.state.inside {
                let goids: hashbrown::HashSet<_> = inside.window.iter().map(|(goid, _)| goid).collect();
                prop_assert_eq!(goids.len(), inside.window.len());
            }
        }
    }

    /// Any window of the list is what a sort of all would give there.
    #[test]
    fn windows_are_parts_of_the_sorted_list(from in 0usize..140, count in 0usize..40, descending in any::<bool>()) {
        use crate::output::tui::members::{MemberQuery, Members};
        use crate::output::tui::rows::RowKey;
        use crate::output::tui::StateKind;
        let fixture = Fixture::after(7, (80, 24));
        let (sites, reasons) = (&fixture.state.sites, &fixture.state.reasons);
        for sort in [Column::Goid, Column::Age, Column::InState, Column::State, Column::ParkCount] {
            let query = MemberQuery {
                of: RowKey::State(StateKind::Blocked),
                sort,
                descending,
                filter: String::new(),
                system: false,
            };
            let mut members = Members::collect(&fixture.table, sites, reasons, &query);
            let length = members.len();
            prop_assert_eq!(length, 3 + 7 * 18);
            let all = members.window(0, length);
            let window = members.window(from, count);
            prop_assert_eq!(&window[..], all.get(from.min(length)..(from + count).min(length)).unwrap_or_default());
            if let Some(goid) = window.first() {
                prop_assert_eq!(members.rank(*goid), Some(from));
            }
        }
    }
}

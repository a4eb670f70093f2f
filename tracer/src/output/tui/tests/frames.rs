//! Frames against golden files in `frames/`. `GOTRACER_BLESS=1 cargo test -p gotracer tui` writes them anew; then look at
//! what has changed.

use std::path::Path;

use ratatui::style::{Color, Modifier};

use super::fixture::{Fixture, PLAIN};
use crate::events::Transition;
use crate::output::tui::{Action, Column, GroupBy, Look, Motion, Pane};

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn check(name: &str, (width, height): (u16, u16), frame: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/output/tui/tests/frames")
        .join(format!("{name}-{width}x{height}.txt"));
    if std::env::var_os("GOTRACER_BLESS").is_some() {
        std::fs::write(&path, frame).expect("the golden file can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(frame == golden, "{} differs; the frame is now\n{frame}", path.display());
}

/// The service after 20 seconds, in each size, after `actions`.
fn each_size(name: &str, prepare: impl Fn(&mut Fixture)) {
    for size in SIZES {
        let mut fixture = Fixture::after(20, size);
        fixture.diagnose();
        fixture.read_stacks();
        prepare(&mut fixture);
        check(name, size, &fixture.frame(PLAIN));
    }
}

fn type_filter(text: &str) -> Vec<Action> {
    std::iter::once(Action::Filter).chain(text.chars().map(Action::Type)).collect()
}

#[test]
fn groups() {
    each_size("groups", |_| {});
    each_size("groups-by-start", |fixture| fixture.state.arrange(GroupBy::Start, None, None));
    each_size("groups-by-reason", |fixture| fixture.act([Action::GroupMenu, Action::Choose(2)]));
    each_size("groups-by-state", |fixture| fixture.act([Action::GroupMenu, Action::Choose(3)]));
    each_size("groups-with-system", |fixture| fixture.act([Action::System, Action::SortBy(Column::Name)]));
}

#[test]
fn before_the_first_look() {
    for size in SIZES {
        let mut fixture = Fixture::after(0, size);
        fixture.state.ticks = 0;
        fixture.state.rows.clear();
        check("empty", size, &fixture.frame(PLAIN));
    }
}

#[test]
fn filter() {
    each_size("filter-typed", |fixture| fixture.act(type_filter("MAIN.go")));
    each_size("filter-kept", |fixture| {
        fixture.act(type_filter("main sub"));
        fixture.act([Action::Enter]);
    });
    each_size("filter-fits-nothing", |fixture| fixture.act(type_filter("zebra")));
}

#[test]
fn menus_and_help() {
    each_size("menu-group", |fixture| fixture.act([Action::GroupMenu]));
    each_size("menu-sort", |fixture| fixture.act([Action::SortMenu, Action::Go(Motion::By(1))]));
    each_size("help", |fixture| fixture.act([Action::Help]));
    each_size("help-further", |fixture| fixture.act([Action::Help, Action::Go(Motion::Last)]));
}

#[test]
fn members() {
    let open = [Action::Go(Motion::First), Action::Enter];
    each_size("members", |fixture| fixture.act(open));
    each_size("members-last", |fixture| {
        fixture.act(open);
        fixture.act([Action::Go(Motion::Last)]);
    });
    each_size("members-second-site", |fixture| fixture.act([Action::Go(Motion::By(1)), Action::Enter]));
}

#[test]
fn one_goroutine() {
    let watch = |fixture: &mut Fixture| {
        fixture.act([Action::Enter, Action::Enter]);
        let goid = 6;
        for _ in 0..3 {
            fixture.event(goid, Transition::Running);
            fixture.event(goid, Transition::Blocked { reason: 1 });
        }
        fixture.second();
    };
    each_size("goroutine", watch);
    each_size("goroutine-ended", |fixture| {
        watch(fixture);
        fixture.event(6, Transition::Running);
        fixture.event(6, Transition::Exited);
        fixture.second();
    });
}

#[test]
fn proven_to_be_leaked() {
    let open = [Action::Go(Motion::First), Action::Enter];
    each_size("leaked-groups", Fixture::prove);
    each_size("leaked-members", |fixture| {
        fixture.prove();
        fixture.act(open);
    });
    each_size("leaked-goroutine", |fixture| {
        fixture.prove();
        fixture.act(open);
        fixture.act([Action::Go(Motion::Last), Action::Enter]);
    });
    each_size("leaked-findings", |fixture| {
        fixture.prove();
        fixture.act([Action::Show(Pane::Findings)]);
    });
}

#[test]
fn findings_and_memory() {
    each_size("findings", |fixture| fixture.act([Action::Show(Pane::Findings)]));
    each_size("findings-second", |fixture| {
        fixture.act([Action::Show(Pane::Findings), Action::Go(Motion::By(1))]);
    });
    each_size("memory", |fixture| fixture.act([Action::Show(Pane::Memory)]));
}

#[test]
fn paused_and_ended() {
    each_size("paused", |fixture| {
        fixture.act([Action::Pause]);
        // What happens now is not shown.
        fixture.second();
    });
    each_size("ended", |fixture| fixture.state.end("the process exited".to_owned()));
}

#[test]
fn too_small() {
    let mut fixture = Fixture::after(1, (40, 10));
    check("too-small", (40, 10), &fixture.frame(PLAIN));
}

#[test]
fn the_least_size() {
    let mut fixture = Fixture::after(20, (60, 16));
    fixture.diagnose();
    check("least", (60, 16), &fixture.frame(PLAIN));
}

#[test]
fn without_unicode_all_is_ascii() {
    let mut fixture = Fixture::after(20, (80, 24));
    fixture.diagnose();
    let look = Look { unicode: false, ..PLAIN };
    let mut frames = vec![fixture.frame(look)];
    for actions in [vec![Action::GroupMenu], vec![Action::Back, Action::Enter], vec![Action::Enter]] {
        fixture.act(actions);
        frames.push(fixture.frame(look));
    }
    check("ascii", (80, 24), &frames[0]);
    for frame in frames {
        assert!(frame.is_ascii(), "{frame}");
    }
}

#[test]
fn without_colours_there_are_none_and_the_selection_is_reversed() {
    let mut fixture = Fixture::after(20, (200, 50));
    fixture.diagnose();
    let coloured = fixture.draw(Look { colour: true, ..PLAIN });
    assert!(coloured.content.iter().any(|cell| cell.fg != Color::Reset));
    let plain = fixture.draw(PLAIN);
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let first_row = (0..50).find(|y| plain.cell((40, *y)).is_some_and(|c| c.modifier.contains(Modifier::REVERSED)));
    assert!(first_row.is_some());
}

/// Names are read from binaries: what they hold must not reach the terminal as more than text.
#[test]
fn hostile_names_do_nothing() {
    let mut fixture = Fixture::after(1, (80, 24));
    let created = Transition::Created {
        parent: crate::units::Goid(1),
        gopc: crate::units::RemoteAddr(super::fixture::HOSTILE),
        startpc: crate::units::RemoteAddr(1),
    };
    fixture.event(1_000, created);
    fixture.second();
    for actions in [vec![Action::SortBy(Column::Name)], vec![Action::Paths], vec![Action::Enter], vec![Action::Enter]] {
        fixture.act(actions);
        for (width, height) in [(60, 16), (80, 24), (200, 50)] {
            fixture.act([Action::Resize { width, height }]);
            let frame = fixture.frame(PLAIN);
            assert!(frame.contains("4294967295") || !frame.contains("main.x"), "{frame}");
            assert!(frame.chars().all(|c| c == '\n' || !c.is_control()), "{frame:?}");
        }
    }
}

#[test]
fn clicks_do_what_keys_do() {
    let mut fixture = Fixture::after(20, (80, 24));
    fixture.frame(PLAIN);
    let find = |frame: &str, text: &str| -> Action {
        let (y, line) = frame.lines().enumerate().find(|(_, line)| line.contains(text)).expect("it is on the screen");
        let x = line.split(text).next().unwrap_or_default().chars().count();
        Action::Click { x: x as u16, y: y as u16 }
    };
    // A row: once to select, once more to open.
    let click = find(&fixture.frame(PLAIN), "main.subscribe");
    fixture.act([click]);
    assert_eq!(fixture.state.groups.at, 2);
    fixture.act([click]);
    assert!(fixture.frame(PLAIN).contains("main.go:84: 20 goroutines"));
    // The way back, a title, a key, a tab.
    let click = find(&fixture.frame(PLAIN), "\u{25c2}");
    fixture.act([click]);
    let click = find(&fixture.frame(PLAIN), "BORN/s");
    fixture.act([click]);
    assert_eq!((fixture.state.query.sort, fixture.state.query.descending), (Column::Born, true));
    fixture.act([click]);
    assert!(!fixture.state.query.descending);
    let click = find(&fixture.frame(PLAIN), "3 Memory");
    fixture.act([click]);
    assert!(fixture.frame(PLAIN).contains("GOMEMLIMIT"));
    let click = find(&fixture.frame(PLAIN), "Help");
    fixture.act([click]);
    assert!(fixture.frame(PLAIN).contains("whole paths of source files"));
}

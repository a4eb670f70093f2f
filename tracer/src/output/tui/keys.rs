//! Keys and mouse to actions. Knows what kind of thing is open, and nothing else.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind};

use super::columns::Column;
use super::cursor::Motion;
use super::state::Pane;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To end.
    Quit,
    /// Out of what is open; where nothing is, nothing.
    Back,
    /// Into what is selected.
    Enter,
    /// To another row.
    Go(Motion),
    /// To the next pane (or, with `false`, the one before).
    TurnPane(bool),
    /// To this pane.
    Show(Pane),
    /// The keys explained.
    Help,
    /// To type a filter.
    Filter,
    /// The menu of groups.
    GroupMenu,
    /// The menu of columns to sort by.
    SortMenu,
    /// This column, or, if it is this one already, the other way round.
    SortBy(Column),
    /// The other way round.
    Invert,
    /// To stand still, or to go on.
    Pause,
    /// With or without the runtime's own goroutines.
    System,
    /// Paths in full, or the last parts.
    Paths,
    /// A look at a shorter (`true`) or a longer interval.
    Faster(bool),
    /// To draw everything anew.
    Redraw,
    /// A character of what is typed.
    Type(char),
    /// Without the last character of what was typed.
    Erase,
    /// Without all of it.
    EraseAll,
    /// The entry of this number, from 0, of what is listed.
    Choose(usize),
    /// A click on this cell.
    Click {
        /// Column.
        x: u16,
        /// Row.
        y: u16,
    },
    /// The terminal has this size now.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What takes the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The panes.
    Panes,
    /// A line that is typed.
    Input,
    /// A menu, or the help.
    Menu,
}

/// Rows that a turn of the wheel goes.
const WHEEL: isize = 3;

/// The keys of one event, in the order in which they were pressed.
///
/// A terminal tells Alt and a key as the two bytes of Escape and that key. Over a slow line Escape and what is pressed next come
/// together and look like it, and Alt means nothing here.
#[must_use]
pub fn apart(event: Event) -> [Option<Event>; 2] {
    match event {
        Event::Key(key)
            if key.modifiers.contains(KeyModifiers::ALT) && matches!(key.code, KeyCode::Char(_) | KeyCode::Enter) =>
        {
            let escape = KeyEvent { code: KeyCode::Esc, modifiers: KeyModifiers::NONE, ..key };
            let second = KeyEvent { modifiers: key.modifiers - KeyModifiers::ALT, ..key };
            [Some(Event::Key(escape)), Some(Event::Key(second))]
        }
        event => [Some(event), None],
    }
}

/// What an event of the terminal asks for; `None` for nothing.
#[must_use]
pub fn action(event: &Event, focus: Focus) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => match focus {
            Focus::Input => typed(key),
            Focus::Menu => in_menu(key),
            Focus::Panes => in_panes(key),
        },
        Event::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => Some(Action::Click { x: mouse.column, y: mouse.row }),
            MouseEventKind::Down(MouseButton::Right) => Some(Action::Back),
            MouseEventKind::ScrollDown => Some(Action::Go(Motion::By(WHEEL))),
            MouseEventKind::ScrollUp => Some(Action::Go(Motion::By(-WHEEL))),
            _ => None,
        },
        Event::Resize(width, height) => Some(Action::Resize { width: *width, height: *height }),
        _ => None,
    }
}

fn control(key: &KeyEvent) -> Option<Action> {
    if !key.modifiers.contains(KeyModifiers::CONTROL) {
        return None;
    }
    match key.code {
        KeyCode::Char('c') => Some(Action::Quit),
        KeyCode::Char('l') => Some(Action::Redraw),
        KeyCode::Char('f') => Some(Action::Go(Motion::Pages(1))),
        KeyCode::Char('b') => Some(Action::Go(Motion::Pages(-1))),
        KeyCode::Char('n') => Some(Action::Go(Motion::By(1))),
        KeyCode::Char('p') => Some(Action::Go(Motion::By(-1))),
        _ => None,
    }
}

/// What moves in panes and menus alike.
fn motion(code: KeyCode) -> Option<Motion> {
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => Motion::By(-1),
        KeyCode::Down | KeyCode::Char('j') => Motion::By(1),
        KeyCode::PageUp => Motion::Pages(-1),
        KeyCode::PageDown => Motion::Pages(1),
        KeyCode::Home => Motion::First,
        KeyCode::End | KeyCode::Char('G') => Motion::Last,
        _ => return None,
    })
}

fn in_panes(key: &KeyEvent) -> Option<Action> {
    if let Some(action) = control(key) {
        return Some(action);
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return None;
    }
    if let Some(motion) = motion(key.code) {
        return Some(Action::Go(motion));
    }
    Some(match key.code {
        KeyCode::F(1) | KeyCode::Char('?' | 'h') => Action::Help,
        KeyCode::F(2) => Action::System,
        KeyCode::F(3 | 4) | KeyCode::Char('/' | '\\') => Action::Filter,
        KeyCode::F(5) | KeyCode::Char('g') => Action::GroupMenu,
        KeyCode::F(6) | KeyCode::Char('>' | '<' | '.' | ',' | 's') => Action::SortMenu,
        KeyCode::F(10) | KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => Action::Back,
        KeyCode::Enter | KeyCode::Right => Action::Enter,
        KeyCode::Tab => Action::TurnPane(true),
        KeyCode::BackTab => Action::TurnPane(false),
        KeyCode::Char('1') => Action::Show(Pane::Goroutines),
        KeyCode::Char('2') => Action::Show(Pane::Findings),
        KeyCode::Char('3') => Action::Show(Pane::Memory),
        KeyCode::Char(' ' | 'Z') => Action::Pause,
        KeyCode::Char('I') => Action::Invert,
        KeyCode::Char('K') => Action::System,
        KeyCode::Char('p') => Action::Paths,
        KeyCode::Char('+') => Action::Faster(false),
        KeyCode::Char('-') => Action::Faster(true),
        KeyCode::Char('L') => Action::SortBy(Column::Live),
        KeyCode::Char('N') => Action::SortBy(Column::Net),
        KeyCode::Char('T') => Action::SortBy(Column::Oldest),
        KeyCode::Char('M') => Action::SortBy(Column::Stack),
        _ => return None,
    })
}

fn in_menu(key: &KeyEvent) -> Option<Action> {
    if let Some(action) = control(key) {
        return Some(action);
    }
    if let Some(motion) = motion(key.code) {
        return Some(Action::Go(motion));
    }
    Some(match key.code {
        KeyCode::Enter | KeyCode::Right | KeyCode::Char(' ') => Action::Enter,
        KeyCode::Char(digit @ '1'..='9') => Action::Choose(digit as usize - '1' as usize),
        KeyCode::F(10) => Action::Quit,
        _ => Action::Back,
    })
}

fn typed(key: &KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('u' | 'w') => Some(Action::EraseAll),
            KeyCode::Char('h') => Some(Action::Erase),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char(c) => Action::Type(c),
        KeyCode::Backspace => Action::Erase,
        KeyCode::Enter => Action::Enter,
        KeyCode::Esc => Action::Back,
        KeyCode::Up => Action::Go(Motion::By(-1)),
        KeyCode::Down => Action::Go(Motion::By(1)),
        KeyCode::PageUp => Action::Go(Motion::Pages(-1)),
        KeyCode::PageDown => Action::Go(Motion::Pages(1)),
        KeyCode::F(10) => Action::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> Event {
        Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_same_key_means_what_has_the_focus_makes_of_it() {
        let q = press(KeyCode::Char('q'));
        assert_eq!(action(&q, Focus::Panes), Some(Action::Quit));
        assert_eq!(action(&q, Focus::Input), Some(Action::Type('q')));
        assert_eq!(action(&q, Focus::Menu), Some(Action::Back));
        let end = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        for focus in [Focus::Panes, Focus::Input, Focus::Menu] {
            assert_eq!(action(&end, focus), Some(Action::Quit));
        }
    }

    #[test]
    fn escape_and_what_is_pressed_at_once_are_two_keys() {
        let both = Event::Key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT));
        let [first, second] = apart(both).map(|event| event.and_then(|event| action(&event, Focus::Panes)));
        assert_eq!((first, second), (Some(Action::Back), Some(Action::Quit)));
        let one = press(KeyCode::Char('q'));
        assert_eq!(apart(one.clone()), [Some(one), None]);
    }

    #[test]
    fn a_key_that_comes_up_does_nothing() {
        let up = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(action(&Event::Key(up), Focus::Panes), None);
    }
}

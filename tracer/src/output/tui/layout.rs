//! What part of the screen is for what. Pure: from a size to rectangles, so that the state knows how many rows there are.

use ratatui::layout::{Constraint, Layout, Rect};

use super::state::Screen;

/// The least that a picture needs. 80x24 is what it is made for; tmux takes a line of that.
pub(super) const LEAST: (u16, u16) = (60, 16);

/// The parts of a screen. Those that it does not have are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub header: Rect,
    /// The panes' names, or the way to what is open.
    pub tabs: Rect,
    /// The titles of columns.
    pub heads: Rect,
    /// Rows.
    pub body: Rect,
    /// Below them: what belongs to the selected row, or a glance at the other panes.
    pub lower: Rect,
    /// To the right of `lower`.
    pub beside: Rect,
    pub footer: Rect,
}

/// The parts of a screen of `width` and `height`; `None` if it is too small.
pub(super) fn parts(width: u16, height: u16, screen: Screen) -> Option<Parts> {
    if width < LEAST.0 || height < LEAST.1 {
        return None;
    }
    let header = if height >= 20 { 6 } else { 2 };
    let [header, tabs, middle, footer] = Layout::vertical([
        Constraint::Length(header),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(Rect::new(0, 0, width, height));
    let mut parts = Parts { header, tabs, footer, ..Parts::default() };
    let [heads, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(middle);
    match screen {
        Screen::Groups => {
            parts.heads = heads;
            let glance = if height >= 36 { (rest.height / 3).clamp(12, 18) } else { 0 };
            let [body, lower] = Layout::vertical([Constraint::Min(0), Constraint::Length(glance)]).areas(rest);
            parts.body = body;
            [parts.lower, parts.beside] =
                Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(lower);
        }
        Screen::Members => {
            parts.heads = heads;
            let stack = if rest.height >= 10 { (rest.height * 2 / 5).clamp(5, 24) } else { 0 };
            [parts.body, parts.lower] = Layout::vertical([Constraint::Min(0), Constraint::Length(stack)]).areas(rest);
        }
        Screen::Goroutine => {
            // Figures above, then stack and timeline, beside each other where there is room.
            let facts = if middle.height >= 14 { 5 } else { 3 };
            let [facts, rest] = Layout::vertical([Constraint::Length(facts), Constraint::Min(0)]).areas(middle);
            parts.body = facts;
            [parts.lower, parts.beside] = if width >= 130 {
                Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(rest)
            } else {
                Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(rest)
            };
        }
        Screen::Findings(count) => {
            parts.heads = heads;
            // What is said of one needs more room than the list of all.
            let list = count.saturating_add(1).clamp(3, (rest.height / 3).max(3));
            [parts.body, parts.lower] = Layout::vertical([Constraint::Length(list), Constraint::Min(0)]).areas(rest);
        }
        Screen::Memory => parts.body = middle,
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_screen_has_room_for_rows_from_the_least_size_on() {
        let findings = [0, 2, u16::MAX].map(Screen::Findings);
        let others = [Screen::Groups, Screen::Members, Screen::Goroutine, Screen::Memory];
        for screen in findings.into_iter().chain(others) {
            for (width, height) in [LEAST, (80, 23), (80, 24), (120, 35), (120, 36), (200, 50), (500, 200)] {
                let parts = parts(width, height, screen).expect("large enough");
                assert!(parts.body.height >= 3, "{screen:?} {width}x{height}: {parts:?}");
                assert_eq!(parts.footer.y + 1, height);
                for part in [parts.header, parts.tabs, parts.heads, parts.body, parts.lower, parts.beside] {
                    assert!(part.right() <= width && part.bottom() < height, "{screen:?} {width}x{height}: {part:?}");
                }
            }
            assert_eq!(parts(LEAST.0 - 1, 50, screen), None);
            assert_eq!(parts(200, LEAST.1 - 1, screen), None);
        }
    }
}

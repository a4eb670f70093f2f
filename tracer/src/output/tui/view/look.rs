//! Colours and signs, by what they mean. The sixteen colours of the terminal itself, so that they suit its background.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;

/// What the terminal can show, and what its user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours; without them there is bold, faint and reversed.
    pub colour: bool,
    /// Signs beyond ASCII.
    pub unicode: bool,
    /// The line of keys at the bottom.
    pub keys: bool,
}

/// What something means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Faint,
    Strong,
    /// The bar at the top, titles of columns.
    Bar,
    /// The title of the column that is sorted by.
    SortedBar,
    Selected,
    Running,
    Runnable,
    Blocked,
    Born,
    Died,
    Figure,
    /// A file and its line.
    Place,
    Good,
    Warning,
    Alarm,
    /// A key in the footer, and what it does.
    Key,
    KeyName,
}

impl Look {
    pub(super) fn style(self, ink: Ink) -> Style {
        let plain = Style::new();
        let colour = |colour: Color| if self.colour { plain.fg(colour) } else { plain };
        let on = |fg: Color, bg: Color| {
            if self.colour { plain.fg(fg).bg(bg) } else { plain.add_modifier(Modifier::REVERSED) }
        };
        match ink {
            Ink::Plain => plain,
            Ink::Faint => colour(Color::DarkGray),
            Ink::Strong => plain.add_modifier(Modifier::BOLD),
            Ink::Bar => on(Color::Black, Color::Green),
            Ink::SortedBar | Ink::Selected | Ink::KeyName => on(Color::Black, Color::Cyan),
            Ink::Running | Ink::Good => colour(Color::Green),
            Ink::Runnable => colour(Color::Yellow),
            Ink::Blocked => colour(Color::Blue),
            Ink::Born => colour(Color::Green),
            Ink::Died => colour(Color::Red),
            Ink::Figure => colour(Color::Cyan).add_modifier(Modifier::BOLD),
            Ink::Place => colour(Color::Cyan),
            Ink::Warning => colour(Color::Yellow).add_modifier(Modifier::BOLD),
            Ink::Alarm => colour(Color::Red).add_modifier(Modifier::BOLD),
            Ink::Key => plain.add_modifier(Modifier::BOLD),
        }
    }

    /// What stands for something that was left out.
    pub(super) fn ellipsis(self) -> &'static str {
        if self.unicode { "\u{2026}" } else { "~" }
    }

    /// One sign or its substitute.
    pub(super) fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    pub(super) fn bars(self) -> bar::Set<'static> {
        if self.unicode {
            return bar::NINE_LEVELS;
        }
        bar::Set {
            full: "#",
            seven_eighths: "#",
            three_quarters: "+",
            five_eighths: "+",
            half: "=",
            three_eighths: "-",
            one_quarter: "-",
            one_eighth: ".",
            empty: " ",
        }
    }
}

//! What views draw on: cells, never outside of them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Sparkline, Widget as _};

use super::look::{Ink, Look};
use crate::output::SiteName;
use crate::output::tui::history::History;
use crate::output::tui::state::{Hit, Hits};
use crate::output::tui::words;

/// The cells of a picture, and where a mouse can hit.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    pub look: Look,
    pub hits: Hits,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, look: Look) -> Self {
        Self { buffer, look, hits: Hits::new() }
    }

    /// Writes `text` into `width` cells; gives how many it took.
    pub(super) fn put(&mut self, x: u16, y: u16, width: u16, text: &str, ink: Ink) -> u16 {
        let area = self.buffer.area;
        if width == 0 || x < area.x || x >= area.right() || y < area.y || y >= area.bottom() {
            return 0;
        }
        // What was there before keeps nothing of its own.
        let style = Style::reset().patch(self.look.style(ink));
        let (end, _) = self.buffer.set_stringn(x, y, text, usize::from(width), style);
        end - x
    }

    /// As [`Self::put`], at the right end of the cells. What does not fit loses its end.
    pub(super) fn put_right(&mut self, x: u16, y: u16, width: u16, text: &str, ink: Ink) {
        let length = u16::try_from(text.chars().count()).unwrap_or(u16::MAX).min(width);
        self.put(x + (width - length), y, length, text, ink);
    }

    /// Writes several pieces, one behind the other, into `width` cells; gives how many they took.
    pub(super) fn run<'t>(
        &mut self,
        x: u16,
        y: u16,
        width: u16,
        pieces: impl IntoIterator<Item = (&'t str, Ink)>,
    ) -> u16 {
        let mut used = 0;
        for (text, ink) in pieces {
            used += self.put(x + used, y, width.saturating_sub(used), text, ink);
        }
        used
    }

    /// Where something stands: the function plain, its file and line in a colour of their own.
    pub(super) fn place(
        &mut self,
        x: u16,
        y: u16,
        width: u16,
        site: &SiteName,
        full_paths: bool,
        function: Ink,
    ) -> u16 {
        let text = words::place(site, usize::from(width), full_paths, self.look.ellipsis());
        match text.rsplit_once(' ') {
            Some((name, file)) if !site.file.is_empty() => {
                self.run(x, y, width, [(name, function), (" ", Ink::Plain), (file, Ink::Place)])
            }
            _ => self.put(x, y, width, &text, function),
        }
    }

    /// Sets the style of an area, whatever is written there.
    pub(super) fn cover(&mut self, area: Rect, ink: Ink) {
        let area = area.intersection(self.buffer.area);
        let style = self.look.style(ink);
        self.buffer.set_style(area, Style::reset());
        self.buffer.set_style(area, style);
    }

    /// Empties an area.
    pub(super) fn clear(&mut self, area: Rect) {
        Clear.render(area.intersection(self.buffer.area), self.buffer);
    }

    /// A box with a title, emptied; gives its inside.
    pub(super) fn window(&mut self, area: Rect, title: &str) -> Rect {
        use ratatui::symbols::border;
        use ratatui::widgets::Block;
        let area = area.intersection(self.buffer.area);
        self.clear(area);
        let ascii = border::Set {
            top_left: "+",
            top_right: "+",
            bottom_left: "+",
            bottom_right: "+",
            vertical_left: "|",
            vertical_right: "|",
            horizontal_top: "-",
            horizontal_bottom: "-",
        };
        let set = if self.look.unicode { border::PLAIN } else { ascii };
        let block = Block::bordered().border_set(set).title(title).title_style(self.look.style(Ink::Strong));
        let inside = block.inner(area);
        block.render(area, self.buffer);
        self.hit(area, Hit::Cover);
        inside
    }

    /// A title over the width of an area, in its first line; gives what is below.
    pub(super) fn titled(&mut self, area: Rect, title: &str, strong: bool) -> Rect {
        if area.height == 0 || area.width < 4 {
            return Rect::default();
        }
        let rule = self.look.sign("\u{2500}", "-").repeat(usize::from(area.width));
        self.put(area.x, area.y, area.width, &rule, Ink::Faint);
        let ink = if strong { Ink::Strong } else { Ink::Plain };
        self.put(area.x + 1, area.y, area.width - 2, &format!(" {title} "), ink);
        Rect { y: area.y + 1, height: area.height - 1, ..area }
    }

    /// The course of a figure in one line, from 0 to its largest.
    pub(super) fn spark(&mut self, x: u16, y: u16, width: u16, history: &History, ink: Ink) {
        let values: Vec<u64> = history.newest(usize::from(width)).collect();
        self.bars(x, y, width, &values, values.iter().copied().max().unwrap_or_default(), ink);
    }

    /// Values in one line, from 0 to `most`.
    pub(super) fn bars(&mut self, x: u16, y: u16, width: u16, values: &[u64], most: u64, ink: Ink) {
        let area = Rect { x, y, width, height: 1 }.intersection(self.buffer.area);
        if area.is_empty() {
            return;
        }
        let spark = Sparkline::default().data(values).max(most.max(1)).bar_set(self.look.bars());
        spark.style(self.look.style(ink)).render(area, self.buffer);
    }

    /// Notes what a click there would hit.
    pub(super) fn hit(&mut self, area: Rect, hit: Hit) {
        self.hits.push((area, hit));
    }
}

/// `text` in lines of at most `width` columns, broken between words.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let (has, more) = (line.chars().count(), word.chars().count());
        if has == 0 {
            line.push_str(word);
        } else if has + 1 + more <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

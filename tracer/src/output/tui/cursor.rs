//! A place in a list, and the part of the list that is on the screen.

/// Where somebody wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// So many rows down (up if negative).
    By(isize),
    /// So many pages.
    Pages(isize),
    /// To the first row.
    First,
    /// To the last row.
    Last,
}

/// A selected row, by its number, and the first row that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub at: usize,
    pub offset: usize,
}

impl Cursor {
    /// Moves within `len` rows of which `page` are shown.
    pub(super) fn go(&mut self, motion: Motion, len: usize, page: usize) {
        let last = len.saturating_sub(1);
        self.at = match motion {
            Motion::By(rows) => self.at.saturating_add_signed(rows),
            Motion::Pages(pages) => {
                // One row of the page before stays in sight.
                let rows = pages.saturating_mul(page.saturating_sub(1).max(1) as isize);
                self.offset = self.offset.saturating_add_signed(rows);
                self.at.saturating_add_signed(rows)
            }
            Motion::First => 0,
            Motion::Last => last,
        };
        self.keep_within(len, page);
    }

    /// Sees to it that it is a row of `len`, and on the screen of `page` rows.
    pub(super) fn keep_within(&mut self, len: usize, page: usize) {
        let page = page.max(1);
        self.at = self.at.min(len.saturating_sub(1));
        self.offset = self.offset.min(len.saturating_sub(page)).min(self.at).max((self.at + 1).saturating_sub(page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_in_the_list_and_on_the_screen() {
        let mut cursor = Cursor::default();
        for motion in [Motion::By(-1), Motion::Pages(-1), Motion::First, Motion::Last, Motion::By(5)] {
            cursor.go(motion, 0, 10);
            assert_eq!(cursor, Cursor::default());
        }
        cursor.go(Motion::By(12), 100, 10);
        assert_eq!(cursor, Cursor { at: 12, offset: 3 });
        cursor.go(Motion::Pages(1), 100, 10);
        assert_eq!(cursor, Cursor { at: 21, offset: 12 });
        cursor.go(Motion::Last, 100, 10);
        assert_eq!(cursor, Cursor { at: 99, offset: 90 });
        cursor.keep_within(50, 20);
        assert_eq!(cursor, Cursor { at: 49, offset: 30 });
        cursor.go(Motion::First, 50, 20);
        assert_eq!(cursor, Cursor::default());
    }
}

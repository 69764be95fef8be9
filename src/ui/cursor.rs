//! A place in a list of lines, moved by keys, with the part of the list that is in sight. Pure.

use super::screen::Key;

/// Which line of a list is meant, and from which line on it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    pub at: usize,
    first: usize,
}

impl Cursor {
    /// Moves by a key in a list of this length, of which `shown` lines are in sight. False if the key moves nothing.
    pub fn key(&mut self, key: Key, length: usize, shown: usize) -> bool {
        let last = length.saturating_sub(1);
        let page = shown.saturating_sub(1).max(1);
        self.at = match key {
            // Round the end, as a short list is quicker to walk that way.
            Key::Up | Key::Char('k') if self.at == 0 => last,
            Key::Up | Key::Char('k') => self.at - 1,
            Key::Down | Key::Char('j') if self.at >= last => 0,
            Key::Down | Key::Char('j') => self.at + 1,
            Key::PageUp => self.at.saturating_sub(page),
            Key::PageDown => (self.at + page).min(last),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            Key::Char(digit @ '1'..='9') => {
                let wanted = digit as usize - '1' as usize;
                if wanted > last {
                    return false;
                }
                wanted
            }
            _ => return false,
        };
        true
    }

    /// The lines in sight: as many as there is room for, with the cursor's among them.
    pub fn window(&mut self, length: usize, room: usize) -> std::ops::Range<usize> {
        let room = room.max(1);
        self.at = self.at.min(length.saturating_sub(1));
        if self.at < self.first {
            self.first = self.at;
        }
        if self.at >= self.first + room {
            self.first = self.at + 1 - room;
        }
        self.first = self.first.min(length.saturating_sub(room));
        self.first..length.min(self.first + room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_it_and_it_stays_in_the_list() {
        let mut cursor = Cursor::default();
        let mut press = |key| {
            cursor.key(key, 6, 6);
            cursor.at
        };
        assert_eq!(press(Key::Up), 5, "round the start");
        assert_eq!(press(Key::Char('j')), 0, "round the end");
        assert_eq!(press(Key::Down), 1);
        assert_eq!(press(Key::Char('k')), 0);
        assert_eq!(press(Key::Char('G')), 5);
        assert_eq!(press(Key::Home), 0);
        assert_eq!(press(Key::End), 5);
        assert_eq!(press(Key::Char('g')), 0);
        assert_eq!(press(Key::Char('4')), 3);
        assert_eq!(press(Key::Char('9')), 3, "there is no ninth");
        assert_eq!(press(Key::PageDown), 5);
        assert_eq!(press(Key::PageUp), 0);
    }

    #[test]
    fn an_empty_list_has_nowhere_to_go() {
        let mut cursor = Cursor::default();
        for key in [Key::Up, Key::Down, Key::End, Key::PageDown, Key::Char('1')] {
            cursor.key(key, 0, 10);
            assert_eq!(cursor.at, 0);
        }
        assert_eq!(cursor.window(0, 10), 0..0);
    }

    #[test]
    fn the_cursor_is_always_in_sight() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.window(10, 4), 0..4);
        cursor.key(Key::End, 10, 4);
        assert_eq!(cursor.window(10, 4), 6..10);
        cursor.key(Key::Up, 10, 4);
        assert_eq!(cursor.window(10, 4), 6..10, "it scrolls only when it must");
        assert_eq!(cursor.window(10, 20), 0..10, "a taller terminal shows all");
        assert_eq!(cursor.window(3, 2), 1..3, "the list became shorter");
        assert_eq!(cursor.window(3, 0), 2..3, "no room at all");
    }
}

//! A text that may be longer than the terminal, to be read and left. Pure.

use console::Style;

use super::Ui;
use super::menu::fitted;
use super::screen::Key;

#[derive(Debug, Clone)]
pub struct Reader {
    text: Vec<String>,
    first: usize,
}

/// Lines beside the text: blank, keys.
const OTHER_LINES: usize = 2;

impl Reader {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.lines().map(str::to_owned).collect(),
            first: 0,
        }
    }

    /// A key, where the terminal has this many rows. False: it is left.
    pub fn key(&mut self, key: Key, height: usize) -> bool {
        let room = height.saturating_sub(OTHER_LINES).max(1);
        let last = self.text.len().saturating_sub(room);
        self.first = match key {
            Key::Up | Key::Char('k') => self.first.saturating_sub(1),
            Key::Down | Key::Char('j') => self.first + 1,
            Key::PageUp => self.first.saturating_sub(room),
            Key::PageDown | Key::Char(' ') => self.first + room,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            Key::Enter | Key::Escape | Key::Char('q' | 'l') => return false,
            Key::Char(_) => self.first,
        }
        .min(last);
        true
    }

    /// The lines for a terminal of this size.
    pub fn lines(&self, ui: &Ui, width: usize, height: usize) -> Vec<String> {
        let room = height.saturating_sub(OTHER_LINES).max(1);
        let shown = self.text.iter().skip(self.first).take(room).cloned();
        let keys = if self.text.len() > room {
            "q back · ↑↓ j k scroll"
        } else {
            "q back"
        };
        let keys = ui.style(Style::new().dim()).apply_to(keys).to_string();
        let lines = shown.chain([String::new(), keys]).collect();
        fitted(lines, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(reader: &Reader, height: usize) -> String {
        let ui = Ui {
            colour: false,
            interactive: true,
            animated: true,
        };
        reader.lines(&ui, 80, height).join("|")
    }

    #[test]
    fn a_long_text_is_scrolled_and_stops_at_its_ends() {
        let mut reader = Reader::new("1\n2\n3\n4\n5\n6\n7");
        let height = 5;
        for (key, expected) in [
            (Key::Up, "1|2|3"),
            (Key::Down, "2|3|4"),
            (Key::PageDown, "5|6|7"),
            (Key::Char(' '), "5|6|7"),
            (Key::Char('k'), "4|5|6"),
            (Key::Home, "1|2|3"),
            (Key::Char('G'), "5|6|7"),
            (Key::PageUp, "2|3|4"),
            (Key::Char('x'), "2|3|4"),
        ] {
            assert!(reader.key(key, height));
            let expected = format!("{expected}||q back · ↑↓ j k scroll");
            assert_eq!(shown(&reader, height), expected, "{key:?}");
        }
        // A terminal that grew shows all of it again.
        reader.key(Key::Char('G'), 20);
        assert_eq!(shown(&reader, 20), "1|2|3|4|5|6|7||q back");
        for key in [Key::Enter, Key::Escape, Key::Char('q'), Key::Char('l')] {
            assert!(!reader.key(key, height), "{key:?}");
        }
    }
}

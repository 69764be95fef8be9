//! The cache screen: models to choose several of, to be removed. What it shows and what its keys mean. Pure.

use std::collections::HashSet;

use console::Style;

use super::cursor::Cursor;
use super::menu::fitted;
use super::screen::Key;
use super::{Ui, bytes};

/// A model in the cache.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub bytes: u64,
    /// What of them may be shared with other rows: which file, the same number in each row that has it, and its bytes.
    pub shared: Vec<(usize, u64)>,
    /// Such as its flag, or that it is not complete.
    pub remark: String,
    /// Why it cannot be removed, if so.
    pub held: Option<String>,
}

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Remove these rows. It was confirmed.
    Remove(Vec<usize>),
    Back,
}

#[derive(Debug, Clone)]
pub struct Picker {
    title: String,
    rows: Vec<Row>,
    chosen: Vec<bool>,
    cursor: Cursor,
    /// Whether the question is asked whether to remove what is chosen.
    asking: bool,
    /// What happened last.
    pub message: Option<String>,
}

/// Lines beside the models: title, blank; blank, what is chosen, keys.
const OTHER_LINES: usize = 5;

const KEYS: &str = "Space choose · a all · Enter remove · q back · ↑↓ j k move";

impl Picker {
    pub fn new(title: String, rows: Vec<Row>) -> Self {
        Self {
            title,
            chosen: vec![false; rows.len()],
            rows,
            cursor: Cursor::default(),
            asking: false,
            message: None,
        }
    }

    /// A key, where the terminal has this many rows.
    pub fn key(&mut self, key: Key, height: usize) -> Action {
        self.message = None;
        if std::mem::take(&mut self.asking) {
            return match key {
                Key::Char('y' | 'Y') => Action::Remove(self.chosen_rows()),
                _ => Action::Nothing,
            };
        }
        let shown = height.saturating_sub(OTHER_LINES);
        match key {
            Key::Char(' ') => self.toggle(),
            Key::Char('a') => self.toggle_all(),
            Key::Enter if self.chosen_rows().is_empty() => {
                self.message = Some("Nothing is chosen: Space chooses.".into());
            }
            Key::Enter => self.asking = true,
            Key::Char('q') | Key::Escape => return Action::Back,
            key => {
                self.cursor.key(key, self.rows.len(), shown);
            }
        }
        Action::Nothing
    }

    fn toggle(&mut self) {
        let at = self.cursor.at;
        match self.rows.get(at) {
            Some(Row {
                held: Some(why), ..
            }) => self.message = Some(format!("It cannot be removed: {why}.")),
            Some(_) => self.chosen[at] = !self.chosen[at],
            None => {}
        }
    }

    /// All that can be removed, or none if all of them are chosen.
    fn toggle_all(&mut self) {
        let free = |row: &Row| row.held.is_none();
        let all = self
            .rows
            .iter()
            .zip(&self.chosen)
            .all(|(row, chosen)| *chosen || !free(row));
        for (row, chosen) in self.rows.iter().zip(&mut self.chosen) {
            *chosen = free(row) && !all;
        }
    }

    fn chosen_rows(&self) -> Vec<usize> {
        (0..self.rows.len())
            .filter(|index| self.chosen[*index])
            .collect()
    }

    /// Bytes that go with what is chosen: what another row needs too stays.
    fn freed(&self) -> u64 {
        let rows = || self.rows.iter().zip(&self.chosen);
        let kept: HashSet<usize> = rows()
            .filter(|(_, chosen)| !**chosen)
            .flat_map(|(row, _)| row.shared.iter().map(|(file, _)| *file))
            .collect();
        let mut counted = kept;
        let mut bytes = 0_u64;
        for (row, _) in rows().filter(|(_, chosen)| **chosen) {
            let shared = row
                .shared
                .iter()
                .fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
            bytes = bytes.saturating_add(row.bytes.saturating_sub(shared));
            for (file, shared) in &row.shared {
                if counted.insert(*file) {
                    bytes = bytes.saturating_add(*shared);
                }
            }
        }
        bytes
    }

    /// The lines for a terminal of this size.
    pub fn lines(&mut self, ui: &Ui, width: usize, height: usize) -> Vec<String> {
        let bold = ui.style(Style::new().bold());
        let dim = ui.style(Style::new().dim());
        let mut lines = vec![bold.apply_to(&self.title).to_string(), String::new()];
        let room = height.saturating_sub(OTHER_LINES);
        let name_width = width.saturating_sub(40).clamp(20, 60);
        for index in self.cursor.window(self.rows.len(), room) {
            let row = &self.rows[index];
            let here = index == self.cursor.at;
            let mark = if here { ">" } else { " " };
            let check = match (&row.held, self.chosen[index]) {
                (Some(_), _) => "[-]",
                (None, true) => "[x]",
                (None, false) => "[ ]",
            };
            let name = console::truncate_str(&row.name, name_width, "…");
            let line = format!(
                "{mark} {check} {} {:>8}   {}",
                console::pad_str(&name, name_width, console::Alignment::Left, None),
                bytes(row.bytes),
                row.held.as_ref().unwrap_or(&row.remark)
            );
            let style = match (here, &row.held) {
                (true, _) => Style::new().cyan().bold(),
                (false, Some(_)) => Style::new().dim(),
                (false, None) => Style::new(),
            };
            lines.push(ui.style(style).apply_to(line).to_string());
        }
        if self.rows.is_empty() {
            lines.push("Nothing is there.".into());
        }
        let chosen = self.chosen_rows();
        let total = self.freed();
        let count = match chosen.len() {
            1 => "1 model".to_owned(),
            count => format!("{count} models"),
        };
        lines.push(String::new());
        lines.push(match (self.asking, &self.message) {
            (true, _) => bold
                .apply_to(format!("Remove {count}, {}? [y/N]", bytes(total)))
                .to_string(),
            (false, Some(message)) => message.clone(),
            (false, None) if chosen.is_empty() => String::new(),
            (false, None) => format!("{count} chosen, {}", bytes(total)),
        });
        lines.push(dim.apply_to(KEYS).to_string());
        fitted(lines, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Ui {
        Ui {
            colour: false,
            interactive: true,
            animated: true,
        }
    }

    fn row(name: &str, held: Option<&str>) -> Row {
        Row {
            name: name.into(),
            bytes: 3_000_000,
            shared: Vec::new(),
            remark: "partial".into(),
            held: held.map(str::to_owned),
        }
    }

    fn three() -> Picker {
        let rows = vec![
            row("org/first", None),
            row("org/held", Some("a program is downloading it")),
            row("org/last", None),
        ];
        Picker::new("9 MB in ~/hub".into(), rows)
    }

    fn typed(picker: &mut Picker, keys: &[Key]) -> Action {
        let mut last = Action::Nothing;
        for key in keys {
            last = picker.key(*key, 24);
        }
        last
    }

    #[test]
    fn what_is_held_is_never_chosen() {
        let mut picker = three();
        typed(&mut picker, &[Key::Down, Key::Char(' ')]);
        insta::assert_snapshot!(picker.lines(&plain(), 80, 24).join("\n"), @"
        9 MB in ~/hub

          [ ] org/first                                    3 MB   partial
        > [-] org/held                                     3 MB   a program is download…
          [ ] org/last                                     3 MB   partial

        It cannot be removed: a program is downloading it.
        Space choose · a all · Enter remove · q back · ↑↓ j k move
        ");
        typed(&mut picker, &[Key::Char('a'), Key::Enter]);
        insta::assert_snapshot!(picker.lines(&plain(), 80, 24).join("\n"), @"
        9 MB in ~/hub

          [x] org/first                                    3 MB   partial
        > [-] org/held                                     3 MB   a program is download…
          [x] org/last                                     3 MB   partial

        Remove 2 models, 6 MB? [y/N]
        Space choose · a all · Enter remove · q back · ↑↓ j k move
        ");
        assert_eq!(picker.key(Key::Char('y'), 24), Action::Remove(vec![0, 2]));
        // All of them are chosen: then none.
        typed(&mut picker, &[Key::Char('a')]);
        assert_eq!(picker.chosen_rows(), Vec::<usize>::new());
    }

    #[test]
    fn what_another_needs_is_not_freed() {
        let sharing = |name| Row {
            shared: vec![(0, 2_000_000)],
            ..row(name, None)
        };
        let mut picker = Picker::new(
            String::new(),
            vec![
                sharing("org/first"),
                sharing("org/second"),
                row("org/last", None),
            ],
        );
        typed(&mut picker, &[Key::Char(' ')]);
        assert_eq!(picker.freed(), 1_000_000);
        typed(&mut picker, &[Key::Down, Key::Char(' ')]);
        assert_eq!(picker.freed(), 4_000_000);
        typed(&mut picker, &[Key::Char('a')]);
        assert_eq!(picker.freed(), 7_000_000);
    }

    #[test]
    fn nothing_but_yes_removes() {
        for key in [
            Key::Enter,
            Key::Escape,
            Key::Char('n'),
            Key::Char('q'),
            Key::Down,
        ] {
            let mut picker = three();
            typed(&mut picker, &[Key::Char(' '), Key::Enter]);
            assert_eq!(picker.key(key, 24), Action::Nothing, "{key:?}");
            assert!(!picker.asking, "{key:?}");
        }
        let mut picker = three();
        assert_eq!(picker.key(Key::Enter, 24), Action::Nothing);
        assert!(!picker.asking, "nothing is chosen");
        assert_eq!(picker.key(Key::Char('q'), 24), Action::Back);
    }

    #[test]
    fn lines_fit_and_an_empty_cache_says_so() {
        let mut picker = three();
        for (width, height) in [(80, 24), (40, 8), (20, 6)] {
            let lines = picker.lines(&plain(), width, height);
            assert!(lines.len() <= height.max(OTHER_LINES));
            assert!(
                lines
                    .iter()
                    .all(|line| console::measure_text_width(line) <= width),
                "{lines:#?}"
            );
        }
        let mut empty = Picker::new("0 kB in ~/hub".into(), Vec::new());
        typed(&mut empty, &[Key::Char(' '), Key::Char('a'), Key::Down]);
        insta::assert_snapshot!(empty.lines(&plain(), 80, 24).join("\n"), @"
        0 kB in ~/hub

        Nothing is there.


        Space choose · a all · Enter remove · q back · ↑↓ j k move
        ");
    }
}

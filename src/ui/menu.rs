//! The menu of models: what it shows and what its keys mean. Pure.

use console::Style;

use super::cursor::Cursor;
use super::screen::Key;
use super::{Ui, bytes, kilo};
use crate::hub::Cached;
use crate::memory::WIDE_WINDOW;
use crate::memory::fit::Room;

/// A model to choose.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    /// Without dashes.
    pub flag: String,
    /// Bytes on disk if all of it is there, else of its download.
    pub size: u64,
    pub cached: Cached,
    pub room: Room,
    pub note: String,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Start the model of this row.
    Start(usize),
    /// Manage the cache.
    Manage,
    /// List the cache.
    List,
    Quit,
}

#[derive(Debug, Clone)]
pub struct Menu {
    rows: Vec<Row>,
    cursor: Cursor,
    /// What this machine has for a model, in words.
    machine: String,
    /// What happened last, such as what was removed.
    pub message: Option<String>,
}

/// Lines beside the models: title, blank, heading; blank, keys.
const OTHER_LINES: usize = 5;

const KEYS: &str = "Enter start · q quit · m manage cache · l list cache · ↑↓ j k move";

impl Menu {
    pub fn new(rows: Vec<Row>, machine: String) -> Self {
        Self {
            rows,
            cursor: Cursor::default(),
            machine,
            message: None,
        }
    }

    /// The same place in rows that are brought up to date.
    pub fn refresh(&mut self, rows: Vec<Row>) {
        self.rows = rows;
    }

    /// A key, where the terminal has this many rows.
    pub fn key(&mut self, key: Key, height: usize) -> Action {
        self.message = None;
        let shown = self.room(height).0;
        if self.cursor.key(key, self.rows.len(), shown) {
            return Action::Nothing;
        }
        match key {
            Key::Enter if !self.rows.is_empty() => Action::Start(self.cursor.at),
            Key::Char('m') => Action::Manage,
            Key::Char('l') => Action::List,
            Key::Char('q') | Key::Escape => Action::Quit,
            _ => Action::Nothing,
        }
    }

    /// The lines where nothing can be painted: without a cursor and without keys.
    pub fn plain(&self) -> Vec<String> {
        let mut lines = vec![format!("{TITLE} · {}", self.machine)];
        for (index, row) in self.rows.iter().enumerate() {
            lines.push(format!("  {}{}", line(index, row), room(row.room)));
        }
        lines
    }

    /// How many models are shown, and whether each with its note. Else the note of the chosen one stands below.
    fn room(&self, height: usize) -> (usize, bool) {
        let message = usize::from(self.message.is_some());
        let free = height.saturating_sub(OTHER_LINES + message);
        if free >= self.rows.len() * 2 {
            (self.rows.len(), true)
        } else {
            (
                free.saturating_sub(2).clamp(1, self.rows.len().max(1)),
                false,
            )
        }
    }

    /// The lines for a terminal of this size.
    pub fn lines(&mut self, ui: &Ui, width: usize, height: usize) -> Vec<String> {
        let bold = ui.style(Style::new().bold());
        let dim = ui.style(Style::new().dim());
        let (shown, with_notes) = self.room(height);
        let mut lines = vec![
            format!("{} · {}", bold.apply_to(TITLE), self.machine),
            String::new(),
            dim.apply_to("    MODEL                   SIZE   ON DISK           CONTEXT")
                .to_string(),
        ];
        for index in self.cursor.window(self.rows.len(), shown) {
            let row = &self.rows[index];
            let chosen = index == self.cursor.at;
            let mark = if chosen { ">" } else { " " };
            let start = format!("{mark} {}", line(index, row));
            let start = if chosen {
                ui.style(Style::new().cyan().bold()).apply_to(start)
            } else {
                ui.style(Style::new()).apply_to(start)
            };
            let context = room_style(ui, row.room).apply_to(room(row.room));
            lines.push(format!("{start}{context}"));
            if with_notes {
                lines.push(
                    dim.apply_to(format!("    --{} · {}", row.flag, row.note))
                        .to_string(),
                );
            }
        }
        lines.push(String::new());
        if let (false, Some(row)) = (with_notes, self.rows.get(self.cursor.at)) {
            lines.push(
                dim.apply_to(format!("    --{} · {}", row.flag, row.note))
                    .to_string(),
            );
            lines.push(String::new());
        }
        if let Some(message) = &self.message {
            lines.push(message.clone());
        }
        lines.push(dim.apply_to(KEYS).to_string());
        fitted(lines, width)
    }
}

const TITLE: &str = concat!("cclocal ", env!("CARGO_PKG_VERSION"));

/// All but the context it gets.
fn line(index: usize, row: &Row) -> String {
    format!(
        "{} {:<20} {:>7}   {:<17} ",
        index + 1,
        row.name,
        bytes(row.size),
        on_disk(&row.cached)
    )
}

/// Lines cut to the width of the terminal.
pub fn fitted(lines: Vec<String>, width: usize) -> Vec<String> {
    lines
        .into_iter()
        .map(|line| console::truncate_str(line.trim_end(), width, "…").into_owned())
        .collect()
}

fn on_disk(cached: &Cached) -> String {
    match cached {
        Cached::Missing => "not yet".into(),
        Cached::Partial { bytes: so_far } => format!("partly, {}", bytes(*so_far)),
        Cached::Complete { .. } => "yes".into(),
    }
}

fn room(room: Room) -> String {
    match room {
        Room::Window { tokens, estimated } => format!("{} tokens", about(tokens, estimated)),
        Room::Raised { tokens, estimated } => {
            format!("{}, GPU limit raised", about(tokens, estimated))
        }
        Room::TooBig(short) => format!("too big by {}", bytes(short)),
        Room::TooShort(longest) => format!("{}: too short", kilo(longest)),
        Room::Unknown => "unknown".into(),
    }
}

/// In a sign that it is estimated, so that narrow terminals show the figure.
fn about(tokens: u64, estimated: bool) -> String {
    let about = if estimated { "~" } else { "" };
    format!("{about}{}", kilo(tokens))
}

fn room_style(ui: &Ui, room: Room) -> Style {
    ui.style(match room {
        Room::Window { tokens, .. } if tokens >= WIDE_WINDOW => Style::new().green(),
        Room::Window { .. } | Room::Raised { .. } => Style::new().yellow(),
        Room::TooBig(_) | Room::TooShort(_) => Style::new().red(),
        Room::Unknown => Style::new(),
    })
}

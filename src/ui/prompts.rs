//! Questions to the person at the terminal, asked by dialoguer.
//!
//! It is mended in four ways, all of them here. Signals give the terminal back and end the program (`syscalls::prompting`): by itself a prompt leaves the
//! cursor hidden. Rows are drawn when they are shown, by their number, as dialoguer counts bytes where it should count columns. What a long list has
//! beside its rows is counted, too, where it is cut into pages. A terminal that cannot be painted on, or is too small, gets a numbered list.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use console::{Style, Term, measure_text_width, truncate_str};
use dialoguer::theme::Theme;
use dialoguer::{Confirm, MultiSelect, Select};

use super::Ui;
use crate::escape::visible;
use crate::sys::{syscalls, tokens};

/// The fewest lines of a terminal that a prompt is painted on. dialoguer panics on fewer than three.
const FEWEST_LINES: u16 = 8;

/// Puts the rows of these numbers into words.
type Words<'a> = dyn Fn(&[usize]) -> String + 'a;

/// A row to choose. What comes from elsewhere must have been made visible.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub text: String,
    /// Behind the text, in a colour of its own.
    pub remark: String,
    pub remark_style: Style,
    /// A second line: of each row where there is room, else of the one that the cursor is on.
    pub note: String,
    /// Shown, but cannot be chosen.
    pub held: bool,
}

impl Row {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

impl Ui {
    /// Asks for one of the rows. None: it was left, or there is no terminal to ask on.
    pub fn select(&self, heading: &[String], rows: &[Row], default: usize) -> Option<usize> {
        if !self.interactive || rows.is_empty() {
            return None;
        }
        if !self.paints_prompts() {
            return self.numbered(heading, rows, default);
        }
        let list = List::new(self, heading, rows, None);
        let _terminal = syscalls::prompting();
        Select::with_theme(&list)
            .with_prompt("")
            .report(false)
            .items(0..rows.len())
            .default(default)
            .max_length(list.max_length())
            .interact_on_opt(&Term::stderr())
            .unwrap_or_else(failed)
    }

    /// Asks for any of the rows, of which some are chosen already. `below` puts the choice into words, which stand under the rows. None: it was left, or
    /// there is no terminal that can be painted on.
    pub fn pick(
        &self,
        heading: &[String],
        rows: &[Row],
        chosen: &[usize],
        below: &Words<'_>,
    ) -> Option<Vec<usize>> {
        if !self.interactive || !self.paints_prompts() || rows.is_empty() {
            return None;
        }
        let list = List::new(self, heading, rows, Some(below));
        let _terminal = syscalls::prompting();
        let picked = MultiSelect::with_theme(&list)
            .with_prompt("")
            .report(false)
            .items_checked((0..rows.len()).map(|row| (row, chosen.contains(&row))))
            .max_length(list.max_length())
            .interact_on_opt(&Term::stderr())
            .unwrap_or_else(failed)?;
        Some(picked.into_iter().filter(|row| !rows[*row].held).collect())
    }

    /// Asks a question with yes (Enter) or no. Without a terminal the answer is no.
    pub fn confirm(&self, question: &str) -> bool {
        self.yes_or_no(question, true)
    }

    /// Asks about something that cannot be undone: Enter means no.
    pub fn confirm_loss(&self, question: &str) -> bool {
        self.yes_or_no(question, false)
    }

    fn yes_or_no(&self, question: &str, default: bool) -> bool {
        if !self.interactive {
            return false;
        }
        if !self.animated {
            return self.yes_or_no_on_a_line(question, default);
        }
        let question = visible(question);
        let mut prompt = self
            .style(Style::new().bold())
            .apply_to(&question)
            .to_string();
        // dialoguer paints a question over as if it were one line.
        if measure_text_width(&question) + " [Y/n] yes".len() > self.columns() {
            self.paint(&std::mem::take(&mut prompt));
        }
        let _terminal = syscalls::prompting();
        Confirm::new()
            .with_prompt(prompt)
            .default(default)
            // Who is used to it types Enter after y, which is not to answer the next question.
            .wait_for_newline(true)
            .interact_on_opt(&Term::stderr())
            .unwrap_or_else(failed)
            .unwrap_or(false)
    }

    fn yes_or_no_on_a_line(&self, question: &str, default: bool) -> bool {
        let keys = if default { "[Y/n]" } else { "[y/N]" };
        loop {
            let Some(answer) = self.line(&format!("{question} {keys}")) else {
                return false;
            };
            match answer.to_lowercase().as_str() {
                "" => return default,
                "y" | "yes" => return true,
                "n" | "no" | "q" => return false,
                _ => self.say("Please answer y or n."),
            }
        }
    }

    /// Asks for one of the rows by its number.
    fn numbered(&self, heading: &[String], rows: &[Row], default: usize) -> Option<usize> {
        for line in heading {
            self.paint(line);
        }
        for (index, row) in rows.iter().enumerate() {
            self.paint(format!("{:>3} {}{}", index + 1, row.text, row.remark).trim_end());
        }
        let question = format!("Choose [1-{}/q] (Enter = {})", rows.len(), default + 1);
        loop {
            let typed = self.line(&question)?;
            match (typed.as_str(), typed.parse::<usize>()) {
                ("", _) => return Some(default),
                ("q", _) => return None,
                (_, Ok(number)) if (1..=rows.len()).contains(&number) => return Some(number - 1),
                _ => self.say("Please enter a number from the list."),
            }
        }
    }

    /// Asks for a number of tokens in this range; Enter means the default. None: there is no terminal to ask on, or the input ended.
    pub fn tokens(&self, question: &str, default: u64, range: RangeInclusive<u64>) -> Option<u64> {
        if !self.interactive {
            return None;
        }
        let _ending = syscalls::ending_on_signals();
        let question = format!("{question} (Enter = {default})");
        loop {
            let typed = self.line(&question)?;
            match tokens::parse(&typed.replace([',', '_', ' '], "")) {
                _ if typed.is_empty() => return Some(default),
                Some(tokens) if range.contains(&tokens) => return Some(tokens),
                _ => self.say(&format!(
                    "Please enter a number from {} to {}, such as 65536 or 64k.",
                    range.start(),
                    range.end()
                )),
            }
        }
    }

    /// The line that was typed in answer to a question, without the spaces around it. None at the end of the input, which agrees to nothing.
    fn line(&self, question: &str) -> Option<String> {
        let bold = self.style(Style::new().bold());
        let _ = Term::stderr().write_str(&format!("{} ", bold.apply_to(visible(question))));
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(1..) => return Some(answer.trim().to_owned()),
            Ok(0) | Err(_) => self.say(""),
        }
        None
    }

    /// Whether prompts are painted, and keys move in them. Else they are lists with numbers.
    pub fn paints_prompts(&self) -> bool {
        self.animated && Term::stderr().size().0 >= FEWEST_LINES
    }
}

/// Such as a terminal that was hung up on.
fn failed<T>(error: dialoguer::Error) -> Option<T> {
    tracing::debug!(%error, "a question could not be asked");
    None
}

/// Draws the rows. dialoguer is given their numbers.
struct List<'a> {
    ui: &'a Ui,
    heading: &'a [String],
    rows: &'a [Row],
    /// Words for what is chosen, where several can be.
    below: Option<&'a Words<'a>>,
    /// The rows that are chosen, as dialoguer told when it showed them.
    chosen: RefCell<Vec<bool>>,
}

impl<'a> List<'a> {
    fn new(
        ui: &'a Ui,
        heading: &'a [String],
        rows: &'a [Row],
        below: Option<&'a Words<'a>>,
    ) -> Self {
        Self {
            ui,
            heading,
            rows,
            below,
            chosen: RefCell::new(vec![false; rows.len()]),
        }
    }

    /// Lines beside the rows, with one note, and with the one on which the cursor stands at the end.
    fn other_lines(&self) -> usize {
        let below = if self.below.is_some() { 2 } else { 0 };
        self.heading.len() + self.notes().min(1) + below + 1
    }

    fn notes(&self) -> usize {
        self.rows.iter().filter(|row| !row.note.is_empty()).count()
    }

    /// Rows of a page.
    fn max_length(&self) -> usize {
        let (lines, _) = Term::stderr().size();
        usize::from(lines).saturating_sub(self.other_lines())
    }

    /// Whether this many lines are free beside the rows.
    fn has_room_for(&self, more: usize) -> bool {
        let (lines, _) = Term::stderr().size();
        self.rows.len() + self.other_lines() + more <= usize::from(lines)
    }

    fn columns(&self) -> usize {
        usize::from(Term::stderr().size().1)
    }

    fn format_heading(&self, f: &mut dyn Write) -> fmt::Result {
        // " [Page 1/2] " may come behind the last line.
        let columns = self.columns().saturating_sub(13);
        let lines: Vec<_> = self
            .heading
            .iter()
            .map(|line| truncate_str(line, columns, "…"))
            .collect();
        f.write_str(&lines.join("\n"))
    }

    fn format_row(
        &self,
        f: &mut dyn Write,
        number: &str,
        checked: Option<bool>,
        active: bool,
    ) -> fmt::Result {
        let index: usize = number.parse().map_err(|_| fmt::Error)?;
        let row = &self.rows[index];
        let mark = if active { ">" } else { " " };
        let check = match checked {
            None => "",
            Some(_) if row.held => "[-] ",
            Some(true) => "[x] ",
            Some(false) => "[ ] ",
        };
        let style = match (active, row.held) {
            (true, _) => Style::new().cyan().bold(),
            (false, true) => Style::new().dim(),
            (false, false) => Style::new(),
        };
        let (ui, columns) = (self.ui, self.columns());
        let text = ui
            .style(style)
            .apply_to(format!("{mark} {check}{}", row.text));
        let remark = ui.style(row.remark_style.clone()).apply_to(&row.remark);
        let line = format!("{text}{remark}");
        f.write_str(&truncate_str(line.trim_end(), columns, "…"))?;
        let all_notes = self.has_room_for(self.notes().saturating_sub(1));
        if !row.note.is_empty() && (active || all_notes) {
            let note = format!("    {}", row.note);
            let note = truncate_str(&note, columns, "…");
            let dim = ui.style(Style::new().dim());
            write!(f, "\n{}", dim.apply_to(note))?;
        }
        let Some((below, checked)) = self.below.zip(checked) else {
            return Ok(());
        };
        let mut chosen = self.chosen.borrow_mut();
        chosen[index] = checked && !row.held;
        // In pages it is not known what was chosen on others.
        if index + 1 == self.rows.len() && self.has_room_for(0) {
            let chosen: Vec<usize> = (0..chosen.len()).filter(|row| chosen[*row]).collect();
            write!(f, "\n\n{}", truncate_str(&below(&chosen), columns, "…"))?;
        }
        Ok(())
    }
}

impl Theme for List<'_> {
    fn format_select_prompt(&self, f: &mut dyn Write, _: &str) -> fmt::Result {
        self.format_heading(f)
    }

    fn format_select_prompt_item(&self, f: &mut dyn Write, row: &str, active: bool) -> fmt::Result {
        self.format_row(f, row, None, active)
    }

    fn format_multi_select_prompt(&self, f: &mut dyn Write, _: &str) -> fmt::Result {
        self.format_heading(f)
    }

    fn format_multi_select_prompt_item(
        &self,
        f: &mut dyn Write,
        row: &str,
        checked: bool,
        active: bool,
    ) -> fmt::Result {
        self.format_row(f, row, Some(checked), active)
    }
}

//! Calls of Gemma 4: `<|tool_call>call:NAME{key:<|"|>value<|"|>}<tool_call|>`.
//!
//! Keys are bare, strings stand between `<|"|>` without escapes. Models also write JSON, or a function's arguments as in Python, between the markers.

use super::schema::Tools;
use super::segments::{End, Mark, Marks, space};
use super::tags::Probe;
use super::value::{self, Quotes, Reading};
use super::{Call, Found, Wrong, tags};

pub const OPEN: &str = "<|tool_call>";
pub const CLOSE: &str = "<tool_call|>";

/// The longest name of a tool with its namespace, in bytes.
const NAME: usize = 256;

/// Looks at a text that begins with the marker.
pub fn probe(text: &str) -> Probe {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return Probe::No;
    };
    let rest = rest.trim_start();
    if rest.is_empty() || "call:".starts_with(rest) {
        return Probe::More;
    }
    let rest = rest.strip_prefix("call:").unwrap_or(rest).trim_start();
    let Some(end) = rest.find(|letter: char| !is_name(letter)) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = rest[end..].trim_start();
    match behind.chars().next() {
        None => Probe::More,
        Some('{' | '(') if end > 0 && end <= NAME => Probe::Call(tags::Kind::Json),
        Some(_) => Probe::No,
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/')
}

/// Reads the calls of a text.
pub struct Reader<'a> {
    text: &'a str,
    tools: &'a Tools,
    marks: Option<Marks>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, tools: &'a Tools) -> Self {
        Self {
            text,
            tools,
            marks: None,
        }
    }

    /// Reads the call that begins with the marker at `at`.
    pub fn call(&mut self, at: usize) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let marks = self
            .marks
            .get_or_insert_with(|| Marks::new(marks(text), text.len()));
        let opening = marks
            .opening_at(at)
            .ok_or(Wrong::Unreadable { tool: None })?;
        let start = marks.mark(opening).range.end;
        let written = text[at + OPEN.len()..start].trim();
        let written = written.strip_prefix("call:").unwrap_or(written);
        let name = tools.name(written);
        let unreadable = || Wrong::Unreadable {
            tool: Some(name.to_owned()),
        };
        let (closing, end) = match marks.end(opening) {
            End::Closing(closing) => (closing, marks.mark(closing).range.clone()),
            End::Missing => return Err(unreadable()),
            End::Several => {
                return Err(Wrong::Ambiguous {
                    tool: name.to_owned(),
                });
            }
        };
        let opaque = marks.pairs(opening, closing);
        let reading = Reading {
            quotes: Quotes::Gemma,
            tool: tools.get(name),
            opaque: &opaque,
        };
        let start = start + space(&text[start..]);
        let fields = value::object(&text[..end.start], start, reading).map_err(|_| unreadable())?;
        let lacks_marker = end.is_empty();
        let rest = &text[fields.end..end.start];
        let is_all =
            rest.trim_matches(|letter: char| letter.is_whitespace() || "})".contains(letter));
        // Without an end marker, what follows the closing bracket is the answer's.
        let end = match (is_all.is_empty(), lacks_marker) {
            (true, _) => end.end,
            (false, true) => fields.end,
            (false, false) => return Err(unreadable()),
        };
        let call = Call::new(name, fields.fields, tools);
        Ok(Found::new(
            vec![call],
            end,
            fields.lacks_end || lacks_marker,
        ))
    }
}

/// Openings with the tool's name, and closings.
fn marks(text: &str) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('<') {
        at += found;
        if text[at..].starts_with(CLOSE) {
            let is_closing = text[..at].trim_end().ends_with(['}', ')']);
            if is_closing {
                marks.push(Mark {
                    range: at..at + CLOSE.len(),
                    is_opening: false,
                });
            }
            at += CLOSE.len();
        } else if probe(&text[at..]) == Probe::Call(tags::Kind::Json) {
            let start = at;
            at += OPEN.len();
            at += text[at..].find(['{', '(']).unwrap_or(0);
            marks.push(Mark {
                range: start..at,
                is_opening: true,
            });
        } else {
            at += 1;
        }
    }
    marks
}

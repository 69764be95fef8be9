//! Calls of Gemma 4: `<|tool_call>call:NAME{key:<|"|>value<|"|>}<tool_call|>`.
//!
//! Keys are bare, strings stand between `<|"|>` without escapes. Models also write JSON, or a function's arguments as in Python, between the markers,
//! leave the end marker out, and put several calls between one pair of markers. These are read if the form itself gives no call.

use serde_json::Value;

use super::schema::{Argument, Tools, Written};
use super::segments::{End, Mark, Marks, space};
use super::tags::Probe;
use super::value::{self, GEMMA_QUOTE, Quotes, Reading};
use super::{Call, Found, Wrong, json, tags};

pub(super) const OPEN: &str = "<|tool_call>";
pub(super) const CLOSE: &str = "<tool_call|>";

/// The longest name of a tool with its namespace, in bytes.
const NAME: usize = 256;

const CALL: &str = "call:";

/// As many places are tried as the end of a call whose end marker is gone.
const MAX_ENDS: usize = 8;

/// Looks at a text that begins with the marker.
pub(super) fn probe(text: &str) -> Probe {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return Probe::No;
    };
    let rest = rest.trim_start();
    if rest.is_empty() || CALL.starts_with(rest) {
        return Probe::More;
    }
    if let Some(inside) = rest.strip_prefix('{') {
        return match inside.trim_start().chars().next() {
            None => Probe::More,
            Some('"') => Probe::Call(tags::Kind::Json),
            Some(_) => Probe::No,
        };
    }
    let rest = without_call(rest);
    if rest.is_empty() {
        return Probe::More;
    }
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

/// What follows `call:`, if it is there.
fn without_call(text: &str) -> &str {
    let behind = text.strip_prefix("call").map(str::trim_start);
    let behind = behind.and_then(|behind| behind.strip_prefix(':'));
    behind.unwrap_or(text).trim_start()
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/')
}

/// Reads the calls of a text.
pub(super) struct Reader<'a> {
    text: &'a str,
    tools: &'a Tools,
    marks: Option<Marks>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, tools: &'a Tools) -> Self {
        Self {
            text,
            tools,
            marks: None,
        }
    }

    /// Reads the calls that begin with the marker at `at`.
    pub(super) fn call(&mut self, at: usize) -> Result<Found, Wrong> {
        let start = at + OPEN.len();
        let start = start + space(&self.text[start..]);
        if self.text[start..].starts_with('{') {
            return self.json(start);
        }
        let strict = self.strict(at);
        let is_sure = match &strict {
            Ok(found) => !self.holds_a_call(start + CALL.len()..found.end),
            Err(wrong) => matches!(wrong, Wrong::Ambiguous { .. }),
        };
        if is_sure {
            return strict;
        }
        match (strict, self.lenient(start)) {
            // Several calls between one pair of markers.
            (Ok(strict), Ok(lenient)) if lenient.calls.len() > 1 && lenient.end == strict.end => {
                Ok(lenient)
            }
            // Another call begins right behind a whole one whose end marker is gone.
            (Ok(strict), Ok(lenient))
                if lenient.end < strict.end && self.text[lenient.end..].starts_with(OPEN) =>
            {
                Ok(lenient)
            }
            (Err(_), Ok(lenient)) => Ok(lenient),
            (strict, _) => strict,
        }
    }

    fn strict(&mut self, at: usize) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let marks = self
            .marks
            .get_or_insert_with(|| Marks::new(marks(text), text.len()));
        let opening = marks
            .opening_at(at)
            .ok_or(Wrong::Unreadable { tool: None })?;
        let start = marks.mark(opening).range.end;
        let name = name(&text[at + OPEN.len()..start], tools);
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
        let is_last = marks.next_opening(closing).is_none();
        let reading = Reading {
            quotes: Quotes::Gemma,
            tool: tools.get(name),
            opaque: &opaque,
        };
        let fields = value::object(&text[..end.start], start, reading).map_err(|_| unreadable())?;
        let lacks_marker = end.is_empty();
        // Brackets are missing, and there are other markers: that is a guess.
        let inside = &text[start..end.start];
        let is_guess = !is_last || inside.contains(OPEN) || inside.contains(CLOSE);
        if fields.lacks_end && is_guess {
            return Err(unreadable());
        }
        // So it is if there are too many, and quotes in the strings.
        let has_more = !text[fields.end..end.start].trim().is_empty();
        let has_quotes = |field: &Argument| match &field.written {
            Written::Value(value, _) => holds_quotes(value),
            Written::Text(_) => false,
        };
        if (has_more || fields.lacks_end) && fields.fields.iter().any(has_quotes) {
            return Err(unreadable());
        }
        let is_all = are_brackets(&text[fields.end..end.start]);
        // Without an end marker, the answer goes on behind the closing bracket.
        let end = match (is_all, lacks_marker) {
            (true, _) => end.end,
            (false, true) => fields.end,
            (false, false) => return Err(unreadable()),
        };
        let call = Call::new(name, fields.fields, tools);
        let lacks_end = fields.lacks_end || lacks_marker && end == text.len();
        Ok(Found {
            is_left_open: marks.is_left_open(opening, closing),
            ..Found::new(vec![call], end, lacks_end)
        })
    }

    /// Whether this part may hold another call, right behind the end of one.
    fn holds_a_call(&self, part: std::ops::Range<usize>) -> bool {
        let inside = self.text.get(part).unwrap_or_default();
        inside.match_indices(CALL).any(|(at, _)| {
            let before = inside[..at].trim_end();
            follows_a_call(before.strip_suffix(OPEN).unwrap_or(before))
        })
    }

    /// Reads calls whose end markers are gone: each ends where it is whole and another one, or another marker, follows.
    fn lenient(&self, start: usize) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let mut found = Found::new(Vec::new(), start, true);
        loop {
            let rest = &text[found.end..];
            let header = rest.find(['{', '(']).filter(|end| *end <= NAME);
            let header = header.ok_or(Wrong::Unreadable { tool: None })?;
            let name = name(&rest[..header], tools);
            let open = found.end + header;
            let reading = Reading {
                quotes: Quotes::Gemma,
                tool: tools.get(name),
                opaque: &[],
            };
            let read = self.ends(open).find_map(|end| {
                let part = text[..end].trim_end_matches(is_between);
                let read = value::object(part, open, reading).ok()?;
                (are_brackets(&part[read.end..]) && !read.lacks_end).then_some((read, end))
            });
            let Some((read, end)) = read else {
                return Err(Wrong::Unreadable {
                    tool: Some(name.to_owned()),
                });
            };
            found.calls.push(Call::new(name, read.fields, tools));
            found.end = end;
            let behind = text[end..].trim_start_matches(is_between);
            if let Some(behind) = behind.strip_prefix(CLOSE) {
                found.end = text.len() - behind.len();
                found.lacks_end = false;
                return Ok(found);
            }
            if !behind.starts_with(CALL) {
                found.lacks_end = behind.is_empty();
                return Ok(found);
            }
            found.end = text.len() - behind.len();
        }
    }

    /// Places at which a call may end that begins at `open`.
    fn ends(&self, open: usize) -> impl Iterator<Item = usize> {
        let text = self.text;
        let inside = &text[open..];
        let marks = inside
            .match_indices(['<', 'c'])
            .map(move |(at, _)| open + at);
        let marks = marks.filter(move |at| {
            let rest = &text[*at..];
            let is_mark = rest.starts_with(CLOSE)
                || rest.starts_with(OPEN)
                || rest.starts_with(CALL) && follows_a_call(&text[open..*at]);
            is_mark
                && text[..*at]
                    .trim_end_matches(is_between)
                    .ends_with(['}', ')'])
        });
        marks.take(MAX_ENDS).chain([text.len()])
    }

    /// Reads a call that is JSON, name and all.
    fn json(&self, start: usize) -> Result<Found, Wrong> {
        let read = json::call(self.text, start, self.tools)?;
        let behind = self.text[read.end..].trim_start();
        let has_close = behind.starts_with(CLOSE);
        let end = match has_close {
            true => self.text.len() - behind.len() + CLOSE.len(),
            false => read.end,
        };
        let lacks_end = read.lacks_end || behind.is_empty();
        Ok(Found::new(vec![read.call], end, lacks_end))
    }
}

/// The tool that a header names.
fn name<'a>(header: &'a str, tools: &'a Tools) -> &'a str {
    let header = header.trim();
    tools.name(without_call(header))
}

/// Whether a string in a value holds Gemma's own quotes.
fn holds_quotes(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(GEMMA_QUOTE),
        Value::Array(items) => items.iter().any(holds_quotes),
        Value::Object(fields) => fields.values().any(holds_quotes),
        _ => false,
    }
}

fn is_between(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ',' | ';')
}

/// Whether a text ends as a call does, or as one and what may stand between two.
fn follows_a_call(text: &str) -> bool {
    text.trim_end_matches(is_between).ends_with(['}', ')'])
}

fn are_brackets(text: &str) -> bool {
    text.trim_start_matches(|letter: char| letter.is_whitespace() || "})".contains(letter))
        .is_empty()
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

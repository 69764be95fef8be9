//! Calls between `<tool_call>` and `</tool_call>`: what stands inside tells which of three forms it is.
//!
//! - a JSON object (Qwen2.5, Qwen3, Hermes);
//! - `<function=NAME>` and `<parameter=KEY>` (Qwen3-Coder, Qwen3.5), also without `<tool_call>` around it;
//! - the name, `<arg_key>` and `<arg_value>` (GLM).

mod marks;
mod probe;

use marks::marks;
pub(super) use probe::{Kind, Probe, loose_name, probe};
use probe::{in_fence, name_length};

use super::body::{Body, Fault};
use super::schema::Tools;
use super::segments::{End, Marks, space};
use super::value::Reading;
use super::{Call, Found, Wrong, json};

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";
pub(super) const FUNCTION: &str = "<function=";
pub(super) const FUNCTION_CLOSE: &str = "</function>";
pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const PARAMETER_CLOSE: &str = "</parameter>";
pub(super) const KEY: &str = "<arg_key>";
pub(super) const KEY_CLOSE: &str = "</arg_key>";
pub(super) const VALUE: &str = "<arg_value>";
pub(super) const VALUE_CLOSE: &str = "</arg_value>";

/// The longest name of a tool or an argument, in bytes.
pub(super) const NAME: usize = 256;

/// Reads the calls of a text whose marks are known, kind by kind.
pub(super) struct Reader<'a> {
    text: &'a str,
    tools: &'a Tools,
    marks: [Option<Marks>; 5],
    /// Where the last of each of the ends stands that the templates write, once that was asked for.
    lasts: [Option<Option<usize>>; 6],
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, tools: &'a Tools) -> Self {
        Self {
            text,
            tools,
            marks: [const { None }; 5],
            lasts: [None; 6],
        }
    }

    /// Reads the call that begins with the marker at `at`.
    pub(super) fn call(&mut self, at: usize) -> Result<Found, Wrong> {
        match probe(&self.text[at..]) {
            Probe::Call(Kind::Json) => self.json(at),
            Probe::Call(Kind::Named) => self.named(at),
            Probe::Call(kind) => self.keyed(at, kind),
            Probe::More | Probe::No => Err(Wrong::Unreadable { tool: None }),
        }
    }

    fn json(&mut self, at: usize) -> Result<Found, Wrong> {
        let text = self.text;
        let mut start = self.inside(at);
        let is_list = text[start..].starts_with('[');
        if is_list {
            start += 1;
            start += space(&text[start..]);
        }
        let mut calls = Vec::new();
        let mut end = start;
        // Several objects may stand in one pair of markers.
        while text[end..].starts_with('{') {
            match json::call(text, end, self.tools) {
                Ok(read) => {
                    calls.push(read.call);
                    end = read.end;
                    if read.lacks_end {
                        return Ok(Found::new(calls, end, true));
                    }
                    end += space(&text[end..]);
                    let behind = text[end..].trim_start_matches([',', ';']);
                    let next = text.len() - behind.len() + space(behind);
                    if text[next..].starts_with('{') {
                        end = next;
                    }
                }
                Err(wrong) if calls.is_empty() => return self.json_with_quotes(at, wrong),
                Err(wrong) => return Err(wrong),
            }
        }
        let (end, lacks_end) = self.end_of_json(end);
        Ok(Found::new(calls, end, lacks_end))
    }

    /// Where the JSON of the call begins whose marker stands at `at`.
    fn inside(&self, at: usize) -> usize {
        let rest = self.text[at + OPEN.len()..].trim_start();
        self.text.len() - in_fence(rest).unwrap_or(rest).len()
    }

    /// The end of a call whose JSON ends at `end`, and whether its end marker is gone.
    fn end_of_json(&self, end: usize) -> (usize, bool) {
        let text = self.text;
        // A bracket too many, or the end of a block of code.
        let behind = text[end..].trim_start_matches(|letter: char| {
            letter.is_whitespace() || matches!(letter, '}' | ']' | '`')
        });
        if behind.starts_with(CLOSE) {
            (text.len() - behind.len() + CLOSE.len(), false)
        } else if behind.is_empty() {
            (text.len(), true)
        } else {
            (end, false)
        }
    }

    /// Reads a name, and a JSON object behind it.
    fn named(&mut self, at: usize) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let start = self.inside(at);
        let name = name_length(&text[start..]).unwrap_or_default();
        let open = start + name + space(&text[start + name..]);
        let name = tools.name(&text[start..start + name]);
        let read = json::arguments(text, open, Reading::PLAIN, name, tools);
        let read = read.map_err(|_| Wrong::Unreadable {
            tool: Some(name.to_owned()),
        })?;
        let (end, lacks_end) = self.end_of_json(read.end);
        Ok(Found::new(
            vec![read.call],
            end,
            read.lacks_end || lacks_end,
        ))
    }

    fn json_with_quotes(&mut self, at: usize, wrong: Wrong) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let marks = self.marks(Kind::Json);
        let Some(opening) = marks.opening_at(at) else {
            return Err(wrong);
        };
        match marks.end(opening) {
            End::Closing(closing) => {
                let start = marks.mark(opening).range.end;
                let end = marks.mark(closing).range.clone();
                let mut inside = text[start..end.start].trim();
                while let Some(shorter) = inside.strip_suffix(CLOSE) {
                    inside = shorter.trim_end();
                }
                let call = match json::call(inside, 0, tools) {
                    // Only brackets are missing.
                    Ok(read) if read.lacks_end => read.call,
                    _ => json::call_with_quotes(inside, tools)?,
                };
                Ok(Found::new(vec![call], end.end, end.is_empty()))
            }
            End::Missing | End::Several => Err(wrong),
        }
    }

    fn keyed(&mut self, at: usize, kind: Kind) -> Result<Found, Wrong> {
        let (text, tools) = (self.text, self.tools);
        let marks = self.marks(kind);
        let opening = marks
            .opening_at(at)
            .ok_or(Wrong::Unreadable { tool: None })?;
        let start = marks.mark(opening).range.end;
        let header = &text[at..start];
        let written = header
            .trim_start_matches(OPEN)
            .trim_start()
            .trim_start_matches(FUNCTION)
            .trim_end_matches('>')
            .trim();
        let name = tools.name(written);
        let tool = tools.get(name);
        let strict = strict(text, marks, opening, kind, name, tools);
        let strict = match strict {
            Ok(found) if self.is_closed_in_another_way(start, kind, found.end) => {
                return Err(Wrong::Ambiguous {
                    tool: name.to_owned(),
                });
            }
            strict => strict,
        };
        let marks = self.marks(kind);
        let is_good = match &strict {
            Ok(found) => tool.is_none_or(|tool| tool.has_required(&found.calls[0].input)),
            Err(wrong) => matches!(wrong, Wrong::Ambiguous { .. }),
        };
        if is_good {
            return strict;
        }
        // End markers that are gone: up to the next call.
        let next = marks.next_opening(opening).unwrap_or(text.len());
        let body = Body {
            text,
            range: start..next,
            is_closed: false,
            opaque: Vec::new(),
            kind,
            tool,
        };
        let Some((arguments, end)) = body.lenient() else {
            return strict;
        };
        let call = Call::new(name, arguments, tools);
        let is_better = tool.is_none_or(|tool| tool.accepts(&call.input));
        if is_better {
            Ok(Found::new(vec![call], end, end == text.len()))
        } else {
            strict
        }
    }

    /// Whether a call ends with other white space between its markers than it begins with, and an end comes later that is written as it is: then it
    /// may go on up to there.
    fn is_closed_in_another_way(&mut self, start: usize, kind: Kind, end: usize) -> bool {
        let text = self.text;
        let is_in_lines = match kind {
            Kind::Keyed => {
                let Some(key) = text[start..end].find(KEY_CLOSE) else {
                    return false;
                };
                text[start + key + KEY_CLOSE.len()..].starts_with('\n')
            }
            _ => text[start..].starts_with('\n'),
        };
        let (number, own) = match (kind, is_in_lines) {
            (Kind::Keyed, true) => (0, "</arg_value>\n</tool_call>"),
            (Kind::Keyed, false) => (1, "</arg_value></tool_call>"),
            (Kind::Function, true) => (2, "\n</parameter>\n</function>\n</tool_call>"),
            (Kind::Function, false) => (3, "</parameter></function></tool_call>"),
            (_, true) => (4, "\n</parameter>\n</function>"),
            (_, false) => (5, "</parameter></function>"),
        };
        let last = self.lasts[number].get_or_insert_with(|| text.rfind(own));
        let is_later = last.is_some_and(|last| last >= end);
        // An end whose last markers are gone is written as the whole one.
        let is_own = (1..=own.len())
            .rev()
            .filter(|length| own.is_char_boundary(*length) && own[..*length].ends_with('>'))
            .any(|length| text[..end].trim_end().ends_with(&own[..length]));
        is_later && !is_own && !text[start..end].trim_start().starts_with("</")
    }

    fn marks(&mut self, kind: Kind) -> &Marks {
        let slot = &mut self.marks[kind as usize];
        slot.get_or_insert_with(|| Marks::new(marks(self.text, kind, self.tools), self.text.len()))
    }
}

/// Reads a call whose arguments and end have their markers.
fn strict(
    text: &str,
    marks: &Marks,
    opening: usize,
    kind: Kind,
    name: &str,
    tools: &Tools,
) -> Result<Found, Wrong> {
    let unreadable = || Wrong::Unreadable {
        tool: Some(name.to_owned()),
    };
    let ambiguous = || Wrong::Ambiguous {
        tool: name.to_owned(),
    };
    let (closing, end) = match marks.end(opening) {
        End::Closing(closing) => (closing, marks.mark(closing).range.clone()),
        End::Missing => return Err(unreadable()),
        End::Several => return Err(ambiguous()),
    };
    let body = Body {
        text,
        range: marks.mark(opening).range.end..end.start,
        is_closed: !end.is_empty(),
        opaque: marks.pairs(opening, closing),
        kind,
        tool: tools.get(name),
    };
    let arguments = body.arguments().map_err(|fault| match fault {
        Fault::Unreadable => unreadable(),
        Fault::Cut => Wrong::Cut {
            tool: Some(name.to_owned()),
        },
        Fault::Ambiguous => ambiguous(),
    })?;
    let call = Call::new(name, arguments, tools);
    // At the very end, only the last marker tells that nothing was cut.
    let is_last = end.end == text.len() && kind != Kind::BareFunction;
    let lacks_end = end.is_empty() || is_last && !text.ends_with(CLOSE);
    Ok(Found {
        is_left_open: marks.is_left_open(opening, closing),
        ..Found::new(vec![call], end.end, lacks_end)
    })
}

//! Calls between `<tool_call>` and `</tool_call>`: what stands inside tells which of three forms it is.
//!
//! - a JSON object (Qwen2.5, Qwen3, Hermes);
//! - `<function=NAME>` and `<parameter=KEY>` (Qwen3-Coder, Qwen3.5), also without `<tool_call>` around it;
//! - the name, `<arg_key>` and `<arg_value>` (GLM).

use super::body::{Body, Fault};
use super::schema::Tools;
use super::segments::{End, Mark, Marks, space};
use super::value::Reading;
use super::{Call, Found, Wrong, json};

pub const OPEN: &str = "<tool_call>";
pub const CLOSE: &str = "</tool_call>";
pub const FUNCTION: &str = "<function=";
pub const FUNCTION_CLOSE: &str = "</function>";
pub const PARAMETER: &str = "<parameter=";
pub const PARAMETER_CLOSE: &str = "</parameter>";
pub const KEY: &str = "<arg_key>";
pub const KEY_CLOSE: &str = "</arg_key>";
pub const VALUE: &str = "<arg_value>";
pub const VALUE_CLOSE: &str = "</arg_value>";

/// The longest name of a tool or an argument, in bytes.
pub const NAME: usize = 256;

/// How a call goes on behind its opening marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Function,
    /// `<function=` without `<tool_call>`.
    BareFunction,
    Keyed,
    /// The name, and a JSON object with the arguments.
    Named,
}

/// What stands behind an opening marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Call(Kind),
    /// It could still become a call.
    More,
    No,
}

/// Looks at a text that begins with a marker.
pub fn probe(text: &str) -> Probe {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return function(text, Kind::BareFunction);
    };
    let rest = rest.trim_start();
    if rest.is_empty() || FUNCTION.starts_with(rest) {
        return Probe::More;
    }
    if rest.starts_with(FUNCTION) {
        return function(rest, Kind::Function);
    }
    let Some(rest) = in_fence(rest) else {
        return Probe::More;
    };
    if let Some(inside) = rest.strip_prefix(['{', '[']) {
        let inside = inside
            .trim_start()
            .trim_start_matches(['{', '['])
            .trim_start();
        return match inside.chars().next() {
            None => Probe::More,
            Some('"' | '\'') => Probe::Call(Kind::Json),
            Some(letter) if letter.is_ascii_alphabetic() => Probe::Call(Kind::Json),
            Some(_) => Probe::No,
        };
    }
    let Some(end) = name_length(rest) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = rest[end..].trim_start();
    if end == 0 || end > NAME {
        Probe::No
    } else if behind.starts_with(KEY) || behind.starts_with(CLOSE) {
        Probe::Call(Kind::Keyed)
    } else if behind.starts_with('{') {
        Probe::Call(Kind::Named)
    } else if KEY.starts_with(behind) || CLOSE.starts_with(behind) {
        Probe::More
    } else {
        Probe::No
    }
}

/// The text inside of a block of code that begins here, or the text itself. None: it could still become such a block.
fn in_fence(text: &str) -> Option<&str> {
    const FENCE: &str = "```";
    let Some(info) = text.strip_prefix(FENCE) else {
        return (!FENCE.starts_with(text)).then_some(text);
    };
    let line = info.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    match info[line..].trim_start_matches([' ', '\r']) {
        "" => None,
        behind => Some(behind.strip_prefix('\n').map_or(text, str::trim_start)),
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/')
}

/// The length of the name that a text begins with, in quotes or not. 0: there is none. None: the text ends in it.
fn name_length(text: &str) -> Option<usize> {
    let quote = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let inside = &text[quote.map_or(0, char::len_utf8)..];
    let end = inside.find(|letter: char| !is_name(letter))?;
    let begins_well = inside.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if !begins_well {
        return Some(0);
    }
    match quote {
        None => Some(end),
        Some(quote) if inside[end..].starts_with(quote) => Some(end + 2),
        Some(_) => Some(0),
    }
}

fn function(text: &str, kind: Kind) -> Probe {
    let Some(rest) = text.strip_prefix(FUNCTION) else {
        return Probe::No;
    };
    let name = rest.trim_start_matches(' ');
    let Some(length) = name_length(name) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = name[length..].trim_start_matches(' ');
    let Some(behind) = behind.strip_prefix('>').filter(|_| length > 0) else {
        return match behind.is_empty() && length > 0 {
            true => Probe::More,
            false => Probe::No,
        };
    };
    let behind = behind.trim_start();
    if behind.starts_with(PARAMETER) || behind.starts_with(FUNCTION_CLOSE) {
        Probe::Call(kind)
    } else if PARAMETER.starts_with(behind) || FUNCTION_CLOSE.starts_with(behind) {
        Probe::More
    } else if kind == Kind::Function {
        // Behind `<tool_call>` it is meant as a call, whatever is wrong with it.
        Probe::Call(kind)
    } else {
        Probe::No
    }
}

/// The tool that a call names which is one only if it is declared: it has no marker, or no arguments as its form has them.
pub fn loose_name(text: &str, kind: Kind) -> Option<&str> {
    let rest = text.strip_prefix(OPEN).unwrap_or(text).trim_start();
    let rest = match kind {
        Kind::BareFunction => rest.strip_prefix(FUNCTION)?.trim_start_matches(' '),
        Kind::Named => in_fence(rest)?,
        Kind::Keyed => rest,
        Kind::Json | Kind::Function => return None,
    };
    let name = &rest[..name_length(rest)?];
    let has_arguments = kind == Kind::Keyed && rest[name.len()..].trim_start().starts_with(KEY);
    (!has_arguments).then_some(name)
}

/// Reads the calls of a text whose marks are known, kind by kind.
pub struct Reader<'a> {
    text: &'a str,
    tools: &'a Tools,
    marks: [Option<Marks>; 5],
    /// Where the last of each of the ends stands that the templates write, once that was asked for.
    lasts: [Option<Option<usize>>; 6],
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, tools: &'a Tools) -> Self {
        Self {
            text,
            tools,
            marks: [const { None }; 5],
            lasts: [None; 6],
        }
    }

    /// Reads the call that begins with the marker at `at`.
    pub fn call(&mut self, at: usize) -> Result<Found, Wrong> {
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

/// The openings and closings of this kind.
fn marks(text: &str, kind: Kind, tools: &Tools) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('<') {
        at += found;
        let (opening, closing) = match kind {
            Kind::Json | Kind::Named => json_mark(&text[at..]),
            Kind::Function | Kind::BareFunction => {
                let is_behind = marks.last().is_some_and(|mark| {
                    !mark.is_opening && text[mark.range.end..at].trim().is_empty()
                });
                function_mark(&text[at..], kind, is_behind, tools)
            }
            Kind::Keyed => keyed_mark(&text[at..]),
        };
        let start = at;
        if let Some(length) = opening {
            at += length;
            marks.push(Mark {
                range: start..at,
                is_opening: true,
            });
        }
        if let Some(length) = closing {
            // White space in front of a closing that follows its opening belongs to neither.
            let start = at;
            at += length;
            marks.push(Mark {
                range: start..at,
                is_opening: false,
            });
        }
        if at == start {
            at += 1;
        }
    }
    marks
}

/// The lengths of an opening, and of a closing behind it or in its place.
type Lengths = (Option<usize>, Option<usize>);

fn json_mark(text: &str) -> Lengths {
    if text.starts_with(CLOSE) {
        return (None, Some(CLOSE.len()));
    }
    let is_opening = matches!(probe(text), Probe::Call(Kind::Json | Kind::Named));
    (is_opening.then_some(OPEN.len()), None)
}

/// The length of these parts one after the other, with white space between them. The last ones may be missing where the text ends or another call
/// begins.
fn parts(text: &str, parts: &[&str], begins_another: impl Fn(&str) -> bool) -> Option<usize> {
    let mut at = 0;
    for (number, part) in parts.iter().enumerate() {
        let next = at + space(&text[at..]);
        let rest = &text[next..];
        if number > 0 && rest.is_empty() {
            return Some(next);
        }
        match rest.strip_prefix(part) {
            Some(_) => at = next + part.len(),
            None if number > 0 && begins_another(rest) => return Some(at),
            None => return None,
        }
    }
    Some(at)
}

/// Whether a call without `<tool_call>` begins here.
fn is_bare(text: &str, tools: &Tools) -> bool {
    let name = || loose_name(text, Kind::BareFunction);
    probe(text) == Probe::Call(Kind::BareFunction)
        && name().is_some_and(|name| tools.get(tools.name(name)).is_some())
}

/// `is_behind`: a call has just ended. Then one may follow without `<tool_call>`.
fn function_mark(text: &str, kind: Kind, is_behind: bool, tools: &Tools) -> Lengths {
    let mut closing = vec![FUNCTION_CLOSE];
    if kind == Kind::Function {
        closing.push(CLOSE);
    }
    let begins_another = |rest: &str| rest.starts_with(OPEN) || is_bare(rest, tools);
    if let Some(rest) = text.strip_prefix(PARAMETER_CLOSE) {
        let gap = space(rest);
        if rest[gap..].is_empty() {
            return (None, None);
        }
        let length = parts(&rest[gap..], &closing, begins_another);
        return (
            None,
            length.map(|length| PARAMETER_CLOSE.len() + gap + length),
        );
    }
    let is_opening = probe(text) == Probe::Call(kind) || is_behind && is_bare(text, tools);
    if !is_opening {
        return (None, None);
    }
    let Some(end) = text
        .find('>')
        .filter(|_| !text.starts_with(OPEN))
        .or_else(|| {
            let start = text.find(FUNCTION)?;
            Some(start + text[start..].find('>')?)
        })
    else {
        return (None, None);
    };
    let opening = end + 1;
    // A call without arguments.
    let gap = space(&text[opening..]);
    let length = parts(&text[opening + gap..], &closing, begins_another);
    (Some(opening), length.map(|length| gap + length))
}

fn keyed_mark(text: &str) -> Lengths {
    if let Some(rest) = text.strip_prefix(VALUE_CLOSE) {
        let length = parts(text, &[VALUE_CLOSE, CLOSE], |rest| rest.starts_with(OPEN));
        // At the end of the text the value's own end is all there is.
        let is_end = rest.trim_start().is_empty();
        return (None, length.filter(|_| !is_end));
    }
    if probe(text) != Probe::Call(Kind::Keyed) {
        return (None, None);
    }
    let gap = OPEN.len() + space(&text[OPEN.len()..]);
    let name = name_length(&text[gap..]).unwrap_or(text.len() - gap);
    let opening = gap + name;
    let behind = opening + space(&text[opening..]);
    let is_empty = text[behind..].starts_with(CLOSE);
    let closing = is_empty.then(|| behind - opening + CLOSE.len());
    (Some(opening), closing)
}

//! Calls of Llama 3: a JSON object that is the whole reply, or one behind `<|python_tag|>`, or `<function=NAME>{…}</function>`.

use super::schema::Tools;
use super::segments::{self, space};
use super::tags::Probe;
use super::value::{self, Fault, Reading};
use super::{Call, Ending, Found, Wrong, json, tags};

pub(super) const TAG: &str = "<|python_tag|>";
pub(super) const FUNCTION: &str = "<function=";
const FUNCTION_CLOSE: &str = "</function>";

/// The tool's name stands in so many bytes of an object.
const NAMED: usize = 400;

/// Looks at a text that begins with a marker.
pub(super) fn probe(text: &str) -> Probe {
    if let Some(rest) = text.strip_prefix(TAG) {
        let rest = rest.trim_start();
        let is_word = |letter: char| is_name(letter);
        let end = rest
            .find(|letter: char| !is_word(letter))
            .unwrap_or(rest.len());
        return match rest[end..].trim_start().chars().next() {
            None => Probe::More,
            Some('{') if end == 0 => Probe::Call(tags::Kind::Json),
            Some('(') if end > 0 => Probe::Call(tags::Kind::Json),
            Some(_) => Probe::No,
        };
    }
    let Some(rest) = text.strip_prefix(FUNCTION) else {
        return Probe::No;
    };
    match rest.find(|letter: char| !is_name(letter)) {
        None => Probe::More,
        Some(0) => Probe::No,
        Some(end) => match rest[end..].strip_prefix('>').map(str::trim_start) {
            Some(behind)
                if behind.starts_with(['{', '"']) || behind.starts_with(FUNCTION_CLOSE) =>
            {
                Probe::Call(tags::Kind::Json)
            }
            Some(behind) if FUNCTION_CLOSE.starts_with(behind) => Probe::More,
            _ => Probe::No,
        },
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':')
}

/// The tool that a call names which is one only if it is declared: `<function=` is part of HTML and of other forms, too.
pub(super) fn loose_name(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(FUNCTION)?;
    rest.split_once('>').map(|(name, _)| name)
}

/// Reads the calls that begin with the marker at `at`.
pub(super) fn call(text: &str, at: usize, tools: &Tools) -> Result<Found, Wrong> {
    if let Some(behind) = text[at..].strip_prefix(FUNCTION) {
        return function(text, text.len() - behind.len(), tools);
    }
    let start = at + TAG.len();
    let start = start + space(&text[start..]);
    if text[start..].starts_with('{') {
        return objects(text, start, tools);
    }
    // `name.call(key=value)`, as of a built-in tool.
    let wrong = || Wrong::Unreadable { tool: None };
    let end = text[start..].find('(').ok_or_else(wrong)?;
    let name = text[start..start + end].trim();
    let name = tools.name(name.strip_suffix(".call").unwrap_or(name));
    let fields =
        value::object(text, start + end, Reading::PLAIN).map_err(|_| Wrong::Unreadable {
            tool: Some(name.to_owned()),
        })?;
    let call = Call::new(name, fields.fields, tools);
    Ok(Found::new(vec![call], fields.end, fields.lacks_end))
}

fn function(text: &str, start: usize, tools: &Tools) -> Result<Found, Wrong> {
    let Some(end) = text[start..].find('>') else {
        return Err(Wrong::Unreadable { tool: None });
    };
    let name = tools.name(&text[start..start + end]);
    let wrong = |_| Wrong::Unreadable {
        tool: Some(name.to_owned()),
    };
    let at = start + end + 1;
    let at = at + space(&text[at..]);
    if let Some(behind) = text[at..].strip_prefix(FUNCTION_CLOSE) {
        let call = Call::new(name, Vec::new(), tools);
        return Ok(Found::new(vec![call], text.len() - behind.len(), false));
    }
    let read = json::arguments(text, at, Reading::PLAIN, name, tools).or_else(|fault| {
        // Quotes that tell their end by what follows: up to the end marker.
        let end = text[at..].find(FUNCTION_CLOSE).ok_or(fault)?;
        let text = &text[..at + end];
        let read = json::arguments(text, at, Reading::PLAIN, name, tools)?;
        let is_all = text[read.end..].trim_matches([' ', '\n', '}']).is_empty();
        if is_all { Ok(read) } else { Err(Fault::Wrong) }
    });
    let read = read.map_err(wrong)?;
    let behind =
        text[read.end..].trim_start_matches(|letter: char| letter.is_whitespace() || letter == '}');
    let behind_at = text.len() - behind.len();
    let has_close = behind.starts_with(FUNCTION_CLOSE);
    let end = if has_close {
        behind_at + FUNCTION_CLOSE.len()
    } else {
        read.end
    };
    Ok(Found::new(
        vec![read.call],
        end,
        read.lacks_end || !has_close,
    ))
}

/// Objects one after the other, with `;` or white space between them.
fn objects(text: &str, start: usize, tools: &Tools) -> Result<Found, Wrong> {
    let is_list = text[start..].starts_with('[');
    let start = start + usize::from(is_list);
    let mut found = Found::new(Vec::new(), start + space(&text[start..]), false);
    loop {
        let read = json::call(text, found.end, tools)?;
        found.calls.push(read.call);
        found.end = read.end;
        found.lacks_end = read.lacks_end;
        let behind = text[read.end..].trim_start_matches(is_between);
        let next = text.len() - behind.len();
        if !behind.starts_with('{') {
            let is_closed = is_list && behind.starts_with(']');
            if behind.is_empty() || is_closed {
                found.end = next + usize::from(is_closed);
            }
            found.lacks_end |= is_list && !is_closed;
            return Ok(found);
        }
        found.end = next;
    }
}

/// The whole calls of a reply that is made of calls of declared tools, and what is wrong with the one that can't be read to its end. None: it is an
/// answer.
pub(super) fn broken(text: &str, tools: &Tools, ending: &Ending) -> Option<(Vec<Call>, Wrong)> {
    let mut rest = text.trim_start();
    rest = rest.strip_prefix('[').map_or(rest, str::trim_start);
    let mut calls = Vec::new();
    while rest.starts_with('{') {
        if let Ok(read) = json::call(rest, 0, tools)
            && !read.lacks_end
            && tools.get(&read.call.name).is_some()
        {
            calls.push(read.call);
            rest = rest[read.end..].trim_start_matches(is_between);
            continue;
        }
        let near = segments::prefix(rest, NAMED);
        let tool = json::name(near).map(|name| tools.name(name).to_owned());
        let is_declared = tool.as_ref().is_some_and(|name| tools.get(name).is_some());
        let could_be_one = is_declared || tool.is_none() && begins_as_call(rest);
        let has_arguments = near.contains("\"parameters\"") || near.contains("\"arguments\"");
        let wrong = match (ending, value::object(rest, 0, Reading::PLAIN)) {
            // The object goes on to the end of the text.
            (Ending::Limit, Err(Fault::Cut)) if could_be_one => Wrong::Cut { tool },
            (Ending::Limit, Ok(read)) if read.lacks_end && could_be_one => Wrong::Cut { tool },
            (_, Err(Fault::Cut)) if is_declared => Wrong::Unreadable { tool },
            (_, Err(Fault::Wrong)) if is_declared && has_arguments => Wrong::Unreadable { tool },
            // It is the whole reply, and no call.
            (_, Ok(read)) if is_declared && has_arguments && rest[read.end..].trim().is_empty() => {
                Wrong::Unreadable { tool }
            }
            _ => return None,
        };
        return Some((calls, wrong));
    }
    None
}

fn is_between(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ';' | ',' | '}')
}

/// Whether the first key of an object, or as much of it as there is, is one of a call.
fn begins_as_call(object: &str) -> bool {
    let first = object[1..].trim_start();
    ["\"name\"", "\"type\"", "\"function\""]
        .iter()
        .any(|key| first.starts_with(key) || key.starts_with(first))
}

/// Reads a reply that is nothing but calls of declared tools. None: it is an answer.
pub(super) fn whole(text: &str, tools: &Tools) -> Option<Found> {
    let start = space(text);
    let found = objects(text, start, tools).ok()?;
    let is_whole = text[found.end..].trim().is_empty();
    let are_declared = found
        .calls
        .iter()
        .all(|call| tools.get(&call.name).is_some());
    let last = found.calls.last();
    let has_required = last.is_none_or(|call| {
        let tool = tools.get(&call.name);
        tool.is_none_or(|tool| tool.has_required(&call.input))
    });
    (is_whole && are_declared && (has_required || !found.lacks_end)).then_some(found)
}

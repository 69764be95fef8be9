//! Calls of Llama 3: a JSON object that is the whole reply, or one behind `<|python_tag|>`, or `<function=NAME>{…}</function>`.

use super::schema::Tools;
use super::segments::{self, space};
use super::tags::Probe;
use super::value::{self, Fault, Reading};
use super::{Call, Ending, Found, Wrong, json, tags};

pub const TAG: &str = "<|python_tag|>";
pub const FUNCTION: &str = "<function=";
const FUNCTION_CLOSE: &str = "</function>";

/// The tool's name stands in so many bytes of an object.
const NAMED: usize = 400;

/// Looks at a text that begins with a marker.
pub fn probe(text: &str) -> Probe {
    if text.starts_with(TAG) {
        return Probe::Call(tags::Kind::Json);
    }
    let Some(rest) = text.strip_prefix(FUNCTION) else {
        return Probe::No;
    };
    match rest.find(|letter: char| !is_name(letter)) {
        None => Probe::More,
        Some(end) => match rest[end..].strip_prefix('>').map(str::trim_start) {
            Some("") => Probe::More,
            Some(behind) if behind.starts_with('{') => Probe::Call(tags::Kind::Json),
            _ => Probe::No,
        },
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':')
}

/// Reads the calls that begin with the marker at `at`.
pub fn call(text: &str, at: usize, tools: &Tools) -> Result<Found, Wrong> {
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
    let wrong = Wrong::Unreadable { tool: None };
    let Some(end) = text[start..].find('>') else {
        return Err(wrong);
    };
    let name = tools.name(&text[start..start + end]);
    let at = start + end + 1;
    let at = at + space(&text[at..]);
    let fields = value::object(text, at, Reading::PLAIN).map_err(|_| Wrong::Unreadable {
        tool: Some(name.to_owned()),
    })?;
    let behind = text[fields.end..].trim_start();
    let behind_at = text.len() - behind.len();
    let has_close = behind.starts_with(FUNCTION_CLOSE);
    let end = if has_close {
        behind_at + FUNCTION_CLOSE.len()
    } else {
        fields.end
    };
    let call = Call::new(name, fields.fields, tools);
    Ok(Found::new(vec![call], end, fields.lacks_end || !has_close))
}

/// Objects one after the other, with `;` or white space between them.
fn objects(text: &str, start: usize, tools: &Tools) -> Result<Found, Wrong> {
    let mut found = Found::new(Vec::new(), start, false);
    loop {
        let read = json::call(text, found.end, tools)?;
        found.calls.push(read.call);
        found.end = read.end;
        found.lacks_end = read.lacks_end;
        let behind = text[read.end..].trim_start_matches(is_between);
        let next = text.len() - behind.len();
        if !behind.starts_with('{') {
            if behind.is_empty() {
                found.end = next;
            }
            return Ok(found);
        }
        found.end = next;
    }
}

/// The whole calls of a reply that is made of calls of declared tools, and what is wrong with the one that can't be read to its end. None: it is an
/// answer.
pub fn broken(text: &str, tools: &Tools, ending: &Ending) -> Option<(Vec<Call>, Wrong)> {
    let mut rest = text.trim_start();
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
            (_, Err(_)) if is_declared && has_arguments => Wrong::Unreadable { tool },
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
pub fn whole(text: &str, tools: &Tools) -> Option<Found> {
    let start = space(text);
    let found = objects(text, start, tools).ok()?;
    let is_whole = text[found.end..].trim().is_empty();
    let are_declared = found
        .calls
        .iter()
        .all(|call| tools.get(&call.name).is_some());
    (is_whole && are_declared).then_some(found)
}

//! Calls of Mistral's models: `[TOOL_CALLS]`, and behind it a list of objects, or `NAME[ARGS]{…}` for each call.

use super::schema::Tools;
use super::segments::space;
use super::tags::Probe;
use super::value::Reading;
use super::{Call, Found, Wrong, json, tags};

pub(super) const OPEN: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";

/// The longest name of a tool with what may stand behind it, in bytes.
const NAME: usize = 400;

/// Looks at a text that begins with the marker.
pub(super) fn probe(text: &str) -> Probe {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return Probe::No;
    };
    let rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('[') {
        return match inside.trim_start().chars().next() {
            None => Probe::More,
            Some('{') => Probe::Call(tags::Kind::Json),
            Some(_) => Probe::No,
        };
    }
    if rest.starts_with('{') {
        return Probe::Call(tags::Kind::Json);
    }
    let Some(end) = rest.find(|letter: char| !is_name(letter)) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = rest[end..].trim_start();
    let is_call = [ARGUMENTS, ID, "{"]
        .iter()
        .any(|next| behind.starts_with(next));
    let could = [ARGUMENTS, ID].iter().any(|next| next.starts_with(behind));
    match (end > 0 && is_call, end > 0 && could) {
        (true, _) => Probe::Call(tags::Kind::Json),
        (false, true) => Probe::More,
        (false, false) => Probe::No,
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':')
}

/// Reads the calls that begin with the marker at `at`: one marker may stand in front of several.
pub(super) fn call(text: &str, at: usize, tools: &Tools) -> Result<Found, Wrong> {
    let start = at + OPEN.len();
    let start = start + space(&text[start..]);
    if text[start..].starts_with('[') {
        return list(text, start + 1, tools);
    }
    let mut found = Found::new(Vec::new(), start, false);
    loop {
        let (call, end, lacks_end) = one(text, found.end, tools)?;
        found.calls.push(call);
        found.end = end;
        found.lacks_end = lacks_end;
        let next = text[end..].trim_start_matches(is_between);
        let is_next = next.starts_with('{') && text[start..].starts_with('{')
            || named(next).is_some_and(|(name, _)| {
                let is_declared = tools.get(tools.name(name)).is_some();
                is_declared && !name.trim().is_empty()
            });
        if lacks_end || !is_next {
            return Ok(found);
        }
        found.end = text.len() - next.len();
    }
}

/// One call: an object, or a name and its arguments.
fn one(text: &str, at: usize, tools: &Tools) -> Result<(Call, usize, bool), Wrong> {
    if text[at..].starts_with('{') {
        let read = json::call(text, at, tools)?;
        return Ok((read.call, read.end, read.lacks_end));
    }
    let (name, behind) = named(&text[at..]).ok_or_else(|| {
        let end = text[at..].find(|letter: char| !is_name(letter));
        let name = &text[at..at + end.unwrap_or_default()];
        let tool = Some(tools.name(name).to_owned());
        Wrong::Unreadable {
            tool: tool.filter(|tool| !tool.is_empty()),
        }
    })?;
    let name = tools.name(name);
    let at = text.len() - behind.len();
    let read = json::arguments(text, at, Reading::PLAIN, name, tools);
    let read = read.map_err(|_| Wrong::Unreadable {
        tool: Some(name.to_owned()),
    })?;
    Ok((read.call, read.end, read.lacks_end))
}

/// The name that a text begins with, and the arguments behind it.
fn named(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|letter: char| !is_name(letter))?;
    let mut behind = text[end..].trim_start();
    if let Some(id) = behind.strip_prefix(ID) {
        behind = &id[id.find(['[', '{'])?..];
    }
    let arguments = behind.strip_prefix(ARGUMENTS);
    let behind = arguments.unwrap_or(behind).trim_start();
    let is_call = behind.starts_with('{') || arguments.is_some() && behind.starts_with('"');
    (end > 0 && end <= NAME && is_call).then(|| (&text[..end], behind))
}

fn is_between(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ',' | ';')
}

/// The calls of a list whose opening bracket was taken.
fn list(text: &str, start: usize, tools: &Tools) -> Result<Found, Wrong> {
    let mut found = Found::new(Vec::new(), start, true);
    loop {
        let at = found.end + space(&text[found.end..]);
        if !text[at..].starts_with('{') {
            // A bracket too many.
            let behind = text[at..].trim_start_matches(['}', ' ']);
            let is_closed = behind.starts_with(']');
            found.lacks_end = !is_closed;
            found.end = match is_closed {
                true => text.len() - behind.len() + 1,
                false => at,
            };
            return Ok(found);
        }
        let read = json::call(text, at, tools)?;
        found.calls.push(read.call);
        let behind = text[read.end..].trim_start();
        let behind = behind.strip_prefix(',').unwrap_or(behind);
        found.end = text.len() - behind.len();
    }
}

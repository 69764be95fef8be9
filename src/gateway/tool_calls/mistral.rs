//! Calls of Mistral's models: `[TOOL_CALLS]`, and behind it a list of objects, or `NAME[ARGS]{…}` for each call.

use super::schema::Tools;
use super::segments::space;
use super::tags::Probe;
use super::value::{self, Reading};
use super::{Call, Found, Wrong, json, tags};

pub const OPEN: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";

/// The longest name of a tool with what may stand behind it, in bytes.
const NAME: usize = 400;

/// Looks at a text that begins with the marker.
pub fn probe(text: &str) -> Probe {
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

/// Reads the calls that begin with the marker at `at`.
pub fn call(text: &str, at: usize, tools: &Tools) -> Result<Found, Wrong> {
    let start = at + OPEN.len();
    let start = start + space(&text[start..]);
    if text[start..].starts_with('[') {
        return list(text, start + 1, tools);
    }
    if text[start..].starts_with('{') {
        let read = json::call(text, start, tools)?;
        return Ok(Found::new(vec![read.call], read.end, read.lacks_end));
    }
    let rest = &text[start..];
    let end = rest
        .find(|letter: char| !is_name(letter))
        .ok_or(Wrong::Unreadable { tool: None })?;
    let name = tools.name(&rest[..end]);
    let wrong = || Wrong::Unreadable {
        tool: Some(name.to_owned()),
    };
    let mut behind = rest[end..].trim_start();
    if let Some(id) = behind.strip_prefix(ID) {
        let end = id.find(['[', '{']).ok_or_else(wrong)?;
        behind = &id[end..];
    }
    behind = behind
        .strip_prefix(ARGUMENTS)
        .unwrap_or(behind)
        .trim_start();
    let at = text.len() - behind.len();
    let fields = value::object(text, at, Reading::PLAIN).map_err(|_| wrong())?;
    let call = Call::new(name, fields.fields, tools);
    Ok(Found::new(vec![call], fields.end, fields.lacks_end))
}

/// The calls of a list whose opening bracket was taken.
fn list(text: &str, start: usize, tools: &Tools) -> Result<Found, Wrong> {
    let mut found = Found::new(Vec::new(), start, true);
    loop {
        let at = found.end + space(&text[found.end..]);
        if !text[at..].starts_with('{') {
            let end = at + usize::from(text[at..].starts_with(']'));
            found.lacks_end = end == at;
            found.end = end;
            return Ok(found);
        }
        let read = json::call(text, at, tools)?;
        found.calls.push(read.call);
        let behind = text[read.end..].trim_start();
        let behind = behind.strip_prefix(',').unwrap_or(behind);
        found.end = text.len() - behind.len();
    }
}

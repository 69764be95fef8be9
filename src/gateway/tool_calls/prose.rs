//! Calls that a model writes as its last paragraph, without a marker: `<Write path="…" content="…"/>`, or a JSON object, in a fence or by itself.
//!
//! Only for models of which the catalogue says so, and only if a reply *ends* in exactly one such call, with the name of a declared tool and arguments
//! that its schema takes.

use super::schema::{Argument, Tools, Written};
use super::{Call, json};

/// What the block of a fence may be called.
const FENCES: [&str; 6] = ["", "json", "xml", "tool_call", "tool", "html"];

/// The longest run of backticks that begins a block.
const LONGEST_FENCE: usize = 16;

/// As many lines are looked at for the beginning of a call that the reply ends in.
const MAX_LINES: usize = 2000;

/// As many of them are read.
const MAX_TRIED: usize = 32;

/// Whether a line that begins like this may be the beginning of a call. None: more of it is needed.
pub(super) fn begins(line: &str, tools: &Tools) -> Option<bool> {
    let line = line.trim_start();
    match line.chars().next() {
        None => None,
        Some('{') => Some(true),
        Some('`') => {
            let run = line.bytes().take(LONGEST_FENCE + 1);
            let run = run.take_while(|byte| *byte == b'`').count();
            if run > LONGEST_FENCE {
                return Some(false);
            }
            let info = &line[run..];
            match info.find('\n') {
                Some(end) => Some(run >= 3 && FENCES.contains(&info[..end].trim())),
                None if run < 3 && !info.is_empty() => Some(false),
                None if info.len() > 20 => Some(false),
                None => None,
            }
        }
        Some('<') => {
            let name = &line[1..];
            match name.find(|letter: char| !(letter.is_alphanumeric() || "_-".contains(letter))) {
                Some(end) => Some(tools.get(&name[..end]).is_some() || &name[..end] == "tools"),
                None if name.len() > 128 => Some(false),
                None => None,
            }
        }
        Some(_) => Some(false),
    }
}

/// The only call of a reply, if it ends in one, and where the text in front of it ends.
pub(super) fn read(text: &str, tools: &Tools) -> Option<(usize, Call)> {
    let (end, found) = last(text, tools)?;
    let mut before = text[..end].lines().map(str::trim);
    let has_another =
        before.any(|line| line.starts_with(['{', '<']) && call(line, tools).is_some());
    (!has_another).then_some((end, found))
}

/// The call that a reply ends in, and where it begins.
fn last(text: &str, tools: &Tools) -> Option<(usize, Call)> {
    let text = text.trim_end();
    if let Some(inside) = text.strip_suffix("```") {
        let open = inside.rfind("```")?;
        let is_line = |at: usize| text[..at].is_empty() || text[..at].ends_with('\n');
        let (info, body) = inside[open + 3..].split_once('\n')?;
        if !is_line(open) || !FENCES.contains(&info.trim()) {
            return None;
        }
        return Some((open, call(body.trim(), tools)?));
    }
    let lines = text.rmatch_indices('\n').map(|(at, _)| at + 1).chain([0]);
    // The last line that begins so; what it holds must be the rest of the reply.
    let start = lines
        .take(MAX_LINES)
        .find(|at| begins(&text[*at..], tools) == Some(true) && !text[*at..].starts_with("```"))?;
    let first = first_of(text, start, tools);
    Some((first, call(text[first..].trim(), tools)?))
}

/// An object over several lines begins with the first line that makes the rest a whole object.
fn first_of(text: &str, start: usize, tools: &Tools) -> usize {
    let mut first = start;
    let lines = text[..start].rmatch_indices('\n').map(|(at, _)| at + 1);
    let lines = lines.chain([0]).take(MAX_LINES);
    let begin = lines.filter(|at| begins(&text[*at..], tools) == Some(true));
    for at in begin.take(MAX_TRIED) {
        if call(text[at..].trim(), tools).is_some() {
            first = at;
            break;
        }
    }
    first
}

/// The text as one call and nothing else.
fn call(text: &str, tools: &Tools) -> Option<Call> {
    let text = text
        .strip_prefix("<tools>")
        .and_then(|inside| inside.strip_suffix("</tools>"))
        .map_or(text, str::trim);
    let call = if text.starts_with('{') {
        let read = json::call(text, 0, tools).ok()?;
        let rest =
            text[read.end..].trim_matches(|letter: char| letter.is_whitespace() || letter == '}');
        (rest.is_empty() && !read.lacks_end).then_some(read.call)?
    } else {
        element(text, tools)?
    };
    let tool = tools.get(&call.name)?;
    tool.accepts(&call.input).then_some(call)
}

/// `<NAME key="value" …/>`, or with a closing tag.
fn element(text: &str, tools: &Tools) -> Option<Call> {
    let inside = text.strip_prefix('<')?;
    let end = inside.find(|letter: char| !(letter.is_alphanumeric() || "_-".contains(letter)))?;
    let name = &inside[..end];
    let tool = tools.get(name)?;
    let mut attributes = inside
        .strip_suffix("/>")
        .or_else(|| inside.strip_suffix(&format!("></{name}>")))?
        .get(end..)?;
    let mut arguments = Vec::new();
    loop {
        attributes = attributes.trim_start();
        if attributes.is_empty() {
            break;
        }
        let (key, rest) = attributes.split_once('=')?;
        let quote = rest
            .chars()
            .next()
            .filter(|quote| matches!(quote, '"' | '\''))?;
        let value = &rest[1..];
        // A quote in a value ends it only where another attribute or nothing follows.
        let end = value.match_indices(quote).map(|(at, _)| at).find(|at| {
            let behind = value[at + 1..].trim_start();
            let key = behind.split_once('=').map(|(key, _)| key.trim());
            behind.is_empty()
                || key.is_some_and(|key| {
                    tool.declares(key).unwrap_or(true) || tool.alias(key).is_some()
                })
        })?;
        let key = key.trim();
        arguments.push(Argument {
            key: tool.alias(key).unwrap_or(key).to_owned(),
            written: Written::Text(&value[..end]),
        });
        attributes = &value[end + 1..];
    }
    Some(Call::new(name, arguments, tools))
}

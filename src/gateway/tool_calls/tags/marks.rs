//! The openings and closings of calls in a text.

use super::probe::{Kind, Probe, loose_name, name_length, probe};
use super::{CLOSE, FUNCTION, FUNCTION_CLOSE, OPEN, PARAMETER_CLOSE, VALUE_CLOSE};
use crate::gateway::tool_calls::schema::Tools;
use crate::gateway::tool_calls::segments::{Mark, space};

/// The openings and closings of this kind.
pub(super) fn marks(text: &str, kind: Kind, tools: &Tools) -> Vec<Mark> {
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

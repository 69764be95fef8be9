//! The arguments of a call between tags.
//!
//! Values aren't escaped: the end marker of a value can stand inside of it. It counts if the next argument or the end of the call follows. A complete
//! example of a call is content all the way.

use std::collections::HashSet;
use std::ops::Range;

use super::schema::{Argument, Tool, Written};
use super::segments::space;
use super::tags::{
    CLOSE, FUNCTION, FUNCTION_CLOSE, KEY, KEY_CLOSE, Kind, NAME, OPEN, PARAMETER, PARAMETER_CLOSE,
    VALUE, VALUE_CLOSE,
};

/// The markers that a value has none of if its end marker is gone.
const MARKERS: [&str; 10] = [
    OPEN,
    CLOSE,
    FUNCTION,
    FUNCTION_CLOSE,
    PARAMETER,
    PARAMETER_CLOSE,
    KEY,
    KEY_CLOSE,
    VALUE,
    VALUE_CLOSE,
];

/// The part of a call that holds its arguments. Of the last one only the end marker may be gone: it is part of the call's.
pub(super) struct Body<'a> {
    pub text: &'a str,
    pub range: Range<usize>,
    /// The call has an end marker, which begins with that of its last argument.
    pub is_closed: bool,
    pub opaque: Vec<Range<usize>>,
    pub kind: Kind,
    pub tool: Option<&'a Tool>,
}

/// Why there are no arguments.
pub(super) enum Fault {
    Unreadable,
    Cut,
    Ambiguous,
}

/// A value without end markers behind it that are written in a wrong way: `</parameter1>`, `</parameter/>`, `</function=NAME>`.
fn without_damage(value: &str, kind: Kind) -> &str {
    // Far longer than such a marker.
    const LONGEST: usize = 80;
    if kind == Kind::Keyed {
        return value;
    }
    let mut value = value;
    loop {
        let written = value.trim_end();
        let Some(at) = written
            .rfind("</")
            .filter(|at| written.len() - at <= LONGEST)
        else {
            return value;
        };
        let marker = written[at..].trim_end_matches([',', ';', ' ']);
        let has_more = marker.len() < written.len() - at;
        let is_damaged = ["</parameter", "</function"].iter().any(|close| {
            let rest = marker.strip_prefix(close);
            rest.is_some_and(|rest| {
                let inside = rest.strip_suffix('>').unwrap_or(rest);
                (has_more || rest != ">") && !inside.contains(['<', '>', '\n'])
            })
        });
        if !is_damaged {
            return value;
        }
        value = &value[..at];
    }
}

impl<'a> Body<'a> {
    /// Reads arguments whose end markers are all there, but for the call's own.
    pub(super) fn arguments(&self) -> Result<Vec<Argument<'a>>, Fault> {
        let mut arguments: Vec<Argument> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let start = self.range.start + space(self.rest(self.range.start));
        if start == self.range.end {
            return Ok(arguments);
        }
        let first = start;
        let (mut key, mut start) = self.key(start).ok_or(Fault::Unreadable)?;
        let style = self.style(first, start);
        let (open, close) = match self.kind {
            Kind::Keyed => ("<arg_value", VALUE_CLOSE),
            _ => ("<parameter", PARAMETER_CLOSE),
        };
        let mut from = start;
        // Openings in the value that have no end yet: theirs comes first.
        let (mut depth, mut counted) = (0usize, start);
        while let Some(found) = self.rest(from).find(close) {
            let at = from + found;
            from = at + close.len();
            let index = self.opaque.partition_point(|part| part.end <= at);
            if let Some(part) = self.opaque.get(index).filter(|part| part.start <= at) {
                from = part.end;
                counted = from;
                continue;
            }
            depth += self.text[counted..at].matches(open).count();
            counted = from;
            let is_inner = depth > 0;
            depth = depth.saturating_sub(1);
            let next = from + space(self.rest(from));
            if next == self.range.end && !self.is_closed {
                if self.holds_another(key, start..at, &seen) {
                    return Err(Fault::Unreadable);
                }
                arguments.push(self.argument(key, start..at));
                return Ok(arguments);
            }
            let Some((next_key, next_start)) = self.key(next) else {
                continue;
            };
            if next_key == key && !is_inner {
                return Err(Fault::Ambiguous);
            }
            if seen.contains(next_key) || next_key == key || !self.may_follow(next_key, is_inner) {
                continue;
            }
            // The call itself is written in another way.
            if !self.is_in_style(style, at, next, next_start) {
                let declared = self.tool.and_then(|tool| tool.declares(next_key));
                match declared {
                    Some(false) => continue,
                    Some(true) | None => return Err(Fault::Ambiguous),
                }
            }
            if is_inner && self.holds_another(key, start..at, &seen) {
                return Err(Fault::Unreadable);
            }
            arguments.push(self.argument(key, start..at));
            seen.insert(key);
            (key, start, from) = (next_key, next_start, next_start);
            (depth, counted) = (0, start);
        }
        if !self.is_closed {
            return Err(Fault::Cut);
        }
        if self.holds_another(key, start..self.range.end, &seen) {
            return Err(Fault::Unreadable);
        }
        arguments.push(self.argument(key, start..self.range.end));
        Ok(arguments)
    }

    /// Whether another argument of the tool begins inside of this value, on a line of its own, and has no end of its own: then the value's is gone.
    fn holds_another(&self, key: &str, range: Range<usize>, seen: &HashSet<&str>) -> bool {
        let (open, close) = match self.kind {
            Kind::Keyed => (KEY, VALUE_CLOSE),
            _ => (PARAMETER, PARAMETER_CLOSE),
        };
        let value = &self.text[range.clone()];
        let last = value.rfind(close).unwrap_or(0);
        let found = value[last..].match_indices(open);
        found.map(|(at, _)| range.start + last + at).any(|at| {
            let before = self.text[range.start..at].trim_end_matches([' ', '\t']);
            let index = self.opaque.partition_point(|part| part.end <= at);
            let is_opaque = self.opaque.get(index).is_some_and(|part| part.start <= at);
            let is_another = |other: &str| {
                let declared = self.tool.and_then(|tool| tool.declares(other));
                declared == Some(true) && other != key && !seen.contains(other)
            };
            !is_opaque
                && before.ends_with('\n')
                && self.key(at).is_some_and(|(other, _)| is_another(other))
        })
    }

    /// The white space around a value, and between two arguments, as the template writes it. None: the end of the call tells neither.
    fn style(&self, first: usize, start: usize) -> Option<(&'a str, &'a str)> {
        if !self.is_closed {
            return None;
        }
        let close = match self.kind {
            Kind::Keyed => VALUE_CLOSE,
            _ => PARAMETER_CLOSE,
        };
        let behind = &self.text[self.range.end..];
        let between = behind.strip_prefix(close)?;
        Some((self.inner_space(first, start), &between[..space(between)]))
    }

    /// The white space inside of the argument whose key begins at `at` and whose value begins at `start`.
    fn inner_space(&self, at: usize, start: usize) -> &'a str {
        let text = self.text;
        match self.kind {
            Kind::Keyed => {
                let header = text[at..start].trim_end_matches(VALUE);
                &header[header.trim_end().len()..]
            }
            _ if text[start..].starts_with('\n') => "\n",
            _ => "",
        }
    }

    /// Whether the end of a value at `at`, with the next argument at `next`, is written as this call is.
    fn is_in_style(
        &self,
        style: Option<(&str, &str)>,
        at: usize,
        next: usize,
        next_start: usize,
    ) -> bool {
        let Some((inner, between)) = style else {
            return true;
        };
        let before = &self.text[..next];
        let has_line = self.kind == Kind::Keyed || self.text[..at].ends_with(inner);
        has_line
            && before[before.trim_end().len()..] == *between
            && self.inner_space(next, next_start) == inner
    }

    /// Whether an argument of this name may come now. One that the tool doesn't have can be made up, and the client refuses it; inside of something
    /// that isn't closed yet it is content.
    fn may_follow(&self, key: &str, is_inner: bool) -> bool {
        match self.tool.and_then(|tool| tool.declares(key)) {
            Some(true) => true,
            Some(false) | None => !is_inner,
        }
    }

    /// Reads arguments some of whose end markers are gone: each ends where the next one begins on a line of its own, or with the call. Also where the call
    /// ends.
    pub(super) fn lenient(&self) -> Option<(Vec<Argument<'a>>, usize)> {
        let inside = &self.text[self.range.clone()];
        let closes: &[&str] = match self.kind {
            Kind::Keyed => &[CLOSE],
            _ => &[FUNCTION_CLOSE, CLOSE],
        };
        let (at, close) = closes
            .iter()
            .find_map(|close| Some((inside.rfind(close)?, close)))?;
        let limit = self.range.start + at;
        // Only as the end of it all: a value can name the marker.
        let left = inside[at..].trim_end();
        let left = left.strip_suffix(CLOSE).map_or(left, str::trim_end);
        if !left.is_empty() && left != *close {
            return None;
        }
        let behind = self.text[limit + close.len()..].trim_start();
        let end = match behind.strip_prefix(CLOSE) {
            Some(behind) => self.text.len() - behind.len(),
            None => limit + close.len(),
        };
        let (open, value_close) = match self.kind {
            Kind::Keyed => (KEY, VALUE_CLOSE),
            _ => (PARAMETER, PARAMETER_CLOSE),
        };
        let mut arguments: Vec<Argument<'a>> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut last: Option<(&str, usize)> = None;
        let value = |key: &str, start: usize, end: usize| {
            let whole = self.text[start..end].trim_end();
            let written = without_damage(whole, self.kind);
            let end = match written.trim_end().strip_suffix(value_close) {
                Some(written) => start + written.len(),
                None if written.len() < whole.len() => start + written.len(),
                None => end,
            };
            self.argument(key, start..end)
        };
        for (found, _) in self.text[self.range.start..limit].match_indices(open) {
            let at = self.range.start + found;
            let before = self.text[self.range.start..at].trim_end_matches([' ', '\t']);
            let is_own_line =
                before.is_empty() || before.ends_with('\n') || before.ends_with(value_close);
            let Some((key, start)) = self.key(at).filter(|_| is_own_line) else {
                continue;
            };
            let is_known = self.tool.and_then(|tool| tool.declares(key)) != Some(false);
            if last.is_some() && (!is_known || !seen.insert(key)) {
                continue;
            }
            if let Some((key, start)) = last {
                arguments.push(value(key, start, at));
            }
            seen.insert(key);
            last = Some((key, start));
        }
        let (key, start) = last?;
        arguments.push(value(key, start, limit));
        // A value with markers in it is a guess.
        let is_plain = |argument: &Argument| match argument.written {
            Written::Text(text) => MARKERS.iter().all(|marker| !text.contains(marker)),
            Written::Value(..) => true,
        };
        arguments.iter().all(is_plain).then_some((arguments, end))
    }

    fn rest(&self, from: usize) -> &'a str {
        &self.text[from..self.range.end]
    }

    /// The key that stands here, and where its value begins.
    fn key(&self, at: usize) -> Option<(&'a str, usize)> {
        let rest = self.rest(at);
        let (key, end) = match self.kind {
            Kind::Keyed => {
                let inside = rest.strip_prefix(KEY)?;
                let end = inside.find('<').filter(|end| *end <= NAME)?;
                let behind = inside[end..].strip_prefix(KEY_CLOSE)?.trim_start();
                let value = behind.strip_prefix(VALUE)?;
                (&inside[..end], rest.len() - value.len())
            }
            _ => {
                let inside = rest.strip_prefix(PARAMETER)?;
                let end = inside.find(['>', '\n']).filter(|end| *end <= NAME)?;
                let value = inside[end..].strip_prefix('>')?;
                (&inside[..end], rest.len() - value.len())
            }
        };
        let key = key.trim().trim_matches(['"', '\'']);
        (!key.is_empty()).then_some((key, at + end))
    }

    fn argument(&self, key: &str, range: Range<usize>) -> Argument<'a> {
        let mut value = &self.text[range];
        if self.kind != Kind::Keyed {
            // The template puts each value on lines of its own.
            if let Some(inside) = value.strip_prefix('\n') {
                value = inside.strip_suffix('\n').unwrap_or(inside);
            } else if let Some(inside) = value.strip_prefix("\r\n") {
                value = inside.strip_suffix("\r\n").unwrap_or(inside);
            }
        }
        Argument {
            key: key.to_owned(),
            written: Written::Text(value),
        }
    }
}

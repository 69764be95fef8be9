//! Real marker tokens as evidence, where the letters alone have no clear meaning.
//!
//! A tokenizer has most markers as tokens of their own, and the engine tells where one of them stands. The same letters can also come as ordinary
//! tokens. So where the letters give a call that can't be read, or that can be read in several ways, the reply is read once more with those markers
//! that are real. That reading is taken only if it is clean and leaves no opening of a call outside: some tokenizers merge a marker with its
//! neighbours, and then a real one isn't told. Letters count as long as there is no trouble.

use serde_json::{Map, Value};

use super::marked::{self, Part, Reply};
use super::{Call, Wrong, markers};

/// As many ends of a turn are tried: each costs a reading.
const MAX_ENDS: usize = 8;

/// Where a real token ends the model's turn, outside of a call: behind it the model talks to itself.
pub(super) fn turn_end(reply: &Reply<'_>) -> usize {
    let ends = reply.real.iter().map(|mark| mark.start);
    let mut ends = ends.filter(|at| is_turn_end(reply, *at)).take(MAX_ENDS);
    let end = ends.find(|end| {
        is_clean(&marked::parts(&Reply {
            text: &reply.text[..*end],
            ..reply.clone()
        }))
    });
    end.unwrap_or(reply.text.len())
}

/// The parts of a reply.
pub(super) fn parts(reply: &Reply<'_>) -> Vec<Part> {
    let mut best = marked::parts(reply);
    if is_clean(&best) {
        return best;
    }
    let is_in_doubt = best.iter().any(|part| {
        matches!(
            part,
            Part::Wrong(Wrong::Ambiguous { .. } | Wrong::Unreadable { .. })
        )
    });
    if !is_in_doubt || reply.real.is_empty() {
        return best;
    }
    let Some((masked, mask)) = masked(reply) else {
        return best;
    };
    let mut parts = marked::parts(&Reply {
        text: &masked,
        ..reply.clone()
    });
    let leaves_none = parts.iter().all(|part| match part {
        Part::Text(range) => !marked::opens_a_call(reply.form, reply.text, range.clone()),
        _ => true,
    });
    // Words behind the last call may be part of it.
    let is_call = |part: &Part| matches!(part, Part::Calls(_));
    let last = parts.iter().rposition(is_call).unwrap_or(parts.len());
    let ends_well = parts[last..].iter().all(|part| match part {
        Part::Text(range) => reply.text[range.clone()].trim().is_empty(),
        _ => true,
    });
    if is_clean(&parts) && leaves_none && ends_well {
        parts.iter_mut().for_each(|part| {
            if let Part::Calls(calls) = part {
                calls.iter_mut().for_each(|call| unmask_call(call, mask));
            }
        });
        best = parts;
    }
    best
}

fn is_clean(parts: &[Part]) -> bool {
    !parts.iter().any(|part| matches!(part, Part::Wrong(_)))
}

fn is_turn_end(reply: &Reply<'_>, at: usize) -> bool {
    at < reply.text.len()
        && markers::next(reply.form, reply.text, at)
            .is_some_and(|marker| marker.at == at && marker.kind == markers::Kind::TurnEnd)
}

/// The text with a letter that isn't in it at the beginning of each marker that is made of letters although its token is known. None: there is none.
fn masked(reply: &Reply<'_>) -> Option<(String, char)> {
    let text = reply.text;
    let mask = (1..32u8)
        .filter(|byte| !byte.is_ascii_whitespace())
        .find(|byte| !text.as_bytes().contains(byte))?;
    let mut known: Vec<&str> = Vec::new();
    for mark in reply.real {
        let marker = text.get(mark.clone()).unwrap_or_default();
        if marker.starts_with('<') && !known.contains(&marker) {
            known.push(marker);
        }
    }
    let mut masked = text.as_bytes().to_vec();
    let mut has_any = false;
    for marker in known {
        for (at, _) in text.match_indices(marker) {
            if reply
                .real
                .binary_search_by_key(&at, |mark| mark.start)
                .is_err()
            {
                masked[at] = mask;
                has_any = true;
            }
        }
    }
    // One letter of ASCII stands for another.
    let masked = String::from_utf8(masked).ok().filter(|_| has_any)?;
    Some((masked, mask.into()))
}

fn unmask_call(call: &mut Call, mask: char) {
    call.name = call.name.replace(mask, "<");
    let input = std::mem::take(&mut call.input);
    call.input = unmask_fields(input, mask);
}

fn unmask_fields(fields: Map<String, Value>, mask: char) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields
        .map(|(key, value)| (key.replace(mask, "<"), unmask(value, mask)))
        .collect()
}

fn unmask(value: Value, mask: char) -> Value {
    match value {
        Value::String(text) => text.replace(mask, "<").into(),
        Value::Array(items) => items.into_iter().map(|item| unmask(item, mask)).collect(),
        Value::Object(fields) => Value::Object(unmask_fields(fields, mask)),
        other => other,
    }
}

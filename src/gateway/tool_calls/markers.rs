//! The markers of each form, and where they stand in a text.

use super::{gemma, llama, mistral, segments, tags, thoughts};
use crate::catalog::Form;

/// A marker in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub at: usize,
    pub text: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Opens a call.
    Call,
    /// Opens a thought: the number of its pair in [`thoughts::markers`].
    Thought(usize),
    /// Closes a thought.
    ThoughtEnd,
    /// Ends the model's turn.
    TurnEnd,
}

/// The text that a model writes behind its turn if nothing stops it. At the end of a reply it belongs to nobody.
const TURN_ENDS: [&str; 18] = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start_header_id|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|tool_response>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|turn>",
    "<turn|>",
    "<eos>",
    "</s>",
    "[INST]",
];

/// The longest marker, in bytes.
pub(super) const LONGEST: usize = 20;

impl Marker {
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// The markers that open a call.
pub(super) fn openings(form: Form) -> &'static [&'static str] {
    match form {
        Form::Gemma4 => &[gemma::OPEN],
        Form::Hermes | Form::Glm47 => &[tags::OPEN],
        Form::Qwen3Coder => &[tags::OPEN, tags::FUNCTION],
        Form::Llama3 => &[llama::TAG, llama::FUNCTION],
        Form::Mistral => &[mistral::OPEN],
        Form::Harmony => &[],
    }
}

/// The marker that closes a call, if the form has one.
pub(super) fn closing(form: Form) -> Option<&'static str> {
    match form {
        Form::Gemma4 => Some(gemma::CLOSE),
        Form::Hermes | Form::Glm47 | Form::Qwen3Coder => Some(tags::CLOSE),
        Form::Llama3 | Form::Mistral | Form::Harmony => None,
    }
}

/// Closing markers that models write in the place of the form's own, or behind it. Only of forms that escape a call's strings: nothing of a string
/// can be left over there.
pub(super) fn strays(form: Form) -> &'static [&'static str] {
    match form {
        Form::Hermes => &[
            "</tool_calls>",
            "</function>",
            "</function_call>",
            "</tools>",
            "</tool>",
        ],
        Form::Llama3 => &["</function>", "<function>", "</tool_call>", "}", "]"],
        Form::Mistral => &["[/TOOL_CALLS]", "</tool_call>", "}", "]"],
        Form::Gemma4 | Form::Qwen3Coder | Form::Glm47 | Form::Harmony => &[],
    }
}

/// Markers that stand inside of calls alone, of the forms that don't escape a call's strings.
pub(super) fn inner(form: Form) -> &'static [&'static str] {
    match form {
        Form::Gemma4 => &["<|\"|>"],
        Form::Qwen3Coder => &["</parameter>", "<parameter="],
        Form::Glm47 => &["</arg_value>", "<arg_value>"],
        Form::Hermes | Form::Llama3 | Form::Mistral | Form::Harmony => &[],
    }
}

/// The first marker of a text from `from` on.
pub(super) fn next(form: Form, text: &str, from: usize) -> Option<Marker> {
    let mut at = from;
    loop {
        let rest = &text[at..];
        at += match form {
            Form::Mistral => rest.find(['<', '['])?,
            _ => rest.find('<')?,
        };
        if let Some((text, kind)) = here(form, &text[at..]) {
            return Some(Marker { at, text, kind });
        }
        at += 1;
    }
}

/// The marker at the beginning of a text.
fn here(form: Form, text: &str) -> Option<(&'static str, Kind)> {
    // Most angle brackets begin no marker, and this is asked of each.
    if !matches!(text.as_bytes().get(1)?, b'|' | b'/' | b'a'..=b'z' | b'A'..=b'Z') {
        return None;
    }
    all(form).find(|(marker, _)| text.starts_with(marker))
}

fn all(form: Form) -> impl Iterator<Item = (&'static str, Kind)> {
    let thoughts = thoughts::markers(form).iter().enumerate();
    let thoughts = thoughts.flat_map(|(pair, (open, close))| {
        [(*open, Kind::Thought(pair)), (*close, Kind::ThoughtEnd)]
    });
    let calls = openings(form).iter().map(|open| (*open, Kind::Call));
    let ends = turn_ends(form).map(|end| (end, Kind::TurnEnd));
    calls.chain(thoughts).chain(ends)
}

/// `</s>` is HTML as well, and so an end for those models alone that have it.
fn turn_ends(form: Form) -> impl Iterator<Item = &'static str> {
    let has_short = form == Form::Mistral;
    TURN_ENDS
        .into_iter()
        .filter(move |end| has_short || !matches!(*end, "</s>" | "[INST]"))
}

/// How much of `text` at its end could be the beginning of a marker.
pub(super) fn partial(form: Form, text: &str) -> usize {
    partial_of(text, all(form).map(|(marker, _)| marker))
}

/// How much of `text` at its end could be the beginning of a marker that opens a call.
pub(super) fn partial_call(form: Form, text: &str) -> usize {
    partial_of(text, openings(form).iter().copied())
}

fn partial_of(text: &str, mut markers: impl Iterator<Item = &'static str>) -> usize {
    let from = text.len().saturating_sub(LONGEST);
    let Some(at) = text.as_bytes()[from..]
        .iter()
        .rposition(|byte| matches!(byte, b'<' | b'['))
    else {
        return 0;
    };
    // An ASCII letter, so a character's beginning.
    let tail = &text[from + at..];
    if markers.any(|marker| marker.len() > tail.len() && marker.starts_with(tail)) {
        tail.len()
    } else {
        0
    }
}

/// Whether a text is nothing but ends of a turn and white space, or could become that.
pub(super) fn are_turn_ends(form: Form, text: &str) -> bool {
    let mut rest = text.trim_start();
    while let Some((marker, Kind::TurnEnd)) = here(form, rest) {
        rest = rest[marker.len()..].trim_start();
    }
    rest.is_empty() || partial(form, rest) == rest.len()
}

/// Where the ends of a turn begin that a text ends in. One that a word and a space stand in front of is named, not meant.
///
/// `before`: the text in front. `is_real`: whether a real token stands at a place.
pub(super) fn without_turn_ends(
    form: Form,
    before: &str,
    text: &str,
    is_real: impl Fn(usize) -> bool,
) -> usize {
    let mut end = text.trim_end().len();
    loop {
        let left = &text[..end];
        let Some(marker) = turn_ends(form).find(|marker| left.ends_with(marker)) else {
            return end;
        };
        let at = end - marker.len();
        let prefix = if at == 0 { before } else { &text[..at] };
        let words = prefix.trim_end_matches(' ');
        let is_named = words.len() < prefix.len() && !words.ends_with('\n');
        // Of HTML.
        let line = segments::suffix(prefix.rsplit('\n').next().unwrap_or_default(), 400);
        let is_element =
            marker == "</s>" && line.matches("<s>").count() > line.matches("</s>").count();
        if (is_named || is_element) && !is_real(at) {
            return end;
        }
        end = text[..at].trim_end().len();
        if end == 0 {
            return 0;
        }
    }
}

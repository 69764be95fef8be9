//! Thoughts: where they begin and end.

use crate::catalog::Form;

/// Markers around a thought.
pub const THINK: (&str, &str) = ("<think>", "</think>");
/// Gemma 4 names the channel behind the opening.
const CHANNEL: (&str, &str) = ("<|channel>", "<channel|>");
const MISTRAL: (&str, &str) = ("[THINK]", "[/THINK]");

/// How Qwen3.5 begins a thought without a marker.
const PREAMBLES: [&str; 2] = ["Thinking Process:", "**Thinking Process:**"];

/// As much of an answer as is kept back from a model that may have left out the opening marker of a thought, in bytes: some seconds of writing.
const DOUBTFUL: usize = 2000;

/// What the reply begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A thought: the prompt ends with its opening marker.
    Thought,
    /// Whatever the model marks.
    Answer,
    /// Perhaps a thought without an opening marker: so many bytes are kept back to see whether a closing one follows.
    Doubtful(usize),
}

impl Start {
    /// `prompt_tail`: the end of the prompt. `knows_end`: the tokenizer has the closing marker as a token. `may_think`: as the catalogue says.
    pub fn of(prompt_tail: &str, knows_end: bool, may_think: bool) -> Self {
        let tail = prompt_tail.trim_end();
        let opened = [THINK.0, MISTRAL.0, "<|channel>thought"];
        let closed = [THINK.1, MISTRAL.1, CHANNEL.1];
        if opened.iter().any(|marker| tail.ends_with(marker)) {
            Self::Thought
        } else if closed.iter().any(|marker| tail.ends_with(marker)) || !may_think || !knows_end {
            Self::Answer
        } else {
            Self::Doubtful(DOUBTFUL)
        }
    }
}

/// The pairs of markers of a form.
pub fn markers(form: Form) -> &'static [(&'static str, &'static str)] {
    match form {
        Form::Gemma4 => &[CHANNEL, THINK],
        Form::Mistral => &[MISTRAL, THINK],
        _ => &[THINK],
    }
}

/// What a text that may begin with a preamble is.
pub fn preamble(text: &str) -> Option<bool> {
    if PREAMBLES.iter().any(|preamble| text.starts_with(preamble)) {
        return Some(true);
    }
    let could = PREAMBLES.iter().any(|preamble| preamble.starts_with(text));
    if could { None } else { Some(false) }
}

/// The thought without what belongs to its markers.
pub fn inside(opening: &str, thought: &str) -> usize {
    let named = if opening == CHANNEL.0 {
        thought
            .find('\n')
            .filter(|end| {
                thought[..*end]
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric())
            })
            .map_or(0, |end| end + 1)
    } else {
        0
    };
    named + (thought.len() - named - thought[named..].trim_start().len())
}

/// Where the beginning of a closing marker stands at the end of a thought.
pub fn partial(thought: &str, mut closings: impl Iterator<Item = &'static str>) -> usize {
    let at = thought.rfind(['<', '[']).unwrap_or(thought.len());
    match closings.any(|closing| closing.starts_with(&thought[at..])) {
        true => at,
        false => thought.len(),
    }
}

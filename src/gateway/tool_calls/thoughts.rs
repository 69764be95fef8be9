//! Thoughts: where they begin and end.

use super::reader::{Marked, State};
use super::{Ending, Piece, Wrong, marked};
use crate::catalog::Form;

/// Markers around a thought.
pub const THINK: (&str, &str) = ("<think>", "</think>");
/// Gemma 4 names the channel behind the opening.
const CHANNEL: (&str, &str) = ("<|channel>", "<channel|>");
const MISTRAL: (&str, &str) = ("[THINK]", "[/THINK]");

/// The longest name of a channel, in bytes.
const NAME: usize = 100;

/// White space at the end of a thought that is kept back, in bytes.
const MOST_SPACE: usize = 600;

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

/// Where the words of a thought begin, whose opening marker was taken.
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

impl Marked {
    /// The opening marker of the thought that is being read.
    fn opening(&self, pair: Option<usize>) -> &'static str {
        pair.map_or("", |pair| markers(self.form)[pair].0)
    }

    /// Reads on in a thought. Returns whether more can be done now.
    pub(super) fn thought(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let State::Thought {
            pair,
            is_first,
            has_begun,
        } = self.state
        else {
            return false;
        };
        let opening = self.opening(pair);
        let begin = match has_begun {
            true => self.at,
            false => self.at + opening.len(),
        };
        let from = self.scanned.max(begin);
        let closing = closings(self.form, pair)
            .filter_map(|closing| Some((from + self.buffer[from..].find(closing)?, closing.len())))
            .min();
        let turn_end = self.real_turn_end(from);
        if let Some(end) = turn_end.filter(|end| closing.is_none_or(|(at, _)| *end < at)) {
            // The turn ended in the thought.
            self.buffer.truncate(end);
            self.is_over = true;
        } else if let Some((at, length)) = closing {
            let start = match has_begun {
                true => begin,
                false => begin + inside(opening, &self.buffer[begin..at]),
            };
            let thought = self.buffer[start.min(at)..at].trim_end().to_owned();
            self.at = at + length;
            self.end_thought(thought, is_first, pieces);
            return true;
        }
        let words = &self.buffer[begin..];
        let keep = begin + partial(words, closings(self.form, pair));
        self.scanned = keep;
        // Another thought than the first may turn out to be none, and the first line may name a channel.
        let is_named = opening == CHANNEL.0 && !has_begun;
        if !is_first || is_named && keep - begin < NAME && !words.contains('\n') {
            return false;
        }
        let start = match has_begun {
            true => begin,
            false => begin + inside(opening, words),
        };
        // White space in front of the closing marker is not sent, within reason.
        let words = self.buffer[..keep].trim_end().len();
        let end = if keep - words.min(keep) > MOST_SPACE {
            keep
        } else {
            words
        };
        if end > start {
            let sent = self.buffer[start..end].to_owned();
            self.thought.push_str(&sent);
            self.at = end;
            self.state = State::Thought {
                pair,
                is_first,
                has_begun: true,
            };
            pieces.push(Piece::Thought(sent));
        }
        false
    }

    /// Where the first real token from `from` on ends the turn.
    fn real_turn_end(&self, from: usize) -> Option<usize> {
        let real = self.real.iter().map(|mark| mark.start);
        real.filter(|at| *at >= from && *at < self.buffer.len())
            .find(|at| {
                let marker = super::markers::next(self.form, &self.buffer, *at);
                marker.is_some_and(|marker| {
                    marker.at == *at && marker.kind == super::markers::Kind::TurnEnd
                })
            })
    }

    pub(super) fn end_thought(&mut self, thought: String, is_first: bool, pieces: &mut Vec<Piece>) {
        if !thought.is_empty() {
            pieces.push(Piece::Thought(thought));
        }
        if is_first {
            self.space.clear();
            self.has_text = false;
        }
        self.thought.clear();
        self.scanned = self.at;
        self.state = State::Text;
    }

    /// The reply has ended in its first thought.
    pub(super) fn unfinished_thought(self, pair: Option<usize>, ending: &Ending) -> Vec<Piece> {
        let rest = self.rest();
        let opening = self.opening(pair);
        let start = match self.thought.is_empty() {
            true => {
                let begin = if rest.starts_with(opening) {
                    opening.len()
                } else {
                    0
                };
                begin + inside(opening, &rest[begin..])
            }
            false => 0,
        };
        let rest = rest[start.min(rest.len())..].trim_end();
        let mut pieces = Vec::new();
        if !rest.is_empty() {
            pieces.push(Piece::Thought(rest.to_owned()));
        }
        let thought = self.thought.clone() + rest;
        if marked::has_call(self.form, &thought) && *ending != Ending::Limit {
            pieces.push(Piece::Wrong(Wrong::InThought));
        } else if !self.has_answer {
            pieces.push(Piece::Wrong(Wrong::OnlyThought));
        }
        pieces
    }
}

fn closings(form: Form, pair: Option<usize>) -> impl Iterator<Item = &'static str> {
    let pairs = markers(form).iter().enumerate();
    pairs
        .filter(move |(number, _)| pair.is_none_or(|pair| pair == *number))
        .map(|(_, (_, closing))| *closing)
}

/// Where the beginning of a closing marker stands at the end of a thought.
fn partial(thought: &str, mut closings: impl Iterator<Item = &'static str>) -> usize {
    let at = thought.rfind(['<', '[']).unwrap_or(thought.len());
    match closings.any(|closing| closing.starts_with(&thought[at..])) {
        true => at,
        false => thought.len(),
    }
}

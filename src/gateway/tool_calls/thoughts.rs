//! Thoughts: where they begin and end.

use super::reader::{Marked, State};
use super::{Ending, Piece, Wrong, marked, segments, sentence};
use crate::catalog::Form;

/// Markers around a thought.
pub(super) const THINK: (&str, &str) = ("<think>", "</think>");
/// Gemma 4 names the channel behind the opening.
const CHANNEL: (&str, &str) = ("<|channel>", "<channel|>");
const MISTRAL: (&str, &str) = ("[THINK]", "[/THINK]");

/// The longest name of a channel, in bytes.
const NAME: usize = 100;

/// White space at the end of a thought that is kept back, in bytes.
const MAX_SPACE: usize = 600;

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
pub(super) fn markers(form: Form) -> &'static [(&'static str, &'static str)] {
    match form {
        Form::Gemma4 => &[CHANNEL, THINK],
        Form::Mistral => &[MISTRAL, THINK],
        _ => &[THINK],
    }
}

/// The text behind an opening marker, without the name that Gemma's channels have. None: more of it is to come.
pub(super) fn without_name<'a>(opening: &str, behind: &'a str) -> Option<&'a str> {
    const THOUGHT: &str = "thought";
    if opening != CHANNEL.0 {
        return Some(behind);
    }
    match behind.strip_prefix(THOUGHT) {
        Some(behind) => Some(behind),
        None if THOUGHT.starts_with(behind) => None,
        None => Some(behind),
    }
}

/// A closing marker at the beginning of a reply, or what may become one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing(&'static str);

/// The closing marker that a text begins with, or could begin with.
pub(super) fn closing_at(form: Form, text: &str) -> Option<Closing> {
    let closings = markers(form).iter().map(|(_, closing)| *closing);
    let mut closings = closings.map(Closing);
    closings.find(|Closing(closing)| text.starts_with(closing) || closing.starts_with(text))
}

impl Closing {
    /// How much of a text it is that closes nothing, and so is dropped: none of it if a sentence begins with it. None: that is not known yet.
    pub(super) fn cut_off(self, text: &str) -> Option<usize> {
        let behind = text.strip_prefix(self.0)?;
        let is_named = sentence::begins_with(behind, false)?;
        Some(if is_named { 0 } else { self.0.len() })
    }
}

/// What a text that may begin with a preamble is.
pub(super) fn preamble(text: &str) -> Option<bool> {
    if PREAMBLES.iter().any(|preamble| text.starts_with(preamble)) {
        return Some(true);
    }
    let could = PREAMBLES.iter().any(|preamble| preamble.starts_with(text));
    if could { None } else { Some(false) }
}

/// Where the words of a thought begin, whose opening marker was taken.
pub(super) fn inside(opening: &str, thought: &str) -> usize {
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

    /// Reads on in a thought. Returns whether more can be done now. `is_end`: nothing follows the buffer.
    pub(super) fn thought(&mut self, is_end: bool, pieces: &mut Vec<Piece>) -> bool {
        let State::Thought {
            mut pair,
            is_first,
            has_begun,
        } = self.state
        else {
            return false;
        };
        if pair.is_none() && !has_begun {
            // Its opening marker stands in the prompt, and may be written again.
            let rest = self.rest().trim_start();
            let openings = markers(self.form).iter().map(|(opening, _)| *opening);
            let again = openings
                .clone()
                .position(|opening| rest.starts_with(opening));
            if again.is_some() {
                self.at = self.buffer.len() - rest.len();
                pair = again;
            } else if !is_end && openings.clone().any(|opening| opening.starts_with(rest)) {
                return false;
            }
            self.state = State::Thought {
                pair,
                is_first,
                has_begun,
            };
        }
        let opening = self.opening(pair);
        let begin = match has_begun {
            true => self.at,
            false => self.at + opening.len(),
        };
        let from = self.scanned.max(begin);
        let (closing, clear) = self.closing(pair, from, is_end);
        let turn_end = self.real_turn_end(from);
        if let Some(end) = turn_end.filter(|end| closing.is_none_or(|(at, _)| *end < at)) {
            // The turn ended in the thought.
            self.buffer.truncate(end);
            self.is_over = true;
        } else if let Some((at, length)) = closing {
            let words = &self.buffer[begin..at];
            let start = match has_begun {
                true if self.thought.is_empty() => begin + inside("", words),
                true => begin,
                false => begin + inside(opening, words),
            };
            let thought = self.buffer[start.min(at)..at].trim_end().to_owned();
            self.at = at + length;
            self.end_thought(thought, is_first, pieces);
            return true;
        }
        let keep = clear.min(self.buffer.len());
        let words = &self.buffer[begin..];
        let keep = keep.min(begin + partial(words, closings(self.form, pair)));
        self.scanned = keep;
        // Another thought than the first may turn out to be none, and the first line may name a channel.
        let is_named = opening == CHANNEL.0 && !has_begun;
        if !is_first || is_named && keep - begin < NAME && !words.contains('\n') {
            return false;
        }
        // White space at the beginning is nobody's.
        if !has_begun || self.thought.is_empty() {
            self.at = begin + inside(if has_begun { "" } else { opening }, &words[..keep - begin]);
        }
        let start = self.at;
        // White space in front of the closing marker is not sent, within reason.
        let words = self.buffer[..keep].trim_end().len();
        let end = if keep - words.min(keep) > MAX_SPACE {
            keep
        } else {
            words
        };
        self.state = State::Thought {
            pair,
            is_first,
            has_begun: true,
        };
        if end > start {
            let sent = self.buffer[start..end].to_owned();
            self.at = end;
            self.send_thought(&sent, pieces);
            self.thought.push_str(&sent);
        }
        false
    }

    /// The closing marker of the thought from `from` on, with its length, and up to where it is clear that there is none. One in quotes closes nothing.
    fn closing(
        &self,
        pair: Option<usize>,
        mut from: usize,
        is_end: bool,
    ) -> (Option<(usize, usize)>, usize) {
        loop {
            let found = closings(self.form, pair).filter_map(|closing| {
                Some((from + self.buffer[from..].find(closing)?, closing.len()))
            });
            let Some((at, length)) = found.min() else {
                return (None, usize::MAX);
            };
            let before = line_before(&self.thought, &self.buffer[self.at..at]);
            match sentence::is_quoted(&before, &self.buffer[at + length..], is_end) {
                Some(false) => return (Some((at, length)), at),
                Some(true) => from = at + length,
                None => return (None, at),
            }
        }
    }

    /// Sends a part of a thought. Behind another one it begins a paragraph.
    pub(super) fn send_thought(&mut self, thought: &str, pieces: &mut Vec<Piece>) {
        let begins_another = self.thought.is_empty() && self.is_behind_thought;
        let prefix = if begins_another { "\n\n" } else { "" };
        self.is_behind_thought = true;
        pieces.push(Piece::Thought(format!("{prefix}{thought}")));
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
            self.send_thought(&thought, pieces);
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
    pub(super) fn unfinished_thought(
        &mut self,
        pair: Option<usize>,
        has_begun: bool,
        ending: &Ending,
        pieces: &mut Vec<Piece>,
    ) {
        let rest = self.rest();
        let opening = self.opening(pair);
        let start = match has_begun {
            true => 0,
            false => opening.len() + inside(opening, &rest[opening.len().min(rest.len())..]),
        };
        let rest = rest[start.min(rest.len())..].trim_end().to_owned();
        if !rest.is_empty() {
            self.send_thought(&rest, pieces);
        }
        let thought = self.thought.clone() + &rest;
        if marked::has_call(self.form, &thought) && *ending != Ending::Limit {
            pieces.push(Piece::Wrong(Wrong::InThought));
        } else if !self.has_answer {
            pieces.push(Piece::Wrong(Wrong::OnlyThought));
        }
    }
}

fn closings(form: Form, pair: Option<usize>) -> impl Iterator<Item = &'static str> {
    let pairs = markers(form).iter().enumerate();
    pairs
        .filter(move |(number, _)| pair.is_none_or(|pair| pair == *number))
        .map(|(_, (_, closing))| *closing)
}

/// The end of the line in front of a closing marker: of what was sent, and of what stands in the buffer.
fn line_before(sent: &str, rest: &str) -> String {
    // Far longer than what tells whether a marker is quoted.
    const LONGEST: usize = 400;
    let near = segments::suffix(rest, LONGEST);
    let line = near.rsplit('\n').next().unwrap_or_default();
    if line.len() < rest.len() {
        return line.to_owned();
    }
    let sent = segments::suffix(sent, LONGEST);
    sent.rsplit('\n').next().unwrap_or_default().to_owned() + line
}

/// Where the closing marker of a thought stands in a text, from `from` on. One in quotes closes nothing.
pub(super) fn next_closing(text: &str, from: usize, closing: &str) -> Option<usize> {
    let mut at = from;
    loop {
        at += text[at..].find(closing)?;
        let before = line_before("", &text[..at]);
        match sentence::is_quoted(&before, &text[at + closing.len()..], true) {
            Some(true) => at += closing.len(),
            _ => return Some(at),
        }
    }
}

/// Where the beginning of a closing marker stands at the end of a thought.
fn partial(thought: &str, mut closings: impl Iterator<Item = &'static str>) -> usize {
    let at = thought.rfind(['<', '[']).unwrap_or(thought.len());
    match closings.any(|closing| closing.starts_with(&thought[at..])) {
        true => at,
        false => thought.len(),
    }
}

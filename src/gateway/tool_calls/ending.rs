//! The end of a reply: text and calls in what was kept.

use super::code::Code;
use super::marked::{Part, Reply};
use super::reader::{Marked, State};
use super::{Call, Ending, Piece, Wrong, evidence, llama, markers, prose, thoughts};
use crate::catalog::Form;

impl Marked {
    pub(super) fn finish(mut self, ending: &Ending) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if let State::Thought { is_first: true, .. } = self.state {
            // Whether a marker at the very end is quoted is clear only now.
            self.thought(true, &mut pieces);
        }
        self.last_pieces(ending, &mut pieces);
        let is_told = |piece: &Piece| matches!(piece, Piece::Wrong(_));
        if self.is_behind_thought && !self.has_answer && !pieces.iter().any(is_told) {
            pieces.push(Piece::Wrong(Wrong::OnlyThought));
        }
        pieces
    }

    fn last_pieces(&mut self, ending: &Ending, pieces: &mut Vec<Piece>) {
        match self.state {
            State::Thought {
                pair,
                is_first: true,
                has_begun,
            } => self.unfinished_thought(pair, has_begun, ending, pieces),
            State::Begin(most) => {
                let is_preamble = thoughts::preamble(self.rest()) == Some(true);
                if is_preamble && *ending == Ending::Limit {
                    return self.unfinished_thought(None, false, ending, pieces);
                }
                self.rest_of_reply(most > 0 || is_preamble, ending, pieces);
            }
            State::Kept { is_doubtful } => self.rest_of_reply(is_doubtful, ending, pieces),
            // Whether the answer names the marker of a thought in the middle is clear only now.
            State::Text | State::Last { .. } | State::Thought { .. } => {
                self.rest_of_reply(false, ending, pieces);
            }
        }
    }

    /// Text and calls in what is left.
    fn rest_of_reply(&mut self, is_doubtful: bool, ending: &Ending, pieces: &mut Vec<Piece>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let real: Vec<_> = self
            .real
            .iter()
            .filter(|mark| mark.start >= self.at)
            .map(|mark| mark.start - self.at..mark.end - self.at)
            .collect();
        buffer.drain(..self.at);
        let mut text = buffer.as_str();
        let is_real = |at: usize| real.iter().any(|mark| mark.start == at);
        let end = markers::without_turn_ends(self.form, self.code.before(), text, is_real);
        text = &text[..end];
        if self.form == Form::Llama3
            && !self.has_answer
            && self.is_whole_reply(text, ending, pieces)
        {
            return;
        }
        let mut reply = Reply {
            form: self.form,
            text,
            tools: &self.tools,
            code: self.code.clone(),
            ending,
            is_doubtful,
            real: &real,
        };
        text = &text[..evidence::turn_end(&reply)];
        reply.text = text;
        let mut parts = evidence::parts(&reply);
        if is_doubtful && *ending == Ending::Limit {
            drafted(&mut parts, text);
        }
        let is_text = parts.iter().all(|part| matches!(part, Part::Text(_)));
        if is_text
            && self.prose_calls
            && !self.has_example
            && *ending != Ending::Limit
            && let Some((end, call)) = prose::read(text, &self.tools)
            && !code_at(&self.code, &text[..end]).is_fenced()
        {
            self.send(&text[..end], pieces);
            return pieces.push(Piece::Call(call));
        }
        for part in parts {
            self.part(part, text, pieces);
        }
    }

    fn part(&mut self, part: Part, text: &str, pieces: &mut Vec<Piece>) {
        match part {
            Part::Text(range) => self.send(&text[range], pieces),
            Part::Thought(range) => {
                let thought = text[range].trim();
                if !thought.is_empty() {
                    self.send_thought(thought, pieces);
                }
                if !self.has_answer {
                    self.has_text = false;
                    self.space.clear();
                }
            }
            Part::Calls(calls) => {
                self.has_answer |= !calls.is_empty();
                self.is_behind_thought = false;
                pieces.extend(calls.into_iter().map(Piece::Call));
                self.space.clear();
                self.has_text = false;
            }
            Part::Wrong(Wrong::OnlyThought) if self.has_answer => {}
            Part::Wrong(wrong) => pieces.push(Piece::Wrong(wrong)),
        }
    }

    /// Whether a reply of Llama is nothing but JSON that calls declared tools, or the beginning of it.
    fn is_whole_reply(&mut self, text: &str, ending: &Ending, pieces: &mut Vec<Piece>) -> bool {
        let made = |calls: Vec<Call>, reader: &mut Self, pieces: &mut Vec<Piece>| {
            reader.has_answer |= !calls.is_empty();
            pieces.extend(calls.into_iter().map(Piece::Call));
        };
        match llama::whole(text, &self.tools) {
            Some(found) if found.lacks_end && *ending == Ending::Limit => {
                let tool = found.calls.into_iter().next_back().map(|call| call.name);
                pieces.push(Piece::Wrong(Wrong::Cut { tool }));
                true
            }
            Some(found) => {
                made(found.calls, self, pieces);
                true
            }
            None => {
                let Some((calls, wrong)) = llama::broken(text, &self.tools, ending) else {
                    return false;
                };
                made(calls, self, pieces);
                pieces.push(Piece::Wrong(wrong));
                true
            }
        }
    }
}

/// A reply that may have begun with a thought, and was cut behind calls: nobody knows whether these were drafted in the thought, so none is made.
fn drafted(parts: &mut Vec<Part>, text: &str) {
    let has_words = |part: &Part| match part {
        Part::Text(range) => !text[range.clone()].trim().is_empty(),
        _ => false,
    };
    let is_call = |part: &Part| matches!(part, Part::Calls(_));
    let Some(last) = parts.iter().rposition(is_call) else {
        return;
    };
    if !parts[last..].iter().any(has_words) {
        return;
    }
    let mut tool = None;
    parts.retain_mut(|part| match part {
        Part::Calls(calls) => {
            tool = calls.pop().map(|call| call.name);
            false
        }
        part => !matches!(part, Part::Wrong(_)),
    });
    parts.push(Part::Wrong(Wrong::Cut { tool }));
}

fn code_at(code: &Code, text: &str) -> Code {
    let mut code = code.clone();
    code.feed(text);
    code
}

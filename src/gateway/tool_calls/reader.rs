//! The incremental reader of a reply.

use std::ops::Range;
use std::sync::Arc;

use super::code::Code;
use super::marked;
use super::markers::{self, Kind, Marker};
use super::schema::Tools;
use super::tags::Probe;
use super::thoughts::{self, Start};
use super::{Ending, Piece, harmony, prose, sentence};
use crate::catalog::Form;

/// As much as is kept back to see whether a marker goes on as a call, in bytes.
pub(super) const MAX_PROBED: usize = 600;

/// How a reply is read.
#[derive(Debug, Clone)]
pub struct Options {
    pub form: Form,
    /// A reply that ends in a call without a marker makes it.
    pub prose_calls: bool,
    /// What the reply begins with.
    pub start: Start,
}

/// Reads a reply piece by piece.
#[derive(Debug)]
pub struct Reader(Inner);

#[derive(Debug)]
enum Inner {
    Marked(Box<Marked>),
    Harmony(Box<harmony::Reader>),
}

impl Reader {
    pub fn new(options: &Options, tools: Arc<Tools>) -> Self {
        if options.form == Form::Harmony {
            return Self(Inner::Harmony(Box::new(harmony::Reader::new(tools))));
        }
        let state = match options.start {
            Start::Thought => State::Thought {
                pair: None,
                is_first: true,
                has_begun: false,
            },
            Start::Answer => State::Begin(0),
            Start::Doubtful(most) => State::Begin(most),
        };
        Self(Inner::Marked(Box::new(Marked {
            form: options.form,
            prose_calls: options.prose_calls,
            tools,
            state,
            buffer: String::new(),
            at: 0,
            scanned: 0,
            ahead: Code::default(),
            real: Vec::new(),
            free: 0,
            has_example: false,
            code: Code::default(),
            space: String::new(),
            has_text: false,
            has_answer: false,
            is_behind_thought: false,
            thought: String::new(),
            is_over: false,
        })))
    }

    /// Takes more of the model's text, split anywhere. `marks`: where in it a real marker token stands, in bytes, and which.
    pub fn push(&mut self, text: &str, marks: &[(usize, &str)]) -> Vec<Piece> {
        match &mut self.0 {
            Inner::Marked(reader) => reader.push(text, marks),
            Inner::Harmony(reader) => reader.push(text, marks),
        }
    }

    /// The text is at its end: what was kept back.
    pub fn finish(self, ending: &Ending) -> Vec<Piece> {
        match self.0 {
            Inner::Marked(reader) => reader.finish(ending),
            Inner::Harmony(reader) => reader.finish(ending),
        }
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// Nothing was said yet. So many bytes may be a thought without its opening marker.
    Begin(usize),
    Text,
    Thought {
        /// The pair that its marker belongs to, if there was one.
        pair: Option<usize>,
        /// Whether it begins the reply. Another one could be a marker that the answer names.
        is_first: bool,
        /// Whether any of it was sent.
        has_begun: bool,
    },
    /// From the marker of a call on, everything is kept until the end. `is_doubtful`: nothing was said yet, and it may all be a thought.
    Kept {
        is_doubtful: bool,
    },
    /// What may be a call without a marker is kept until it is clear that it isn't the reply's end.
    Last {
        /// The state of the code at `looked`.
        seen: Code,
        /// Up to here it was looked at.
        looked: usize,
        /// Where the first block of code in it ended.
        closed: Option<usize>,
    },
}

/// A reader of the forms in which a marker opens a call.
#[derive(Debug)]
pub(super) struct Marked {
    pub form: Form,
    pub prose_calls: bool,
    pub tools: Arc<Tools>,
    pub state: State,
    pub buffer: String,
    /// The buffer in front of this is done with.
    pub at: usize,
    /// In front of this, nothing in the buffer needs to be looked at again.
    pub scanned: usize,
    /// The state of the code at `scanned`, while that is ahead of what was sent.
    pub ahead: Code,
    /// Where real marker tokens stand in the buffer.
    pub real: Vec<Range<usize>>,
    /// In front of this, the buffer holds no call without a marker.
    free: usize,
    /// A call without a marker was said already: another one is an example, too.
    pub has_example: bool,
    /// Up to `at`.
    pub code: Code,
    /// White space that was not sent yet: behind the last word it is nobody's.
    pub space: String,
    /// Whether the text that is being sent has begun.
    pub has_text: bool,
    /// Whether anything but thoughts was said.
    pub has_answer: bool,
    /// Whether a thought was sent, and nothing behind it.
    pub is_behind_thought: bool,
    /// The part that was sent of a thought that has not ended.
    pub thought: String,
    /// A real token has ended the model's turn: behind it the model talks to itself.
    pub is_over: bool,
}

impl Marked {
    fn push(&mut self, text: &str, marks: &[(usize, &str)]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.is_over {
            return pieces;
        }
        let before = self.buffer.len();
        self.buffer.push_str(text);
        for (at, marker) in marks {
            if text.get(*at..).is_some_and(|rest| rest.starts_with(marker)) {
                self.real.push(before + at..before + at + marker.len());
            }
        }
        if matches!(self.state, State::Last { .. }) && !self.is_refuted() {
            return pieces;
        }
        while self.step(&mut pieces) {}
        self.forget();
        pieces
    }

    /// Whether more can be done now.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Begin(most) => self.begin(most, pieces),
            State::Text => self.text(pieces),
            State::Thought { .. } => self.thought(false, pieces),
            State::Kept { .. } | State::Last { .. } => false,
        }
    }

    /// Drops the part of the buffer that is done with.
    fn forget(&mut self) {
        let done = std::mem::take(&mut self.at);
        if done == 0 {
            return;
        }
        self.buffer.drain(..done);
        self.scanned = self.scanned.saturating_sub(done);
        self.free = self.free.saturating_sub(done);
        if let State::Last { looked, closed, .. } = &mut self.state {
            *looked -= done;
            *closed = closed.map(|closed| closed - done);
        }
        self.real.retain_mut(|mark| {
            let is_left = mark.start >= done;
            if is_left {
                *mark = mark.start - done..mark.end - done;
            }
            is_left
        });
    }

    pub(super) fn rest(&self) -> &str {
        &self.buffer[self.at..]
    }

    /// Whether a real marker token stands at this place of the buffer.
    pub(super) fn is_real(&self, at: usize) -> bool {
        self.real
            .binary_search_by_key(&at, |mark| mark.start)
            .is_ok()
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if let Some(decided) = self.last_line() {
            return decided;
        }
        if self.form == Form::Llama3 && !self.has_answer {
            // JSON that is the whole answer makes a call.
            let rest = self.rest().trim_start();
            let object = rest.strip_prefix('[').unwrap_or(rest).trim_start();
            match object.chars().next() {
                None => return false,
                Some('{') => {
                    self.state = State::Kept { is_doubtful: false };
                    return false;
                }
                Some(_) => {}
            }
        }
        self.scanned = self.scanned.max(self.at);
        let marker = markers::next(self.form, &self.buffer, self.scanned);
        let clear = marker.map_or_else(
            || self.buffer.len() - markers::partial(self.form, &self.buffer[self.scanned..]),
            |marker| marker.at,
        );
        self.scanned = clear;
        let end = self.line_end(clear);
        self.say(end, pieces);
        match marker {
            _ if end < clear => true,
            None => false,
            Some(marker) => self.marker(&marker, pieces),
        }
    }

    /// Decides on a marker that the rest of the buffer begins with.
    fn marker(&mut self, marker: &Marker, pieces: &mut Vec<Piece>) -> bool {
        let rest = self.rest();
        let behind = &rest[marker.text.len()..];
        let is_real = self.is_real(marker.at);
        let is_prose = self.code.is_line_start() && !self.code.is_fenced();
        match marker.kind {
            Kind::Call => match marked::probe(self.form, rest) {
                _ if self.code.is_in_a_quoted_line() => {}
                Probe::Call(_) => {
                    self.state = State::Kept { is_doubtful: false };
                    return false;
                }
                Probe::More if rest.len() <= MAX_PROBED => return false,
                _ if is_prose && marked::is_meant(marker.text, rest) => {
                    self.state = State::Kept { is_doubtful: false };
                    return false;
                }
                _ => {}
            },
            Kind::Thought(pair) => {
                let named = thoughts::without_name(marker.text, behind);
                let is_opened = match named.and_then(|behind| self.is_named(behind)) {
                    _ if is_prose => true,
                    Some(is_named) => is_real && !is_named,
                    None if is_real => return false,
                    None => false,
                };
                if is_opened {
                    return self.begin_thought(pair, !self.has_answer);
                }
            }
            // In a line of its own it closes nothing.
            Kind::ThoughtEnd if is_prose && !is_real => match behind.chars().next() {
                None => return false,
                Some('\n') => {
                    self.at = marker.end();
                    return true;
                }
                Some(_) => {}
            },
            Kind::ThoughtEnd if is_real => match self.names(behind) {
                Some(true) => {}
                Some(false) => {
                    self.at = marker.end();
                    return true;
                }
                None => return false,
            },
            Kind::ThoughtEnd => {}
            Kind::TurnEnd if is_real => {
                let end = marker.at;
                self.buffer.truncate(end);
                self.is_over = true;
                return false;
            }
            Kind::TurnEnd => {
                if rest.len() <= MAX_PROBED && markers::are_turn_ends(self.form, rest) {
                    return false;
                }
            }
        }
        self.scanned = marker.end();
        self.say(marker.end(), pieces);
        true
    }

    /// Whether the marker that the rest of the buffer begins with is code, or named in a sentence. `behind`: the text behind it.
    fn is_named(&self, behind: &str) -> Option<bool> {
        if self.code.is_fenced() || self.code.is_quoted() {
            return Some(true);
        }
        sentence::is_named(self.code.before(), behind, false)
    }

    /// The same for a closing marker, which a sentence can begin with.
    fn names(&self, behind: &str) -> Option<bool> {
        match self.code.is_line_start() && !self.code.is_fenced() {
            true => sentence::begins_with(behind, false),
            false => self.is_named(behind),
        }
    }

    /// For a model that makes calls without a marker: text goes on line by line, and a line that could be the first of a call begins what is kept.
    fn last_line(&mut self) -> Option<bool> {
        if !self.prose_calls
            || self.at < self.free
            || !self.code.is_line_start()
            || self.code.is_fenced()
        {
            return None;
        }
        let line = self.rest().trim_start_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('\n') {
            return None;
        }
        match prose::begins(line, &self.tools) {
            Some(false) => None,
            None => Some(false),
            Some(true) => {
                self.state = State::Last {
                    seen: Code::default(),
                    looked: self.at,
                    closed: None,
                };
                if self.is_refuted() { None } else { Some(false) }
            }
        }
    }

    /// Whether text follows what may be a call in a block of code. Then the block is text, and a call without a marker is none any more if it was one.
    fn is_refuted(&mut self) -> bool {
        let State::Last {
            seen,
            looked,
            closed,
        } = &mut self.state
        else {
            return false;
        };
        if closed.is_none() {
            for (at, letter) in self.buffer[*looked..].char_indices() {
                seen.feed(letter.encode_utf8(&mut [0; 4]));
                if seen.has_closed_a_fence() {
                    *closed = Some(*looked + at + letter.len_utf8());
                    break;
                }
            }
            *looked = self.buffer.len();
        }
        let Some(end) = *closed else {
            return false;
        };
        let rest = &self.buffer[end..];
        if rest.len() <= MAX_PROBED && markers::are_turn_ends(self.form, rest) {
            return false;
        }
        let block = &self.buffer[self.at..end];
        self.has_example |= prose::read(block, &self.tools).is_some();
        self.free = end;
        self.state = State::Text;
        true
    }

    /// `end`, or the end of the line if lines are looked at one by one.
    fn line_end(&self, end: usize) -> usize {
        if !self.prose_calls || end <= self.at {
            return end;
        }
        if self.at < self.free {
            return end.min(self.free);
        }
        self.buffer[self.at..end]
            .find('\n')
            .map_or(end, |found| self.at + found + 1)
    }

    /// Sends the buffer up to here as text.
    fn say(&mut self, end: usize, pieces: &mut Vec<Piece>) {
        if end <= self.at {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let text = &buffer[self.at..end];
        self.code.feed(text);
        self.send(text, pieces);
        self.buffer = buffer;
        self.at = end;
    }

    pub(super) fn send(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let words = text.trim_end();
        if words.is_empty() {
            if self.has_text {
                self.space.push_str(text);
            }
            return;
        }
        let mut sent = std::mem::take(&mut self.space);
        sent.push_str(if self.has_text {
            words
        } else {
            words.trim_start()
        });
        self.space.push_str(&text[words.len()..]);
        self.has_text = true;
        self.has_answer = true;
        self.is_behind_thought = false;
        match pieces.last_mut() {
            Some(Piece::Text(last)) => last.push_str(&sent),
            _ => pieces.push(Piece::Text(sent)),
        }
    }
}

//! The incremental reader of a reply.

use std::sync::Arc;

use super::code::Code;
use super::marked::{self, Part};
use super::schema::Tools;
use super::tags::Probe;
use super::thoughts::{self, Start};
use super::{Ending, Piece, Wrong, harmony, llama, prose};
use crate::catalog::Form;

/// What a model writes behind its turn if nothing stops it. At the end of a reply it belongs to nobody.
const TURN_ENDS: [&str; 12] = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|user|>",
    "<|observation|>",
    "<|tool_response>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "</s>",
];

/// As much as is kept back to see whether a marker goes on as a call, in bytes.
const MOST_PROBED: usize = 4096;

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
    Harmony(harmony::Reader),
}

impl Reader {
    pub fn new(options: &Options, tools: Arc<Tools>) -> Self {
        if options.form == Form::Harmony {
            return Self(Inner::Harmony(harmony::Reader::new(tools)));
        }
        let state = match options.start {
            Start::Thought => State::Thought {
                opening: "",
                closings: thoughts::markers(options.form),
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
            code: Code::default(),
            space: String::new(),
            has_text: false,
            has_answer: false,
            thought: String::new(),
            free: 0,
        })))
    }

    /// Takes more of the model's text, split anywhere.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match &mut self.0 {
            Inner::Marked(reader) => reader.push(text),
            Inner::Harmony(reader) => reader.push(text),
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
enum State {
    /// Nothing was said yet. So many bytes may be a thought without its opening marker.
    Begin(usize),
    Text,
    Thought {
        opening: &'static str,
        closings: &'static [(&'static str, &'static str)],
        /// Whether it begins the reply. Another one could be a marker that the answer names.
        is_first: bool,
        /// Whether any of it was sent.
        has_begun: bool,
    },
    /// From the marker of a call on, everything is kept until the end.
    Kept,
    /// What may be a call without a marker is kept until it is clear that it isn't the reply's end.
    Last(Code),
}

/// A reader of the forms in which a marker opens a call.
#[derive(Debug)]
struct Marked {
    form: Form,
    prose_calls: bool,
    tools: Arc<Tools>,
    state: State,
    /// What is not decided yet.
    buffer: String,
    /// Up to the buffer's beginning.
    code: Code,
    /// White space that was not sent yet: behind the last word it is nobody's.
    space: String,
    /// Whether the text that is being sent has begun.
    has_text: bool,
    /// Whether anything but thoughts was said.
    has_answer: bool,
    /// What was sent of a thought that has not ended.
    thought: String,
    /// So much of the buffer was found to be no call without a marker, in bytes.
    free: usize,
}

/// What stands at a place in a text.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Call(&'static str),
    Thought(&'static str),
    /// A closing marker that closes nothing.
    Stray(&'static str),
    TurnEnd(&'static str),
}

impl Marked {
    fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let before = self.buffer.len();
        self.buffer.push_str(text);
        if let State::Last(seen) = &mut self.state {
            match refuted(seen, &self.buffer[before..]) {
                None => return pieces,
                Some(end) => {
                    self.free = before + end;
                    self.state = State::Text;
                }
            }
        }
        while self.step(&mut pieces) {}
        pieces
    }

    /// Whether more can be done now.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Begin(most) => self.begin(most),
            State::Text => self.text(pieces),
            State::Thought { .. } => self.thought(pieces),
            State::Kept | State::Last(_) => false,
        }
    }

    /// Decides what the reply begins with.
    fn begin(&mut self, most: usize) -> bool {
        let text = self.buffer.trim_start();
        if text.is_empty() {
            return false;
        }
        for (opening, _) in thoughts::markers(self.form) {
            if text.starts_with(opening) {
                let start = self.buffer.len() - text.len() + opening.len();
                self.drop_front(start);
                self.state = State::Thought {
                    opening,
                    closings: thoughts::markers(self.form),
                    is_first: true,
                    has_begun: false,
                };
                return true;
            }
            if opening.starts_with(text) {
                return false;
            }
        }
        if self.form == Form::Llama3 && text.starts_with('{') {
            self.state = State::Kept;
            return false;
        }
        let is_preamble = thoughts::preamble(text);
        let most = match is_preamble {
            None => return false,
            Some(true) => usize::MAX,
            Some(false) => most,
        };
        if most == 0 {
            self.state = State::Text;
            return true;
        }
        self.state = State::Begin(most);
        let closing = thoughts::markers(self.form)
            .iter()
            .filter_map(|(_, closing)| Some((self.buffer.find(closing)?, closing.len())))
            .min();
        let call = marked::opening(self.form, &self.buffer, 0).map(|(at, _)| at);
        match (closing, call) {
            // A call in front of it may hold it: that is clear at the end.
            (Some((at, length)), call) if call.is_none_or(|call| call > at) => {
                self.drop_front(at + length);
                self.state = State::Text;
                true
            }
            (_, Some(_)) => false,
            _ if self.buffer.len() > most => {
                self.state = State::Text;
                true
            }
            _ => false,
        }
    }

    /// The next place in a text at which something else than text could stand, from `from` on.
    fn next_stop(&self, text: &str, from: usize) -> Option<(usize, Stop)> {
        let mut next: Option<(usize, Stop)> = None;
        let mut offer = |at: Option<usize>, stop: Stop| {
            let at = at.map(|at| at + from);
            if let Some(at) = at
                && next.as_ref().is_none_or(|(found, _)| at < *found)
            {
                next = Some((at, stop));
            }
        };
        let rest = &text[from..];
        for opening in marked::openings(self.form) {
            offer(rest.find(opening), Stop::Call(opening));
        }
        for (opening, closing) in thoughts::markers(self.form) {
            offer(rest.find(opening), Stop::Thought(opening));
            offer(rest.find(closing), Stop::Stray(closing));
        }
        for end in TURN_ENDS {
            offer(rest.find(end), Stop::TurnEnd(end));
        }
        next
    }

    /// How much of `text` at its end could be the beginning of a marker.
    fn partial(&self, text: &str) -> usize {
        let Some(at) = text.rfind(['<', '[']) else {
            return 0;
        };
        let tail = &text[at..];
        let markers = marked::openings(self.form)
            .iter()
            .chain(
                thoughts::markers(self.form)
                    .iter()
                    .flat_map(|(open, close)| [open, close]),
            )
            .chain(&TURN_ENDS);
        let is_partial = markers.into_iter().any(|marker| marker.starts_with(tail));
        if is_partial { tail.len() } else { 0 }
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if self.prose_calls
            && let Some(decided) = self.last_line(pieces)
        {
            return decided;
        }
        let Some((at, stop)) = self.next_stop(&self.buffer, 0) else {
            let end = self.buffer.len() - self.partial(&self.buffer);
            let end = self.line_end(end);
            self.say(end, pieces);
            return false;
        };
        let end = self.line_end(at);
        self.say(end, pieces);
        if end < at {
            return true;
        }
        let rest = &self.buffer;
        match stop {
            Stop::Call(_) if self.code.is_quoted() => self.say_marker(pieces),
            Stop::Call(marker) => match marked::probe(self.form, rest) {
                Probe::Call(_) => {
                    self.state = State::Kept;
                    false
                }
                Probe::More if rest.len() <= MOST_PROBED => false,
                _ if self.code.is_line_start()
                    && !self.code.is_fenced()
                    && marked::is_meant(marker, rest) =>
                {
                    self.state = State::Kept;
                    false
                }
                _ => self.say_marker(pieces),
            },
            Stop::Thought(opening) if self.code.is_line_start() && !self.code.is_fenced() => {
                self.drop_front(opening.len());
                self.state = State::Thought {
                    opening,
                    closings: thoughts::markers(self.form),
                    is_first: !self.has_answer,
                    has_begun: false,
                };
                true
            }
            Stop::Stray(closing) if self.is_alone(closing) => {
                self.drop_front(closing.len());
                true
            }
            Stop::TurnEnd(end) if rest[end.len()..].trim().is_empty() => false,
            _ => self.say_marker(pieces),
        }
    }

    /// Whether a closing marker stands in a line of its own, or ends the reply.
    fn is_alone(&self, closing: &str) -> bool {
        self.code.is_line_start()
            && !self.code.is_fenced()
            && self.buffer[closing.len()..]
                .chars()
                .next()
                .is_none_or(|letter| letter == '\n')
    }

    /// For a model that makes calls without a marker: text goes on line by line, and a line that could be the first of a call begins what is kept.
    fn last_line(&mut self, pieces: &mut Vec<Piece>) -> Option<bool> {
        if self.free > 0 {
            let end = self.free.min(self.buffer.len());
            let end = self
                .next_stop(&self.buffer, 0)
                .map_or(end, |(at, _)| at.min(end));
            self.free -= end;
            let stops_here = end == 0;
            self.say(end, pieces);
            if stops_here {
                self.free = 0;
                return None;
            }
            return Some(!self.buffer.is_empty());
        }
        if !self.code.is_line_start() || self.code.is_fenced() {
            return None;
        }
        match prose::begins(&self.buffer, &self.tools) {
            Some(false) => None,
            None if self.buffer.trim().is_empty() => None,
            None => Some(false),
            Some(true) => {
                let mut seen = Code::default();
                match refuted(&mut seen, &self.buffer) {
                    Some(end) => {
                        self.free = end;
                        Some(true)
                    }
                    None => {
                        self.state = State::Last(seen);
                        Some(false)
                    }
                }
            }
        }
    }

    /// `end`, or the end of the line if lines are looked at one by one.
    fn line_end(&self, end: usize) -> usize {
        if !self.prose_calls {
            return end;
        }
        self.buffer[..end].find('\n').map_or(end, |at| at + 1)
    }

    /// Sends the marker at the beginning of the buffer as text.
    fn say_marker(&mut self, pieces: &mut Vec<Piece>) -> bool {
        self.say(1, pieces);
        true
    }

    /// Sends so many bytes of the buffer as text.
    fn say(&mut self, length: usize, pieces: &mut Vec<Piece>) {
        if length == 0 {
            return;
        }
        let rest = self.buffer.split_off(length);
        let text = std::mem::replace(&mut self.buffer, rest);
        self.code.feed(&text);
        self.send(&text, pieces);
    }

    fn send(&mut self, text: &str, pieces: &mut Vec<Piece>) {
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
        match pieces.last_mut() {
            Some(Piece::Text(last)) => last.push_str(&sent),
            _ => pieces.push(Piece::Text(sent)),
        }
    }

    fn drop_front(&mut self, length: usize) {
        self.buffer.drain(..length);
    }

    fn thought(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let State::Thought {
            opening,
            closings,
            is_first,
            has_begun,
        } = self.state
        else {
            return false;
        };
        let closings = closings
            .iter()
            .filter(|(open, _)| opening.is_empty() || *open == opening)
            .map(|(_, closing)| *closing);
        let closing = closings
            .clone()
            .filter_map(|closing| Some((self.buffer.find(closing)?, closing.len())))
            .min();
        let start = match has_begun {
            true => 0,
            false => thoughts::inside(opening, &self.buffer),
        };
        let Some((at, length)) = closing else {
            // Another thought than the first may turn out to be none, and the first line may name a channel.
            let is_open = !is_first || !has_begun && !self.buffer[start..].contains('\n');
            let keep = thoughts::partial(&self.buffer, closings);
            let end = self.buffer[..keep].trim_end().len();
            if !is_open && end > start {
                let sent = self.buffer[start..end].to_owned();
                self.thought.push_str(&sent);
                self.drop_front(end);
                self.state = State::Thought {
                    opening,
                    closings: thoughts::markers(self.form),
                    is_first,
                    has_begun: true,
                };
                pieces.push(Piece::Thought(sent));
            }
            return false;
        };
        let end = self.buffer[..at].trim_end().len();
        let thought = self.buffer[start.min(end)..end].to_owned();
        self.drop_front(at + length);
        self.end_thought(thought, is_first, pieces);
        true
    }

    fn end_thought(&mut self, thought: String, is_first: bool, pieces: &mut Vec<Piece>) {
        if !thought.is_empty() {
            pieces.push(Piece::Thought(thought));
        }
        if is_first {
            self.space.clear();
            self.has_text = false;
        }
        self.thought.clear();
        self.state = State::Text;
    }

    fn finish(mut self, ending: &Ending) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if let State::Begin(most) = self.state
            && most > 0
            && let Some(end) = self.end_of_doubtful_thought(ending)
        {
            let rest = self.buffer.split_off(end);
            let thought = std::mem::replace(&mut self.buffer, rest);
            let closing = thoughts::markers(self.form)
                .iter()
                .find_map(|(_, closing)| thought.strip_suffix(closing));
            let thought = closing.unwrap_or(&thought).trim().to_owned();
            self.end_thought(thought, true, &mut pieces);
        }
        if let State::Thought {
            opening, is_first, ..
        } = self.state
        {
            if is_first {
                return self.unfinished_thought(opening, ending);
            }
            // The answer names the marker.
            self.buffer.insert_str(0, opening);
            let text = std::mem::take(&mut self.buffer);
            self.code.feed(&text);
            self.send(&text, &mut pieces);
            return pieces;
        }
        self.rest(ending, &mut pieces);
        pieces
    }

    /// The reply has ended in its first thought.
    fn unfinished_thought(self, opening: &str, ending: &Ending) -> Vec<Piece> {
        let start = match self.thought.is_empty() {
            true => thoughts::inside(opening, &self.buffer),
            false => 0,
        };
        let rest = self.buffer[start..].trim_end();
        let mut pieces = Vec::new();
        if !rest.is_empty() {
            pieces.push(Piece::Thought(rest.to_owned()));
        }
        let thought = self.thought.clone() + rest;
        let has_call = marked::openings(self.form).iter().any(|opening| {
            let mut found = thought.match_indices(opening);
            found.any(|(at, _)| matches!(marked::probe(self.form, &thought[at..]), Probe::Call(_)))
        });
        if has_call && *ending != Ending::Limit {
            pieces.push(Piece::Wrong(Wrong::InThought));
        } else if !self.has_answer {
            pieces.push(Piece::Wrong(Wrong::OnlyThought));
        }
        pieces
    }

    /// Where a thought without an opening marker ends, if the reply begins with one: behind a closing marker that stands in no call.
    fn end_of_doubtful_thought(&self, ending: &Ending) -> Option<usize> {
        let parts = marked::parts(
            self.form,
            &self.buffer,
            &self.tools,
            Code::default(),
            ending,
        );
        let is_in_call = |at: usize| {
            parts
                .iter()
                .any(|part| matches!(part, Part::Calls(range, _) if range.contains(&at)))
        };
        let closings = thoughts::markers(self.form)
            .iter()
            .flat_map(|(_, closing)| {
                let found = self.buffer.match_indices(closing);
                found.map(|(at, _)| (at, at + closing.len()))
            });
        closings
            .filter(|(at, _)| !is_in_call(*at))
            .map(|(_, end)| end)
            .min()
    }

    /// What is left at the end: text and calls.
    fn rest(&mut self, ending: &Ending, pieces: &mut Vec<Piece>) {
        let mut text = std::mem::take(&mut self.buffer);
        while let Some(end) = TURN_ENDS
            .iter()
            .find(|end| text.trim_end().ends_with(**end))
        {
            text.truncate(text.trim_end().len() - end.len());
        }
        if self.form == Form::Llama3 && !self.has_answer {
            if let Some(found) = llama::whole(&text, &self.tools)
                && !(found.lacks_end && *ending == Ending::Limit)
            {
                pieces.extend(found.calls.into_iter().map(Piece::Call));
                return;
            }
        }
        let parts = marked::parts(self.form, &text, &self.tools, self.code.clone(), ending);
        let is_text = parts.iter().all(|part| matches!(part, Part::Text(_)));
        if is_text
            && self.prose_calls
            && *ending != Ending::Limit
            && let Some((end, call)) = prose::read(&text, &self.tools)
        {
            self.send(&text[..end], pieces);
            return pieces.push(Piece::Call(call));
        }
        for part in parts {
            match part {
                Part::Text(range) => self.send(&text[range], pieces),
                Part::Thought(range) => {
                    let thought = text[range].trim_end();
                    if !thought.is_empty() {
                        pieces.push(Piece::Thought(thought.to_owned()));
                    }
                }
                Part::Calls(_, calls) => {
                    pieces.extend(calls.into_iter().map(Piece::Call));
                    self.space.clear();
                    self.has_text = false;
                }
                Part::Wrong(wrong) => pieces.push(Piece::Wrong(wrong)),
            }
        }
    }
}

/// Takes more of what may be a call without a marker. The end of the first block of code in it, if something follows that block.
fn refuted(seen: &mut Code, text: &str) -> Option<usize> {
    let mut letters = [0; 4];
    for (at, letter) in text.char_indices() {
        let was_fenced = seen.is_fenced();
        if !letter.is_whitespace() && seen.has_closed_a_fence() && !was_fenced {
            return Some(at);
        }
        seen.feed(letter.encode_utf8(&mut letters));
    }
    None
}

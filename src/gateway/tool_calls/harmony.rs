//! The form of gpt-oss, "harmony": messages in channels.
//!
//! `<|channel|>analysis<|message|>` is a thought, `commentary to=functions.NAME` a call with JSON behind it, everything else the answer. A message ends
//! with `<|end|>`, `<|call|>` or `<|return|>`; the last two end the reply.

use std::sync::Arc;

use super::schema::Tools;
use super::value::{self, Quotes, Reading};
use super::{Call, Ending, Piece, Wrong};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", START];

/// The longest header of a message, in bytes.
const HEADER: usize = 1000;

/// What the message that is being read is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Header,
    Thought,
    Text,
    Call(String),
}

/// Reads a reply in this form.
#[derive(Debug)]
pub struct Reader {
    tools: Arc<Tools>,
    body: Body,
    /// What is not decided yet.
    buffer: String,
    has_answer: bool,
}

impl Reader {
    pub fn new(tools: Arc<Tools>) -> Self {
        Self {
            tools,
            body: Body::Header,
            buffer: String::new(),
            has_answer: false,
        }
    }

    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.buffer.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// Whether more can be done now.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &self.body {
            Body::Call(_) => false,
            Body::Header => self.header(),
            Body::Thought | Body::Text => {
                let found = ENDS
                    .iter()
                    .filter_map(|end| Some((self.buffer.find(end)?, *end)))
                    .min();
                let Some((at, end)) = found else {
                    let keep = partial(&self.buffer);
                    let rest = self.buffer.split_off(keep);
                    let text = std::mem::replace(&mut self.buffer, rest);
                    self.say(text, pieces);
                    return false;
                };
                let rest = match end {
                    START => self.buffer.split_off(at),
                    end => self.buffer.split_off(at + end.len()),
                };
                let mut text = std::mem::replace(&mut self.buffer, rest);
                text.truncate(at);
                self.say(text, pieces);
                self.body = Body::Header;
                true
            }
        }
    }

    fn say(&mut self, text: String, pieces: &mut Vec<Piece>) {
        if text.is_empty() {
            return;
        }
        if self.body == Body::Thought {
            return pieces.push(Piece::Thought(text));
        }
        self.has_answer |= !text.trim().is_empty();
        pieces.push(Piece::Text(text));
    }

    /// Reads the header of a message once it is whole.
    fn header(&mut self) -> bool {
        let text = self.buffer.trim_start();
        if text.is_empty() {
            return false;
        }
        let Some(at) = self.buffer.find(MESSAGE) else {
            let is_header = [START, CHANNEL, "assistant", "to="]
                .iter()
                .any(|begin| text.starts_with(begin) || begin.starts_with(text));
            if is_header && text.len() < HEADER {
                return false;
            }
            // No message of this form: an answer.
            self.body = Body::Text;
            return true;
        };
        let rest = self.buffer.split_off(at + MESSAGE.len());
        let header = std::mem::replace(&mut self.buffer, rest);
        self.body = body(&header[..at]);
        true
    }

    pub fn finish(mut self, ending: &Ending) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            match std::mem::replace(&mut self.body, Body::Header) {
                Body::Call(name) => {
                    if !self.call(&name, ending, &mut pieces) {
                        return pieces;
                    }
                    while self.step(&mut pieces) {}
                    if !matches!(self.body, Body::Call(_)) {
                        break;
                    }
                }
                body => {
                    self.body = body;
                    break;
                }
            }
        }
        if matches!(self.body, Body::Thought | Body::Text) {
            let rest = std::mem::take(&mut self.buffer);
            self.say(rest, &mut pieces);
        }
        let has_call = pieces.iter().any(|piece| matches!(piece, Piece::Call(_)));
        let is_thought = self.body == Body::Thought && !self.has_answer && !has_call;
        if is_thought {
            pieces.push(Piece::Wrong(Wrong::OnlyThought));
        }
        pieces
    }

    /// Reads the call whose message the buffer holds. False if nothing may follow it.
    fn call(&mut self, name: &str, ending: &Ending, pieces: &mut Vec<Piece>) -> bool {
        let tools = self.tools.clone();
        let name = tools.name(name);
        let text = std::mem::take(&mut self.buffer);
        let start = text.len() - text.trim_start().len();
        let reading = |quotes| Reading {
            quotes,
            tool: tools.get(name),
            opaque: &[],
        };
        let last = ENDS
            .iter()
            .filter_map(|end| text.rfind(end))
            .max()
            .unwrap_or(text.len());
        let read = value::object(&text, start, reading(Quotes::Closing))
            .or_else(|_| value::object(&text[..last], start, reading(Quotes::Inside)));
        let wrong = match read {
            Ok(read) if read.lacks_end && *ending == Ending::Limit => Wrong::Cut {
                tool: Some(name.to_owned()),
            },
            Ok(read) => {
                let behind = text[read.end..]
                    .trim_start_matches(|letter: char| letter.is_whitespace() || letter == '}');
                let end = ENDS.iter().find(|end| behind.starts_with(**end));
                let behind = match end {
                    Some(&START) | None => behind,
                    Some(end) => &behind[end.len()..],
                };
                self.buffer = behind.to_owned();
                pieces.push(Piece::Call(Call::new(name, read.fields, &tools)));
                return true;
            }
            Err(_) if *ending == Ending::Limit => Wrong::Cut {
                tool: Some(name.to_owned()),
            },
            Err(_) => Wrong::Unreadable {
                tool: Some(name.to_owned()),
            },
        };
        pieces.push(Piece::Wrong(wrong));
        false
    }
}

/// What a header announces.
fn body(header: &str) -> Body {
    let recipient = header.split_once("to=").map(|(_, rest)| {
        let end = rest
            .find(|letter: char| letter.is_whitespace() || letter == '<')
            .unwrap_or(rest.len());
        let name = &rest[..end];
        name.strip_prefix("functions.").unwrap_or(name).to_owned()
    });
    if let Some(name) = recipient.filter(|name| !name.is_empty() && name != "user") {
        return Body::Call(name);
    }
    let channel = header.rsplit(CHANNEL).next().unwrap_or_default().trim();
    let channel = channel.split(CONSTRAIN).next().unwrap_or_default();
    if channel.trim().starts_with("analysis") {
        Body::Thought
    } else {
        Body::Text
    }
}

/// Where the beginning of an end marker stands at the end of `text`.
fn partial(text: &str) -> usize {
    let from = text.rfind('<').unwrap_or(text.len());
    if ENDS.iter().any(|end| end.starts_with(&text[from..])) {
        from
    } else {
        text.len()
    }
}

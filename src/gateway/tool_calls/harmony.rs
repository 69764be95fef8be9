//! The form of gpt-oss, "harmony": messages in channels.
//!
//! `<|channel|>analysis<|message|>` is a thought, `commentary to=functions.NAME` a call with JSON behind it, everything else the answer. A message ends
//! with `<|end|>`, `<|call|>` or `<|return|>`, and another one begins with `<|start|>`. An answer can name these markers. So one of them counts if it is
//! a real token, or, as long as none of its kind was told to be real, if what follows is the end of the reply or another message. A message of
//! another role than the model's own ends the reply: the model talks to itself.

use std::sync::Arc;

use super::code::Code;
use super::schema::Tools;
use super::value::{Quotes, Reading};
use super::{Call, Ending, Piece, Wrong, json};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";
const ROLE: &str = "assistant";

/// The markers that may end the words of a message.
const ENDS: [&str; 5] = [END, CALL, RETURN, START, CHANNEL];

/// The longest header of a message, in bytes.
const HEADER: usize = 1000;

/// White space behind a marker that is waited through, in bytes.
const MAX_SPACE: usize = 600;

/// The message that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Header,
    Thought,
    Text,
    Call(String),
}

/// Reads a reply in this form.
#[derive(Debug)]
pub(super) struct Reader {
    tools: Arc<Tools>,
    body: Body,
    buffer: String,
    /// The buffer in front of this is done with.
    at: usize,
    /// Where real marker tokens stand in the buffer.
    real: Vec<usize>,
    /// The markers of which a real one was seen: their letters alone are none.
    known: Vec<&'static str>,
    /// White space in front of what may be a header.
    space: String,
    /// Another role's message has begun.
    is_over: bool,
    has_answer: bool,
    has_thought: bool,
    /// The kind of the message before, if nothing but it was said.
    before: Option<Body>,
    /// In the answer, up to `at`.
    code: Code,
}

/// Whether a marker ends the words of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ends,
    Text,
    /// More text will tell.
    Open,
}

impl Reader {
    pub(super) fn new(tools: Arc<Tools>) -> Self {
        Self {
            tools,
            body: Body::Header,
            buffer: String::new(),
            at: 0,
            real: Vec::new(),
            known: Vec::new(),
            space: String::new(),
            is_over: false,
            has_answer: false,
            has_thought: false,
            before: None,
            code: Code::default(),
        }
    }

    /// `marks`: where in `text` a real marker token stands, in bytes, and which.
    pub(super) fn push(&mut self, text: &str, marks: &[(usize, &str)]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.is_over {
            return pieces;
        }
        for (at, marker) in marks {
            self.real.push(self.buffer.len() + at);
            let known = ENDS.into_iter().find(|end| end == marker);
            if let Some(known) = known.filter(|known| !self.known.contains(known)) {
                self.known.push(known);
            }
        }
        self.buffer.push_str(text);
        while self.step(false, &mut pieces) {}
        let done = std::mem::take(&mut self.at);
        if done > 0 {
            self.buffer.drain(..done);
            self.real.retain(|at| *at >= done);
            self.real.iter_mut().for_each(|at| *at -= done);
        }
        pieces
    }

    fn rest(&self) -> &str {
        &self.buffer[self.at..]
    }

    /// Whether more can be done now. `is_end`: nothing follows the buffer.
    fn step(&mut self, is_end: bool, pieces: &mut Vec<Piece>) -> bool {
        match &self.body {
            Body::Call(_) => false,
            Body::Header => self.header(is_end, pieces),
            Body::Thought | Body::Text => self.words(is_end, pieces),
        }
    }

    fn words(&mut self, is_end: bool, pieces: &mut Vec<Piece>) -> bool {
        let mut from = self.at;
        let mut code = None;
        let mut fed = from;
        let (mut end, mut keep, mut is_over) = (self.buffer.len(), 0, false);
        while let Some(found) = self.buffer[from..].find("<|") {
            let at = from + found;
            let code = code.get_or_insert_with(|| self.code.clone());
            code.feed(&self.buffer[fed..at]);
            fed = at;
            let rest = &self.buffer[at..];
            let Some(marker) = ENDS.into_iter().find(|marker| rest.starts_with(marker)) else {
                let could = ENDS.iter().any(|marker| marker.starts_with(rest));
                if could && !is_end {
                    (end, keep) = (at, rest.len());
                    break;
                }
                from = at + 2;
                continue;
            };
            // In a block of code, letters are an example.
            let is_example = code.is_fenced() && self.body == Body::Text;
            match self.verdict(at, marker, is_end, is_example) {
                Verdict::Text => from = at + marker.len(),
                Verdict::Open => {
                    (end, keep) = (at, rest.len());
                    break;
                }
                Verdict::Ends => {
                    end = at;
                    is_over = true;
                    keep = rest.len();
                    if !matches!(marker, START | CHANNEL) {
                        keep -= marker.len();
                    }
                    break;
                }
            }
        }
        if keep == 0 && !is_end && self.buffer.ends_with('<') {
            end -= 1;
            keep = 1;
        }
        let text = self.buffer[self.at..end].to_owned();
        self.code.feed(&text);
        self.say(text, pieces);
        self.at = self.buffer.len() - keep;
        if is_over {
            self.begin(Body::Header);
        }
        is_over
    }

    /// Begins another part of the reply.
    fn begin(&mut self, body: Body) {
        let last = std::mem::replace(&mut self.body, body);
        if matches!(last, Body::Thought | Body::Text) {
            self.before = Some(last);
        }
        self.code = Code::default();
    }

    fn verdict(&self, at: usize, marker: &str, is_end: bool, is_example: bool) -> Verdict {
        if self.real.binary_search(&at).is_ok() {
            return Verdict::Ends;
        }
        if is_example || self.known.contains(&marker) || marker == CHANNEL {
            return Verdict::Text;
        }
        let behind = &self.buffer[at + marker.len()..];
        let behind = match marker {
            START => behind,
            _ => behind.trim_start(),
        };
        let next: &[&str] = match marker {
            START => &[ROLE],
            _ => &[START, END, CALL, RETURN],
        };
        if next.iter().any(|next| behind.starts_with(next)) {
            return Verdict::Ends;
        }
        let could = next.iter().any(|next| next.starts_with(behind));
        let is_long = self.buffer.len() - at > MAX_SPACE;
        match (could, is_end) {
            (true, true) if behind.is_empty() && marker != START => Verdict::Ends,
            (true, false) if !is_long => Verdict::Open,
            _ => Verdict::Text,
        }
    }

    fn say(&mut self, mut text: String, pieces: &mut Vec<Piece>) {
        if text.is_empty() {
            return;
        }
        if self.before.take().is_some_and(|before| before == self.body) {
            // Two messages of a kind, one behind the other.
            text.insert_str(0, "\n\n");
        }
        if self.body == Body::Thought {
            self.has_thought = true;
            return pieces.push(Piece::Thought(text));
        }
        self.has_answer |= !text.trim().is_empty();
        pieces.push(Piece::Text(text));
    }

    /// Reads the header of a message once it is whole.
    fn header(&mut self, is_end: bool, pieces: &mut Vec<Piece>) -> bool {
        let space = self.rest().len() - self.rest().trim_start().len();
        self.space.push_str(&self.buffer[self.at..self.at + space]);
        self.at += space;
        let text = self.rest();
        if text.is_empty() {
            return false;
        }
        // An end that is left over.
        if let Some(end) = [END, CALL, RETURN]
            .iter()
            .find(|end| text.starts_with(**end))
        {
            self.at = self.buffer.len() - text.len() + end.len();
            return true;
        }
        let begins = [START, CHANNEL, ROLE, "to=", MESSAGE, END, CALL, RETURN];
        let is_begun = begins[..5].iter().any(|begin| text.starts_with(begin));
        let could = begins.iter().any(|begin| begin.starts_with(text));
        let near = text.len().min(HEADER);
        let near = (0..=near).rev().find(|at| text.is_char_boundary(*at));
        let near = &text[..near.unwrap_or(0)];
        if is_begun && let Some(at) = near.find(MESSAGE) {
            let header = &text[..at];
            if is_of_another(header) {
                self.is_over = true;
                self.at = self.buffer.len();
                return false;
            }
            if is_header(header) {
                let body = body(header);
                self.at += at + MESSAGE.len();
                self.space.clear();
                self.begin(body);
                return true;
            }
        } else if (is_begun && text.len() < HEADER || could) && !is_end {
            return false;
        } else if is_end && (is_begun || could) {
            // The reply ends in it.
            return false;
        }
        // No message of this form: an answer. A marker that it begins with is part of it.
        let marker = ENDS.iter().find(|marker| text.starts_with(**marker));
        let end = self.buffer.len() - text.len() + marker.map_or(0, |marker| marker.len());
        let said = std::mem::take(&mut self.space) + &self.buffer[self.at..end];
        self.at = end;
        self.begin(Body::Text);
        self.code.feed(&said);
        self.say(said, pieces);
        true
    }

    pub(super) fn finish(mut self, ending: &Ending) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            while self.step(true, &mut pieces) {}
            let Body::Call(name) = std::mem::replace(&mut self.body, Body::Header) else {
                break;
            };
            if self.is_over || !self.call(&name, ending, &mut pieces) {
                return pieces;
            }
        }
        let has_call = pieces.iter().any(|piece| matches!(piece, Piece::Call(_)));
        let header = self.rest().trim().to_owned();
        let recipient = recipient(&header).filter(|_| is_header(&header));
        let is_marked = header.starts_with("<|");
        let has_said = self.has_answer || self.has_thought || has_call;
        let is_end = [END, CALL, RETURN, START]
            .iter()
            .any(|end| end.starts_with(&header));
        if self.is_over || header.is_empty() || is_end && has_said && header.len() < START.len() - 1
        {
            if self.has_thought && !self.has_answer && !has_call {
                pieces.push(Piece::Wrong(Wrong::OnlyThought));
            }
        } else if recipient.is_some() || is_marked && *ending == Ending::Limit {
            let tool = recipient.map(|name| self.tools.name(&name).to_owned());
            pieces.push(Piece::Wrong(match ending {
                Ending::Limit => Wrong::Cut { tool: None },
                Ending::Stop(_) => Wrong::Unreadable { tool },
            }));
        } else if !(is_marked && (self.has_answer || has_call)) {
            // No header after all.
            self.body = Body::Text;
            self.say(header, &mut pieces);
        }
        pieces
    }

    /// Reads the call whose message the buffer goes on with. False if nothing may follow it.
    fn call(&mut self, name: &str, ending: &Ending, pieces: &mut Vec<Piece>) -> bool {
        let tools = self.tools.clone();
        let name = declared(name, &tools);
        let text = std::mem::take(&mut self.buffer);
        let start = text.len() - text[self.at..].trim_start().len();
        self.before = None;
        let (end, wrong) = match self.arguments(&text, start, name) {
            Ok((call, end, lacks_end)) => {
                let tool = tools.get(name);
                let has_required = tool.is_none_or(|tool| tool.has_required(&call.input));
                let is_cut = lacks_end && (*ending == Ending::Limit || !has_required);
                if !is_cut {
                    pieces.push(Piece::Call(call));
                }
                (end, is_cut)
            }
            Err(()) => (text.len(), true),
        };
        if wrong {
            let tool = Some(name.to_owned());
            pieces.push(Piece::Wrong(match ending {
                Ending::Limit => Wrong::Cut { tool },
                Ending::Stop(_) => Wrong::Unreadable { tool },
            }));
        }
        let behind =
            text[end..].trim_start_matches(|letter: char| letter.is_whitespace() || letter == '}');
        self.at = text.len() - behind.len();
        self.buffer = text;
        !wrong
    }

    fn arguments(&self, text: &str, start: usize, name: &str) -> Result<(Call, usize, bool), ()> {
        let tools = &self.tools;
        let reading = |quotes| Reading {
            quotes,
            tool: tools.get(name),
            opaque: &[],
        };
        let is_empty = [END, CALL, RETURN, START]
            .iter()
            .any(|end| text[start..].starts_with(end));
        if is_empty {
            return Ok((Call::new(name, Vec::new(), tools), start, false));
        }
        if let Ok(read) = json::arguments(text, start, reading(Quotes::Closing), name, tools) {
            return Ok((read.call, read.end, read.lacks_end));
        }
        // Quotes that aren't escaped, or a bracket that is missing: up to the next end that is followed by another message.
        let ends = text[start..].match_indices("<|").map(|(at, _)| start + at);
        let mut ends = ends.filter(|at| {
            let marker = [END, CALL, RETURN]
                .into_iter()
                .find(|marker| text[*at..].starts_with(marker));
            marker.is_some_and(|marker| {
                let behind = text[at + marker.len()..].trim_start();
                behind.is_empty()
                    || behind.starts_with(START)
                    || self.real.binary_search(at).is_ok()
            })
        });
        let end = ends.next().unwrap_or(text.len());
        let part = text[..end].trim_end();
        let quotes = [Quotes::Closing, Quotes::Inside];
        let read = quotes.into_iter().find_map(|quotes| {
            let read = json::arguments(part, start, reading(quotes), name, tools).ok()?;
            // Without a bracket that closes them, everything could be part of a string.
            (quotes == Quotes::Closing || !read.lacks_end).then_some(read)
        });
        let read = read.ok_or(())?;
        let is_all = part[read.end..].trim_matches(['}', ' ', '\n']).is_empty();
        let is_good = tools
            .get(name)
            .is_none_or(|tool| tool.accepts(&read.call.input));
        // A bracket that is missing in front of an end marker was not cut.
        let lacks_end = read.lacks_end && end == text.len();
        (is_all && is_good)
            .then_some((read.call, end, lacks_end))
            .ok_or(())
    }
}

/// The tool that a recipient is. Some models write the type of what follows right behind its name.
fn declared<'a>(written: &'a str, tools: &'a Tools) -> &'a str {
    let is_declared = |name: &str| tools.get(tools.name(name)).is_some();
    let shorter = ["json", "code"]
        .into_iter()
        .find_map(|kind| written.strip_suffix(kind));
    match shorter.filter(|name| !is_declared(written) && is_declared(name)) {
        Some(name) => tools.name(name),
        None => tools.name(written),
    }
}

/// The tool or person that a header addresses.
fn recipient(header: &str) -> Option<String> {
    let (_, rest) = header.split_once("to=")?;
    let end = rest
        .find(|letter: char| letter.is_whitespace() || letter == '<')
        .unwrap_or(rest.len());
    let name = rest[..end].trim_matches(['"', '\'']);
    let name = name.strip_prefix("functions.").unwrap_or(name);
    (!name.is_empty() && !matches!(name, "user" | "assistant" | "all")).then(|| name.to_owned())
}

/// Whether a header names another role than the model's own.
fn is_of_another(header: &str) -> bool {
    let role = header.trim_start().strip_prefix(START).unwrap_or(ROLE);
    let end = role
        .find(|letter: char| letter == '<' || letter.is_whitespace())
        .unwrap_or(role.len());
    end > 0 && &role[..end] != ROLE
}

/// Whether a text in front of `<|message|>` is a header, and no sentence.
fn is_header(header: &str) -> bool {
    if header.is_empty() {
        return true;
    }
    let has_part = header.contains(CHANNEL) || header.contains("to=") || header.contains(START);
    has_part && header.split_whitespace().count() <= 8
}

/// The kind of message that a header announces.
fn body(header: &str) -> Body {
    if let Some(name) = recipient(header) {
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

//! A whole text in a form in which a marker opens a call: its words, its thoughts and its calls.

use std::ops::Range;

use super::code::{self, Code};
use super::schema::Tools;
use super::tags::Probe;
use super::{Call, Ending, Found, Wrong, gemma, llama, mistral, tags, thoughts};
use crate::catalog::Form;

/// A part of a text.
#[derive(Debug)]
pub enum Part {
    Text(Range<usize>),
    Thought(Range<usize>),
    Calls(Range<usize>, Vec<Call>),
    /// The rest of the text belongs to it.
    Wrong(Wrong),
}

/// The markers that open a call.
pub fn openings(form: Form) -> &'static [&'static str] {
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
fn closing(form: Form) -> Option<&'static str> {
    match form {
        Form::Gemma4 => Some(gemma::CLOSE),
        Form::Hermes | Form::Glm47 | Form::Qwen3Coder => Some(tags::CLOSE),
        Form::Llama3 | Form::Mistral | Form::Harmony => None,
    }
}

/// Whether a text that begins with a marker goes on as a call.
pub fn probe(form: Form, text: &str) -> Probe {
    match form {
        Form::Gemma4 => gemma::probe(text),
        Form::Llama3 => llama::probe(text),
        Form::Mistral => mistral::probe(text),
        Form::Hermes | Form::Glm47 | Form::Qwen3Coder | Form::Harmony => tags::probe(text),
    }
}

/// The first opening marker of a text from `from` on.
pub fn opening(form: Form, text: &str, from: usize) -> Option<(usize, &'static str)> {
    let found = openings(form)
        .iter()
        .filter_map(|opening| Some((from + text[from..].find(opening)?, *opening)));
    found.min()
}

/// Whether a marker at the beginning of a line, which goes on as no call, was meant to open one: no word follows it as in a sentence.
pub fn is_meant(marker: &str, text: &str) -> bool {
    text[marker.len()..].chars().next().is_none_or(|next| {
        next == '\n' || next == '\r' || next == '{' || next == '[' || next.is_alphanumeric()
    })
}

/// Cuts a text into its parts. `code`: the state at its beginning.
pub fn parts(form: Form, text: &str, tools: &Tools, mut code: Code, ending: &Ending) -> Vec<Part> {
    let mut readers = Readers {
        form,
        text,
        tools,
        tags: tags::Reader::new(text, tools),
        gemma: gemma::Reader::new(text, tools),
    };
    let mut parts: Vec<Part> = Vec::new();
    // From here on nothing was decided, and up to here the state of the code is known.
    let (mut start, mut at) = (0, 0);
    loop {
        let call = opening(form, text, at);
        let thought = thought(form, text, at)
            .filter(|thought| call.is_none_or(|(call, _)| thought.opening.start < call));
        if let Some(thought) = thought {
            code.feed(&text[at..thought.opening.start]);
            if code.is_line_start() && !code.is_fenced() && !code.is_quoted() {
                parts.push(Part::Text(start..thought.opening.start));
                parts.push(Part::Thought(thought.inside));
                at = thought.end;
                start = at;
            } else {
                code.feed(&text[thought.opening.clone()]);
                at = thought.opening.end;
            }
            continue;
        }
        let Some((call, marker)) = call else {
            parts.push(Part::Text(start..text.len()));
            return parts;
        };
        code.feed(&text[at..call]);
        match readers.outcome(call, marker, &code, ending) {
            Outcome::Text(end) => {
                code.feed(&text[call..end]);
                at = end;
            }
            Outcome::Calls(found) => {
                parts.push(Part::Text(start..call));
                parts.push(Part::Calls(call..found.end, found.calls));
                at = found.end;
                start = at;
            }
            Outcome::Wrong(wrong) => {
                parts.push(Part::Text(start..call));
                parts.push(Part::Wrong(wrong));
                return parts;
            }
        }
    }
}

/// A thought with both of its markers.
struct Thought {
    opening: Range<usize>,
    inside: Range<usize>,
    end: usize,
}

fn thought(form: Form, text: &str, from: usize) -> Option<Thought> {
    let found = thoughts::markers(form).iter().filter_map(|(open, close)| {
        let at = from + text[from..].find(open)?;
        let start = at + open.len();
        let length = text[start..].find(close)?;
        let inside = start + thoughts::inside(open, &text[start..start + length])..start + length;
        Some(Thought {
            opening: at..start,
            inside,
            end: start + length + close.len(),
        })
    });
    found.min_by_key(|thought| thought.opening.start)
}

/// What the marker of a call turns out to be.
enum Outcome {
    /// Text, up to here.
    Text(usize),
    Calls(Found),
    Wrong(Wrong),
}

struct Readers<'a> {
    form: Form,
    text: &'a str,
    tools: &'a Tools,
    tags: tags::Reader<'a>,
    gemma: gemma::Reader<'a>,
}

impl Readers<'_> {
    fn outcome(&mut self, at: usize, marker: &str, code: &Code, ending: &Ending) -> Outcome {
        let rest = &self.text[at..];
        let behind = at + marker.len();
        if code.is_quoted() {
            return Outcome::Text(behind);
        }
        match probe(self.form, rest) {
            Probe::Call(_) => {}
            Probe::More if *ending == Ending::Limit && !code.is_fenced() => {
                return Outcome::Wrong(Wrong::Cut { tool: None });
            }
            Probe::More | Probe::No => {
                let is_wrong =
                    code.is_line_start() && !code.is_fenced() && self.is_broken(at, marker);
                return match (is_wrong, ending) {
                    (false, _) => Outcome::Text(behind),
                    (true, Ending::Limit) => Outcome::Wrong(Wrong::Cut { tool: None }),
                    (true, Ending::Stop(_)) => Outcome::Wrong(Wrong::Unreadable { tool: None }),
                };
            }
        }
        let found = self.call(at);
        // An example in a fence or in quotation marks, which are closed behind it.
        let end = found.as_ref().map_or(behind, |found| found.end);
        let rest = &self.text[end..];
        let is_example = code.is_fenced() && code::closes_a_fence(rest)
            || found.is_ok()
                && code
                    .closing_quote()
                    .is_some_and(|quote| rest.starts_with(quote));
        if is_example {
            return Outcome::Text(end);
        }
        match (found, ending) {
            (Ok(mut found), Ending::Limit) if found.lacks_end => {
                let last = found.calls.pop().map(|call| call.name);
                Outcome::Wrong(Wrong::Cut { tool: last })
            }
            (Ok(mut found), _) => {
                found.end = self.past_closings(found.end);
                Outcome::Calls(found)
            }
            (Err(Wrong::Unreadable { tool } | Wrong::Cut { tool }), Ending::Limit) => {
                Outcome::Wrong(Wrong::Cut { tool })
            }
            (Err(Wrong::Cut { tool }), Ending::Stop(_)) => {
                Outcome::Wrong(Wrong::Unreadable { tool })
            }
            (Err(wrong), _) => Outcome::Wrong(wrong),
        }
    }

    fn call(&mut self, at: usize) -> Result<Found, Wrong> {
        match self.form {
            Form::Gemma4 => self.gemma.call(at),
            Form::Llama3 => llama::call(self.text, at, self.tools),
            Form::Mistral => mistral::call(self.text, at, self.tools),
            Form::Hermes | Form::Glm47 | Form::Qwen3Coder | Form::Harmony => self.tags.call(at),
        }
    }

    /// Past closing markers that are left over behind a call.
    fn past_closings(&self, mut end: usize) -> usize {
        while let Some(closing) = closing(self.form)
            && let Some(rest) = self.text[end..].trim_start().strip_prefix(closing)
        {
            end = self.text.len() - rest.len();
        }
        end
    }

    /// Whether a marker at the beginning of a line opens something that was to be a call.
    fn is_broken(&self, at: usize, marker: &str) -> bool {
        let rest = &self.text[at..];
        if !is_meant(marker, rest) {
            return false;
        }
        let Some(closing) = closing(self.form) else {
            return true;
        };
        let Some(end) = rest.find(closing) else {
            return rest[marker.len()..].is_empty() || rest[marker.len()..].starts_with('\n');
        };
        let behind = rest[end + closing.len()..].trim_start();
        behind.is_empty() || behind.starts_with(marker)
    }
}

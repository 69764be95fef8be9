//! A whole text in a form in which a marker opens a call: its words, its thoughts and its calls.
//!
//! A call in a span of code, in a quoted line, in quotation marks or in a fenced block is an example if what quotes it is closed behind it. If it
//! isn't, the quotes belong to the words in front, and the call is one. A closing marker of a thought behind calls, with no opening one in front, says
//! that the calls were drafted in a thought.

mod calls;

use std::ops::Range;

use super::code::{self, Code};
use super::markers::{self, Kind, Marker};
use super::schema::Tools;
use super::tags::Probe;
use super::{Call, Ending, Wrong, gemma, llama, mistral, sentence, tags, thoughts};
use crate::catalog::Form;

/// As often a marker may be written again before its call begins.
const MAX_REPEATED: usize = 3;

/// The rest of a reply, and how it is read.
#[derive(Clone)]
pub(super) struct Reply<'a> {
    pub form: Form,
    pub text: &'a str,
    pub tools: &'a Tools,
    /// The state of the code at the text's beginning.
    pub code: Code,
    pub ending: &'a Ending,
    /// Nothing was said yet, and the text may begin with a thought without its opening marker.
    pub is_doubtful: bool,
    /// Where real marker tokens stand.
    pub real: &'a [Range<usize>],
}

/// A part of a text.
#[derive(Debug)]
pub(super) enum Part {
    Text(Range<usize>),
    Thought(Range<usize>),
    Calls(Vec<Call>),
    /// The rest of the text belongs to it.
    Wrong(Wrong),
}

/// Whether a text that begins with a marker goes on as a call.
pub(super) fn probe(form: Form, text: &str) -> Probe {
    let mut rest = text;
    for _ in 0..MAX_REPEATED {
        let own = match form {
            Form::Gemma4 => gemma::probe(rest),
            Form::Llama3 => llama::probe(rest),
            Form::Mistral => mistral::probe(rest),
            Form::Hermes | Form::Glm47 | Form::Qwen3Coder | Form::Harmony => tags::probe(rest),
        };
        if own != Probe::No {
            return own;
        }
        match again(form, rest) {
            Some(Some(behind)) => rest = behind,
            Some(None) => return Probe::More,
            None => return Probe::No,
        }
    }
    Probe::No
}

/// The text from the second marker on that opens the same call again. None inside: it may become one.
fn again(form: Form, text: &str) -> Option<Option<&str>> {
    let opening = markers::openings(form).first()?;
    let behind = text.strip_prefix(opening)?.trim_start();
    if behind.starts_with(opening) {
        return Some(Some(behind));
    }
    (!behind.is_empty() && opening.starts_with(behind)).then_some(None)
}

/// Whether a call is opened anywhere in a text.
pub(super) fn has_call(form: Form, text: &str) -> bool {
    opens_a_call(form, text, 0..text.len())
}

/// Whether a call is opened in a part of a text.
pub(super) fn opens_a_call(form: Form, text: &str, part: Range<usize>) -> bool {
    let mut at = part.start;
    while let Some(marker) = markers::next(form, text, at).filter(|marker| marker.at < part.end) {
        if marker.kind == Kind::Call && matches!(probe(form, &text[marker.at..]), Probe::Call(_)) {
            return true;
        }
        at = marker.end();
    }
    false
}

/// Whether a marker at the beginning of a line, which goes on as no call, was meant to open one: no word follows it as in a sentence.
pub(super) fn is_meant(marker: &str, text: &str) -> bool {
    text[marker.len()..].chars().next().is_none_or(|next| {
        matches!(next, '\n' | '\r' | '{' | '[' | '"' | '`' | '<') || next.is_alphanumeric()
    })
}

/// Cuts a text into its parts.
pub(super) fn parts(reply: &Reply<'_>) -> Vec<Part> {
    let mut cutter = Cutter {
        tags: tags::Reader::new(reply.text, reply.tools),
        gemma: gemma::Reader::new(reply.text, reply.tools),
        code: reply.code.clone(),
        parts: Vec::new(),
        start: 0,
        at: 0,
        ends: Vec::new(),
        last_fence: code::last_fence(reply.text),
        is_doubtful: reply.is_doubtful,
        has_calls: false,
        failed: 0,
        reply,
    };
    while let Some(marker) = markers::next(reply.form, reply.text, cutter.at) {
        cutter.pass(marker.at);
        let goes_on = match marker.kind {
            Kind::Call => cutter.call(&marker),
            Kind::Thought(pair) => cutter.thought(&marker, pair),
            Kind::ThoughtEnd => cutter.thought_end(&marker),
            Kind::TurnEnd => {
                cutter.pass(marker.end());
                true
            }
        };
        if !goes_on {
            return cutter.parts;
        }
    }
    cutter.finish()
}

struct Cutter<'a, 'b> {
    reply: &'b Reply<'a>,
    tags: tags::Reader<'a>,
    gemma: gemma::Reader<'a>,
    /// At `at`.
    code: Code,
    parts: Vec<Part>,
    /// The text from here on is in no part yet.
    start: usize,
    /// In front of this everything was looked at.
    at: usize,
    /// The next closing of each pair of a thought's markers, and from where on it was looked for.
    ends: Vec<(usize, Option<usize>)>,
    last_fence: Option<usize>,
    is_doubtful: bool,
    has_calls: bool,
    /// As many calls in quotes couldn't be read.
    failed: usize,
}

impl<'a> Cutter<'a, '_> {
    fn pass(&mut self, to: usize) {
        self.code.feed(&self.reply.text[self.at..to]);
        self.at = to;
    }

    fn is_real(&self, at: usize) -> bool {
        let real = self.reply.real;
        real.binary_search_by_key(&at, |mark| mark.start).is_ok()
    }

    /// Whether a marker is code, or named in a sentence.
    fn is_named(&self, marker: &Marker) -> bool {
        let behind = &self.reply.text[marker.end()..];
        let behind = thoughts::without_name(marker.text, behind).unwrap_or(behind);
        self.code.is_fenced()
            || self.code.is_quoted()
            || sentence::is_named(self.code.before(), behind, true) == Some(true)
    }

    fn is_prose(&self) -> bool {
        self.code.is_line_start() && !self.code.is_fenced() && !self.code.is_quoted()
    }

    /// The text that isn't in a part yet, up to here.
    fn text_up_to(&mut self, end: usize) {
        self.parts.push(Part::Text(self.start..end));
    }

    fn go_on(&mut self, at: usize) {
        self.at = at;
        self.start = at;
    }

    fn finish(mut self) -> Vec<Part> {
        let text = self.reply.text;
        if self.is_torn(text.len()) {
            return self.parts;
        }
        self.pass(text.len());
        let partial = markers::partial_call(self.reply.form, text);
        let begin = text.len() - partial;
        // A marker that was cut itself: the rest of a sentence has a letter in front.
        let is_cut = partial > 1
            && begin >= self.start
            && *self.reply.ending == Ending::Limit
            && !self.code.is_fenced()
            && !self.code.is_quoted()
            && !text[..begin].ends_with('`');
        if is_cut {
            self.text_up_to(begin);
            self.parts.push(Part::Wrong(Wrong::Cut { tool: None }));
        } else {
            self.text_up_to(text.len());
        }
        self.parts
    }

    fn thought(&mut self, marker: &Marker, pair: usize) -> bool {
        let is_real = self.is_real(marker.at);
        if !self.is_prose() && (!is_real || self.is_named(marker)) {
            self.pass(marker.end());
            return true;
        }
        let (open, close) = thoughts::markers(self.reply.form)[pair];
        let text = self.reply.text;
        if let Some(end) = self.next_end(pair, close, marker.end()) {
            let inside = &text[marker.end()..end];
            let start = marker.end() + thoughts::inside(open, inside);
            self.text_up_to(marker.at);
            self.parts.push(Part::Thought(start.min(end)..end));
            self.go_on(end + close.len());
            self.is_doubtful = false;
            return true;
        }
        let rest = &text[marker.end()..];
        let is_meant = is_real || rest.starts_with('\n') || open != thoughts::THINK.0;
        if !is_meant {
            self.pass(marker.end());
            return true;
        }
        // The thought has no end.
        self.text_up_to(marker.at);
        let start = marker.end() + thoughts::inside(open, rest);
        self.parts.push(Part::Thought(start..text.len()));
        let is_limit = *self.reply.ending == Ending::Limit;
        if has_call(self.reply.form, rest) && !is_limit {
            self.parts.push(Part::Wrong(Wrong::InThought));
        } else {
            self.parts.push(Part::Wrong(Wrong::OnlyThought));
        }
        false
    }

    /// The first closing marker from `from` on. Looked for once, however often it is asked for.
    fn next_end(&mut self, pair: usize, close: &str, from: usize) -> Option<usize> {
        while self.ends.len() <= pair {
            self.ends.push((usize::MAX, None));
        }
        let (looked, found) = self.ends[pair];
        let is_known = looked <= from && found.is_none_or(|found| found >= from);
        if !is_known {
            let found = thoughts::next_closing(self.reply.text, from, close);
            self.ends[pair] = (from, found);
        }
        self.ends[pair].1
    }

    /// A closing marker without an opening one.
    fn thought_end(&mut self, marker: &Marker) -> bool {
        let text = self.reply.text;
        let is_real = self.is_real(marker.at);
        let behind = &text[marker.end()..];
        let is_named = self.code.is_quoted()
            || self.code.is_fenced() && !self.code.is_line_start()
            || self.is_prose() && sentence::begins_with(behind, true) == Some(true)
            || sentence::is_named(self.code.before(), behind, true) == Some(true);
        if is_named {
            self.pass(marker.end());
            return true;
        }
        let has_calls = std::mem::take(&mut self.has_calls);
        let rest = text[marker.end()..].trim();
        if self.is_doubtful || has_calls {
            self.parts.clear();
            self.parts.push(Part::Thought(0..marker.at));
            self.code = Code::default();
            self.go_on(marker.end());
            self.is_doubtful = false;
            if rest.is_empty() {
                self.parts.push(Part::Wrong(match has_calls {
                    true => Wrong::InThought,
                    false => Wrong::OnlyThought,
                }));
                return false;
            }
            return true;
        }
        let is_alone = self.is_prose() && text[marker.end()..].starts_with('\n');
        let is_real = is_real && !self.code.is_fenced();
        if is_real || is_alone || self.is_prose() && rest.is_empty() {
            self.text_up_to(marker.at);
            self.go_on(marker.end());
        } else {
            self.pass(marker.end());
        }
        true
    }
}

//! The decision on each marker of a call: a call, an example of one, or something that was to be one.

use super::{Cutter, Part, again, is_meant, opens_a_call, probe};
use crate::catalog::Form;
use crate::gateway::tool_calls::markers::{self, Kind, Marker};
use crate::gateway::tool_calls::tags::{self, Probe};
use crate::gateway::tool_calls::{
    Call, Ending, Found, Wrong, code, json, llama, mistral, segments, sentence,
};

/// As many calls in quotes are tried that can't be read: each can cost a reading of the whole text.
const MAX_FAILED: usize = 16;

/// The length of something that was to be a call and is none, in bytes.
const MAX_BROKEN: usize = 4000;

/// The meaning that the marker of a call turns out to have.
enum Outcome {
    /// Text, up to here.
    Text(usize),
    Calls(Found),
    /// Calls, and one that isn't whole.
    Torn(Vec<Call>, Wrong),
    /// Nothing at all, up to here.
    Nothing(usize),
    Wrong(Wrong),
}

impl Cutter<'_, '_> {
    /// Decides on the marker of a call. Whether the text goes on behind it.
    pub(super) fn call(&mut self, marker: &Marker) -> bool {
        match self.outcome(marker) {
            Outcome::Text(end) => {
                self.pass(end);
                true
            }
            Outcome::Calls(found) => {
                if self.is_torn(marker.at) {
                    return false;
                }
                self.text_up_to(marker.at);
                self.parts.push(Part::Calls(found.calls));
                self.has_calls = true;
                self.code.pass_call();
                self.go_on(found.end);
                true
            }
            Outcome::Torn(calls, wrong) => {
                self.text_up_to(marker.at);
                if !calls.is_empty() {
                    self.parts.push(Part::Calls(calls));
                }
                self.parts.push(Part::Wrong(wrong));
                false
            }
            Outcome::Nothing(end) => {
                self.text_up_to(marker.at);
                self.go_on(end);
                true
            }
            Outcome::Wrong(wrong) => {
                self.text_up_to(marker.at);
                self.parts.push(Part::Wrong(wrong));
                false
            }
        }
    }

    fn outcome(&mut self, marker: &Marker) -> Outcome {
        let text = self.reply.text;
        let rest = &text[marker.at..];
        let is_limit = *self.reply.ending == Ending::Limit;
        let behind = marker.end();
        if self.code.is_in_a_quoted_line() {
            return Outcome::Text(behind);
        }
        let is_code = self.code.is_fenced() || self.code.is_quoted();
        if !is_code
            && let Some(Some(again)) = again(self.reply.form, rest)
            && probe(self.reply.form, rest) != Probe::No
        {
            return Outcome::Nothing(text.len() - again.len());
        }
        if self.is_behind_a_call(marker.at) && text[behind..].trim().is_empty() && !is_limit {
            // An opening in the place of a closing.
            return Outcome::Nothing(text.len());
        }
        let probed = match probe(self.reply.form, rest) {
            Probe::Call(kind) if self.is_loose(rest, kind) => match marker.text {
                tags::FUNCTION => return Outcome::Text(behind),
                _ => Probe::No,
            },
            probed => probed,
        };
        let is_alone = || {
            let before = self.code.before();
            self.code.is_line_start()
                || sentence::ends_a_sentence(before) && !before.ends_with([' ', '\t'])
        };
        let is_wrong = match probed {
            Probe::Call(_) => return self.called(marker, is_code),
            Probe::More if is_limit => !is_code,
            // All that follows could become a call.
            Probe::More => !is_code && !self.is_named(marker),
            Probe::No => !is_code && is_alone() && self.is_broken(marker),
        };
        match (is_wrong, is_limit) {
            (false, _) => Outcome::Text(behind),
            (true, true) => Outcome::Wrong(Wrong::Cut { tool: None }),
            (true, false) => Outcome::Wrong(Wrong::Unreadable { tool: None }),
        }
    }

    /// Whether nothing but white space stands between the last call and `at`.
    fn is_behind_a_call(&self, at: usize) -> bool {
        matches!(self.parts.last(), Some(Part::Calls(_)))
            && self.reply.text[self.start..at].trim().is_empty()
    }

    /// Whether this would be a call of a tool that isn't declared, and lacks what tells a call from words about one: its marker, or arguments.
    fn is_loose(&self, text: &str, kind: tags::Kind) -> bool {
        let tools = self.reply.tools;
        let name = match self.reply.form {
            Form::Llama3 => llama::loose_name(text),
            // Other tools than the declared ones can be called by their name alone.
            Form::Glm47 if kind == tags::Kind::Keyed => tags::loose_name(text, kind)
                .filter(|_| text[tags::OPEN.len()..].starts_with([' ', '\t'])),
            Form::Hermes | Form::Qwen3Coder | Form::Glm47 => tags::loose_name(text, kind),
            Form::Gemma4 | Form::Mistral | Form::Harmony => None,
        };
        name.is_some_and(|name| tools.get(tools.name(name)).is_none())
    }

    /// Decides on a marker behind which a call stands.
    fn called(&mut self, marker: &Marker, is_code: bool) -> Outcome {
        let behind = marker.end();
        let is_limit = *self.reply.ending == Ending::Limit;
        if is_code && self.failed > MAX_FAILED {
            return Outcome::Text(behind);
        }
        let found = self.read(marker.at);
        if let Some(end) = self.end_of_example(&found, behind) {
            self.failed += usize::from(found.is_err());
            return Outcome::Text(end);
        }
        match found {
            Ok(mut found) if is_limit && found.lacks_end => {
                let tool = found.calls.pop().map(|call| call.name);
                Outcome::Torn(found.calls, Wrong::Cut { tool })
            }
            Ok(mut found) if found.lacks_end && !self.has_required(&found) => {
                let tool = found.calls.pop().map(|call| call.name);
                Outcome::Torn(found.calls, Wrong::Unreadable { tool })
            }
            Ok(mut found) if found.is_left_open && (is_limit || self.has_words(found.end)) => {
                let tool = found.calls.pop().map(|call| call.name).unwrap_or_default();
                Outcome::Wrong(match is_limit {
                    true => Wrong::Cut { tool: Some(tool) },
                    false => Wrong::Ambiguous { tool },
                })
            }
            // A file about tool calls could go on there, and be cut.
            Ok(mut found)
                if is_limit
                    && !markers::inner(self.reply.form).is_empty()
                    && self.is_last(found.end)
                    && self.has_words(found.end) =>
            {
                let tool = found.calls.pop().map(|call| call.name);
                Outcome::Torn(found.calls, Wrong::Cut { tool })
            }
            Ok(found) if self.is_in_doubt(marker, &found) => {
                let tool = found.calls.into_iter().next().map(|call| call.name);
                Outcome::Wrong(Wrong::Unreadable { tool })
            }
            Ok(mut found) => {
                found.end = self.past_closings(found.end);
                Outcome::Calls(found)
            }
            Err(Wrong::Unreadable { tool } | Wrong::Cut { tool }) => {
                Outcome::Wrong(match is_limit {
                    true => Wrong::Cut { tool },
                    false => Wrong::Unreadable { tool },
                })
            }
            Err(wrong) => Outcome::Wrong(wrong),
        }
    }

    /// Whether no other call follows a call.
    fn is_last(&self, end: usize) -> bool {
        !opens_a_call(self.reply.form, self.reply.text, end..self.reply.text.len())
    }

    /// Whether anything but white space and closing markers stands behind a call.
    fn has_words(&self, end: usize) -> bool {
        !self.reply.text[self.past_closings(end)..].trim().is_empty()
    }

    /// Whether the last call has all arguments that its tool requires.
    fn has_required(&self, found: &Found) -> bool {
        found.calls.last().is_none_or(|call| {
            let tool = self.reply.tools.get(&call.name);
            tool.is_none_or(|tool| tool.has_required(&call.input))
        })
    }

    /// Whether a call without its marker stands at the end of a sentence: it may be shown there.
    fn is_in_doubt(&self, marker: &Marker, found: &Found) -> bool {
        let is_bare = matches!(
            self.reply.form,
            Form::Hermes | Form::Qwen3Coder | Form::Glm47
        ) && marker.text == tags::FUNCTION;
        let before = self.code.before().trim_end();
        let is_line = !self.reply.text[marker.at..found.end].contains('\n');
        is_bare && is_line && !before.is_empty() && !sentence::ends_a_sentence(before)
    }

    /// Where the text goes on behind a call that is shown, and not made. None: it isn't, or what quotes it isn't closed behind it.
    fn end_of_example(&self, found: &Result<Found, Wrong>, behind: usize) -> Option<usize> {
        let text = self.reply.text;
        let end = found.as_ref().map_or(behind, |found| found.end);
        let is_limit = *self.reply.ending == Ending::Limit;
        if self.code.is_fenced() {
            let is_closed = self.last_fence.is_some_and(|fence| fence >= end);
            return match found {
                // What quotes it may be closed behind the limit.
                Ok(_) => (is_closed || is_limit).then_some(end),
                // In a block that is closed, a call that can't be read isn't looked at again.
                Err(_) if is_closed => code::next_fence(text, behind).or(Some(behind)),
                Err(_) => None,
            };
        }
        if self.code.is_quoted() {
            let Some(next) = text[end..].find(['`', '\n']) else {
                return (is_limit && found.is_ok()).then_some(end);
            };
            return text[end + next..].starts_with('`').then_some(end);
        }
        let closings = self.code.closings();
        if found.is_ok() && !closings.is_empty() {
            let rest = text[end..].trim_start();
            let is_closed = closings.iter().any(|closing| rest.starts_with(closing));
            if is_closed || rest.is_empty() && is_limit {
                return Some(end);
            }
        }
        let before = self.code.before();
        match found {
            Ok(_) => {
                let behind = &text[self.past_closings(end)..];
                let goes_on = sentence::goes_on(before, behind) && !self.begins_another(behind);
                goes_on.then_some(end)
            }
            Err(Wrong::Unreadable { tool }) if !is_limit => {
                let tools = self.reply.tools;
                let declared = tool.as_ref().and_then(|tool| tools.get(tool));
                if declared.is_some() {
                    return None;
                }
                let closing = markers::closing(self.reply.form)?;
                let near = segments::prefix(&text[behind..], MAX_BROKEN);
                let inside = near.find(closing)?;
                let rest = &text[behind + inside + closing.len()..];
                let is_shown = json::has_placeholder(&near[..inside])
                    || sentence::goes_on(before, rest) && !self.begins_another(rest);
                is_shown.then_some(behind)
            }
            Err(_) => None,
        }
    }

    /// Whether another call begins here, behind what may stand between two.
    fn begins_another(&self, text: &str) -> bool {
        let is_between = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ';');
        let rest = text.trim_start_matches(is_between);
        let form = self.reply.form;
        let mut openings = markers::openings(form).iter();
        openings.any(|opening| rest.starts_with(opening))
    }

    /// Whether the text behind a call, up to `end`, holds markers that stand inside of calls: then the call may go on there, and isn't made.
    pub(super) fn is_torn(&mut self, end: usize) -> bool {
        let Some(Part::Calls(calls)) = self.parts.last_mut() else {
            return false;
        };
        let whole = &self.reply.text[self.start..end];
        // Behind its turn the model talks to itself.
        let mut text = whole;
        let mut at = 0;
        while let Some(marker) = markers::next(self.reply.form, whole, at) {
            if marker.kind == Kind::TurnEnd {
                text = &whole[..marker.at];
                break;
            }
            at = marker.end();
        }
        let is_plain = |at: usize, marker: &str| {
            !text[..at].ends_with(['`', '"', '\'', '“'])
                && !text[at + marker.len()..].starts_with(['`', '"', '\'', '”'])
        };
        let has_inner = markers::inner(self.reply.form).iter().any(|marker| {
            let mut found = text.match_indices(marker);
            found.any(|(at, _)| is_plain(at, marker))
        });
        if !has_inner {
            return false;
        }
        let torn = calls.pop().map(|call| call.name);
        if calls.is_empty() {
            self.parts.pop();
        }
        let tool = torn.unwrap_or_default();
        self.parts.push(Part::Wrong(Wrong::Ambiguous { tool }));
        true
    }

    fn read(&mut self, at: usize) -> Result<Found, Wrong> {
        let (text, tools) = (self.reply.text, self.reply.tools);
        match self.reply.form {
            Form::Gemma4 => self.gemma.call(at),
            Form::Llama3 => llama::call(text, at, tools),
            Form::Mistral => mistral::call(text, at, tools),
            Form::Hermes | Form::Glm47 | Form::Qwen3Coder | Form::Harmony => self.tags.call(at),
        }
    }

    /// Past closing markers that are left over behind a call, those of other forms too, and the beginning of one at the end of the text.
    fn past_closings(&self, mut end: usize) -> usize {
        let text = self.reply.text;
        let own = markers::closing(self.reply.form);
        loop {
            let rest = text[end..].trim_start();
            let mut closings = own.iter().chain(markers::strays(self.reply.form));
            if let Some(behind) = closings.find_map(|closing| rest.strip_prefix(closing)) {
                end = text.len() - behind.len();
                continue;
            }
            let is_begun = !rest.is_empty() && own.is_some_and(|closing| closing.starts_with(rest));
            return if is_begun { text.len() } else { end };
        }
    }

    /// Whether a marker at the beginning of a line opens something that was to be a call.
    fn is_broken(&self, marker: &Marker) -> bool {
        let rest = &self.reply.text[marker.at..];
        if !is_meant(marker.text, rest) {
            return false;
        }
        let behind = &rest[marker.text.len()..];
        let Some(closing) = markers::closing(self.reply.form) else {
            return true;
        };
        let near = segments::prefix(behind, MAX_BROKEN);
        let Some(end) = near.find(closing) else {
            return behind.is_empty() || behind.starts_with('\n');
        };
        let behind = behind[end + closing.len()..].trim_start();
        behind.is_empty() || behind.starts_with(marker.text)
    }
}

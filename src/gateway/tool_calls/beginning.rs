//! The beginning of a reply: a thought, with its opening marker or without it, or the answer.

use super::marked;
use super::markers::{self, Kind};
use super::reader::{MAX_PROBED, Marked, State};
use super::tags::Probe;
use super::{Piece, sentence, thoughts};
use crate::catalog::Form;

impl Marked {
    /// Decides what the reply begins with.
    pub(super) fn begin(&mut self, most: usize, pieces: &mut Vec<Piece>) -> bool {
        self.at = self.buffer.len() - self.rest().trim_start().len();
        let text = self.rest();
        if text.is_empty() {
            return false;
        }
        for (pair, (opening, _)) in thoughts::markers(self.form).iter().enumerate() {
            if text.starts_with(opening) {
                return self.begin_thought(pair, true);
            }
            if opening.starts_with(text) {
                return false;
            }
        }
        if self.form == Form::Llama3 && text.starts_with(['{', '[']) {
            return self.begin_text();
        }
        if most == 0
            && let Some(closing) = thoughts::closing_at(self.form, text)
        {
            return match closing.cut_off(text) {
                Some(length) => {
                    self.at += length;
                    self.begin_text()
                }
                None => false,
            };
        }
        let most = match thoughts::preamble(text) {
            None => return false,
            Some(true) => usize::MAX,
            Some(false) => most,
        };
        if most == 0 {
            return self.begin_text();
        }
        self.state = State::Begin(most);
        self.doubt(most, pieces)
    }

    /// Looks for the end of a thought that may have begun without a marker.
    fn doubt(&mut self, most: usize, pieces: &mut Vec<Piece>) -> bool {
        self.scanned = self.scanned.max(self.at);
        while let Some(marker) = markers::next(self.form, &self.buffer, self.scanned) {
            self.ahead.feed(&self.buffer[self.scanned..marker.at]);
            self.scanned = marker.at;
            if self.scanned - self.at > most {
                return self.begin_text();
            }
            let rest = &self.buffer[marker.at..];
            let is_code = self.ahead.is_quoted() && !self.is_real(marker.at);
            match marker.kind {
                Kind::ThoughtEnd if !is_code => {
                    let behind = &rest[marker.text.len()..];
                    match sentence::is_named(self.ahead.before(), behind, false) {
                        Some(true) => {}
                        None => return false,
                        Some(false) => {
                            let thought = self.buffer[self.at..marker.at].trim().to_owned();
                            self.at = marker.end();
                            self.end_thought(thought, true, pieces);
                            return true;
                        }
                    }
                }
                Kind::Call if !is_code => match marked::probe(self.form, rest) {
                    Probe::Call(_) => {
                        self.state = State::Kept { is_doubtful: true };
                        return false;
                    }
                    Probe::More if rest.len() <= MAX_PROBED => return false,
                    _ => {}
                },
                Kind::Thought(_) if self.ahead.is_line_start() => return self.begin_text(),
                Kind::TurnEnd if self.is_real(marker.at) => return self.begin_text(),
                _ => {}
            }
            self.ahead.feed(marker.text);
            self.scanned = marker.end();
        }
        let end = self.buffer.len() - markers::partial(self.form, &self.buffer[self.scanned..]);
        self.ahead.feed(&self.buffer[self.scanned..end]);
        self.scanned = end;
        end - self.at > most && self.begin_text()
    }

    fn begin_text(&mut self) -> bool {
        self.state = State::Text;
        self.scanned = self.at;
        true
    }

    pub(super) fn begin_thought(&mut self, pair: usize, is_first: bool) -> bool {
        self.scanned = self.at;
        self.state = State::Thought {
            pair: Some(pair),
            is_first,
            has_begun: false,
        };
        true
    }
}

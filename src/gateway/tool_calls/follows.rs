//! Where a value ends whose quotes aren't escaped: by what follows.

use super::value::{Fault, GEMMA_QUOTE, Inside, Parser};

impl Parser<'_> {
    /// Whether a string ends here in which quotes may stand. A fault if that can't be told: another argument seems to follow, but not as one does.
    pub(super) fn ends_a_string(
        &self,
        at: usize,
        level: usize,
        inside: Inside,
    ) -> Result<bool, Fault> {
        if self.goes_on(at, level, inside) {
            return Ok(true);
        }
        let is_between = |letter: char| letter.is_whitespace() || ",;}]".contains(letter);
        let rest = &self.text[at..];
        // Far longer than what stands there by mistake.
        let near = rest
            .char_indices()
            .nth(40)
            .map_or(rest, |(end, _)| &rest[..end]);
        let behind = &rest[near.len() - near.trim_start_matches(is_between).len()..];
        let between = near[..near.len() - near.trim_start_matches(is_between).len()].trim();
        let is_cut =
            || between == "," && Parser::new(behind, 0, self.reading).key() == Err(Fault::Cut);
        let is_argument = inside != Inside::Nothing
            && behind.starts_with(['"', '\''])
            && (is_cut() || self.is_key(behind, level, false));
        match is_argument {
            true => Err(Fault::Wrong),
            false => Ok(false),
        }
    }

    /// Whether the object goes on here as it does behind a value.
    pub(super) fn goes_on(&self, at: usize, level: usize, inside: Inside) -> bool {
        let rest = self.text[at..].trim_start();
        let Some(next) = rest.bytes().next() else {
            return true;
        };
        // Nothing but a comma or a bracket goes on.
        let Some(behind) = rest.get(1..).map(str::trim_start) else {
            return false;
        };
        match inside {
            Inside::Nothing => false,
            Inside::Array => next == b']' || next == b',' && self.is_item(at, behind),
            Inside::Object(close) if next == close => {
                level > 1 || self.is_end(self.text.len() - behind.len())
            }
            Inside::Object(_) => {
                let is_quoted = self.text[..at].ends_with(GEMMA_QUOTE);
                next == b','
                    && (self.is_key(behind, level, is_quoted)
                        || self.is_last_comma(behind, inside, level))
            }
        }
    }

    /// Whether an item of a list stands at the beginning of `text`. Behind a string in Gemma's quotes none is bare.
    fn is_item(&self, at: usize, text: &str) -> bool {
        if !self.text[..at].ends_with(GEMMA_QUOTE) {
            return text.starts_with(|letter: char| {
                matches!(letter, '"' | '\'' | '{' | '[' | ']' | '<' | '-')
                    || letter.is_ascii_alphanumeric()
            });
        }
        let is_plain = |letter: char| matches!(letter, '{' | '[' | ']' | '-' | '0'..='9');
        let words = [
            GEMMA_QUOTE,
            "true",
            "false",
            "True",
            "False",
            "null",
            "None",
        ];
        text.starts_with(is_plain) || words.iter().any(|word| text.starts_with(word))
    }

    /// Whether the comma in front of this is one too many.
    fn is_last_comma(&self, behind: &str, inside: Inside, level: usize) -> bool {
        let Inside::Object(close) = inside else {
            return false;
        };
        let at = self.text.len() - behind.len();
        behind.as_bytes().first() == Some(&close) && (level > 1 || self.is_end(at + 1))
    }

    /// Whether nothing but the end of a call follows: closing brackets, or the tool's name behind its arguments.
    fn is_end(&self, at: usize) -> bool {
        let tail = self.tail.get_or_init(|| {
            let is_closing = |letter: char| letter.is_whitespace() || "}])".contains(letter);
            self.text.trim_end_matches(is_closing).len()
        });
        if at >= *tail {
            return true;
        }
        let named = self.text[at..]
            .trim_start()
            .strip_prefix(',')
            .map(|rest| rest.trim_start())
            .and_then(|rest| rest.strip_prefix("\"name\""));
        named.is_some_and(|rest| rest.len() < 200 && !rest.contains(','))
    }

    /// Whether a key stands at the beginning of `text`, and in the outermost object one that may come now. `is_quoted`: it follows Gemma's own quote.
    fn is_key(&self, text: &str, level: usize, is_quoted: bool) -> bool {
        // Far longer than a key.
        const LONGEST: usize = 200;
        let end = text
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| *at >= LONGEST)
            .unwrap_or(text.len());
        let Ok(key) = Parser::new(&text[..end], 0, self.reading).key() else {
            return false;
        };
        if level > 1 {
            return true;
        }
        let declared = self.reading.tool.and_then(|tool| tool.declares(&key));
        // Gemma's own quotes are rare in a string, so that a key of no argument is one that the model made up: the client refuses it.
        let is_made_up = || is_quoted && is_plain(&key);
        (declared.unwrap_or(true) || is_made_up()) && !self.seen.contains(&key)
    }
}

/// Whether a key is one as in a program.
fn is_plain(key: &str) -> bool {
    let is_letter = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
    !key.is_empty() && key.chars().all(is_letter)
}

//! Strings in values: with escapes, or between quotes of several characters, which have none.

use std::ops::Range;

use serde_json::Value;

use super::value::{Fault, Inside, Parser};

impl Parser<'_> {
    /// The rest of a string without escapes, whose opening quote was taken.
    pub(super) fn between(
        &mut self,
        quote: &str,
        level: usize,
        inside: Inside,
    ) -> Result<Value, Fault> {
        let start = self.at;
        let mut from = start;
        while let Some(found) = self.text[from..].find(quote) {
            let at = from + found;
            from = at + 1;
            if let Some(part) = self.opaque(at) {
                from = part.end;
                continue;
            }
            let after = at + quote.len();
            if self.goes_on(after, level, inside) {
                self.at = after;
                return Ok(self.text[start..at].into());
            }
        }
        Err(Fault::Cut)
    }

    /// The part that is content all the way, if `at` is in one.
    fn opaque(&self, at: usize) -> Option<&Range<usize>> {
        let parts = self.reading.opaque;
        let index = parts.partition_point(|part| part.end <= at);
        parts.get(index).filter(|part| part.start <= at)
    }

    /// The rest of a string with escapes, whose opening quote was taken.
    pub(super) fn escaped(
        &mut self,
        quote: char,
        is_end: impl Fn(&Self, usize) -> Result<bool, Fault>,
    ) -> Result<String, Fault> {
        let mut string = String::new();
        // Positions of `\b`, `\f` and `\'`: escapes, but in a text whose backslashes aren't escaped they are none.
        let mut doubtful = Vec::new();
        let mut has_lone_backslash = false;
        loop {
            let rest = self.rest();
            // Both are letters of ASCII.
            let found = rest
                .bytes()
                .position(|byte| byte == quote as u8 || byte == b'\\')
                .ok_or(Fault::Cut)?;
            string.push_str(&rest[..found]);
            self.at += found;
            if rest[found..].starts_with(quote) {
                let after = self.at + quote.len_utf8();
                self.at = after;
                if is_end(self, after)? {
                    break;
                }
                string.push(quote);
                continue;
            }
            let letter = rest[found + 1..].chars().next().ok_or(Fault::Cut)?;
            self.at += 1 + letter.len_utf8();
            match letter {
                '"' | '\\' | '/' => string.push(letter),
                '\'' if quote == '\'' => string.push('\''),
                // No escape of JSON, but of Python. Between two others it is the shell's way to write one.
                '\'' if !(string.ends_with('\'') && self.peek() == Some(b'\'')) => {
                    doubtful.push(string.len());
                    string.push('\'');
                }
                'n' => string.push('\n'),
                'r' => string.push('\r'),
                't' => string.push('\t'),
                'b' | 'f' => {
                    doubtful.push(string.len());
                    string.push(if letter == 'b' { '\u{8}' } else { '\u{c}' });
                }
                'u' => match self.unicode() {
                    Some(letter) => string.push(letter),
                    None => {
                        has_lone_backslash = true;
                        string.push_str("\\u");
                    }
                },
                other => {
                    has_lone_backslash = true;
                    string.push('\\');
                    string.push(other);
                }
            }
        }
        if has_lone_backslash && !doubtful.is_empty() {
            let mut written = String::with_capacity(string.len() + doubtful.len());
            let mut from = 0;
            for at in doubtful {
                written.push_str(&string[from..at]);
                written.push_str(match string.as_bytes()[at] {
                    b'\x08' => "\\b",
                    b'\x0c' => "\\f",
                    _ => "\\'",
                });
                from = at + 1;
            }
            written.push_str(&string[from..]);
            return Ok(written);
        }
        Ok(string)
    }

    /// The character of a `\u` escape whose first two letters were taken.
    fn unicode(&mut self) -> Option<char> {
        let unit = |text: &str| -> Option<u32> {
            let digits = text.get(..4)?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let first = unit(self.rest())?;
        self.at += 4;
        if (0xD800..0xDC00).contains(&first)
            && let Some(low) = self.rest().strip_prefix("\\u").and_then(unit)
            && (0xDC00..0xE000).contains(&low)
        {
            self.at += 6;
            return char::from_u32(0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00));
        }
        // Half a character is none.
        Some(char::from_u32(first).unwrap_or('\u{fffd}'))
    }
}

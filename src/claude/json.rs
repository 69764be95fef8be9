//! JSON as Claude Code reads it, which is JavaScript's `JSON.parse` of a decoded file. A stricter reader would take for broken, and so for
//! harmless, what Claude Code follows.

use serde_json::{Map, Number, Value};

/// Values below this many brackets are read as null. Settings have half a dozen; the client knows no limit.
const DEEPEST: usize = 100;

/// Reads a file that holds an object. An empty file is an empty object. Errors: what is none to the client either, and why.
///
/// It takes what the client takes: UTF-16 that begins with FF FE, one byte-order mark, bytes that are not UTF-8, escapes of half a character,
/// numbers of any size, any depth. Such bytes and escapes are replaced by U+FFFD, and numbers beyond the largest by that.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = decode(bytes);
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let mut reader = Reader {
        text: text.as_bytes(),
        at: 0,
    };
    match reader.document() {
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err("it is not an object".into()),
        None => Err(place(&text, reader.at)),
    }
}

fn decode(bytes: &[u8]) -> String {
    match bytes.strip_prefix(b"\xff\xfe") {
        Some(rest) => {
            let units: Vec<u16> = rest
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            String::from_utf16_lossy(&units)
        }
        None => String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
            .into_owned(),
    }
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}, column {column}")
}

/// A list or an object that is not closed yet, with the key that waits for its value.
enum Open {
    List(Vec<Value>),
    Object(Map<String, Value>, String),
}

/// Reads without recursion, so that no depth ends the process. None is an error at `at`.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Option<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut value = self.begin(&mut open)?;
            // A value is complete. It may complete what holds it, and so on.
            while let Some(whole) = value.take() {
                let whole = match open.len() < DEEPEST {
                    true => whole,
                    false => Value::Null,
                };
                match open.pop() {
                    None => {
                        self.space();
                        return (self.at == self.text.len()).then_some(whole);
                    }
                    Some(Open::List(mut items)) => {
                        items.push(whole);
                        match self.next()? {
                            b',' => open.push(Open::List(items)),
                            b']' => value = Some(Value::Array(items)),
                            _ => return self.wrong(),
                        }
                    }
                    Some(Open::Object(mut fields, key)) => {
                        fields.insert(key, whole);
                        match self.next()? {
                            b',' => {
                                let key = self.key()?;
                                open.push(Open::Object(fields, key));
                            }
                            b'}' => value = Some(Value::Object(fields)),
                            _ => return self.wrong(),
                        }
                    }
                }
            }
        }
    }

    /// Reads a value up to the first one that is complete: `Some(None)` where a list or an object was opened.
    #[expect(
        clippy::option_option,
        reason = "an error, or a value that may be unfinished"
    )]
    fn begin(&mut self, open: &mut Vec<Open>) -> Option<Option<Value>> {
        match self.next()? {
            b'{' => {
                if self.skip(b'}') {
                    return Some(Some(Value::Object(Map::new())));
                }
                let key = self.key()?;
                open.push(Open::Object(Map::new(), key));
                Some(None)
            }
            b'[' => {
                if self.skip(b']') {
                    return Some(Some(Value::Array(Vec::new())));
                }
                open.push(Open::List(Vec::new()));
                Some(None)
            }
            b'"' => Some(Some(Value::String(self.string()?))),
            b't' => self.word("rue", Value::Bool(true)),
            b'f' => self.word("alse", Value::Bool(false)),
            b'n' => self.word("ull", Value::Null),
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                Some(Some(self.number()?))
            }
            _ => {
                self.at -= 1;
                None
            }
        }
    }

    #[expect(clippy::option_option, reason = "as above")]
    fn word(&mut self, rest: &str, value: Value) -> Option<Option<Value>> {
        self.text[self.at..]
            .starts_with(rest.as_bytes())
            .then(|| self.at += rest.len())?;
        Some(Some(value))
    }

    /// A key with its colon.
    fn key(&mut self) -> Option<String> {
        if self.next()? != b'"' {
            return self.wrong();
        }
        let key = self.string()?;
        match self.next()? {
            b':' => Some(key),
            _ => self.wrong(),
        }
    }

    /// A string behind its first quote.
    fn string(&mut self) -> Option<String> {
        let mut units: Vec<u16> = Vec::new();
        let mut text = String::new();
        loop {
            let from = self.at;
            while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            if self.at > from {
                text.push_str(&String::from_utf16_lossy(&std::mem::take(&mut units)));
                text.push_str(&String::from_utf8_lossy(&self.text[from..self.at]));
            }
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    text.push_str(&String::from_utf16_lossy(&units));
                    return Some(text);
                }
                b'\\' => {
                    self.at += 1;
                    units.push(self.escape()?);
                }
                _ => return None,
            }
        }
    }

    /// The character behind a backslash, as one unit of UTF-16: half a character may be escaped alone.
    fn escape(&mut self) -> Option<u16> {
        let letter = self.peek()?;
        let plain = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits = self.text.get(self.at + 1..self.at + 5)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                let digits = std::str::from_utf8(digits).ok()?;
                self.at += 5;
                return u16::from_str_radix(digits, 16).ok();
            }
            _ => return None,
        };
        self.at += 1;
        Some(u16::from(plain))
    }

    fn number(&mut self) -> Option<Value> {
        let from = self.at;
        self.take(b"-");
        if !self.take(b"0") && self.digits() == 0 {
            return None;
        }
        if self.take(b".") && self.digits() == 0 {
            return None;
        }
        if self.take(b"eE") {
            self.take(b"+-");
            if self.digits() == 0 {
                return None;
            }
        }
        let text = std::str::from_utf8(&self.text[from..self.at]).ok()?;
        if let Ok(whole) = text.parse::<u64>() {
            return Some(whole.into());
        }
        if let Ok(whole @ ..0) = text.parse::<i64>() {
            return Some(whole.into());
        }
        let real: f64 = text.parse().ok()?;
        Number::from_f64(real.clamp(f64::MIN, f64::MAX)).map(Value::Number)
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.take(b"0123456789") {}
        self.at - from
    }

    fn take(&mut self, any: &[u8]) -> bool {
        let there = self.peek().is_some_and(|byte| any.contains(&byte));
        self.at += usize::from(there);
        there
    }

    /// Takes this byte if it comes next, behind spaces.
    fn skip(&mut self, byte: u8) -> bool {
        self.space();
        self.take(&[byte])
    }

    fn next(&mut self) -> Option<u8> {
        self.space();
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// An error at the byte that was read last.
    fn wrong<T>(&mut self) -> Option<T> {
        self.at -= 1;
        None
    }

    fn space(&mut self) {
        while self.take(b" \t\r\n") {}
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests;

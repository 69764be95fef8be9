//! Values as models write them: JSON, and what comes near it.
//!
//! Read are: raw line breaks and lone backslashes in strings, single and triple quotes, Python's `True`, `False` and `None`, keys without quotes, `=`
//! for `:`, a comma too many, half of a surrogate pair, and brackets that are missing at the very end. Gemma's strings stand between `<|"|>` and have
//! no escapes at all.
//!
//! Where a string ends is clear as long as its own quote isn't in it. If it is ([`Quotes::Inside`]), a quote ends the string only if what follows
//! goes on as the object does: with the end, or with a key that the tool declares and that was not there yet.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::schema::{Argument, Tool, Written};

/// The deepest nesting of a value. Far more than a tool takes, and far less than the stack holds.
const MAX_LEVELS: usize = 500;

/// What Gemma puts around a string.
pub(super) const GEMMA_QUOTE: &str = "<|\"|>";

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The text ends inside a string or in front of a value.
    Cut,
    /// It goes on as no value does.
    Wrong,
}

/// How the quotes in strings are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// The first one that isn't escaped ends the string.
    Closing,
    /// Some may stand inside a string without an escape.
    Inside,
    /// Strings stand between `<|"|>`, and may be bare.
    Gemma,
}

/// What an object is read for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub quotes: Quotes,
    /// The tool whose arguments these are, if it is declared.
    pub tool: Option<&'a Tool>,
    /// Parts of the text that are content, whatever stands in them, in their order.
    pub opaque: &'a [Range<usize>],
}

impl Reading<'_> {
    pub(super) const PLAIN: Reading<'static> = Reading {
        quotes: Quotes::Closing,
        tool: None,
        opaque: &[],
    };
}

/// Reads a text that is one value and nothing else.
pub(super) fn read(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut parser = Parser::new(text, 0, Reading::PLAIN);
    let value = parser.value(0, Inside::Nothing).ok()?;
    parser.space();
    (parser.at == text.len() && !parser.lacks_end).then_some(value)
}

/// The string that begins at `at`, and where it ends.
pub(super) fn string(text: &str, at: usize) -> Option<(String, usize)> {
    if !text.get(at..)?.starts_with(['"', '\'']) {
        return None;
    }
    let mut parser = Parser::new(text, at, Reading::PLAIN);
    match parser.value(0, Inside::Nothing).ok()? {
        Value::String(string) => Some((string, parser.at)),
        _ => None,
    }
}

/// An object's fields, in the order in which they stand, with their source, and where it ends.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub fields: Vec<Argument<'a>>,
    pub end: usize,
    /// The text ended before its closing bracket.
    pub lacks_end: bool,
}

/// Reads the object that begins at `at`: `{…}`, or `(…)` as of a function's arguments in Python.
pub(super) fn object<'a>(
    text: &'a str,
    at: usize,
    reading: Reading<'a>,
) -> Result<Fields<'a>, Fault> {
    let mut parser = Parser::new(text, at, reading);
    let close = match text.as_bytes().get(at) {
        Some(b'{') => b'}',
        Some(b'(') => b')',
        _ => return Err(Fault::Wrong),
    };
    parser.at += 1;
    let mut fields: Vec<Argument<'a>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    parser.each(close, |parser| {
        let key = parser.key()?;
        parser.seen.insert(key.clone());
        let start = parser.at;
        let value = parser.value(1, Inside::Object(close))?;
        let source = text[start..parser.at].trim();
        let written = Written::Value(value, source);
        match places.get(&key) {
            // Without escapes, a key that comes twice stands in a string.
            Some(_) if parser.reading.quotes == Quotes::Gemma => return Err(Fault::Wrong),
            // As in JSON, the last one counts.
            Some(place) => fields[*place].written = written,
            None => {
                places.insert(key.clone(), fields.len());
                fields.push(Argument { key, written });
            }
        }
        Ok(())
    })?;
    Ok(Fields {
        fields,
        end: parser.at,
        lacks_end: parser.lacks_end,
    })
}

/// What a string or a bare word stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    Nothing,
    /// An object with this closing bracket.
    Object(u8),
    Array,
}

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) reading: Reading<'a>,
    /// The keys of the outermost object so far.
    pub(super) seen: HashSet<String>,
    lacks_end: bool,
    /// From here on the text holds nothing but white space and closing brackets.
    pub(super) tail: OnceCell<usize>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, at: usize, reading: Reading<'a>) -> Self {
        Self {
            text,
            at,
            reading,
            seen: HashSet::new(),
            lacks_end: false,
            tail: OnceCell::new(),
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, what: &str) -> bool {
        let is_there = self.rest().starts_with(what);
        if is_there {
            self.at += what.len();
        }
        is_there
    }

    /// Reads what stands between commas up to the closing bracket, or to the end of the text.
    fn each(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // Behind the opening bracket or a comma something was to come.
        let mut is_whole = false;
        loop {
            self.space();
            match self.peek() {
                // Nobody knows how many items a list was to have.
                None if !is_whole || close == b']' => return Err(Fault::Cut),
                None => {
                    self.lacks_end = true;
                    return Ok(());
                }
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => item(self)?,
            }
            self.space();
            is_whole = self.peek() != Some(b',');
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {}
                None => {}
                Some(_) => return Err(Fault::Wrong),
            }
        }
    }

    pub(super) fn key(&mut self) -> Result<String, Fault> {
        let key = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                self.escaped(quote as char, |_, _| Ok(true))?
            }
            _ if self.reading.quotes == Quotes::Gemma && self.take(GEMMA_QUOTE) => {
                let end = self.rest().find(GEMMA_QUOTE).ok_or(Fault::Cut)?;
                let key = self.rest()[..end].to_owned();
                self.at += end + GEMMA_QUOTE.len();
                key
            }
            _ => {
                let end = self.bare_key()?;
                let key = self.rest()[..end].to_owned();
                self.at += end;
                key
            }
        };
        self.space();
        match self.peek() {
            Some(b':' | b'=') => self.at += 1,
            None => return Err(Fault::Cut),
            Some(_) => return Err(Fault::Wrong),
        }
        self.space();
        Ok(key.trim().to_owned())
    }

    /// The length of the key without quotes that stands here.
    fn bare_key(&self) -> Result<usize, Fault> {
        let rest = self.rest();
        let end = rest.find(|letter: char| {
            matches!(
                letter,
                ':' | '=' | ',' | '{' | '}' | '[' | ']' | '"' | '\'' | '(' | ')' | '<' | '\n'
            )
        });
        let end = end.ok_or(Fault::Cut)?;
        match rest[..end].trim().is_empty() {
            true => Err(Fault::Wrong),
            false => Ok(end),
        }
    }

    fn value(&mut self, level: usize, inside: Inside) -> Result<Value, Fault> {
        if level > MAX_LEVELS {
            return Err(Fault::Wrong);
        }
        self.space();
        let gemma = self.reading.quotes == Quotes::Gemma;
        match self.peek().ok_or(Fault::Cut)? {
            b'{' => {
                self.at += 1;
                let mut fields = Map::new();
                self.each(b'}', |parser| {
                    let key = parser.key()?;
                    let value = parser.value(level + 1, Inside::Object(b'}'))?;
                    let is_twice = fields.insert(key, value).is_some();
                    match is_twice && gemma {
                        true => Err(Fault::Wrong),
                        false => Ok(()),
                    }
                })?;
                Ok(Value::Object(fields))
            }
            b'[' => {
                self.at += 1;
                // Most lists inside of lists are short.
                let mut items = Vec::with_capacity(1);
                self.each(b']', |parser| {
                    items.push(parser.value(level + 1, Inside::Array)?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            _ if gemma && self.take(GEMMA_QUOTE) => self.between(GEMMA_QUOTE, level, inside),
            b'"' if self.take("\"\"\"") => self.between("\"\"\"", level, inside),
            b'\'' if self.take("'''") => self.between("'''", level, inside),
            quote @ (b'"' | b'\'') => {
                self.at += 1;
                let is_end = |parser: &Self, after: usize| match parser.reading.quotes {
                    Quotes::Closing => Ok(true),
                    Quotes::Gemma | Quotes::Inside => parser.ends_a_string(after, level, inside),
                };
                Ok(self.escaped(quote as char, is_end)?.into())
            }
            b'-' | b'0'..=b'9' if self.number().is_some() => {
                let (number, length) = self.number().ok_or(Fault::Wrong)?;
                self.at += length;
                self.is_closed(inside)?;
                Ok(Value::Number(number))
            }
            _ => self.word(level, inside),
        }
    }

    /// A number or a word that the text ends with may be longer.
    fn is_closed(&self, inside: Inside) -> Result<(), Fault> {
        match inside != Inside::Nothing && self.at == self.text.len() {
            true => Err(Fault::Cut),
            false => Ok(()),
        }
    }

    /// A number that ends where a value may end.
    fn number(&self) -> Option<(Number, usize)> {
        let rest = self.rest();
        let end = rest
            .find(|letter: char| !matches!(letter, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let after = rest[end..].trim_start();
        let ends = after.is_empty() || after.starts_with([',', '}', ']', ')']);
        let number = serde_json::from_str(&rest[..end]).ok()?;
        ends.then_some((number, end))
    }

    /// `true` and the like, or, in Gemma's form, a string without quotes.
    fn word(&mut self, level: usize, inside: Inside) -> Result<Value, Fault> {
        let rest = self.rest();
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let value = match &rest[..end] {
            "true" | "True" => Some(Value::Bool(true)),
            "false" | "False" => Some(Value::Bool(false)),
            "null" | "None" => Some(Value::Null),
            _ => None,
        };
        let after = rest[end..].trim_start();
        let ends = after.is_empty() || after.starts_with([',', '}', ']', ')']);
        if let Some(value) = value.filter(|_| ends) {
            self.at += end;
            self.is_closed(inside)?;
            return Ok(value);
        }
        if self.reading.quotes != Quotes::Gemma || inside == Inside::Nothing {
            let is_open = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
            return Err(match rest.chars().all(is_open) {
                true => Fault::Cut,
                false => Fault::Wrong,
            });
        }
        // A bracket that is opened in it is closed in it.
        let (open, close) = match inside {
            Inside::Object(b')') => ('(', ')'),
            Inside::Array => ('[', ']'),
            Inside::Object(_) | Inside::Nothing => ('{', '}'),
        };
        let mut depth = 0usize;
        let marks = rest.match_indices([',', '}', ']', ')', open]);
        for (end, mark) in marks {
            if mark.starts_with(open) {
                depth += 1;
            } else if depth > 0 {
                depth -= usize::from(mark.starts_with(close));
            } else if self.goes_on(self.at + end, level, inside) {
                let word = rest[..end].trim();
                if word.contains(GEMMA_QUOTE) {
                    return Err(Fault::Wrong);
                }
                self.at += end;
                return Ok(word.into());
            }
        }
        Err(Fault::Wrong)
    }
}

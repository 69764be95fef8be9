//! Calls that are JSON objects: a name, and arguments.

use serde_json::Value;

use super::schema::{Argument, Tools, Written};
use super::value::{self, Fault, Fields, Quotes, Reading};
use super::{Call, Wrong};

/// What models call the tool's name, and its arguments.
const NAME: [&str; 3] = ["name", "tool_name", "tool"];
const ARGUMENTS: [&str; 4] = ["arguments", "parameters", "args", "input"];

/// A call, and where its object ends.
#[derive(Debug)]
pub struct Read {
    pub call: Call,
    pub end: usize,
    /// Its closing brackets are missing: the text ends before them.
    pub lacks_end: bool,
}

/// Reads the call whose object begins at `at`, as JSON or near it: its end is clear.
pub fn call(text: &str, at: usize, tools: &Tools) -> Result<Read, Wrong> {
    let fields = value::object(text, at, Reading::PLAIN).map_err(|_| unreadable(&text[at..]))?;
    let Fields { end, lacks_end, .. } = fields;
    let call = of_fields(fields.fields, tools, true).ok_or_else(|| unreadable(&text[at..end]))?;
    Ok(Read {
        call,
        end,
        lacks_end,
    })
}

/// Reads a call with quotes in its strings that aren't escaped. `text` is the whole of it, and holds nothing else.
pub fn call_with_quotes(text: &str, tools: &Tools) -> Result<Call, Wrong> {
    let wrong = || unreadable(text);
    let first =
        text.trim_start_matches(|letter: char| letter.is_whitespace() || "[{".contains(letter));
    if !first.starts_with(['"', '\'']) {
        return Err(wrong());
    }
    let name = name(text).ok_or_else(wrong)?;
    let name = tools.name(name);
    let (at, _) = ARGUMENTS
        .into_iter()
        .filter_map(|field| value_of(text, field))
        .min_by_key(|(at, _)| *at)
        .ok_or_else(wrong)?;
    let tool = tools.get(name);
    let reading = Reading {
        quotes: Quotes::Inside,
        tool,
        opaque: &[],
    };
    let fields = value::object(text, at, reading).map_err(|_| wrong())?;
    let call = Call::new(name, fields.fields, tools);
    // A guess that the tool would refuse is none.
    let accepted = tool.is_none_or(|tool| tool.accepts(&call.input));
    if accepted { Ok(call) } else { Err(wrong()) }
}

/// The call that these fields of an object are.
fn of_fields(mut fields: Vec<Argument<'_>>, tools: &Tools, is_outer: bool) -> Option<Call> {
    let take = |fields: &mut Vec<Argument>, names: &[&str]| -> Option<Value> {
        let at = fields
            .iter()
            .position(|field| names.contains(&field.key.as_str()))?;
        match fields.remove(at).written {
            Written::Value(value, _) => Some(value),
            Written::Text(text) => Some(text.into()),
        }
    };
    // OpenAI's own shape has the two inside.
    let found = fields.iter().position(|field| field.key == "function");
    if let Some(at) = found.filter(|_| is_outer) {
        let Written::Value(inner, source) = fields.remove(at).written else {
            return None;
        };
        match inner {
            Value::Object(_) => {
                let inner = value::object(source, 0, Reading::PLAIN).ok()?;
                return of_fields(inner.fields, tools, false);
            }
            Value::String(name) => fields.push(Argument {
                key: "name".into(),
                written: Written::Value(name.into(), ""),
            }),
            _ => return None,
        }
    }
    let Value::String(name) = take(&mut fields, &NAME)? else {
        return None;
    };
    let name = tools.name(&name).to_owned();
    let found = fields
        .iter()
        .position(|field| ARGUMENTS.contains(&field.key.as_str()));
    let Some(at) = found else {
        // The arguments stand beside the name.
        take(&mut fields, &["type", "id"]);
        return Some(Call::new(&name, fields, tools));
    };
    match fields.swap_remove(at).written {
        Written::Value(Value::Object(input), source) => {
            // The source tells how a number was written that is to be a string.
            if tools
                .get(&name)
                .is_some_and(|tool| tool.wants_source(&input))
            {
                let inner = value::object(source, 0, Reading::PLAIN).ok()?;
                return Some(Call::new(&name, inner.fields, tools));
            }
            let arguments = input.into_iter().map(|(key, value)| Argument {
                key,
                written: Written::Value(value, ""),
            });
            Some(Call::new(&name, arguments.collect(), tools))
        }
        Written::Value(Value::Null, _) => Some(Call::new(&name, Vec::new(), tools)),
        Written::Value(Value::String(text), _) if text.trim().is_empty() => {
            Some(Call::new(&name, Vec::new(), tools))
        }
        Written::Value(Value::String(text), _) => {
            // Twice encoded, too.
            let again: Option<String> = serde_json::from_str(text.trim()).ok();
            let text = again.unwrap_or(text);
            let text = text.trim();
            let inner = value::object(text, 0, Reading::PLAIN).ok()?;
            (inner.end == text.len() && !inner.lacks_end)
                .then(|| Call::new(&name, inner.fields, tools))
        }
        Written::Value(Value::Array(items), _) if items.is_empty() => {
            Some(Call::new(&name, Vec::new(), tools))
        }
        _ => None,
    }
}

/// The tool's name in a call that can't be read.
pub fn name(text: &str) -> Option<&str> {
    let (at, quote) = NAME.into_iter().find_map(|field| value_of(text, field))?;
    let rest = text[at..].strip_prefix(quote?)?;
    let end = rest.find(|letter: char| {
        !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/'))
    })?;
    (end > 0 && end <= 128).then(|| &rest[..end])
}

/// Where the value of a field begins, and the quote that it begins with.
fn value_of(text: &str, field: &str) -> Option<(usize, Option<char>)> {
    ['"', '\''].into_iter().find_map(|quote| {
        let key = format!("{quote}{field}{quote}");
        let at = text.find(&key)? + key.len();
        let rest = text[at..].trim_start().strip_prefix(':')?.trim_start();
        let at = text.len() - rest.len();
        let first = rest
            .chars()
            .next()
            .filter(|first| matches!(first, '"' | '\''));
        Some((at, first))
    })
}

fn unreadable(text: &str) -> Wrong {
    Wrong::Unreadable {
        tool: name(text).map(str::to_owned),
    }
}

impl From<Fault> for Wrong {
    fn from(_: Fault) -> Self {
        Self::Unreadable { tool: None }
    }
}

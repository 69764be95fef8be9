//! Calls that are JSON objects: a name, and arguments.

use serde_json::Value;

use super::schema::{Argument, Tools, Written};
use super::value::{self, Fault, Fields, Quotes, Reading};
use super::{Call, Wrong};

/// What models call the tool's name, and its arguments: the form's own word first.
const NAME: [&str; 5] = ["name", "tool_name", "tool", "function_name", "action"];
pub(super) const ARGUMENTS: [&str; 7] = [
    "arguments",
    "parameters",
    "args",
    "input",
    "params",
    "tool_input",
    "action_input",
];
/// What stands beside them and means nothing.
pub(super) const OTHERS: [&str; 5] = ["type", "id", "call_id", "tool_call_id", "index"];

/// A call, and where its object ends.
#[derive(Debug)]
pub(super) struct Read {
    pub call: Call,
    pub end: usize,
    /// Its closing brackets are missing: the text ends before them.
    pub lacks_end: bool,
}

/// Reads the call whose object begins at `at`, as JSON or near it: its end is clear.
pub(super) fn call(text: &str, at: usize, tools: &Tools) -> Result<Read, Wrong> {
    let fields = value::object(text, at, Reading::PLAIN).map_err(|_| unreadable(&text[at..]))?;
    let Fields { end, lacks_end, .. } = fields;
    let has_arguments = |field: &Argument| {
        ARGUMENTS.contains(&field.key.as_str())
            || field.key == "function"
            || field.key == "tool_call"
    };
    if lacks_end && !fields.fields.iter().any(has_arguments) {
        return Err(unreadable(&text[at..end]));
    }
    let call = of_fields(fields.fields, tools, true).ok_or_else(|| unreadable(&text[at..end]))?;
    Ok(Read {
        call,
        end,
        lacks_end,
    })
}

/// Reads a call with quotes in its strings that aren't escaped. `text` is the whole of it, and holds nothing else.
pub(super) fn call_with_quotes(text: &str, tools: &Tools) -> Result<Call, Wrong> {
    let wrong = || unreadable(text);
    let first =
        text.trim_start_matches(|letter: char| letter.is_whitespace() || "[{".contains(letter));
    if !first.starts_with(['"', '\'']) {
        return Err(wrong());
    }
    let (name_at, name) = named(text).ok_or_else(wrong)?;
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
    // A name among the arguments is part of a string, and so is everything if no bracket closes them.
    if fields.lacks_end || (at..fields.end).contains(&name_at) {
        return Err(wrong());
    }
    let call = Call::new(name, fields.fields, tools);
    // A guess that the tool would refuse is none.
    let accepted = tool.is_none_or(|tool| tool.accepts(&call.input));
    if accepted { Ok(call) } else { Err(wrong()) }
}

/// Reads the arguments of a call of this tool at `at`, and where they end: an object, or the text of one in quotes.
pub(super) fn arguments(
    text: &str,
    at: usize,
    reading: Reading<'_>,
    name: &str,
    tools: &Tools,
) -> Result<Read, Fault> {
    if let Some((inner, end)) = value::string(text, at) {
        let call = of_string(&inner, name, tools).ok_or(Fault::Wrong)?;
        return Ok(Read {
            call,
            end,
            lacks_end: false,
        });
    }
    let fields = value::object(text, at, reading)?;
    Ok(Read {
        call: Call::new(name, fields.fields, tools),
        end: fields.end,
        lacks_end: fields.lacks_end,
    })
}

/// The call whose arguments are the text of an object, also if that is encoded twice.
fn of_string(text: &str, name: &str, tools: &Tools) -> Option<Call> {
    let again: Option<String> = serde_json::from_str(text.trim()).ok();
    let text = again.as_deref().unwrap_or(text).trim();
    let inner = value::object(text, 0, Reading::PLAIN).ok()?;
    (inner.end == text.len() && !inner.lacks_end).then(|| Call::new(name, inner.fields, tools))
}

/// The call that these fields of an object are.
fn of_fields(mut fields: Vec<Argument<'_>>, tools: &Tools, is_outer: bool) -> Option<Call> {
    let place = |fields: &[Argument], names: &[&str]| {
        let mut found = names.iter().filter_map(|name| {
            let mut keys = fields.iter().map(|field| field.key.as_str());
            keys.position(|key| key == *name)
        });
        found.next()
    };
    // OpenAI's own shape has the two inside.
    let inner = place(&fields, &["function", "tool_call"]);
    if let Some(at) = inner.filter(|_| is_outer) {
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
    let Written::Value(Value::String(name), _) = fields.remove(place(&fields, &NAME)?).written
    else {
        return None;
    };
    let name = tools.name(&name).to_owned();
    let declares = |key: &str| tools.get(&name).and_then(|tool| tool.declares(key)) == Some(true);
    let beside = |mut fields: Vec<Argument>| {
        fields.retain(|field| {
            let is_type = field.key == "type"
                && matches!(&field.written, Written::Value(value, _) if value == "function");
            !OTHERS.contains(&field.key.as_str()) || declares(&field.key) && !is_type
        });
        Some(Call::new(&name, fields, tools))
    };
    let Some(at) = place(&fields, &ARGUMENTS) else {
        // The arguments stand beside the name.
        return beside(fields);
    };
    let arguments = fields.swap_remove(at).written;
    let is_empty = match &arguments {
        Written::Value(Value::Null, _) => true,
        Written::Value(Value::String(text), _) => text.trim().is_empty(),
        Written::Value(Value::Array(items), _) => items.is_empty(),
        Written::Value(Value::Object(input), _) => input.is_empty(),
        _ => false,
    };
    if is_empty {
        return match fields.iter().any(|field| declares(&field.key)) {
            true => beside(fields),
            false => Some(Call::new(&name, Vec::new(), tools)),
        };
    }
    match arguments {
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
        Written::Value(Value::String(text), _) => of_string(&text, &name, tools),
        _ => None,
    }
}

/// The tool's name in a call that can't be read.
pub(super) fn name(text: &str) -> Option<&str> {
    named(text).map(|(_, name)| name)
}

/// Whether the name in a call that can't be read is a place to fill in: `"name": <function-name>`.
pub(super) fn has_placeholder(text: &str) -> bool {
    let found = NAME.into_iter().find_map(|field| value_of(text, field));
    found.is_some_and(|(at, _)| text[at..].starts_with(['<', '$', '.', '…']))
}

fn named(text: &str) -> Option<(usize, &str)> {
    let (at, quote) = NAME.into_iter().find_map(|field| value_of(text, field))?;
    let rest = text[at..].strip_prefix(quote?)?;
    let end = rest.find(|letter: char| {
        !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/'))
    })?;
    (end > 0 && end <= 128).then(|| (at, &rest[..end]))
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

//! The tools that a request declares, and arguments made to fit their schemas.
//!
//! A schema decides how an argument is read: what it calls a string stays as it was written, and a number, a boolean, a list or an object that was
//! written as text becomes one. An argument that can't be made to fit is passed on as it is: the client refuses it, and the model reads why.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::{json, value};

/// How deep schemas are followed, `$ref` included: a schema can refer to itself.
const MAX_LEVELS: usize = 16;

/// The tools that a request declares, by name.
#[derive(Debug, Clone, Default)]
pub struct Tools(HashMap<String, Tool>);

/// One tool's parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tool {
    /// The whole input schema: what `$ref` refers to.
    schema: Value,
}

/// One argument as a model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument<'a> {
    pub(crate) key: String,
    pub(crate) written: Written<'a>,
}

/// An argument's value as a model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written<'a> {
    /// In a form that has no types: only the schema says what it is.
    Text(&'a str),
    /// In a form that has types, with its source.
    Value(Value, &'a str),
}

/// The types that a schema allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    const NONE: Self = Self(0);
    const STRING: Self = Self(1);
    const NUMBER: Self = Self(2);
    const INTEGER: Self = Self(4);
    const BOOLEAN: Self = Self(8);
    const ARRAY: Self = Self(16);
    const OBJECT: Self = Self(32);
    const NULL: Self = Self(64);

    fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::STRING,
            "number" => Self::NUMBER,
            "integer" => Self::INTEGER,
            "boolean" => Self::BOOLEAN,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            "null" => Self::NULL,
            _ => Self::NONE,
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) if number.is_f64() => Self::NUMBER,
            Value::Number(_) => Self::NUMBER.and(Self::INTEGER),
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }
}

impl Tools {
    /// The tools of a request: the list in its field `tools`.
    pub fn new(tools: &[Value]) -> Self {
        let tools = tools.iter().filter_map(|tool| {
            let name = tool.get("name")?.as_str()?.to_owned();
            let schema = tool.get("input_schema").cloned().unwrap_or_default();
            Some((name, Tool { schema }))
        });
        Self(tools.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tool> {
        self.0.get(name)
    }

    /// The declared name that a written one means: itself, what stands behind a namespace (`default_api:Write`, `functions.Write`), or the only one
    /// that differs in capitals alone (`bash`). A name that isn't declared stays as it is.
    pub(crate) fn name<'a>(&'a self, written: &'a str) -> &'a str {
        let written = written.trim().trim_matches(['"', '\'', '`']);
        let written = written.strip_suffix("()").unwrap_or(written);
        let behind = written
            .char_indices()
            .filter(|(_, letter)| matches!(letter, ':' | '.' | '/'))
            .map(|(at, _)| &written[at + 1..]);
        let mut parts = std::iter::once(written).chain(behind);
        parts
            .clone()
            .find(|part| self.0.contains_key(*part))
            .or_else(|| parts.find_map(|part| self.in_other_capitals(part)))
            .unwrap_or(written)
    }

    fn in_other_capitals(&self, written: &str) -> Option<&str> {
        let mut alike = self
            .0
            .keys()
            .filter(|name| name.eq_ignore_ascii_case(written));
        let found = alike.next()?;
        alike.next().is_none().then_some(found)
    }
}

impl Tool {
    /// Whether the schema has a property of this name. None: it lists none, so that any name may be one.
    pub(crate) fn declares(&self, key: &str) -> Option<bool> {
        let properties = self.schema.get("properties")?.as_object()?;
        Some(properties.contains_key(key))
    }

    /// The property that `key` is a usual other name for, where the schema has no `key` itself.
    pub(crate) fn alias(&self, key: &str) -> Option<&'static str> {
        let known = match key {
            "path" | "file" | "filename" | "file_name" => "file_path",
            "cmd" => "command",
            "text" | "contents" => "content",
            _ => return None,
        };
        (self.declares(key) == Some(false) && self.declares(known) == Some(true)).then_some(known)
    }

    /// Whether these are all arguments that the schema requires.
    pub(crate) fn has_required(&self, input: &Map<String, Value>) -> bool {
        let required = self.schema.get("required").and_then(Value::as_array);
        let is_there = |key: &Value| key.as_str().is_some_and(|key| input.contains_key(key));
        required.is_none_or(|required| required.iter().all(is_there))
    }

    /// Whether these are all arguments that the schema requires, none that it doesn't know, each of an allowed type.
    pub(crate) fn accepts(&self, input: &Map<String, Value>) -> bool {
        self.has_required(input)
            && input.iter().all(|(key, value)| {
                self.declares(key) != Some(false)
                    && self
                        .kinds_of(key)
                        .is_none_or(|kinds| kinds.has(Kinds::of(value)))
            })
    }

    /// Whether an argument that isn't a string is to be one.
    pub(crate) fn wants_source(&self, input: &Map<String, Value>) -> bool {
        input.iter().any(|(key, value)| {
            let kinds = self.kinds_of(key);
            !value.is_string()
                && kinds
                    .is_some_and(|kinds| kinds.has(Kinds::STRING) && !kinds.has(Kinds::of(value)))
        })
    }

    /// The arguments as the schema wants them.
    pub(crate) fn fit(&self, arguments: Vec<Argument<'_>>) -> Map<String, Value> {
        let fitted = arguments.into_iter().map(|argument| {
            let schema = self.property(&argument.key);
            let value = match argument.written {
                Written::Text(text) => self.fit_text(schema, text),
                Written::Value(value, source) => self.fit_value(schema, value, Some(source), 0),
            };
            (argument.key, value)
        });
        self.given(&self.schema, fitted)
    }

    /// The arguments themselves, where a whole call was written in their place: `{"name": …, "arguments": {…}}`.
    pub(crate) fn unwrapped(&self, mut input: Map<String, Value>) -> Map<String, Value> {
        let is_around = |key: &str| {
            let is_known =
                key == "name" || json::ARGUMENTS.contains(&key) || json::OTHERS.contains(&key);
            is_known && self.declares(key) == Some(false)
        };
        if input.is_empty() || input.len() > 4 || !input.keys().all(|key| is_around(key)) {
            return input;
        }
        let inner = json::ARGUMENTS
            .into_iter()
            .find(|key| matches!(input.get(*key), Some(Value::Object(_))));
        match inner.and_then(|key| input.remove(key)) {
            Some(Value::Object(inner)) => self.fit_input(inner),
            _ => input,
        }
    }

    /// Arguments that arrived as JSON, made to fit.
    pub(crate) fn fit_input(&self, input: Map<String, Value>) -> Map<String, Value> {
        let fitted = input.into_iter().map(|(key, value)| {
            let value = self.fit_value(self.property(&key), value, None, 0);
            (key, value)
        });
        self.given(&self.schema, fitted)
    }

    /// The fields that are given: many models write each optional one, with null for those that they leave out.
    ///
    /// `schema`: of the object that holds them. One that may be null stays, and so does one that is required.
    fn given(
        &self,
        schema: &Value,
        fields: impl Iterator<Item = (String, Value)>,
    ) -> Map<String, Value> {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |key: &str| {
            required.is_some_and(|required| required.iter().any(|name| name.as_str() == Some(key)))
        };
        let is_nothing = |key: &str, value: &Value| {
            let allowed = match value {
                Value::Null => Kinds::NULL,
                Value::String(text) if matches!(text.trim(), "" | "null" | "None") => Kinds::STRING,
                _ => return false,
            };
            let property = schema
                .get("properties")
                .and_then(|properties| properties.get(key));
            let kinds = property.and_then(|property| self.kinds(property, 0));
            kinds.is_some_and(|kinds| kinds != Kinds::NONE && !kinds.has(allowed))
        };
        fields
            .filter(|(key, value)| !is_nothing(key, value) || is_required(key))
            .collect()
    }

    fn property(&self, key: &str) -> Option<&Value> {
        self.schema.get("properties")?.get(key)
    }

    fn kinds_of(&self, key: &str) -> Option<Kinds> {
        self.kinds(self.property(key)?, 0)
    }

    /// None: anything.
    fn kinds(&self, schema: &Value, level: usize) -> Option<Kinds> {
        if level > MAX_LEVELS {
            return None;
        }
        if let Some(target) = self.referred(schema) {
            return self.kinds(target, level + 1);
        }
        match schema.get("type") {
            Some(Value::String(name)) => return Some(Kinds::named(name)),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str).map(Kinds::named);
                return Some(names.fold(Kinds::NONE, Kinds::and));
            }
            _ => {}
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if let Some(Value::Array(members)) = schema.get(union) {
                return members.iter().try_fold(Kinds::NONE, |kinds, member| {
                    Some(kinds.and(self.kinds(member, level + 1)?))
                });
            }
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return Some(values.iter().map(Kinds::of).fold(Kinds::NONE, Kinds::and));
        }
        if let Some(value) = schema.get("const") {
            return Some(Kinds::of(value));
        }
        if schema.get("properties").is_some() {
            return Some(Kinds::OBJECT);
        }
        schema.get("items").is_some().then_some(Kinds::ARRAY)
    }

    fn referred(&self, schema: &Value) -> Option<&Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.schema.pointer(pointer)
    }

    fn fit_text(&self, schema: Option<&Value>, text: &str) -> Value {
        let kinds = schema.and_then(|schema| self.kinds(schema, 0));
        if kinds.is_some_and(|kinds| kinds.has(Kinds::STRING)) {
            return text.into();
        }
        let read = plain(text.trim(), kinds).or_else(|| {
            let any = Kinds::ARRAY.and(Kinds::OBJECT);
            let read = value::read(text.trim())?;
            let read = match schema {
                Some(schema) => self.fit_value(Some(schema), read, None, 0),
                None => read,
            };
            kinds.unwrap_or(any).has(Kinds::of(&read)).then_some(read)
        });
        read.unwrap_or_else(|| text.into())
    }

    fn fit_value(
        &self,
        schema: Option<&Value>,
        value: Value,
        source: Option<&str>,
        level: usize,
    ) -> Value {
        let Some(schema) = schema.filter(|_| level <= MAX_LEVELS) else {
            return value;
        };
        if let Some(target) = self.referred(schema) {
            return self.fit_value(Some(target), value, source, level + 1);
        }
        let kinds = self.kinds(schema, 0);
        let Some(kinds) = kinds.filter(|kinds| *kinds != Kinds::NONE) else {
            return value;
        };
        if kinds.has(Kinds::of(&value)) {
            return self.fit_inside(schema, value, level);
        }
        match value {
            Value::String(text) => {
                if let Some(read) = plain(text.trim(), Some(kinds)) {
                    return read;
                }
                match value::read(text.trim()) {
                    Some(read) if kinds.has(Kinds::of(&read)) => {
                        self.fit_inside(schema, read, level)
                    }
                    _ => text.into(),
                }
            }
            Value::Number(number) if kinds.has(Kinds::INTEGER) => {
                whole(&number).map_or(Value::Number(number), Value::Number)
            }
            Value::Null => Value::Null,
            other if kinds.has(Kinds::STRING) => {
                let written = source.map_or_else(|| other.to_string(), str::to_owned);
                written.into()
            }
            other => other,
        }
    }

    /// The parts of a list or an object, made to fit.
    fn fit_inside(&self, schema: &Value, value: Value, level: usize) -> Value {
        match value {
            Value::Array(items) => {
                let schema = schema.get("items");
                let items = items.into_iter();
                Value::Array(
                    items
                        .map(|item| self.fit_value(schema, item, None, level + 1))
                        .collect(),
                )
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, field)| {
                    let schema = schema
                        .get("properties")
                        .and_then(|properties| properties.get(&key));
                    let field = self.fit_value(schema, field, None, level + 1);
                    (key, field)
                });
                Value::Object(self.given(schema, fields))
            }
            other => other,
        }
    }
}

/// A number, a boolean or null that was written as text, if the type is allowed (None: any is).
fn plain(text: &str, kinds: Option<Kinds>) -> Option<Value> {
    let allowed = |kind| kinds.is_none_or(|kinds| kinds.has(kind));
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return allowed(Kinds::BOOLEAN).then(|| Value::Bool(text.eq_ignore_ascii_case("true")));
    }
    if matches!(text, "null" | "None") {
        return allowed(Kinds::NULL).then_some(Value::Null);
    }
    let number: Number = serde_json::from_str(text).ok()?;
    if allowed(Kinds::NUMBER) {
        return Some(Value::Number(number));
    }
    let integer = whole(&number)?;
    allowed(Kinds::INTEGER).then_some(Value::Number(integer))
}

/// The integer that a number is: `130` of `130.0`.
fn whole(number: &Number) -> Option<Number> {
    if !number.is_f64() {
        return Some(number.clone());
    }
    let value = number.as_f64()?;
    // The integers that a double holds exactly.
    (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then(|| (value as i64).into())
}

//! Calls written as each form's chat template writes them.

use serde_json::{Map, Value};

use crate::catalog::Form;

/// A form, and the template's way of writing it where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Hermes,
    Qwen3Coder,
    /// GLM-4.5 and 4.6: each part in a line of its own.
    GlmLines,
    /// GLM-4.7: nothing between the parts.
    GlmTight,
    Gemma4,
    /// The whole reply.
    Llama3,
    /// Behind `<|python_tag|>`.
    Llama3Tag,
    /// One list.
    MistralList,
    MistralNamed,
    Harmony,
}

pub const STYLES: [Style; 10] = [
    Style::Hermes,
    Style::Qwen3Coder,
    Style::GlmLines,
    Style::GlmTight,
    Style::Gemma4,
    Style::Llama3,
    Style::Llama3Tag,
    Style::MistralList,
    Style::MistralNamed,
    Style::Harmony,
];

impl Style {
    pub fn form(self) -> Form {
        match self {
            Self::Hermes => Form::Hermes,
            Self::Qwen3Coder => Form::Qwen3Coder,
            Self::GlmLines | Self::GlmTight => Form::Glm47,
            Self::Gemma4 => Form::Gemma4,
            Self::Llama3 | Self::Llama3Tag => Form::Llama3,
            Self::MistralList | Self::MistralNamed => Form::Mistral,
            Self::Harmony => Form::Harmony,
        }
    }

    /// Whether strings are escaped, so that no content can be taken for a marker.
    pub fn escapes(self) -> bool {
        !matches!(
            self,
            Self::Qwen3Coder | Self::GlmLines | Self::GlmTight | Self::Gemma4
        )
    }

    /// Whether text can stand in front of calls.
    pub fn takes_text(self) -> bool {
        self != Self::Llama3
    }

    /// A reply: text, and calls behind it.
    pub fn reply(self, text: &str, calls: &[(String, Map<String, Value>)]) -> String {
        let each = |write: &dyn Fn(&str, &Map<String, Value>) -> String, between: &str| {
            let written: Vec<String> = calls
                .iter()
                .map(|(name, input)| write(name, input))
                .collect();
            written.join(between)
        };
        let line = if text.is_empty() { "" } else { "\n" };
        match self {
            Self::Hermes => format!("{text}{line}{}", each(&hermes, "\n")),
            Self::Qwen3Coder => format!("{text}{line}{}", each(&qwen, "\n")),
            Self::GlmLines => format!(
                "{text}{line}{}",
                each(&|name, input| glm(name, input, "\n"), "\n")
            ),
            Self::GlmTight => format!("{text}{}", each(&|name, input| glm(name, input, ""), "")),
            Self::Gemma4 => format!("{text}{}", each(&gemma, "")),
            Self::Llama3 => each(&llama, "; "),
            Self::Llama3Tag => format!("{text}<|python_tag|>{}", each(&llama, "; ")),
            Self::MistralList => format!("{text}[TOOL_CALLS] [{}]", each(&mistral, ", ")),
            Self::MistralNamed => format!(
                "{text}{}",
                each(
                    &|name, input| format!("[TOOL_CALLS]{name}[ARGS]{}", object(input)),
                    ""
                )
            ),
            Self::Harmony => {
                let text = match text {
                    "" => String::new(),
                    text => {
                        format!("<|channel|>commentary<|message|>{text}<|end|><|start|>assistant")
                    }
                };
                format!("{text}{}", each(&harmony, "<|start|>assistant"))
            }
        }
    }

    /// A reply with one call.
    pub fn call(self, name: &str, input: &Value) -> String {
        let input = input.as_object().cloned().unwrap_or_default();
        self.reply("", &[(name.to_owned(), input)])
    }
}

fn hermes(name: &str, input: &Map<String, Value>) -> String {
    format!(
        "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {}}}\n</tool_call>",
        object(input)
    )
}

fn qwen(name: &str, input: &Map<String, Value>) -> String {
    let arguments = input.iter().map(|(key, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(value) => if *value { "True" } else { "False" }.into(),
            Value::Null => "None".into(),
            other => json(other),
        };
        format!("<parameter={key}>\n{value}\n</parameter>\n")
    });
    let arguments: String = arguments.collect();
    format!("<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>")
}

fn glm(name: &str, input: &Map<String, Value>, line: &str) -> String {
    let arguments = input.iter().map(|(key, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => json(other),
        };
        format!("<arg_key>{key}</arg_key>{line}<arg_value>{value}</arg_value>{line}")
    });
    let arguments: String = arguments.collect();
    format!("<tool_call>{name}{line}{arguments}</tool_call>")
}

fn gemma(name: &str, input: &Map<String, Value>) -> String {
    format!(
        "<|tool_call>call:{name}{}<tool_call|>",
        gemma_value(&Value::Object(input.clone()))
    )
}

fn gemma_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("<|\"|>{text}<|\"|>"),
        Value::Null => "None".into(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(gemma_value).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key}:{}", gemma_value(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

fn llama(name: &str, input: &Map<String, Value>) -> String {
    format!(
        "{{\"name\": \"{name}\", \"parameters\": {}}}",
        object(input)
    )
}

fn mistral(name: &str, input: &Map<String, Value>) -> String {
    format!(
        "{{\"name\": \"{name}\", \"arguments\": {}, \"id\": \"abcdefgh1\"}}",
        object(input)
    )
}

fn harmony(name: &str, input: &Map<String, Value>) -> String {
    format!(
        "<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{}<|call|>",
        object(input)
    )
}

fn object(fields: &Map<String, Value>) -> String {
    json(&Value::Object(fields.clone()))
}

/// JSON as Python writes it.
pub fn json(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(json).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), json(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// The keys in the order in which Gemma's template writes them, at every level.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by_key(|(key, _)| key.to_lowercase());
            let fields = fields.into_iter();
            Value::Object(fields.map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

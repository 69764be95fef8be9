//! The forms in which models write tool calls.

use serde::{Deserialize, Serialize};

/// How a model writes a tool call. Each has a reader in `gateway/tool_calls/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `<|tool_call>call:NAME{key:<|"|>value<|"|>}<tool_call|>`: Gemma 4.
    Gemma4,
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Qwen2.5, Qwen3, Hermes.
    Hermes,
    /// `<tool_call><function=NAME><parameter=key>value</parameter></function></tool_call>`: Qwen3-Coder, Qwen3.5.
    Qwen3Coder,
    /// `<tool_call>NAME<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`: GLM-4.5 and newer.
    Glm47,
    /// `{"name": …, "parameters": {…}}` as the whole reply, or behind `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[TOOL_CALLS]` and a list, or `NAME[ARGS]{…}`: Mistral, Devstral.
    Mistral,
    /// `<|channel|>commentary to=functions.NAME<|message|>{…}<|call|>`: gpt-oss.
    Harmony,
}

impl Form {
    /// Read where the chat template does not show the form. Its reader takes all that models write in `<tool_call>` tags, and finds no calls in prose.
    pub const UNKNOWN: Self = Self::Hermes;

    /// The engine's own parser for this form, for an engine that doesn't hand over what the model wrote.
    pub fn engine_parser(self) -> &'static str {
        match self {
            Self::Gemma4 => "gemma4",
            Self::Hermes => "hermes",
            Self::Qwen3Coder => "qwen3_coder",
            Self::Glm47 => "glm47",
            Self::Llama3 => "llama",
            Self::Mistral => "mistral",
            Self::Harmony => "harmony",
        }
    }

    /// Its name in the settings file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Llama3 => "llama3",
            _ => self.engine_parser(),
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemma4 => "Gemma 4",
            Self::Hermes => "Hermes",
            Self::Qwen3Coder => "Qwen3-Coder",
            Self::Glm47 => "GLM",
            Self::Llama3 => "Llama 3",
            Self::Mistral => "Mistral",
            Self::Harmony => "harmony",
        }
    }
}

//! Events of a streamed reply: read once, typed in between, written once.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::gateway::anthropic::{ApiError, json, sse};

/// One event of a streamed reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub(super) data: Data,
    /// As the engine wrote it. Empty: it is ours, or was changed.
    raw: Vec<u8>,
}

/// The content of an event. `index`: the block's, if the event states one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    MessageStart {
        message: Value,
        /// Our own engine says here that text comes as it was generated (see [`mod@super::generated`]).
        as_generated: Value,
    },
    BlockStart {
        index: Option<u64>,
        block: Value,
        /// The end of the prompt, stated by our own engine only.
        prompt_tail: String,
    },
    Delta {
        index: Option<u64>,
        delta: Delta,
    },
    BlockStop {
        index: Option<u64>,
    },
    MessageDelta {
        delta: Value,
        usage: Value,
        /// The token that ended the reply, as our own engine tells.
        stopped_by: Option<String>,
    },
    MessageStop,
    Ping,
    Error(ApiError),
    /// Of a type that is not known here. It passes.
    Other,
}

/// More of a block.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) enum Delta {
    Text {
        text: String,
        /// Places of real marker tokens in it, stated by our own engine only.
        marks: Value,
    },
    /// Of a call's arguments.
    Json(String),
    Thinking(String),
    /// Of a type that is not known here.
    Other,
}

/// The events that are most of a reply, so that these are read without detours.
#[derive(Deserialize)]
struct WireDelta<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    index: Option<u64>,
    #[serde(borrow)]
    delta: WireDeltaContent<'a>,
    #[serde(default)]
    marks: Value,
}

#[derive(Deserialize)]
struct WireDeltaContent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    text: Option<String>,
    partial_json: Option<String>,
    thinking: Option<String>,
}

impl Event {
    /// Reads an event of the engine's stream. None: it is no JSON.
    pub(super) fn read(event: &sse::Event) -> Option<Self> {
        let raw = || event.raw.to_vec();
        if event.name == b"ping" {
            return Some(Self {
                data: Data::Ping,
                raw: raw(),
            });
        }
        if event.name == b"content_block_delta"
            && let Ok(wire) = serde_json::from_slice::<WireDelta>(&event.data)
            && wire.kind == "content_block_delta"
        {
            return Some(Self {
                data: Data::Delta {
                    index: wire.index,
                    delta: wire.delta.typed(wire.marks),
                },
                raw: raw(),
            });
        }
        let value = json::read(&event.data).ok()?;
        let data = match event.name {
            // llama.cpp's server names it alone, and its data says only what is wrong.
            b"error" => Data::Error(ApiError::from_event(&value)),
            _ => Data::of(value),
        };
        // The engine's words are put into ours.
        let raw = match data {
            Data::Error(_) => Vec::new(),
            _ => raw(),
        };
        Some(Self { data, raw })
    }

    /// All events of a stream.
    #[cfg(test)]
    pub(in crate::gateway) fn all(stream: &[u8]) -> Vec<Self> {
        let mut reader = sse::Reader::default();
        reader.push(stream);
        std::iter::from_fn(|| Some(Self::read(&reader.next().ok()??).expect("JSON"))).collect()
    }

    pub(in crate::gateway) fn message_start(message: Value) -> Self {
        Self::from(Data::MessageStart {
            message,
            as_generated: Value::Null,
        })
    }

    pub(in crate::gateway) fn block_start(index: u64, block: Value) -> Self {
        Self::from(Data::BlockStart {
            index: Some(index),
            block,
            prompt_tail: String::new(),
        })
    }

    pub(in crate::gateway) fn delta(index: u64, delta: Delta) -> Self {
        Self::from(Data::Delta {
            index: Some(index),
            delta,
        })
    }

    pub(in crate::gateway) fn block_stop(index: u64) -> Self {
        Self::from(Data::BlockStop { index: Some(index) })
    }

    /// The end of a reply but for `message_stop`.
    pub(in crate::gateway) fn message_delta(
        stop_reason: &str,
        stop_sequence: Option<&str>,
        usage: Value,
    ) -> Self {
        Self::from(Data::MessageDelta {
            delta: json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence}),
            usage,
            stopped_by: None,
        })
    }

    pub(in crate::gateway) fn message_stop() -> Self {
        Self::from(Data::MessageStop)
    }

    /// The three events of a block of text.
    pub(in crate::gateway) fn text_block(index: u64, text: impl Into<String>) -> [Self; 3] {
        [
            Self::block_start(index, json!({"type": "text", "text": ""})),
            Self::delta(index, Delta::text(text)),
            Self::block_stop(index),
        ]
    }

    /// The three events of a whole tool call. `block`: it has an empty input, and `input` is the true one.
    pub(super) fn call(index: u64, block: Value, input: String) -> [Self; 3] {
        [
            Self::block_start(index, block),
            Self::delta(index, Delta::Json(input)),
            Self::block_stop(index),
        ]
    }

    pub(in crate::gateway) fn ping() -> Self {
        Self::from(Data::Ping)
    }

    /// Whether it only opens a message, so that nothing is said by it.
    pub(in crate::gateway) fn is_opening(&self) -> bool {
        matches!(
            self.data,
            Data::MessageStart { .. } | Data::BlockStart { .. } | Data::Ping
        )
    }

    pub(in crate::gateway) fn is_message_stop(&self) -> bool {
        self.data == Data::MessageStop
    }

    pub(in crate::gateway) fn error(&self) -> Option<&ApiError> {
        match &self.data {
            Data::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Its length, about, in bytes.
    pub(in crate::gateway) fn size(&self) -> usize {
        /// About as long as one without text.
        const EMPTY: usize = 128;
        if !self.raw.is_empty() {
            return self.raw.len();
        }
        EMPTY
            + match &self.data {
                Data::Delta { delta, .. } => delta.content().len(),
                _ => 0,
            }
    }

    /// Writes it as the client gets it.
    fn write(&self, out: &mut Vec<u8>) {
        if !self.raw.is_empty() {
            return out.extend_from_slice(&self.raw);
        }
        let data = self.data.json();
        let name = data["type"].as_str().unwrap_or_default();
        out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }
}

/// The bytes of events, as the client gets them.
pub fn sse_bytes<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut out = Vec::new();
    events.into_iter().for_each(|event| event.write(&mut out));
    out
}

impl From<Data> for Event {
    fn from(data: Data) -> Self {
        Self {
            data,
            raw: Vec::new(),
        }
    }
}

impl From<ApiError> for Event {
    fn from(error: ApiError) -> Self {
        Data::Error(error).into()
    }
}

impl Data {
    fn of(mut event: Value) -> Self {
        let index = event["index"].as_u64();
        let mut take = |name: &str| event.get_mut(name).map(Value::take).unwrap_or_default();
        let text = |value: Value| value.as_str().map(str::to_owned);
        let object = |value: Value| match value {
            Value::Object(_) => value,
            _ => json!({}),
        };
        match take("type").as_str().unwrap_or_default() {
            "message_start" => Self::MessageStart {
                message: object(take("message")),
                as_generated: take("as_generated"),
            },
            "content_block_start" => Self::BlockStart {
                index,
                block: take("content_block"),
                prompt_tail: text(take("prompt_tail")).unwrap_or_default(),
            },
            "content_block_delta" => {
                let marks = take("marks");
                Self::Delta {
                    index,
                    delta: Delta::of(&take("delta"), marks),
                }
            }
            "content_block_stop" => Self::BlockStop { index },
            "message_delta" => Self::MessageDelta {
                delta: object(take("delta")),
                usage: take("usage"),
                stopped_by: text(take("stopped_by")),
            },
            "message_stop" => Self::MessageStop,
            "ping" => Self::Ping,
            "error" => Self::Error(ApiError::from_event(&event)),
            _ => Self::Other,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::MessageStart { message, .. } => {
                json!({"type": "message_start", "message": message})
            }
            Self::BlockStart { index, block, .. } => {
                json!({"type": "content_block_start", "index": index, "content_block": block})
            }
            Self::Delta { index, delta } => {
                json!({"type": "content_block_delta", "index": index, "delta": delta.json()})
            }
            Self::BlockStop { index } => json!({"type": "content_block_stop", "index": index}),
            Self::MessageDelta { delta, usage, .. } => {
                json!({"type": "message_delta", "delta": delta, "usage": usage})
            }
            Self::MessageStop => json!({"type": "message_stop"}),
            Self::Ping | Self::Other => json!({"type": "ping"}),
            Self::Error(error) => error.json(),
        }
    }
}

impl WireDeltaContent<'_> {
    fn typed(self, marks: Value) -> Delta {
        match &*self.kind {
            "text_delta" => Delta::Text {
                text: self.text.unwrap_or_default(),
                marks,
            },
            "input_json_delta" => Delta::Json(self.partial_json.unwrap_or_default()),
            "thinking_delta" => Delta::Thinking(self.thinking.unwrap_or_default()),
            _ => Delta::Other,
        }
    }
}

impl Delta {
    pub(in crate::gateway) fn text(text: impl Into<String>) -> Self {
        Self::Text {
            text: text.into(),
            marks: Value::Null,
        }
    }

    fn of(delta: &Value, marks: Value) -> Self {
        let text = |name: &str| delta[name].as_str().map(str::to_owned);
        let content = WireDeltaContent {
            kind: delta["type"].as_str().unwrap_or_default().into(),
            text: text("text"),
            partial_json: text("partial_json"),
            thinking: text("thinking"),
        };
        content.typed(marks)
    }

    /// The text, JSON or thought that it adds.
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Text { text, .. } => text,
            Self::Json(json) => json,
            Self::Thinking(thought) => thought,
            Self::Other => "",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text { text, .. } => json!({"type": "text_delta", "text": text}),
            Self::Json(json) => json!({"type": "input_json_delta", "partial_json": json}),
            Self::Thinking(thought) => json!({"type": "thinking_delta", "thinking": thought}),
            Self::Other => Value::Null,
        }
    }
}

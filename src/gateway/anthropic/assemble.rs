//! A plain reply of the events of a streamed one.

use serde_json::{Value, json};

use crate::gateway::anthropic::event::{Data, Event};
use crate::gateway::anthropic::{ApiError, json};

/// The message that these events, which the client would get, make. Errors: the one that they end in, or None if they have no end.
pub fn message(events: Vec<Event>) -> Result<Vec<u8>, Option<ApiError>> {
    let mut message = Value::Null;
    let mut blocks: Vec<(Value, String)> = Vec::new();
    for event in events {
        match event.data {
            Data::Error(error) => return Err(Some(error)),
            Data::MessageStart { message: begun, .. } => message = begun,
            Data::BlockStart { block, .. } => blocks.push((block, String::new())),
            Data::Delta { delta, .. } => {
                if let Some((_, text)) = blocks.last_mut() {
                    text.push_str(delta.content());
                }
            }
            Data::MessageDelta { delta, usage, .. } => {
                for field in ["stop_reason", "stop_sequence"] {
                    message[field] = delta[field].clone();
                }
                if let Some(usage) = usage.as_object() {
                    for (name, tokens) in usage {
                        message["usage"][name] = tokens.clone();
                    }
                }
            }
            Data::MessageStop => {
                let blocks = blocks.into_iter().map(|(block, text)| whole(block, text));
                message["content"] = blocks.collect();
                return Ok(message.to_string().into_bytes());
            }
            Data::BlockStop { .. } | Data::Ping | Data::Other => {}
        }
    }
    Err(None)
}

fn whole(mut block: Value, text: String) -> Value {
    let kind = block["type"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "tool_use" => {
            if let Ok(input) = json::read(text.as_bytes()) {
                block["input"] = input;
            }
        }
        "text" | "thinking" => {
            let kind = kind.as_str();
            let begun = block[kind].as_str().unwrap_or_default();
            block[kind] = json!(format!("{begun}{text}"));
        }
        _ => {}
    }
    block
}

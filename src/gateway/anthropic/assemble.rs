//! A plain reply of the events of a streamed one.

use serde_json::{Value, json};

use crate::gateway::anthropic::{json, sse};

/// The message that these events, which the client would get, make. Err: the `error` event that they end in, or None if they have no end.
pub fn message(events: &[u8]) -> Result<Vec<u8>, Option<Value>> {
    let mut reader = sse::Reader::default();
    reader.push(events);
    let mut message = Value::Null;
    let mut blocks: Vec<(Value, String)> = Vec::new();
    while let Ok(Some(event)) = reader.next() {
        let Ok(data) = serde_json::from_slice::<Value>(&event.data) else {
            continue;
        };
        match data["type"].as_str().unwrap_or_default() {
            "error" => return Err(Some(data)),
            "message_start" => message = data["message"].clone(),
            "content_block_start" => blocks.push((data["content_block"].clone(), String::new())),
            "content_block_delta" => {
                let delta = &data["delta"];
                let more = ["text", "partial_json", "thinking"]
                    .iter()
                    .find_map(|field| delta[*field].as_str());
                if let Some((_, text)) = blocks.last_mut() {
                    text.push_str(more.unwrap_or_default());
                }
            }
            "message_delta" => {
                for field in ["stop_reason", "stop_sequence"] {
                    message[field] = data["delta"][field].clone();
                }
                if let Some(usage) = data["usage"].as_object() {
                    for (name, tokens) in usage {
                        message["usage"][name] = tokens.clone();
                    }
                }
            }
            "message_stop" => {
                let blocks = blocks.into_iter().map(|(block, text)| whole(block, text));
                message["content"] = blocks.collect();
                return Ok(message.to_string().into_bytes());
            }
            _ => {}
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

//! Events of a stream as they are written, and text deltas cut short.

use serde_json::Value;

use crate::gateway::anthropic::sse;

/// A text delta without text is about as long, in bytes.
pub const EMPTY_DELTA: usize =
    r#"{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}"#
        .len();

/// An event with this name.
pub fn event(name: &str, data: &Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// A text delta with the first `length` bytes of its text.
pub fn shortened(raw: &[u8], length: usize) -> Vec<u8> {
    let mut reader = sse::Reader::default();
    reader.push(raw);
    let data = match reader.next() {
        Ok(Some(event)) => serde_json::from_slice::<Value>(&event.data).ok(),
        _ => None,
    };
    let Some(mut data) = data else {
        return Vec::new();
    };
    let text = data["delta"]["text"].as_str().unwrap_or_default();
    let text = text.get(..length).unwrap_or(text).to_owned();
    data["delta"]["text"] = text.into();
    event("content_block_delta", &data)
}

/// Whether these bytes stand among the others.
pub fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

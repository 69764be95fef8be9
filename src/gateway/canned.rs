//! Replies that the gateway gives by itself, without the engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::anthropic::{Event, Request, sse_bytes};

/// A reply of one text that ends the turn, as a stream or plain, as it was asked for.
pub(super) fn reply(text: &str, request: &Request) -> Response {
    let (kind, body) = match request.stream {
        true => ("text/event-stream", stream(text, request)),
        false => {
            let content = json!([{"type": "text", "text": text}]);
            let message = message(request, content, json!("end_turn"));
            ("application/json", message.to_string().into_bytes())
        }
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn stream(text: &str, request: &Request) -> Vec<u8> {
    let message = message(request, json!([]), Value::Null);
    let mut events = vec![Event::message_start(message)];
    events.extend(Event::text_block(0, text));
    events.push(Event::message_delta(
        "end_turn",
        None,
        json!({"output_tokens": 0}),
    ));
    events.push(Event::message_stop());
    sse_bytes(&events)
}

fn message(request: &Request, content: Value, stop_reason: Value) -> Value {
    json!({
        "id": id(),
        "type": "message",
        "role": "assistant",
        "model": request.asked_model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    })
}

/// One that no other reply has: the client takes replies of the same id for one.
fn id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    format!("msg_{now:x}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

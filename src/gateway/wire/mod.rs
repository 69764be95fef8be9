//! The messages themselves: pure, bytes in and bytes out. No network, no clock.

use serde_json::{Value, json};

/// The model as the engine serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The name that the engine knows it by.
    pub name: String,
    /// The longest reply, in tokens. A request for more is cut down to it.
    pub output_tokens: u64,
    /// The engine's tool-call parser, such as `gemma4`.
    pub tool_call_parser: String,
}

/// A request, read and made ready for the engine.
#[derive(Debug, Clone)]
pub struct Request {
    /// The model's name as the client asked for it; replies name it.
    pub asked_model: String,
    pub stream: bool,
    /// The longest reply, in tokens, as the engine is asked for it.
    pub max_tokens: u64,
    /// What goes to the engine.
    pub body: Vec<u8>,
}

/// Tokens of one request, as they are reported to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that were computed.
    pub input_tokens: u64,
    /// Prompt tokens that were there already.
    pub cache_read_input_tokens: u64,
    pub output_tokens: u64,
}

/// An error in the API's own shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// Such as `invalid_request_error`.
    pub kind: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
        }
    }

    /// The body of an error reply, and the data of an `error` event.
    pub fn json(&self) -> Value {
        json!({"type": "error", "error": {"type": self.kind, "message": self.message}})
    }
}

/// Reads a body of `POST /v1/messages` and makes it ready for the engine. Errors: it is no such request.
pub fn messages(body: &[u8], served: &Served) -> Result<Request, ApiError> {
    let invalid = |message: &str| ApiError::new(400, "invalid_request_error", message);
    let mut value: Value =
        serde_json::from_slice(body).map_err(|_| invalid("the body is not JSON"))?;
    let fields = value
        .as_object_mut()
        .ok_or_else(|| invalid("the body is not an object"))?;
    let asked_model = fields
        .get("model")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid("model: Field required"))?
        .to_owned();
    fields.insert("model".into(), json!(served.name));
    let stream = fields.get("stream").and_then(Value::as_bool) == Some(true);
    Ok(Request {
        asked_model,
        stream,
        max_tokens: served.output_tokens,
        body: value.to_string().into_bytes(),
    })
}

/// A streamed reply on its way to the client: repaired, event by event.
#[derive(Debug)]
pub struct Repair {
    usage: Usage,
}

impl Repair {
    /// `prompt_tokens`: the prompt's length, if it was counted before.
    pub fn new(_request: &Request, _prompt_tokens: Option<u64>) -> Self {
        Self {
            usage: Usage::default(),
        }
    }

    /// Takes bytes of the engine's stream as they come, split anywhere, and returns the bytes that are ready for the client.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    /// The engine's stream has ended: what is left, and an `error` event if it ended before its time.
    pub fn finish(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What is known of the tokens so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// A plain (not streamed) reply of the engine, repaired. Errors: it is no reply.
pub fn reply(body: &[u8], _request: &Request) -> Result<(Vec<u8>, Usage), ApiError> {
    Ok((body.to_vec(), Usage::default()))
}

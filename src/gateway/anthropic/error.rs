//! Errors in the API's own shape, ours and the engine's.

use serde_json::{Value, json};

use super::overflow::Overflow;

/// How much of an engine's own words is passed on, in characters.
const LONGEST_MESSAGE: usize = 2_000;

/// An error in the API's own shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// Such as `invalid_request_error`.
    pub kind: &'static str,
    pub message: String,
    /// The engine refused the request for its length.
    pub overflow: Option<Overflow>,
}

impl ApiError {
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            overflow: None,
        }
    }

    /// The request is not one.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// The sentence on which Claude Code compacts the conversation and goes on: it reads both numbers, and the first must be the larger one. Only as an HTTP status of its own: inside a stream that has begun,
    /// it asks the same again.
    pub fn prompt_too_long(tokens: u64, window: u64) -> Self {
        Self::invalid(format!(
            "prompt is too long: {tokens} tokens > {window} maximum"
        ))
    }

    /// An error reply of the engine, whatever its shape: `{"detail": …}`, `{"error": {"message": …}}`, or no JSON at all.
    pub fn from_engine(status: u16, body: &[u8]) -> Self {
        let said = Self::words(body).unwrap_or_else(|| format!("the engine answered {status}"));
        let (status, kind) = match status {
            400 | 422 => (400, "invalid_request_error"),
            // The engine's key is the gateway's affair. Told of a 401, the client would ask its user to log in.
            401 | 403 => (502, "api_error"),
            404 => (404, "not_found_error"),
            413 => (413, "request_too_large"),
            429 => (429, "rate_limit_error"),
            503 | 529 => (529, "overloaded_error"),
            504 => (504, "timeout_error"),
            status @ 500..=599 => (status, "api_error"),
            _ => (502, "api_error"),
        };
        // litellm and Ray pass the status of the server behind them on, mostly.
        let overflow = matches!(status, 400 | 413).then(|| {
            let json = serde_json::from_slice(body).unwrap_or_default();
            Overflow::of(&said, &json)
        });
        Self {
            overflow: overflow.flatten(),
            ..Self::new(status, kind, said)
        }
    }

    /// The words in an error's body: Anthropic's and OpenAI's shape, FastAPI's, or text.
    pub(crate) fn words(body: &[u8]) -> Option<String> {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            return (!text.is_empty() && !text.starts_with('<')).then(|| short(text));
        };
        let found = [
            &value["error"]["message"],
            &value["detail"],
            &value["detail"]["message"],
            &value["detail"][0]["msg"],
            &value["error"],
            &value["message"],
        ];
        let words = found.into_iter().find_map(Value::as_str);
        // Of any other shape: as it is.
        let whole = || {
            let found = [&value["detail"], &value["error"]];
            let whole = found
                .into_iter()
                .find(|value| value.is_object() || value.is_array())?;
            Some(whole.to_string())
        };
        words
            .map(str::trim)
            .filter(|words| !words.is_empty())
            .map(short)
            .or_else(|| Some(short(&whole()?)))
    }

    /// The body of an error reply, and the data of an `error` event.
    pub fn json(&self) -> Value {
        json!({"type": "error", "error": {"type": self.kind, "message": self.message}})
    }

    /// The `error` event of an engine's stream, read. What has no known type is an `api_error`, and so is what is about the engine's key.
    pub(crate) fn from_event(event: &Value) -> Self {
        let error = &event["error"];
        let kind = error["type"].as_str().unwrap_or_default();
        let (status, kind) = KINDS
            .iter()
            .copied()
            .find(|(_, known)| *known == kind)
            .unwrap_or((500, "api_error"));
        let message = (error["message"].as_str())
            .or_else(|| event["message"].as_str())
            .filter(|message| !message.is_empty());
        let message = short(message.unwrap_or("the engine reported an error"));
        Self {
            overflow: Overflow::of(&message, event),
            ..Self::new(status, kind, message)
        }
    }
}

/// The API's types of errors and their statuses, but for those about keys: the engine's is the gateway's affair. Source: Anthropic's API reference, "Errors".
const KINDS: [(u16, &str); 7] = [
    (400, "invalid_request_error"),
    (404, "not_found_error"),
    (413, "request_too_large"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (504, "timeout_error"),
    (529, "overloaded_error"),
];

fn short(text: &str) -> String {
    text.chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_an_engines_error_is_read() {
        let read = |status, body: &str| ApiError::from_engine(status, body.as_bytes());
        assert_eq!(
            read(404, r#"{"detail":"The model `x` does not exist."}"#),
            ApiError::new(404, "not_found_error", "The model `x` does not exist.")
        );
        assert_eq!(
            read(
                422,
                r#"{"detail":[{"loc":["body"],"msg":"Field required"}]}"#
            ),
            ApiError::invalid("Field required")
        );
        assert_eq!(
            read(
                503,
                r#"{"detail":{"error":"text_generation_busy","message":"busy"}}"#
            ),
            ApiError::new(529, "overloaded_error", "busy")
        );
        assert_eq!(
            read(
                400,
                r#"{"error":{"message":"too much","type":"BadRequest"}}"#
            ),
            ApiError::invalid("too much")
        );
        assert_eq!(
            read(500, "Internal Server Error"),
            ApiError::new(500, "api_error", "Internal Server Error")
        );
        assert_eq!(read(502, "<html>").message, "the engine answered 502");
        assert_eq!(read(200, "").status, 502);
        assert_eq!(read(302, "").status, 502);
        assert_eq!(
            read(
                503,
                r#"{"type":"error","error":{"type":"x","message":"busy"}}"#
            ),
            ApiError::new(529, "overloaded_error", "busy")
        );
        assert_eq!(
            read(400, r#"{"detail":{"loc":["body"]}}"#),
            ApiError::invalid(r#"{"loc":["body"]}"#)
        );
        assert_eq!(read(500, &"é".repeat(5000)).message.chars().count(), 2000);
    }

    #[test]
    fn an_error_event_is_read_in_every_servers_form() {
        let read = |event: Value| {
            let error = ApiError::from_event(&event);
            (error.status, error.message)
        };
        // llama.cpp's server has no error in its error.
        let said = "The model produced output that does not match the expected peg-native format";
        let event = json!({"code": 500, "message": said, "type": "server_error"});
        assert_eq!(read(event), (500, said.into()));
        let vllm =
            json!({"type": "error", "error": {"type": "internal_error", "message": "it failed"}});
        assert_eq!(read(vllm), (500, "it failed".into()));
        let nothing = "the engine reported an error".to_owned();
        assert_eq!(read(json!({"type": "error"})), (500, nothing.clone()));
        assert_eq!(read(json!("error")), (500, nothing));
    }

    #[test]
    fn the_engines_key_is_not_the_clients_affair() {
        let error = ApiError::from_engine(401, br#"{"detail":"Invalid API key"}"#);
        assert_eq!((error.status, error.kind), (502, "api_error"));
        for kind in ["authentication_error", "permission_error"] {
            let event = json!({"type": "error", "error": {"type": kind, "message": "no"}});
            let error = ApiError::from_event(&event);
            assert_eq!((error.status, error.kind), (500, "api_error"));
        }
    }
}

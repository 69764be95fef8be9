//! Requests, read and made ready for the engine.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::gateway::anthropic::documents::{PdfTexts, pdfs};
use crate::gateway::anthropic::json::Unreadable;
use crate::gateway::anthropic::media::Media;
use crate::gateway::anthropic::{
    ApiError, Served, fold, json, names, repeats, restored_files, system,
};
use crate::gateway::tool_calls::schema::Tools;

/// A request, read and made ready for the engine.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The model's name as the client asked for it; replies name it.
    pub asked_model: String,
    pub stream: bool,
    /// The longest reply, in tokens, as the engine is asked for it.
    pub max_tokens: u64,
    /// The tools, by the names that the model knows them by.
    pub tools: Arc<Tools>,
    /// Words at which the reply ends.
    pub stop_sequences: Vec<String>,
    /// What goes to the engine. `count_tokens` takes it as well.
    pub body: Bytes,
    /// Where in the body the fields begin that never change. In front of them stand those that can: `max_tokens` and `stream`.
    pub(super) fixed: usize,
    /// The field `stream` as the engine gets it. None: it gets none.
    pub(super) sent_stream: Option<bool>,
    /// True if the model is shown pictures: then the prompt can have more tokens than bytes.
    pub has_pictures: bool,
    /// Names of tools by those that the model knows them by, where the two differ.
    pub aliases: Arc<HashMap<String, String>>,
    /// Tools that can't be passed on.
    pub left_out: Vec<String>,
    /// A sentence for the user that ends the turn without the engine, as the model makes the same call for ever.
    pub loop_ended: Option<String>,
}

impl Request {
    /// The name of a tool, as the client knows it, by the one that the model was told.
    pub fn tool_name<'a>(&'a self, told: &'a str) -> &'a str {
        self.aliases.get(told).map_or(told, String::as_str)
    }

    /// Asks for a reply of no more than this, in tokens.
    pub fn limit_reply(&mut self, max_tokens: u64) {
        self.max_tokens = max_tokens;
        self.begin_anew();
    }

    /// Asks the engine for a stream, whatever the client has asked for.
    pub fn ask_for_a_stream(&mut self) {
        if self.sent_stream != Some(true) {
            self.sent_stream = Some(true);
            self.begin_anew();
        }
    }

    /// Writes the fields anew that can change.
    fn begin_anew(&mut self) {
        let fixed = self.body.slice(self.fixed..);
        let mut body = self.beginning(fixed.len());
        self.fixed = body.len();
        body.extend_from_slice(&fixed);
        self.body = body.into();
    }

    /// The beginning of a body, with room for this many bytes more.
    fn beginning(&self, more: usize) -> Vec<u8> {
        let mut beginning = format!(r#"{{"max_tokens":{}"#, self.max_tokens);
        if let Some(stream) = self.sent_stream {
            beginning += &format!(r#","stream":{stream}"#);
        }
        let mut body = Vec::with_capacity(beginning.len() + more);
        body.extend_from_slice(beginning.as_bytes());
        body
    }

    /// Writes the body. `size`: about how long it becomes, in bytes.
    fn write(&mut self, fields: Map<String, Value>, size: usize) {
        let mut body = self.beginning(size);
        self.fixed = body.len();
        // To write to memory does not fail.
        let _ = serde_json::to_writer(&mut body, &fields);
        // Both are one object.
        if let Some(brace) = body.get_mut(self.fixed) {
            *brace = b',';
        }
        body.shrink_to_fit();
        self.body = body.into();
    }
}

/// What engines understand. The rest (`thinking`, `context_management`, `output_config`, `metadata` with the device's id, …) acts on the API's own models only.
/// The last two are vllm-mlx's.
const FIELDS: [&str; 13] = [
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "tools",
    "tool_choice",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "response_format",
    "chat_template_kwargs",
];

/// Reads a body of `POST /v1/messages` and makes it ready for the engine, without the text of PDFs. Errors: it is no such request.
pub fn messages(body: &[u8], served: &Served) -> Result<Request, ApiError> {
    Draft::read(body)?.messages(served, &PdfTexts::default())
}

/// A body that was read, of a request for a message or for a count.
#[derive(Debug)]
pub struct Draft {
    fields: Map<String, Value>,
    /// How long it was, in bytes.
    size: usize,
}

impl Draft {
    /// Errors: it is no such request.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let fields = fields(body)?;
        validate(&fields)?;
        let size = body.len();
        Ok(Self { fields, size })
    }

    /// The PDFs in it, in base64.
    pub fn pdfs(&self) -> Vec<&str> {
        let messages = self.fields.get("messages").and_then(Value::as_array);
        messages.map_or_else(Vec::new, |messages| pdfs(messages))
    }

    /// Makes it ready for the engine. Errors: it has no valid `max_tokens`.
    pub fn messages(self, served: &Served, texts: &PdfTexts) -> Result<Request, ApiError> {
        let Self { mut fields, size } = self;
        let asked = match fields.get("max_tokens") {
            None => return Err(ApiError::invalid("max_tokens: Field required")),
            Some(tokens) => tokens
                .as_u64()
                .filter(|tokens| *tokens > 0)
                .ok_or_else(|| {
                    ApiError::invalid("max_tokens: Input should be a valid integer greater than 0")
                })?,
        };
        let mut request = ready(&mut fields, served, texts);
        request.max_tokens = asked.min(served.window.output.max(1));
        request.sent_stream = fields.get("stream").and_then(Value::as_bool);
        request.stream = request.sent_stream == Some(true);
        fields.retain(|name, _| !matches!(name.as_str(), "max_tokens" | "stream"));
        request.write(fields, size);
        Ok(request)
    }

    /// Makes it ready for the engine's own count.
    pub fn count_tokens(self, served: &Served, texts: &PdfTexts) -> Vec<u8> {
        let Self { mut fields, .. } = self;
        ready(&mut fields, served, texts);
        Value::Object(fields).to_string().into_bytes()
    }
}

fn fields(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match json::read(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::invalid("the body is not a JSON object")),
        Err(Unreadable::TooDeep(at)) => Err(ApiError::invalid(format!(
            "the body is nested deeper than {} levels, at byte {at}",
            json::DEEPEST
        ))),
        Err(Unreadable::TooMany(at)) => Err(ApiError::new(
            413,
            "request_too_large",
            format!(
                "the body has more than {} values, at byte {at}",
                json::MOST_VALUES
            ),
        )),
        Err(Unreadable::Invalid(what)) => Err(ApiError::invalid(format!(
            "the body is not valid JSON: {what}"
        ))),
    }
}

/// Maps and folds. Returns what is known of the request beside its body.
fn ready(fields: &mut Map<String, Value>, served: &Served, texts: &PdfTexts) -> Request {
    fields.retain(|name, value| FIELDS.contains(&name.as_str()) && !value.is_null());
    let mut request = Request {
        asked_model: fields
            .insert("model".into(), json!(served.name))
            .and_then(|model| model.as_str().map(str::to_owned))
            .unwrap_or_default(),
        ..Request::default()
    };
    if let Some(Value::Array(messages)) = fields.get_mut("messages") {
        request.loop_ended = repeats::note(messages);
        restored_files::limit(messages, served.window.restored_files());
        let pictures = served.pictures;
        *messages = fold::fold(std::mem::take(messages), &Media { pictures, texts });
        request.has_pictures = has_pictures(messages);
    }
    system::settle(fields);
    let names = names::pass_on(fields);
    request.aliases = Arc::new(names.aliases);
    request.left_out = names.left_out;
    let list = |name: &str| fields.get(name).and_then(Value::as_array);
    request.tools = Arc::new(Tools::new(list("tools").map_or(&[], Vec::as_slice)));
    let stops = list("stop_sequences").into_iter().flatten();
    request.stop_sequences = stops.filter_map(Value::as_str).map(str::to_owned).collect();
    request
}

fn has_pictures(messages: &[Value]) -> bool {
    let blocks = messages
        .iter()
        .filter_map(|message| message["content"].as_array())
        .flatten();
    let mut all = blocks.flat_map(|block| {
        std::iter::once(block).chain(block["content"].as_array().into_iter().flatten())
    });
    all.any(|block| block["type"] == "image")
}

/// Holds the request against the shapes that an engine answers with a bare 500.
fn validate(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let wrong =
        |path: &str, what: &str| Err(ApiError::invalid(format!("{path}: Input should be {what}")));
    match fields.get("model") {
        None => return Err(ApiError::invalid("model: Field required")),
        Some(Value::String(_)) => {}
        Some(_) => return wrong("model", "a valid string"),
    }
    let messages = match fields.get("messages") {
        None => return Err(ApiError::invalid("messages: Field required")),
        Some(Value::Array(messages)) => messages,
        Some(_) => return wrong("messages", "a valid list"),
    };
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "messages: at least one message is required",
        ));
    }
    for (index, message) in messages.iter().enumerate() {
        validate_message(message, &format!("messages.{index}"))?;
    }
    match fields.get("system") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(Value::Array(blocks)) if blocks.iter().all(|block| block["text"].is_string()) => {}
        Some(_) => return wrong("system", "a valid string or a list of text blocks"),
    }
    match fields.get("tools") {
        None | Some(Value::Null) => {}
        Some(Value::Array(tools)) => {
            for (index, tool) in tools.iter().enumerate() {
                validate_tool(tool, &format!("tools.{index}"))?;
            }
        }
        Some(_) => return wrong("tools", "a valid list"),
    }
    let is_absent_or = |name: &str, check: fn(&Value) -> bool| {
        fields
            .get(name)
            .is_none_or(|value| value.is_null() || check(value))
    };
    for (name, check, what) in [
        (
            "stream",
            Value::is_boolean as fn(&Value) -> bool,
            "a valid boolean",
        ),
        ("temperature", Value::is_number, "a valid number"),
        ("top_p", Value::is_number, "a valid number"),
        ("top_k", Value::is_i64, "a valid integer"),
        ("tool_choice", Value::is_object, "a valid object"),
        ("response_format", Value::is_object, "a valid object"),
        ("chat_template_kwargs", Value::is_object, "a valid object"),
        (
            "stop_sequences",
            are_stops,
            "a list of at most 1000 strings",
        ),
    ] {
        if !is_absent_or(name, check) {
            return wrong(name, what);
        }
    }
    Ok(())
}

fn validate_message(message: &Value, path: &str) -> Result<(), ApiError> {
    let wrong = |what: &str| Err(ApiError::invalid(format!("{path}{what}")));
    if !message.is_object() {
        return wrong(": Input should be a valid object");
    }
    match message["role"].as_str() {
        Some("user" | "assistant" | "system") => {}
        Some(_) => return wrong(".role: Input should be 'user' or 'assistant'"),
        None => return wrong(".role: Field required"),
    }
    let blocks = match &message["content"] {
        Value::String(_) => return Ok(()),
        // A model may answer with nothing; a user can't ask nothing.
        Value::Array(blocks) if blocks.is_empty() && message["role"] == "user" => {
            return wrong(".content: user messages must have non-empty content");
        }
        Value::Array(blocks) => blocks,
        Value::Null => return wrong(".content: Field required"),
        _ => return wrong(".content: Input should be a valid string or list"),
    };
    for (index, block) in blocks.iter().enumerate() {
        let wrong = |what: &str| Err(ApiError::invalid(format!("{path}.content.{index}.{what}")));
        let is_text = |name: &str| block[name].is_string();
        match block["type"].as_str() {
            None => return wrong("type: Field required"),
            Some("text") if !is_text("text") => {
                return wrong("text: Input should be a valid string");
            }
            Some("tool_use") if !is_text("id") || !is_text("name") => {
                return wrong("id, name: Input should be a valid string");
            }
            Some("tool_use") if !block["input"].is_object() => {
                return wrong("input: Input should be a valid object");
            }
            Some("tool_result") if !is_text("tool_use_id") => {
                return wrong("tool_use_id: Input should be a valid string");
            }
            Some("tool_result")
                if !matches!(
                    block["content"],
                    Value::Null | Value::String(_) | Value::Array(_)
                ) =>
            {
                return wrong("content: Input should be a valid string or list");
            }
            Some("tool_result") => {
                validate_result(&block["content"], &format!("{path}.content.{index}"))?;
            }
            Some("image" | "document") if !block["source"].is_object() => {
                return wrong("source: Input should be a valid object");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// `path`: of the result that has this content.
fn validate_result(content: &Value, path: &str) -> Result<(), ApiError> {
    for (index, part) in content.as_array().into_iter().flatten().enumerate() {
        let wrong = |what: &str| {
            let path = format!("{path}.content.{index}");
            Err(ApiError::invalid(format!("{path}.{what}")))
        };
        match part["type"].as_str() {
            None if part.is_string() => {}
            None => return wrong("type: Field required"),
            Some("text") if !part["text"].is_string() => {
                return wrong("text: Input should be a valid string");
            }
            Some("image" | "document") if !part["source"].is_object() => {
                return wrong("source: Input should be a valid object");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn validate_tool(tool: &Value, path: &str) -> Result<(), ApiError> {
    let wrong = |what: &str| Err(ApiError::invalid(format!("{path}.{what}")));
    if !tool["name"].is_string() {
        return wrong("name: Field required");
    }
    if !matches!(tool["description"], Value::Null | Value::String(_)) {
        return wrong("description: Input should be a valid string");
    }
    if !matches!(tool["input_schema"], Value::Null | Value::Object(_)) {
        return wrong("input_schema: Input should be a valid object");
    }
    Ok(())
}

/// Each of them is looked for in each piece of a reply.
const MOST_STOPS: usize = 1000;

fn are_stops(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| items.len() <= MOST_STOPS && items.iter().all(Value::is_string))
}

//! Bodies of requests.

use cclocal::gateway::anthropic::{Draft, PdfTexts, Pictures, Served};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::made_up::{config, nearly, value};

pub fn served(pictures: Pictures) -> Served {
    Served {
        name: "org/model".into(),
        window: cclocal::memory::ContextWindow {
            tokens: 65_536,
            output: 8192,
        },
        form: None,
        shows_thoughts: true,
        may_think: true,
        prose_calls: true,
        pictures,
    }
}

const NAMES: &[&str] = &[
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "tools",
    "name",
    "input_schema",
    "id",
    "tool_use_id",
    "input",
    "source",
    "data",
    "media_type",
    "max_tokens",
    "system",
    "stream",
    "properties",
    "required",
    "citations",
    "title",
    "context",
    "is_error",
    "cache_control",
];

const VALUES: &[&str] = &[
    "user",
    "assistant",
    "system",
    "text",
    "tool_use",
    "tool_result",
    "image",
    "document",
    "base64",
    "thinking",
    "redacted_thinking",
    "web_search_tool_result",
    "server_tool_use",
    "web_search_20250305",
    "image/png",
    "application/pdf",
    "text/plain",
    "object",
    "string",
    "m",
    "Bash",
    "",
    "<system-reminder>x</system-reminder>",
    "iVBORw0KGgo=",
];

fn whole() -> Value {
    json!({
        "model": "m", "max_tokens": 900, "stream": true, "temperature": 1,
        "system": [{"type": "text", "text": "You are.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "stop_sequences": ["x"],
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"},
                {"type": "tool_use", "id": "a", "name": "Bash", "input": {"command": "ls"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
                {"type": "text", "text": "<system-reminder>\nx\n</system-reminder>"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]},
            {"role": "system", "content": "later"},
        ],
    })
}

/// Either an error in words, or a body that is JSON, has all that an engine needs, and is not out of proportion.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    for pictures in [Pictures::Words, Pictures::Shown, Pictures::Untouched] {
        let draft = match Draft::read(body) {
            Ok(draft) => draft,
            Err(error) => {
                prop_assert!(!error.message.is_empty() && (400..500).contains(&error.status));
                return Ok(());
            }
        };
        let served = served(pictures);
        let texts = PdfTexts::default();
        prop_assert!(draft.pdfs().len() <= body.len());
        let counted = Draft::read(body)
            .expect("as before")
            .count_tokens(&served, &texts);
        let mut ready = vec![counted];
        match draft.messages(&served, &texts) {
            Ok(mut request) => {
                prop_assert!(request.max_tokens > 0 && request.max_tokens <= 8192);
                request.limit_reply(7);
                request.ask_for_a_stream();
                ready.push(request.body.to_vec());
            }
            Err(error) => prop_assert!(!error.message.is_empty()),
        }
        for body_of_ours in ready {
            prop_assert!(body_of_ours.len() <= 64 * body.len() + (64 << 10));
            // It may be nested deeper than serde_json's usual limit.
            let mut reader = serde_json::Deserializer::from_slice(&body_of_ours);
            reader.disable_recursion_limit();
            let read = serde::Deserialize::deserialize(&mut reader);
            let read: Value = read.expect("JSON");
            prop_assert_eq!(&read["model"], "org/model");
            prop_assert!(read["messages"].is_array());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_body_that_is_nearly_right(body in nearly(vec![whole().to_string().into_bytes(), format!("{:#}", whole()).into_bytes()])) {
        check(&body)?;
    }

    #[test]
    fn a_body_of_any_shape(messages in value(NAMES, VALUES), tools in value(NAMES, VALUES), system in value(NAMES, VALUES)) {
        for (field, value) in [("messages", messages), ("tools", tools), ("system", system)] {
            let mut body = whole();
            body[field] = value;
            check(body.to_string().as_bytes())?;
        }
    }

    #[test]
    fn messages_of_any_shape(contents in prop::collection::vec((0..4_usize, value(NAMES, VALUES)), 1..8)) {
        let messages: Vec<Value> = contents
            .into_iter()
            .map(|(role, content)| {
                let role = ["user", "assistant", "system", "other"][role];
                json!({"role": role, "content": content})
            })
            .collect();
        let body = json!({"model": "m", "max_tokens": 9, "messages": messages});
        check(body.to_string().as_bytes())?;
    }
}

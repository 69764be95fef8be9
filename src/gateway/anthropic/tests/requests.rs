//! Requests as clients send them, odd ones included.

use serde_json::{Value, json};

use crate::gateway::anthropic::tests::{seen, served, stream_of};
use crate::gateway::anthropic::*;

#[test]
fn odd_bodies_are_answered_and_no_message_vanishes() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let body = format!(
        r#"{{"model": "m", "max_tokens": 9, "tools": null, "messages": [
            {{"role": "user", "content": "half \ud83d"}},
            {{"role": "assistant", "content": []}},
            {{"role": "assistant", "content": [{{"type": "web_search_tool_result", "tool_use_id": "w", "content": {{"type": "web_search_tool_result_error", "error_code": "unavailable"}}}},
                {{"type": "tool_use", "id": "a", "name": "Write", "input": {{"deep": {deep}}}}}]}},
            {{"role": "user", "content": [{{"type": "tool_result", "tool_use_id": "a", "content": ["done", {{"type": "hologram"}}]}}]}}
        ]}}"#
    );
    let request = messages(body.as_bytes(), &served()).expect("a request");
    let ready = json::read(&request.body).expect("JSON");
    assert_eq!(ready.get("tools"), None);
    let said = &ready["messages"];
    assert_eq!(said.as_array().map(Vec::len), Some(4));
    assert_eq!(said[0]["content"][0]["text"], "half \u{fffd}");
    assert_eq!(
        said[2]["content"][0]["text"],
        "[the web search failed: unavailable]"
    );
    assert_eq!(said[2]["content"][1]["input"]["deep"].to_string(), deep);
    let texts: Vec<_> = said[3]["content"][0]["content"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|part| part["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(texts[0], "done");
    assert!(texts[1].contains("\"hologram\""));
    // A shorter reply is asked for in a body that is as deep.
    let mut shorter = request.clone();
    shorter.limit_reply(3);
    assert_eq!(
        json::read(&shorter.body).expect("JSON")["max_tokens"],
        json!(3)
    );

    let deeper = body.replace(&deep, &format!("{}1{}", "[".repeat(300), "]".repeat(300)));
    let error = messages(deeper.as_bytes(), &served()).expect_err("too deep");
    let words = "the body is nested deeper than 256 levels, at byte ";
    assert!(error.message.starts_with(words), "{}", error.message);
}

#[test]
fn a_tool_with_a_long_name_is_called_by_its_own() {
    let long = format!("mcp__server__{}", "x".repeat(60));
    let body = json!({"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}], "tools": [{"name": long}, {"name": ""}]});
    let request = messages(body.to_string().as_bytes(), &served()).expect("a request");
    assert_eq!(request.left_out, [""]);
    let ready: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(ready["tools"].as_array().map(Vec::len), Some(1));
    let told = ready["tools"][0]["name"].as_str().expect("a name");
    assert_eq!(told.len(), 64);
    assert_eq!(request.tool_name(told), long);
    assert_eq!(request.tool_name("Write"), "Write");

    let request = Request {
        asked_model: "claude-asked".into(),
        ..request
    };
    let stream = String::from_utf8(stream_of(&["a"], &["{}"], "tool_use", 9)).expect("UTF-8");
    let mut repair = Streamed::new(&request, &served(), None);
    let out = sse_bytes(&repair.push(stream.replace("Write", told).as_bytes()));
    assert_eq!(seen(&out).calls, [(long.clone(), json!({}))]);
    let plain = json!({"content": [{"type": "tool_use", "id": "a", "name": told, "input": {}}], "stop_reason": "tool_use", "usage": {}});
    let (plain, _) = reply(plain.to_string().as_bytes(), &request).expect("a reply");
    assert!(String::from_utf8_lossy(&plain).contains(&format!(r#""name":"{long}""#)));
}

#[test]
fn pictures_are_shown_where_the_model_sees_them() {
    let gif = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    let source = json!({"type": "base64", "media_type": "image/gif", "data": gif});
    let body = json!({"model": "m", "max_tokens": 99, "messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image", "source": source}]}]},
    ]})
    .to_string();
    let ready = |pictures| {
        let served = Served {
            pictures,
            ..served()
        };
        let request = messages(body.as_bytes(), &served).expect("a request");
        let ready: Value = serde_json::from_slice(&request.body).expect("JSON");
        (request.has_pictures, ready["messages"].clone())
    };
    let (has_pictures, messages) = ready(Pictures::Words);
    assert!(!has_pictures);
    assert_eq!(messages.as_array().map(Vec::len), Some(2));
    assert!(messages.to_string().contains("1×1 pixels"));
    let (has_pictures, messages) = ready(Pictures::Shown);
    assert!(has_pictures);
    assert_eq!(messages[2]["content"][1]["source"], source);
    let (has_pictures, messages) = ready(Pictures::Untouched);
    assert!(has_pictures);
    assert_eq!(messages[1]["content"][0]["content"][0]["source"], source);
}

#[test]
fn a_request_of_the_client_becomes_one_of_the_engine() {
    let body = json!({
        "model": "claude-haiku", "max_tokens": 32000, "stream": true,
        "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "system", "content": [{"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}}]},
        ],
        "tools": [{"name": "Write", "description": "w", "input_schema": {"type": "object"}}],
        "thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "metadata": {"user_id": "device"},
        "output_config": {"effort": "high"}, "temperature": null
    });
    let request = messages(body.to_string().as_bytes(), &served()).expect("a request");
    assert_eq!(
        (
            request.asked_model.as_str(),
            request.stream,
            request.max_tokens
        ),
        ("claude-haiku", true, 8192)
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&request.body).expect("JSON"),
        json!({
            "model": "org/model", "max_tokens": 8192, "stream": true,
            "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "text", "text": "<system-reminder>\n# Environment\n</system-reminder>"},
                ]},
            ],
            "tools": [{"name": "Write", "description": "w", "input_schema": {"type": "object"}}],
        })
    );
    let counted = Draft::read(
        br#"{"model": "claude-haiku", "messages": [{"role": "user", "content": "hi"}]}"#,
    )
    .expect("a request")
    .count_tokens(&served(), &PdfTexts::default());
    assert!(
        String::from_utf8(counted)
            .expect("UTF-8")
            .contains("org/model")
    );
}

#[test]
fn what_is_no_request_is_refused_in_words() {
    let valid =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    assert!(messages(valid.to_string().as_bytes(), &served()).is_ok());
    for (change, words) in [
        (
            json!({"model": null}),
            "model: Input should be a valid string",
        ),
        (json!({"max_tokens": 0}), "max_tokens: Input should be"),
        (json!({"max_tokens": "9"}), "max_tokens: Input should be"),
        (json!({"messages": []}), "messages: at least one"),
        (
            json!({"messages": "hi"}),
            "messages: Input should be a valid list",
        ),
        (
            json!({"messages": [1]}),
            "messages.0: Input should be a valid object",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages.0.role: Input",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages.0.content: Field required",
        ),
        (
            json!({"messages": [{"role": "user", "content": ["x"]}]}),
            "messages.0.content.0.type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages.0.content.0.text",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 1}]}]}),
            "messages.0.content.0.input",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": 1}]}]}),
            "messages.0.content.0.content",
        ),
        (
            json!({"messages": [{"role": "user", "content": []}]}),
            "messages.0.content: user messages must have non-empty content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": null}]}]}]}),
            "messages.0.content.0.content.0.text: Input should be a valid string",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}]}]}),
            "messages.0.content.0.content.0.source: Input should be a valid object",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [1]}]}]}),
            "messages.0.content.0.content.0.type: Field required",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "document"}]}]}),
            "messages.0.content.0.source: Input should be a valid object",
        ),
        (json!({"system": 1}), "system: Input"),
        (json!({"tools": [{}]}), "tools.0.name: Field required"),
        (
            json!({"tools": [{"name": "a", "input_schema": "x"}]}),
            "tools.0.input_schema",
        ),
        (json!({"stop_sequences": [1]}), "stop_sequences: Input"),
        (
            json!({"stream": "yes"}),
            "stream: Input should be a valid boolean",
        ),
    ] {
        let mut body = valid.clone();
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let error = messages(body.to_string().as_bytes(), &served()).expect_err(words);
        assert_eq!((error.status, error.kind), (400, "invalid_request_error"));
        assert!(error.message.starts_with(words), "{}", error.message);
    }
    for body in ["", "{", "[]", "{}", "\"\""] {
        assert_eq!(
            messages(body.as_bytes(), &served()).expect_err(body).status,
            400
        );
    }
}

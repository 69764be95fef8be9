//! Replies as they were generated, from the real engine: nothing is lost, moved or read on the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::{self, BATCHED, Engine, Reply};
use crate::real;
use crate::support::{HANG, Stage};
use crate::turns::python;

const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";

#[test]
fn raw_replies_in_batched_mode() {
    replies("text", BATCHED, false);
}

#[test]
fn raw_replies_in_simple_mode() {
    replies("text", &[], false);
}

#[test]
fn raw_replies_of_a_multimodal_model() {
    replies("gemma4", &[], false);
    replies("gemma4", &[], true);
}

/// A stage with models that say what they are asked for.
fn stage() -> Stage {
    let stage = real::stage(&real::client());
    python(&stage, "raw_models.py", &[stage.path("models")]);
    stage
}

/// Asks for each reply of `models/raw_models.py`, with a picture or without.
fn replies(model: &str, flags: &[&str], picture: bool) {
    let stage = stage();
    engine::run(async {
        let mut engine = Engine::start(&stage, &stage.path("models").join(model), flags).await;
        assert!(
            engine
                .logged()
                .contains("[cclocal] patch raw-stream: applied")
        );

        let reply = ask(&engine, "whole", 100, picture).await;
        let before = "Write <tool_call> plainly, or";
        let call = "\n{\"name\": \"Read\"}\n";
        assert_eq!(
            reply.text,
            format!("{before}{CALL}{call}{CALL_END} and the last word  \n")
        );
        let inside = before.len() + CALL.len() + call.len();
        assert_eq!(
            reply.marks,
            [(before.len(), CALL.into()), (inside, CALL_END.into())],
            "real markers alone"
        );
        assert_eq!(
            reply.vocabulary,
            [CALL, CALL_END, "<|im_start|>", "<|im_end|>", "<|call|>"]
        );
        assert!(
            reply.prompt_tail.ends_with("assistant\n<|ask-whole|>"),
            "{reply:?}"
        );
        assert!(reply.prompt_tail.chars().count() <= 64);
        ended(&reply, "<|im_end|>", 14);

        // A character of bytes that are tokens, and bytes that are none when the limit comes.
        let reply = ask(&engine, "bytes", 100, picture).await;
        assert_eq!(reply.text, "café and a smile 😀!");
        ended(&reply, "<|im_end|>", 11);
        let reply = ask(&engine, "bytes", 7, picture).await;
        assert_eq!(reply.text, "café and a smile \u{fffd}");
        cut(&reply, 7);
        let reply = ask(&engine, "cut", 6, picture).await;
        assert_eq!(reply.text, "It ends in the middle of €");
        cut(&reply, 6);
        // The limit comes with the end.
        let reply = ask(&engine, "cut", 7, picture).await;
        ended(&reply, "<|im_end|>", 7);

        let reply = ask(&engine, "one", 100, picture).await;
        assert_eq!(reply.text, "Yes");
        ended(&reply, "<|im_end|>", 2);
        let reply = ask(&engine, "one", 1, picture).await;
        assert_eq!(reply.text, "Yes");
        cut(&reply, 1);
        let reply = ask(&engine, "none", 100, picture).await;
        assert_eq!(reply.text, "");
        ended(&reply, "<|im_end|>", 1);

        let reply = ask(&engine, "called", 100, picture).await;
        assert_eq!(reply.text, "analysis done");
        ended(&reply, "<|call|>", 3);
        let reply = ask(&engine, "spaces", 100, picture).await;
        assert_eq!(reply.text, "  indented\n\tand no end \n\n");

        let line = "Anthropic messages (stream): 14 tokens in ";
        assert!(engine.logged().contains(line), "the line that people read");
        engine.stop().await;
    });
}

/// A client that goes away ends its reply, and the next one is as any other.
#[test]
fn raw_reply_ends_when_nobody_reads_it() {
    let stage = stage();
    engine::run(async {
        let mut engine = Engine::start(&stage, &stage.path("models/text"), BATCHED).await;
        engine.logged();
        engine.ask_and_leave(&body("endless", 8192, false)).await;
        let mut log = String::new();
        let since = Instant::now();
        while !log.contains("cleanup done") {
            assert!(since.elapsed() < HANG, "{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            log += &engine.logged();
        }
        assert!(log.contains("ABORTING orphaned request"), "{log}");
        assert!(!log.contains("Anthropic messages (stream)"), "{log}");
        let reply = ask(&engine, "one", 100, false).await;
        assert_eq!(reply.text, "Yes");
        engine.stop().await;
    });
}

#[track_caller]
fn ended(reply: &Reply, by: &str, tokens: u64) {
    assert_eq!(
        (reply.stop_reason.as_str(), reply.stopped_by.as_deref()),
        ("end_turn", Some(by)),
        "{reply:?}"
    );
    assert_eq!(reply.usage[2], tokens, "{reply:?}");
}

#[track_caller]
fn cut(reply: &Reply, tokens: u64) {
    assert_eq!(
        (reply.stop_reason.as_str(), reply.stopped_by.as_deref()),
        ("max_tokens", None),
        "{reply:?}"
    );
    assert_eq!(reply.usage[2], tokens, "{reply:?}");
}

async fn ask(engine: &Engine, reply: &str, max_tokens: u64, picture: bool) -> Reply {
    engine.ask(&body(reply, max_tokens, picture)).await
}

fn body(reply: &str, max_tokens: u64, picture: bool) -> Vec<u8> {
    let mut content = vec![json!({"type": "text", "text": format!("ask {reply}")})];
    if picture {
        content.insert(0, png());
    }
    let body = json!({
        "model": "served", "max_tokens": max_tokens, "stream": true, "temperature": 0,
        "messages": [{"role": "user", "content": content}],
        "tools": [{"name": "Read", "description": "Reads", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}],
    });
    body.to_string().into_bytes()
}

/// A picture of 64 × 64, of one colour.
fn png() -> Value {
    let data = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsItjRCMaywi+hcEKLNP1WgQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELgsA5oFL7wUmagAAAABJRU5ErkJggg==";
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
}

/// Text out of tokens, by itself: whatever the tokenizer, in whatever pieces tokens come, and with work that grows with their number alone.
#[test]
fn raw_text_is_what_the_tokenizer_makes_of_all_tokens() {
    let stage = real::stage(&real::client());
    let said = python(
        &stage,
        "detokenizer.py",
        &[std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/patches")],
    );
    assert_eq!(said.trim(), "right");
}

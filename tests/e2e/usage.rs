//! The figures of a reply, held against the engine's own log.

use cclocal::catalog::Form;
use cclocal::gateway::anthropic::{self, Request, Served};
use serde_json::{Value, json};

use crate::engine::{self, BATCHED, Engine};
use crate::real;

#[test]
fn usage_is_the_engines_own_in_simple_mode() {
    usage_is_the_engines_own(&[]);
}

#[test]
fn usage_is_the_engines_own_in_batched_mode() {
    usage_is_the_engines_own(BATCHED);
}

fn usage_is_the_engines_own(flags: &[&str]) {
    let stage = real::stage(&real::client());
    engine::run(async {
        let mut engine = Engine::start(&stage, &stage.path("hermes-llama"), flags).await;
        let mut messages = vec![json!({"role": "user", "content": "write the file"})];
        for turn in 0..4 {
            let request = request(&messages, 200);
            let counted = count(&engine, &request).await;
            let [computed, reused, generated] = engine.ask(&request.body).await.usage;
            assert_eq!(
                (computed + reused, computed),
                figures(&engine.logged()),
                "turn {turn}: prompt and computed tokens"
            );
            assert_eq!(counted, computed + reused);
            assert!(generated > 0);
            assert_eq!(turn > 0, reused > 0, "turn {turn}");
            messages.extend([
                json!({"role": "assistant", "content": "yes"}),
                json!({"role": "user", "content": format!("again, {turn}")}),
                json!({"role": "system", "content": "Mind the time."}),
            ]);
        }
        // In the middle of the call.
        let reply = engine.ask(&request(&messages, 12).body).await;
        assert_eq!(
            (
                reply.usage[2],
                reply.stop_reason.as_str(),
                reply.stopped_by.clone()
            ),
            (12, "max_tokens", None),
            "{reply:?}"
        );
        engine.stop().await;
    });
}

/// As the gateway asks.
fn request(messages: &[Value], max_tokens: u64) -> Request {
    let body = json!({
        "model": "claude-asked", "max_tokens": max_tokens, "stream": true,
        "system": [{"type": "text", "text": "You write files."}],
        "messages": messages,
        "tools": [{"name": "Write", "description": "Writes a file", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}],
        "thinking": {"type": "adaptive"}
    });
    let served = Served {
        form: Some(Form::Hermes),
        ..engine::served("served")
    };
    anthropic::messages(body.to_string().as_bytes(), &served).expect("a request")
}

async fn count(engine: &Engine, request: &Request) -> u64 {
    let body = engine
        .post("/v1/messages/count_tokens", &request.body)
        .await;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    body["input_tokens"].as_u64().expect("a number")
}

/// Tokens of the last prompt, and how many of them were computed, as the engine's log has them.
fn figures(log: &str) -> (u64, u64) {
    let after = |words: &str| {
        let rest = &log[log.find(words)? + words.len()..];
        let end = rest.find(|digit: char| !digit.is_ascii_digit())?;
        rest[..end].parse::<u64>().ok()
    };
    if let Some(computed) = after("tokens_to_prefill=") {
        let line = log.find("[schedule]").expect("the line");
        let rest = &log[line..];
        let prompt = rest.split("prompt_tokens=").nth(1).expect("the prompt");
        let prompt = prompt.split(' ').next().expect("a number");
        return (prompt.parse().expect("a number"), computed);
    }
    if let Some(reused) = after("reusing ") {
        let computed = after("tokens, prefilling ").expect("the rest");
        return (reused + computed, computed);
    }
    let system = after("will prefill ").expect("a line about the prompt");
    let all = system + after(" system + ").expect("the rest");
    (all, all)
}

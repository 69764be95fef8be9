//! Prompts and replies, held against the window.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Semaphore;

use super::fake::{
    Fake, Seen, Step, answer, closing, closing_after, head, json_reply, opening, text,
};
use super::{Stage, error, error_event, limits, question, rest, until, within};
use crate::gateway::metrics::Ended;
use crate::gateway::{Engine, Limits};

/// Counts by the number in the question; answers at once, or when it is let.
async fn counting(tokens: u64, signal: Option<Arc<Semaphore>>) -> Fake {
    Fake::start(move |seen: &Seen| {
        if seen.path == "/v1/messages/count_tokens" {
            return json_reply(200, &json!({"input_tokens": tokens}));
        }
        let mut steps = vec![head(), opening()];
        steps.extend(signal.clone().map(Step::Wait));
        steps.extend([text("hello"), closing()]);
        steps
    })
    .await
}

#[tokio::test]
async fn a_prompt_beyond_the_window_is_refused_before_the_engine_computes_anything() {
    let fake = counting(70_000, None).await;
    let stage = Stage::new(fake.ready()).await;
    for stream in [true, false] {
        let response = stage.ask(&"x".repeat(65_000), stream).await;
        assert_eq!(response.status(), 400);
        let said = error(&response.text().await.expect("a text"));
        let expected = "prompt is too long: 70000 tokens > 65436 maximum";
        assert_eq!(said, ("invalid_request_error".into(), expected.into()));
    }
    assert!(fake.said().is_empty());
    // What cannot be too long is not even counted.
    let (_, answer, _) = stage.stream(&"x".repeat(60_000)).await;
    assert!(answer.contains("hello"));
    assert_eq!(fake.seen().len(), 3);
    // A window can become narrower.
    stage.window.send_replace(1000);
    let response = stage.ask("short", true).await;
    let said = error(&response.text().await.expect("a text")).1;
    assert_eq!(said, "prompt is too long: 70000 tokens > 900 maximum");
    let ends: Vec<Ended> = stage
        .metrics
        .recent()
        .iter()
        .map(|figure| figure.ended)
        .collect();
    assert_eq!(
        ends,
        [
            Ended::Refused,
            Ended::Refused,
            Ended::Answered,
            Ended::Refused
        ]
    );
}

/// A request for a reply of no more than this.
async fn asked_for(stage: &Stage, max_tokens: u64, stream: bool) -> reqwest::Response {
    let mut body = question(&"x".repeat(70_000), stream);
    body["max_tokens"] = json!(max_tokens);
    let sent = stage.post("/v1/messages", &body).send();
    within(sent).await.expect("an answer")
}

/// What the engine was asked to reply at most, in order.
fn limits_seen(fake: &Fake) -> Vec<u64> {
    let asked = |seen: &Seen| seen.body["max_tokens"].as_u64().expect("a number");
    let seen = fake.seen();
    let messages = seen.iter().filter(|seen| seen.path == "/v1/messages");
    messages.map(asked).collect()
}

#[tokio::test]
async fn a_reply_gets_what_its_prompt_leaves_of_the_window() {
    let fake = counting(60_000, None).await;
    let stage = Stage::new(fake.ready()).await;
    for max_tokens in [32_000, 6_000, 5_536, 5_000] {
        assert_eq!(asked_for(&stage, max_tokens, true).await.status(), 200);
    }
    assert_eq!(limits_seen(&fake), [5_536, 5_536, 5_536, 5_000]);
    // The window can become narrower, and is as wide as before with the next engine.
    for window in [64_500, 65_536] {
        stage.window.send_replace(window);
        assert_eq!(asked_for(&stage, 5_536, true).await.status(), 200);
    }
    assert_eq!(limits_seen(&fake)[4..], [4_500, 5_536]);
}

#[tokio::test]
async fn a_prompt_that_leaves_too_little_for_a_reply_is_too_long() {
    let fake = counting(61_441, None).await;
    let stage = Stage::new(fake.ready()).await;
    let response = asked_for(&stage, 8_192, true).await;
    assert_eq!(response.status(), 400);
    let said = error(&response.text().await.expect("a text")).1;
    assert_eq!(said, "prompt is too long: 61441 tokens > 61440 maximum");
    // One that wants no more, such as a title, has what it wants.
    assert_eq!(asked_for(&stage, 4_095, true).await.status(), 200);
    assert_eq!(limits_seen(&fake), [4_095]);
}

#[tokio::test]
async fn a_reply_that_the_window_cuts_is_told_as_cut() {
    for stream in [true, false] {
        let fake = Fake::start(move |seen: &Seen| match seen.path.as_str() {
            "/v1/messages/count_tokens" => json_reply(200, &json!({"input_tokens": 61_000})),
            _ => vec![head(), opening(), text("hello"), closing_after(4_536)],
        })
        .await;
        let stage = Stage::new(fake.ready()).await;
        let (reply, _) = rest(asked_for(&stage, 8_192, stream).await).await;
        assert!(reply.contains(r#""stop_reason":"max_tokens""#), "{reply}");
        assert_eq!(limits_seen(&fake), [4_536]);
    }
}

#[tokio::test]
async fn an_engine_that_takes_over_is_asked_for_what_its_window_leaves() {
    let old = Fake::start(|seen| match seen.path.as_str() {
        "/v1/messages/count_tokens" => json_reply(200, &json!({"input_tokens": 60_000})),
        _ => vec![head(), opening(), Step::Hang],
    })
    .await;
    let new = Fake::start(|_| answer("new")).await;
    let limits = Limits {
        // Only what its owner says brings it on.
        notice: super::HANG,
        ..limits()
    };
    let stage = Stage::with(old.ready(), limits).await;
    let mut body = question(&"x".repeat(70_000), true);
    body["max_tokens"] = json!(8_192);
    let sent = stage.post("/v1/messages", &body).send();
    let asking = tokio::spawn(async move { rest(sent.await.expect("an answer")).await });
    until(|| old.said().len() == 1).await;
    stage.window.send_replace(64_200);
    stage.engine.send_replace(Engine::Starting);
    assert_eq!(limits_seen(&old), [5_536]);
    drop(old);
    stage.engine.send_replace(new.ready());
    let (text, broke) = within(asking).await.expect("no panic");
    assert!(text.contains("new") && !broke, "{text}");
    assert_eq!(limits_seen(&new), [4_200]);
}

#[tokio::test]
async fn a_prompt_beyond_the_window_does_not_wait_for_others() {
    let signal = Arc::new(Semaphore::new(0));
    let fake = counting(70_000, Some(signal)).await;
    let stage = Stage::new(fake.ready()).await;
    let _first = stage.asking("first");
    until(|| stage.metrics.active() == 1).await;
    let response = stage.ask(&"x".repeat(70_000), true).await;
    assert_eq!(response.status(), 400);
    assert_eq!(stage.metrics.active(), 1);
}

#[tokio::test]
async fn a_prompt_that_turns_out_too_long_after_pings_is_refused_by_an_event() {
    let fake = counting(70_000, None).await;
    let stage = Stage::new(Engine::Starting).await;
    let response = stage.ask(&"x".repeat(70_000), true).await;
    assert_eq!(response.status(), 200);
    stage.engine.send_replace(fake.ready());
    let (stream, broke) = rest(response).await;
    assert!(!broke);
    let (kind, message) = error_event(&stream);
    assert_eq!(kind, "invalid_request_error");
    assert_eq!(message, "prompt is too long: 70000 tokens > 65436 maximum");
}

#[tokio::test]
async fn an_engine_that_cannot_count_does_without() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/messages" => answer("hello"),
        _ => json_reply(404, &json!({"detail": "Not Found"})),
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let (_, answer, _) = stage.stream(&"x".repeat(70_000)).await;
    assert!(answer.contains("hello"));
}

/// An engine of this window that cannot count and refuses what is too long with these words, which are given the length of the asked reply.
async fn refusing(prompt: u64, window: u64, words: fn(u64) -> String) -> Fake {
    Fake::start(move |seen: &Seen| {
        if seen.path != "/v1/messages" {
            return json_reply(404, &json!({"detail": "Not Found"}));
        }
        let asked = seen.body["max_tokens"].as_u64().expect("a number");
        match prompt + asked > window {
            true => {
                let error = json!({"type": "BadRequestError", "message": words(asked)});
                json_reply(400, &json!({"type": "error", "error": error}))
            }
            false => answer("hello"),
        }
    })
    .await
}

/// vLLM's, which counts no further than it must.
fn at_least(asked: u64) -> String {
    let prompt = 32_769 - asked;
    format!(
        "This model's maximum context length is 32768 tokens. However, you requested {asked} output tokens and your prompt contains at least {prompt} input tokens, for a total of at least 32769 tokens. Please reduce the length of the input prompt or the number of requested output tokens."
    )
}

#[tokio::test]
async fn a_reply_that_the_engine_has_no_room_for_is_asked_for_shorter() {
    let counted = |asked: u64| {
        format!(
            "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is 32768 tokens and your request has 27000 input tokens"
        )
    };
    for (words, replies) in [
        (counted as fn(u64) -> String, [8_192, 5_768]),
        (at_least, [8_192, 4_096]),
    ] {
        let fake = refusing(27_000, 32_768, words).await;
        let stage = Stage::new(fake.ready()).await;
        let (reply, broke) = rest(asked_for(&stage, 8_192, true).await).await;
        assert!(reply.contains("hello") && !broke, "{reply}");
        assert_eq!(limits_seen(&fake), replies);
        let ended = stage.metrics.recent();
        assert!(ended.iter().all(|figure| figure.ended == Ended::Answered));
    }
}

#[tokio::test]
async fn an_engines_refusal_becomes_the_sentence_on_which_clients_compact() {
    let llama = |_: u64| {
        "request (40000 tokens) exceeds the available context size (32768 tokens), try increasing it".to_owned()
    };
    let wordless = |_: u64| "input length exceeds maximum context length".to_owned();
    for (words, attempts, sentence) in [
        (
            llama as fn(u64) -> String,
            1,
            "prompt is too long: 40000 tokens > 28672 maximum",
        ),
        (
            at_least,
            2,
            "prompt is too long: 28673 tokens > 28672 maximum",
        ),
        // The window that the gateway was told.
        (
            wordless,
            1,
            "prompt is too long: 61441 tokens > 61440 maximum",
        ),
    ] {
        for stream in [true, false] {
            let fake = refusing(40_000, 32_768, words).await;
            let stage = Stage::new(fake.ready()).await;
            let response = asked_for(&stage, 8_192, stream).await;
            assert_eq!(response.status(), 400);
            let said = error(&response.text().await.expect("a text"));
            assert_eq!(said, ("invalid_request_error".into(), sentence.into()));
            assert_eq!(fake.said().len(), attempts);
            assert_eq!(stage.metrics.recent()[0].ended, Ended::Refused);
        }
    }
}

#[tokio::test]
async fn an_engine_that_counts_no_further_than_its_window_has_said_enough() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/messages" => answer("hello"),
        _ => json_reply(
            400,
            &json!({"type": "error", "error": {"type": "BadRequestError", "message": at_least(0)}}),
        ),
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let response = asked_for(&stage, 8_192, true).await;
    assert_eq!(response.status(), 400);
    let said = error(&response.text().await.expect("a text")).1;
    assert_eq!(said, "prompt is too long: 32769 tokens > 28672 maximum");
    assert!(fake.said().is_empty());
    // A client that only counts is told a number.
    let body = question("how long?", false);
    let sent = stage.post("/v1/messages/count_tokens", &body).send();
    let response = within(sent).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let count = response.text().await.expect("a text");
    assert_eq!(count, r#"{"input_tokens":32769}"#);
}

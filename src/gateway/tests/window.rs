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
async fn a_window_that_is_the_longest_prompt_leaves_replies_alone() {
    let fake = counting(65_536, None).await;
    let stage = Stage::changed(fake.ready(), |settings| settings.window_holds_reply = false).await;
    assert_eq!(asked_for(&stage, 8_192, true).await.status(), 200);
    assert_eq!(limits_seen(&fake), [8_192]);
    let fake = counting(65_537, None).await;
    stage.engine.send_replace(fake.ready());
    assert_eq!(asked_for(&stage, 8_192, true).await.status(), 400);
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

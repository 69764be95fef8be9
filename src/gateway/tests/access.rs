//! Who is let in, through the door itself.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::fake::{Fake, answer};
use super::{Stage, error, limits, question, read_to_end, until, within};
use crate::gateway::{Caller, Engine, Limits};

const QUESTION: &str =
    r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

/// A request line and headers, with a body of JSON.
fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    text += &format!("content-length: {}\r\n\r\n{QUESTION}", QUESTION.len());
    text.into_bytes()
}

#[tokio::test]
async fn whoever_may_not_ask_is_refused_in_the_apis_shape_and_nothing_reaches_the_engine() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(fake.ready()).await;
    const HOST: &str = "host: 127.0.0.1:1";
    const TOKEN: &str = "authorization: Bearer main-token";
    const JSON: &str = "content-type: application/json";
    const MESSAGES: &str = "POST /v1/messages";
    for (line, headers, status) in [
        (MESSAGES, &[HOST, JSON][..], 401),
        (MESSAGES, &[HOST, JSON, "authorization: Bearer main"], 401),
        (MESSAGES, &[HOST, JSON, "x-api-key: engine-key"], 401),
        ("GET /v1/models", &[HOST], 401),
        ("POST /v1/messages/count_tokens", &[HOST, JSON], 401),
        ("GET /anything", &[HOST], 401),
        ("GET /health/../v1/models", &[HOST], 401),
        (MESSAGES, &[JSON, TOKEN], 403),
        (MESSAGES, &["host: evil.example", JSON, TOKEN], 403),
        (MESSAGES, &[HOST, "host: evil.example", JSON, TOKEN], 403),
        (
            "POST http://evil.example/v1/messages",
            &[HOST, JSON, TOKEN],
            403,
        ),
        (
            MESSAGES,
            &[HOST, JSON, TOKEN, "origin: http://127.0.0.1:1"],
            403,
        ),
        (MESSAGES, &[HOST, JSON, TOKEN, "origin: null"], 403),
        (
            MESSAGES,
            &[HOST, JSON, TOKEN, "sec-fetch-site: cross-site"],
            403,
        ),
        (
            "OPTIONS /v1/messages",
            &[
                HOST,
                "origin: http://evil.example",
                "access-control-request-method: POST",
            ],
            403,
        ),
        ("GET /health", &["host: evil.example"], 403),
        (MESSAGES, &[HOST, TOKEN], 415),
        (MESSAGES, &[HOST, TOKEN, "content-type: text/plain"], 415),
        (
            MESSAGES,
            &[
                HOST,
                TOKEN,
                "content-type: application/x-www-form-urlencoded",
            ],
            415,
        ),
        ("GET /anything", &[HOST, TOKEN], 404),
        ("GET /v1/chat/completions", &[HOST, TOKEN], 404),
        ("GET /v1/messages", &[HOST, TOKEN], 405),
        ("DELETE /v1/models", &[HOST, TOKEN], 405),
        ("OPTIONS /v1/messages", &[HOST, TOKEN], 405),
    ] {
        let reply = stage.raw(&request(line, headers)).await;
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line} {headers:?}: {head}"
        );
        assert!(!error(body).1.is_empty());
        assert!(!head.to_lowercase().contains("access-control"), "{head}");
    }
    assert!(fake.seen().is_empty());
    let good = stage.raw(&request(MESSAGES, &[HOST, JSON, TOKEN])).await;
    assert!(good.contains("hello"), "{good}");
}

#[tokio::test]
async fn a_lease_may_ask_until_it_is_revoked_and_has_figures_of_its_own() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(fake.ready()).await;
    let token = stage.access.grant(7).expect("random");
    let ask = || {
        stage
            .client
            .post(stage.url("/v1/messages?beta=true"))
            .header("x-api-key", token.expose())
            .header("content-type", "application/json; charset=utf-8")
            .body(question("hi", true).to_string())
            .send()
    };
    let response = within(ask()).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(super::rest(response).await.0.contains("hello"));
    until(|| stage.metrics.summary(Caller::Lease(7)).turns == 1).await;
    assert_eq!(stage.metrics.summary(Caller::Main).turns, 0);
    assert_eq!(stage.metrics.total().turns, 1);

    stage.access.revoke(7);
    let response = within(ask()).await.expect("an answer");
    assert_eq!(response.status(), 401);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn the_engine_gets_its_own_key_and_not_the_clients() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(fake.ready()).await;
    stage.ask("hi", false).await;
    let seen = &fake.seen()[0];
    assert!(seen.head.contains("authorization: Bearer engine-key"));
    assert!(!seen.head.contains("main-token"));
    assert_eq!(seen.body["model"], "served");
}

#[tokio::test]
async fn anybody_may_know_that_it_is_there_and_no_more() {
    let stage = Stage::new(Engine::Starting).await;
    let get = async |path: &str| {
        let response = within(stage.client.get(stage.url(path)).send()).await;
        let response = response.expect("an answer");
        let status = response.status().as_u16();
        (status, response.text().await.expect("a text"))
    };
    assert_eq!(
        get("/health").await,
        (503, r#"{"status":"starting"}"#.into())
    );
    stage.engine.send_replace(Engine::Ready {
        base_url: "http://127.0.0.1:1".into(),
        key: None,
    });
    assert_eq!(
        get("/health").await,
        (200, r#"{"status":"healthy"}"#.into())
    );
    stage
        .engine
        .send_replace(Engine::Gone("a secret reason".into()));
    assert_eq!(get("/health").await, (503, r#"{"status":"gone"}"#.into()));
    assert_eq!(get("/api/hello").await, (200, String::new()));
    let head = within(stage.client.head(stage.url("/api/hello")).send()).await;
    assert_eq!(head.expect("an answer").status(), 200);
}

#[tokio::test]
async fn the_model_is_listed_under_the_name_that_it_is_served_by() {
    let stage = Stage::new(Engine::Starting).await;
    let response = stage
        .client
        .get(stage.url("/v1/models?limit=1000"))
        .bearer_auth("main-token")
        .send();
    let list: serde_json::Value = within(response)
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(list["data"][0]["id"], "served");
    assert_eq!(list["data"][0]["type"], "model");
    assert_eq!(list["data"][0]["max_model_len"], json!(65_536));
    assert_eq!(list["has_more"], json!(false));
}

#[tokio::test]
async fn strangers_cannot_keep_a_session_out() {
    let fake = Fake::start(|_| answer("hello")).await;
    let limits = Limits {
        connections: 3,
        ..limits()
    };
    let stage = Stage::with(fake.ready(), limits).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let mut stranger = stage.connect().await;
        stranger.write_all(b"POST /v1/mess").await.expect("sent");
        strangers.push(stranger);
    }
    let response = stage.ask("hi", false).await;
    assert_eq!(response.status(), 200);
    // The oldest of them had to go, without a word.
    assert_eq!(read_to_end(&mut strangers[0]).await, "");
}

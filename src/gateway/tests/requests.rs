//! Requests that are malformed, huge, slow or half-closed.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::fake::{Fake, Step, answer};
use super::{Stage, error, limits, read_to_end, until};
use crate::gateway::Limits;

const HEAD: &str = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer main-token\r\ncontent-type: application/json\r\nconnection: close\r\n";

async fn stage(limits: Limits) -> (Fake, Stage) {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::with(fake.ready(), limits).await;
    (fake, stage)
}

fn parts(reply: &str) -> (&str, &str) {
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("a status"), body)
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let (fake, stage) = stage(limits()).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost localhost\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let reply = stage.raw(garbage).await;
        assert!(
            reply.starts_with("HTTP/1.1 400 "),
            "{garbage:?}: {reply}"
        );
    }
    for body in ["", "{", "[]", "nonsense", "{}", "\u{0}"] {
        let request = format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len());
        let reply = stage.raw(request.as_bytes()).await;
        let (status, body) = parts(&reply);
        assert_eq!(status, "400");
        assert_eq!(error(body).0, "invalid_request_error");
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_huge_head_is_not_read() {
    let (fake, stage) = stage(limits()).await;
    let huge = format!("{HEAD}x-huge: {}\r\n\r\n", "x".repeat(70 << 10));
    let reply = stage.raw(huge.as_bytes()).await;
    assert!(reply.is_empty() || parts(&reply).0 == "431", "{reply}");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let reply = stage.raw(format!("{HEAD}{many}\r\n").as_bytes()).await;
    assert!(reply.is_empty() || parts(&reply).0 == "431", "{reply}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_huge_body_is_refused_whether_it_is_announced_or_not() {
    let limits = Limits {
        body: 1000,
        ..limits()
    };
    let (fake, stage) = stage(limits).await;
    let announced = format!("{HEAD}content-length: 1001\r\n\r\n");
    let reply = stage.raw(announced.as_bytes()).await;
    let (status, body) = parts(&reply);
    assert_eq!(status, "413");
    assert_eq!(error(body).0, "request_too_large");

    let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    let reply = stage.raw(chunked.as_bytes()).await;
    let (status, body) = parts(&reply);
    assert_eq!(status, "413");
    assert_eq!(error(body).0, "request_too_large");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_strangers_body_is_not_read() {
    let (_fake, stage) = stage(limits()).await;
    let request = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    let reply = stage.raw(request.as_bytes()).await;
    assert_eq!(parts(&reply).0, "401");
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_closes_the_connection() {
    let limits = Limits {
        head_deadline: Duration::from_millis(50),
        ..limits()
    };
    let (_fake, stage) = stage(limits).await;
    let mut slow = stage.connect().await;
    slow.write_all(b"POST /v1/messages HTTP/1.1\r\nhost:")
        .await
        .expect("sent");
    let reply = read_to_end(&mut slow).await;
    assert!(reply.is_empty() || parts(&reply).0 == "408", "{reply}");
    // So does one that says nothing at all.
    let mut silent = stage.connect().await;
    let reply = read_to_end(&mut silent).await;
    assert!(reply.is_empty() || parts(&reply).0 == "408", "{reply}");
}

#[tokio::test]
async fn a_body_that_stops_is_not_waited_for() {
    let limits = Limits {
        body_idle: Duration::from_millis(50),
        ..limits()
    };
    let (fake, stage) = stage(limits).await;
    let reply = stage
        .raw(format!("{HEAD}content-length: 100\r\n\r\n{{").as_bytes())
        .await;
    let (status, body) = parts(&reply);
    assert_eq!(status, "408");
    assert_eq!(error(body).0, "timeout_error");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_trickles_is_not_read_for_ever() {
    let limits = Limits {
        body_deadline: Duration::from_millis(100),
        ..limits()
    };
    let (fake, stage) = stage(limits).await;
    let mut stream = stage.connect().await;
    let head = format!("{HEAD}content-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));
    let mut reply = Vec::new();
    let mut buffer = [0; 1024];
    while !reply.windows(4).any(|four| four == b"408 ") {
        let read = super::within(tokio::io::AsyncReadExt::read(&mut reading, &mut buffer)).await;
        let read = read.expect("an answer");
        assert!(read > 0);
        reply.extend_from_slice(&buffer[..read]);
    }
    drop(trickle);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_ends_before_its_time_is_no_request() {
    let (fake, stage) = stage(limits()).await;
    let mut stream = stage.connect().await;
    let half = format!("{HEAD}content-length: 100\r\n\r\n{{");
    stream.write_all(half.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("half-closed");
    let reply = read_to_end(&mut stream).await;
    assert!(reply.is_empty() || parts(&reply).0 == "400", "{reply}");
    assert!(fake.seen().is_empty());
    assert_eq!((stage.metrics.queued(), stage.metrics.active()), (0, 0));
}

#[tokio::test]
async fn tokens_are_counted_for_the_model_that_is_served() {
    let fake = Fake::start(|_| super::fake::json_reply(200, &json!({"input_tokens": 42}))).await;
    let stage = Stage::new(fake.ready()).await;
    let body = json!({"model": "claude-anything", "messages": [{"role": "user", "content": "hi"}]});
    let counted = super::within(stage.post("/v1/messages/count_tokens", &body).send()).await;
    let counted = counted.expect("an answer").text().await.expect("a text");
    assert_eq!(counted, r#"{"input_tokens":42}"#);
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/v1/messages/count_tokens");
    assert_eq!(seen.body["model"], "served");
    // What is counted is the prompt that would be sent, whatever its form.
    for (body, expected) in [
        (
            r#"{"model": "m", "tools": null, "messages": [{"role": "user", "content": "hi"}]}"#,
            json!({"model": "served", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
        ),
        (
            r#"{"model": "m", "messages": [{"role": "user", "content": "\ud83d"}]}"#,
            json!({"model": "served", "messages": [{"role": "user", "content": [{"type": "text", "text": "\u{fffd}"}]}]}),
        ),
    ] {
        let request = stage
            .post("/v1/messages/count_tokens", &json!(null))
            .body(body);
        let counted = super::within(request.send()).await.expect("an answer");
        assert_eq!(counted.status(), 200);
        assert_eq!(fake.seen().last().expect("a request").body, expected);
    }
    let body = json!({"model": "m", "messages": [{"role": "user", "content": []}]});
    let refused = super::within(stage.post("/v1/messages/count_tokens", &body).send()).await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status(), 400);
    let said = error(&refused.text().await.expect("a text"));
    assert_eq!(said.0, "invalid_request_error");
    assert!(said.1.starts_with("messages.0.content: "), "{}", said.1);
    // Counting is no turn.
    until(|| stage.metrics.total() == crate::gateway::Summary::default()).await;
}

#[tokio::test]
async fn long_bodies_wait_for_room_and_short_ones_do_not() {
    let let_go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let waits = let_go.clone();
    let fake = Fake::start(move |seen| match seen.said().starts_with("long") {
        true => vec![
            Step::Wait(waits.clone()),
            super::fake::head(),
            super::fake::opening(),
            super::fake::text("done"),
            super::fake::closing(),
        ],
        false => answer("hello"),
    })
    .await;
    let limits = Limits {
        body: 3 << 20,
        bodies: 3 << 20,
        room: Duration::from_millis(100),
        ..limits()
    };
    let stage = Stage::changed(fake.ready(), |settings| {
        settings.limits = limits;
        settings.window = tokio::sync::watch::channel(100_000_000).1;
    })
    .await;
    let long = format!("long {}", "x".repeat(2 << 20));
    let first = stage.asking(&long);
    until(|| fake.said().len() == 1).await;
    let second = stage.ask(&long, true).await;
    assert_eq!(second.status(), 529);
    let said = error(&second.text().await.expect("a text"));
    assert_eq!(said.0, "overloaded_error");
    // A short one has its place, and is answered after the first.
    let short = stage.asking("short");
    let_go.add_permits(1);
    let (text, broke) = first.await.expect("no panic");
    assert!(!broke && text.contains("done"), "{text}");
    let (text, broke) = short.await.expect("no panic");
    assert!(!broke && text.contains("hello"), "{text}");
    // Its room is free again.
    let_go.add_permits(1);
    let (status, text, _) = stage.stream(&long).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_body_of_too_many_values_is_refused() {
    let (fake, stage) = stage(limits()).await;
    let body = format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":[{}1]}}]}}"#,
        "1,".repeat(2_000_000)
    );
    let refused = stage.post("/v1/messages", &json!(null)).body(body).send();
    let refused = super::within(refused).await.expect("an answer");
    assert_eq!(refused.status(), 413);
    let said = error(&refused.text().await.expect("a text"));
    assert_eq!(said.0, "request_too_large");
    assert!(fake.seen().is_empty());
}

//! One at a time, in order; pings meanwhile; whoever goes away is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::fake::{Fake, Step, answer, closing, head, json_reply, opening, text};
use super::{Stage, error, limits, question, rest, until, within};
use crate::gateway::metrics::Ended;
use crate::gateway::{Engine, Limits};

/// An engine that answers each request when it is let.
async fn patient() -> (Fake, Arc<Semaphore>) {
    let signal = Arc::new(Semaphore::new(0));
    let let_go = signal.clone();
    let fake = Fake::start(move |seen| {
        let said = format!("answer to {}", seen.said());
        vec![
            head(),
            opening(),
            Step::Wait(let_go.clone()),
            text(&said),
            closing(),
        ]
    })
    .await;
    (fake, signal)
}

#[tokio::test]
async fn requests_reach_the_engine_one_at_a_time_in_the_order_in_which_they_came() {
    let (fake, signal) = patient().await;
    let stage = Stage::new(fake.ready()).await;
    let mut asking = Vec::new();
    for n in 0..5 {
        asking.push(stage.asking(&format!("q{n}")));
        until(|| stage.metrics.queued() + stage.metrics.active() == n + 1).await;
    }
    for (n, one) in asking.into_iter().enumerate() {
        until(|| fake.said().len() == n + 1).await;
        assert_eq!((stage.metrics.active(), stage.metrics.queued()), (1, 4 - n));
        signal.add_permits(1);
        let (answer, broke) = within(one).await.expect("no panic");
        assert!(!broke);
        assert!(answer.contains(&format!("answer to q{n}")), "{answer}");
    }
    assert_eq!(fake.said(), ["q0", "q1", "q2", "q3", "q4"]);
    assert_eq!(stage.metrics.total().turns, 5);
}

#[tokio::test]
async fn whoever_waits_for_others_is_told_that_the_line_is_alive() {
    let (fake, signal) = patient().await;
    let stage = Stage::new(fake.ready()).await;
    let first = stage.asking("first");
    until(|| fake.said().len() == 1).await;
    let mut second = stage.ask("second", true).await;
    let mut pings = String::new();
    while pings.matches("event: ping\n").count() < 3 {
        let piece = within(second.chunk()).await.expect("a stream");
        pings += &String::from_utf8_lossy(&piece.expect("more"));
    }
    assert_eq!(fake.said(), ["first"]);
    signal.add_permits(2);
    within(first).await.expect("no panic");
    assert!(rest(second).await.0.contains("answer to second"));
}

#[tokio::test]
async fn whoever_goes_away_in_the_queue_is_not_answered() {
    let (fake, signal) = patient().await;
    let stage = Stage::new(fake.ready()).await;
    let first = stage.asking("first");
    until(|| fake.said().len() == 1).await;
    let leaving = stage.asking("leaving");
    until(|| stage.metrics.queued() == 1).await;
    let last = stage.asking("last");
    until(|| stage.metrics.queued() == 2).await;
    drop(leaving);
    until(|| stage.metrics.queued() == 1).await;
    signal.add_permits(2);
    within(first).await.expect("no panic");
    assert!(
        within(last)
            .await
            .expect("no panic")
            .0
            .contains("answer to last")
    );
    assert_eq!(fake.said(), ["first", "last"]);
    assert!(
        stage
            .metrics
            .recent()
            .iter()
            .any(|figure| figure.ended == Ended::Cancelled)
    );
}

#[tokio::test]
async fn whoever_goes_away_while_it_is_answered_is_cancelled_at_the_engine() {
    for (stream, steps) in [
        (true, vec![head(), opening(), text("some"), Step::Hang]),
        (true, vec![head(), opening(), Step::Hang]),
        (true, vec![Step::Hang]),
        (false, vec![Step::Hang]),
    ] {
        let steps = std::sync::Mutex::new(Some(steps));
        let fake = Fake::start(move |seen| {
            if seen.path == "/v1/status" {
                return json_reply(404, &json!({}));
            }
            steps
                .lock()
                .expect("no panic")
                .take()
                .unwrap_or_else(|| answer("next"))
        })
        .await;
        let stage = Stage::new(fake.ready()).await;
        let sent = stage.post("/v1/messages", &question("hi", stream)).send();
        let asking = AbortOnDropHandle::new(tokio::spawn(async move {
            rest(sent.await.expect("an answer")).await
        }));
        until(|| fake.said().len() == 1).await;
        drop(asking);
        until(|| fake.left() == 1).await;
        // The engine is free for the next one.
        let (_, answer, _) = stage.stream("next").await;
        assert!(answer.contains("next"));
        assert_eq!(stage.metrics.recent()[0].ended, Ended::Cancelled);
    }
}

#[tokio::test]
async fn what_the_engine_does_not_notice_is_cancelled_by_name_before_the_next_one_is_sent() {
    let working = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let works = working.clone();
    let fake = Fake::start(move |seen| match seen.path.as_str() {
        "/v1/messages" if seen.said() == "first" => {
            works.store(true, Ordering::SeqCst);
            vec![head(), opening(), text("some"), Step::Hang]
        }
        "/v1/messages" => {
            assert!(!works.load(Ordering::SeqCst));
            answer("next")
        }
        "/v1/status" => {
            let requests = match works.load(Ordering::SeqCst) {
                true => json!([{"request_id": "abc-1"}, {"request_id": "../x"}, {}]),
                false => json!([]),
            };
            json_reply(200, &json!({"requests": requests}))
        }
        "/v1/requests/abc-1/cancel" => {
            works.store(false, Ordering::SeqCst);
            json_reply(200, &json!({"cancelled": true}))
        }
        other => panic!("{other}"),
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let first = stage.asking("first");
    until(|| fake.said().len() == 1).await;
    let next = stage.asking("next");
    until(|| stage.metrics.queued() == 1).await;
    drop(first);
    let (answer, _) = within(next).await.expect("no panic");
    assert!(answer.contains("next"));
    assert!(!working.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_engine_that_does_not_let_go_is_not_waited_for_for_ever() {
    let limits = Limits {
        clear: Duration::from_millis(100),
        ..limits()
    };
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/messages" if seen.said() == "first" => vec![head(), Step::Hang],
        "/v1/messages" => answer("next"),
        "/v1/status" => json_reply(200, &json!({"requests": [{"request_id": "abc-1"}]})),
        _ => json_reply(404, &json!({})),
    })
    .await;
    let stage = Stage::with(fake.ready(), limits).await;
    let first = stage.asking("first");
    until(|| fake.said().len() == 1).await;
    drop(first);
    assert!(stage.stream("next").await.1.contains("next"));
}

#[tokio::test]
async fn a_stream_lives_while_the_engine_starts_and_is_answered_when_it_is_ready() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(Engine::Starting).await;
    let mut response = stage.ask("hi", true).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut pings = String::new();
    while pings.matches("event: ping\n").count() < 3 {
        let piece = within(response.chunk()).await.expect("a stream");
        pings += &String::from_utf8_lossy(&piece.expect("more"));
    }
    assert!(!pings.contains("message_start"));
    stage.engine.send_replace(fake.ready());
    let (answer, broke) = rest(response).await;
    assert!(answer.contains("hello") && answer.contains("message_stop") && !broke);
}

#[tokio::test]
async fn a_plain_request_waits_for_the_engine_too() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(Engine::Starting).await;
    let sent = stage.post("/v1/messages", &question("hi", false)).send();
    let asking = tokio::spawn(sent);
    until(|| stage.metrics.queued() == 1).await;
    stage.engine.send_replace(fake.ready());
    let response = within(asking).await.expect("no panic").expect("an answer");
    assert!(response.text().await.expect("a text").contains("hello"));
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let fake = Fake::start(|seen| {
        if seen.said() != "much" {
            return answer("little");
        }
        let mut steps = vec![head(), opening()];
        // More than what the sockets between take.
        steps.extend((0..200).map(|_| text(&"x".repeat(100_000))));
        steps.push(closing());
        steps
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let unread = stage.ask("much", true).await;
    let (_, answer, _) = stage.stream("hi").await;
    assert!(answer.contains("little"));
    // And it can still be read.
    let (much, broke) = rest(unread).await;
    assert!(much.contains("message_stop") && !broke);
    assert!(much.len() > 20_000_000);
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let limits = Limits {
        waiting: 1,
        ..limits()
    };
    let (fake, _signal) = patient().await;
    let stage = Stage::with(fake.ready(), limits).await;
    let _first = stage.asking("first");
    until(|| fake.said().len() == 1).await;
    let _second = stage.asking("second");
    until(|| stage.metrics.queued() == 1).await;
    let response = stage.ask("third", true).await;
    assert_eq!(response.status(), 529);
    assert_eq!(
        error(&response.text().await.expect("a text")).0,
        "overloaded_error"
    );
}

#[tokio::test]
async fn stopping_ends_what_is_open_with_an_error_and_closes_the_port() {
    let (fake, _signal) = patient().await;
    let limits = Limits {
        farewell: Duration::from_secs(30),
        ..limits()
    };
    let mut stage = Stage::with(fake.ready(), limits).await;
    let active = stage.asking("active");
    until(|| fake.said().len() == 1).await;
    let waiting = stage.asking("waiting");
    until(|| stage.metrics.queued() == 1).await;
    let plain = tokio::spawn(stage.post("/v1/messages", &question("plain", false)).send());
    until(|| stage.metrics.queued() == 2).await;
    // They have their status already.
    let idle = stage.connect().await;
    stage
        .stop
        .take()
        .expect("once")
        .send(())
        .expect("it listens");
    within(&mut stage.serving)
        .await
        .expect("no panic")
        .expect("no error");
    for one in [active, waiting] {
        let (text, broke) = within(one).await.expect("no panic");
        assert!(!broke, "{text}");
        assert!(text.contains("cclocal is stopping"), "{text}");
    }
    let response = within(plain).await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-should-retry"], "false");
    drop(idle);
    tokio::net::TcpStream::connect(("127.0.0.1", stage.port))
        .await
        .expect_err("closed");
    assert!(
        stage
            .metrics
            .recent()
            .iter()
            .all(|figure| figure.ended == Ended::Stopped)
    );
}

/// The next step of a conversation: an agent's, or the session's own.
fn step(stage: &Stage, agent: Option<&str>, said: &str) -> AbortOnDropHandle<(String, bool)> {
    let mut body = question(said, true);
    body["tools"] = json!([{"name": "Read", "input_schema": {"type": "object"}}]);
    let mut request = stage.post("/v1/messages", &body);
    if let Some(agent) = agent {
        request = request.header("x-claude-code-agent-id", agent);
    }
    AbortOnDropHandle::new(tokio::spawn(async move {
        rest(within(request.send()).await.expect("an answer")).await
    }))
}

#[tokio::test]
async fn an_engine_that_takes_several_gets_one_of_each_conversation() {
    let (fake, signal) = patient().await;
    let stage = Stage::changed(fake.ready(), |settings| settings.parallel = 3).await;
    let mut asking = Vec::new();
    for (agent, said) in [
        (None, "own"),
        (Some("a"), "a1"),
        (Some("a"), "a2"),
        (Some("b"), "b1"),
        (Some("c"), "c1"),
    ] {
        asking.push(step(&stage, agent, said));
        let arrived = asking.len();
        until(|| stage.metrics.queued() + stage.metrics.active() == arrived).await;
    }
    until(|| fake.said().len() == 3).await;
    assert_eq!(stage.metrics.active(), 3);
    let mut said = fake.said();
    said.sort();
    assert_eq!(said, ["a1", "b1", "own"]);
    signal.add_permits(5);
    for one in asking {
        let (answer, broke) = within(one).await.expect("no panic");
        assert!(answer.contains("answer to") && !broke, "{answer}");
    }
    let all = fake.said();
    let at = |said: &str| all.iter().position(|one| one == said).expect("answered");
    assert!(at("a1") < at("a2"), "{all:?}");
}

#[tokio::test]
async fn a_question_in_the_background_lets_the_next_step_pass() {
    let (fake, signal) = patient().await;
    let stage = Stage::new(fake.ready()).await;
    let first = step(&stage, None, "first");
    until(|| fake.said().len() == 1).await;
    let sent = stage
        .post("/v1/messages", &question("title", true))
        .header("user-agent", "claude-cli/2.1.330 (external, cli)")
        .send();
    let title = tokio::spawn(async move { rest(within(sent).await.expect("an answer")).await });
    until(|| stage.metrics.queued() == 1).await;
    let agent = step(&stage, Some("a"), "agent");
    until(|| stage.metrics.queued() == 2).await;
    signal.add_permits(3);
    for one in [first, agent] {
        within(one).await.expect("no panic");
    }
    within(title).await.expect("no panic");
    assert_eq!(fake.said(), ["first", "agent", "title"]);
}

/// An answer of an engine that has too many requests.
fn too_many(status: u16, retry_after: &str) -> Vec<Step> {
    let body = r#"{"error":{"message":"too many"}}"#;
    vec![Step::Send(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nretry-after: {retry_after}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))]
}

#[tokio::test]
async fn an_engine_that_has_too_many_is_asked_again_when_it_wants_to_be() {
    for status in [429, 529] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let fake = Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => too_many(status, "0"),
            1 => too_many(status, "0.01"),
            _ => answer("at last"),
        })
        .await;
        let stage = Stage::changed(fake.ready(), |settings| settings.exclusive = false).await;
        let (_, answer, broke) = stage.stream("hi").await;
        assert!(answer.contains("at last") && !broke, "{answer}");
        assert_eq!(fake.said().len(), 3);
    }
}

#[tokio::test]
async fn an_engine_that_will_have_too_many_for_long_says_so_itself() {
    for retry_after in ["3600", "1.8e19", "1e300", "-1", "tomorrow"] {
        let fake = Fake::start(move |_| too_many(429, retry_after)).await;
        let stage = Stage::changed(fake.ready(), |settings| {
            settings.exclusive = false;
            settings.limits.backoff = Duration::from_millis(20);
            settings.limits.first_pause = Duration::from_millis(1);
        })
        .await;
        let response = stage.ask("hi", true).await;
        assert_eq!(response.status(), 429, "{retry_after}");
        let said = error(&response.text().await.expect("a text"));
        assert_eq!(said, ("rate_limit_error".into(), "too many".into()));
    }
}

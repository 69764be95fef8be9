//! Engines that die, stall, lie and come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::fake::{
    Fake, LAST_CHUNK, Seen, Step, answer, chunk, closing, head, json_reply, opening, plain_answer,
    text,
};
use super::{Stage, error, error_event, limits, rest, until, within};
use crate::gateway::metrics::Ended;
use crate::gateway::{Engine, Limits};

/// Does something else each time, and answers "again" after that.
async fn in_turn(acts: Vec<Vec<Step>>) -> Fake {
    let acts = std::sync::Mutex::new(acts.into_iter());
    Fake::start(move |seen: &Seen| {
        if seen.path == "/v1/status" {
            return json_reply(404, &json!({}));
        }
        let next = acts.lock().expect("no panic").next();
        next.unwrap_or_else(|| answer("again"))
    })
    .await
}

fn ended(stage: &Stage) -> Ended {
    stage.metrics.recent().last().expect("a request").ended
}

#[tokio::test]
async fn an_engine_that_is_lost_before_it_says_anything_is_asked_again_when_it_is_back() {
    for steps in [
        vec![],
        vec![Step::Send("HTTP/1.1 200 OK\r\ncontent-ty".into())],
        vec![head()],
        vec![head(), opening()],
        vec![
            head(),
            opening(),
            Step::Send("1f\r\nevent: content_bl".into()),
        ],
        vec![head(), Step::Send(chunk(": heartbeat\n\n"))],
        // An end that looks like one, but lacks all that belongs to it.
        vec![head(), opening(), Step::Send(LAST_CHUNK.into())],
        vec![head(), Step::Send(LAST_CHUNK.into())],
    ] {
        let fake = in_turn(vec![steps]).await;
        let stage = Stage::new(fake.ready()).await;
        let (status, text, broke) = stage.stream("hi").await;
        assert_eq!(status, 200);
        assert!(
            text.contains("again") && text.contains("message_stop") && !broke,
            "{text}"
        );
        assert_eq!(text.matches("event: message_start\n").count(), 1, "{text}");
        assert_eq!(fake.said(), ["hi", "hi"]);
        assert_eq!(ended(&stage), Ended::Answered);
    }
}

#[tokio::test]
async fn a_plain_request_is_asked_again_too() {
    let fake = Fake::start({
        let times = AtomicUsize::new(0);
        move |_| match times.fetch_add(1, Ordering::SeqCst) {
            0 => vec![head(), opening()],
            _ => answer("again"),
        }
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let response = stage.ask("hi", false).await;
    assert!(response.text().await.expect("a text").contains("again"));
    assert_eq!(fake.said().len(), 2);
}

#[tokio::test]
async fn an_engine_of_somebody_else_is_asked_plainly() {
    let fake = Fake::start(|_| plain_answer("hello")).await;
    let stage = Stage::changed(fake.ready(), |settings| settings.exclusive = false).await;
    let response = stage.ask("hi", false).await;
    assert!(response.text().await.expect("a text").contains("hello"));
    assert_eq!(fake.seen()[0].body["stream"], false);
}

#[tokio::test]
async fn a_new_engine_elsewhere_gets_what_the_old_one_lost() {
    let old = Fake::start(|_| vec![head(), opening(), Step::Hang]).await;
    let new = Fake::start(|_| answer("new")).await;
    let limits = Limits {
        // Only what its owner says brings it on.
        notice: super::HANG,
        ..limits()
    };
    let stage = Stage::with(old.ready(), limits).await;
    let asking = stage.asking("hi");
    until(|| old.said().len() == 1).await;
    stage.engine.send_replace(Engine::Starting);
    drop(old);
    // It waits, with pings, for as long as it takes.
    assert_eq!(stage.metrics.active(), 1);
    stage.engine.send_replace(new.ready());
    let (text, broke) = within(asking).await.expect("no panic");
    assert!(text.contains("new") && !broke, "{text}");
}

#[tokio::test]
async fn an_engine_that_is_lost_in_the_middle_of_its_answer_breaks_it_off() {
    for steps in [
        vec![head(), opening(), text("some")],
        vec![
            head(),
            opening(),
            text("some"),
            Step::Send("1f\r\nevent: content_bl".into()),
        ],
        vec![
            head(),
            opening(),
            text("some"),
            Step::Send(LAST_CHUNK.into()),
        ],
    ] {
        let fake = in_turn(vec![steps]).await;
        let stage = Stage::new(fake.ready()).await;
        let (status, text, broke) = stage.stream("hi").await;
        assert_eq!(status, 200);
        assert!(text.contains("some") && broke, "{text}");
        assert!(
            !text.contains("event: error") && !text.contains("message_stop"),
            "{text}"
        );
        assert_eq!(ended(&stage), Ended::EngineLost);
        // The client does that.
        assert_eq!(fake.said(), ["hi"]);
    }
}

#[tokio::test]
async fn an_engine_that_is_lost_time_and_again_is_told_of() {
    let fake = Fake::start(|_| vec![]).await;
    let limits = Limits {
        notice: Duration::from_millis(10),
        ..limits()
    };
    let stage = Stage::with(fake.ready(), limits).await;
    let response = stage.ask("hi", false).await;
    assert_eq!(response.status(), 529);
    let (kind, message) = error(&response.text().await.expect("a text"));
    assert_eq!(kind, "overloaded_error");
    assert!(message.starts_with("the engine was lost"), "{message}");
    assert_eq!(fake.said().len(), 3);
}

#[tokio::test]
async fn an_engine_that_is_gone_for_good_is_told_of_at_once() {
    let sentence = "the model needs more memory than there is";
    let stage = Stage::new(Engine::Gone(sentence.into())).await;
    for stream in [true, false] {
        let response = stage.ask("hi", stream).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let said = error(&response.text().await.expect("a text"));
        assert_eq!(said, ("api_error".into(), sentence.into()));
    }
    // And by an event to those who waited for it.
    stage.engine.send_replace(Engine::Starting);
    let response = stage.ask("hi", true).await;
    assert_eq!(response.status(), 200);
    stage.engine.send_replace(Engine::Gone(sentence.into()));
    let (text, _) = rest(response).await;
    assert_eq!(error_event(&text), ("api_error".into(), sentence.into()));
}

#[tokio::test]
async fn an_engine_without_an_owner_is_gone() {
    let stage = Stage::new(Engine::Starting).await;
    let asking = stage.asking("hi");
    until(|| stage.metrics.queued() == 1).await;
    drop(stage.engine);
    let (text, _) = within(asking).await.expect("no panic");
    assert!(text.contains("the engine is gone"), "{text}");
}

#[tokio::test]
async fn an_engine_that_stalls_is_given_up_even_if_its_heart_beats() {
    for steps in [
        vec![Step::Hang],
        vec![head(), Step::Hang],
        vec![head(), opening(), Step::Heartbeats],
        vec![head(), opening(), text("some"), Step::Heartbeats],
        vec![head(), opening(), text("some"), Step::Hang],
    ] {
        let fake = in_turn(vec![steps]).await;
        let limits = Limits {
            stall: Duration::from_millis(300),
            ..limits()
        };
        let stage = Stage::with(fake.ready(), limits).await;
        let (_, text, _) = stage.stream("hi").await;
        let (kind, message) = if text.starts_with('{') {
            error(&text)
        } else {
            error_event(&text)
        };
        assert_eq!(kind, "timeout_error");
        assert_eq!(message, "the engine has sent nothing for too long");
        until(|| fake.left() == 1).await;
        assert_eq!(ended(&stage), Ended::Stalled);
        // Not asked again: it would stall again.
        assert_eq!(fake.said(), ["hi"]);
    }
}

#[tokio::test]
async fn an_engines_errors_come_in_the_apis_shape() {
    for (status, body, expected, kind) in [
        (
            400,
            json!({"detail": "no such tool"}),
            400,
            "invalid_request_error",
        ),
        (
            404,
            json!({"detail": "no such model"}),
            404,
            "not_found_error",
        ),
        (401, json!({"detail": "Invalid API key"}), 502, "api_error"),
        (503, json!({"detail": "busy"}), 529, "overloaded_error"),
        (302, json!({}), 502, "api_error"),
    ] {
        let reply = body.clone();
        let fake = Fake::start(move |_| json_reply(status, &reply)).await;
        let stage = Stage::new(fake.ready()).await;
        for stream in [true, false] {
            let response = stage.ask("hi", stream).await;
            assert_eq!(response.status(), expected);
            assert_eq!(error(&response.text().await.expect("a text")).0, kind);
            assert_eq!(ended(&stage), Ended::EngineError);
        }
        assert_eq!(fake.said().len(), 2);
    }
}

#[tokio::test]
async fn an_engine_whose_first_word_is_an_error_gives_it_a_status() {
    let event = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"it failed\"}}\n\n";
    let fake =
        Fake::start(move |_| vec![head(), opening(), Step::Send(chunk(event) + LAST_CHUNK)]).await;
    let stage = Stage::new(fake.ready()).await;
    let (status, text, _) = stage.stream("hi").await;
    assert_eq!(status, 503);
    assert!(error(&text).1.contains("it failed"), "{text}");
}

#[tokio::test]
async fn a_request_that_fails_each_time_is_not_one_to_try_again() {
    let failing = || json_reply(500, &json!({"detail": "Internal server error"}));
    let log = tempfile::NamedTempFile::new().expect("a log");
    std::fs::write(
        log.path(),
        "ERROR:vllm_mlx.server:Streaming error, ensuring terminal frame: No filter named 'x'.\n",
    )
    .expect("written");
    let fake = Fake::start(move |_| failing()).await;
    let stage = Stage::changed(fake.ready(), |settings| {
        settings.log = Some(log.path().to_owned());
    })
    .await;
    for stream in [true, false] {
        let response = stage.ask("hi", stream).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let said = error(&response.text().await.expect("a text")).1;
        assert!(
            said.starts_with("the engine fails at this request each time: No filter named 'x'. "),
            "{said}"
        );
    }
    assert_eq!(fake.said().len(), 4, "each was tried again once");

    // An engine of somebody else may be busy with others: its own word is passed on.
    let fake = Fake::start(move |_| failing()).await;
    let stage = Stage::changed(fake.ready(), |settings| settings.exclusive = false).await;
    let response = stage.ask("hi", false).await;
    assert_eq!(response.status(), 500);
    assert!(response.headers().get("x-should-retry").is_none());
    assert_eq!(fake.said().len(), 1);
}

#[tokio::test]
async fn a_request_that_fails_once_is_answered() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => json_reply(500, &json!({"detail": "Internal server error"})),
        _ => answer("all is well"),
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let (status, text, broke) = stage.stream("hi").await;
    assert_eq!((status, broke), (200, false));
    assert!(text.contains("all is well"), "{text}");
}

#[tokio::test]
async fn an_engine_that_fails_after_some_words_says_so() {
    let event = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"it failed\"}}\n\n";
    let fake = Fake::start(move |_| {
        vec![
            head(),
            opening(),
            text("some"),
            Step::Send(chunk(event) + LAST_CHUNK),
        ]
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let (_, text, broke) = stage.stream("hi").await;
    assert!(!broke);
    assert_eq!(error_event(&text), ("api_error".into(), "it failed".into()));
    assert_eq!(ended(&stage), Ended::EngineError);
}

#[tokio::test]
async fn an_answer_that_is_none_is_no_answer() {
    for steps in [
        json_reply(200, &json!({"object": "chat.completion"})),
        vec![Step::Send(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".into(),
        )],
        vec![Step::Send(
            "HTTP/1.1 204 X\r\nconnection: close\r\n\r\n".into(),
        )],
    ] {
        let fake = in_turn(vec![steps]).await;
        let stage = Stage::new(fake.ready()).await;
        let (status, text, _) = stage.stream("hi").await;
        assert_eq!(status, 502, "{text}");
        assert_eq!(error(&text).0, "api_error");
    }
    // Not even HTTP: as good as lost.
    let fake = in_turn(vec![vec![Step::Send("SSH-2.0-OpenSSH\r\n\r\n".into())]]).await;
    let stage = Stage::new(fake.ready()).await;
    let (_, text, _) = stage.stream("hi").await;
    assert!(text.contains("again"));
}

#[tokio::test]
async fn events_that_are_cut_anywhere_arrive_whole() {
    let pieces: String = [opening(), text("häppy ☃"), closing()]
        .into_iter()
        .map(|step| match step {
            Step::Send(text) => text,
            _ => String::new(),
        })
        .collect();
    // The chunks themselves are cut: by bytes would break the test's own strings, so by characters.
    let mut steps = vec![head()];
    steps.extend(pieces.chars().map(|one| Step::Send(one.into())));
    let fake = in_turn(vec![steps]).await;
    let stage = Stage::new(fake.ready()).await;
    let (_, text, broke) = stage.stream("hi").await;
    assert!(
        text.contains("häppy ☃") && text.contains("event: message_stop\n") && !broke,
        "{text}"
    );
}

#[tokio::test]
async fn a_connection_that_the_engine_closed_meanwhile_is_no_loss() {
    // The fake closes after each answer; with a gateway that keeps connections it still answers each time.
    let fake = Fake::start(|_| {
        let mut steps = answer("hello");
        if let Some(Step::Send(text)) = steps.first_mut() {
            *text = text.replace("connection: close\r\n", "");
        }
        steps
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    for _ in 0..5 {
        let response = stage.ask("hi", false).await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(stage.metrics.total().turns, 5);
}

#[tokio::test]
async fn an_engine_that_ends_without_its_last_event_breaks_off() {
    let fake = Fake::start(|_| {
        vec![
            head(),
            opening(),
            text("some"),
            Step::Send(LAST_CHUNK.to_owned()),
        ]
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let (_, text, broke) = stage.stream("hi").await;
    assert!(text.contains("some") && broke, "{text}");
}

#[tokio::test]
async fn what_is_no_event_ends_the_reply_with_an_error() {
    let fake = Fake::start(|_| {
        vec![
            head(),
            opening(),
            text("some"),
            Step::Send(chunk("event: nonsense\ndata: {broken\n\n")),
            Step::Hang,
        ]
    })
    .await;
    let stage = Stage::new(fake.ready()).await;
    let (_, text, broke) = stage.stream("hi").await;
    assert_eq!(error_event(&text).0, "api_error", "{text}");
    assert!(!broke && text.contains("some"));
}

//! An engine that somebody else runs goes away, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{Fake, LAST_CHUNK, Seen, Step, answer, chunk, head, json_reply, opening, text};
use super::{HANG, Stage, error, question, rest, until, within};
use crate::gateway::Outages;

const SHORT: Duration = Duration::from_millis(50);

/// An engine that is away as long as the flag says so, and then does with messages and its health what these do.
async fn leaving(
    is_away: &Arc<AtomicBool>,
    message: fn() -> Vec<Step>,
    health: fn() -> Vec<Step>,
) -> Fake {
    let is_away = is_away.clone();
    Fake::start(
        move |seen: &Seen| match (seen.path.as_str(), is_away.load(Ordering::SeqCst)) {
            ("/v1/messages", true) => message(),
            ("/v1/messages", false) => answer("back"),
            (_, true) => health(),
            ("/health", false) => json_reply(200, &Value::Null),
            _ => json_reply(404, &json!({"detail": "Not Found"})),
        },
    )
    .await
}

/// `hold`: how long an answer can have a status of its own.
async fn stage(fake: &Fake, patience: Duration, hold: Duration) -> (Stage, Outages) {
    let outages = Outages::with_interval("team.example", patience, Duration::from_millis(2));
    let of_stage = outages.clone();
    let stage = Stage::changed(fake.ready(), |settings| {
        settings.exclusive = false;
        settings.outages = Some(of_stage);
        settings.limits.notice = Duration::from_millis(5);
        settings.limits.hold = hold;
    })
    .await;
    (stage, outages)
}

fn nothing() -> Vec<Step> {
    Vec::new()
}

fn status(status: u16) -> Vec<Step> {
    json_reply(
        status,
        &json!({"error": {"message": "EngineCore encountered an issue."}}),
    )
}

fn dead_core() -> Step {
    let words = "4 validation errors for ChatCompletionStreamResponse\nid\n  Field required";
    let event = json!({"type": "error", "error": {"type": "internal_error", "message": words}});
    Step::Send(chunk(&format!("event: error\ndata: {event}\n\n")) + LAST_CHUNK)
}

#[tokio::test]
async fn a_request_is_held_with_pings_until_the_engine_is_back() {
    for (message, health) in [
        (nothing as fn() -> Vec<Step>, nothing as fn() -> Vec<Step>),
        (|| status(502), || status(503)),
        // vLLM while its engine core is dead.
        (|| status(500), || status(503)),
        (|| vec![head(), dead_core()], || status(503)),
        (|| vec![head(), opening(), dead_core()], || status(503)),
    ] {
        let is_away = Arc::new(AtomicBool::new(true));
        let fake = leaving(&is_away, message, health).await;
        let (stage, outages) = stage(&fake, HANG, SHORT).await;
        let mut asked = stage.ask("hi", true).await;
        assert_eq!(asked.status(), 200);
        let mut pings = String::new();
        while outages.now().is_none() || pings.matches("event: ping\n").count() < 3 {
            let piece = within(asked.chunk()).await.expect("a stream");
            pings += &String::from_utf8_lossy(&piece.expect("more"));
        }
        let words = outages.now().expect("away").words;
        assert!(
            words.starts_with("engine at team.example away since "),
            "{words}"
        );
        let told = stage.client.get(stage.url("/health")).send();
        let told = within(told).await.expect("an answer");
        assert_eq!(told.status(), 503);
        assert!(told.text().await.expect("a text").contains(&words));
        is_away.store(false, Ordering::SeqCst);
        let (reply, broke) = rest(asked).await;
        assert!(reply.contains("back") && !broke, "{reply}");
        assert_eq!(outages.now(), None);
        assert_eq!(stage.metrics.total().turns, 1);
    }
}

#[tokio::test]
async fn an_outage_that_takes_too_long_is_told_once_and_then_at_once() {
    let is_away = Arc::new(AtomicBool::new(true));
    let fake = leaving(&is_away, nothing, nothing).await;
    let (stage, outages) = stage(&fake, Duration::from_millis(20), HANG).await;
    let mut before = 0;
    for stream in [true, false, true] {
        let response = stage.ask("hi", stream).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let (_, said) = error(&response.text().await.expect("a text"));
        assert!(
            said.starts_with("engine at team.example away since "),
            "{said}"
        );
        let asked = fake.seen().len();
        // One message and one look at its health.
        assert!(before == 0 || asked == before + 2, "{asked} {before}");
        before = asked;
    }
    is_away.store(false, Ordering::SeqCst);
    let (_, reply, _) = stage.stream("hi").await;
    assert!(reply.contains("back"), "{reply}");
    assert_eq!(outages.now(), None);
}

#[tokio::test]
async fn a_failure_of_an_engine_that_is_there_is_an_answer() {
    let is_away = Arc::new(AtomicBool::new(true));
    let fake = leaving(&is_away, || status(500), || status(200)).await;
    let (stage, outages) = stage(&fake, HANG, HANG).await;
    let response = stage.ask("hi", true).await;
    assert_eq!(response.status(), 500);
    assert_eq!(fake.said().len(), 1);
    // A request that breaks each connection is not sent for ever.
    let fake = leaving(&is_away, nothing, || status(200)).await;
    stage.engine.send_replace(fake.ready());
    let response = stage.ask("hi", true).await;
    let stream = response.text().await.expect("a text");
    assert!(stream.contains("the engine was lost"), "{stream}");
    assert_eq!(fake.said().len(), 3);
    assert_eq!(outages.now(), None);
}

#[tokio::test]
async fn an_engine_that_dies_in_its_reply_is_no_error_of_the_reply() {
    let is_away = Arc::new(AtomicBool::new(true));
    let message = || vec![head(), opening(), text("some"), dead_core()];
    let fake = leaving(&is_away, message, || status(503)).await;
    let (stage, _) = stage(&fake, HANG, SHORT).await;
    let (_, reply, broke) = stage.stream("hi").await;
    // The client asks again.
    assert!(broke, "{reply}");
    assert!(reply.contains("some") && !reply.contains("validation"));
}

#[tokio::test]
async fn who_goes_away_is_not_waited_for() {
    let is_away = Arc::new(AtomicBool::new(true));
    let fake = leaving(&is_away, nothing, nothing).await;
    let (stage, outages) = stage(&fake, HANG, SHORT).await;
    let asked = stage.post("/v1/messages", &question("hi", true)).send();
    let asked = within(asked).await.expect("an answer");
    until(|| outages.now().is_some()).await;
    drop(asked);
    until(|| stage.metrics.queued() + stage.metrics.active() == 0).await;
}

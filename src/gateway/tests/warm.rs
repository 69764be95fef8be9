//! What stands before the first question, computed before it is asked.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::fake::{Fake, Seen, Step, answer, closing, head, json_reply, opening, text};
use super::{Stage, limits, question, rest, until, within};
use crate::gateway::Engine;
use crate::gateway::metrics::Ended;

const TYPED: &str = "claude-cli/2.1.331 (external, cli)";
const SCRIPTED: &str = "claude-cli/2.1.331 (external, sdk-cli)";

struct Remembering {
    home: tempfile::TempDir,
}

impl Remembering {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a folder"),
        }
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("prefixes/fronts.json")
    }

    /// A gateway that knows what the ones before it saw.
    async fn stage(&self, engine: Engine) -> Stage {
        Stage::remembering(engine, limits(), Some(self.file())).await
    }

    /// Lets a session of this client begin so.
    async fn session(&self, client: &str, system: &str) {
        let fake = Fake::start(|_| answer("hello")).await;
        let stage = self.stage(Engine::Starting).await;
        let asked = asking(&stage, client, &begun("question", system));
        until(|| stage.metrics.queued() == 1).await;
        stage.engine.send_replace(fake.ready());
        assert!(within(asked).await.expect("no panic").contains("hello"));
        until(|| written(&self.file()).contains(system)).await;
        assert_eq!(
            fake.said(),
            ["question"],
            "a client is there: nothing is sent for it"
        );
    }
}

fn written(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// How a session begins.
fn begun(said: &str, system: &str) -> Value {
    let mut request = question(said, true);
    request["system"] = json!(system);
    request["tools"] =
        json!([{"name": "Read", "description": "reads", "input_schema": {"type": "object"}}]);
    request
}

fn asking(stage: &Stage, client: &str, body: &Value) -> AbortOnDropHandle<String> {
    let sent = stage
        .post("/v1/messages", body)
        .header("user-agent", client);
    let sent = sent.send();
    AbortOnDropHandle::new(tokio::spawn(async move {
        rest(within(sent).await.expect("an answer")).await.0
    }))
}

#[tokio::test]
async fn an_engine_that_nobody_asks_gets_what_the_last_session_began_with() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "you help").await;
    let mode = std::fs::metadata(remembering.file())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!written(&remembering.file()).contains("question"));

    let fake = Fake::start(|_| answer("hello")).await;
    let stage = remembering.stage(fake.ready()).await;
    until(|| fake.said() == ["hi"]).await;
    let seen = fake.seen().remove(0);
    let expected = begun("question", "you help");
    assert_eq!(seen.body["system"], expected["system"]);
    assert_eq!(seen.body["tools"], expected["tools"]);
    assert_eq!(seen.body["model"], "served");
    assert_eq!(seen.body["max_tokens"], 1);
    // It is sent once, also when the engine is another one, and counts for nobody.
    stage.engine.send_replace(Engine::Starting);
    stage.engine.send_replace(fake.ready());
    let asked = asking(&stage, TYPED, &begun("question", "you help"));
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert_eq!(fake.said(), ["hi", "question"]);
    assert_eq!(stage.metrics.recent().len(), 1);
    assert_eq!(stage.metrics.total().turns, 1);
}

#[tokio::test]
async fn what_people_type_to_is_what_they_wait_for() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "an older one").await;
    remembering.session(TYPED, "typed").await;
    remembering.session(SCRIPTED, "scripted").await;
    let of_one_name = "you run within the Claude Agent SDK";
    remembering.session(TYPED, of_one_name).await;
    remembering.session("curl/8", "typed").await;
    assert!(!written(&remembering.file()).contains("curl"));
    assert!(!written(&remembering.file()).contains("an older one"));
    let fake = Fake::start(|_| answer("hello")).await;
    let _stage = remembering.stage(fake.ready()).await;
    until(|| fake.said() == ["hi"]).await;
    assert_eq!(fake.seen()[0].body["system"], "typed");
}

/// An engine that answers what is computed before the question when it is let, or when it is cancelled.
async fn slow() -> (Fake, Arc<Semaphore>, Arc<AtomicBool>) {
    let signal = Arc::new(Semaphore::new(0));
    let cancelled = Arc::new(AtomicBool::new(false));
    let (let_go, gone) = (signal.clone(), cancelled.clone());
    let fake = Fake::start(move |seen: &Seen| match seen.path.as_str() {
        "/v1/messages" if seen.said() == "hi" => vec![
            head(),
            opening(),
            Step::Wait(let_go.clone()),
            text("."),
            closing(),
        ],
        "/v1/messages" => answer("hello"),
        "/v1/status" if gone.load(Ordering::SeqCst) => json_reply(200, &json!({"requests": []})),
        "/v1/status" => json_reply(200, &json!({"requests": [{"request_id": "a"}]})),
        _ => {
            gone.store(true, Ordering::SeqCst);
            json_reply(200, &json!({}))
        }
    })
    .await;
    (fake, signal, cancelled)
}

#[tokio::test]
async fn a_question_waits_for_what_it_needs() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "you help").await;
    let (fake, signal, cancelled) = slow().await;
    let stage = remembering.stage(fake.ready()).await;
    until(|| fake.said() == ["hi"]).await;
    let asked = asking(&stage, TYPED, &begun("question", "you help"));
    until(|| stage.metrics.queued() == 1).await;
    assert_eq!(fake.said(), ["hi"]);
    signal.add_permits(1);
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert_eq!(fake.said(), ["hi", "question"]);
    assert!(!cancelled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_question_does_not_wait_for_what_another_one_would_need() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "you help").await;
    let (fake, _signal, cancelled) = slow().await;
    let stage = remembering.stage(fake.ready()).await;
    until(|| fake.said() == ["hi"]).await;
    let asked = asking(&stage, TYPED, &begun("question", "you help more"));
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert!(cancelled.load(Ordering::SeqCst), "the engine let go of it");
    assert_eq!(fake.said(), ["hi", "question"]);
    let ends: Vec<Ended> = (stage.metrics.recent().iter())
        .map(|figure| figure.ended)
        .collect();
    assert_eq!(ends, [Ended::Answered]);
}

/// The first request of a rehearsal, by the session of this token.
fn rehearsing(stage: &Stage, token: &str, client: &str, body: &Value) -> reqwest::RequestBuilder {
    stage
        .client
        .post(stage.url("/rehearsal/v1/messages"))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .header("user-agent", client)
        .body(body.to_string())
}

const NEWER: &str = "claude-cli/2.1.400 (external, cli)";

#[tokio::test]
async fn what_a_rehearsal_shows_is_computed_for_the_session_that_will_ask() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "of the older one").await;
    let (fake, signal, cancelled) = slow().await;
    let stage = remembering.stage(fake.ready()).await;
    let token = stage.access.grant(7).expect("a token");
    let over = stage.client.get(stage.url("/rehearsal"));
    let over = over.bearer_auth(token.expose()).send();
    let over = AbortOnDropHandle::new(tokio::spawn(over));
    until(|| fake.said() == ["hi"]).await;

    // A title is asked for first.
    let title = question("a title", true);
    let told = rehearsing(&stage, token.expose(), NEWER, &title).send();
    let told = within(told).await.expect("an answer");
    assert_eq!(told.status(), 400);
    assert!(!over.is_finished() && !cancelled.load(Ordering::SeqCst));
    let told = rehearsing(&stage, token.expose(), NEWER, &begun("rehearsed", "newer")).send();
    let told = within(told).await.expect("an answer");
    assert_eq!(told.status(), 400);
    assert!(told.text().await.expect("text").contains("rehearsal"));
    let learnt = within(over).await.expect("no panic").expect("an answer");
    assert_eq!(learnt.status(), 204);

    // The older one is given up, and the newer one computed in its place.
    until(|| fake.said() == ["hi", "hi"]).await;
    assert!(cancelled.load(Ordering::SeqCst));
    let seen = fake.seen();
    let newer = seen.iter().rfind(|seen| seen.path == "/v1/messages");
    assert_eq!(newer.expect("it").body["system"], "newer");
    // The fake still waits for the first one's, too.
    signal.add_permits(2);
    let asked = asking(&stage, NEWER, &begun("question", "newer"));
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert_eq!(fake.said(), ["hi", "hi", "question"]);
    assert_eq!(
        stage.metrics.total().turns,
        1,
        "nobody asked for the others"
    );

    let fake = Fake::start(|_| answer("hello")).await;
    let _stage = remembering.stage(fake.ready()).await;
    until(|| fake.said() == ["hi"]).await;
    assert_eq!(fake.seen()[0].body["system"], "newer");
}

#[tokio::test]
async fn a_rehearsal_before_the_engine_is_ready_is_computed_once() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "of the older one").await;
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = remembering.stage(Engine::Starting).await;
    let told = rehearsing(&stage, "main-token", NEWER, &begun("rehearsed", "newer")).send();
    within(told).await.expect("an answer");
    stage.engine.send_replace(fake.ready());
    until(|| fake.said() == ["hi"]).await;
    let asked = asking(&stage, NEWER, &begun("question", "newer"));
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert_eq!(fake.said(), ["hi", "question"]);
    assert_eq!(fake.seen()[0].body["system"], "newer");
}

#[tokio::test]
async fn a_rehearsal_that_comes_after_the_question_changes_nothing() {
    let remembering = Remembering::new();
    remembering.session(TYPED, "asked").await;
    let before = written(&remembering.file());
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = remembering.stage(Engine::Starting).await;
    let asked = asking(&stage, TYPED, &begun("question", "asked"));
    until(|| stage.metrics.queued() == 1).await;
    let told = rehearsing(&stage, "main-token", NEWER, &begun("rehearsed", "newer")).send();
    within(told).await.expect("an answer");
    let over = stage.client.get(stage.url("/rehearsal"));
    let over = within(over.bearer_auth("main-token").send()).await;
    assert_eq!(over.expect("an answer").status(), 204);
    stage.engine.send_replace(fake.ready());
    assert!(within(asked).await.expect("no panic").contains("hello"));
    assert_eq!(fake.said(), ["question"]);
    assert_eq!(written(&remembering.file()), before);
}

#[tokio::test]
async fn a_rehearsal_needs_a_token_and_who_waits_for_it_learns_of_the_end() {
    let remembering = Remembering::new();
    let mut stage = remembering.stage(Engine::Starting).await;
    let body = begun("rehearsed", "newer");
    let told = within(rehearsing(&stage, "wrong", NEWER, &body).send()).await;
    assert_eq!(told.expect("an answer").status(), 401);
    assert_eq!(written(&remembering.file()), "");
    let over = stage.client.get(stage.url("/rehearsal"));
    let over = AbortOnDropHandle::new(tokio::spawn(over.bearer_auth("main-token").send()));
    let models = stage.client.get(stage.url("/rehearsal/v1/models"));
    let models = within(models.bearer_auth("main-token").send()).await;
    assert_eq!(models.expect("an answer").status(), 200);
    assert!(!over.is_finished());
    stage.stop.take().expect("running").send(()).expect("heard");
    let told = within(over).await.expect("no panic");
    assert!(told.is_err() || told.is_ok_and(|told| told.status() == 503));
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_made_anew() {
    let remembering = Remembering::new();
    let file = remembering.file();
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(&file, "[{\"client\": 1}]").expect("written");
    remembering.session(TYPED, "you help").await;
    // A session that begins in the same way changes nothing.
    let before = written(&file);
    remembering.session(TYPED, "you help").await;
    assert_eq!(written(&file), before);
}

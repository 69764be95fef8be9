//! `--connect URL`: the engine goes away while a request is under way, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use crate::connect_url::{Other, stage, usual};
use crate::support::{HANG, Stage, finish, signal};

const MODELS: &str = r#"{"data":[{"id":"m","max_model_len":65536}]}"#;

/// An engine that answers nothing but the questions before a session, until the flag says that it is back.
fn leaving(is_back: &Arc<AtomicBool>) -> Other {
    let is_back = is_back.clone();
    let has_left = AtomicBool::new(false);
    Other::new(move |request| {
        let message = request.starts_with("POST /v1/messages HTTP") && !request.ends_with("{}");
        if message {
            has_left.store(true, Ordering::SeqCst);
        }
        let is_there = is_back.load(Ordering::SeqCst) || !has_left.load(Ordering::SeqCst);
        is_there.then(|| usual(request, MODELS))
    })
}

/// Waits until this is in the file.
fn wait_for(stage: &Stage, file: &str, text: &str) {
    let since = std::time::Instant::now();
    while !stage.read(file).contains(text) {
        assert!(since.elapsed() < HANG, "no “{text}”: {}", stage.read(file));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_request_waits_for_an_engine_that_is_away_and_the_person_is_told() {
    let stage = stage();
    let is_back = Arc::new(AtomicBool::new(false));
    let other = leaving(&is_back);
    let said = std::fs::File::create(stage.path("said")).expect("made");
    let mut session = stage
        .command(&["--connect", &other.url(), "--", "-p", "hello"])
        .stderr(said)
        .spawn()
        .expect("started");
    let away = format!("note: engine at 127.0.0.1:{} away since ", other.port);
    wait_for(&stage, "said", &away);
    let settings: serde_json::Value =
        serde_json::from_str(&stage.read("client/settings.json")).expect("JSON");
    let command = settings["statusLine"]["command"].as_str().expect("a line");
    let line = || {
        let shown = std::process::Command::new("sh")
            .args(["-c", command])
            .output();
        String::from_utf8(shown.expect("run").stdout).expect("text")
    };
    assert!(line().starts_with("engine at 127.0.0.1:"), "{}", line());
    wait_for(&stage, "client/stream", "event: ping");
    is_back.store(true, Ordering::SeqCst);
    assert!(session.wait().expect("waited").success());
    assert!(stage.read("client/stream").contains("a word"));
    let said = stage.read("said");
    assert!(said.contains("the engine is back"), "{said}");
    assert!(said.contains("1 turn · 10 tokens in"), "{said}");
}

#[test]
fn a_signal_ends_the_waiting() {
    let stage = stage();
    let other = leaving(&Arc::default());
    let session = stage.start(&["--connect", &other.url(), "--", "-p", "hello"]);
    wait_for(&stage, "client/stream", "event: ping");
    signal(&session, Signal::SIGTERM);
    assert_eq!(finish(session).status, 143);
    stage.assert_nothing_left();
}

#[test]
fn who_does_not_want_to_wait_is_told_at_once() {
    let stage = stage();
    let other = leaving(&Arc::default());
    let ran = stage.run(&["--connect", &other.url(), "--wait", "0", "--", "-p", "x"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let stream = stage.read("client/stream");
    let away = format!("engine at 127.0.0.1:{} away since ", other.port);
    assert!(stream.contains(&away), "{stream}");
    assert!(stream.contains("x-should-retry: false"), "{stream}");
}

#[test]
fn an_engine_that_loads_its_model_is_waited_for() {
    let stage = stage();
    let asked = AtomicUsize::new(0);
    let other = Other::new(move |request| {
        let loading =
            r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
        Some(match asked.fetch_add(1, Ordering::SeqCst) {
            0 => (503, loading.to_owned()),
            _ => usual(request, MODELS),
        })
    });
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let waiting = "is not ready yet (status 503: Loading model)";
    assert!(ran.stderr.contains(waiting), "{}", ran.stderr);
}

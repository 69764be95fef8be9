//! Requests before the engine is asked: PDFs, pictures, and calls that are made again and again.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fake::{Fake, answer, json_reply};
use super::{Stage, question, rest, until, within};
use crate::gateway::anthropic::Pictures;
use crate::gateway::metrics::Ended;

/// A reader of PDFs that runs these lines of a shell. It is written by a process of its own: a file that is open for writing, in a process that another
/// test starts at this moment, cannot be run.
fn reader(folder: &Path, lines: &str) -> PathBuf {
    let path = folder.join("reader");
    let status = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 700 "$0""#,
        ])
        .arg(&path)
        .arg(lines)
        .status();
    assert!(status.expect("run").success());
    path
}

/// A question with a PDF that holds this.
fn about_a_pdf(data: &str) -> Value {
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": data});
    let mut body = question("", false);
    body["messages"][0]["content"] = json!([{"type": "document", "source": source}]);
    body
}

async fn asked(stage: &Stage, body: &Value) -> u16 {
    let sent = stage.post("/v1/messages", body).send();
    within(sent).await.expect("an answer").status().as_u16()
}

async fn replying() -> Fake {
    Fake::start(|_| answer("hello")).await
}

#[tokio::test]
async fn a_pdf_is_read_once_and_its_text_is_the_same_in_each_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = folder.path().join("runs");
    let lines = format!(
        "/bin/cat >/dev/null; echo x >>{}; echo 2; echo '\"One.\"'",
        runs.display()
    );
    let program = reader(folder.path(), &lines);
    let fake = replying().await;
    let stage = Stage::changed(fake.ready(), |settings| settings.pdf_reader = Some(program)).await;
    for _ in 0..2 {
        assert_eq!(asked(&stage, &about_a_pdf("abcd")).await, 200);
    }
    let expected = "[the text of a PDF of 2 pages]\\n[page 1]\\nOne.\\n[page 2 is left out]";
    assert_eq!(fake.said(), [expected, expected]);
    assert_eq!(std::fs::read_to_string(&runs).expect("read"), "x\n");
    assert_eq!(asked(&stage, &about_a_pdf("efgh")).await, 200);
    assert_eq!(std::fs::read_to_string(&runs).expect("read"), "x\nx\n");
}

#[tokio::test]
async fn a_pdf_that_keeps_its_reader_busy_keeps_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid = folder.path().join("pid");
    // The file is there only once all of it is.
    let lines = format!(
        "echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000",
        pid.display()
    );
    let program = reader(folder.path(), &lines);
    let fake = replying().await;
    let stage = Stage::changed(fake.ready(), |settings| settings.pdf_reader = Some(program)).await;
    let sent = stage.post("/v1/messages", &about_a_pdf("abcd")).send();
    let asking = tokio::spawn(sent);
    until(|| pid.exists()).await;
    assert_eq!(asked(&stage, &question("hi", false)).await, 200);
    assert_eq!(fake.said(), ["hi"]);
    // A client that goes away takes the reader with it.
    asking.abort();
    let number = std::fs::read_to_string(&pid).expect("read");
    let number = nix::unistd::Pid::from_raw(number.trim().parse().expect("a number"));
    until(|| nix::sys::signal::kill(number, None).is_err()).await;
}

#[tokio::test]
async fn a_reader_that_fails_or_is_missing_is_told_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    for (lines, words) in [
        ("exit 3", "takes too long"),
        ("exit 4", "needs a password"),
        ("exit 5", "is damaged"),
        ("echo 3; kill -9 $$", "is damaged"),
        (
            "echo 3; echo '\"One.\"'; kill -9 $$",
            "pages 2 to 3 are left out",
        ),
        ("echo nonsense", "is damaged"),
    ] {
        let program = reader(folder.path(), lines);
        let fake = replying().await;
        let stage =
            Stage::changed(fake.ready(), |settings| settings.pdf_reader = Some(program)).await;
        assert_eq!(asked(&stage, &about_a_pdf("abcd")).await, 200);
        assert!(fake.said()[0].contains(words), "{lines}: {:?}", fake.said());
    }
    let fake = replying().await;
    let gone = Some("/there/is/none".into());
    let stage = Stage::changed(fake.ready(), |settings| settings.pdf_reader = gone).await;
    assert_eq!(asked(&stage, &about_a_pdf("abcd")).await, 200);
    assert!(fake.said()[0].contains("is damaged"));
}

/// A conversation that ends in the same call with the same result for this many times.
fn repeated(times: usize, stream: bool) -> Value {
    let mut body = question("go on", stream);
    let messages = body["messages"].as_array_mut().expect("messages");
    for number in 0..times {
        let id = number.to_string();
        messages.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "Bash", "input": {"command": "ls"}}]}));
        messages.push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "nothing"}]}));
    }
    body
}

#[tokio::test]
async fn the_same_call_for_ever_ends_the_turn_without_the_engine() {
    let fake = Fake::start(|_| answer("hello")).await;
    let stage = Stage::new(fake.ready()).await;
    let ask = async |times, stream| {
        let sent = stage.post("/v1/messages", &repeated(times, stream)).send();
        let response = within(sent).await.expect("an answer");
        assert_eq!(response.status(), 200);
        rest(response).await.0
    };
    assert!(ask(4, true).await.contains("hello"));
    let last = fake.seen()[0].body["messages"].to_string();
    assert!(last.contains("made four times"), "{last}");
    let words = "The model called the tool Bash five times with the same result";
    let stream = ask(5, true).await;
    assert!(stream.contains(words), "{stream}");
    assert!(stream.contains(r#""stop_reason":"end_turn""#), "{stream}");
    assert!(stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    let plain: Value = serde_json::from_str(&ask(5, false).await).expect("JSON");
    assert_eq!(plain["stop_reason"], "end_turn");
    assert_eq!(plain["model"], "asked");
    let text = plain["content"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with(words));
    assert!(!stream.contains(plain["id"].as_str().expect("an id")));
    assert_eq!(fake.seen().len(), 1);
    let ends = stage.metrics.recent();
    assert!(ends.iter().all(|figure| figure.ended == Ended::Answered));
}

#[tokio::test]
async fn a_prompt_with_pictures_is_counted_however_short_it_is() {
    let gif = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    for (pictures, paths) in [
        (Pictures::Words, &["/v1/messages"][..]),
        (
            Pictures::Shown,
            &["/v1/messages/count_tokens", "/v1/messages"],
        ),
    ] {
        let fake = Fake::start(|seen| match seen.path.as_str() {
            "/v1/messages" => answer("hello"),
            _ => json_reply(200, &json!({"input_tokens": 300})),
        })
        .await;
        let change = |settings: &mut crate::gateway::Settings| settings.served.pictures = pictures;
        let stage = Stage::changed(fake.ready(), change).await;
        let mut body = question("", true);
        body["messages"][0]["content"] = json!([{"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": gif}}]);
        assert_eq!(asked(&stage, &body).await, 200);
        let seen = fake.seen();
        let seen: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
        assert_eq!(seen, paths);
    }
}

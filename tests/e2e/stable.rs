//! What the engine is sent stays the same where it can: from session to session, folder to folder, turn to turn. Only then can it use again what
//! it has computed. Recorded behind the gateway, in the order in which templates render it: system prompt and tools, then the messages.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::interactive;
use crate::real;
use crate::scripted_server::{Reply, ScriptedServer};
use crate::support::Stage;

/// The stage's folders: two plain ones, and a repository with instructions.
const PLAIN: &str = "work";
const ELSEWHERE: &str = "elsewhere/below";
const REPOSITORY: &str = "repository";

fn stage(client: &Path) -> Stage {
    let mut stage = Stage::bare();
    stage
        .set("CCLOCAL_ENGINE", "/there/is/none")
        .set("CCLOCAL_CLAUDE", client.display().to_string())
        .set("TZ", "UTC");
    for folder in [ELSEWHERE, REPOSITORY] {
        std::fs::create_dir_all(stage.path(folder)).expect("made");
    }
    stage.write(
        &format!("{REPOSITORY}/CLAUDE.md"),
        "Names are in full words.",
    );
    for args in [
        &["init", "-q"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "commit",
            "-q",
            "-m",
            "first",
        ],
    ] {
        let done = Command::new("git")
            .args(args)
            .current_dir(stage.path(REPOSITORY))
            .env_clear()
            .envs(stage.env())
            .status();
        assert!(done.expect("git").success());
    }
    stage
}

fn connect(server: &ScriptedServer) -> String {
    format!(
        "--connect {} --model a/model --ctx 65536 --no-ask",
        server.url()
    )
}

/// The conversation's first request, in print mode. `zone`: the time zone.
fn printed(stage: &Stage, folder: &str, zone: &str) -> Value {
    let server = ScriptedServer::saying("Done.");
    let arguments = connect(&server);
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.extend(["--", "-p", "Say hello"]);
    let ran = stage
        .command(&arguments)
        .current_dir(stage.path(folder))
        .env("TZ", zone)
        .output()
        .expect("run");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    conversation(&server).swap_remove(0)
}

/// The same on a terminal.
fn on_a_terminal(stage: &Stage, folder: &str) -> Value {
    let server = ScriptedServer::saying("It is done.");
    let screen = interactive::start_in(stage, folder, &connect(&server));
    screen.line("Say hello");
    screen.wait_for("It is done.");
    interactive::leave(&screen);
    conversation(&server).swap_remove(0)
}

/// The requests of the conversation itself; others, such as one for a title, come without tools.
fn conversation(server: &ScriptedServer) -> Vec<Value> {
    let bodies = server.messages().into_iter().map(|request| request.json());
    bodies
        .filter(|body| {
            body["tools"]
                .as_array()
                .is_some_and(|tools| !tools.is_empty())
        })
        .map(without_marks)
        .collect()
}

/// Without the marks of what the API is to keep: no template renders them.
fn without_marks(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| name != "cache_control");
            fields
                .values_mut()
                .for_each(|field| *field = without_marks(field.take()));
        }
        Value::Array(items) => {
            items
                .iter_mut()
                .for_each(|item| *item = without_marks(item.take()));
        }
        _ => {}
    }
    value
}

/// What stands in front of the messages, and the messages, as text in the order of a template.
fn rendered(body: &Value) -> (String, String) {
    let front = format!("{}{}", body["system"], body["tools"]);
    (front, body["messages"].to_string())
}

fn common(one: &str, other: &str) -> usize {
    one.bytes()
        .zip(other.bytes())
        .take_while(|(one, other)| one == other)
        .count()
}

/// A time zone in which it is another day than in UTC.
fn another_day() -> &'static str {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    match seconds / 3_600 % 24 {
        0..12 => "Etc/GMT+12",
        _ => "Etc/GMT-14",
    }
}

/// The text with the folder's name and its form as a file name replaced.
fn without_folder(stage: &Stage, folder: &str, text: &str) -> String {
    let path = stage.path(folder).display().to_string();
    let flat = path.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    text.replace(&path, "[FOLDER]").replace(&flat, "[FOLDER]")
}

/// A table for `docs/performance.md`, shown with `--nocapture`.
fn show(client: &Path, how: &str, base: &Value, others: &[(&str, &Value)]) {
    let (front, messages) = rendered(base);
    let client: PathBuf = client.components().rev().skip(4).take(1).collect();
    for (what, other) in others {
        let (other_front, other_messages) = rendered(other);
        let mut length = common(&front, &other_front);
        if length == front.len() {
            length += common(&messages, &other_messages);
        }
        println!(
            "| {} | {how} | {what} | {} | {} | {length} |",
            client.display(),
            front.len(),
            messages.len(),
        );
    }
}

fn assert_stable(stage: &Stage, base: &Value, others: &[(&str, &Value)]) {
    let (front, messages) = rendered(base);
    assert!(front.len() > 10_000, "{front}");
    for (what, other) in others {
        let (other_front, other_messages) = rendered(other);
        let at = common(&front, &other_front);
        assert!(
            front == other_front,
            "{what}: {:.200} … {:.200}",
            &front[at..],
            &other_front[at..]
        );
        let changed = messages != other_messages;
        assert_eq!(changed, *what != "the same folder again", "{what}");
    }
    let elsewhere = others
        .iter()
        .find(|(what, _)| *what == "another folder")
        .expect("it was asked for");
    assert_eq!(
        without_folder(stage, PLAIN, &messages),
        without_folder(stage, ELSEWHERE, &rendered(elsewhere.1).1)
    );
}

#[test]
fn what_stands_in_front_is_the_same_in_every_session_and_folder() {
    for client in [real::client(), real::old_client()] {
        let stage = stage(&client);
        let base = printed(&stage, PLAIN, "UTC");
        let others = [
            ("the same folder again", &printed(&stage, PLAIN, "UTC")),
            ("another folder", &printed(&stage, ELSEWHERE, "UTC")),
            ("a repository", &printed(&stage, REPOSITORY, "UTC")),
            ("another day", &printed(&stage, PLAIN, another_day())),
        ];
        show(&client, "`-p`", &base, &others);
        assert_stable(&stage, &base, &others);

        let base = on_a_terminal(&stage, PLAIN);
        let others = [
            ("the same folder again", &on_a_terminal(&stage, PLAIN)),
            ("another folder", &on_a_terminal(&stage, ELSEWHERE)),
            ("a repository", &on_a_terminal(&stage, REPOSITORY)),
        ];
        show(&client, "terminal", &base, &others);
        assert_stable(&stage, &base, &others);
    }
}

/// A file that changes behind the client's back makes it send a reminder in the middle of the loop.
#[test]
fn a_turn_begins_with_the_one_before() {
    for client in [real::client(), real::old_client()] {
        let stage = stage(&client);
        let file = stage.path("work/notes.txt").display().to_string();
        let server = ScriptedServer::start(move |request| {
            let call = |name, input| Reply::Tool {
                id: format!("toolu_{}", request.tool_results()),
                name,
                input,
            };
            match request.tool_results() {
                0 => call("Write", json!({"file_path": file, "content": "one\n"})),
                1 => call(
                    "Bash",
                    json!({"command": format!("echo two >> {file}"), "description": "Adds a line"}),
                ),
                2 => call("Read", json!({"file_path": file})),
                _ => Reply::Text("It is done.".into()),
            }
        });
        let screen = interactive::start_in(&stage, PLAIN, &connect(&server));
        screen.line("Take notes");
        screen.wait_for("It is done.");
        screen.line("And once more");
        screen.wait_until("a second answer", |text| {
            text.matches("It is done.").count() == 2
        });
        interactive::leave(&screen);

        let requests = conversation(&server);
        assert_eq!(requests.len(), 5);
        for pair in requests.windows(2) {
            let [before, after] = pair else {
                unreachable!("windows of two")
            };
            assert_eq!(rendered(before).0, rendered(after).0);
            let (before, after) = (
                before["messages"].as_array().expect("messages"),
                after["messages"].as_array().expect("messages"),
            );
            assert!(after.len() > before.len());
            assert_eq!(after[..before.len()], before[..]);
        }
        let last = requests[4]["messages"].as_array().expect("messages");
        let reminded = last.iter().any(|message| {
            message["content"][0]["type"] == "tool_result"
                && message["content"].to_string().contains("notes.txt")
                && message["content"].to_string().contains("<system-reminder>")
        });
        assert!(reminded, "no reminder came: {last:#?}");
        let questions = last.iter().filter(|message| {
            message["role"] == "user" && message["content"][0]["type"] != "tool_result"
        });
        assert_eq!(questions.count(), 2, "{last:#?}");
    }
}

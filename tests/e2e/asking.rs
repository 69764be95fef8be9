//! Questions before tools run: asked, or not, as was chosen, and as the client's footer says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::interactive::{leave, start_in};
use crate::real;
use crate::screen::Screen;
use crate::scripted_server::{Reply, Request, ScriptedServer};
use crate::support::Stage;

/// What the model does about a word in the prompt.
const TASKS: [(&str, &str); 3] = [
    ("please write", "Write"),
    ("please run", "sh -c 'touch ran.txt'"),
    ("please remove", "rm hello.txt"),
];

/// A model that calls a tool once for each prompt, and then says that it is finished.
fn model(stage: &Stage) -> ScriptedServer {
    let file = stage.path("work/hello.txt").display().to_string();
    let calls = AtomicUsize::new(0);
    ScriptedServer::with_window(65_536, move |request| {
        let body = request.json();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let mut task = None;
        for block in messages
            .iter()
            .flat_map(|message| match &message["content"] {
                Value::String(text) => vec![json!({"type": "text", "text": text})],
                content => content.as_array().cloned().unwrap_or_default(),
            })
        {
            let text = block["text"].as_str().unwrap_or_default();
            match TASKS.iter().find(|(word, _)| text.starts_with(word)) {
                Some((_, tool)) => task = Some(*tool),
                None if block["type"] == "tool_result" => task = None,
                None => {}
            }
        }
        let id = format!("toolu_{}", calls.fetch_add(1, Ordering::Relaxed));
        match task {
            None => Reply::Text("All finished".into()),
            Some("Write") => Reply::Tool {
                id,
                name: "Write",
                input: json!({"file_path": file, "content": "hello\n"}),
            },
            Some(command) => Reply::Tool {
                id,
                name: "Bash",
                input: json!({"command": command, "description": "a test"}),
            },
        }
    })
}

fn stage(client: &std::path::Path, settings: &Value) -> Stage {
    let stage = real::stage(client);
    fs_err::create_dir_all(stage.path("home/.claude")).expect("made");
    fs_err::write(
        stage.path("home/.claude/settings.json"),
        settings.to_string(),
    )
    .expect("written");
    stage
}

/// Answers a question with a key. The client takes none for about a second after it has painted one.
fn answer(screen: &Screen, question: &str, key: &str) {
    screen.wait_for(question);
    let mut pressed = Instant::now();
    screen.wait_until("the question gone", |text| {
        let open = text.contains(question);
        if open && pressed.elapsed() > Duration::from_secs(2) {
            screen.key(key);
            pressed = Instant::now();
        }
        !open
    });
    screen.wait_until("the prompt", |text| {
        text.lines().any(|line| line.trim() == "❯")
    });
}

/// Refuses the call that is asked about.
fn refuse(screen: &Screen, question: &str) {
    answer(screen, question, "Escape");
}

/// Nothing but the conversation, and the old client's title for it, was asked of the model: no check of a call.
fn assert_no_checks(server: &ScriptedServer) {
    let messages = server.requests().into_iter().filter(Request::is_message);
    for request in messages {
        let text = request.text();
        let title = text.contains("Generate a concise, sentence-case title");
        let tools = request.json()["tools"].to_string();
        assert!(title || tools.contains("\"Bash\""), "{text}");
    }
}

#[test]
fn a_session_on_anothers_engine_asks_and_no_means_no() {
    for client in [real::client(), real::old_client()] {
        let stage = stage(&client, &json!({}));
        let server = model(&stage);
        let screen = start_in(&stage, "work", &format!("--connect {}", server.url()));
        assert!(!screen.text().contains("accept edits on"));
        assert!(!screen.text().contains("auto mode on"));
        screen.line("please write");
        refuse(&screen, "Do you want to create hello.txt?");
        screen.line("please run");
        refuse(&screen, "Do you want to proceed?");
        assert!(!stage.path("work/hello.txt").exists());
        assert!(!stage.path("work/ran.txt").exists());
        // The person's own choice: edits, and no more than that.
        screen.key("BTab");
        screen.wait_for("accept edits on");
        screen.line("please write");
        screen.wait_for("All finished");
        assert_eq!(stage.read("work/hello.txt"), "hello\n");
        leave(&screen);
        assert_no_checks(&server);
    }
}

#[test]
fn a_session_that_does_not_ask_runs_tools_until_the_person_wants_to_be_asked() {
    for client in [real::client(), real::old_client()] {
        let rules = json!({"permissions": {"ask": ["Bash(rm *)"], "deny": ["WebFetch"]}});
        let stage = stage(&client, &rules);
        let server = model(&stage);
        let arguments = format!("--connect {} --no-ask", server.url());
        let screen = start_in(&stage, "work", &arguments);
        screen.wait_for("accept edits on");
        screen.line("please run");
        screen.wait_for("All finished");
        assert!(stage.path("work/ran.txt").exists());
        // A rule of theirs asks all the same.
        screen.line("please remove");
        refuse(&screen, "Do you want to proceed?");
        // In manual mode everything is asked, as the footer says.
        screen.key("BTab");
        screen.wait_for("plan mode on");
        screen.key("BTab");
        screen.wait_until("manual mode", |text| !text.contains("plan mode on"));
        assert!(!screen.text().contains("auto mode on"));
        screen.line("please write");
        screen.wait_for("Do you want to create hello.txt?");
        assert!(!stage.path("work/hello.txt").exists());
        // Edits are accepted from here on, and nothing else is.
        answer(&screen, "Do you want to create hello.txt?", "2");
        screen.wait_for("accept edits on");
        screen.wait_until("the file", |_| {
            fs_err::read_to_string(stage.path("work/hello.txt")).is_ok_and(|text| text == "hello\n")
        });
        fs_err::remove_file(stage.path("work/ran.txt")).expect("removed");
        screen.line("please run");
        refuse(&screen, "Do you want to proceed?");
        assert!(!stage.path("work/ran.txt").exists());
        leave(&screen);
        assert_no_checks(&server);
    }
}

#[test]
fn print_mode_refuses_what_would_be_asked_and_says_so() {
    const SAID: &str = "in print mode nobody can be asked";
    for client in [real::client(), real::old_client()] {
        let stage = stage(&client, &json!({"permissions": {"ask": ["Bash"]}}));
        let server = model(&stage);
        let url = server.url();
        let run = |options: &[&str], prompt: &str, more: &[&str]| {
            let connect = ["--connect", &url];
            let print = ["--", "-p", prompt, "--output-format", "json"];
            let ran = stage.run(&[&connect, options, &print, more].concat());
            assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
            let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
            let refused = answer["permission_denials"].as_array().map_or(0, Vec::len);
            (refused, ran.stderr)
        };
        let written = || stage.path("work/hello.txt").exists();

        let (refused, said) = run(&[], "please write", &[]);
        assert!(refused == 1 && said.contains(SAID) && !written(), "{said}");
        // The client's own mode stands above ours.
        let mode = ["--permission-mode", "default"];
        let (refused, _) = run(&["--no-ask"], "please write", &mode);
        assert!(refused == 1 && !written());
        // Their tools are the only ones.
        let tools = ["--tools", "Read,Write"];
        let (refused, said) = run(&["--no-ask"], "please write", &tools);
        assert!(refused == 0 && written(), "{said}");
        let last = server.requests().into_iter().rfind(Request::is_message);
        let tools = last.expect("a message").json()["tools"].clone();
        assert_eq!(tools.as_array().map(Vec::len), Some(2), "{tools}");
        assert!(!said.contains(SAID), "{said}");
        assert!(said.contains("run without asking"), "{said}");
        // A rule of theirs still asks, and the note is shown once.
        let (refused, said) = run(&["--no-ask"], "please run", &[]);
        assert!(refused == 1 && !stage.path("work/ran.txt").exists());
        assert!(!said.contains("run without asking"), "{said}");
    }
}

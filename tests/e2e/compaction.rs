//! The point at which the real client compacts: as late as the window allows, and a long task goes on, however small the window is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cclocal::memory::{ContextWindow, OUTPUTS, smallest_window};
use serde_json::{Value, json};

use crate::real;
use crate::scripted_server::{BYTES_PER_TOKEN, Reply, Request, ScriptedServer};

/// What the request for a summary adds to a prompt, in tokens.
const SUMMARY_REQUEST: u64 = 2_200;

/// A request as it reached the engine: prompt and longest reply in tokens.
#[derive(Debug)]
struct Prompt {
    tokens: u64,
    longest_reply: u64,
    is_summary: bool,
}

impl Prompt {
    fn of(request: &Request) -> Self {
        Self {
            tokens: (request.body.len() / BYTES_PER_TOKEN) as u64,
            longest_reply: request.json()["max_tokens"].as_u64().expect("a limit"),
            is_summary: is_summary(request),
        }
    }
}

fn last_words(request: &Request) -> String {
    let body = request.json();
    let messages = body["messages"].as_array().expect("messages");
    messages.last().map(Value::to_string).unwrap_or_default()
}

fn is_summary(request: &Request) -> bool {
    last_words(request).contains("detailed summary of")
}

/// A task: files to read, one after the other.
struct Task {
    files: usize,
    tokens_each: usize,
}

/// What came of it.
struct Done {
    prompts: Vec<Prompt>,
    /// The client's own log.
    log: String,
}

/// The task in a window, with an engine that counts as the client does. It is finished, and every prompt left room for its reply.
fn read_all(client: &Path, window: ContextWindow, task: &Task) -> Done {
    let mut stage = real::stage(client);
    let line = "a line of text that is as long as others of its kind\n";
    let file = line.repeat(task.tokens_each * BYTES_PER_TOKEN / line.len());
    let paths: Vec<String> = (0..task.files)
        .map(|number| {
            let path = stage.write(&format!("work/file{number}.txt"), &file);
            path.display().to_string()
        })
        .collect();
    let next = AtomicUsize::new(0);
    let server = ScriptedServer::with_window(window.tokens, move |request| {
        if is_summary(request) {
            return Reply::Text("<summary>Files were read.</summary>".into());
        }
        if !request.text().contains("\"name\":\"Read\"") {
            return Reply::Text("ok".into());
        }
        let number = next.fetch_add(1, Ordering::SeqCst);
        match paths.get(number) {
            None => Reply::Text("All is read.".into()),
            Some(path) => Reply::Tool {
                id: format!("toolu_{number}"),
                name: "Read",
                input: json!({"file_path": path}),
            },
        }
    });
    stage.set("CCLOCAL_ENGINE", "/there/is/none");
    let (url, output) = (server.url(), window.output.to_string());
    let log = stage.path("debug.log").display().to_string();
    let ran = stage.run(&[
        "--connect",
        &url,
        "--out-tokens",
        &output,
        "--",
        "-p",
        "Read all files.",
        "--debug-file",
        &log,
    ]);
    let prompts: Vec<Prompt> = server.messages().iter().map(Prompt::of).collect();
    println!("{window:?}: {prompts:?}");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("All is read."), "{}", ran.stdout);
    for prompt in &prompts {
        assert!(
            prompt.tokens + prompt.longest_reply <= window.tokens,
            "{prompt:?}"
        );
    }
    let log = stage.read("debug.log");
    Done { prompts, log }
}

#[test]
fn a_long_task_is_finished_in_the_smallest_window() {
    let output = OUTPUTS[1];
    let window = ContextWindow {
        tokens: smallest_window(output),
        output,
    };
    // The files that were read last are shown again behind a summary: all of them would be most of the window.
    let task = Task {
        files: 30,
        tokens_each: 1_500,
    };
    for client in [real::client(), real::old_client()] {
        let done = read_all(&client, window, &task);
        let summaries = done.prompts.iter().filter(|prompt| prompt.is_summary);
        assert!(summaries.count() > 1);
    }
}

#[test]
fn compaction_begins_as_late_as_it_can() {
    let [usual, short] = OUTPUTS;
    for (tokens, output) in [
        (smallest_window(short), short),
        (65_536, usual),
        (200_000, usual),
    ] {
        let window = ContextWindow { tokens, output };
        let task = Task {
            files: 16,
            tokens_each: usize::try_from(tokens / 16).expect("small"),
        };
        let Done { prompts, log } = read_all(&real::client(), window, &task);
        // So the client takes no more off the window that it is told than is known here.
        let effective = format!("effectiveWindow={}", window.told() - output);
        assert!(log.contains(&effective), "{effective}");
        let compacted = prompts.windows(3).find(|three| three[2].is_summary);
        let [before, last, _] = compacted.expect("a compaction") else {
            unreachable!("three at a time");
        };
        let turn = last.tokens - before.tokens;
        let latest = tokens - output - SUMMARY_REQUEST;
        assert!((last.tokens + turn) * 100 >= latest * 95, "{last:?}");
    }
}

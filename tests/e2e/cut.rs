//! What the real client makes of replies that are cut, break off or are refused, in the form that the gateway gives them.

use std::sync::atomic::{AtomicUsize, Ordering};

use cclocal::catalog::Form;
use cclocal::gateway::anthropic::{self, ApiError, Pictures, Request, Served, Streamed};
use serde_json::json;

use crate::scripted_server::{self, Reply, ScriptedServer};
use crate::world::{Guard, World, clients};

/// A reply that `qwen3_coder` closed after it was cut: a call of Write without input.
const CUT: &[u8] = include_bytes!("../fixtures/streams/qwen3_coder-argument-untold.sse");

#[test]
fn after_a_cut_call_the_model_tries_again() {
    for (version, client) in clients() {
        let world = world(vec![
            Reply::Events(repaired(CUT)),
            write_file("a", "hello.txt", "hello\n"),
        ]);
        let outcome = world.run(&client, Guard::Whole, &["-p", "write the file"]);
        assert!(outcome.success, "{version}: {}", outcome.output);
        assert_eq!(written(&world, "hello.txt"), "hello\n", "{version}");
        let second = conversation(&world.ours, 1);
        assert!(
            second.contains("limit of 25 tokens inside a call of the tool Write"),
            "{version}: {second}"
        );
        assert!(
            second.contains("Output token limit hit"),
            "{version}: {second}"
        );
        assert!(!second.contains("tool_use"), "{version}: {second}");
    }
}

#[test]
fn a_reply_that_breaks_off_is_asked_for_again() {
    let text = String::from_utf8_lossy(CUT);
    for part in ["event: content_block_stop", "event: message_delta"] {
        let end = text.find(part).expect("the event");
        for (version, client) in clients() {
            let world = world(vec![
                Reply::Events(repaired(&CUT[..end])),
                write_file("a", "hello.txt", "hello\n"),
            ]);
            let outcome = world.run(&client, Guard::Whole, &["-p", "write the file"]);
            assert!(outcome.success, "{version} {part}: {}", outcome.output);
            assert_eq!(written(&world, "hello.txt"), "hello\n", "{version} {part}");
            assert_eq!(
                conversation(&world.ours, 0),
                conversation(&world.ours, 1),
                "{version} {part}: the same is asked again"
            );
        }
    }
}

#[test]
fn a_prompt_that_is_too_long_is_compacted() {
    for (version, client) in clients() {
        let world = world(vec![
            write_file("a", "a.txt", &"a lot ".repeat(200)),
            write_file("b", "b.txt", &"a lot ".repeat(200)),
            write_file("c", "c.txt", &"a lot ".repeat(200)),
            Reply::Refused(ApiError::prompt_too_long(33_000, 32_768)),
            Reply::Text("<summary>Three files are written.</summary>".into()),
            write_file("d", "d.txt", "hello\n"),
        ]);
        let outcome = world.run(&client, Guard::Whole, &["-p", "write the files"]);
        assert!(outcome.success, "{version}: {}", outcome.output);
        assert_eq!(written(&world, "d.txt"), "hello\n", "{version}");
        let after = conversation(&world.ours, 5);
        assert!(
            after.contains("Three files are written."),
            "{version}: {after}"
        );
        assert!(
            !after.contains(r#""id":"a""#),
            "{version}: the calls are gone"
        );
    }
}

/// A world whose model gives these answers, and then says that it is done.
fn world(replies: Vec<Reply>) -> World {
    let next = AtomicUsize::new(0);
    World::new(move |request: &scripted_server::Request| {
        if request.json()["tools"].as_array().is_none_or(Vec::is_empty) {
            return Reply::Text("A title".into());
        }
        let number = next.fetch_add(1, Ordering::SeqCst);
        replies
            .get(number)
            .cloned()
            .unwrap_or_else(|| Reply::Text("Done.".into()))
    })
}

fn write_file(id: &str, name: &str, content: &str) -> Reply {
    Reply::Tool {
        id: id.into(),
        name: "Write",
        input: json!({"file_path": name, "content": content}),
    }
}

fn written(world: &World, name: &str) -> String {
    fs_err::read_to_string(world.path("project").join(name)).unwrap_or_default()
}

/// The conversation in a request of the main loop, as text.
fn conversation(server: &ScriptedServer, number: usize) -> String {
    let with_tools: Vec<_> = server
        .messages()
        .into_iter()
        .map(|request| request.json())
        .filter(|body| {
            body["tools"]
                .as_array()
                .is_some_and(|tools| !tools.is_empty())
        })
        .collect();
    with_tools[number]["messages"].to_string()
}

fn repaired(stream: &[u8]) -> Vec<u8> {
    let mut request = Request::default();
    request.asked_model = "asked".into();
    request.stream = true;
    request.max_tokens = 25;
    let served = Served {
        name: "m".into(),
        window: cclocal::memory::ContextWindow {
            tokens: 32_768,
            output: 25,
        },
        form: Some(Form::Hermes),
        shows_thoughts: false,
        may_think: false,
        prose_calls: false,
        pictures: Pictures::Words,
    };
    let mut repair = Streamed::new(&request, &served, Some(250));
    let mut out = repair.push(stream);
    out.extend(repair.finish());
    anthropic::sse_bytes(&out)
}

//! Calls that the model makes, and no other: the real client and the real engine, with a model that says exactly what a test gives it.

use crate::chain::{Chain, DIALECTS, Dialect};
use crate::real::{self, free_port};
use crate::support::{Ran, Stage};

/// Runs a prompt in print mode against a model that gives these replies, one after the other.
fn run(stage: &Stage, dialect: Dialect, replies: &[String]) -> Ran {
    let model = model(stage, dialect, replies);
    run_model(stage, dialect, &model)
}

/// Writes a model that gives these replies, one after the other.
fn model(stage: &Stage, dialect: Dialect, replies: &[String]) -> String {
    let model = Chain {
        replies,
        piece: 4,
        ..Chain::default()
    };
    model.write(stage, dialect)
}

fn run_model(stage: &Stage, dialect: Dialect, model: &str) -> Ran {
    let port = free_port();
    let ran = stage.run(&[
        "--model",
        model,
        "--port",
        &port,
        "--linger",
        "0",
        "--",
        "-p",
        "Do what is to be done",
        "--output-format",
        "stream-json",
        "--verbose",
    ]);
    assert_eq!(ran.status, 0, "{dialect:?}: {}{}", ran.stdout, ran.stderr);
    ran
}

/// What the session ended with.
fn result(ran: &Ran) -> String {
    let last = ran.stdout.lines().last().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    last["result"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_file_about_tool_calls_is_written_whole() {
    for dialect in DIALECTS {
        let stage = real::stage(&real::client());
        let file = stage.path("work/calls.md").display().to_string();
        let example = dialect.call("Bash", &[("command", "touch was-run")]);
        let closing = match dialect {
            Dialect::Gemma4 => "<tool_call|>",
            _ => "</tool_call>",
        };
        let content = format!(
            "A call:\n{example}\nAnd again:\n{example}\nIt ends with {closing}, a thought with </think>.\n"
        );
        let call = dialect.call("Write", &[("file_path", &file), ("content", &content)]);
        run(&stage, dialect, &[call, "It is written.".into()]);
        assert_eq!(stage.read("work/calls.md"), content, "{dialect:?}");
        assert!(!stage.path("work/was-run").exists(), "{dialect:?}");
    }
}

#[test]
fn grep_is_called_with_its_hyphened_keys() {
    let stage = real::stage(&real::client());
    stage.write("work/a.txt", "one\ntwo\nTODO three\n");
    let folder = stage.path("work").display().to_string();
    let call = format!(
        "<|tool_call>call:Grep{{-n:true,output_mode:<|\"|>content<|\"|>,path:<|\"|>{folder}<|\"|>,pattern:<|\"|>TODO<|\"|>}}<tool_call|>"
    );
    let replies = [format!("Look: {call}"), "It is there.".into()];
    let ran = run(&stage, Dialect::Gemma4, &replies);
    assert!(ran.stdout.contains("3:TODO three"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\"text\":\"Look:\""), "{}", ran.stdout);
    assert_eq!(result(&ran), "It is there.");
}

#[test]
fn a_quoted_call_is_not_run() {
    for dialect in DIALECTS {
        let stage = real::stage(&real::client());
        let call = dialect.call("Bash", &[("command", "touch was-run")]);
        let json = r#"{"name": "Bash", "arguments": {"command": "touch was-run"}}"#;
        let line = call.replace('\n', " ");
        let reply = format!(
            "In JSON: {json}. By the way `{line}` is one, and so is this:\n\n```\n{call}\n```\n\nI have not run it."
        );
        let ran = run(&stage, dialect, std::slice::from_ref(&reply));
        assert_eq!(result(&ran), reply, "{dialect:?}");
        assert!(!stage.path("work/was-run").exists(), "{dialect:?}");
    }
}

#[test]
fn a_drafted_call_is_not_run() {
    for dialect in DIALECTS {
        let stage = real::stage(&real::client());
        let call = dialect.call("Bash", &[("command", "touch was-run")]);
        let (open, close) = match dialect {
            Dialect::Gemma4 => ("<|channel>thought\n", "<channel|>"),
            _ => ("<think>\n", "\n</think>\n\n"),
        };
        let reply = format!("{open}Maybe {call} but no.{close}I will not do that.");
        let ran = run(&stage, dialect, &[reply]);
        assert_eq!(result(&ran), "I will not do that.", "{dialect:?}");
        assert!(!stage.path("work/was-run").exists(), "{dialect:?}");
    }
}

#[test]
fn a_call_that_cannot_be_read_is_told_and_made_again() {
    for (dialect, broken) in [
        (
            Dialect::Hermes,
            "<tool_call>\nWrite the file, please\n</tool_call>",
        ),
        (
            Dialect::Qwen3Coder,
            "<tool_call>\n<function=Write>\nhello\n</function>\n</tool_call>",
        ),
        (
            Dialect::Glm47,
            "<tool_call>\n<arg_key>file_path</arg_key>\n</tool_call>",
        ),
        (
            Dialect::Gemma4,
            "<|tool_call>call:Write{file_path<tool_call|>",
        ),
    ] {
        // What the client is sent is the same in all dialects.
        let old = (dialect == Dialect::Hermes).then(real::old_client);
        for client in std::iter::once(real::client()).chain(old) {
            let stage = real::stage(&client);
            let file = stage.path("work/note.txt").display().to_string();
            let call = dialect.call("Write", &[("file_path", &file), ("content", "hello\n")]);
            let replies = [broken.to_owned(), call, "It is written.".into()];
            let ran = run(&stage, dialect, &replies);
            assert!(
                ran.stdout.contains("Nothing was done"),
                "{dialect:?}: {}",
                ran.stdout
            );
            assert_eq!(stage.read("work/note.txt"), "hello\n", "{dialect:?}");
            assert_eq!(result(&ran), "It is written.", "{dialect:?}");
        }
    }
}

/// A model whose template tells no known form is read as one that writes calls between `<tool_call>` and `</tool_call>`, in any of the ways there are.
#[test]
fn a_model_of_an_unknown_form_is_read_too() {
    let dialect = Dialect::Hermes;
    let stage = real::stage(&real::client());
    let file = |name: &str| stage.path(format!("work/{name}")).display().to_string();
    let write = |dialect: Dialect, name: &str| {
        dialect.call(
            "Write",
            &[("file_path", &file(name)), ("content", "hello\n")],
        )
    };
    let draft = dialect.call("Bash", &[("command", "touch was-run")]);
    let replies = [
        format!(
            "<think>\nMaybe {draft} or not.\n</think>\n\n{}",
            write(Dialect::Hermes, "a.txt")
        ),
        write(Dialect::Qwen3Coder, "b.txt"),
        write(Dialect::Glm47, "c.txt"),
        format!(
            "It is written. One makes a call with `{}`.",
            draft.replace('\n', " ")
        ),
    ];
    let model = model(&stage, dialect, &replies);
    // A mark of a form that cclocal doesn't read.
    let config = format!("{}/tokenizer_config.json", dialect.folder());
    let known = stage.read(&config);
    let unknown = known.replace("{%- set marks = '", "{%- set marks = '<tool_calls>");
    assert_ne!(known, unknown);
    stage.write(&config, &unknown);
    let ran = run_model(&stage, dialect, &model);
    assert!(
        ran.stderr.contains("unknown tool-call format"),
        "{}",
        ran.stderr
    );
    for name in ["a.txt", "b.txt", "c.txt"] {
        assert_eq!(stage.read(&format!("work/{name}")), "hello\n", "{name}");
    }
    assert_eq!(result(&ran), replies[3]);
    assert!(!stage.path("work/was-run").exists());
}

//! Chat templates, by the real engine and the real client: one that fails is said at once.

use crate::real::{self, free_port, launch};

/// A template that is as it should be for whoever only reads it, and cannot be rendered.
const FAILS: &str = r#"{% if tools %}<tool_call>{"name": "", "arguments": {}}</tool_call>{% endif %}{{ messages | no_such_filter }}"#;

/// One that fails at a certain word alone.
const FAILS_LATER: &str = r#"{% if tools %}<tool_call>{"name": "", "arguments": {}}</tool_call>{% endif %}{% if 'zebra' in messages | string %}{{ raise_exception('no zebras here') }}{% endif %}{{ messages | string }}"#;

/// How often the engine was asked for a message, by its log.
fn asked(log: &str) -> usize {
    log.matches("[REQUEST] POST /v1/messages").count()
}

#[test]
fn a_template_that_fails_ends_the_start() {
    let stage = real::stage(&real::client());
    stage.write("hermes-llama/chat_template.jinja", FAILS);
    let port = free_port();
    let ran = stage.run(&launch(
        &port,
        &["--", "-p", "x", "--output-format", "json"],
    ));
    assert_eq!(ran.status, 14, "{}\n{}", ran.stdout, ran.stderr);
    for words in [
        "the engine did not start",
        "the model's chat template fails",
        "No filter named 'no_such_filter'",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let log = stage.read(&format!("cclocal/state/server-{port}.log"));
    assert_eq!(asked(&log), 0, "{log}");
    stage.assert_nothing_left();
}

#[test]
fn a_template_that_fails_at_a_request_is_said_at_once() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        stage.write("hermes-llama/chat_template.jinja", FAILS_LATER);
        let port = free_port();
        // The client would try for three minutes; a run that hangs fails.
        let ran = stage.run(&launch(
            &port,
            &["--", "-p", "a zebra", "--output-format", "json"],
        ));
        assert_eq!(ran.status, 1, "{}\n{}", ran.stdout, ran.stderr);
        assert!(
            ran.stdout.contains("no zebras here"),
            "{}\n{}",
            ran.stdout,
            ran.stderr
        );
        let log = stage.read(&format!("cclocal/state/server-{port}.log"));
        assert!((1..=4).contains(&asked(&log)), "{} times", asked(&log));
        stage.assert_nothing_left();
    }
}

//! `--connect URL`: the window of an engine that somebody else runs, as it tells it, or as the person does.

use crate::connect_url::{Other, stage, usual, var};
use crate::fakes;
use crate::support::Stage;
use crate::support::terminal::Terminal;

/// A server that answers these paths with these bodies, and the rest as usual.
fn server(models: &'static str, more: &'static [(&'static str, &'static str)]) -> Other {
    Other::new(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let more = more.iter().find(|(at, _)| *at == path);
        Some(match more {
            Some((_, body)) => (200, (*body).to_owned()),
            None => usual(request, models),
        })
    })
}

/// The window for which Claude Code was started, in tokens.
fn window(stage: &Stage) -> String {
    fakes::real_window(&var(stage, "CLAUDE_CODE_MAX_CONTEXT_TOKENS"))
}

const NAMELESS: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

#[test]
fn each_server_tells_its_window_in_its_own_form() {
    let stage = stage();
    for (models, more, tokens) in [
        (
            r#"{"data":[{"id":"m","owned_by":"vllm","max_model_len":40960}]}"#,
            &[][..],
            "40960",
        ),
        (
            r#"{"models":[],"data":[{"id":"m","owned_by":"llamacpp","meta":{"n_ctx":24576,"n_ctx_train":262144}}]}"#,
            &[],
            "24576",
        ),
        // An older one tells it at another address.
        (
            r#"{"data":[{"id":"m","owned_by":"llamacpp","meta":{"n_ctx_train":262144}}]}"#,
            &[(
                "/props",
                r#"{"default_generation_settings":{"n_ctx":49152},"total_slots":4}"#,
            )],
            "49152",
        ),
        (
            r#"{"data":[{"id":"m","metadata":{"max_request_context_length":65536}}]}"#,
            &[],
            "65536",
        ),
        (
            NAMELESS,
            &[(
                "/model/info",
                r#"{"data":[{"model_name":"o","model_info":{"max_input_tokens":1}},{"model_name":"m","model_info":{"max_input_tokens":57344}}]}"#,
            )],
            "57344",
        ),
        // Neither a page of a web server nor another model's window is an answer.
        (
            NAMELESS,
            &[("/props", "<html></html>"), ("/model/info", "{}")],
            "32768",
        ),
    ] {
        let other = server(models, more);
        let ran = stage.run(&["--connect", &other.url()]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(window(&stage), tokens, "{models}");
        let guessed = ran.stderr.contains("does not report its window");
        assert_eq!(guessed, tokens == "32768", "{}", ran.stderr);
    }
}

#[test]
fn a_person_is_asked_for_a_window_that_the_engine_does_not_tell() {
    let stage = stage();
    let other = server(NAMELESS, &[]);
    let url = other.url();
    let mut terminal = Terminal::run(&stage, &["--connect", &url], 120, 40);
    terminal.wait_for("Context window in tokens? (Enter = 32768)");
    terminal.keys("much\r");
    terminal.wait_for("Please enter a number from 20932 to 1000000, such as 65536 or 64k.");
    terminal.keys("64k\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert_eq!(window(&stage), "65536");
    let said = terminal.text();
    assert!(said.contains("Next time: --ctx 65536"), "{said}");
    let typed = format!("cclocal --connect {url} --ctx 65536 -- --continue");
    assert!(said.contains(&typed), "{said}");
    // Enter takes the guess.
    let mut terminal = Terminal::run(&stage, &["--connect", &url], 120, 40);
    terminal.wait_for("Context window in tokens?");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert_eq!(window(&stage), "32768");
}

#[test]
fn a_question_for_the_window_can_be_left() {
    let stage = stage();
    let other = server(NAMELESS, &[]);
    let mut terminal = Terminal::run(&stage, &["--connect", &other.url()], 80, 24);
    terminal.wait_for("Context window in tokens?");
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130, "{}", terminal.text());
    assert_eq!(stage.read("client/pid"), "", "the client was started");
    stage.assert_nothing_left();
}

//! Names with escapes, bells, line breaks and marks that turn the direction of writing: shown as escapes wherever they come from.

use std::os::unix::fs::symlink;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage};

const HUB: &str = "home/.cache/huggingface/hub";

/// A title, a bell, red, another way to say red, a line of its own, a turn and nothing.
const NAME: &str = "a\u{1b}]0;t\u{7}\u{1b}[31m\u{9b}31m\nerror: b\u{202e}gpj\u{200b}";

/// The same as it is shown.
const SHOWN: &str = r"a\u{1b}]0;t\u{7}\u{1b}[31m\u{9b}31m\nerror: b\u{202e}gpj\u{200b}";

fn assert_visible(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let odd = |letter: char| {
            letter != '\n'
                && (letter.is_control()
                    || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'))
        };
        assert!(!text.contains(odd), "{text:.2000?}");
        assert!(!text.contains("\nerror: b"), "{text:.2000?}");
    }
}

fn with_models() -> Stage {
    let stage = fakes::stage();
    stage.write(
        &format!("{HUB}/models--org--{NAME}/blobs/x"),
        &"0".repeat(2_000_000),
    );
    stage.write(&format!("{HUB}/models--org--plain/blobs/x"), "");
    std::fs::create_dir(stage.path(NAME)).expect("made");
    symlink(
        stage.path(NAME),
        stage.path(format!("{HUB}/models--org--link")),
    )
    .expect("linked");
    stage
}

#[test]
fn in_the_list() {
    let stage = with_models();
    let ran = stage.run(&["list"]);
    assert_visible(&ran);
    insta::assert_snapshot!(stage.filtered(&ran.stdout), @r"
    org/a\u{1b}]0;t\u{7}\u{1b}[31m\u{9b}31m\nerror: b\u{202e}gpj\u{200b}      2 MB  partial
    org/link                                                                  0 kB  partial, link to [STAGE]/a\u{1b}]0;t\u{7}\u{1b}[31m\u{9b}31m\nerror: b\u{202e}gpj\u{200b}
    org/plain                                                                 0 kB  partial

    3 models, 2 MB, in ~/.cache/huggingface/hub
    ");
    let ran = stage.run(&["list", "--json"]);
    assert_visible(&ran);
    let listed: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(listed["models"][0]["id"], format!("org/{NAME}"));
}

#[test]
fn where_they_are_removed() {
    let stage = with_models();
    for args in [
        ["rm", "--yes", "org/link"],
        ["rm", "--yes", NAME],
        ["rm", "--yes", "org/a"],
    ] {
        let ran = stage.run(&args);
        assert_ne!(ran.status, 0);
        assert_visible(&ran);
    }
    let ran = stage.run(&["rm", "--yes", &format!("org/{NAME}")]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, format!("✓ removed org/{SHOWN} (2 MB)\n"));
}

#[test]
fn in_errors_and_notices_and_plans() {
    let mut stage = fakes::stage();
    // Commands in plans and in errors stand as the shell takes them, line breaks in quotes.
    let name = NAME.replace('\n', "");
    let name = name.as_str();
    std::fs::create_dir_all(stage.path(format!("work/{name}/.claude"))).expect("made");
    stage.write(&format!("{name}/config.json"), r#"{"model_type": "llama"}"#);
    let folder = format!("../{name}");
    for args in [
        &["--dry-run", "--model", &folder][..],
        &["--model", &folder],
        &["--model", name],
        &["connect", name],
        &["--connect", name],
        &["--no-such-option", name],
        &[name],
        &["logs", "--port", "1"],
    ] {
        let ran = stage.run(args);
        assert_ne!(ran.status, 0, "{args:?}");
        assert_visible(&ran);
    }
    for file in ["tokenizer.json", "model.safetensors", "chat_template.jinja"] {
        std::fs::copy(
            stage.path(format!("model/{file}")),
            stage.path(format!("{name}/{file}")),
        )
        .expect("copied");
    }
    for args in [
        &["--dry-run", "--model", &folder][..],
        &["--dry-run", "--json", "--model", &folder],
    ] {
        let ran = stage.run(args);
        assert_eq!(ran.status, 0, "{args:?}: {}", ran.stderr);
        assert_visible(&ran);
    }
    stage.set("CCLOCAL_ENGINE", format!("/{name}"));
    let ran = stage.run(&["--dry-run", "--model", "../model"]);
    assert_visible(&ran);
}

#[test]
fn what_an_engine_says() {
    let stage = fakes::stage();
    stage.write(
        "engine/says",
        &format!("[cclocal] patch memory: not applied ({NAME})"),
    );
    stage.write("engine/die-before", &format!("ValueError: {NAME}"));
    let ran = stage.run(&["--model", "../model", "--", "-p", "hi"]);
    assert_ne!(ran.status, 0);
    assert_visible(&ran);
}

#[test]
fn on_a_terminal() {
    let stage = with_models();
    let mut terminal = Terminal::run(&stage, &["rm"], 80, 24);
    terminal.wait_for(r"org/a\u{1b}]0;t\u{7}");
    assert!(!terminal.raw().contains("\u{7}"));
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    let mut terminal = Terminal::run(&stage, &["list"], 80, 24);
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.raw().contains("\u{1b}"), "{:?}", terminal.raw());
    stage.write(
        "cclocal/state/server.log",
        &format!("10%\r\u{1b}[32m100%\u{1b}[0m\nasked: {NAME}\n"),
    );
    let mut terminal = Terminal::run(&stage, &["logs"], 80, 24);
    assert_eq!(terminal.end(), 0);
    assert!(
        !terminal
            .raw()
            .contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'])
    );
    // Into a file it goes as it is.
    let ran = stage.run(&["logs"]);
    assert!(ran.stdout.ends_with(&format!("asked: {NAME}\n")));
}

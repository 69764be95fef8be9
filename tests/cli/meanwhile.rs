//! What is done while the engine loads, and what is not left until then.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::fakes;
use crate::support::{Stage, finish, free_port, signal};

/// Files below the stage's folder whose names begin so.
fn files(stage: &Stage, folder: &str, begin: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(stage.path(folder)).into_iter().flatten();
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(begin))
        })
        .collect()
}

/// Starts a session on an engine that loads, and waits until what the client needs is there. Returns its settings file.
fn loading(stage: &Stage, port: &str) -> (std::process::Child, String) {
    stage.write("engine/slow", "yes");
    let run = stage.start(&["--model", "../model", "--port", port]);
    stage.wait_for("engine/args");
    let settings = format!(
        "cclocal/state/run/session-{}/claude-settings.json",
        run.id()
    );
    stage.wait_for(&settings);
    (run, settings)
}

#[test]
fn the_client_is_made_ready() {
    let stage = fakes::stage();
    let (run, settings) = loading(&stage, &free_port());
    assert_eq!(files(&stage, "cclocal/cache", "client-features").len(), 1);
    assert!(
        stage
            .read("cclocal/data/claude/.claude.json")
            .contains("hasCompletedOnboarding")
    );
    assert!(stage.read(&settings).contains("ANTHROPIC_BASE_URL"));
    assert!(!stage.path("client/args").exists(), "it was started");
    std::fs::remove_file(stage.path("engine/slow")).expect("removed");
    let ran = finish(run);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(stage.path("client/args").exists());
    assert!(!stage.path(&settings).exists());
}

#[test]
fn settings_that_change_meanwhile_are_overlaid_too() {
    const NAME: &str = "ANTHROPIC_FUTURE_URL";
    let stage = fakes::stage();
    let (run, settings) = loading(&stage, &free_port());
    assert!(!stage.read(&settings).contains(NAME));
    stage.write(
        "work/.claude/settings.json",
        &format!(r#"{{"env": {{"{NAME}": "http://elsewhere"}}}}"#),
    );
    std::fs::remove_file(stage.path("engine/slow")).expect("removed");
    let ran = finish(run);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let given = stage.read("client/settings.json");
    assert!(given.contains(&format!(r#""{NAME}":"""#)), "{given}");
    assert!(ran.stderr.contains(NAME), "{}", ran.stderr);
}

#[test]
fn a_client_that_cannot_be_used_is_refused_before_the_load() {
    let no_client = |stage: &mut Stage| {
        stage.set("CCLOCAL_CLAUDE", "");
        std::fs::remove_file(stage.path("bin/claude")).expect("removed");
    };
    let not_executable = |stage: &mut Stage| {
        let path = stage.write("not-executable", "#!/bin/sh\n");
        stage.set("CCLOCAL_CLAUDE", path.display().to_string());
    };
    for (make, args, status) in [
        (&no_client as &dyn Fn(&mut Stage), &[][..], 11),
        (&not_executable, &[], 11),
        (&|_: &mut Stage| {}, &["--", "--bg"], 2),
    ] {
        let mut stage = fakes::stage();
        make(&mut stage);
        let port = free_port();
        let ran = stage.run(&[&["--model", "../model", "--port", &port], args].concat());
        assert_eq!(ran.status, status, "{}", ran.stderr);
        assert!(!stage.path("engine/args").exists(), "{}", ran.stderr);
    }
}

#[test]
fn a_client_that_does_not_answer_ends_the_load() {
    let stage = fakes::stage();
    stage.write("engine/slow", "yes");
    stage.script("claude", "#!/bin/sh\nexit 3\n");
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 11, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("does not answer `--help`"),
        "{}",
        ran.stderr
    );
    stage.assert_nothing_left();
}

#[test]
fn a_signal_does_not_wait_for_a_silent_client() {
    let stage = fakes::stage();
    stage.write("engine/slow", "yes");
    stage.script("claude", "#!/bin/sh\nsleep 1000\n");
    let run = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("engine/args");
    signal(&run, Signal::SIGTERM);
    let ran = finish(run);
    assert_eq!(ran.status, 143, "{}", ran.stderr);
    stage.assert_nothing_left();
}

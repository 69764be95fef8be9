//! Questions on a terminal: asked once, understood, and never in the way of Ctrl-C.

use std::process::Stdio;

use rexpect::session::{PtySession, spawn_command};

use crate::fakes;
use crate::support::{HANG, Stage};

fn on_a_terminal(stage: &Stage, args: &[&str]) -> PtySession {
    let mut command = stage.command(args);
    command
        .env("TERM", "xterm-256color")
        .env("NO_COLOR", "1")
        .stdin(Stdio::inherit());
    let timeout = u64::try_from(HANG.as_millis()).expect("it fits");
    spawn_command(command, Some(timeout)).expect("a terminal")
}

/// How it ended, as rexpect words it: `Exited(Pid(7), 10)`, `Signaled(Pid(7), SIGINT, false)`. Its type is not public.
fn ended(session: &PtySession) -> String {
    format!("{:?}", session.process().wait().expect("its end"))
}

#[test]
fn no_installs_nothing() {
    let stage = Stage::bare();
    let mut session = on_a_terminal(&stage, &["--gemma"]);
    session
        .exp_string("The engine is not installed.")
        .expect("why");
    session.exp_string("[Y/n]").expect("the question");
    session.send("xn").expect("typed");
    session.flush().expect("sent");
    session.exp_string("[y/N]").expect("understood");
    session.send_line("").expect("typed");
    session
        .exp_string("hint: run `cclocal setup`")
        .expect("what to do");
    session.exp_eof().expect("the end");
    assert!(ended(&session).ends_with(", 10)"));
    assert!(!stage.path("cclocal/data").exists());
}

#[test]
fn ctrl_c_at_a_question_ends_it() {
    let stage = Stage::bare();
    let mut session = on_a_terminal(&stage, &["setup"]);
    session.exp_string("[Y/n]").expect("the question");
    session.send_control('c').expect("pressed");
    session.exp_eof().expect("the end");
    let ended = ended(&session);
    assert!(ended.ends_with(", 130)"), "{ended}");
}

#[test]
fn claude_code_is_offered_with_its_official_installers() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_CLAUDE", "");
    std::fs::remove_file(stage.path("bin/claude")).expect("removed");
    stage.script(
        "npm",
        "#!/bin/sh\necho ran > \"$HOME/npm-ran\"; echo 'npm error code E500'; exit 1\n",
    );
    let mut session = on_a_terminal(&stage, &["--model", "../model"]);
    session
        .exp_string("claude.ai/install.sh")
        .expect("an official way");
    session.exp_string("[Y/n]").expect("the question");
    assert_eq!(stage.read("home/npm-ran"), "");
    session.send_line("y").expect("typed");
    session
        .exp_string("| npm error code E500")
        .expect("npm's own words");
    session.exp_eof().expect("the end");
    assert!(ended(&session).ends_with(", 11)"));
    assert_eq!(stage.read("home/npm-ran"), "ran\n");
}

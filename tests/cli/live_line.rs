//! The live line: what a session's status line says, and `cclocal status --watch`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{HANG, Stage, finish, free_port};

const READING: &str = r#"{"prompt": 86100, "cached": 20000, "read": 62500, "written": 0}"#;
const WRITING: &str = r#"{"prompt": 86100, "cached": 20000, "read": 86100, "written": 9}"#;

/// The setting for the status line that the session's Claude Code got.
fn setting(stage: &Stage) -> Value {
    let settings: Value =
        serde_json::from_str(&stage.wait_for("client/settings.json")).expect("JSON");
    settings["statusLine"].clone()
}

/// Runs a status line as Claude Code does, with what it tells.
fn run(stage: &Stage, command: &str, told: &str) -> String {
    use std::io::Write;
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(stage.path("work"))
        .env_clear()
        .envs(stage.env())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(told.as_bytes())
        .expect("told");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
    String::from_utf8(output.stdout).expect("text")
}

fn wait_until(what: &str, said: impl Fn() -> String, wanted: impl Fn(&str) -> bool) -> String {
    let since = Instant::now();
    loop {
        let text = said();
        if wanted(&text) {
            return text;
        }
        assert!(since.elapsed() < HANG, "{what} did not come: {text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Starts a session whose client asks something at once.
fn asking(stage: &mut Stage, port: &str) -> Child {
    fakes::asking_client(stage);
    let session = stage.start(&["--model", "../model", "--port", port]);
    stage.wait_for("client/pid");
    session
}

/// Lets the client and what it waits for end.
fn end(stage: &Stage, session: Child) {
    let _ = std::fs::remove_file(stage.path("engine/reads"));
    stage.write("engine/finish", "yes");
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
}

#[test]
fn a_session_says_what_the_machine_does_for_it() {
    let mut stage = fakes::stage();
    stage.write("engine/reads", "yes");
    stage.write("engine/progress", READING);
    let port = free_port();
    let session = asking(&mut stage, &port);
    let line = setting(&stage);
    assert_eq!(
        (&line["type"], &line["refreshInterval"]),
        (&json!("command"), &json!(1))
    );
    let command = line["command"].as_str().expect("a command").to_owned();
    let told = r#"{"context_window": {"total_input_tokens": 22000, "total_output_tokens": 900}}"#;
    let said = |told: &'static str| {
        let (stage, command) = (&stage, &command);
        move || run(stage, command, told)
    };
    let reading = wait_until("reading", said(told), |line| {
        line.contains("reading 61k of 84k")
    });
    assert!(reading.starts_with("model · 22k of "), "{reading}");
    assert_eq!(reading.lines().count(), 1);
    // What is read of what Claude Code tells may be anything.
    for told in ["", "{", "[]", r#"{"context_window": null}"#] {
        assert!(run(&stage, &command, told).starts_with("model · window "));
    }
    let status = stage.run(&["status"]).stdout;
    assert!(
        status.contains("  requests  1 running or waiting; reading 61k of 84k"),
        "{status}"
    );
    stage.write("engine/progress", WRITING);
    std::fs::remove_file(stage.path("engine/reads")).expect("removed");
    wait_until("writing", said(""), |line| line.contains(" · writing"));
    end(&stage, session);
    assert_eq!(
        run(&stage, &command, told),
        "",
        "nobody is there to be asked"
    );
}

#[test]
fn who_waits_is_told_behind_whom() {
    let mut stage = fakes::stage();
    stage.write("engine/reads", "yes");
    let port = free_port();
    let first = asking(&mut stage, &port);
    wait_until(
        "the first request",
        || stage.run(&["status"]).stdout,
        |status| status.contains("1 running or waiting"),
    );
    let first_line = setting(&stage)["command"].clone();
    let first_line = first_line.as_str().expect("a command");
    std::fs::remove_file(stage.path("client/pid")).expect("removed");
    let second = asking(&mut stage, &port);
    let (rest, _) = first_line.rsplit_once(' ').expect("words");
    let command = format!("{rest} {}", second.id());
    let said = "waiting behind another terminal, 1 turn";
    wait_until(
        "its place",
        || run(&stage, &command, ""),
        |line| line.contains(said),
    );
    end(&stage, first);
    assert_eq!(finish(second).status, 0);
}

#[test]
fn an_own_status_line_stays() {
    let mut stage = fakes::stage();
    let own = r#"{"statusLine": {"type": "command", "command": "date"}}"#;
    for place in [
        "home/.claude/settings.json",
        "work/.claude/settings.json",
        "work/.claude/settings.local.json",
    ] {
        let file = stage.write(place, own);
        fakes::client(&mut stage, "");
        let _ = std::fs::remove_file(stage.path("client/settings.json"));
        assert_eq!(stage.run(&["--model", "../model"]).status, 0);
        assert_eq!(setting(&stage), Value::Null, "{place}");
        std::fs::remove_file(file).expect("removed");
    }
    stage.write("home/.claude/settings.json", r#"{"disableAllHooks": true}"#);
    std::fs::remove_file(stage.path("client/settings.json")).expect("removed");
    assert_eq!(stage.run(&["--model", "../model"]).status, 0);
    assert_eq!(
        setting(&stage),
        Value::Null,
        "what is switched off stays off"
    );
}

#[test]
fn a_status_line_without_a_session_says_nothing() {
    let stage = Stage::bare();
    for arguments in [
        &["status-line"][..],
        &["status-line", "/nowhere/socket", "1"],
        &["status-line", "x", "y", "z"],
    ] {
        let ran = stage.run(arguments);
        assert_eq!(
            (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
            (0, "", ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn watching_gives_a_line_of_json_each_second_until_nobody_reads() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let session = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("client/pid");
    let mut watching = stage
        .command(&["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a line").expect("read");
        let all: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&all[0]["name"], &all[0]["now"]["doing"]),
            (&json!("model"), &json!("idle"))
        );
    }
    drop(lines);
    assert!(watching.wait().expect("ended").success());
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
}

#[test]
fn watching_on_a_terminal_paints_over_and_ends_quietly() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let session = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("client/pid");
    let mut terminal = Terminal::run(&stage, &["status", "--watch"], 80, 24);
    terminal.wait_for("model  ready");
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
    terminal.wait_until("an empty page in its place", |screen| {
        screen == "No engine is running."
    });
    terminal.keys("\u{3}");
    assert_eq!(terminal.end(), 1002, "ended by SIGINT");
    assert!(
        terminal.text().starts_with("No engine is running."),
        "{}",
        terminal.text()
    );
    assert!(terminal.text().lines().count() <= 2, "{}", terminal.text());
}

//! `--server` and `connect`: the engine in one terminal, Claude Code in another.

use nix::sys::signal::Signal;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Stage, finish, free_port, signal};

/// The words of the command that a server printed.
fn printed(stage: &Stage) -> Vec<String> {
    let said = stage.wait_for("out");
    let mut words = Vec::new();
    // Quoting is the shell's business: let one take it apart.
    let script = format!(
        "for word in {}; do printf '%s\\n' \"$word\"; done",
        said.trim()
    );
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    words.extend(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned),
    );
    words
}

/// A server whose standard output goes to the file `out`.
fn serve(stage: &Stage, args: &[&str]) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let out = std::fs::File::create(stage.path("out")).expect("made");
    stage
        .command(args)
        .stdout(out)
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("started")
}

#[test]
fn the_printed_command_connects_another_shell() {
    let mut stage = fakes::stage();
    fakes::client(&mut stage, "pwd -P > \"$HOME/where\"; exit 7");
    let port = free_port();
    let server = serve(
        &stage,
        &["--model", "../model", "--server", "--port", &port],
    );
    let said = stage.wait_for("out");
    // Pasted as it is, into a shell with another environment, in another folder.
    std::fs::create_dir_all(stage.path("elsewhere")).expect("made");
    let pasted = std::process::Command::new("/bin/sh")
        .args(["-c", said.trim()])
        .current_dir(stage.path("elsewhere"))
        .env_clear()
        .env("HOME", stage.path("home"))
        .env("PATH", "/usr/bin:/bin")
        .env("ANTHROPIC_API_KEY", "sk-ant-real")
        .env("ANTHROPIC_BASE_URL", "https://elsewhere.example")
        .output()
        .expect("a shell");
    assert_eq!(
        pasted.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&pasted.stderr)
    );
    let env = stage.read("client/env");
    assert!(
        env.contains(&format!("ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\n")),
        "{env}"
    );
    let key = stage.read(&format!("cclocal/state/run/{port}/key"));
    assert_eq!(key.len(), 64);
    assert!(!env.contains(&key), "a session has a token of its own");
    assert!(!env.contains("sk-ant-real"));
    assert_eq!(
        stage.read("home/where").trim(),
        stage.path("elsewhere").display().to_string()
    );
    // Its settings are its own, and gone with it.
    let left: Vec<_> = std::fs::read_dir(stage.path("cclocal/state/run"))
        .expect("read")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, [port.as_str()]);
    signal(&server, Signal::SIGINT);
    let ran = finish(server);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!stage.path("cclocal/state/run").join(&port).exists());
    assert!(
        !ran.stderr.contains(&key) && !said.contains(&key),
        "the key was printed"
    );
}

#[test]
fn what_a_server_prints() {
    let mut stage = fakes::stage();
    stage.set(
        "CCLOCAL_HOME",
        stage.path("a home/it's").display().to_string(),
    );
    let port = free_port();
    let server = serve(&stage, &["server", "--model", "../model", "--port", &port]);
    let words = printed(&stage);
    assert_eq!(
        words,
        [
            format!("CCLOCAL_HOME={}", stage.path("a home/it's").display()),
            format!("CCLOCAL_CLAUDE={}", stage.path("bin/claude").display()),
            env!("CARGO_BIN_EXE_cclocal").to_owned(),
            "connect".to_owned(),
            "--port".to_owned(),
            port.clone(),
        ]
    );
    signal(&server, Signal::SIGTERM);
    let ran = finish(server);
    assert_eq!(ran.status, 143, "{}", ran.stderr);
    let said: String = stage
        .filtered(&ran.stderr)
        .replace(&port, "[PORT]")
        .lines()
        .map(|line| match line.find(" ready in ") {
            Some(at) => format!(
                "{} ready in [TIME] · window{}\n",
                &line[..at],
                line.split("window").nth(1).unwrap_or_default()
            ),
            None => format!("{line}\n"),
        })
        .collect();
    insta::assert_snapshot!(said, @"
    loading model into memory
    ✓ model ready in [TIME] · window 65,536 tokens

    To run Claude Code on it, in another terminal and any folder:


    Other programs: the Anthropic Messages API at http://127.0.0.1:[PORT], model model, with the key in
    [STAGE]/a home/it's/state/run/[PORT]/key

    Ctrl-C ends the server.
    ");
}

#[test]
fn ctrl_c_on_a_terminal_ends_it() {
    let stage = fakes::stage();
    let port = free_port();
    let mut terminal = Terminal::run(
        &stage,
        &["--server", "--model", "../model", "--port", &port],
        80,
        24,
    );
    terminal.wait_for("Ctrl-C ends the server.");
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 0);
    assert!(
        terminal.text().contains("the server has stopped"),
        "{}",
        terminal.text()
    );
}

#[test]
fn a_server_needs_no_client() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_CLAUDE", "/nowhere/claude");
    let server = serve(
        &stage,
        &["server", "--model", "../model", "--port", &free_port()],
    );
    stage.wait_for("out");
    signal(&server, Signal::SIGINT);
    assert_eq!(finish(server).status, 0);
}

#[test]
fn an_engine_that_dies_ends_the_server_with_the_reason() {
    let stage = fakes::stage();
    stage.write("engine/die-after", "yes");
    let server = serve(
        &stage,
        &["server", "--model", "../model", "--port", &free_port()],
    );
    stage.wait_for("out");
    stage.write("engine/die-now", "yes");
    let ran = finish(server);
    assert_eq!(ran.status, 14);
    assert!(
        ran.stderr.contains("the GPU ran out of memory"),
        "{}",
        ran.stderr
    );
}

#[test]
fn connecting_to_what_is_no_server() {
    let stage = fakes::stage();
    let port = free_port();
    let ran = stage.run(&["connect", "--port", &port]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(ran.stderr.replace(&port, "[PORT]"), @"
    error: no engine of cclocal runs on port [PORT]
      cause: nothing listens there
      hint: start one with `cclocal --server`, in another terminal
    ");
    let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("bound");
    let ran = stage.run(&["connect", "--port", &port]);
    assert!(
        ran.stderr.contains("another program listens there"),
        "{}",
        ran.stderr
    );
    drop(listener);
    // What one left that was killed is nobody's.
    stage.write(
        &format!("cclocal/state/run/{port}/record.json"),
        &format!(r#"{{"pid":1,"port":{port},"model":"x","version":"0"}}"#),
    );
    stage.write(&format!("cclocal/state/run/{port}/lock"), "");
    let ran = stage.run(&["connect", "--port", &port]);
    assert!(
        ran.stderr.contains("nothing listens there"),
        "{}",
        ran.stderr
    );
}

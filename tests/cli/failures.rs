//! What seldom goes wrong, in full: message, cause and hint of errors that the other tests have no reason to bring about.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage, finish, free_port};

/// What it said from its error on, without what differs from run to run and from system to system.
fn said(stage: &Stage, ran: &Ran) -> String {
    let error = ran.stderr.find("error: ").unwrap_or(0);
    let mut text = stage.filtered(&ran.stderr[error..]);
    for (before, differs) in [
        ("/run/", char::is_numeric as fn(char) -> bool),
        ("server-", char::is_numeric),
        ("os error ", char::is_numeric),
        ("--port ", char::is_numeric),
        ("(process ", char::is_numeric),
        ("error: port ", char::is_numeric),
        ("cclocal-demo-", char::is_alphanumeric),
    ] {
        text = text
            .split(before)
            .enumerate()
            .map(|(number, part)| match number {
                0 => part.to_owned(),
                _ => format!("{before}[…]{}", part.trim_start_matches(differs)),
            })
            .collect();
    }
    text
}

/// The error without the lines of a log.
fn without_log(stage: &Stage, ran: &Ran) -> String {
    said(stage, ran)
        .lines()
        .filter(|line| !line.starts_with("  |"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn launched(stage: &Stage) -> Ran {
    stage.run(&[
        "--model",
        "../model",
        "--port",
        &free_port(),
        "--",
        "-p",
        "hello",
    ])
}

#[test]
fn without_a_home_or_a_folder_to_be_in() {
    let stage = Stage::bare();
    let ran = stage.command(&["list"]).env_remove("HOME").output();
    let ran = ran.expect("run");
    assert_eq!(ran.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8_lossy(&ran.stderr), @"
    error: HOME is not set
      hint: set HOME to your home directory and run it again
    ");
    let mut shell = Command::new("/bin/sh");
    shell
        .args([
            "-c",
            "mkdir gone && cd gone && rmdir ../gone && exec \"$0\" list",
        ])
        .arg(env!("CARGO_BIN_EXE_cclocal"))
        .current_dir(stage.path("work"))
        .env_clear()
        .envs(stage.env());
    let ran = shell.output().expect("run");
    assert_eq!(ran.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8_lossy(&ran.stderr), @"
    error: the current directory cannot be read
      cause: No such file or directory (os error 2)
      hint: change to a directory that exists and run it again
    ");
}

#[test]
fn a_folder_that_is_no_model() {
    let stage = Stage::bare();
    let ran = stage.run(&["--model", "../bin"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: ../bin is not a model folder
      cause: it has no config.json
      hint: --model takes a folder that holds config.json and *.safetensors
    ");
    std::fs::create_dir_all(stage.path("work/my-model")).expect("made");
    let ran = stage.run(&["--model", "my-model"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: `my-model` is not a model
      cause: it has no organisation
      hint: for the folder of that name: --model ./my-model
    ");
}

#[test]
fn programs_that_do_not_answer() {
    let mut stage = fakes::stage();
    stage.script("claude", "#!/bin/sh\nexit 3\n");
    stage.set(
        "CCLOCAL_CLAUDE",
        stage.path("bin/claude").display().to_string(),
    );
    let ran = launched(&stage);
    assert_eq!(ran.status, 11);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: Claude Code does not answer `--help`
      cause: it failed without a message
      hint: run `[STAGE]/bin/claude --help` to see why
    ");
    for help in ["exit 3", "echo 'usage: something else'"] {
        let stage = fakes::stage();
        stage.script("python3", &format!("#!/bin/sh\n{help}\n"));
        let ran = launched(&stage);
        assert_eq!(ran.status, 14);
        match help {
            "exit 3" => insta::assert_snapshot!(said(&stage, &ran), @"
            error: the engine does not answer `serve --help`
              cause: it failed without a message
              hint: run `[STAGE]/bin/vllm-mlx serve --help` to see why, or `cclocal setup` to install the engine again
            "),
            _ => insta::assert_snapshot!(said(&stage, &ran), @"
            error: this engine is not a vllm-mlx
              cause: `[STAGE]/bin/vllm-mlx serve --help` names no --port
              hint: unset CCLOCAL_ENGINE, or point it at a vllm-mlx executable
            "),
        }
    }
}

#[test]
fn claude_code_by_an_npm_that_fails() {
    for (script, exit) in [("echo 'npm error code E500'; exit 1", 1), ("exit 0", 0)] {
        let mut stage = fakes::stage();
        stage.set("CCLOCAL_CLAUDE", "");
        std::fs::remove_file(stage.path("bin/claude")).expect("removed");
        stage.script("npm", &format!("#!/bin/sh\n{script}\n"));
        let mut terminal = Terminal::run(&stage, &["--model", "../model"], 200, 30);
        terminal.wait_for("[Y/n]");
        terminal.keys("y\r");
        assert_eq!(terminal.end(), 11);
        let text = terminal.text();
        let error = text[text.find("error: ").expect("an error")..].to_owned();
        match exit {
            1 => insta::assert_snapshot!(error, @"
            error: Claude Code could not be installed with npm
              cause: npm ended with exit status: 1
              | npm error code E500
              hint: run it again once npm reaches its registry, or install Claude Code another way: https://claude.ai/install.sh
            "),
            _ => insta::assert_snapshot!(error, @"
            error: Claude Code could not be installed with npm
              cause: npm installed no executable for this platform
              hint: run it again once npm reaches its registry, or install Claude Code another way: https://claude.ai/install.sh
            "),
        }
    }
}

#[test]
fn folders_of_ours_that_are_none() {
    let stage = fakes::stage();
    stage.write("cclocal/data/claude", "a file");
    let ran = launched(&stage);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the profile for local sessions cannot be prepared
      cause: File exists (os error […])
      hint: check the folder [STAGE]/cclocal/data/claude; it can be deleted when no session is open
    ");
    let stage = fakes::stage();
    stage.write("cclocal/state/run", "a file");
    let ran = launched(&stage);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the run folder [STAGE]/cclocal/state/run/[…] cannot be used
      cause: File exists (os error […])
      hint: if it is a link or somebody else's, move it away; it must be a folder that belongs to you
    ");
    let stage = fakes::stage();
    let port = free_port();
    let in_the_way = stage.path(format!("cclocal/state/run/{port}/engine"));
    std::fs::create_dir_all(in_the_way).expect("made");
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 14);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the engine's socket cannot be made
      cause: [STAGE]/cclocal/state/run/[…]/engine cannot be removed
    ");
}

#[test]
fn nothing_is_installed_without_consent() {
    let stage = Stage::bare();
    let mut terminal = Terminal::run(&stage, &["setup"], 120, 24);
    terminal.wait_for("[Y/n]");
    terminal.keys("n\r");
    assert_eq!(terminal.end(), 10);
    let text = terminal.text();
    insta::assert_snapshot!(text[text.find("error: ").expect("an error")..], @"
    error: nothing was installed
      hint: run `cclocal setup` again when you want to
    ");
}

#[test]
fn a_limit_that_is_no_number() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_STALL_LIMIT", "4m");
    let ran = launched(&stage);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: CCLOCAL_STALL_LIMIT=4m is not a number of seconds
      hint: set it to a whole number above 0, or unset it for 240
    ");
}

#[test]
fn an_engine_that_does_not_get_ready() {
    let mut stage = fakes::stage();
    stage.write("engine/slow", "yes");
    stage.set("CCLOCAL_STALL_LIMIT", "1");
    let ran = launched(&stage);
    assert_eq!(ran.status, 14);
    insta::assert_snapshot!(without_log(&stage, &ran), @"
    error: the engine does not become ready
      cause: no sign of progress for 1 s while loading
      hint: read its log, [STAGE]/cclocal/state/server-[…].log; CCLOCAL_STALL_LIMIT=600 waits longer
    ");
}

#[test]
fn an_engine_that_dies_under_the_client() {
    let mut stage = fakes::stage();
    stage.write("engine/die-after", "yes");
    let now = stage.path("engine/die-now");
    fakes::client(
        &mut stage,
        &format!("touch '{}'; while :; do sleep 0.05; done", now.display()),
    );
    let ran = launched(&stage);
    assert_eq!(ran.status, 14);
    insta::assert_snapshot!(without_log(&stage, &ran), @"
    error: the engine died 4 times within 10 minutes
      cause: the GPU ran out of memory; Claude Code was closed, its conversation is kept
      hint: take a smaller model (cclocal --gemma-light) or a smaller window (--ctx 32768); then continue it: cclocal --model [STAGE]/model -- --continue
    ");
}

#[test]
fn an_engine_that_is_ended_under_the_client_or_loses_its_supervisor() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    for (signal, whole) in [(Signal::SIGTERM, "ended"), (Signal::SIGKILL, "lost")] {
        let _ = std::fs::remove_file(stage.path("client/pid"));
        let port = free_port();
        let session = stage.start(&["--model", "../model", "--port", &port]);
        stage.wait_for("client/pid");
        let record = stage.read(&format!("cclocal/state/run/{port}/record.json"));
        let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
        let pid = i32::try_from(record["pid"].as_i64().expect("a pid")).expect("small");
        kill(Pid::from_raw(pid), signal).expect("signalled");
        let ran = finish(session);
        assert_eq!(ran.status, 14);
        match whole {
            "ended" => insta::assert_snapshot!(said(&stage, &ran), @"
            error: the engine was stopped
              cause: it was stopped with `cclocal stop`, or by a signal to its supervisor; Claude Code was closed, its conversation is kept
              hint: run it again; then continue it: cclocal --model [STAGE]/model -- --continue
            "),
            _ => insta::assert_snapshot!(said(&stage, &ran), @"
            error: the engine's supervisor is gone
              cause: it was killed, and the engine with it; Claude Code was closed, its conversation is kept
              hint: run it again; if nobody killed it, its log is supervisor.log in cclocal's state folder; then continue it: cclocal --model [STAGE]/model -- --continue
            "),
        }
    }
}

#[test]
fn what_runs_in_the_background_is_set_and_asked_wrongly() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_LINGER", "5m");
    let ran = launched(&stage);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: CCLOCAL_LINGER=5m is not a number of seconds
      hint: set it to a whole number from 0 to 86400, or unset it for 300
    ");
    let ran = stage.run(&["logs"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: there is no log
      cause: [STAGE]/cclocal/state/server.log: No such file or directory (os error […])
      hint: an engine writes one when it starts; `cclocal status` shows what runs
    ");
    let child = stage
        .command(&["supervisor"])
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let line = String::from_utf8_lossy(&child.stdout).into_owned();
    let failure: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let failure = &failure["failed"];
    let text = |name: &str| failure[name].as_str().expect("a text").to_owned();
    let told = format!("error: {}\n  hint: {}", text("message"), text("hint"));
    insta::assert_snapshot!(told, @"
    error: that is no specification of an engine
      hint: this command is run by cclocal itself; run cclocal without it
    ");
}

#[test]
fn a_port_that_is_taken() {
    let mut stage = fakes::stage();
    let port = free_port();
    let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("bound");
    stage.script("lsof", "#!/bin/sh\nprintf 'p4242\\ncsome-server\\nf3\\n'\n");
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 13);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: port […] is in use
      cause: some-server (process […]) listens there
      hint: take a free port: --port […]
    ");
    drop(listener);
    fakes::staying_client(&mut stage);
    fakes::other_model(&stage);
    let session = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    let ran = stage.run(&["--model", "../other", "--port", &port]);
    assert_eq!(ran.status, 13);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: port […] is in use by another model of cclocal
      cause: cclocal (process […]) serves model there
      hint: use another port: --port […]; or stop the other model: cclocal stop --port […]
    ");
    let ran = stage.run(&["connect", "--port", "1"]);
    assert_eq!(ran.status, 1);
    let told = said(&stage, &ran).replace(&session.id().to_string(), "[…]");
    insta::assert_snapshot!(told.replace(&port, "[…]"), @"
    error: no engine of cclocal runs on port 1
      cause: running: model (0 MB, port […], 1 session, process […])
      hint: name its port: cclocal connect --port […]
    ");
    let ran = stage.run(&["rm", "--yes", "org/name"]);
    assert_eq!(ran.status, 2);
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
}

#[test]
fn settings_of_an_administrator_or_a_project_that_cannot_be_overridden() {
    let stage = fakes::stage();
    stage.write(
        "work/.claude/settings.json",
        r#"{"env": {"ANTHROPIC_UNIX_SOCKET": "/tmp/x"}}"#,
    );
    let ran = launched(&stage);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the project's settings could send the session elsewhere
      cause: .claude/settings.json sets env.ANTHROPIC_UNIX_SOCKET, which cannot be overridden in every version of Claude Code
      hint: remove that line from .claude/settings.json, then run it again
    ");
}

#[test]
fn a_model_that_may_not_be_downloaded() {
    let mut stage = fakes::stage();
    stage.set("HF_HUB_OFFLINE", "1");
    let ran = stage.run(&["--model", "some-org/some-model"]);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: some-org/some-model is not on this disk
      cause: offline mode is on (HF_HUB_OFFLINE), so it cannot be downloaded
      hint: unset HF_HUB_OFFLINE and run it again; cclocal list shows what is on this disk
    ");
    assert_eq!(stage.read("engine/pid"), "", "the engine was started");
}

#[test]
fn a_model_that_another_program_downloads_or_holds() {
    let stage = fakes::stage();
    let hub = "home/.cache/huggingface/hub";
    stage.write(&format!("{hub}/models--org--name/refs/main"), "abc");
    let hash = "cd".repeat(32);
    let entry = stage.write(&format!("{hub}/blobs/cd/{hash}"), "12345");
    stage.write(&format!("{hub}/blobs/.huggingface-shared-blobs"), "1\n");
    let blob = stage.path(format!("{hub}/models--org--name/blobs/etag"));
    std::fs::create_dir_all(blob.parent().expect("a folder")).expect("made");
    symlink(format!("../../blobs/cd/{hash}"), &blob).expect("linked");
    let lock = stage.write(&format!("{hub}/.locks/models--org--name/x.lock"), "");
    let lock = std::fs::File::open(lock).expect("open");
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("locked");
    let ran = stage.run(&["rm", "org/name", "--yes"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: org/name was not removed
      cause: a program is downloading it
      hint: wait for that download, or stop it
    ");
    drop(lock);
    // The library does not follow a link for its lock, and neither do we.
    let elsewhere = stage.write("elsewhere", "mine");
    symlink(&elsewhere, entry.with_file_name(format!("{hash}.lock"))).expect("linked");
    let ran = stage.run(&["rm", "org/name", "--yes"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: org/name could not be removed completely
      cause: [STAGE]/home/.cache/huggingface/hub/blobs/cd/cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd.lock: Too many levels of symbolic links (os error […])
      hint: 0 kB were freed before that; run the same command again to remove the rest
    ");
    assert!(entry.exists() && blob.is_symlink());
    assert_eq!(stage.read("elsewhere"), "mine");
}

#[test]
fn a_demo_that_fails() {
    let closing = "Done: the Write tool has written the file.";
    for (number, client) in [
        "exit 3".to_owned(),
        "echo 'something else'".to_owned(),
        format!("echo '{closing}'"),
        format!("echo '{closing}'; echo other > hello.txt"),
    ]
    .iter()
    .enumerate()
    {
        let mut stage = fakes::stage();
        fakes::client(&mut stage, client);
        let ran = finish(
            stage
                .command(&["demo", "--yes"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("started"),
        );
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        let said = said(&stage, &ran);
        match number {
            0 => insta::assert_snapshot!(said, @"
            error: the demo failed while running Claude Code: Claude Code ended with an error
              cause: its status was 3
              hint: run `claude --version` to check that it works by itself
            "),
            1 => insta::assert_snapshot!(said, @"
            error: the demo failed while running Claude Code: Claude Code did not pass the tool's result back to the model
              cause: its answer is not the model's last sentence
              | something else
              hint: please report this with the lines above: the client or the engine has changed
            "),
            2 => insta::assert_snapshot!(said, @"
            error: the demo failed while checking the file: the file was not written
              cause: [STAGE]/tmp/cclocal-demo-[…]/work/hello.txt: No such file or directory (os error […])
              hint: the tool call did not reach Claude Code as one; run it again with --keep and read server.log
            "),
            _ => insta::assert_snapshot!(said, @r#"
            error: the demo failed while checking the file: the file has the wrong text
              cause: it holds "other\n" instead of "hello world\n"
              hint: please report this: the tool call was changed on the way
            "#),
        }
    }
}

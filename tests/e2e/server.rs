//! A server, and the command that it prints, pasted into another shell.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::real::{self, free_port};
use crate::support::{finish, signal};

#[test]
fn server_command_pasted_into_another_shell() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let out = std::fs::File::create(stage.path("out")).expect("made");
    let server = stage
        .command(&["--server", "--model", "../hermes-llama", "--port", &port])
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let printed = stage.wait_for("out");
    let elsewhere = stage.path("elsewhere");
    std::fs::create_dir_all(elsewhere.join(".claude")).expect("made");
    // The other shell, and the folder it is in, would lead the session elsewhere.
    std::fs::write(
        elsewhere.join(".claude/settings.json"),
        r#"{"env":{"ANTHROPIC_BASE_URL":"http://127.0.0.1:9"}}"#,
    )
    .expect("written");
    let pasted = Command::new("sh")
        .args(["-c", &format!("{} -- -p 'write the file'", printed.trim())])
        .current_dir(&elsewhere)
        .env_clear()
        .env("HOME", stage.path("home"))
        .env("TMPDIR", stage.path("tmp"))
        .env("PATH", "/usr/bin:/bin")
        .env("ANTHROPIC_API_KEY", "sk-ant-real")
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&pasted.stderr);
    assert_eq!(pasted.status.code(), Some(0), "{said}");
    assert_eq!(stage.read("work/hello.txt"), real::TEXT, "{said}");
    signal(&server, Signal::SIGINT);
    let ran = finish(server);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

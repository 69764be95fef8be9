//! Others on this machine who would like to be the engine, or the gateway: they are sent nothing, and it is said.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fakes;
use crate::support::impostor::{Impostor, can_be_taken};
use crate::support::{Stage, finish, free_port, signal};

const HEALTHY: &str = r#"{"status":"healthy","model_loaded":true}"#;

fn status(stage: &Stage) -> Value {
    let ran = stage.run(&["status", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    all[0].clone()
}

fn pid(value: &Value) -> Pid {
    let pid = value.as_i64().expect("a pid");
    Pid::from_raw(i32::try_from(pid).expect("small"))
}

#[test]
fn who_takes_the_engines_socket_is_sent_nothing() {
    // What a health check would believe, and what has the form of a proof.
    for body in [HEALTHY, &"0123456789abcdef".repeat(4)] {
        let stage = fakes::stage();
        stage.write("engine/slow", "yes");
        let port = free_port();
        let args = ["--model", "../model", "--port", &port];
        let session = stage.start(&[&args[..], &["--", "-p", "between us"]].concat());
        stage.wait_for("engine/pid");
        let socket = stage.path("cclocal/state/run").join(&port).join("engine");
        let impostor = Impostor::on(&socket, body);
        let ran = finish(session);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        let error = ran.stderr.find("error:").expect("an error");
        let told = stage
            .filtered(&ran.stderr[error..])
            .replace(&port, "[PORT]");
        let key = stage.read("engine/key");
        let got = impostor.got();
        insta::allow_duplicates! {
            insta::assert_snapshot!(told, @"
            error: the engine cannot be trusted
              cause: the program that answers on [STAGE]/cclocal/state/run/[PORT]/engine does not have the engine's key; nothing was sent to it
              | running 1 test
              | the whole log: [STAGE]/cclocal/state/server-[PORT].log
              hint: end the program that took the engine's socket; if it is the engine itself, unset CCLOCAL_ENGINE or run `cclocal setup --force`
            ");
        }
        assert!(
            !stage.path("client/pid").exists(),
            "Claude Code was started"
        );
        for line in got.lines().filter(|line| line.contains("HTTP/1.1")) {
            assert!(line.starts_with("GET /cclocal/proof?nonce="), "{got}");
        }
        assert!(got.contains("/cclocal/proof"), "it was never asked");
        for secret in ["between us", "uthorization", "Bearer", &key] {
            assert!(!got.contains(secret), "{got}");
        }
    }
}

#[test]
fn an_engine_that_is_started_again_proves_itself_again() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let port = free_port();
    let session = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    stage.write("engine/liar", "yes");
    kill(pid(&status(&stage)["engine_pid"]), Signal::SIGKILL).expect("killed");
    let ran = finish(session);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the engine died 4 times")
            && ran.stderr.contains("does not have the engine's key"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_engine_that_serves_on_a_port_is_refused() {
    let stage = fakes::stage();
    stage.write("engine/insists", "yes");
    let port = free_port();
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    let error = ran.stderr.find("error:").expect("an error");
    let told = stage
        .filtered(&ran.stderr[error..])
        .replace(&port, "[PORT]");
    insta::assert_snapshot!(told, @"
    error: the engine did not start
      cause: it does not serve on the socket that cclocal gave it
      | running 1 test
      | ERROR:    address already in use
      | the whole log: [STAGE]/cclocal/state/server-[PORT].log
      hint: run `cclocal setup` for the engine that this cclocal was made for, or unset CCLOCAL_ENGINE
    ");
}

#[test]
fn the_port_that_the_engine_names_is_the_gateways_and_cannot_be_taken() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let port = free_port();
    let session = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    let args = stage.read("engine/args");
    assert!(args.contains(&format!("--port\n{port}\n")), "{args}");
    assert!(!can_be_taken(port.parse().expect("a port")));
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
    assert!(can_be_taken(port.parse().expect("a port")));
}

#[test]
fn the_gateways_port_is_nobody_elses_after_the_supervisors_end() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let port = free_port();
    let session = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    let engine = stage.read("engine/pid");
    // A session that cannot end Claude Code yet.
    signal(&session, Signal::SIGSTOP);
    kill(pid(&status(&stage)["pid"]), Signal::SIGKILL).expect("killed");
    // The kernel has closed all that the supervisor had when its engine ends of it.
    let engine = Pid::from_raw(engine.trim().parse().expect("a pid"));
    while kill(engine, None).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!can_be_taken(port.parse().expect("a port")));
    signal(&session, Signal::SIGCONT);
    let ran = finish(session);
    assert!(
        ran.stderr.contains("the engine's supervisor is gone"),
        "{}",
        ran.stderr
    );
    assert!(can_be_taken(port.parse().expect("a port")));
}

#[test]
fn a_run_folder_that_is_a_link_is_refused() {
    let stage = fakes::stage();
    std::fs::create_dir_all(stage.path("elsewhere")).expect("made");
    std::fs::create_dir_all(stage.path("cclocal/state")).expect("made");
    symlink(stage.path("elsewhere"), stage.path("cclocal/state/run")).expect("linked");
    let port = free_port();
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let error = ran.stderr.find("error:").expect("an error");
    let told = stage
        .filtered(&ran.stderr[error..])
        .replace(&port, "[PORT]");
    insta::assert_snapshot!(told, @"
    error: the run folder [STAGE]/cclocal/state/run/[PORT] cannot be used
      cause: [STAGE]/cclocal/state/run: it is not a folder of this user's
      hint: if it is a link or somebody else's, move it away; it must be a folder that belongs to you
    ");
    let left = std::fs::read_dir(stage.path("elsewhere")).expect("read");
    assert_eq!(left.count(), 0);
}

#[test]
fn who_listens_in_a_folder_that_others_may_write_to_is_not_asked() {
    let stage = fakes::stage();
    let port = free_port();
    let run = stage.path("cclocal/state/run").join(&port);
    std::fs::create_dir_all(&run).expect("made");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).expect("set");
    let listener = UnixListener::bind(run.join("socket")).expect("bound");
    listener.set_nonblocking(true).expect("set");
    assert_eq!(stage.run(&["status"]).stderr, "No engine is running.\n");
    assert!(listener.accept().is_err(), "it was asked");
    // What starts there takes the folder back first.
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(listener.accept().is_err(), "it was asked");
}

//! Signals at each stage: nothing is left over, and the status says which signal it was.

use nix::sys::signal::Signal;

use crate::fakes;
use crate::support::{finish, free_port, signal};

/// A client that runs until it is told to end, and says when it is there.
const WAITING: &str = "trap 'exit 7' TERM HUP; while :; do sleep 0.05; done";

#[test]
fn while_the_engine_loads() {
    for (sent, status) in [
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let stage = fakes::stage();
        stage.write("engine/slow", "yes");
        let run = stage.start(&["--model", "../model", "--port", &free_port()]);
        stage.wait_for("engine/pid");
        signal(&run, sent);
        let ran = finish(run);
        assert_eq!(ran.status, status, "{sent}: {}", ran.stderr);
        assert_eq!(stage.read("client/pid"), "");
        stage.assert_nothing_left();
    }
}

#[test]
fn while_the_client_runs() {
    for (sent, status) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let mut stage = fakes::stage();
        fakes::client(&mut stage, WAITING);
        let run = stage.start(&["--model", "../model", "--port", &free_port()]);
        stage.wait_for("client/pid");
        signal(&run, sent);
        let ran = finish(run);
        assert_eq!(ran.status, status, "{sent}: {}", ran.stderr);
        stage.assert_nothing_left();
    }
}

#[test]
fn off_a_terminal_an_interrupt_is_passed_on_to_the_client() {
    let mut stage = fakes::stage();
    fakes::client(
        &mut stage,
        "trap 'exit 5' INT; while :; do sleep 0.05; done",
    );
    let run = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("client/pid");
    signal(&run, Signal::SIGINT);
    let ran = finish(run);
    assert_eq!(ran.status, 5, "{}", ran.stderr);
}

#[test]
fn a_client_that_a_signal_ends_is_reported_as_a_shell_does() {
    let mut stage = fakes::stage();
    fakes::client(&mut stage, "kill -9 $$");
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 137, "{}", ran.stderr);
}

#[test]
fn a_stubborn_engine_is_killed_after_its_grace() {
    let mut stage = fakes::stage();
    stage.write("engine/stubborn", "yes");
    fakes::client(&mut stage, "");
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    stage.assert_nothing_left();
}

#[test]
fn a_stubborn_client_is_killed_after_its_grace() {
    let mut stage = fakes::stage();
    fakes::client(&mut stage, "trap '' TERM HUP; while :; do sleep 0.05; done");
    let run = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("client/pid");
    signal(&run, Signal::SIGTERM);
    let ran = finish(run);
    assert_eq!(ran.status, 143, "{}", ran.stderr);
}

#[test]
fn the_engine_does_not_outlive_a_killed_session() {
    let mut stage = fakes::stage();
    fakes::client(
        &mut stage,
        "while :; do kill -0 $PPID 2>/dev/null || exit; sleep 0.05; done",
    );
    let run = stage.start(&["--model", "../model", "--port", &free_port()]);
    stage.wait_for("client/pid");
    signal(&run, Signal::SIGKILL);
    finish(run);
    stage.assert_nothing_left();
}

#[test]
fn a_signal_while_the_engine_stops_does_not_wait_for_it() {
    let mut stage = fakes::stage();
    stage.write("engine/stubborn", "yes");
    fakes::client(&mut stage, "exit 4");
    let run = stage.start(&["--model", "../model", "--port", &free_port()]);
    let client: i32 = stage.wait_for("client/pid").trim().parse().expect("a pid");
    while nix::sys::signal::kill(nix::unistd::Pid::from_raw(client), None).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    signal(&run, Signal::SIGTERM);
    let ran = finish(run);
    assert_eq!(ran.status, 4, "{}", ran.stderr);
    stage.assert_nothing_left();
}

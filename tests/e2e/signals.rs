//! Signals to cclocal at each stage, with the real engine and the real client: nothing is left over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::interactive;
use crate::real::{self, free_port, launch};
use crate::screen::Screen;
use crate::support::{HANG, Stage, finish, signal};

const ALL: [(Signal, i32); 4] = [
    (Signal::SIGINT, 130),
    (Signal::SIGTERM, 143),
    (Signal::SIGHUP, 129),
    (Signal::SIGKILL, 1009),
];

/// Waits for the port to be free. A killed process gives up its memory, and with it its name in the list of processes, a moment before its
/// sockets.
fn port_is_free(port: &str) {
    let number = port.parse().expect("a number");
    let since = Instant::now();
    while !cclocal::sys::port::is_free(number) {
        assert!(since.elapsed() < HANG, "port {port} is still taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn while_the_engine_loads() {
    for (sent, status) in ALL {
        let stage = real::stage(&real::client());
        let port = free_port();
        let run = stage.start(&launch(&port, &["--", "-p", "Create hello.txt"]));
        let log = format!("cclocal/state/server-{port}.log");
        stage.wait_for(&log);
        signal(&run, sent);
        let ran = finish(run);
        assert_eq!(ran.status, status, "{sent}: {}", ran.stderr);
        stage.assert_nothing_left();
        port_is_free(&port);
        assert_eq!(stage.read("work/hello.txt"), "");
    }
}

/// The process id of the session, which its supervisor tells.
fn session_pid(stage: &Stage) -> i32 {
    let status = stage.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    i32::try_from(status[0]["sessions"][0].as_i64().expect("a pid")).expect("a pid")
}

#[test]
fn while_the_client_has_the_terminal() {
    for (sent, status) in ALL.into_iter().skip(1) {
        let stage = real::stage(&real::client());
        let port = free_port();
        let screen = interactive::launch_on(&stage, &port);
        screen.wait_for("Yes, I trust this folder");
        let pid = nix::unistd::Pid::from_raw(session_pid(&stage));
        nix::sys::signal::kill(pid, sent).expect("signalled");
        let status = if status > 1000 {
            status - 1000 + 128
        } else {
            status
        };
        screen.wait_for(&format!("status={status}"));
        drop(screen);
        stage.assert_nothing_left();
        port_is_free(&port);
    }
}

#[test]
fn a_terminal_that_is_closed_ends_all_of_it() {
    let stage = real::stage(&real::client());
    let screen = Screen::open(&stage, 80, 24);
    let port = free_port();
    let binary = env!("CARGO_BIN_EXE_cclocal");
    screen.line(&format!("{binary} --model ../hermes-llama --port {port}"));
    screen.wait_for("Yes, I trust this folder");
    drop(screen);
    stage.assert_nothing_left();
    port_is_free(&port);
}

#[test]
fn an_engine_that_the_system_kills_while_it_loads() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let session = stage.start(&launch(&port, &["--", "-p", "write the file"]));
    let since = Instant::now();
    let engine = loop {
        // By the first words of what its Python runs; the engine is asked for its flags before, by other words.
        let found = stage.survivors().into_iter().find_map(|process| {
            let engine = process.contains("Whether each start-up patch applied");
            let pid = process.split(':').next()?.parse::<i32>().ok()?;
            engine.then_some(pid)
        });
        if let Some(pid) = found {
            break pid;
        }
        assert!(since.elapsed() < HANG, "no engine");
        std::thread::sleep(Duration::from_millis(50));
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(engine), Signal::SIGKILL).expect("killed");
    let ran = finish(session);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the system killed it (SIGKILL)"),
        "{}",
        ran.stderr
    );
}

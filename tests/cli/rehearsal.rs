//! Claude Code shows how it begins before it is asked anything: when, how often, and that nothing stays of it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{HANG, Stage, free_port};

/// The client as it is in a rehearsal: it notes its process and stays, whatever it is told short of a kill or a terminal that is gone.
const STAYS: &str = "echo $$ > '[record]/hidden.new'; mv '[record]/hidden.new' '[record]/hidden'; trap '' TERM INT; while :; do sleep 0.05; done";

/// A stage with a client that does this in a rehearsal, and stays until `home/go-on` appears when it is not one.
fn stage(rehearsing: &str) -> Stage {
    let mut stage = fakes::stage();
    let record = stage.path("client").display().to_string();
    fakes::client_that_rehearses(
        &mut stage,
        &rehearsing.replace("[record]", &record),
        "while [ ! -e \"$HOME/go-on\" ]; do sleep 0.05; done",
    );
    stage
}

/// The profiles that it was started with, one for each time.
fn rehearsals(stage: &Stage) -> Vec<String> {
    let told = stage.read("client/rehearsals");
    told.lines().map(str::to_owned).collect()
}

/// What is written down of clients that were seen.
fn seen(stage: &Stage) -> usize {
    let entries = std::fs::read_dir(stage.path("cclocal/cache/prefixes"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("rehearsal-")
        })
        .count()
}

fn run_folder(stage: &Stage) -> Vec<String> {
    let entries = std::fs::read_dir(stage.path("cclocal/state/run"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A session on a terminal, from its start to its end, once this many rehearsals have been seen.
fn session(stage: &Stage, more: &[&str], rehearsed: usize) {
    let _ = std::fs::remove_file(stage.path("client/pid"));
    let port = free_port();
    let arguments = [&["--model", "../model", "--port", &port][..], more].concat();
    let mut terminal = Terminal::run(stage, &arguments, 80, 24);
    stage.wait_for("client/pid");
    let since = Instant::now();
    let is_over = || {
        !run_folder(stage)
            .iter()
            .any(|name| name.starts_with("rehearsal"))
    };
    while rehearsals(stage).len() < rehearsed || !is_over() {
        assert!(since.elapsed() < HANG, "{:?}", rehearsals(stage));
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.write("home/go-on", "yes");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    std::fs::remove_file(stage.path("home/go-on")).expect("removed");
}

#[test]
fn each_client_once_with_a_profile_of_its_own() {
    // It ends without having asked anything, which another time would be no better.
    let mut stage = stage("exit 0");
    session(&stage, &[], 1);
    let profiles = rehearsals(&stage);
    assert_eq!(profiles.len(), 1, "{profiles:?}");
    assert!(profiles[0].contains("/rehearsal-"), "{profiles:?}");
    assert!(!stage.path(&profiles[0]).exists());
    assert_eq!(seen(&stage), 1);
    let environment = stage.read("client/env");
    assert!(!environment.contains("rehearsal"), "{environment}");

    session(&stage, &[], 1);
    assert_eq!(rehearsals(&stage).len(), 1);

    // Another version.
    let claude = stage.read("bin/claude");
    stage.script("claude", &format!("{claude}\n# newer"));
    session(&stage, &[], 2);
    assert_eq!(rehearsals(&stage).len(), 2);
    stage.set("CCLOCAL_LINGER", "0");
    session(&stage, &[], 2);
    assert_eq!(rehearsals(&stage).len(), 2);
    assert_eq!(run_folder(&stage), [""; 0]);
    stage.assert_nothing_left();
}

#[test]
fn not_where_nobody_types_and_not_where_nothing_is_to_be_remembered() {
    let stage = stage("exit 0");
    stage.write("home/go-on", "yes");
    let port = free_port();
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    std::fs::remove_file(stage.path("home/go-on")).expect("removed");
    session(&stage, &["--", "-p", "Say hello"], 0);
    session(&stage, &["--forget-prefix"], 0);
    assert_eq!(rehearsals(&stage), [""; 0]);
    assert_eq!(seen(&stage), 0);
}

#[test]
fn the_sessions_end_is_its_end() {
    let stage = stage(STAYS);
    for times in 1..3 {
        let port = free_port();
        let mut terminal = Terminal::run(&stage, &["--model", "../model", "--port", &port], 80, 24);
        let hidden = stage.wait_for("client/hidden");
        stage.wait_for("client/pid");
        stage.write("home/go-on", "yes");
        assert_eq!(terminal.end(), 0, "{}", terminal.text());
        assert!(!runs(&hidden));
        // It was not seen, so that it is tried again.
        assert_eq!((rehearsals(&stage).len(), seen(&stage)), (times, 0));
        for name in ["home/go-on", "client/pid", "client/hidden"] {
            std::fs::remove_file(stage.path(name)).expect("removed");
        }
    }
}

#[test]
fn it_does_not_outlive_a_session_that_is_killed() {
    let stage = stage(STAYS);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP] {
        let port = free_port();
        let mut terminal = Terminal::run(&stage, &["--model", "../model", "--port", &port], 80, 24);
        stage.wait_for("client/hidden");
        stage.wait_for("client/pid");
        let session = i32::try_from(terminal.pid()).expect("a pid");
        kill(Pid::from_raw(session), signal).expect("signalled");
        terminal.end();
        stage.assert_nothing_left();
        assert_eq!(run_folder(&stage), [""; 0], "{signal}");
        for name in ["client/pid", "client/hidden"] {
            std::fs::remove_file(stage.path(name)).expect("removed");
        }
    }
}

#[test]
fn it_does_not_outlive_a_load_that_is_interrupted() {
    let stage = stage(STAYS);
    stage.write("engine/slow", "yes");
    let port = free_port();
    let mut terminal = Terminal::run(&stage, &["--model", "../model", "--port", &port], 80, 24);
    stage.wait_for("client/hidden");
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130);
    assert_eq!(run_folder(&stage), [""; 0]);
    stage.assert_nothing_left();
}

fn runs(pid: &str) -> bool {
    let pid = pid.trim().parse().expect("a pid");
    kill(Pid::from_raw(pid), None).is_ok()
}

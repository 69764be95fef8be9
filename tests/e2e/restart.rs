//! An engine that is killed while it works: the real client goes on by itself, on an engine that was started again.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::chain::{Chain, Dialect, lines};
use crate::real::{self, free_port};
use crate::support::{HANG, Stage, finish};

#[test]
fn an_engine_killed_in_the_middle_of_an_answer_in_batched_mode() {
    killed_in_the_middle(false);
}

#[test]
fn an_engine_killed_in_the_middle_of_an_answer_in_simple_mode() {
    killed_in_the_middle(true);
}

fn killed_in_the_middle(simple: bool) {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let long = lines("said", 4_000);
        let port = free_port();
        let mut session = start(&stage, &port, &long, simple);
        let mut events = Events::of(&mut session);
        // Something of the answer has arrived.
        events.wait_for("\"text_delta\"");
        assert_eq!(events.times("message_stop"), 0, "that was too late");
        kill_engine(&stage);
        events.rest();
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}\n{}", events.seen, ran.stderr);
        assert_eq!(stage.read("work/hello.txt"), "hello\n");
        assert!(
            ran.stderr.contains("the engine was restarted once"),
            "{}",
            ran.stderr
        );
        // The whole answer, from its beginning.
        let whole = long.trim_end().replace('\n', "\\n");
        assert!(events.seen.contains(&whole), "{}", events.seen);
        assert_eq!(real::claude_files(&stage), Vec::<String>::new());
        stage.assert_nothing_left();
    }
}

#[test]
fn an_engine_killed_before_its_first_token_in_batched_mode() {
    killed_before_the_first_token(false);
}

#[test]
fn an_engine_killed_before_its_first_token_in_simple_mode() {
    killed_before_the_first_token(true);
}

fn killed_before_the_first_token(simple: bool) {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let port = free_port();
        let mut session = start(&stage, &port, "Now.", simple);
        let mut events = Events::of(&mut session);
        let engine = loop {
            let status = status(&stage);
            if status["phase"] == "ready" {
                break pid_in(&status);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // It has the request and no chance to answer.
        let group = Pid::from_raw(-engine.as_raw());
        kill(group, Signal::SIGSTOP).expect("stopped");
        let since = Instant::now();
        while status(&stage)["busy"] != 1 {
            assert!(since.elapsed() < HANG, "no request came");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(group, Signal::SIGKILL).expect("killed");
        events.rest();
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}\n{}", events.seen, ran.stderr);
        assert_eq!(stage.read("work/hello.txt"), "hello\n");
        assert!(
            ran.stderr.contains("the engine was restarted once"),
            "{}",
            ran.stderr
        );
        assert_eq!(events.times("api_retry"), 0, "{}", events.seen);
        assert_eq!(events.times("\"message_start\""), 2, "{}", events.seen);
        stage.assert_nothing_left();
    }
}

/// A session whose model says this, writes the file, and is done.
fn start(stage: &Stage, port: &str, said: &str, simple: bool) -> Child {
    let file = stage.path("work/hello.txt").display().to_string();
    let call = Dialect::Hermes.call("Write", &[("file_path", &file), ("content", "hello\n")]);
    let model = Chain {
        replies: &[format!("{said}\n{call}"), "All is written.".into()],
        width: 2048,
        simple,
        ..Chain::default()
    }
    .write(stage, Dialect::Hermes);
    stage.start(&[
        "--model",
        &model,
        "--port",
        port,
        "--",
        "-p",
        "Create hello.txt",
        "--output-format",
        "stream-json",
        "--include-partial-messages",
        "--verbose",
    ])
}

fn status(stage: &Stage) -> Value {
    let ran = stage.run(&["status", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    all[0].clone()
}

fn pid_in(status: &Value) -> Pid {
    let pid = status["engine_pid"].as_i64().expect("an engine");
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

/// As the system's memory killer does it.
fn kill_engine(stage: &Stage) {
    let pid = pid_in(&status(stage));
    kill(pid, Signal::SIGKILL).expect("killed");
}

/// What the client prints, event by event.
struct Events {
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    seen: String,
}

impl Events {
    fn of(session: &mut Child) -> Self {
        let stdout = session.stdout.take().expect("standard output");
        Self {
            lines: BufReader::new(stdout).lines(),
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        for line in self.lines.by_ref() {
            let line = line.expect("a line");
            self.seen += &line;
            self.seen.push('\n');
            if line.contains(text) {
                return;
            }
        }
        panic!("{text} did not come:\n{}", self.seen);
    }

    fn rest(&mut self) {
        for line in self.lines.by_ref() {
            self.seen += &line.expect("a line");
            self.seen.push('\n');
        }
    }

    fn times(&self, text: &str) -> usize {
        self.seen.matches(text).count()
    }
}

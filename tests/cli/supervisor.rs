//! Sessions that share an engine: found, kept, ended, started again, and what stands in the way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{HANG, Stage, finish, free_port, signal};

fn staying() -> Stage {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    stage
}

/// Starts a session and waits until its Claude Code is there.
fn start(stage: &Stage, args: &[&str]) -> Child {
    let _ = std::fs::remove_file(stage.path("client/pid"));
    let session = stage.start(args);
    stage.wait_for("client/pid");
    session
}

fn go_on(stage: &Stage) {
    stage.write("home/go-on", "yes");
}

fn statuses(stage: &Stage) -> Vec<Value> {
    let ran = stage.run(&["status", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    all.as_array().expect("a list").clone()
}

/// How many engines were ever started.
fn starts(stage: &Stage) -> usize {
    stage.read("engine/starts").lines().count()
}

fn wait_until(stage: &Stage, what: &str, done: impl Fn(&Stage) -> bool) {
    let since = std::time::Instant::now();
    while !done(stage) {
        assert!(since.elapsed() < HANG, "{what}: it hangs");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_second_session_uses_the_first_ones_engine() {
    let stage = staying();
    let port = free_port();
    let first = start(&stage, &["--model", "../model", "--port", &port]);
    let second = start(&stage, &["--model", "../model"]);
    let env = stage.read("client/env");
    assert!(
        env.contains(&format!("ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\n")),
        "{env}"
    );
    let running = statuses(&stage);
    assert_eq!(running.len(), 1);
    assert_eq!(running[0]["sessions"].as_array().map(Vec::len), Some(2));
    let planned = stage.run(&["--model", "../model", "--dry-run"]).stdout;
    assert!(
        planned.contains(&format!("a real run would use it, on port {port}")),
        "{planned}"
    );
    go_on(&stage);
    let (first, second) = (finish(first), finish(second));
    assert_eq!((first.status, second.status), (0, 0));
    assert!(
        second.stderr.contains("model is loaded already"),
        "{}",
        second.stderr
    );
    assert_eq!(starts(&stage), 1);
}

#[test]
fn an_engine_that_keeps_system_prompts_goes_on_and_is_said_to() {
    let stage = staying();
    let port = free_port();
    let first = start(&stage, &["--model", "../model", "--port", &port]);
    let kept = stage.write("cclocal/cache/prefixes/one/old.safetensors", "x");
    let second = start(&stage, &["--model", "../model", "--forget-prefix"]);
    assert!(!kept.exists());
    let running = statuses(&stage);
    assert_eq!(running.len(), 1);
    assert_eq!(running[0]["keeps_prefix"], true);
    go_on(&stage);
    let (first, second) = (finish(first), finish(second));
    assert_eq!((first.status, second.status), (0, 0));
    let said = format!("goes on storing system prompts; to unload it: cclocal stop --port {port}");
    assert!(second.stderr.contains(&said), "{}", second.stderr);
    assert!(!first.stderr.contains("storing"), "{}", first.stderr);

    // One that was started with it keeps nothing, and there is nothing to say.
    std::fs::remove_file(stage.path("home/go-on")).expect("removed");
    let first = start(&stage, &["--model", "../model", "--forget-prefix"]);
    let second = start(&stage, &["--model", "../model", "--forget-prefix"]);
    assert_eq!(statuses(&stage)[0]["keeps_prefix"], false);
    go_on(&stage);
    for session in [first, second] {
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("storing"), "{}", ran.stderr);
    }
}

#[test]
fn two_that_start_at_once_start_one_engine() {
    let stage = staying();
    let sessions: Vec<Child> = (0..3)
        .map(|_| stage.start(&["--model", "../model"]))
        .collect();
    wait_until(&stage, "three sessions", |stage| {
        statuses(stage)
            .first()
            .is_some_and(|status| status["sessions"].as_array().map(Vec::len) == Some(3))
    });
    assert_eq!(statuses(&stage).len(), 1);
    go_on(&stage);
    for session in sessions {
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    assert_eq!(starts(&stage), 1);
}

#[test]
fn two_that_start_at_once_both_see_what_it_does_and_how_it_fails() {
    let stage = fakes::stage();
    stage.write("engine/slow", "yes");
    let sessions: Vec<Child> = (0..2)
        .map(|_| stage.start(&["--model", "../model"]))
        .collect();
    wait_until(&stage, "two sessions", |stage| {
        statuses(stage).first().is_some_and(|status| {
            status["phase"] == "loading" && status["sessions"].as_array().map(Vec::len) == Some(2)
        })
    });
    let engine = stage.wait_for("engine/pid").trim().parse().expect("a pid");
    kill(Pid::from_raw(engine), Signal::SIGKILL).expect("killed");
    for session in sessions {
        let ran = finish(session);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("loading model into memory")
                && ran.stderr.contains("the system killed it (SIGKILL)"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(starts(&stage), 1);
}

#[test]
fn the_engine_is_kept_for_a_while_and_said_to_be() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_LINGER", "");
    let ran = stage.run(&["--model", "../model"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("model stays loaded for 5 min; `cclocal stop` unloads it now."),
        "{}",
        ran.stderr
    );
    let status = &statuses(&stage)[0];
    assert_eq!(status["sessions"], Value::Array(vec![]));
    assert!(status["ends_in"].as_u64().is_some_and(|left| left > 200));
    let ran = stage.run(&["--model", "../model", "--linger", "0"]);
    assert!(ran.stderr.contains("is loaded already"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("stays loaded"), "{}", ran.stderr);
    assert_eq!(starts(&stage), 1);
    assert_eq!(
        statuses(&stage),
        [Value::Null; 0],
        "the last one ended it at once"
    );
}

#[test]
fn an_engine_that_nobody_uses_ends_when_its_time_is_over() {
    let stage = fakes::stage();
    let ran = stage.run(&["--model", "../model", "--linger", "1"]);
    assert!(ran.stderr.contains("for 1 s"), "{}", ran.stderr);
    stage.assert_nothing_left();
    assert_eq!(stage.run(&["status"]).stderr, "No engine is running.\n");
}

#[test]
fn stop_ends_what_is_not_used_and_with_force_what_is() {
    let stage = staying();
    let port = free_port();
    assert_eq!(stage.run(&["stop"]).stderr, "No engine is running.\n");
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    let ran = stage.run(&["stop"]);
    assert_eq!(ran.status, 1);
    let told = stage
        .filtered(&ran.stderr)
        .replace(&port, "[PORT]")
        .replace(&session.id().to_string(), "[PID]");
    insta::assert_snapshot!(told, @"
    stopping model (0 MB, port [PORT], 1 session, process [PID])
    error: the engine on port [PORT] was not stopped
      cause: a session uses it
      hint: close those sessions first, or stop it anyway: cclocal stop --force --port [PORT]
    ");
    let ran = stage.run(&["stop", "--force"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!stage.path("cclocal/state/run").join(&port).exists());
    let ran = finish(session);
    assert_eq!(ran.status, 14);
    let told = stage.filtered(&ran.stderr).replace(&port, "[PORT]");
    assert!(
        told.contains("error: the engine was stopped\n") && told.contains("--continue"),
        "{told}"
    );
    let ran = stage.run(&["stop", "--port", &port]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(ran.stderr.replace(&port, "[PORT]"), @"
    error: no engine of cclocal runs on port [PORT]
      hint: `cclocal status` shows what runs
    ");
}

#[test]
fn status_tells_a_person_what_runs() {
    let stage = staying();
    let port = free_port();
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    let ran = stage.run(&["status"]);
    let pid = session.id().to_string();
    let told: String = stage
        .filtered(&ran.stdout)
        .replace(&port, "[PORT]")
        .replace(&pid, "[PID]")
        .lines()
        .map(|line| match line.split_once(" resident") {
            Some((before, after)) => {
                let kept = before.rsplit_once("· ").map_or("", |(kept, _)| kept);
                format!("{kept}· [SIZE] resident{after}\n")
            }
            None => match line.split_once("up ") {
                Some((before, _)) => format!("{before}up [TIME]\n"),
                None => format!("{line}\n"),
            },
        })
        .collect();
    insta::assert_snapshot!(told, @"
    model  ready · port [PORT] · up [TIME]
      memory    weights 0 MB · [SIZE] resident · window 65,536 tokens
      sessions  1 (process [PID])
      log       [STAGE]/cclocal/state/server-[PORT].log
    ");
    go_on(&stage);
    assert_eq!(finish(session).status, 0);
}

#[test]
fn logs_shows_the_engines_log_and_follows_it() {
    let stage = staying();
    let port = free_port();
    let ran = stage.run(&["logs", "--port", &port]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("there is no log"), "{}", ran.stderr);
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    let log = stage.path(format!("cclocal/state/server-{port}.log"));
    let add = |text: &str| {
        let mut file = std::fs::File::options()
            .append(true)
            .open(&log)
            .expect("open");
        writeln!(file, "{text}").expect("written");
    };
    add("one line");
    assert!(stage.run(&["logs"]).stdout.ends_with("one line\n"));
    let mut following = stage.start(&["logs", "-f"]);
    let mut lines = BufReader::new(following.stdout.take().expect("its output")).lines();
    let mut wait_for = |wanted: &str| {
        lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find(|line| line == wanted)
            .expect("it comes")
    };
    wait_for("one line");
    add("another");
    wait_for("another");
    signal(&following, Signal::SIGINT);
    assert_eq!(finish(following).status, 1002);
    go_on(&stage);
    finish(session);
}

#[test]
fn another_model_runs_beside_it_where_memory_allows() {
    let mut stage = staying();
    fakes::mac(&mut stage, 64);
    fakes::other_model(&stage);
    let port = free_port();
    let first = start(&stage, &["--model", "../model", "--port", &port]);
    let beside = free_port();
    let second = start(&stage, &["--model", "../other", "--port", &beside]);
    assert_eq!(statuses(&stage).len(), 2);
    go_on(&stage);
    let ran = finish(second);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("also loaded: model ("),
        "{}",
        ran.stderr
    );
    assert_eq!(finish(first).status, 0);
    assert_eq!(starts(&stage), 2);
}

/// A Mac on which one model of these fits and two do not.
fn small_mac(sudo: &str) -> Stage {
    let mut stage = staying();
    fakes::mac(&mut stage, 24);
    stage.write("sudo", sudo);
    fakes::other_model(&stage);
    for name in ["model", "other"] {
        let file = std::fs::File::options()
            .write(true)
            .open(stage.path(name).join("model.safetensors"));
        file.expect("open")
            .set_len(12_000_000_000)
            .expect("its size");
    }
    stage
}

#[test]
fn another_model_does_not_start_beside_one_that_is_used() {
    let stage = small_mac("no");
    let port = free_port();
    let first = start(&stage, &["--model", "../model", "--port", &port]);
    let ran = stage.run(&["--model", "../other"]);
    assert_eq!(ran.status, 12, "{}", ran.stderr);
    let told = stage
        .filtered(&ran.stderr)
        .replace(&port, "[PORT]")
        .replace(&first.id().to_string(), "[PID]");
    let error = told.find("error:").expect("an error");
    insta::assert_snapshot!(&told[error..], @"
    error: other does not fit in memory beside the models that are loaded
      cause: model (11.2 GB, port [PORT], 1 session, process [PID])
      hint: close that session first, or use its model here too: cclocal --model [STAGE]/model
    ");
    go_on(&stage);
    assert_eq!(finish(first).status, 0, "the first was disturbed");
    assert_eq!(starts(&stage), 1);
}

#[test]
fn another_model_takes_the_place_of_one_that_is_not_used() {
    let stage = small_mac("no");
    go_on(&stage);
    let ran = stage.run(&["--model", "../model", "--linger", "300"]);
    assert!(ran.stderr.contains("stays loaded"), "{}", ran.stderr);
    // Asked, and kept: then there is no room.
    let mut terminal = Terminal::run(&stage, &["--model", "../other"], 100, 30);
    let screen = terminal.wait_for("[Y/n]");
    assert!(
        screen.contains("model (11.2 GB, port")
            && screen.contains("is loaded and idle. Stop it to make room?"),
        "{screen}"
    );
    terminal.keys("n\r");
    assert_eq!(terminal.end(), 12, "{}", terminal.text());
    assert_eq!(statuses(&stage).len(), 1);
    // Off a terminal it makes room by itself.
    let ran = stage.run(&["--model", "../other"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("note: stopping model ("),
        "{}",
        ran.stderr
    );
    assert_eq!(starts(&stage), 2);
}

#[test]
fn other_settings_are_another_engine() {
    let stage = staying();
    let port = free_port();
    let first = start(&stage, &["--model", "../model", "--port", &port]);
    let same = [
        vec!["--model", "../model", "--ctx", "65536"],
        vec!["--model", "../model", "--out-tokens", "8192"],
    ];
    for args in same {
        let second = start(&stage, &args);
        assert_eq!(starts(&stage), 1, "{args:?}");
        signal(&second, Signal::SIGTERM);
        finish(second);
    }
    let second = start(&stage, &["--model", "../model", "--ctx", "50000"]);
    assert_eq!(starts(&stage), 2);
    go_on(&stage);
    assert_eq!(finish(second).status, 0);
    assert_eq!(finish(first).status, 0);
}

#[test]
fn an_engine_that_runs_out_of_memory_comes_back_with_less_to_do() {
    let stage = staying();
    stage.write("engine/die-after", "yes");
    let port = free_port();
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    assert_eq!(statuses(&stage)[0]["context_window"], 65_536);
    stage.write("engine/die-now", "yes");
    // It dies at once for as long as the file is there.
    wait_until(&stage, "a restart", |stage| starts(stage) >= 2);
    std::fs::remove_file(stage.path("engine/die-now")).expect("removed");
    wait_until(&stage, "ready again", |stage| {
        statuses(stage)[0]["phase"] == "ready"
    });
    let status = &statuses(&stage)[0];
    assert!(
        status["restarts"]
            .as_u64()
            .is_some_and(|restarts| restarts >= 1)
    );
    assert!(
        status["context_window"]
            .as_u64()
            .is_some_and(|window| window < 65_536),
        "{status}"
    );
    go_on(&stage);
    assert_eq!(finish(session).status, 0);
}

#[test]
fn an_engine_that_keeps_dying_is_given_up() {
    let stage = staying();
    stage.write("engine/die-after", "yes");
    let port = free_port();
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    stage.write("engine/die-now", "yes");
    let ran = finish(session);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("error: the engine died 4 times within 10 minutes"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("the GPU ran out of memory") && ran.stderr.contains("--continue"),
        "{}",
        ran.stderr
    );
    assert_eq!(starts(&stage), 4);
}

#[test]
fn one_of_another_version_is_replaced_if_nobody_uses_it_and_left_alone_if_somebody_does() {
    let stage = fakes::stage();
    let port = free_port();
    let run = stage.path("cclocal/state/run").join(&port);
    for (sessions, said) in [
        (
            "[]",
            "stopping an idle engine of another version of cclocal (0.0.9)",
        ),
        (
            "[4711]",
            "another version of cclocal (0.0.9) runs an engine on port",
        ),
    ] {
        // As they make it: one that others may write to is not asked.
        cclocal::sys::files::private_folder(&run).expect("made");
        let listener = UnixListener::bind(run.join("socket")).expect("bound");
        let folder = run.clone();
        let answering = std::thread::spawn(move || {
            // Until it is told to stop, or the test has ended with it.
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
                reader.read_line(&mut line).expect("read");
                if line.contains("status") {
                    let answer = format!(
                        r#"{{"tell":"status","version":"0.0.9","protocol":99,"sessions":{sessions}}}"#
                    );
                    writeln!(stream, "{answer}").expect("answered");
                    continue;
                }
                if line.contains("stop") {
                    std::fs::remove_dir_all(&folder).expect("removed");
                    writeln!(stream, r#"{{"tell":"ending"}}"#).expect("answered");
                }
                return line;
            }
            String::new()
        });
        let ran = stage.run(&["--model", "../model"]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        if run.exists() {
            // It was left alone, and is ended here.
            let mut stream =
                std::os::unix::net::UnixStream::connect(run.join("socket")).expect("there");
            writeln!(stream, "enough").expect("said");
            assert_eq!(answering.join().expect("ended"), "enough\n");
            std::fs::remove_dir_all(&run).expect("removed");
        } else {
            assert!(answering.join().expect("ended").contains("stop"));
        }
    }
}

#[test]
fn what_a_killed_supervisor_left_is_recognised() {
    let stage = fakes::stage();
    let port = free_port();
    let run = stage.path("cclocal/state/run").join(&port);
    std::fs::create_dir_all(&run).expect("made");
    // A socket that nobody listens on, a lock that nobody holds, and the number of a process that is somebody else's.
    drop(UnixListener::bind(run.join("socket")).expect("bound"));
    stage.write(&format!("cclocal/state/run/{port}/lock"), "");
    let record = format!(
        r#"{{"pid":{},"port":{port},"model":"x","version":"0.1.0"}}"#,
        std::process::id()
    );
    stage.write(&format!("cclocal/state/run/{port}/record.json"), &record);
    assert_eq!(stage.run(&["status"]).stderr, "No engine is running.\n");
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!run.exists());
}

#[test]
fn a_supervisor_that_is_stopped_is_not_waited_for_for_ever() {
    let stage = staying();
    let port = free_port();
    let session = start(&stage, &["--model", "../model", "--port", &port]);
    let pid = statuses(&stage)[0]["pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).expect("small"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    kill(pid, Signal::SIGCONT).expect("continued");
    go_on(&stage);
    assert_eq!(finish(session).status, 0);
}

#[test]
fn a_home_with_a_long_path_works_and_leaves_nothing() {
    let mut stage = staying();
    let home = stage.path(format!("cclocal/{}", "a-long-name/".repeat(10)));
    stage.set("CCLOCAL_HOME", home.display().to_string());
    // The client's record of settings is elsewhere then.
    let session = start(&stage, &["--model", "../model"]);
    assert_eq!(statuses(&stage).len(), 1);
    let folder = format!("/tmp/cclocal-{}", nix::unistd::getuid());
    let sockets = || {
        std::fs::read_dir(&folder)
            .map(Iterator::count)
            .unwrap_or_default()
    };
    assert!(sockets() > 0);
    go_on(&stage);
    assert_eq!(finish(session).status, 0);
    stage.assert_nothing_left();
}

#[test]
fn the_supervisor_is_nothing_to_run_by_hand() {
    let stage = fakes::stage();
    let ran = stage.run(&["supervisor"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.stdout.contains("this command is run by cclocal itself"),
        "{}",
        ran.stdout
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_that_cannot_be_written_ends_nothing() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_LOG", "trace");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("the device that is always full");
    let session = stage
        .command(&["--model", "../model"])
        .stderr(full)
        .output()
        .expect("run");
    assert_eq!(session.status.code(), Some(0));
}

//! A supervisor that is there and does not answer: it counts as what it is, and every wait for it has an end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{HANG, Stage, finish, free_port, signal};

/// A session with its supervisor.
struct Running {
    session: Child,
    port: String,
    supervisor: Pid,
}

impl Running {
    fn start(stage: &Stage, model: &str) -> Self {
        let port = free_port();
        let session = stage.start(&["--model", model, "--port", &port]);
        stage.wait_for("client/pid");
        Self {
            session,
            supervisor: supervisor(stage, &port),
            port,
        }
    }
}

/// As it wrote about itself.
fn supervisor(stage: &Stage, port: &str) -> Pid {
    let record = stage.wait_for(&format!("cclocal/state/run/{port}/record.json"));
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let pid = record["pid"].as_i64().expect("a pid");
    Pid::from_raw(i32::try_from(pid).expect("small"))
}

fn staying() -> Stage {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    stage
}

fn go_on(stage: &Stage) {
    stage.write("home/go-on", "yes");
}

/// A whole model in the cache of the hub.
fn in_the_cache(stage: &Stage, name: &str) -> PathBuf {
    let folder = format!(
        "home/.cache/huggingface/hub/models--{}",
        name.replace('/', "--")
    );
    stage.write(&format!("{folder}/refs/main"), "abc");
    for file in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "chat_template.jinja",
    ] {
        let text = stage.read(&format!("model/{file}"));
        stage.write(&format!("{folder}/snapshots/abc/{file}"), &text);
    }
    stage.path(folder)
}

#[test]
fn one_that_is_stopped_is_said_to_be_there_and_its_model_is_kept() {
    let stage = staying();
    let folder = in_the_cache(&stage, "org/name");
    let running = Running::start(&stage, "org/name");
    kill(running.supervisor, Signal::SIGSTOP).expect("stopped");
    let told = |text: &str| {
        stage
            .filtered(text)
            .replace(&running.port, "[PORT]")
            .replace(&running.supervisor.to_string(), "[PID]")
    };

    let ran = stage.run(&["status"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    insta::assert_snapshot!(told(&ran.stdout), @"
    org/name (port [PORT], process [PID])  not answering
      hint      if it is suspended, `kill -CONT [PID]` resumes it; `cclocal stop --force --port [PORT]` stops it and ends the sessions that use it
    ");
    let json = stage.run(&["status", "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json[0]["phase"], &json[0]["source"], &json[0]["pid"]),
        (
            &"silent".into(),
            &"org/name".into(),
            &running.supervisor.as_raw().into()
        )
    );

    let ran = stage.run(&["rm", "org/name", "--yes"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(told(&ran.stderr), @"
    error: org/name was not removed
      cause: it is loaded: the supervisor of org/name (port [PORT], process [PID]) does not answer
      hint: if it is suspended, `kill -CONT [PID]` resumes it; `cclocal stop --force --port [PORT]` stops it and ends the sessions that use it
    ");
    assert!(folder.join("snapshots/abc/config.json").exists());
    let listed = stage.run(&["list"]).stdout;
    assert!(
        listed.contains(&format!("in use on port {}", running.port)),
        "{listed}"
    );

    for model in ["org/name", "../model"] {
        let ran = stage.run(&["--model", model]);
        assert_eq!(ran.status, 14, "{model}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("was not started") && ran.stderr.contains("does not answer"),
            "{}",
            ran.stderr
        );
        let planned = stage.run(&["--model", model, "--dry-run"]).stdout;
        assert!(planned.contains("a real run would be refused"), "{planned}");
    }
    assert_eq!(stage.read("engine/starts").lines().count(), 1);

    kill(running.supervisor, Signal::SIGCONT).expect("continued");
    go_on(&stage);
    assert_eq!(finish(running.session).status, 0, "it was disturbed");
}

#[test]
fn stop_asks_before_it_ends_one_that_does_not_answer() {
    let stage = staying();
    let running = Running::start(&stage, "../model");
    kill(running.supervisor, Signal::SIGSTOP).expect("stopped");
    let ran = stage.run(&["stop"]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    let told = ran
        .stderr
        .replace(&running.port, "[PORT]")
        .replace(&running.supervisor.to_string(), "[PID]");
    insta::assert_snapshot!(told, @"
    error: the engine on port [PORT] was not stopped
      cause: the supervisor of model (port [PORT], process [PID]) does not answer
      hint: if it is suspended, `kill -CONT [PID]` resumes it; `cclocal stop --force --port [PORT]` stops it and ends the sessions that use it
    ");
    let mut terminal = Terminal::run(&stage, &["stop"], 100, 30);
    terminal.wait_for("[y/N]");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 14, "{}", terminal.text());
    let mut terminal = Terminal::run(&stage, &["stop"], 100, 30);
    terminal.wait_for("[y/N]");
    terminal.keys("y\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let ran = finish(running.session);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    stage.assert_nothing_left();
    assert!(!stage.path("cclocal/state/run").join(&running.port).exists());
}

#[test]
fn a_session_is_left_also_if_its_supervisor_does_not_answer() {
    let stage = staying();
    let running = Running::start(&stage, "../model");
    kill(running.supervisor, Signal::SIGSTOP).expect("stopped");
    go_on(&stage);
    let ran = finish(running.session);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("does not answer and was left as it is")
            && ran
                .stderr
                .contains(&format!("kill -CONT {}", running.supervisor)),
        "{}",
        ran.stderr
    );
    // It ends as soon as it hears that the session has gone.
    kill(running.supervisor, Signal::SIGCONT).expect("continued");
    stage.assert_nothing_left();
}

#[test]
fn a_second_signal_does_not_wait_for_a_supervisor_that_does_not_answer() {
    let mut stage = fakes::stage();
    fakes::client(
        &mut stage,
        "trap 'exit 7' TERM; while :; do sleep 0.05; done",
    );
    let running = Running::start(&stage, "../model");
    kill(running.supervisor, Signal::SIGSTOP).expect("stopped");
    signal(&running.session, Signal::SIGTERM);
    let client = stage.read("client/pid").trim().parse().expect("a pid");
    wait_until("the client's end", || {
        kill(Pid::from_raw(client), None).is_err()
    });
    // Again and again, as it may not have come to the wait yet.
    let mut session = running.session;
    wait_until("the session's end", || {
        let _ = kill(
            Pid::from_raw(i32::try_from(session.id()).expect("small")),
            Signal::SIGINT,
        );
        session.try_wait().expect("waited").is_some()
    });
    kill(running.supervisor, Signal::SIGCONT).expect("continued");
    stage.assert_nothing_left();
}

#[test]
fn one_that_hears_no_signal_is_killed_if_that_is_asked_for() {
    let stage = fakes::stage();
    let port = free_port();
    let mut hung = hung(&stage, &port);
    let told = stage.run(&["status"]).stdout;
    assert!(told.contains("not answering"), "{told}");
    let ran = stage.run(&["stop", "--port", &port]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(hung.try_wait().expect("waited").is_none(), "it was ended");
    let ran = stage.run(&["stop", "--port", &port, "--force"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    hung.wait().expect("collected");
    assert!(!stage.path("cclocal/state/run").join(&port).exists());
}

/// Starts a process that holds a port as a supervisor does, takes nobody in, and hears no SIGTERM.
fn hung(stage: &Stage, port: &str) -> Child {
    let folder = stage.path("cclocal/state/run").join(port);
    std::fs::create_dir_all(&folder).expect("made");
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "hung::hung_process", "--ignored", "--nocapture"])
        .env("STAGE_HUNG", &folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    stage.wait_for(&format!("cclocal/state/run/{port}/record.json"));
    child
}

/// Plays that supervisor. Ignored, because it is no test: the tests above run it.
#[test]
#[ignore = "a process that the tests run"]
fn hung_process() {
    let folder = PathBuf::from(std::env::var_os("STAGE_HUNG").expect("run by a test"));
    // SAFETY: no handler is installed.
    unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("ignored");
    let lock = std::fs::File::create(folder.join("lock")).expect("made");
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("free");
    let owner = std::fs::File::create(folder.join("owner")).expect("made");
    rustix::fs::fcntl_lock(&owner, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .expect("free");
    let _listener = UnixListener::bind(folder.join("socket")).expect("bound");
    let port = folder
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let record = format!(
        r#"{{"pid":{},"port":{port},"model":"x","version":"0.1.0"}}"#,
        std::process::id()
    );
    std::fs::write(folder.join("record.json"), record).expect("written");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn session_and_supervisor_killed_together_leave_nothing() {
    for stopped in [false, true] {
        let mut stage = fakes::stage();
        fakes::client(&mut stage, "trap '' TERM HUP; while :; do sleep 0.05; done");
        let running = Running::start(&stage, "../model");
        let session = Pid::from_raw(i32::try_from(running.session.id()).expect("small"));
        if stopped {
            let client = stage.read("client/pid").trim().parse().expect("a pid");
            kill(Pid::from_raw(client), Signal::SIGSTOP).expect("stopped");
        }
        // Neither sees the other's end.
        for pid in [session, running.supervisor] {
            kill(pid, Signal::SIGSTOP).expect("stopped");
        }
        for pid in [session, running.supervisor] {
            kill(pid, Signal::SIGKILL).expect("killed");
        }
        assert_eq!(finish(running.session).status, 1009);
        stage.assert_nothing_left();
        let folder = stage
            .path("cclocal/state/run")
            .join(format!("session-{session}"));
        assert!(!folder.exists(), "its settings are left");
        // What the supervisor left is for the next start.
        assert_eq!(stage.run(&["status"]).stderr, "No engine is running.\n");
    }
}

#[test]
fn many_that_stop_it_at_once_all_do() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_LINGER", "");
    assert_eq!(stage.run(&["--model", "../model"]).status, 0);
    let stops: Vec<Child> = (0..8).map(|_| stage.start(&["stop"])).collect();
    for stop in stops {
        let ran = finish(stop);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    stage.assert_nothing_left();
}

/// Asks how things are, again and again on new connections, until the supervisor has gone. Each counts its answers.
fn asking(socket: PathBuf, answers: &AtomicUsize, gone: &AtomicBool) {
    while !gone.load(Ordering::SeqCst) {
        let Ok(mut stream) = UnixStream::connect(&socket) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mut line = String::new();
        if writeln!(stream, r#"{{"ask":"status"}}"#).is_ok()
            && BufReader::new(stream).read_line(&mut line).is_ok()
            && !line.is_empty()
        {
            answers.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn no_questions_keep_a_supervisor_from_its_signals_nor_a_start_from_its_progress() {
    for starting in [false, true] {
        let stage = staying();
        let port = free_port();
        if starting {
            stage.write("engine/slow", "yes");
        }
        let session = stage.start(&["--model", "../model", "--port", &port]);
        stage.wait_for(if starting { "engine/pid" } else { "client/pid" });
        let supervisor = supervisor(&stage, &port);
        let folder = stage.path("cclocal/state/run").join(&port);
        let (answers, gone) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| asking(folder.join("socket"), &answers, &gone));
            }
            wait_until("answers", || answers.load(Ordering::SeqCst) > 100);
            kill(supervisor, Signal::SIGTERM).expect("sent");
            // They go on asking until it has ended.
            wait_until("its end", || !folder.exists());
            gone.store(true, Ordering::SeqCst);
        });
        let ran = finish(session);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        stage.assert_nothing_left();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < HANG, "{what}: it hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

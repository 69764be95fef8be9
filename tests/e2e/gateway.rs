//! The gateway between the real client and the real engine, in the chain that a user starts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::chain::{Chain, DIALECTS, Dialect, lines};
use crate::real::{self, free_port};
use crate::support::{HANG, Ran, Stage, finish, signal};

/// What a model says when it is asked for a summary, and after that.
const COMPACTED: [(&str, &str); 2] = [
    ("detailed summary of", "<summary>Files were read.</summary>"),
    ("This session is being continued", "All is read."),
];

#[test]
fn a_written_file_is_what_the_model_wrote() {
    // Indented, as JSON would be read, and with a last line's end.
    let content = "    {\"indented\": [1, 2]}\n\n  \tand so on & on\n";
    for dialect in DIALECTS {
        let stage = real::stage(&real::client());
        let file = stage.path("work/note.txt").display().to_string();
        let edited = stage.write("work/edit.py", "def f():\n    a = 1\n    b = 2\n");
        let edited = edited.display().to_string();
        let model = Chain {
            replies: &[
                dialect.call("Write", &[("file_path", &file), ("content", content)]),
                dialect.call("Read", &[("file_path", &edited)]),
                dialect.call(
                    "Edit",
                    &[
                        ("file_path", &edited),
                        ("old_string", "    a = 1\n"),
                        ("new_string", "    if True:\n        a = 10\n"),
                    ],
                ),
                "All is written.".into(),
            ],
            simple: dialect == Dialect::Gemma4,
            ..Chain::default()
        }
        .write(&stage, dialect);
        let ran = print(
            &stage,
            &model,
            &[],
            &["--output-format", "stream-json", "--verbose"],
        );
        assert_eq!(ran.status, 0, "{dialect:?}: {}", ran.stderr);
        assert_eq!(stage.read("work/note.txt"), content, "{dialect:?}");
        assert_eq!(
            stage.read("work/edit.py"),
            "def f():\n    if True:\n        a = 10\n    b = 2\n",
            "{dialect:?}"
        );
        // The marker is several tokens here.
        assert!(
            !ran.stdout.contains("\"text\":\"<"),
            "{dialect:?}: {}",
            ran.stdout
        );
    }
}

#[test]
fn a_call_that_is_cut_leaves_no_half_file_and_is_tried_again() {
    // What the client is sent is the same in all dialects.
    let of_the_newest = DIALECTS.map(|dialect| (real::client(), dialect));
    let of_the_old = [(real::old_client(), Dialect::Hermes)];
    for (client, dialect) in of_the_newest.into_iter().chain(of_the_old) {
        let stage = real::stage(&client);
        let file = stage.path("work/note.txt").display().to_string();
        let long = lines("a", 3000);
        let model = Chain {
            replies: &[
                dialect.call("Write", &[("file_path", &file), ("content", &long)]),
                dialect.call("Write", &[("file_path", &file), ("content", "short\n")]),
                "All is written.".into(),
            ],
            simple: dialect == Dialect::Gemma4,
            ..Chain::default()
        }
        .write(&stage, dialect);
        let ran = print(
            &stage,
            &model,
            &["--out-tokens", "200"],
            &["--output-format", "stream-json", "--verbose"],
        );
        assert_eq!(ran.status, 0, "{dialect:?}: {}", ran.stderr);
        let said = &ran.stdout;
        assert!(
            said.contains("limit of 200 tokens inside a call of the tool Write"),
            "{dialect:?}: {said}"
        );
        assert_eq!(
            said.matches("\"tool_use\"").count(),
            1,
            "{dialect:?}: {said}"
        );
        assert_eq!(stage.read("work/note.txt"), "short\n", "{dialect:?}");
    }
}

#[test]
fn the_clients_figures_are_the_engines_own_in_batched_mode() {
    figures_agree(false);
}

#[test]
fn the_clients_figures_are_the_engines_own_in_simple_mode() {
    figures_agree(true);
}

fn figures_agree(simple: bool) {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let model = reading(&stage, 3, 600, simple);
        let ran = print(&stage, &model, &[], &["--output-format", "json"]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(answer["num_turns"], 4, "{answer}");
        let of_model = |key: &str| -> u64 {
            let models = answer["modelUsage"].as_object().expect("figures");
            models
                .values()
                .filter_map(|model| model[key].as_u64())
                .sum()
        };
        let logged = Prompts::of(&engine_log(&stage));
        assert_eq!(logged.0.len(), 4, "{logged:?}");
        let prompt = of_model("inputTokens") + of_model("cacheReadInputTokens");
        println!(
            "simple: {simple}; the client: {} computed, {} cached, {} out; the engine: {} prompt, {} computed",
            of_model("inputTokens"),
            of_model("cacheReadInputTokens"),
            of_model("outputTokens"),
            logged.prompt(),
            logged.computed()
        );
        close(prompt, logged.prompt());
        close(of_model("inputTokens"), logged.computed());
        assert!(of_model("cacheReadInputTokens") > 0);
        assert!(of_model("outputTokens") > 0);
    }
}

/// Within 2 %.
fn close(one: u64, other: u64) {
    assert!(
        one.abs_diff(other) * 50 <= other,
        "{one} and {other} differ by more than 2 %"
    );
}

#[test]
fn a_prompt_beyond_the_window_is_refused_and_compacted() {
    let stage = real::stage(&real::client());
    let debug = stage.path("debug.log").display().to_string();
    // What was read by Read would be read again after the compaction. At the end, two files at once: to the client 8,500 tokens, to this model 32,000.
    let early = (0..4).map(|number| {
        let name = format!("early{number}");
        let path = stage.write(&format!("work/{name}.txt"), &lines(&name, 1_500));
        let path = path.display().to_string();
        let arguments = [
            ("pattern", "line"),
            ("path", &path),
            ("output_mode", "content"),
        ];
        Dialect::Hermes.call("Grep", &arguments)
    });
    let mut replies: Vec<String> = early.collect();
    replies.push(read(&stage, &[1, 2], 15_500));
    replies.push("All is read.".into());
    let model = Chain {
        replies: &replies,
        rules: &COMPACTED,
        ..Chain::default()
    }
    .write(&stage, Dialect::Hermes);
    let ran = print(
        &stage,
        &model,
        &["--ctx", "65536"],
        &[
            "--debug-file",
            &debug,
            "--output-format",
            "stream-json",
            "--verbose",
        ],
    );
    let debug = stage.read("debug.log");
    let logged = Prompts::of(&engine_log(&stage));
    assert!(debug.contains("tokens > 61440 maximum"), "{logged:?}");
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("All is read."), "{}", ran.stdout);
    prompts_and_replies_fit(&stage, 65_536);
}

/// 2.1.197 takes 200,000 tokens for granted, whatever it is told: the refusal is what makes it compact.
#[test]
fn the_old_client_goes_up_to_the_window_and_compacts_there() {
    let stage = real::stage(&real::old_client());
    let model = reading(&stage, 16, 3000, false);
    let debug = stage.path("debug.log").display().to_string();
    let ran = print(
        &stage,
        &model,
        &["--ctx", "65536"],
        &["--debug-file", &debug],
    );
    let debug = stage.read("debug.log");
    assert!(debug.contains("tokens > 61440 maximum"), "{debug}");
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("All is read."), "{}", ran.stdout);
    let cut = prompts_and_replies_fit(&stage, 65_536);
    assert!(cut > 0, "it comes near the window");
}

/// Every reply that the engine was asked for has room beside its prompt. Returns how many were shortened for that.
fn prompts_and_replies_fit(stage: &Stage, window: u64) -> usize {
    let log = engine_log(stage);
    let number = |line: &str, words: &str| after_each(line, words)[0];
    let asked: Vec<(u64, u64)> = (log.lines())
        .filter(|line| line.contains("[schedule]"))
        .map(|line| {
            (
                number(line, " prompt_tokens="),
                number(line, " max_tokens="),
            )
        })
        .collect();
    println!("prompts and their longest replies: {asked:?}");
    for (prompt, reply) in &asked {
        assert!(prompt + reply <= window, "{asked:?}");
    }
    let longest = asked.iter().map(|(_, reply)| *reply).max();
    asked
        .iter()
        .filter(|(_, reply)| Some(*reply) < longest)
        .count()
}

#[test]
fn a_client_that_is_killed_frees_the_engine_in_batched_mode() {
    killed_client(false);
}

#[test]
fn a_client_that_is_killed_frees_the_engine_in_simple_mode() {
    killed_client(true);
}

fn killed_client(simple: bool) {
    let stage = real::stage(&real::client());
    let long = lines("said", 12_000);
    let model = Chain {
        replies: &[long],
        rules: &[("in short", "Here.")],
        width: 4096,
        simple,
        ..Chain::default()
    }
    .write(&stage, Dialect::Hermes);
    let server = Server::start(&stage, &model);
    let mut first = stage.start(&[
        "connect",
        "--port",
        &server.port,
        "--",
        "-p",
        "at length",
        "--output-format",
        "stream-json",
        "--include-partial-messages",
        "--verbose",
    ]);
    let stdout = first.stdout.take().expect("standard output");
    let mut said = BufReader::new(stdout).lines();
    let begun = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("text_delta")));
    assert!(begun.is_some(), "nothing was said");
    kill(process(&stage, &real::client()), Signal::SIGKILL).expect("killed");
    let second = stage.run(&["connect", "--port", &server.port, "--", "-p", "in short"]);
    assert_eq!(second.status, 0, "{}", second.stderr);
    assert!(second.stdout.contains("Here."), "{}", second.stdout);
    assert_eq!(finish(first).status, 137);
    let log = engine_log(&stage);
    server.stop();
    // The long reply has some 2,000 tokens.
    let replies = after_each(&log, "Anthropic messages (stream): ");
    assert!(replies.iter().all(|tokens| *tokens < 1000), "{log}");
}

#[test]
fn two_terminals_share_one_engine() {
    let stage = real::stage(&real::client());
    let model = Chain {
        replies: &["Here I am.".into(), "And again.".into()],
        ..Chain::default()
    }
    .write(&stage, Dialect::Hermes);
    let port = free_port();
    let screen = crate::interactive::start_with(&stage, &port, &model);
    screen.line("Hello");
    screen.wait_for("Here I am.");
    let second = stage.run(&["--model", &model, "--port", &port, "--", "-p", "Hello"]);
    assert_eq!(second.status, 0, "{}", second.stderr);
    assert!(
        second.stderr.contains("is loaded already"),
        "{}",
        second.stderr
    );
    assert!(second.stdout.contains("Here I am."), "{}", second.stdout);
    // The first one goes on.
    screen.line("Hello again");
    screen.wait_for("And again.");
    assert_eq!(
        engine_log(&stage).matches("Started server process").count(),
        1
    );
    assert!(
        !stage
            .path(format!("cclocal/state/server-{port}.log.1"))
            .exists()
    );
    crate::interactive::leave(&screen);
}

#[test]
fn strangers_get_no_answer_and_prompts_are_in_no_file() {
    let mut stage = real::stage(&real::client());
    stage.set("CCLOCAL_LOG", "trace");
    let server = Server::start(&stage, "../hermes-llama");
    let marked = "xyzzy-plugh-4711";
    let session = stage.run(&["connect", "--port", &server.port, "--", "-p", marked]);
    assert_eq!(session.status, 0, "{}", session.stderr);
    let key = server.key();
    let body = json!({
        "model": "x", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}],
    })
    .to_string();
    let good = format!("Authorization: Bearer {key}\r\n");
    let plain = "Content-Type: application/json\r\n";
    let host = format!("Host: 127.0.0.1:{}\r\n", server.port);
    let post = |head: &str| server.raw(&format!("POST /v1/messages HTTP/1.1\r\n{head}"), &body);
    assert_eq!(post(&format!("{host}{good}{plain}")).0, 200);
    for (head, status) in [
        (format!("{host}{plain}"), 401),
        (format!("{host}{plain}Authorization: Bearer wrong\r\n"), 401),
        (format!("{host}{plain}x-api-key: {}\r\n", &key[1..]), 401),
        (
            format!("{host}{good}{plain}Origin: http://evil.example\r\n"),
            403,
        ),
        (format!("{host}{good}{plain}Origin: null\r\n"), 403),
        (
            format!("{host}{good}{plain}Sec-Fetch-Site: cross-site\r\n"),
            403,
        ),
        (format!("Host: evil.example\r\n{good}{plain}"), 403),
        (format!("{good}{plain}"), 403),
        (format!("{host}{good}Content-Type: text/plain\r\n"), 415),
    ] {
        let (got, answer) = post(&head);
        assert_eq!(got, status, "{head}{answer}");
        assert!(
            !answer.to_ascii_lowercase().contains("access-control-"),
            "{answer}"
        );
        assert!(!answer.contains("\"content\""), "{answer}");
    }
    let preflight = format!(
        "OPTIONS /v1/messages HTTP/1.1\r\n{host}Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
    );
    let (status, answer) = server.raw(&preflight, "");
    assert_eq!(status, 403, "{answer}");
    assert!(
        !answer.to_ascii_lowercase().contains("access-control-"),
        "{answer}"
    );

    let with_it = files_with(&stage.path("cclocal/state"), marked);
    let log = stage.path(format!("cclocal/state/server-{}.log", server.port));
    assert!(
        with_it.iter().all(|path| *path == log),
        "the engine's log alone may have the prompt's start: {with_it:?}"
    );
    let own = stage.path(format!("cclocal/state/supervisor-{}.log", server.port));
    let said = std::fs::read_to_string(&own).expect("its log");
    assert!(!said.is_empty(), "it is told to say all");
    assert!(!said.contains(&key), "nor is the key in it");
    for private in ["cclocal/state", "cclocal/state/run"] {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::fs::metadata(stage.path(private)).expect("a folder");
        assert_eq!(folder.permissions().mode() & 0o077, 0, "{private}");
    }
    server.stop();
}

#[test]
fn reminders_in_mid_conversation_cost_only_themselves() {
    let stage = real::stage(&real::client());
    let model = Chain {
        replies: &["one".into()],
        ..Chain::default()
    }
    .write(&stage, Dialect::Hermes);
    let server = Server::start(&stage, &model);
    let key = server.key();
    let tool = json!({"name": "Write", "description": lines("tool", 4000), "input_schema": {"type": "object", "properties": {}}});
    let mut messages = vec![
        json!({"role": "user", "content": "begin"}),
        json!({"role": "system", "content": "# Environment"}),
    ];
    for turn in 0..8 {
        let body = json!({
            "model": "x", "max_tokens": 100, "stream": true, "tools": [tool.clone()],
            "system": [{"type": "text", "text": lines("system", 4000)}], "messages": messages,
        });
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        );
        let (status, answer) = server.raw(&head, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        messages.extend([
            json!({"role": "assistant", "content": "yes"}),
            json!({"role": "user", "content": lines("more", 400)}),
            json!({"role": "system", "content": format!("<total_tokens>{turn} left</total_tokens>")}),
        ]);
    }
    let logged = Prompts::of(&engine_log(&stage));
    server.stop();
    let prompts: Vec<u64> = logged.0.iter().map(|prompt| prompt.0).collect();
    let new = prompts[0]
        + prompts
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .sum::<u64>();
    let ratio = logged.computed() as f64 / new as f64;
    println!("reminders: {logged:?}: ratio {ratio:.3}");
    assert!(ratio <= 1.05, "{ratio:.3}: {logged:?}");
}

/// A model that reads this many files of about this many bytes, one after the other.
fn reading(stage: &Stage, files: usize, bytes: usize, simple: bool) -> String {
    let mut replies = Vec::new();
    for number in 0..files {
        replies.push(read(stage, &[number], bytes));
    }
    replies.push("All is read.".into());
    Chain {
        replies: &replies,
        rules: &COMPACTED,
        simple,
        ..Chain::default()
    }
    .write(stage, Dialect::Hermes)
}

/// A reply that reads these new files.
fn read(stage: &Stage, numbers: &[usize], bytes: usize) -> String {
    let calls: Vec<String> = numbers
        .iter()
        .map(|number| {
            let name = format!("file{number}");
            let path = stage.write(&format!("work/{name}.txt"), &lines(&name, bytes));
            let path = path.display().to_string();
            Dialect::Hermes.call("Read", &[("file_path", &path)])
        })
        .collect();
    calls.join("\n")
}

/// One question in print mode.
fn print(stage: &Stage, model: &str, options: &[&str], of_client: &[&str]) -> Ran {
    let port = free_port();
    let mut args = vec!["--model", model, "--port", &port];
    args.extend(options);
    args.extend(["--", "-p", "Do what is to be done"]);
    args.extend(of_client);
    stage.run(&args)
}

/// The engine's log of the one engine that ran here.
fn engine_log(stage: &Stage) -> String {
    let state = std::fs::read_dir(stage.path("cclocal/state")).expect("the state folder");
    let names = state.flatten().map(|entry| entry.path());
    let log = names
        .filter(|path| path.to_string_lossy().ends_with(".log"))
        .find(|path| path.to_string_lossy().contains("/server-"))
        .expect("a log");
    String::from_utf8_lossy(&std::fs::read(log).expect("read")).into_owned()
}

/// The numbers that follow these words.
fn after_each(text: &str, words: &str) -> Vec<u64> {
    let number = |rest: &str| {
        let end = rest.find(|digit: char| !digit.is_ascii_digit())?;
        rest[..end].parse().ok()
    };
    text.split(words).skip(1).filter_map(number).collect()
}

/// Of each prompt, its tokens, and how many of them were computed, as the engine's log has them.
#[derive(Debug)]
struct Prompts(Vec<(u64, u64)>);

impl Prompts {
    fn of(log: &str) -> Self {
        let first = |line: &str, words: &str| after_each(line, words).first().copied();
        let prompts = log.lines().filter_map(|line| {
            if line.contains("[schedule]") {
                let computed = first(line, "tokens_to_prefill=")?;
                return Some((first(line, " prompt_tokens=")?, computed));
            }
            if let Some(reused) = first(line, "reusing ") {
                let computed = first(line, "tokens, prefilling ")?;
                return Some((reused + computed, computed));
            }
            let all = first(line, "will prefill ")? + first(line, " system + ")?;
            Some((all, all))
        });
        Self(prompts.collect())
    }

    fn prompt(&self) -> u64 {
        self.0.iter().map(|prompt| prompt.0).sum()
    }

    fn computed(&self) -> u64 {
        self.0.iter().map(|prompt| prompt.1).sum()
    }
}

/// The files below a folder that have this text in them.
fn files_with(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), text));
        } else if kind.is_file() {
            let content = std::fs::read(entry.path()).unwrap_or_default();
            if String::from_utf8_lossy(&content).contains(text) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The process of this stage that runs this program.
fn process(stage: &Stage, program: &Path) -> Pid {
    let program = program.canonicalize().expect("a path");
    let runs_it = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|runs| runs == program)
    };
    let pids: Vec<i32> = stage.pids().into_iter().filter(runs_it).collect();
    let [pid] = pids[..] else {
        panic!("{} runs as {pids:?}", program.display());
    };
    Pid::from_raw(pid)
}

/// `cclocal --server`.
struct Server<'a> {
    stage: &'a Stage,
    run: Child,
    port: String,
}

impl<'a> Server<'a> {
    fn start(stage: &'a Stage, model: &str) -> Self {
        let port = free_port();
        let out = std::fs::File::create(stage.path("out")).expect("made");
        let run = stage
            .command(&["--server", "--model", model, "--port", &port])
            .stdout(out)
            .stderr(std::fs::File::create(stage.path("said")).expect("made"))
            .spawn()
            .expect("started");
        stage.wait_for("out");
        Self { stage, run, port }
    }

    fn key(&self) -> String {
        let run = std::fs::read_dir(self.stage.path("cclocal/state/run")).expect("run folders");
        run.flatten()
            .find_map(|folder| std::fs::read_to_string(folder.path().join("key")).ok())
            .expect("a key")
    }

    /// Sends this head and body and returns the status and all of the answer.
    fn raw(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).expect("connected");
        stream.set_read_timeout(Some(HANG)).expect("a limit");
        let length = body.len();
        let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), answer)
    }

    fn stop(mut self) {
        signal(&self.run, Signal::SIGINT);
        let status = self.run.wait().expect("waited");
        assert!(status.success(), "{}", self.stage.read("said"));
    }
}

impl Drop for Server<'_> {
    /// Of a test that failed.
    fn drop(&mut self) {
        if let Ok(None) = self.run.try_wait() {
            signal(&self.run, Signal::SIGINT);
            let _ = self.run.wait();
        }
    }
}

//! `--connect URL`: Claude Code on an engine that somebody else runs. The engine is a thread of the test; the stage has no engine of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{HANG, Ran, Stage, finish, free_port, signal};

const TOKEN: &str = "the-token-of-the-engine";

/// What vllm-mlx says of its model.
const ONE_MODEL: &str = r#"{"object":"list","data":[{"id":"org/one","object":"model"}]}"#;

/// An answer: status and body. None: the connection is closed without one.
pub type Answer = Option<(u16, String)>;

/// An engine that somebody else runs. It keeps what it is asked.
pub struct Other {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Other {
    /// One that is asked and answers as `answer` says: it is given the whole request.
    pub fn new(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (log, end) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = read(&mut stream) else {
                    continue;
                };
                log.lock().expect("the log").push(request.clone());
                if let Some((status, body)) = answer(&request) {
                    let _ = reply(&mut stream, status, &body);
                }
            }
        });
        Self {
            port,
            asked,
            over,
            thread: Some(thread),
        }
    }

    /// One that serves these models, by their list, and answers every message with a word.
    fn serving(models: &'static str) -> Self {
        Self::new(move |request| Some(usual(request, models)))
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the log").clone()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn usual(request: &str, models: &str) -> (u16, String) {
    let line = request.lines().next().unwrap_or_default();
    match line.split(' ').nth(1).unwrap_or_default() {
        "/v1/models" => (200, models.to_owned()),
        "/v1/messages" if line.starts_with("GET") => {
            (405, r#"{"detail":"Method Not Allowed"}"#.into())
        }
        "/v1/messages" => (200, MESSAGE.into()),
        "/v1/messages/count_tokens" if request.contains(r#""tools""#) => {
            (200, r#"{"input_tokens":50}"#.into())
        }
        "/v1/messages/count_tokens" => (200, r#"{"input_tokens":10}"#.into()),
        _ => (404, r#"{"detail":"Not Found"}"#.into()),
    }
}

const MESSAGE: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a word"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":10,"output_tokens":2}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn read(stream: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request);
        if !request[0].is_ascii_uppercase() {
            // No HTTP, such as the beginning of TLS.
            return Some(text.into_owned());
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        if body.len() >= length {
            return Some(text.into_owned());
        }
    }
}

fn reply(stream: &mut impl Write, status: u16, body: &str) -> std::io::Result<()> {
    let kind = match body.starts_with("event:") {
        true => "text/event-stream",
        false => "application/json",
    };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

/// A stage without an engine, whose client asks once and keeps the answer.
pub fn stage() -> Stage {
    let mut stage = Stage::bare();
    fakes::asking_client(&mut stage);
    stage.write("home/go-on", "go on");
    stage
}

/// A variable of the client's environment.
pub fn var(stage: &Stage, name: &str) -> String {
    let env = stage.read("client/env");
    env.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("{name} is not set: {env}"))
        .to_owned()
}

/// What was said, with the engine's port replaced.
pub fn said(stage: &Stage, other: &Other, ran: &Ran) -> String {
    stage
        .filtered(&ran.stderr)
        .replace(&other.port.to_string(), "PORT")
}

#[test]
fn claude_code_talks_to_the_engine_through_a_gateway_of_its_own() {
    let mut stage = stage();
    stage.set("ENGINE_KEY", TOKEN).set("COPY", TOKEN);
    let other = Other::serving(ONE_MODEL);
    let url = other.url() + "/v1/";
    let ran = stage.run(&[
        "--connect",
        &url,
        "--token-env",
        "ENGINE_KEY",
        "--",
        "-p",
        "two words",
    ]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(stage.read("client/stream").contains("a word"));
    assert!(stage.read("client/args").ends_with("-p\ntwo words\n"));
    let gateway = var(&stage, "ANTHROPIC_BASE_URL");
    assert!(gateway.starts_with("http://127.0.0.1:"), "{gateway}");
    assert_ne!(gateway, other.url());

    let asked = other.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    for request in &asked {
        let bearer = format!("authorization: bearer {TOKEN}\r\n");
        assert!(request.to_lowercase().contains(&bearer), "{request}");
    }
    let message = asked.last().expect("a message");
    assert!(message.starts_with("POST /v1/messages HTTP"), "{message}");
    assert!(message.contains(r#""model":"org/one""#), "{message}");

    // The token is known to the gateway alone.
    for place in [
        "client/env",
        "client/args",
        "client/settings.json",
        "client/stream",
    ] {
        let text = stage.read(place);
        assert!(!text.is_empty() && !text.contains(TOKEN), "{place}: {text}");
    }
    assert!(!ran.stderr.contains(TOKEN) && !ran.stdout.contains(TOKEN));
    let ours = var(&stage, "ANTHROPIC_AUTH_TOKEN");
    assert!(!asked.iter().any(|request| request.contains(&ours)));

    let lines = said(&stage, &other, &ran);
    let figures = lines.lines().last().expect("the figures");
    assert!(figures.starts_with("1 turn · 10 tokens in"), "{lines}");
    let before: Vec<&str> = lines.lines().take(4).collect();
    insta::assert_snapshot!(before.join("\n"), @"
    note: prompts, and the files that Claude Code reads, go to 127.0.0.1:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking 127.0.0.1:PORT for its models
    ✓ org/one at 127.0.0.1:PORT · window 32,768 tokens
    note: the engine does not report its window: cclocal assumes 32,768 tokens; to set it: --ctx N
    ");

    // Nothing was started in the background, and nothing is left of the session.
    stage.assert_nothing_left();
    let run = std::fs::read_dir(stage.path("cclocal/state/run")).expect("read");
    assert_eq!(run.count(), 0);
    assert!(!stage.path("cclocal/state/supervisor.log").exists());
}

#[test]
fn where_prompts_go_is_said_before_anything_is_sent() {
    let stage = stage();
    let path = stage.path("said");
    let (text, at_first) = (path.clone(), Arc::new(Mutex::new(String::new())));
    let first = at_first.clone();
    let other = Other::new(move |request| {
        let mut first = first.lock().expect("the text");
        if first.is_empty() {
            *first = std::fs::read_to_string(&text).expect("read");
        }
        Some(usual(request, ONE_MODEL))
    });
    let stderr = std::fs::File::create(path).expect("made");
    let status = stage
        .command(&["--connect", &other.url()])
        .stderr(stderr)
        .status()
        .expect("ran");
    assert!(status.success());
    let said = at_first.lock().expect("the text").clone();
    assert!(
        said.starts_with("note: prompts, and the files that Claude Code reads, go to 127.0.0.1:"),
        "{said}"
    );
}

#[test]
fn a_person_is_told_how_to_go_on() {
    let mut stage = stage();
    stage.set("ENGINE_KEY", TOKEN);
    let other = Other::serving(ONE_MODEL);
    let url = other.url();
    let args = [
        "--connect",
        &url,
        "--token-env",
        "ENGINE_KEY",
        "--ctx",
        "65536",
        "--insecure",
    ];
    let mut terminal = Terminal::run(&stage, &args, 160, 40);
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let said = terminal.text();
    let typed = format!(
        "To continue this conversation: cclocal --connect {url} --token-env ENGINE_KEY --ctx 65536 --insecure -- --continue"
    );
    assert!(said.contains(&typed), "{said}");
    assert!(said.contains("1 turn · 10 tokens in"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}

#[test]
fn without_a_token_none_is_sent() {
    let stage = stage();
    let other = Other::serving(ONE_MODEL);
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for request in other.asked() {
        let request = request.to_lowercase();
        assert!(!request.contains("authorization:") && !request.contains("x-api-key:"));
    }
}

#[test]
fn the_clients_own_status_is_ours_and_its_settings_are_guarded() {
    let mut stage = Stage::bare();
    fakes::client(&mut stage, "exit 42");
    stage
        .set("ANTHROPIC_API_KEY", "sk-ant-real")
        .set("ANTHROPIC_BASE_URL", "http://elsewhere.example");
    let other = Other::serving(ONE_MODEL);
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 42, "{}", ran.stderr);
    let env = stage.read("client/env");
    assert!(
        !env.contains("sk-ant-real") && !env.contains("elsewhere"),
        "{env}"
    );
    assert!(
        stage
            .read("client/settings.json")
            .contains("ANTHROPIC_BASE_URL")
    );
    let before = other.asked().len();
    let ran = stage.run(&["--connect", &other.url(), "--", "--model", "opus"]);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert_eq!(other.asked().len(), before, "nothing was sent for this one");
}

#[test]
fn the_window_is_the_engines() {
    let stage = stage();
    let other = Other::serving(
        r#"{"data":[{"id":"base","max_model_len":131072,"parent":null},{"id":"small","max_model_len":24576}]}"#,
    );
    let url = other.url();
    let run = |rest: &[&str]| {
        let args: Vec<&str> = ["--connect", &url]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        let ran = stage.run(&args);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        (
            fakes::real_window(&var(&stage, "CLAUDE_CODE_MAX_CONTEXT_TOKENS")),
            var(&stage, "CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
        )
    };
    let tokens = |window: &str, output: &str| (window.to_owned(), output.to_owned());
    assert_eq!(run(&["--model", "base"]), tokens("131072", "8192"));
    assert_eq!(
        run(&["--model", "base", "--ctx", "65536", "--out-tokens", "16384"]),
        tokens("65536", "16384")
    );
    assert_eq!(run(&["--model", "small"]), tokens("24576", "5692"));
}

#[test]
fn a_list_of_models_is_not_needed_where_one_is_named() {
    let stage = stage();
    let other = Other::new(|request| {
        Some(match request.starts_with("GET /v1/models") {
            true => (404, "{}".into()),
            false => usual(request, ""),
        })
    });
    let ran = stage.run(&["--connect", &other.url(), "--model", "any"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 14);
    insta::assert_snapshot!(said(&stage, &other, &ran), @"
    note: prompts, and the files that Claude Code reads, go to 127.0.0.1:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking 127.0.0.1:PORT for its models
    error: 127.0.0.1:PORT does not say which model it serves
      cause: it has no list of models (404 for /v1/models)
      hint: name the model: --model ID
    ");
}

#[test]
fn an_engine_that_goes_away_for_a_moment_is_asked_again() {
    let stage = stage();
    let messages = AtomicUsize::new(0);
    let other = Other::new(move |request| {
        let lost = request.starts_with("POST /v1/messages HTTP")
            && messages.fetch_add(1, Ordering::SeqCst) == 0;
        (!lost).then(|| usual(request, ONE_MODEL))
    });
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(stage.read("client/stream").contains("a word"));
}

#[test]
fn an_engine_that_is_gone_does_not_end_the_session() {
    let stage = stage();
    let other = Other::new(|request| {
        (!request.starts_with("POST /v1/messages HTTP")).then(|| usual(request, ONE_MODEL))
    });
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let stream = stage.read("client/stream");
    // On this status and this type the client tries again.
    assert!(stream.contains("overloaded_error"), "{stream}");
    assert!(stream.contains("the engine was lost"), "{stream}");
}

#[test]
fn a_signal_ends_the_client_too() {
    for (sent, status) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        // Nobody can answer this one: the watcher does.
        (Signal::SIGKILL, 1009),
    ] {
        let mut stage = Stage::bare();
        fakes::staying_client(&mut stage);
        let other = Other::serving(ONE_MODEL);
        let session = stage.start(&["--connect", &other.url()]);
        stage.wait_for("client/pid");
        let watched = || {
            let running = stage.survivors();
            running
                .iter()
                .any(|process| process.contains("watches over Claude Code"))
        };
        let since = std::time::Instant::now();
        // Processes are looked for where Linux has them.
        while std::path::Path::new("/proc").exists() && !watched() {
            assert!(since.elapsed() < HANG, "nobody watches");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        signal(&session, sent);
        let ran = finish(session);
        assert_eq!(ran.status, status, "{}", ran.stderr);
        stage.assert_nothing_left();
    }
}

#[test]
fn engines_that_cannot_be_used_say_why() {
    let mut stage = stage();
    stage.set("ENGINE_KEY", TOKEN);
    let failed = |other: &Other, rest: &[&str]| {
        let url = other.url();
        let args: Vec<&str> = ["--connect", &url]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        let ran = stage.run(&args);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        assert_eq!(stage.read("client/pid"), "", "the client was started");
        assert!(!ran.stderr.contains(TOKEN));
        let said = said(&stage, other, &ran);
        let (_, error) = said.split_once("error:").expect("an error");
        format!("error:{error}")
    };
    let always = |status: u16, body: &'static str| Other::new(move |_| Some((status, body.into())));

    let closed = always(401, r#"{"detail":"API key required"}"#);
    insta::assert_snapshot!(failed(&closed, &[]), @"
    error: 127.0.0.1:PORT needs a token
      cause: it answered with status 401
      hint: put the engine's key into a variable and pass its name: --token-env NAME
    ");
    let closed = always(403, "{}");
    insta::assert_snapshot!(failed(&closed, &["--token-env", "ENGINE_KEY"]), @"
    error: 127.0.0.1:PORT refused the token
      cause: it answered with status 403
      hint: check that the variable named with --token-env holds the engine's key
    ");
    let nothing = always(404, "{}");
    insta::assert_snapshot!(failed(&nothing, &[]), @"
    error: 127.0.0.1:PORT has no Anthropic Messages API
      cause: 404 for http://127.0.0.1:PORT/v1/messages
      hint: vllm-mlx and newer versions of vLLM have it; if the engine is under a path, add the path to the URL
    ");
    let page = always(200, "<html>It works!</html>");
    insta::assert_snapshot!(failed(&page, &[]), @"
    error: 127.0.0.1:PORT does not answer like an engine
      cause: it answered http://127.0.0.1:PORT/v1/models with something that is not a list of models
      hint: check that the URL is the engine's own
    ");
    let broken = always(500, r#"{"error":{"message":"the model is being loaded"}}"#);
    insta::assert_snapshot!(failed(&broken, &[]), @"
    error: 127.0.0.1:PORT does not answer like an engine
      cause: it answered http://127.0.0.1:PORT/v1/models with status 500: the model is being loaded
      hint: check that the URL is the engine's own
    ");
    let empty = Other::serving(r#"{"data":[]}"#);
    insta::assert_snapshot!(failed(&empty, &[]), @"
    error: 127.0.0.1:PORT serves no model
      cause: its list of models is empty
      hint: check that its model is loaded
    ");
    let one = Other::serving(ONE_MODEL);
    insta::assert_snapshot!(failed(&one, &["--model", "org/two"]), @"
    error: 127.0.0.1:PORT does not serve org/two
      cause: it serves org/one
      hint: leave --model out to use the one that it serves
    ");
    let two = Other::serving(r#"{"data":[{"id":"a"},{"id":"b"}]}"#);
    insta::assert_snapshot!(failed(&two, &["--model", "c"]), @"
    error: 127.0.0.1:PORT does not serve c
      cause: it serves a, b
      hint: name one of these with --model
    ");
    let small = Other::serving(r#"{"data":[{"id":"a","max_model_len":8192}]}"#);
    insta::assert_snapshot!(failed(&small, &[]), @"
    error: the engine's window of 8192 tokens is too small for Claude Code
      cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
      hint: start the engine with a longer one: at least 20932 tokens, better 32768 (vLLM: --max-model-len 32768)
    ");
    let silent = Other::new(|_| None);
    let lost = failed(&silent, &[]);
    assert!(
        lost.starts_with("error: no engine answers at 127.0.0.1:PORT\n"),
        "{lost}"
    );
}

#[test]
fn a_port_where_nothing_listens() {
    let stage = stage();
    let port = free_port();
    let ran = stage.run(&["--connect", &format!("http://localhost:{port}")]);
    assert_eq!(ran.status, 14);
    let said = ran
        .stderr
        .replace(&port, "PORT")
        .replace("os error 61", "os error 111");
    insta::assert_snapshot!(said, @"
    note: prompts, and the files that Claude Code reads, go to localhost:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking localhost:PORT for its models
    error: no engine answers at localhost:PORT
      cause: Connection refused (os error 111)
      hint: check that it runs, listens there and is not behind a firewall: curl http://localhost:PORT/v1/models
    ");
}

#[test]
fn several_models_have_to_be_chosen_from() {
    let stage = stage();
    let other = Other::serving(r#"{"data":[{"id":"org/a"},{"id":"org/b"}]}"#);
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &other, &ran), @"
    note: prompts, and the files that Claude Code reads, go to 127.0.0.1:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking 127.0.0.1:PORT for its models
    error: 127.0.0.1:PORT serves more than one model
      cause: it serves org/a, org/b
      hint: name one of these with --model
    ");
    let other = Other::serving(r#"{"data":[{"id":"a","max_model_len":65536}]}"#);
    let ran = stage.run(&["--connect", &other.url(), "--ctx", "131072"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(said(&stage, &other, &ran), @"
    note: prompts, and the files that Claude Code reads, go to 127.0.0.1:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking 127.0.0.1:PORT for its models
    error: --ctx 131072 is more than the engine's window
      cause: the engine reports 65536 tokens
      hint: leave --ctx out, or take --ctx 65536 or less; or start the engine with a longer one (vLLM: --max-model-len 131072)
    ");
}

#[test]
fn bad_command_lines_send_nothing() {
    let mut stage = stage();
    stage.set("EMPTY", "");
    let other = Other::serving(ONE_MODEL);
    let url = other.url();
    let refused = |args: &[&str]| {
        let ran = stage.run(args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        said(&stage, &other, &ran)
    };
    insta::assert_snapshot!(refused(&["--connect", &url, "--gemma"]), @"
    error: the argument '--connect <URL>' cannot be used with '--gemma'

    Usage: cclocal --connect <URL> [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
    for rest in [
        &["--server"][..],
        &["--port", "8123"],
        &["--linger", "0"],
        &["--safe"],
        &["--no-mem-check"],
        &["--yes"],
        &["--light"],
    ] {
        let args: Vec<&str> = ["--connect", &url]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        assert!(refused(&args).contains("cannot be used with"), "{rest:?}");
    }
    insta::assert_snapshot!(refused(&["--token-env", "KEY"]), @"
    error: the following required arguments were not provided:
      --connect <URL>

    Usage: cclocal --connect <URL> --token-env <NAME> [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refused(&["--insecure", "--gemma"]), @"
    error: the argument '--insecure' cannot be used with '--gemma'

    Usage: cclocal --connect <URL> --insecure [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refused(&["server", "--connect", &url]), @"
    error: unexpected argument '--connect' found

      tip: to pass '--connect' as a value, use '-- --connect'

    Usage: cclocal server [OPTIONS] [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refused(&["connect", &url]), @"
    error: `cclocal connect` takes no URL
      cause: it connects to an engine that cclocal runs on this machine
      hint: for any other engine: cclocal --connect URL
    ");
    for (variable, cause) in [("EMPTY", "it is empty"), ("NOWHERE", "it is not set")] {
        let said = refused(&["--connect", &url, "--token-env", variable]);
        assert!(said.contains(cause), "{said}");
    }
    let said = refused(&["--connect", "http://mac.example:8000"]);
    assert!(said.contains("plain http to mac.example:8000"), "{said}");
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[test]
fn a_dry_run_sends_nothing() {
    let mut stage = stage();
    stage.set("ENGINE_KEY", TOKEN);
    let other = Other::serving(ONE_MODEL);
    let url = other.url();
    let args = ["--connect", &url, "--token-env", "ENGINE_KEY", "--dry-run"];
    let ran = stage.run(&args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let start = format!(
        "engine   {url} (not run by cclocal)\nmodel    the only one that it serves\nwindow   as the engine reports\n"
    );
    assert!(ran.stdout.starts_with(&start), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("note: prompts, and the files"),
        "{}",
        ran.stdout
    );
    let json = stage.run(&[&args[..], &["--json", "--model", "org/one"]].concat());
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(report["engine"]["url"], url);
    assert_eq!(report["engine"]["model"], "org/one");
    assert!(!ran.stdout.contains(TOKEN) && !json.stdout.contains(TOKEN));
    assert_eq!(other.asked(), Vec::<String>::new());
    assert!(!stage.path("cclocal").exists(), "nothing is written");
}

/// A server that speaks TLS, with a certificate of an authority that nobody knows.
pub fn encrypted(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Other {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).expect("read");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("read");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let (log, end) = (asked.clone(), over.clone());
    let thread = std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let Some(request) = read(&mut stream) else {
                continue;
            };
            log.lock().expect("the log").push(request.clone());
            let (status, body) = answer(&request);
            let _ = reply(&mut stream, status, &body);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    Other {
        port,
        asked,
        over,
        thread: Some(thread),
    }
}

#[test]
fn certificates_are_checked() {
    let mut stage = stage();
    let other = encrypted(|request| usual(request, ONE_MODEL));
    let url = format!("https://127.0.0.1:{}", other.port);
    // --insecure is about plain http alone.
    let ran = stage.run(&["--connect", &url, "--insecure"]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    insta::assert_snapshot!(said(&stage, &other, &ran), @"
    note: prompts, and the files that Claude Code reads, go to 127.0.0.1:PORT on this machine: to an engine that cclocal does not run, or through a tunnel to another machine
    asking 127.0.0.1:PORT for its models
    error: there is no safe connection to 127.0.0.1:PORT
      cause: invalid peer certificate: UnknownIssuer
      hint: if the certificate is from your own authority, set SSL_CERT_FILE to that authority's file; if the engine has no TLS, use http:// with --insecure
    ");
    assert_eq!(other.asked(), Vec::<String>::new());

    let authority =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/authority.pem");
    stage.set("SSL_CERT_FILE", authority.display().to_string());
    let ran = stage.run(&["--connect", &url]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(stage.read("client/stream").contains("a word"));

    // An engine without TLS behind an https URL.
    let plain = Other::serving(ONE_MODEL);
    let ran = stage.run(&["--connect", &format!("https://127.0.0.1:{}", plain.port)]);
    assert_eq!(ran.status, 14);
    assert!(
        ran.stderr.contains("there is no safe connection to"),
        "{}",
        ran.stderr
    );
}

//! `--web-search`: what is refused, what is said, where the key goes, and whose searches are made.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::connect_url::{self, Other};
use crate::fakes;
use crate::support::{HANG, Stage, finish, free_port, signal};

const KEY: &str = "the-key-of-the-search-service";

/// The request that Claude Code's WebSearch sends.
const SEARCH: &str = r#"{"model":"any","max_tokens":100,"stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"Perform a web search for the query: rust"}]}],"tools":[{"type":"web_search_20250305","name":"web_search","max_uses":8}]}"#;

const FOUND: &str =
    r#"{"results":[{"url":"https://found.example/","title":"A page","content":"Of the page."}]}"#;

/// A SearXNG that finds one page.
fn searxng() -> Other {
    Other::new(|_| Some((200, FOUND.into())))
}

#[test]
fn what_is_no_service_is_refused_before_anything_starts() {
    let mut stage = fakes::stage();
    let refused = |stage: &Stage, args: &[&str]| {
        let ran = stage.run(args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert!(!stage.path("cclocal").exists(), "it wrote");
        ran.stderr
    };
    insta::assert_snapshot!(refused(&stage, &["--coder", "--web-search", "bing"]), @"
    error: --web-search takes the URL of a SearXNG instance, `brave` or `tavily`
      cause: it is neither of these words and does not start with http:// or https://
      hint: such as --web-search http://127.0.0.1:8888, or BRAVE_API_KEY=… cclocal --web-search brave
    ");
    insta::assert_snapshot!(refused(&stage, &["--coder", "--web-search", "brave"]), @"
    error: --web-search brave needs a key in BRAVE_API_KEY
      cause: it is not set
      hint: from a file: BRAVE_API_KEY=$(cat FILE) cclocal --web-search brave
    ");
    stage.set("TAVILY_API_KEY", "two words");
    let said = refused(&stage, &["connect", "--web-search", "tavily"]);
    assert!(!said.contains("two words"), "{said}");
    insta::assert_snapshot!(said, @"
    error: --web-search tavily needs a key in TAVILY_API_KEY
      cause: it contains a space, a line break or another character that no token has
      hint: from a file: TAVILY_API_KEY=$(cat FILE) cclocal --web-search tavily
    ");
    for args in [
        &["--coder", "--dry-run", "--web-search", "ftp://x"][..],
        &["server", "--coder", "--web-search", "http://"],
        &["--connect", "http://127.0.0.1:1", "--web-search", "brave"],
        &["connect", "--web-search", "http://me:secret@x/?q"],
    ] {
        assert!(!refused(&stage, args).contains("secret"));
    }
}

#[test]
fn a_dry_run_says_where_queries_would_go_and_no_secret() {
    let mut stage = fakes::stage();
    stage.set("BRAVE_API_KEY", KEY);
    let ran = stage.run(&["--coder", "--dry-run", "--web-search", "brave"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains(
        "\nnote: web searches go to api.search.brave.com: their queries leave this machine\n"
    ));
    assert!(!ran.stdout.contains(KEY) && !ran.stderr.contains(KEY));
    let json = |args: &[&str]| -> Value {
        let ran = stage.run(args);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(
            !ran.stdout.contains(KEY) && !ran.stdout.contains("secret"),
            "{}",
            ran.stdout
        );
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    let report = json(&["--coder", "--dry-run", "--json"]);
    assert_eq!(report["web_search"], Value::Null);
    let report = json(&["--coder", "--dry-run", "--json", "--web-search", "brave"]);
    assert_eq!(
        report["web_search"],
        serde_json::json!({"service": "brave", "url": "https://api.search.brave.com", "key": "from BRAVE_API_KEY"})
    );
    let connect = ["--connect", "http://127.0.0.1:1", "--dry-run", "--json"];
    let report = json(
        &[
            &connect[..],
            &["--web-search", "https://me:secret@searx.example"],
        ]
        .concat(),
    );
    assert_eq!(
        report["web_search"],
        serde_json::json!({"service": "searxng", "url": "https://searx.example", "key": null})
    );
    let notices = report["notices"].as_array().expect("a list");
    let said = "web searches go to searx.example: their queries leave this machine";
    assert!(notices.iter().any(|notice| notice == said), "{notices:?}");
}

#[test]
fn the_key_reaches_neither_client_nor_engine_nor_a_file() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    stage.set("TAVILY_API_KEY", KEY).set("SAME", KEY);
    let session = stage.start(&[
        "--model",
        "../model",
        "--port",
        &free_port(),
        "--web-search",
        "tavily",
    ]);
    stage.wait_for("client/pid");
    let own = i32::try_from(session.id()).expect("a pid");
    let others: Vec<i32> = stage.pids().into_iter().filter(|pid| *pid != own).collect();
    assert!(
        others.len() >= 3,
        "supervisor, engine and client: {others:?}"
    );
    for pid in others {
        for file in ["environ", "cmdline"] {
            let seen = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let seen = String::from_utf8_lossy(&seen).into_owned();
            assert!(!seen.contains(KEY), "{pid} {file}");
        }
    }
    stage.write("home/go-on", "now");
    let ran = finish(session);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let first = ran.stderr.lines().next().unwrap_or_default();
    assert_eq!(
        first,
        "note: web searches go to api.tavily.com: their queries leave this machine"
    );
    assert!(!ran.stderr.contains(KEY));
    for file in files(&stage.path("cclocal")) {
        let text = std::fs::read(&file).unwrap_or_default();
        let found = String::from_utf8_lossy(&text).contains(KEY);
        assert!(!found, "{}", file.display());
    }
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() && !path.is_symlink() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

/// The stream that the client got, once it is all there.
fn streamed(stage: &Stage) -> String {
    let since = Instant::now();
    loop {
        let text = stage.read("client/stream");
        if text.contains("event: message_stop") {
            std::fs::remove_file(stage.path("client/stream")).expect("removed");
            return text;
        }
        assert!(since.elapsed() < HANG, "{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_session_searches_and_another_on_the_same_engine_does_not() {
    let mut stage = fakes::stage();
    fakes::asking_client(&mut stage);
    stage.write("home/body", SEARCH);
    let searxng = searxng();
    let url = searxng.url();
    let port = free_port();
    let first = stage.start(&["--model", "../model", "--port", &port, "--web-search", &url]);
    let reply = streamed(&stage);
    assert!(
        reply.contains(r#""url":"https://found.example/""#),
        "{reply}"
    );
    assert!(reply.contains("Of the page."), "{reply}");
    let second = stage.start(&["connect", "--port", &port]);
    let reply = streamed(&stage);
    assert!(reply.contains(r#""error_code":"unavailable""#), "{reply}");
    assert!(reply.contains("--web-search URL"), "{reply}");
    // With the option it does.
    let third = stage.start(&["connect", "--port", &port, "--web-search", &url]);
    assert!(streamed(&stage).contains("found.example"));
    stage.write("home/go-on", "now");
    for (session, says) in [(first, true), (second, false), (third, true)] {
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(
            ran.stderr.contains("note: web searches go to 127.0.0.1:"),
            says,
            "{}",
            ran.stderr
        );
    }
    let asked = searxng.asked();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[0].starts_with("GET /search?q=rust&format=json HTTP/1.1"),
        "{asked:?}"
    );
}

#[test]
fn a_server_searches_for_programs_with_its_key_and_names_the_service_to_sessions() {
    let stage = fakes::stage();
    let searxng = searxng();
    let url = searxng.url();
    let port = free_port();
    let out = std::fs::File::create(stage.path("out")).expect("made");
    let server = stage
        .command(&[
            "server",
            "--model",
            "../model",
            "--port",
            &port,
            "--web-search",
            &url,
        ])
        .stdout(out)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let said = stage.wait_for("out");
    assert!(
        said.trim_end()
            .ends_with(&format!("connect --port {port} --web-search {url}")),
        "{said}"
    );
    let key = stage.read(&format!("cclocal/state/run/{port}/key"));
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connected");
    write!(
        stream,
        "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SEARCH}",
        SEARCH.len()
    )
    .expect("asked");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.contains("https://found.example/"), "{reply}");
    assert_eq!(searxng.asked().len(), 1);
    signal(&server, Signal::SIGINT);
    let ran = finish(server);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

#[test]
fn a_service_with_an_unknown_certificate_is_not_asked() {
    let mut stage = fakes::stage();
    fakes::asking_client(&mut stage);
    stage.write("home/body", SEARCH);
    let searxng = connect_url::encrypted(|_| (200, FOUND.into()));
    let url = format!("https://127.0.0.1:{}", searxng.port);
    let search = |stage: &Stage| {
        let port = free_port();
        let _ = std::fs::remove_file(stage.path("home/go-on"));
        let session = stage.start(&["--model", "../model", "--port", &port, "--web-search", &url]);
        let reply = streamed(stage);
        stage.write("home/go-on", "now");
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        reply
    };
    let reply = search(&stage);
    assert!(
        reply.contains("cannot be reached (invalid peer certificate: UnknownIssuer)"),
        "{reply}"
    );
    assert_eq!(searxng.asked(), Vec::<String>::new());
    let authority =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/authority.pem");
    stage.set("SSL_CERT_FILE", authority.display().to_string());
    assert!(search(&stage).contains("found.example"));
    assert_eq!(searxng.asked().len(), 1);
}

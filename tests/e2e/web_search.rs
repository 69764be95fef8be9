//! WebSearch of the real clients, with a SearXNG that finds two pages, and without one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::chain::{Chain, Dialect};
use crate::real::{self, free_port};
use crate::scripted_server::{Reply, ScriptedServer};
use crate::support::{Ran, Stage, finish, signal};

const QUERY: &str = "edition of the year";

/// The words for a model that cannot search.
const NONE: &str = "No web search was made: this session of cclocal has none.";

/// A SearXNG. It ends with the test's process, and keeps the first lines of what it is asked.
fn searxng() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    let found = json!({"results": [
        {"url": "https://found.example/edition", "title": "The edition", "content": "It came out in the spring.", "publishedDate": "2024-03-01"},
        {"url": "https://other.example/", "title": "Another page", "content": "Of something else."},
    ]})
    .to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines
                .next()
                .and_then(Result::ok)
                .is_some_and(|line| !line.is_empty())
            {}
            kept.lock().expect("the log").push(first);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{found}",
                found.len()
            );
        }
    });
    (format!("http://127.0.0.1:{port}"), asked)
}

/// A model elsewhere that searches once, and then repeats what it was told.
fn model() -> ScriptedServer {
    ScriptedServer::start(|request| {
        let body = request.json();
        let has_tools = |tools: &Vec<Value>| tools.iter().any(|tool| tool["name"] == "WebSearch");
        match request.tool_results() {
            0 if body["tools"].as_array().is_some_and(has_tools) => Reply::Tool {
                id: "toolu_search".into(),
                name: "WebSearch",
                input: json!({"query": QUERY}),
            },
            _ => Reply::Text("It is done.".into()),
        }
    })
}

fn ask(stage: &Stage, model: &ScriptedServer, options: &[&str]) -> Ran {
    let url = model.url();
    let connect = ["--connect", &url, "--model", "team/model", "--no-ask"];
    let client = ["--", "-p", "Search the web", "--output-format", "json"];
    stage.run(&[&connect[..], options, &client].concat())
}

/// The result of the search, as the main turn has it. No request for one may have come to the model.
fn told(model: &ScriptedServer) -> String {
    let mut told = Vec::new();
    for request in model.messages() {
        let body = request.json();
        let tools = body["tools"].as_array().cloned().unwrap_or_default();
        assert!(tools.iter().all(|tool| tool["type"].is_null()), "{tools:?}");
        assert!(!request.text().contains("Perform a web search"));
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let blocks = messages
            .iter()
            .filter_map(|message| message["content"].as_array());
        let results = blocks
            .flatten()
            .filter(|block| block["type"] == "tool_result");
        told.extend(results.map(|result| match &result["content"] {
            Value::String(text) => text.clone(),
            parts => parts[0]["text"].as_str().expect("a text").to_owned(),
        }));
    }
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

#[test]
fn links_and_snippets_reach_the_main_turn() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let (url, asked) = searxng();
        let model = model();
        let ran = ask(&stage, &model, &["--web-search", &url]);
        assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
        let told = told(&model);
        let links = r#"Links: [{"title":"The edition","url":"https://found.example/edition"},{"title":"Another page","url":"https://other.example/"}]"#;
        assert!(told.contains(links), "{told}");
        let page = "1. The edition\nhttps://found.example/edition (2024-03-01)\nIt came out in the spring.\n";
        assert!(told.contains(page), "{told}");
        let asked = asked.lock().expect("the log").clone();
        assert_eq!(
            asked,
            ["GET /search?q=edition+of+the+year&format=json HTTP/1.1"]
        );
        assert!(
            ran.stderr.contains("note: web searches go to 127.0.0.1:"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn without_a_service_the_main_turn_is_told_that_there_is_no_search() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let model = model();
        let ran = ask(&stage, &model, &[]);
        assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
        let told = told(&model);
        assert!(told.contains("Web search error: unavailable"), "{told}");
        assert!(
            told.contains(NONE) && told.contains("--web-search URL"),
            "{told}"
        );
        assert!(
            told.contains("There are no results and no sources"),
            "{told}"
        );
        assert!(!told.contains("Links:") && !ran.stderr.contains("web searches"));
    }
}

#[test]
fn on_one_engine_each_session_has_its_own_search_or_none() {
    let mut stage = real::stage(&real::client());
    let call = Dialect::Hermes.call("WebSearch", &[("query", QUERY)]);
    let model = Chain {
        replies: &[call],
        rules: &[
            ("Perform a web search for the query", "I invent a page."),
            ("It came out in the spring.", "It was the spring."),
            (NONE, "I cannot search."),
        ],
        ..Chain::default()
    }
    .write(&stage, Dialect::Hermes);
    let (url, asked) = searxng();
    let port = free_port();
    let out = std::fs::File::create(stage.path("out")).expect("made");
    let server = stage
        .command(&["server", "--model", &model, "--port", &port])
        .stdout(out)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    stage.wait_for("out");
    for client in [real::client(), real::old_client()] {
        stage.set("CCLOCAL_CLAUDE", client.display().to_string());
        let said = |options: &[&str]| {
            let connect = ["connect", "--port", &port];
            let client = ["--", "-p", "Search the web"];
            let ran = stage.run(&[&connect[..], options, &client].concat());
            assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
            // A search is no turn of the model.
            assert!(ran.stderr.contains("\n2 turns · "), "{}", ran.stderr);
            ran.stdout.trim().to_owned()
        };
        let before = asked.lock().expect("the log").len();
        assert_eq!(said(&["--web-search", &url]), "It was the spring.");
        assert_eq!(said(&[]), "I cannot search.");
        assert_eq!(asked.lock().expect("the log").len(), before + 1);
    }
    signal(&server, Signal::SIGINT);
    let ran = finish(server);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

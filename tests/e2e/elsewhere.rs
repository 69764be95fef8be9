//! `--connect URL`, with a vllm-mlx that was started by hand, and with a server that speaks as vLLM does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::real::{self, TEXT, free_port};
use crate::scripted_server::{Reply, ScriptedServer};
use crate::support::{HANG, Stage, signal};

const KEY: &str = "the-key-of-the-engine";

/// A vllm-mlx that nobody but the test looks after.
struct ByHand {
    child: Child,
    port: String,
}

impl ByHand {
    /// Starts it, and waits until it answers. The stage itself has no engine from then on.
    fn start(stage: &mut Stage) -> Self {
        let port = free_port();
        let log = std::fs::File::create(stage.path("engine.log")).expect("made");
        let program = stage
            .env()
            .get("CCLOCAL_ENGINE")
            .expect("an engine")
            .clone();
        let child = std::process::Command::new(program)
            .arg("serve")
            .arg(stage.path("hermes-llama"))
            .args(["--host", "127.0.0.1", "--port", &port, "--api-key", KEY])
            .args(["--served-model-name", "team/tiny"])
            .args(["--enable-auto-tool-choice", "--tool-call-parser", "hermes"])
            .env_clear()
            .envs(stage.env())
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("started");
        stage
            .set("CCLOCAL_ENGINE", "/there/is/none")
            .set("TEAM_KEY", KEY);
        let engine = Self { child, port };
        let since = Instant::now();
        while !engine.is_ready() {
            assert!(since.elapsed() < HANG, "{}", stage.read("engine.log"));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        engine
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{}", self.port)) else {
            return false;
        };
        let mut answer = String::new();
        write!(
            stream,
            "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        )
        .is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains(r#""model_loaded":true"#)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        signal(&self.child, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_tool_call_writes_a_real_file() {
    for client in [real::client(), real::old_client()] {
        let mut stage = real::stage(&client);
        let engine = ByHand::start(&mut stage);
        let url = format!("http://127.0.0.1:{}", engine.port);
        let connect = ["--connect", &url, "--token-env", "TEAM_KEY", "--no-ask"];
        let rest = ["--", "-p", "Create hello.txt", "--output-format", "json"];
        let ran = stage.run(&[&connect[..], &rest].concat());
        assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
        assert_eq!(stage.read("work/hello.txt"), TEXT);
        let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(answer["is_error"], false, "{answer}");
        assert!(ran.stderr.contains("\n2 turns · "), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("✓ team/tiny at 127.0.0.1:"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains(KEY) && !ran.stdout.contains(KEY));
        assert_eq!(real::claude_files(&stage), Vec::<String>::new());
        let transcripts = stage.path("cclocal/data/claude");
        assert!(!holds(&transcripts, KEY), "the key is in the profile");

        let ran = stage.run(&["--connect", &url, "--", "-p", "x"]);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        assert!(ran.stderr.contains("needs a token"), "{}", ran.stderr);
        let ran = stage.run(&[&connect[..], &["--model", "org/other", "--", "-p", "x"]].concat());
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        assert!(ran.stderr.contains("it serves team/tiny"), "{}", ran.stderr);
    }
}

/// Whether a file below the folder has the text in it.
fn holds(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let path = entry.path();
            match path.is_dir() {
                true => holds(&path, text),
                false => std::fs::read(&path)
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text)),
            }
        })
}

/// The way to the engine, which breaks the first connections that bring a message.
fn breaking(port: &str, breaks: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let here = listener.local_addr().expect("an address").port();
    let engine = format!("127.0.0.1:{port}");
    let broken = Arc::new(AtomicUsize::new(0));
    let count = broken.clone();
    // It ends with the test's process.
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (engine, count) = (engine.clone(), count.clone());
            std::thread::spawn(move || {
                let mut start = [0; 64 * 1024];
                let read = stream.read(&mut start).unwrap_or(0);
                let message = start.starts_with(b"POST /v1/messages HTTP");
                if message && count.load(Ordering::SeqCst) < breaks {
                    count.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                let Ok(mut there) = TcpStream::connect(engine) else {
                    return;
                };
                // Each request has a connection of its own, so that it is looked at.
                let line = start.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
                let _ = there.write_all(&start[..line]);
                let _ = there.write_all(b"connection: close\r\n");
                let _ = there.write_all(&start[line..read]);
                let mut back = there.try_clone().expect("a stream");
                let mut to = stream.try_clone().expect("a stream");
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut stream, &mut there);
                let _ = there.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (format!("http://127.0.0.1:{here}"), broken)
}

#[test]
fn an_engine_that_is_away_for_a_while_costs_no_task() {
    let mut stage = real::stage(&real::client());
    let engine = ByHand::start(&mut stage);
    // More than the gateway tries by itself: the client has to ask again.
    let (url, broken) = breaking(&engine.port, 4);
    let ran = stage.run(&[
        "--no-ask",
        "--connect",
        &url,
        "--token-env",
        "TEAM_KEY",
        "--",
        "-p",
        "Create hello.txt",
    ]);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(broken.load(Ordering::SeqCst), 4);
    assert_eq!(stage.read("work/hello.txt"), TEXT);
}

/// A server that speaks as vLLM does, as its source has it (`vllm/entrypoints/anthropic/serving.py`): fields that are as usual are left out of events, the
/// first among them the role, and the stream of its other API shows at the end. Its model writes the file once. It keeps the bodies it is sent.
fn like_vllm(file: String) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let kept = bodies.clone();
    // It ends with the test's process.
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let Some((head, body)) = read(&mut stream) else {
                continue;
            };
            let (status, kind, answer) = if !head.contains(&format!("Bearer {KEY}")) {
                (
                    401,
                    "application/json",
                    r#"{"error":"Unauthorized"}"#.to_owned(),
                )
            } else if head.starts_with("GET /v1/models ") {
                let list = json!({"object": "list", "data": [{"id": "org/big", "object": "model", "owned_by": "vllm", "root": "org/big", "parent": null, "max_model_len": 40960}]});
                (200, "application/json", list.to_string())
            } else if head.starts_with("POST /v1/messages/count_tokens ") {
                // What its session counts has tools, as one of the questions before it.
                let tokens = if body["tools"].is_array() { 9000 } else { 10 };
                (
                    200,
                    "application/json",
                    json!({"input_tokens": tokens}).to_string(),
                )
            } else if head.starts_with("POST /v1/messages ") {
                // The other question before a session.
                if body["max_tokens"] != 1 {
                    kept.lock().expect("the bodies").push(body.clone());
                }
                (200, "text/event-stream", vllm_stream(&body, &file))
            } else {
                (
                    405,
                    "application/json",
                    r#"{"detail":"Method Not Allowed"}"#.to_owned(),
                )
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    (format!("http://127.0.0.1:{port}/v1"), bodies)
}

fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut request = Vec::new();
    let mut piece = [0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&piece[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).into_owned();
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let body = &request[end + 4..];
        if body.len() >= length {
            return Some((head, serde_json::from_slice(body).unwrap_or_default()));
        }
    }
}

fn vllm_stream(body: &Value, file: &str) -> String {
    let has_tools = body["tools"]
        .as_array()
        .is_some_and(|tools| !tools.is_empty());
    let called = body["messages"].to_string().contains("tool_result");
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "chatcmpl-1", "content": [], "model": "org/big", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 9000, "output_tokens": 0}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Well."}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "0123"}}),
        json!({"type": "content_block_stop", "index": 0}),
    ];
    let reason = if has_tools && !called {
        let input = json!({"file_path": file, "content": TEXT}).to_string();
        let (start, end) = input.split_at(7);
        events.extend([
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "chatcmpl-tool-1", "name": "Write", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": start}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": end}}),
        ]);
        "tool_use"
    } else {
        events.extend([
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "It is done."}}),
        ]);
        "end_turn"
    };
    events.extend([
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"input_tokens": 9000, "output_tokens": 21}}),
        json!({"type": "message_stop"}),
    ]);
    let mut stream = String::new();
    for event in events {
        let kind = event["type"].as_str().unwrap_or_default();
        stream += &format!("event: {kind}\ndata: {event}\n\n");
    }
    stream + "data: [DONE]\n\n"
}

#[test]
fn a_server_that_speaks_as_vllm_does_is_understood() {
    for client in [real::client(), real::old_client()] {
        let mut stage = real::stage(&client);
        stage
            .set("CCLOCAL_ENGINE", "/there/is/none")
            .set("TEAM_KEY", KEY);
        let file = stage.path("work/hello.txt").display().to_string();
        let (url, bodies) = like_vllm(file);
        let ran = stage.run(&[
            "--no-ask",
            "--connect",
            &url,
            "--token-env",
            "TEAM_KEY",
            "--",
            "-p",
            "Create hello.txt",
            "--output-format",
            "json",
        ]);
        assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
        assert_eq!(stage.read("work/hello.txt"), TEXT);
        let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(answer["is_error"], false, "{answer}");
        assert_eq!(answer["result"], "It is done.", "{answer}");
        assert!(
            ran.stderr.contains("✓ org/big at") && ran.stderr.contains("window 40,960 tokens"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("18,000 tokens in"), "{}", ran.stderr);
        for body in bodies.lock().expect("the bodies").iter() {
            assert_eq!(body["model"], "org/big");
            assert!(body["max_tokens"].as_u64().is_some_and(|most| most <= 8192));
            for message in body["messages"].as_array().expect("messages") {
                assert!(message["role"].is_string(), "{message}");
            }
        }
    }
}

/// Content blocks as the events of one reply that calls a tool for each.
fn calls(inputs: &[(&str, Value)]) -> Vec<u8> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "msg_calls", "type": "message", "role": "assistant", "model": "scripted", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}}}),
    ];
    for (index, (name, input)) in inputs.iter().enumerate() {
        let block =
            json!({"type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": {}});
        let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 20}}));
    events.push(json!({"type": "message_stop"}));
    let text = events.iter().map(|event| {
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    });
    text.collect::<String>().into_bytes()
}

#[test]
fn agents_are_answered_side_by_side() {
    let mut stage = real::stage(&real::client());
    // Each agent is answered when both have asked.
    let asked = Arc::new((
        Mutex::new(std::collections::BTreeSet::new()),
        Condvar::new(),
    ));
    let waiting = asked.clone();
    let server = ScriptedServer::with_window(65_536, move |request| {
        let text = request.text();
        let is_session = text.contains("Ask two agents.");
        let agent = ["Say one.", "Say two."]
            .into_iter()
            .find(|said| text.contains(said));
        let Some(agent) = agent.filter(|_| !is_session) else {
            return match (text.contains("\"name\":\"Agent\""), request.tool_results()) {
                (false, _) => Reply::Text("ok".into()),
                (true, 0) => Reply::Events(calls(&["one", "two"].map(|name| {
                    let input = json!({"description": name, "prompt": format!("Say {name}."), "subagent_type": "general-purpose"});
                    ("Agent", input)
                }))),
                (true, _) => Reply::Text("Both have spoken.".into()),
            };
        };
        let (agents, changed) = &*waiting;
        let mut agents = agents.lock().expect("the agents");
        agents.insert(agent);
        changed.notify_all();
        let _both = changed
            .wait_timeout_while(agents, HANG, |agents| agents.len() < 2)
            .expect("the agents");
        Reply::Text("spoken".into())
    });
    stage.set("CCLOCAL_ENGINE", "/there/is/none");
    let url = server.url();
    let since = Instant::now();
    let ran = stage.run(&[
        "--no-ask",
        "--connect",
        &url,
        "--",
        "--tools",
        "Agent,Read",
        "-p",
        "Ask two agents.",
    ]);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("Both have spoken."), "{}", ran.stdout);
    assert_eq!(asked.0.lock().expect("the agents").len(), 2);
    assert!(since.elapsed() < HANG, "one waited for the other's end");
}

//! An engine that comes close to the memory that there is for it, on a Mac of fakes with 16 GiB: 12 GiB of them for the GPU.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Child;

use serde_json::{Value, json};

use crate::fakes;
use crate::support::{HANG, Stage, finish, free_port};

/// In bytes.
const LIMIT: u64 = 12 << 30;

/// A session whose request the engine works at.
struct Working {
    stage: Stage,
    session: Child,
    port: String,
}

impl Working {
    /// `memory`: what the engine says of it.
    fn start(memory: Option<&Value>) -> Self {
        let mut stage = fakes::stage();
        fakes::mac(&mut stage, 16);
        fakes::asking_client(&mut stage);
        if let Some(memory) = memory {
            stage.write("engine/memory", &memory.to_string());
        }
        let port = free_port();
        let session = stage.start(&["--model", "../model", "--port", &port]);
        stage.wait_for("client/stream");
        Self {
            stage,
            session,
            port,
        }
    }

    /// The engine says this of its memory from now on.
    fn holds(&self, memory: &Value) {
        self.file("memory", memory);
    }

    /// In one step: the engine may read it at any moment.
    fn file(&self, name: &str, value: &Value) {
        let written = self.stage.write("engine/new", &value.to_string());
        std::fs::rename(written, self.stage.path(format!("engine/{name}"))).expect("renamed");
    }

    fn status(&self) -> Value {
        let ran = self.stage.run(&["status", "--json"]);
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        all[0].clone()
    }

    fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let since = std::time::Instant::now();
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(since.elapsed() < HANG, "{what}: {status}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn until_it_holds(&self, bytes: u64) -> Value {
        self.until("the engine's memory", |status| {
            status["memory"]["held"] == bytes
        })
    }

    /// Sends a prompt that could be as long as the window. Returns the whole answer.
    fn ask(&self) -> String {
        let body = json!({"model": "any", "max_tokens": 10, "messages": [{"role": "user", "content": "x".repeat(70_000)}]}).to_string();
        let env = self.stage.read("client/env");
        let token = env
            .lines()
            .find_map(|line| line.strip_prefix("ANTHROPIC_AUTH_TOKEN="));
        let address = format!("127.0.0.1:{}", self.port);
        let mut stream = TcpStream::connect(&address).expect("connected");
        write!(
            stream,
            "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            token.expect("a token"),
            body.len()
        )
        .expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    /// Lets the request end, and then the session. Returns what the session said.
    fn end(self) -> String {
        self.stage.write("engine/finish", "yes");
        self.stage.write("home/go-on", "yes");
        let ran = finish(self.session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran.stderr
    }
}

/// What an engine says that holds so many hundredths of the limit.
fn holding(percent: u64, tokens: u64, prefix_cache: u64) -> Value {
    json!({"held": LIMIT / 100 * percent, "peak": LIMIT / 100 * percent, "base": LIMIT / 4, "rise": 1_000_000, "dropped": 0,
        "tokens": tokens, "writing": true, "prefix_cache": prefix_cache})
}

#[test]
fn the_prefix_cache_is_cleared_and_then_the_window_narrows() {
    let working = Working::start(Some(&holding(40, 9_000, 0)));
    let before = working.until_it_holds(LIMIT / 100 * 40);
    assert_eq!(before["memory"]["limit"], LIMIT);
    assert_eq!(before["context_window"], 65_536, "{before}");
    // What is kept of earlier turns can be done without.
    working.file("memory-cleared", &holding(50, 40_000, 0));
    working.holds(&holding(97, 40_000, LIMIT / 3));
    let cleared = working.until_it_holds(LIMIT / 100 * 50);
    assert_eq!(working.stage.read("engine/cleared"), "cleared\n");
    assert_eq!(cleared["memory"]["cleared"], 1, "{cleared}");
    assert_eq!(cleared["context_window"], 65_536, "{cleared}");
    // The conversation itself cannot.
    working.holds(&holding(98, 48_000, 0));
    let narrow = working.until("a narrower window", |status| {
        status["memory"]["narrowed_from"] == 65_536
    });
    let window = narrow["context_window"].as_u64().expect("a window");
    assert!((40_000..48_000).contains(&window), "{narrow}");
    let text = working.stage.run(&["status"]).stdout;
    assert!(
        text.contains(
            "low mem   the prefix cache cleared · the window narrowed from 65,536 tokens"
        ),
        "{text}"
    );
    // On this Claude Code compacts.
    working.stage.write("engine/prompt-tokens", "48000");
    let answer = working.ask();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let refusal = format!("prompt is too long: 48000 tokens > {} maximum", window - 10);
    assert!(answer.contains(&refusal), "{answer}");
    let log = format!("cclocal/state/supervisor-{}.log", working.port);
    let log = working.stage.read(&log);
    assert!(log.contains("the prefix cache was cleared"), "{log}");
    assert!(log.contains("the window is narrower"), "{log}");
    let said = working.end();
    assert!(
        said.contains("Memory ran low: the window was narrowed to"),
        "{said}"
    );
}

#[test]
fn an_engine_that_says_nothing_of_its_memory_is_left_alone() {
    let working = Working::start(None);
    let status = working.status();
    assert_eq!(status["memory"]["held"], 0, "{status}");
    assert_eq!(status["context_window"], 65_536);
    let said = working.end();
    assert!(!said.contains("Memory"), "{said}");
}

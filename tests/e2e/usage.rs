//! What the client is told of a reply, held against the engine's own log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cclocal::catalog::Form;
use cclocal::engine::executable::Executable;
use cclocal::engine::server::{GRACE, Launch, Server};
use cclocal::gateway::wire::{self, Pictures, Repair, Request, Served, Usage};
use serde_json::{Value, json};

use crate::real::{self, free_port};
use crate::support::Stage;

#[test]
fn usage_is_the_engines_own_in_simple_mode() {
    usage_is_the_engines_own(&[]);
}

#[test]
fn usage_is_the_engines_own_in_batched_mode() {
    usage_is_the_engines_own(&[
        "--continuous-batching",
        "--max-num-seqs",
        "1",
        "--stream-interval",
        "4",
    ]);
}

fn usage_is_the_engines_own(flags: &[&str]) {
    let stage = real::stage(&real::client());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut engine = Engine::start(&stage, flags).await;
        let mut messages = vec![json!({"role": "user", "content": "write the file"})];
        for turn in 0..4 {
            let request = engine.request(&messages, 200);
            let counted = engine.count(&request).await;
            let told = engine.ask(&request).await.1;
            assert_eq!(
                (
                    told.input_tokens + told.cache_read_input_tokens,
                    told.input_tokens
                ),
                engine.logged(),
                "turn {turn}: prompt and computed tokens"
            );
            assert_eq!(counted, told.input_tokens + told.cache_read_input_tokens);
            assert!(told.output_tokens > 0);
            assert_eq!(turn > 0, told.cache_read_input_tokens > 0, "turn {turn}");
            messages.extend([
                json!({"role": "assistant", "content": "yes"}),
                json!({"role": "user", "content": format!("again, {turn}")}),
                json!({"role": "system", "content": "Mind the time."}),
            ]);
        }
        // In the middle of the call.
        let request = engine.request(&messages, 12);
        let (reply, told) = engine.ask(&request).await;
        assert_eq!(told.output_tokens, 12);
        assert!(reply.contains(r#""stop_reason":"max_tokens""#), "{reply}");
        assert!(reply.contains("inside a call of the tool Write"), "{reply}");
        assert!(!reply.contains("tool_use"), "{reply}");
        engine.stop().await;
    });
}

struct Engine {
    server: Server,
    base: String,
    http: reqwest::Client,
    /// How much of the log was read.
    seen: usize,
}

impl Engine {
    async fn stop(mut self) {
        self.server.ask_to_end();
        if tokio::time::timeout(GRACE, self.server.ended())
            .await
            .is_err()
        {
            self.server.kill();
            self.server.ended().await;
        }
    }

    async fn start(stage: &Stage, flags: &[&str]) -> Self {
        let script = PathBuf::from(&stage.env()["CCLOCAL_ENGINE"]);
        let executable = Executable {
            python: script.with_file_name("python"),
            script,
        };
        let model = stage.path("hermes-llama").display().to_string();
        let port = free_port();
        let mut argv = vec!["serve", &model, "--host", "127.0.0.1", "--port", &port];
        argv.extend(["--served-model-name", "served", "--max-tokens", "8192"]);
        argv.extend(["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]);
        argv.extend(flags);
        let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
        let variable = |name: &str, value: String| (name.into(), value.into());
        let mut server = Server::start(Launch {
            executable: &executable,
            argv: &argv,
            env: BTreeMap::from([
                variable("HOME", stage.path("home").display().to_string()),
                variable("PATH", "/usr/bin:/bin".into()),
                variable("HF_HUB_OFFLINE", "1".into()),
                variable("PYTHONUNBUFFERED", "1".into()),
            ]),
            key: None,
            folder: &stage.path("work"),
            log: stage.path("engine.log"),
            port: port.parse().expect("a port"),
            served_name: "served".into(),
        })
        .expect("the engine starts");
        server.ready().await.expect("the engine is ready");
        Self {
            server,
            base: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::new(),
            seen: 0,
        }
    }

    fn request(&self, messages: &[Value], max_tokens: u64) -> Request {
        let body = json!({
            "model": "claude-asked", "max_tokens": max_tokens, "stream": true,
            "system": [{"type": "text", "text": "You write files."}],
            "messages": messages,
            "tools": [{"name": "Write", "description": "Writes a file", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}],
            "thinking": {"type": "adaptive"}
        });
        let served = Served {
            name: "served".into(),
            output_tokens: 8192,
            form: Some(Form::Hermes),
            shows_thoughts: false,
            may_think: true,
            prose_calls: false,
            pictures: Pictures::Words,
        };
        wire::messages(body.to_string().as_bytes(), &served).expect("a request")
    }

    async fn post(&self, path: &str, request: &Request) -> Vec<u8> {
        let answer = self
            .http
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(request.body.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        answer.bytes().await.expect("a body").to_vec()
    }

    async fn count(&self, request: &Request) -> u64 {
        let body = self.post("/v1/messages/count_tokens", request).await;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["input_tokens"].as_u64().expect("a number")
    }

    async fn ask(&self, request: &Request) -> (String, Usage) {
        let stream = self.post("/v1/messages", request).await;
        let mut repair = Repair::new(request, None);
        let mut reply = repair.push(&stream);
        reply.extend(repair.finish());
        (String::from_utf8(reply).expect("UTF-8"), repair.usage())
    }

    /// Tokens of the last prompt, and how many of them were computed, as the engine's log has them.
    fn logged(&mut self) -> (u64, u64) {
        let log = std::fs::read(self.server.log()).expect("the log");
        let new = String::from_utf8_lossy(&log[self.seen..]).into_owned();
        self.seen = log.len();
        let after = |words: &str| {
            let rest = &new[new.find(words)? + words.len()..];
            let end = rest.find(|digit: char| !digit.is_ascii_digit())?;
            rest[..end].parse::<u64>().ok()
        };
        if let Some(computed) = after("tokens_to_prefill=") {
            let line = new.find("[schedule]").expect("the line");
            let rest = &new[line..];
            let prompt = rest.split("prompt_tokens=").nth(1).expect("the prompt");
            let prompt = prompt.split(' ').next().expect("a number");
            return (prompt.parse().expect("a number"), computed);
        }
        if let Some(reused) = after("reusing ") {
            let computed = after("tokens, prefilling ").expect("the rest");
            return (reused + computed, computed);
        }
        let system = after("will prefill ").expect("a line about the prompt");
        let all = system + after(" system + ").expect("the rest");
        (all, all)
    }
}

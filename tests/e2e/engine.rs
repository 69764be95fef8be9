//! The real engine by itself, as cclocal starts it, and what it streams.

use std::collections::BTreeMap;
use std::path::Path;

use cclocal::engine::server::{BASE_URL, GRACE, Launch, Server};
use cclocal::gateway;
use cclocal::gateway::anthropic::{Pictures, Served};
use serde_json::Value;

use crate::support::Stage;
use crate::turns;

/// As batched mode is served.
pub const BATCHED: &[&str] = &[
    "--continuous-batching",
    "--max-num-seqs",
    "1",
    "--stream-interval",
    "4",
];

pub struct Engine {
    server: Server,
    http: reqwest::Client,
    /// How much of the log was read.
    seen: usize,
}

impl Engine {
    /// Serves this model with these flags behind the usual ones.
    pub async fn start(stage: &Stage, model: &Path, flags: &[&str]) -> Self {
        let executable = turns::engine(stage);
        let model = model.display().to_string();
        let mut argv = vec!["serve", &model, "--host", "127.0.0.1", "--port", "0"];
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
            socket: stage.path("engine.sock"),
            served_name: "served".into(),
        })
        .expect("the engine starts");
        server.ready().await.expect("the engine is ready");
        Self {
            http: gateway::client_on(server.socket()).expect("a client"),
            server,
            seen: 0,
        }
    }

    pub async fn stop(mut self) {
        self.server.ask_to_end();
        if tokio::time::timeout(GRACE, self.server.ended())
            .await
            .is_err()
        {
            self.server.kill();
            self.server.ended().await;
        }
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let answer = self.send(path, body).await;
        answer.bytes().await.expect("a body").to_vec()
    }

    async fn send(&self, path: &str, body: &[u8]) -> reqwest::Response {
        let answer = self
            .http
            .post(format!("{BASE_URL}{path}"))
            .header("content-type", "application/json")
            .body(body.to_vec())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        answer
    }

    pub async fn ask(&self, body: &[u8]) -> Reply {
        let stream = self.post("/v1/messages", body).await;
        Reply::of(&String::from_utf8(stream).expect("UTF-8"))
    }

    /// Reads the beginning of a reply and goes away.
    pub async fn ask_and_leave(&self, body: &[u8]) {
        let mut answer = self.send("/v1/messages", body).await;
        let mut begun = String::new();
        while !begun.contains("content_block_delta") {
            let chunk = answer.chunk().await.expect("a stream").expect("a reply");
            begun += &String::from_utf8_lossy(&chunk);
        }
    }

    /// What the log has had since it was last asked for.
    pub fn logged(&mut self) -> String {
        let log = std::fs::read(self.server.log()).expect("the log");
        let new = String::from_utf8_lossy(&log[self.seen..]).into_owned();
        self.seen = log.len();
        new
    }
}

/// A reply as it was streamed: see the protocol in `engine/raw.py`.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// Real markers, and where in the text they stand, in characters.
    pub marks: Vec<(usize, String)>,
    pub vocabulary: Vec<String>,
    pub prompt_tail: String,
    pub stop_reason: String,
    pub stopped_by: Option<String>,
    /// Tokens that were computed, that were reused, and that were generated.
    pub usage: [u64; 3],
}

impl Reply {
    fn of(stream: &str) -> Self {
        let events: Vec<Value> = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).expect("JSON"))
            .collect();
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| event["type"].as_str().expect("a type"))
            .collect();
        let deltas = kinds.len() - 5;
        assert_eq!(kinds[..2], ["message_start", "content_block_start"]);
        assert_eq!(kinds[2..2 + deltas], vec!["content_block_delta"; deltas]);
        assert_eq!(
            kinds[2 + deltas..],
            ["content_block_stop", "message_delta", "message_stop"]
        );
        let words = |value: &Value| value.as_str().expect("words").to_owned();
        let (mut text, mut marks) = (String::new(), Vec::new());
        for event in &events[2..2 + deltas] {
            let before = text.chars().count();
            for mark in event["marks"].as_array().into_iter().flatten() {
                let at = mark[0].as_u64().expect("a place") as usize;
                marks.push((before + at, words(&mark[1])));
            }
            text += event["delta"]["text"].as_str().expect("text");
        }
        for (at, marker) in &marks {
            let rest: String = text.chars().skip(*at).collect();
            assert!(rest.starts_with(marker), "{marker} at {at} of {text:?}");
        }
        let end = &events[3 + deltas];
        let tokens = |name: &str| end["usage"][name].as_u64().expect("tokens");
        Self {
            text,
            marks,
            vocabulary: events[0]["as_generated"]["vocabulary"]
                .as_array()
                .expect("as generated")
                .iter()
                .map(words)
                .collect(),
            prompt_tail: words(&events[1]["prompt_tail"]),
            stop_reason: words(&end["delta"]["stop_reason"]),
            stopped_by: end["stopped_by"].as_str().map(str::to_owned),
            usage: ["input_tokens", "cache_read_input_tokens", "output_tokens"].map(tokens),
        }
    }
}

/// A model that the gateway knows by its name alone.
pub fn served(name: &str) -> Served {
    Served {
        name: name.into(),
        window: cclocal::memory::ContextWindow {
            tokens: 65_536,
            output: 8192,
        },
        form: None,
        shows_thoughts: false,
        may_think: true,
        prose_calls: false,
        pictures: Pictures::Words,
    }
}

/// A runtime for a test with an engine.
pub fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test);
}

//! A tool loop of the shape that Claude Code sends, and what each of its turns cost the engine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cclocal::engine::server::{BASE_URL, Server};
use cclocal::gateway::anthropic::{self, Event, Streamed, sse_bytes};
use serde_json::{Value, json};

use crate::engine::served;

/// How long a turn may take. Far more than any does.
const TURN_DEADLINE: Duration = Duration::from_secs(600);

/// Bytes of system prompt and tools as Claude Code 2.1 has them.
pub const CLIENTS: usize = 23_000;

/// The same for tests, as a processor is slow with a long prompt: longer than a step of reading it, and than the windows of models whose attention slides.
pub const SHORT: usize = 9_000;

/// What one turn cost.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Tokens of the whole prompt.
    pub prompt: u64,
    /// Those of them that were computed.
    pub prefilled: u64,
    /// Until the reply began.
    pub first: Duration,
    pub whole: Duration,
    /// What was replied, as content blocks.
    pub content: Value,
}

impl Turn {
    /// `events`: those that the client gets.
    fn of(events: Vec<Event>, first: Duration, whole: Duration) -> Self {
        let stream = sse_bytes(&events);
        let message = anthropic::message(events)
            .unwrap_or_else(|_| panic!("no reply: {}", String::from_utf8_lossy(&stream)));
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        let tokens = |name: &str| message["usage"][name].as_u64();
        let prefilled = tokens("input_tokens").expect("the usage");
        let mut content = message["content"].clone();
        let blocks = content.as_array_mut().expect("blocks");
        blocks.retain(|block| {
            block["type"] != "text" || !block["text"].as_str().unwrap_or_default().trim().is_empty()
        });
        Self {
            prompt: prefilled + tokens("cache_read_input_tokens").unwrap_or(0),
            prefilled,
            first,
            whole,
            content,
        }
    }
}

/// A conversation that grows by a tool call and its result each turn.
pub struct ToolLoop {
    url: String,
    key: String,
    /// The engine's Unix socket, if it is asked there.
    socket: Option<PathBuf>,
    request: Value,
    /// How it names itself.
    pub client: &'static str,
    pub turns: Vec<Turn>,
}

impl ToolLoop {
    /// An engine asked directly.
    pub fn on(server: &Server, key: &str, model: &str) -> Self {
        Self {
            socket: Some(server.socket().to_owned()),
            ..Self::new(BASE_URL, key, model)
        }
    }

    /// `base_url`: of the gateway.
    pub fn new(base_url: &str, key: &str, model: &str) -> Self {
        Self {
            url: format!("{base_url}/v1/messages?beta=true"),
            key: key.to_owned(),
            socket: None,
            request: first_request(model, SHORT),
            client: "tool-loop",
            turns: Vec::new(),
        }
    }

    /// Begins with this many bytes of system prompt and tools.
    pub fn of_length(mut self, bytes: usize) -> Self {
        let model = self.request["model"].as_str().expect("a model");
        self.request = first_request(model, bytes);
        self
    }

    /// Another request for the next turn.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.request);
    }

    /// Asks once, and goes on with nothing.
    pub fn ask_once(&self) -> Turn {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(self.ask())
    }

    /// Runs this many turns. Every sixth result comes with a reminder; `questions` are the turns after which the user asks something.
    pub fn run(&mut self, turns: usize, questions: &[usize]) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for _ in 0..turns {
            let turn = runtime.block_on(self.ask());
            let number = self.turns.len();
            self.go_on(number, &turn.content, questions.contains(&number));
            self.turns.push(turn);
        }
    }

    async fn ask(&self) -> Turn {
        let client = cclocal::sys::network::plain_http()
            .timeout(TURN_DEADLINE)
            .no_proxy();
        let client = match &self.socket {
            Some(socket) => client.unix_socket(socket.as_path()),
            None => client,
        };
        let client = client.build().expect("a client");
        let started = Instant::now();
        let mut answer = client
            .post(&self.url)
            .header("authorization", format!("Bearer {}", self.key))
            .header("anthropic-version", "2023-06-01")
            .header("user-agent", self.client)
            .json(&self.request)
            .send()
            .await
            .expect("an answer");
        if answer.status() != 200 {
            panic!("{}: {}", answer.status(), answer.text().await.expect("why"));
        }
        // An engine writes a reply as it was generated; the gateway's own passes unchanged.
        let mut reader = self.reader();
        let mut events = Vec::new();
        let mut first = None;
        while let Some(chunk) = answer.chunk().await.expect("the stream") {
            events.extend(reader.push(&chunk));
            if first.is_none()
                && String::from_utf8_lossy(&sse_bytes(&events))
                    .contains("event: content_block_delta")
            {
                first = Some(started.elapsed());
            }
        }
        events.extend(reader.finish());
        let whole = started.elapsed();
        Turn::of(events, first.unwrap_or(whole), whole)
    }

    /// Reads the engine's stream as the gateway does.
    fn reader(&self) -> Streamed {
        let served = served(self.request["model"].as_str().expect("a model"));
        let request = anthropic::messages(self.request.to_string().as_bytes(), &served);
        Streamed::new(&request.expect("a request"), &served, None)
    }

    fn go_on(&mut self, number: usize, content: &Value, question: bool) {
        let result = sentences(&format!("line of file {number}"), 600 + 150 * (number % 5));
        let mut answers: Vec<Value> = content
            .as_array()
            .expect("blocks")
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .map(
                |call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": result}),
            )
            .collect();
        assert!(
            !answers.is_empty(),
            "no tool call in turn {number}: {content}"
        );
        if question {
            answers.push(
                json!({"type": "text", "text": format!("Now do the same for part {number}.")}),
            );
        }
        let messages = self.request["messages"].as_array_mut().expect("messages");
        messages.push(json!({"role": "assistant", "content": content}));
        messages.push(json!({"role": "user", "content": answers}));
        if reminds(number) {
            messages.push(json!({"role": "system", "content": sentences("reminder", 300)}));
        }
    }

    /// Tokens computed against tokens that were new, from the second turn on.
    pub fn ratio(&self) -> f64 {
        let new: u64 = (1..self.turns.len()).map(|turn| self.new_in(turn)).sum();
        let prefilled: u64 = self.turns[1..].iter().map(|turn| turn.prefilled).sum();
        prefilled as f64 / new as f64
    }

    /// Tokens by which this turn's prompt is longer than the one before.
    pub fn new_in(&self, turn: usize) -> u64 {
        let before = turn
            .checked_sub(1)
            .map_or(0, |before| self.turns[before].prompt);
        self.turns[turn].prompt.saturating_sub(before)
    }

    /// The most that a turn after the first computed beyond what was new.
    pub fn most_beyond_new(&self) -> u64 {
        (1..self.turns.len())
            .map(|turn| self.turns[turn].prefilled.saturating_sub(self.new_in(turn)))
            .max()
            .unwrap_or(0)
    }

    pub fn total(&self) -> Duration {
        self.turns.iter().map(|turn| turn.whole).sum()
    }

    pub fn last(&self) -> &Turn {
        self.turns.last().expect("a turn")
    }
}

/// Whether a reminder of the client's comes with this turn's results.
pub fn reminds(turn: usize) -> bool {
    turn % 6 == 5
}

/// As Claude Code 2.1 begins: a system prompt of two blocks, nine tools, and a system message behind the question. `bytes`: of the first two, without schemas.
fn first_request(model: &str, bytes: usize) -> Value {
    let system = bytes * 10 / 23;
    let names = [
        "Bash",
        "Edit",
        "Glob",
        "Grep",
        "Read",
        "TodoWrite",
        "WebFetch",
        "Write",
        "DeferredToolPlaceholder",
    ];
    let tools: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "description": sentences(&format!("what {name} is for"), (bytes - system) / names.len()),
                "input_schema": {
                    "type": "object",
                    "properties": {
                        "file_path": {"type": "string", "description": "The absolute path of the file"},
                        "text": {"type": "string", "description": "What is to be done with it"},
                    },
                    "required": ["file_path"],
                },
            })
        })
        .collect();
    json!({
        "model": model,
        "max_tokens": 1_024,
        "stream": true,
        "temperature": 0,
        "system": [
            {"type": "text", "text": "You help with programs, in a terminal."},
            {"type": "text", "text": sentences("how to work", system), "cache_control": {"type": "ephemeral"}},
        ],
        "tools": tools,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Read the notes and say what is in them."}]},
            {"role": "system", "content": sentences("the environment", 800)},
        ],
    })
}

/// Text of about this many bytes, in sentences that differ.
fn sentences(about: &str, bytes: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text +=
            &format!("Sentence {number} is about {about}: take care of it before the next one. ");
    }
    text
}

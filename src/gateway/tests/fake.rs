//! An engine that does what it is told, misbehaving included, and remembers what it was asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::gateway::Engine;
use crate::sys::secret::Secret;

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub head: String,
    pub body: Value,
}

impl Seen {
    /// The last message's text.
    pub fn said(&self) -> String {
        let messages = self.body["messages"].as_array().expect("messages");
        let content = &messages.last().expect("a message")["content"];
        // As it was asked, or as the blocks that it is made into.
        let said = match content.as_array() {
            Some(blocks) => blocks[0]["text"].to_string(),
            None => content.to_string(),
        };
        said.trim_matches('"').to_owned()
    }
}

/// What it does, in order. At the end it closes the connection.
pub enum Step {
    Send(String),
    /// Waits until the test says so.
    Wait(Arc<Semaphore>),
    /// Sends nothing until the other side goes away.
    Hang,
    /// Sends a comment every few milliseconds until the other side goes away.
    Heartbeats,
}

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    left: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Fake {
    pub async fn start(act: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(0));
        let act = Arc::new(act);
        let (all, gone) = (seen.clone(), left.clone());
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(one(stream, act.clone(), all.clone(), gone.clone()));
            }
        });
        Self {
            url,
            seen,
            left,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub fn ready(&self) -> Engine {
        Engine::Ready {
            base_url: self.url.clone(),
            key: Some(Secret::new("engine-key")),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// The last words of the requests for messages that it got, in order.
    pub fn said(&self) -> Vec<String> {
        self.seen()
            .iter()
            .filter(|seen| seen.path == "/v1/messages")
            .map(Seen::said)
            .collect()
    }

    /// How often the other side went away while it hung.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

async fn one(
    mut stream: TcpStream,
    act: Arc<impl Fn(&Seen) -> Vec<Step>>,
    all: Arc<Mutex<Vec<Seen>>>,
    left: Arc<AtomicUsize>,
) {
    let Some(seen) = read(&mut stream).await else {
        return;
    };
    all.lock().expect("no panic").push(seen.clone());
    let steps = act(&seen);
    for step in steps {
        let mut byte = [0];
        match step {
            Step::Send(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Step::Wait(signal) => signal.acquire().await.expect("open").forget(),
            Step::Hang => {
                while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
                left.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Step::Heartbeats => {
                while stream
                    .write_all(chunk(": heartbeat\n\n").as_bytes())
                    .await
                    .is_ok()
                {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                left.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a length"));
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        path: text.split(' ').nth(1).expect("a path").to_owned(),
        body: match length {
            0 => Value::Null,
            _ => serde_json::from_slice(&bytes[head + 4..]).expect("JSON"),
        },
        head: text,
    })
}

pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The end of a chunked body.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

pub fn head() -> Step {
    Step::Send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            .into(),
    )
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// What the engine sends before it has read the prompt.
pub fn opening() -> Step {
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "served",
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0}}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    Step::Send(chunk(
        &(event("message_start", &start) + &event("content_block_start", &block)),
    ))
}

pub fn text(text: &str) -> Step {
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    Step::Send(chunk(&event("content_block_delta", &delta)))
}

pub fn closing() -> Step {
    closing_after(3)
}

/// The end of a reply of so many tokens, by an engine that never says that one was cut.
pub fn closing_after(tokens: u64) -> Step {
    let stop = json!({"type": "content_block_stop", "index": 0});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": tokens}});
    let end = json!({"type": "message_stop"});
    let events = event("content_block_stop", &stop)
        + &event("message_delta", &delta)
        + &event("message_stop", &end);
    Step::Send(chunk(&events) + LAST_CHUNK)
}

/// A whole streamed answer.
pub fn answer(said: &str) -> Vec<Step> {
    vec![head(), opening(), text(said), closing()]
}

/// A plain reply with a status.
pub fn json_reply(status: u16, body: &Value) -> Vec<Step> {
    let body = body.to_string();
    vec![Step::Send(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))]
}

/// A whole plain answer.
pub fn plain_answer(said: &str) -> Vec<Step> {
    json_reply(
        200,
        &json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "served", "content": [{"type": "text", "text": said}],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 5, "output_tokens": 3}}),
    )
}

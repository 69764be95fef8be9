//! A server that speaks the Anthropic Messages API from a script, and keeps every request. It stands for a local server, and, named in
//! hostile settings, for one that must receive nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cclocal::gateway::anthropic::ApiError;
use serde_json::{Value, json};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body, or null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether it asks for an answer of the model.
    pub fn is_message(&self) -> bool {
        self.method == "POST"
            && self.path.starts_with("/v1/messages")
            && !self.path.contains("count_tokens")
    }

    /// How many tool results the conversation holds so far.
    pub fn tool_results(&self) -> usize {
        let body = self.json();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let blocks = messages
            .iter()
            .filter_map(|message| message["content"].as_array())
            .flatten();
        blocks
            .filter(|block| block["type"] == "tool_result")
            .count()
    }

    /// Everything that was sent, as text, to look for what must not be there.
    pub fn text(&self) -> String {
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        format!(
            "{} {}\n{}\n\n{}",
            self.method,
            self.path,
            headers.join("\n"),
            String::from_utf8_lossy(&self.body)
        )
    }
}

/// What the model answers.
#[derive(Debug, Clone)]
pub enum Reply {
    Text(String),
    /// A call of a tool. Each call in a conversation needs its own id.
    Tool {
        id: String,
        name: &'static str,
        input: Value,
    },
    /// The events of a stream, as they are.
    Events(Vec<u8>),
    Refused(ApiError),
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// Bytes for each token that the server counts.
pub const BYTES_PER_TOKEN: usize = 4;

/// A running server. It ends with the test.
pub struct ScriptedServer {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl ScriptedServer {
    /// Starts a server that asks the script for every answer.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_window(None, script)
    }

    /// Starts one that says how long its window is, in tokens, and counts prompts.
    pub fn with_window(
        window: impl Into<Option<u64>>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let window = window.into();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, kept): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                std::thread::spawn(move || {
                    // A client that goes away in the middle is no failure of the server.
                    let _ = serve(stream, window, &*script, &kept);
                });
            }
        });
        Self { port, requests }
    }

    /// Starts a server that always says the same.
    pub fn saying(text: &'static str) -> Self {
        Self::start(move |_| Reply::Text(text.to_owned()))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("the requests").clone()
    }

    /// Those that ask for an answer of the model.
    pub fn messages(&self) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(Request::is_message)
            .collect()
    }
}

/// Answers one request and closes, so that nothing is left open at the end of a test.
fn serve(
    stream: TcpStream,
    window: Option<u64>,
    script: &Script,
    kept: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(request) = read(&mut reader)? else {
        return Ok(());
    };
    kept.lock().expect("the requests").push(request.clone());
    let mut out = stream;
    if request.is_message() {
        let model = request.json()["model"].clone();
        let prompt = match window {
            Some(_) => request.body.len() / BYTES_PER_TOKEN,
            None => 10,
        };
        let reply = script(&request);
        if let Reply::Refused(error) = &reply {
            let status = format!("{} Refused", error.status);
            return respond(&mut out, &status, &error.json());
        }
        if request.json()["stream"] == json!(true) {
            return stream_reply(&mut out, &model, prompt, &reply);
        }
        return respond(&mut out, "200 OK", &whole(&model, prompt, &reply));
    }
    match request.path.as_str() {
        path if path.contains("count_tokens") => respond(
            &mut out,
            "200 OK",
            &json!({"input_tokens": request.body.len() / BYTES_PER_TOKEN}),
        ),
        "/v1/models" if window.is_some() => respond(
            &mut out,
            "200 OK",
            &json!({"object": "list", "data": [{"id": "scripted", "object": "model", "max_model_len": window}]}),
        ),
        // The client asks first whether anyone is there.
        _ if request.method == "HEAD" => write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
        // So a server says that there is such a path.
        "/v1/messages" => respond(
            &mut out,
            "405 Method Not Allowed",
            &json!({"error": "POST it"}),
        ),
        _ => respond(&mut out, "404 Not Found", &json!({"error": "not here"})),
    }
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length: u64 = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    request.body = body;
    Ok(Some(request))
}

fn respond(out: &mut impl Write, status: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn block(reply: &Reply) -> Value {
    match reply {
        Reply::Text(text) => json!({"type": "text", "text": text}),
        Reply::Tool { id, name, input } => {
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
        Reply::Events(_) | Reply::Refused(_) => unreachable!("these are sent as they are"),
    }
}

fn stop_reason(reply: &Reply) -> &'static str {
    match reply {
        Reply::Text(_) => "end_turn",
        Reply::Tool { .. } => "tool_use",
        Reply::Events(_) | Reply::Refused(_) => unreachable!("these are sent as they are"),
    }
}

/// Each reply has an id of its own: the client takes replies of the same id for one.
fn message_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("msg_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn whole(model: &Value, prompt: usize, reply: &Reply) -> Value {
    json!({"id": message_id(), "type": "message", "role": "assistant", "model": model, "content": [block(reply)], "stop_reason": stop_reason(reply),
        "stop_sequence": null, "usage": {"input_tokens": prompt, "output_tokens": 5}})
}

fn stream_reply(
    out: &mut impl Write,
    model: &Value,
    prompt: usize,
    reply: &Reply,
) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    )?;
    if let Reply::Events(events) = reply {
        return out.write_all(events);
    }
    let mut event = |data: Value| {
        write!(
            out,
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap_or_default()
        )
    };
    event(
        json!({"type": "message_start", "message": {"id": message_id(), "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": prompt, "output_tokens": 1}}}),
    )?;
    let (start, delta) = match reply {
        Reply::Text(text) => (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": text}),
        ),
        Reply::Tool { id, name, input } => (
            json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input.to_string()}),
        ),
        Reply::Events(_) | Reply::Refused(_) => unreachable!("these are sent as they are"),
    };
    event(json!({"type": "content_block_start", "index": 0, "content_block": start}))?;
    event(json!({"type": "content_block_delta", "index": 0, "delta": delta}))?;
    event(json!({"type": "content_block_stop", "index": 0}))?;
    event(
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(reply), "stop_sequence": null}, "usage": {"output_tokens": 5}}),
    )?;
    event(json!({"type": "message_stop"}))
}

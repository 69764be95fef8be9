//! The gateway between clients and an engine that misbehave.

mod access;
mod engine;
mod fake;
mod outage;
mod queue;
mod reading;
mod requests;
mod warm;
mod web_search;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{Access, Engine, Limits, Metrics, Settings, anthropic, serve};
use crate::catalog::Form;
use crate::sys::secret::Secret;

/// Far beyond what anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// A gateway that runs, and all that its owner has.
struct Stage {
    port: u16,
    engine: watch::Sender<Engine>,
    window: watch::Sender<u64>,
    access: Access,
    metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    serving: AbortOnDropHandle<crate::error::Result<()>>,
    client: reqwest::Client,
}

/// Limits that do not get in the way, and short intervals.
fn limits() -> Limits {
    Limits {
        hold: Duration::from_millis(200),
        ping: Duration::from_millis(20),
        notice: Duration::from_millis(200),
        ..Limits::default()
    }
}

impl Stage {
    async fn new(engine: Engine) -> Self {
        Self::with(engine, limits()).await
    }

    async fn with(engine: Engine, limits: Limits) -> Self {
        Self::remembering(engine, limits, None).await
    }

    async fn remembering(engine: Engine, limits: Limits, prefixes: Option<PathBuf>) -> Self {
        Self::changed(engine, |settings| {
            settings.limits = limits;
            settings.prompt_prefixes = prefixes;
        })
        .await
    }

    /// With other settings than [`limits`] and the usual ones.
    async fn changed(engine: Engine, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (engine, engine_seen) = watch::channel(engine);
        let (window, window_seen) = watch::channel(65_536);
        let access = Access::new(&Secret::new("main-token"));
        let served = anthropic::Served {
            name: "served".into(),
            window: crate::memory::ContextWindow {
                tokens: 65_536,
                output: 8192,
            },
            form: Some(Form::Hermes),
            shows_thoughts: false,
            may_think: true,
            prose_calls: false,
            pictures: anthropic::Pictures::Words,
        };
        let mut settings = Settings {
            limits: limits(),
            ..Settings::new(served, engine_seen, window_seen, access.clone())
        };
        change(&mut settings);
        let metrics = settings.metrics.clone();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, settings, async move {
            let _ = stopped.await;
        }));
        Self {
            port,
            engine,
            window,
            access,
            metrics,
            stop: Some(stop),
            serving: AbortOnDropHandle::new(serving),
            client: crate::sys::network::plain_http()
                .no_proxy()
                .build()
                .expect("a client"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(self.url(path))
            .bearer_auth("main-token")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn ask(&self, said: &str, stream: bool) -> reqwest::Response {
        let sent = self.post("/v1/messages", &question(said, stream)).send();
        within(sent).await.expect("an answer")
    }

    /// The whole of a streamed answer, or what there is of it, and whether it broke off.
    async fn stream(&self, said: &str) -> (u16, String, bool) {
        let response = self.ask(said, true).await;
        let status = response.status().as_u16();
        let (text, broke) = rest(response).await;
        (status, text, broke)
    }

    /// Asks in the background.
    fn asking(&self, said: &str) -> AbortOnDropHandle<(String, bool)> {
        let sent = self.post("/v1/messages", &question(said, true)).send();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let response = within(sent).await.expect("an answer");
            rest(response).await
        }))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection")
    }

    /// Sends bytes on a connection of their own and reads until it is closed.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may be closed before it has read all.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }
}

async fn rest(mut response: reqwest::Response) -> (String, bool) {
    let mut text = String::new();
    loop {
        match within(response.chunk()).await {
            Ok(Some(piece)) => text += &String::from_utf8_lossy(&piece),
            Ok(None) => return (text, false),
            Err(_) => return (text, true),
        }
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn question(said: &str, stream: bool) -> Value {
    json!({"model": "asked", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": said}]})
}

/// The kind and the message of an error in the API's shape.
fn error(body: &str) -> (String, String) {
    let value: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(value["type"], "error", "{body}");
    let say = |name: &str| value["error"][name].as_str().expect("a text").to_owned();
    (say("type"), say("message"))
}

/// The error event at the end of a stream.
fn error_event(stream: &str) -> (String, String) {
    let (_, data) = stream
        .rsplit_once("event: error\ndata: ")
        .expect("an error event");
    error(data.trim_end())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future)
        .await
        .expect("it does not hang")
}

/// Waits for a condition.
async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

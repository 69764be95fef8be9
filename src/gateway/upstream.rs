//! The way to the engine: requests that are sent, and what can go wrong with them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Response, header};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::anthropic::ApiError;
use super::{Engine, limits::Limits};
use crate::engine::complaint;
use crate::sys::log;
use crate::sys::network;
use crate::sys::secret::Secret;

/// How long a connection to the engine may take. It is on this machine, or near it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Shorter than the 5 seconds after which the engine's server (uvicorn) closes an idle connection.
const KEPT_IDLE: Duration = Duration::from_secs(3);
/// How long an engine may take to answer a question for its health.
const UP_DEADLINE: Duration = Duration::from_secs(10);
/// How often an engine that is to work at nothing is asked whether it does.
const CLEARING_INTERVAL: Duration = Duration::from_millis(50);
/// The most that is read of an error's body.
const ERROR_BODY: usize = 64 << 10;
/// The longest plain reply. A reply of 131,072 tokens is below 1 MB.
pub(super) const REPLY_BODY: usize = 64 << 20;

/// An engine that answers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    base_url: String,
    key: Option<Secret>,
}

impl Target {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine cannot be reached, or it is gone in the middle of its answer.
    Lost(String),
    /// It sends nothing.
    Stalled,
    /// It has too many requests at the moment, and may say how long that lasts.
    Busy(ApiError, Option<Duration>),
    /// It is unavailable: a proxy in front of it says so, or it does itself.
    Away(ApiError),
    /// It said no.
    Refused(ApiError),
}

/// Makes connections to engines, and to nothing else: through no proxy of the environment, and not where an answer points.
///
/// Where the system has no certificates, nothing is reached that needs one.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    through(network::http()).build().or_else(|_| client_here())
}

/// The same for engines on this machine alone, over plain HTTP. To read the system's certificates takes longer than all else that a gateway begins
/// with.
pub fn client_here() -> Result<reqwest::Client, reqwest::Error> {
    through(network::plain_http()).build()
}

/// The same for engines on one Unix socket, and for nothing else.
pub fn client_on(socket: &Path) -> Result<reqwest::Client, reqwest::Error> {
    through(network::plain_http()).unix_socket(socket).build()
}

fn through(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .pool_idle_timeout(KEPT_IDLE)
        .tcp_nodelay(true)
}

/// Sends requests to engines. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(reqwest::Client);

impl Upstream {
    /// To engines on a Unix socket.
    pub(crate) fn on(socket: &Path) -> Result<Self, reqwest::Error> {
        client_on(socket).map(Self)
    }

    /// To engines on this machine.
    pub(crate) fn here() -> Result<Self, reqwest::Error> {
        client_here().map(Self)
    }

    /// To engines wherever they are. Errors: the system's certificates cannot be read.
    pub(crate) fn anywhere() -> Result<Self, reqwest::Error> {
        client().map(Self)
    }

    /// Posts a body and returns the answer when its head is there. Answers that are errors become [`Failure::Refused`].
    pub(crate) async fn post(
        &self,
        target: &Target,
        path: &str,
        body: Bytes,
        stall: Duration,
    ) -> Result<Response, Failure> {
        let mut request = self
            .0
            .post(target.url(path))
            .header(header::CONTENT_TYPE, "application/json")
            .header("anthropic-version", "2023-06-01")
            .body(body);
        if let Some(key) = &target.key {
            request = request.bearer_auth(key.expose());
        }
        let response = match tokio::time::timeout(stall, request.send()).await {
            Err(_) => return Err(Failure::Stalled),
            Ok(Err(error)) => return Err(lost(&error)),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let is_final = (response.headers().get("x-should-retry")).is_some_and(|may| may == "false");
        let body = read(response, ERROR_BODY, stall).await?;
        let error = ApiError::from_engine(status, &body);
        Err(match status {
            // Another cclocal says so of what fails each time.
            _ if is_final => Failure::Refused(gone(&error.message)),
            429 | 529 => Failure::Busy(error, retry_after),
            // vllm-mlx without batching, which takes one at a time, and Ollama with too many in its queue.
            503 if error.message.contains("busy") => Failure::Busy(error, retry_after),
            502..=504 => Failure::Away(error),
            _ => Failure::Refused(error),
        })
    }

    /// Posts a body and returns the whole answer.
    pub(crate) async fn post_plain(
        &self,
        target: &Target,
        path: &str,
        body: Bytes,
        stall: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let response = self.post(target, path, body, stall).await?;
        read(response, REPLY_BODY, stall).await
    }

    /// Waits until the engine works at nothing, and has it cancel what it works at. The engine (vllm-mlx 0.6.0, batched) notices a client that is gone
    /// only if that happens while it waits for a token: while it sends one, it generates to the end. One that cannot be asked is left alone.
    pub(crate) async fn clear(&self, target: &Target, deadline: Duration) {
        let clearing = async {
            while let Some(ids) = self.requests(target).await.filter(|ids| !ids.is_empty()) {
                for id in ids {
                    let path = format!("/v1/requests/{id}/cancel");
                    let _ = self.send(target, self.0.post(target.url(&path))).await;
                }
                tokio::time::sleep(CLEARING_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(deadline, clearing).await;
    }

    /// The ids of the requests that the engine works at.
    async fn requests(&self, target: &Target) -> Option<Vec<String>> {
        let status = self
            .send(target, self.0.get(target.url("/v1/status")))
            .await?;
        let requests = status.get("requests")?.as_array()?;
        let ids = requests
            .iter()
            .filter_map(|request| request.get("request_id")?.as_str())
            .filter(|id| {
                id.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
            .map(str::to_owned);
        Some(ids.collect())
    }

    async fn send(&self, target: &Target, request: reqwest::RequestBuilder) -> Option<Value> {
        let request = match &target.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        };
        let response = request.timeout(CONNECT_DEADLINE).send().await.ok()?;
        let response = response.error_for_status().ok()?;
        let body = read(response, REPLY_BODY, CONNECT_DEADLINE).await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// Whether the engine answers at all: on `/health`, else with its list of models.
    pub(crate) async fn is_up(&self, target: &Target) -> bool {
        for path in ["/health", "/v1/models"] {
            let mut request = self.0.get(target.url(path)).timeout(UP_DEADLINE);
            if let Some(key) = &target.key {
                request = request.bearer_auth(key.expose());
            }
            match request.send().await {
                Err(_) => return false,
                Ok(answer) if answer.status().is_server_error() => return false,
                Ok(answer) if answer.status().is_success() => return true,
                Ok(_) => {}
            }
        }
        // It has neither, but it answers.
        true
    }

    /// How many tokens a prompt has, as the engine counts them.
    pub(crate) async fn count(
        &self,
        target: &Target,
        body: Bytes,
        deadline: Duration,
    ) -> Result<u64, Failure> {
        let counting = self.post_plain(target, "/v1/messages/count_tokens", body, deadline);
        let answer = tokio::time::timeout(deadline, counting)
            .await
            .map_err(|_| Failure::Stalled)??;
        serde_json::from_slice::<Value>(&answer)
            .ok()
            .and_then(|answer| answer.get("input_tokens")?.as_u64())
            .ok_or_else(|| Failure::Refused(invalid_answer()))
    }
}

/// How long an engine wants to be left alone. In seconds: dates are not read.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: f64 = seconds.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads a stream for as long as something comes that counts.
pub(super) struct StallTimeout {
    stall: Duration,
    deadline: Instant,
}

impl StallTimeout {
    pub(super) fn new(stall: Duration) -> Self {
        Self {
            stall,
            deadline: Instant::now() + stall,
        }
    }

    /// The next piece of a streamed answer; None at its end. The engine's heartbeats are comments, and it sends them while it hangs, too.
    pub(super) async fn piece(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<Bytes>, Failure> {
        let piece = tokio::time::timeout_at(self.deadline, response.chunk());
        match piece.await {
            Err(_) => Err(Failure::Stalled),
            Ok(Err(error)) => Err(lost(&error)),
            Ok(Ok(piece)) => {
                if piece.as_ref().is_some_and(|piece| !is_comment(piece)) {
                    self.deadline = Instant::now() + self.stall;
                }
                Ok(piece)
            }
        }
    }
}

fn is_comment(piece: &[u8]) -> bool {
    piece.starts_with(b":")
        && piece
            .split(|byte| *byte == b'\n')
            .all(|line| line.is_empty() || line.starts_with(b":"))
}

/// Waits until the engine answers. Errors: it is gone for good.
pub(super) async fn ready(engine: &mut watch::Receiver<Engine>) -> Result<Target, ApiError> {
    loop {
        match &*engine.borrow_and_update() {
            Engine::Ready { base_url, key } => {
                return Ok(Target {
                    base_url: base_url.clone(),
                    key: key.clone(),
                });
            }
            Engine::Gone(sentence) => return Err(gone(sentence)),
            Engine::Starting => {}
        }
        // Whoever owns the engine has ended without a word.
        if engine.changed().await.is_err() {
            return Err(gone("the engine is gone"));
        }
    }
}

/// The engine, if it answers at this moment.
pub(super) fn ready_now(engine: &watch::Receiver<Engine>) -> Option<Target> {
    match &*engine.borrow() {
        Engine::Ready { base_url, key } => Some(Target {
            base_url: base_url.clone(),
            key: key.clone(),
        }),
        _ => None,
    }
}

/// Waits until something has changed about an engine that was lost, or long enough that its owner would have noticed.
pub(super) async fn wait_for_change(engine: &mut watch::Receiver<Engine>, limits: &Limits) {
    let _ = tokio::time::timeout(limits.notice, engine.changed()).await;
}

/// The error of an engine that is not there. The client shows it at once.
pub(super) fn gone(sentence: &str) -> ApiError {
    ApiError::new(GONE, "api_error", sentence)
}

/// The status of "gone for good". The reply also says that trying again is of no use (see `routes`).
pub(super) const GONE: u16 = 503;

/// The failure of an engine that fails at this request each time. Its answer has no words for why, but its log may.
pub(super) fn permanent_failure(error: ApiError, log: Option<&Path>) -> ApiError {
    if error.status != 500 {
        return error;
    }
    let why = log.and_then(|log| complaint::last(&log::tail(log)));
    let why = why.unwrap_or(error.message);
    gone(&format!(
        "the engine fails at this request each time: {why}. Often it is the model's chat template that fails, and then no request works: take another model, or read `cclocal logs`"
    ))
}

/// An answer that is none.
pub(super) fn invalid_answer() -> ApiError {
    ApiError::new(
        502,
        "api_error",
        "the engine answered with something that is no answer",
    )
}

async fn read(mut response: Response, most: usize, stall: Duration) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let mut stall_timeout = StallTimeout::new(stall);
    while let Some(piece) = stall_timeout.piece(&mut response).await? {
        if body.len() + piece.len() > most {
            return Err(Failure::Refused(invalid_answer()));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn lost(error: &reqwest::Error) -> Failure {
    // The URL is of no use to anybody, and the deepest cause says most.
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    Failure::Lost(deepest.to_string())
}

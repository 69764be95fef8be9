//! How much and how long: sizes, deadlines, and a request's body read within them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::anthropic::ApiError;

/// Limits and intervals. The defaults are for use; tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest body of a request, in bytes. A window of 262,144 tokens is about 1 MB of text; the rest is room for images.
    pub body: usize,
    /// All bodies together that are longer than [`SHORT`], in bytes: from their first byte until the request is answered.
    pub bodies: usize,
    /// How long a body waits for others to be answered.
    pub room: Duration,
    /// The longest head of a request, in bytes.
    pub head: usize,
    /// The most headers that a request may have.
    pub headers: usize,
    /// Connections at a time. A Mac gives a process 256 open files unless told otherwise.
    pub connections: usize,
    /// Requests that may wait for the engine.
    pub waiting: usize,
    /// How long a connection may take for the head of its next request, and so how long an idle one is kept.
    pub head_deadline: Duration,
    /// How long a body may send nothing.
    pub body_idle: Duration,
    /// How long a whole body may take.
    pub body_deadline: Duration,
    /// How long a streamed reply's status is held back, so that what is refused at once is refused with a status of its own.
    pub hold: Duration,
    /// How long a stream is silent before the client is told that it lives.
    pub ping: Duration,
    /// How long the engine may send nothing that counts. Its comments do not: it sends them while it hangs, too.
    pub stall: Duration,
    /// How long a request waits for the engine's owner to notice that the engine is lost, before it tries the same one again.
    pub notice: Duration,
    /// How long a count of tokens may take while the engine generates for somebody else.
    pub count: Duration,
    /// How long the next request waits for the engine to let go of one whose client went away.
    pub clear: Duration,
    /// How long a request is held in all while the engine has too many.
    pub backoff: Duration,
    /// The first pause of that, where the engine does not say how long; the next are longer.
    pub first_pause: Duration,
    /// How often a request is sent again to an engine that was lost before it said anything.
    pub replays: u32,
    /// How long a web search may take.
    pub search: Duration,
    /// How much of a reply is kept for a client that does not read it, in bytes.
    pub unread: usize,
    /// How long open streams have to say farewell when the gateway stops.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            bodies: 256 << 20,
            room: Duration::from_secs(60),
            head: 64 << 10,
            headers: 100,
            connections: 128,
            waiting: 64,
            head_deadline: Duration::from_secs(60),
            body_idle: Duration::from_secs(30),
            body_deadline: Duration::from_secs(300),
            hold: Duration::from_secs(1),
            ping: Duration::from_secs(5),
            stall: Duration::from_secs(1800),
            notice: Duration::from_secs(5),
            count: Duration::from_secs(30),
            clear: Duration::from_secs(15),
            backoff: Duration::from_secs(120),
            first_pause: Duration::from_secs(1),
            replays: 2,
            search: Duration::from_secs(10),
            unread: 64 << 20,
            farewell: Duration::from_secs(1),
        }
    }
}

/// Bodies up to this length, in bytes, are not counted: connections are, and nearly all requests are shorter.
pub(super) const SHORT: usize = 1 << 20;

/// The room for the bodies of all requests together. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// A part of it. Dropped, it is free again.
#[derive(Debug, Clone)]
pub(super) struct Taken(#[expect(dead_code, reason = "held")] Option<Arc<OwnedSemaphorePermit>>);

impl BodyBudget {
    /// What it is counted in, in bytes.
    const UNIT: usize = 1 << 10;

    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(limits.bodies / Self::UNIT)))
    }

    /// Takes room for a body of this length, in bytes, in the order of asking.
    async fn take(&self, length: usize, limits: &Limits) -> Result<Taken, ApiError> {
        if length <= SHORT {
            return Ok(Taken(None));
        }
        let all = limits.bodies / Self::UNIT;
        let units = u32::try_from(length.div_ceil(Self::UNIT).min(all)).unwrap_or(u32::MAX);
        let taken = self.0.clone().acquire_many_owned(units);
        match tokio::time::timeout(limits.room, taken).await {
            Ok(Ok(permit)) => Ok(Taken(Some(Arc::new(permit)))),
            _ => Err(ApiError::new(
                529,
                "overloaded_error",
                "other large requests are not answered yet",
            )),
        }
    }
}

/// A body, and its part of the room.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub bytes: Bytes,
    pub taken: Taken,
}

/// Reads a whole body, if it keeps to the limits. One that does not say how long it is has room for the longest, once it is not short any more.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    room: &BodyBudget,
) -> Result<Received, ApiError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.body as u64) {
        return Err(too_large(limits));
    }
    let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let taken = room.take(announced.unwrap_or(0), limits).await?;
    let collected = collect(body, announced, taken, limits, room);
    match tokio::time::timeout(limits.body_deadline, collected).await {
        Ok(read) => read,
        Err(_) => Err(too_slow()),
    }
}

async fn collect(
    mut body: Body,
    announced: Option<usize>,
    mut taken: Taken,
    limits: &Limits,
    room: &BodyBudget,
) -> Result<Received, ApiError> {
    let mut whole = bytes::BytesMut::with_capacity(announced.unwrap_or(0));
    let mut counted = announced.unwrap_or(SHORT);
    loop {
        let frame = match tokio::time::timeout(limits.body_idle, body.frame()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => {
                let bytes = whole.freeze();
                return Ok(Received { bytes, taken });
            }
            Ok(Some(Err(_))) => {
                return Err(invalid("the body ended before its time"));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limits.body {
                return Err(too_large(limits));
            }
            if whole.len() + data.len() > counted {
                counted = limits.body;
                taken = room.take(counted, limits).await?;
            }
            whole.extend_from_slice(&data);
        }
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(400, "invalid_request_error", message)
}

fn too_slow() -> ApiError {
    ApiError::new(408, "timeout_error", "the body took too long")
}

fn too_large(limits: &Limits) -> ApiError {
    let message = format!("the body is larger than {} bytes", limits.body);
    ApiError::new(413, "request_too_large", message)
}

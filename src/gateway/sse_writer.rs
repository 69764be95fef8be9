//! A streamed reply's way to its client: what is held back, when pings are sent, and how it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use super::upstream::Failure;
use crate::gateway::anthropic::ApiError;

const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

enum Item {
    Piece(Bytes),
    /// An error, and the end.
    Error(ApiError),
    /// The end of a whole reply.
    End,
    /// The end of one that lacks its end.
    BreakOff,
}

/// Where the reply is put in. It takes what the engine sends as fast as it comes: the engine never waits for a client that does not read.
pub struct Outlet {
    items: UnboundedSender<Item>,
    unread: Arc<AtomicUsize>,
    most_unread: usize,
    held: Vec<u8>,
    /// How much of what is held was looked at: whole lines that say nothing.
    looked: usize,
    begun: bool,
    complete: bool,
    failed: bool,
}

/// Where it comes out.
pub struct Reply {
    items: UnboundedReceiver<Item>,
    unread: Arc<AtomicUsize>,
    ping: Duration,
}

pub fn channel(ping: Duration, most_unread: usize) -> (Outlet, Reply) {
    let (sender, items) = unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet {
        items: sender,
        unread: unread.clone(),
        most_unread,
        held: Vec::new(),
        looked: 0,
        begun: false,
        complete: false,
        failed: false,
    };
    let reply = Reply {
        items,
        unread,
        ping,
    };
    (outlet, reply)
}

impl Outlet {
    /// Sends whole events, but holds the first ones back until one of them says something: the engine sends the opening ones before it
    /// has read the prompt, and until the client has seen anything the request can be sent again to another engine.
    /// Errors: the engine's first word is that it failed.
    pub fn send(&mut self, events: Vec<u8>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let events = if self.begun {
            events
        } else {
            self.held.extend_from_slice(&events);
            match first_word(&self.held[self.looked..]) {
                Word::None(looked) => {
                    self.looked += looked;
                    return Ok(());
                }
                Word::Error => return Err(Failure::Refused(stated_error(&self.held))),
                Word::Content => self.begun = true,
            }
            std::mem::take(&mut self.held)
        };
        match last_word(&events) {
            Some("message_stop") => self.complete = true,
            Some("error") => self.failed = true,
            _ => {}
        }
        if self.unread.fetch_add(events.len(), Ordering::Relaxed) > self.most_unread {
            return Err(Failure::Lost("the client does not read".into()));
        }
        let _ = self.items.send(Item::Piece(events.into()));
        Ok(())
    }

    /// What was held back is nothing: it is sent to another engine.
    pub fn forget(&mut self) {
        self.held.clear();
        self.looked = 0;
    }

    /// Whether the client has seen a part of the reply.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Whether the reply has come to its end.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Whether the engine has said that it failed.
    pub fn failed(&self) -> bool {
        self.failed
    }

    pub fn end(self) {
        let _ = self.items.send(Item::End);
    }

    /// Ends it with an error: as a status of its own if nothing was sent yet, else as an event.
    pub fn error(self, error: ApiError) {
        let _ = self.items.send(Item::Error(error));
    }

    /// Breaks the connection off. The real client asks for the same again, streamed, if a stream breaks off in its middle; after an `error` event
    /// it asks for a plain reply, for which it waits without pings, or gives up.
    pub fn break_off(self) {
        let _ = self.items.send(Item::BreakOff);
    }
}

/// How a reply begins.
pub enum Beginning {
    /// With a status of its own.
    Error(ApiError),
    /// As a stream.
    Stream(Streaming),
}

/// A reply that is a stream.
pub struct Streaming {
    reply: Reply,
    next: Option<Item>,
    between_events: bool,
    over: bool,
}

impl Reply {
    /// Waits for the first word, but not longer than `hold`: until then an error can have a status of its own.
    pub async fn begin(mut self, hold: Duration) -> Beginning {
        let next = match tokio::time::timeout(hold, self.items.recv()).await {
            Ok(Some(Item::Error(error))) => return Beginning::Error(error),
            Ok(item) => self.taken(item),
            Err(_) => Item::Piece(Bytes::from_static(PING)),
        };
        Beginning::Stream(Streaming {
            reply: self,
            next: Some(next),
            between_events: true,
            over: false,
        })
    }

    fn taken(&self, item: Option<Item>) -> Item {
        if let Some(Item::Piece(piece)) = &item {
            self.unread.fetch_sub(piece.len(), Ordering::Relaxed);
        }
        // Whoever filled it has ended without a word.
        item.unwrap_or(Item::BreakOff)
    }
}

impl Streaming {
    /// As a body. The task that fills it ends with it.
    pub fn body(
        self,
        task: AbortOnDropHandle<()>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        unfold((self, task), |(mut streaming, task)| async move {
            let piece = streaming.next().await?;
            Some((piece, (streaming, task)))
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let item = match self.next.take() {
            Some(item) => item,
            None => self.item().await,
        };
        match item {
            Item::Piece(piece) => {
                self.between_events = piece.ends_with(b"\n\n");
                Some(Ok(piece))
            }
            Item::Error(error) => {
                self.over = true;
                let opening = if self.between_events { "" } else { "\n\n" };
                let event = format!("{opening}event: error\ndata: {}\n\n", error.json());
                Some(Ok(event.into()))
            }
            Item::End => None,
            Item::BreakOff => {
                self.over = true;
                Some(Err(io::Error::other("the reply broke off")))
            }
        }
    }

    async fn item(&mut self) -> Item {
        let item = match tokio::time::timeout(self.reply.ping, self.reply.items.recv()).await {
            Ok(item) => item,
            Err(_) if self.between_events => return Item::Piece(Bytes::from_static(PING)),
            Err(_) => self.reply.items.recv().await,
        };
        self.reply.taken(item)
    }
}

enum Word {
    /// Nothing, in whole lines of so many bytes.
    None(usize),
    Content,
    Error,
}

/// What the first events say, past those that only open a message.
fn first_word(events: &[u8]) -> Word {
    let last = events.iter().rposition(|byte| *byte == b'\n');
    let whole_lines = last.map_or(0, |at| at + 1);
    for line in events[..whole_lines].split(|byte| *byte == b'\n') {
        let Some(name) = line.strip_prefix(b"event:") else {
            continue;
        };
        match name.trim_ascii() {
            b"message_start" | b"content_block_start" | b"ping" => {}
            b"error" => return Word::Error,
            _ => return Word::Content,
        }
    }
    Word::None(whole_lines)
}

/// Whether an `error` event is among these.
pub fn tells_of_an_error(events: &[u8]) -> bool {
    events
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"event:"))
        .any(|name| name.trim_ascii() == b"error")
}

/// Which of the events that end a stream is at the end of these. A line break inside a string is escaped, so that a line is a line.
fn last_word(events: &[u8]) -> Option<&'static str> {
    const ENDING: usize = 4096;
    let tail = &events[events.len().saturating_sub(ENDING)..];
    let mut lines = tail.rsplit(|byte| *byte == b'\n');
    let name = lines.find_map(|line| line.strip_prefix(b"event:"))?;
    match name.trim_ascii() {
        b"message_stop" => Some("message_stop"),
        b"error" => Some("error"),
        _ => None,
    }
}

/// The error that an `error` event states.
fn stated_error(events: &[u8]) -> ApiError {
    let stated = events
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"))
        .filter_map(|data| serde_json::from_slice::<Value>(data).ok())
        .find(|value| value.get("error").is_some());
    let say = |name: &str| -> Option<String> {
        let value = stated.as_ref()?.get("error")?.get(name)?;
        value.as_str().map(str::to_owned)
    };
    let (status, kind) = match say("type").as_deref() {
        Some("invalid_request_error") => (400, "invalid_request_error"),
        Some("not_found_error") => (404, "not_found_error"),
        Some("rate_limit_error") => (429, "rate_limit_error"),
        Some("overloaded_error") => (529, "overloaded_error"),
        Some("timeout_error") => (504, "timeout_error"),
        _ => (500, "api_error"),
    };
    let message = say("message").unwrap_or_else(|| "the engine failed without a word".into());
    ApiError::new(status, kind, message)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tokio::time::Instant;

    use super::*;

    const HOLD: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(5);
    const START: &str = "event: message_start\ndata: {}\n\n";
    const TEXT: &str = "event: content_block_delta\ndata: {}\n\n";
    const STOP: &str = "event: message_stop\ndata: {}\n\n";

    fn pair() -> (Outlet, Reply) {
        channel(INTERVAL, 1000)
    }

    fn idle() -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async {}))
    }

    async fn begin(reply: Reply) -> Streaming {
        match reply.begin(HOLD).await {
            Beginning::Stream(streaming) => streaming,
            Beginning::Error(error) => panic!("{error:?}"),
        }
    }

    fn text(piece: Option<io::Result<Bytes>>) -> String {
        let bytes = piece.expect("more").expect("a piece");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_begins_after_a_second_and_is_pinged_every_five() {
        let started = Instant::now();
        let (mut outlet, reply) = pair();
        let body = begin(reply).await.body(idle());
        let mut body = std::pin::pin!(body);
        assert_eq!(started.elapsed(), HOLD);
        for n in 0..4 {
            assert!(text(body.next().await).starts_with("event: ping\n"));
            assert_eq!(started.elapsed(), HOLD + INTERVAL * n);
        }
        // What only opens a message is held back, and the pings go on.
        outlet.send(START.into()).expect("held");
        assert!(text(body.next().await).starts_with("event: ping\n"));
        outlet.send(TEXT.into()).expect("sent");
        assert_eq!(text(body.next().await), format!("{START}{TEXT}"));
        // Also in its middle: a tool call that is written is not heard of for long.
        assert!(text(body.next().await).starts_with("event: ping\n"));
        outlet.send(STOP.into()).expect("sent");
        assert_eq!(text(body.next().await), STOP);
        assert!(outlet.complete());
        outlet.end();
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_ping_is_put_into_the_middle_of_an_event() {
        let (mut outlet, reply) = pair();
        outlet.send(TEXT.into()).expect("sent");
        outlet.send("event: content".into()).expect("sent");
        let body = begin(reply).await.body(idle());
        let mut body = std::pin::pin!(body);
        assert_eq!(text(body.next().await), TEXT);
        assert_eq!(text(body.next().await), "event: content");
        let waiting = tokio::time::timeout(INTERVAL * 10, body.next());
        waiting.await.expect_err("nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_has_a_status_within_a_second_and_is_an_event_after_that() {
        let error = || ApiError::new(400, "invalid_request_error", "no");
        let (outlet, reply) = pair();
        outlet.error(error());
        match reply.begin(HOLD).await {
            Beginning::Error(given) => assert_eq!(given, error()),
            Beginning::Stream(_) => panic!("a stream"),
        }
        let (outlet, reply) = pair();
        let body = begin(reply).await.body(idle());
        outlet.error(error());
        let all: Vec<_> = body.collect().await;
        let last = text(all.into_iter().last());
        assert!(last.starts_with("event: error\ndata: {\"type\":\"error\""));
    }

    #[tokio::test]
    async fn a_task_that_fails_breaks_the_stream_off() {
        let (mut outlet, reply) = pair();
        outlet.send(TEXT.into()).expect("sent");
        drop(outlet);
        let body = begin(reply).await.body(idle());
        let all: Vec<_> = body.collect().await;
        assert!(all[0].is_ok() && all[1].is_err() && all.len() == 2);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_may_be() {
        let (mut outlet, reply) = pair();
        let piece = || TEXT.repeat(20).into_bytes();
        outlet.send(piece()).expect("sent");
        outlet.send(piece()).expect("sent");
        assert!(matches!(outlet.send(piece()), Err(Failure::Lost(_))));
        // What was read counts no longer.
        let (mut outlet, reading) = pair();
        let body = {
            outlet.send(TEXT.into()).expect("sent");
            begin(reading).await.body(idle())
        };
        let mut body = std::pin::pin!(body);
        let _ = body.next().await;
        for _ in 0..10 {
            outlet.send(piece()).expect("sent");
            assert!(body.next().now_or_never().is_some());
        }
        drop(reply);
    }

    #[tokio::test]
    async fn what_is_held_is_looked_at_once_and_sent_whole() {
        let (mut outlet, reply) = pair();
        for part in [
            "event: message_st",
            "art\ndata: {}\n\n",
            "event: pi",
            "ng\n",
            "data: {}\n\nevent: content_block_d",
        ] {
            outlet.send(part.into()).expect("held");
            assert!(!outlet.begun());
        }
        outlet.send("elta\ndata: {}\n\n".into()).expect("sent");
        assert!(outlet.begun());
        let body = begin(reply).await.body(idle());
        let mut body = std::pin::pin!(body);
        let ping = "event: ping\ndata: {}\n\n";
        assert_eq!(text(body.next().await), format!("{START}{ping}{TEXT}"));
        // Another engine begins anew.
        let (mut outlet, _reply) = pair();
        outlet.send(START.into()).expect("held");
        outlet.forget();
        outlet.send(TEXT.into()).expect("sent");
        assert!(outlet.begun());
    }

    #[test]
    fn words_are_read_from_whole_lines() {
        let none = |events: &str| matches!(first_word(events.as_bytes()), Word::None(_));
        assert!(none(""));
        assert!(none(START));
        assert!(none("event: content_bl"));
        assert!(none(": heartbeat\n\nevent: ping\n"));
        assert!(!none(TEXT));
        assert_eq!(last_word(STOP.as_bytes()), Some("message_stop"));
        assert_eq!(last_word(TEXT.as_bytes()), None);
        let quoted =
            "event: content_block_delta\ndata: {\"text\":\"\\nevent: message_stop\\n\"}\n\n";
        assert_eq!(last_word(quoted.as_bytes()), None);
        assert!(!tells_of_an_error(quoted.as_bytes()));
        assert!(tells_of_an_error(b"event: error\ndata: {}\n\n"));
    }

    #[test]
    fn what_an_error_event_states_becomes_a_status() {
        let event = br#"event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}

"#;
        let error = stated_error(event);
        assert_eq!((error.status, error.kind), (529, "overloaded_error"));
        assert_eq!(error.message, "busy");
        assert_eq!(
            stated_error(b"event: error\ndata: nonsense\n\n").status,
            500
        );
    }
}

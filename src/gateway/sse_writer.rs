//! A streamed reply's way to its client: what is held back, when pings are sent, and how it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use super::upstream::Failure;
use crate::gateway::anthropic::{ApiError, Event, sse_bytes};

enum Item {
    Events(Vec<Event>),
    /// An error, and the end.
    Error(ApiError),
    /// The end of a whole reply.
    End,
    /// The end of one that lacks its end.
    BreakOff,
}

/// Where the reply is put in. It takes what the engine sends as fast as it comes: the engine never waits for a client that does not read.
pub(super) struct EventSender {
    items: UnboundedSender<Item>,
    unread: Arc<AtomicUsize>,
    most_unread: usize,
    held: Vec<Event>,
    begun: bool,
    complete: bool,
    failed: bool,
}

/// Where it comes out.
pub(super) struct Reply {
    items: UnboundedReceiver<Item>,
    unread: Arc<AtomicUsize>,
    ping: Duration,
}

pub(super) fn channel(ping: Duration, most_unread: usize) -> (EventSender, Reply) {
    let (sender, items) = unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    let sender = EventSender {
        items: sender,
        unread: unread.clone(),
        most_unread,
        held: Vec::new(),
        begun: false,
        complete: false,
        failed: false,
    };
    let reply = Reply {
        items,
        unread,
        ping,
    };
    (sender, reply)
}

impl EventSender {
    /// Sends events, but holds the first ones back until one of them says something: the engine sends the opening ones before it
    /// has read the prompt, and until the client has seen anything the request can be sent again to another engine.
    /// Errors: the engine's first word is that it failed.
    pub(super) fn send(&mut self, mut events: Vec<Event>) -> Result<(), Failure> {
        if !self.begun {
            self.held.append(&mut events);
            let Some(first) = self.held.iter().find(|event| !event.is_opening()) else {
                return Ok(());
            };
            if let Some(error) = first.error() {
                return Err(Failure::Refused(error.clone()));
            }
            self.begun = true;
            events = std::mem::take(&mut self.held);
        }
        let Some(last) = events.last() else {
            return Ok(());
        };
        self.complete |= last.is_message_stop();
        self.failed |= last.error().is_some();
        if self.unread.fetch_add(size(&events), Ordering::Relaxed) > self.most_unread {
            return Err(Failure::Lost("the client does not read".into()));
        }
        let _ = self.items.send(Item::Events(events));
        Ok(())
    }

    /// What was held back is nothing: it is sent to another engine.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// Whether the client has seen a part of the reply.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Whether the reply has come to its end.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// Whether the engine has said that it failed.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    pub(super) fn end(self) {
        let _ = self.items.send(Item::End);
    }

    /// Ends it with an error: as a status of its own if nothing was sent yet, else as an event.
    pub(super) fn error(self, error: ApiError) {
        let _ = self.items.send(Item::Error(error));
    }

    /// Breaks the connection off. The real client asks for the same again, streamed, if a stream breaks off in its middle; after an `error` event
    /// it asks for a plain reply, for which it waits without pings, or gives up.
    pub(super) fn break_off(self) {
        let _ = self.items.send(Item::BreakOff);
    }
}

/// How a reply begins.
pub(super) enum Beginning {
    /// With a status of its own.
    Error(ApiError),
    /// As a stream.
    Stream(Streaming),
}

/// A reply that is a stream.
pub(super) struct Streaming {
    reply: Reply,
    next: Option<Item>,
    over: bool,
}

impl Reply {
    /// Waits for the first word, but not longer than `hold`: until then an error can have a status of its own.
    pub(super) async fn begin(mut self, hold: Duration) -> Beginning {
        let next = match tokio::time::timeout(hold, self.items.recv()).await {
            Ok(Some(Item::Error(error))) => return Beginning::Error(error),
            Ok(item) => self.taken(item),
            Err(_) => Item::Events(vec![Event::ping()]),
        };
        Beginning::Stream(Streaming {
            reply: self,
            next: Some(next),
            over: false,
        })
    }

    /// Waits for the whole reply. Errors: it ends in one. None: it breaks off.
    pub(super) async fn gather(mut self) -> Option<Result<Vec<Event>, ApiError>> {
        let mut all = Vec::new();
        loop {
            let item = self.items.recv().await;
            match self.taken(item) {
                Item::Events(events) => all.extend(events),
                Item::Error(error) => return Some(Err(error)),
                Item::End => return Some(Ok(all)),
                Item::BreakOff => return None,
            }
        }
    }

    fn taken(&self, item: Option<Item>) -> Item {
        if let Some(Item::Events(events)) = &item {
            self.unread.fetch_sub(size(events), Ordering::Relaxed);
        }
        // The producer was dropped without finishing.
        item.unwrap_or(Item::BreakOff)
    }
}

impl Streaming {
    /// As a body. The task that fills it ends with it.
    pub(super) fn body(
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
            Item::Events(events) => Some(Ok(sse_bytes(&events).into())),
            Item::Error(error) => {
                self.over = true;
                Some(Ok(sse_bytes(&[error.into()]).into()))
            }
            Item::End => None,
            Item::BreakOff => {
                self.over = true;
                Some(Err(io::Error::other("the reply broke off")))
            }
        }
    }

    async fn item(&mut self) -> Item {
        match tokio::time::timeout(self.reply.ping, self.reply.items.recv()).await {
            Ok(item) => self.reply.taken(item),
            Err(_) => Item::Events(vec![Event::ping()]),
        }
    }
}

fn size(events: &[Event]) -> usize {
    events.iter().map(Event::size).sum()
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tokio::time::Instant;

    use super::*;

    const HOLD: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(5);
    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
    const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n";
    const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn events(stream: &str) -> Vec<Event> {
        Event::all(stream.as_bytes())
    }

    fn pair() -> (EventSender, Reply) {
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
        let (mut sender, reply) = pair();
        let body = begin(reply).await.body(idle());
        let mut body = std::pin::pin!(body);
        assert_eq!(started.elapsed(), HOLD);
        for n in 0..4 {
            assert!(text(body.next().await).starts_with("event: ping\n"));
            assert_eq!(started.elapsed(), HOLD + INTERVAL * n);
        }
        // What only opens a message is held back, and the pings go on.
        sender.send(events(START)).expect("held");
        assert!(text(body.next().await).starts_with("event: ping\n"));
        sender.send(events(TEXT)).expect("sent");
        assert_eq!(text(body.next().await), format!("{START}{TEXT}"));
        // Also in its middle: a tool call that is written is not heard of for long.
        assert!(text(body.next().await).starts_with("event: ping\n"));
        sender.send(events(STOP)).expect("sent");
        assert_eq!(text(body.next().await), STOP);
        assert!(sender.complete());
        sender.end();
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_has_a_status_within_a_second_and_is_an_event_after_that() {
        let error = || ApiError::new(400, "invalid_request_error", "no");
        let (sender, reply) = pair();
        sender.error(error());
        match reply.begin(HOLD).await {
            Beginning::Error(given) => assert_eq!(given, error()),
            Beginning::Stream(_) => panic!("a stream"),
        }
        let (sender, reply) = pair();
        let body = begin(reply).await.body(idle());
        sender.error(error());
        let all: Vec<_> = body.collect().await;
        let last = text(all.into_iter().last());
        assert!(last.starts_with("event: error\ndata: {\"type\":\"error\""));
    }

    #[tokio::test]
    async fn a_task_that_fails_breaks_the_stream_off() {
        let (mut sender, reply) = pair();
        sender.send(events(TEXT)).expect("sent");
        drop(sender);
        let body = begin(reply).await.body(idle());
        let all: Vec<_> = body.collect().await;
        assert!(all[0].is_ok() && all[1].is_err() && all.len() == 2);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_may_be() {
        let (mut sender, reply) = pair();
        let piece = || events(&TEXT.repeat(10));
        sender.send(piece()).expect("sent");
        sender.send(piece()).expect("sent");
        assert!(matches!(sender.send(piece()), Err(Failure::Lost(_))));
        // What was read counts no longer.
        let (mut sender, reading) = pair();
        let body = {
            sender.send(events(TEXT)).expect("sent");
            begin(reading).await.body(idle())
        };
        let mut body = std::pin::pin!(body);
        let _ = body.next().await;
        for _ in 0..10 {
            sender.send(piece()).expect("sent");
            assert!(body.next().now_or_never().is_some());
        }
        drop(reply);
    }

    #[tokio::test]
    async fn opening_events_are_held_until_one_says_something() {
        const PING: &str = "event: ping\ndata: {}\n\n";
        let (mut sender, reply) = pair();
        for held in [START, PING] {
            sender.send(events(held)).expect("held");
            assert!(!sender.begun());
        }
        sender.send(Vec::new()).expect("nothing");
        assert!(!sender.begun());
        sender.send(events(TEXT)).expect("sent");
        assert!(sender.begun());
        let body = begin(reply).await.body(idle());
        let mut body = std::pin::pin!(body);
        assert_eq!(text(body.next().await), format!("{START}{PING}{TEXT}"));
        // Another engine begins anew.
        let (mut sender, _reply) = pair();
        sender.send(events(START)).expect("held");
        sender.forget();
        sender.send(events(TEXT)).expect("sent");
        assert!(sender.begun());
    }

    #[tokio::test]
    async fn an_error_as_the_first_word_becomes_a_status() {
        let error = |kind: &str| {
            let (mut sender, _reply) = pair();
            sender.send(events(START)).expect("held");
            let event = format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"busy\"}}}}\n\n"
            );
            match sender.send(events(&event)) {
                Err(Failure::Refused(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        let overloaded = error("overloaded_error");
        assert_eq!(
            (overloaded.status, overloaded.kind),
            (529, "overloaded_error")
        );
        assert_eq!(overloaded.message, "busy");
        assert_eq!(error("nonsense").status, 500);
    }

    #[tokio::test]
    async fn a_reply_is_gathered_to_its_end() {
        let (mut sender, reply) = pair();
        sender.send(events(TEXT)).expect("sent");
        sender.send(events(STOP)).expect("sent");
        assert!(sender.complete());
        sender.end();
        let all = reply.gather().await.expect("an end").expect("no error");
        assert_eq!(sse_bytes(&all), format!("{TEXT}{STOP}").into_bytes());
        let (sender, reply) = pair();
        drop(sender);
        assert!(reply.gather().await.is_none());
    }
}

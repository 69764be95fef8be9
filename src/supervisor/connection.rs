//! One connection to the supervisor's socket: lines in, lines out. It decides nothing.

use std::net::TcpListener;
use std::sync::Weak;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::protocol::{LONGEST_LINE, SessionMessage, SupervisorMessage, SupervisorRequest};
use super::{socket, socket_passing};

/// Message of a connection to the actor.
#[derive(Debug)]
pub(super) enum Message {
    /// A new connection with its request. Answers go through the channel; the connection closes with it.
    Came {
        id: u64,
        ask: SupervisorRequest,
        tell: MessageSender,
    },
    Said {
        id: u64,
        say: SessionMessage,
    },
    /// The other end is closed.
    Gone {
        id: u64,
    },
}

/// Sends messages to the other end of a connection, which is closed when this is dropped.
#[derive(Debug)]
pub(super) struct MessageSender(mpsc::UnboundedSender<Option<SupervisorMessage>>);

impl MessageSender {
    /// Sends a message, unless the other end is gone, which is noticed elsewhere.
    pub(super) fn tell(&self, tell: SupervisorMessage) {
        let _ = self.0.send(Some(tell));
    }

    /// Closes the connection when all that was said is on its way, and returns then.
    pub(super) async fn finish(self) {
        let _ = self.0.send(None);
        self.0.closed().await;
    }
}

/// Reads a connection until its end, and writes what it is told until nobody tells any more. `gateway`: handed to who asks for the port.
pub(super) async fn run(
    id: u64,
    stream: UnixStream,
    gateway: Weak<TcpListener>,
    to: mpsc::UnboundedSender<Message>,
) {
    // The folder is this user's alone; this is for the day on which it is not.
    if !socket::is_ours(&stream) {
        return;
    }
    let (read, write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let Some(ask) = line(&mut lines).await else {
        return;
    };
    if ask == SupervisorRequest::Port {
        // One that is ending has closed it.
        if let Some(gateway) = gateway.upgrade() {
            let _ = socket_passing::give(write.as_ref(), &gateway).await;
        }
        return;
    }
    let (tell, told) = mpsc::unbounded_channel();
    if to
        .send(Message::Came {
            id,
            ask,
            tell: MessageSender(tell),
        })
        .is_err()
    {
        return;
    }
    let reading = async {
        while let Some(say) = line(&mut lines).await {
            if to.send(Message::Said { id, say }).is_err() {
                break;
            }
        }
        let _ = to.send(Message::Gone { id });
    };
    tokio::join!(reading, writing(told, write));
}

/// The next line. None at the end, and for what is no such line.
async fn line<T: serde::de::DeserializeOwned>(lines: &mut BufReader<OwnedReadHalf>) -> Option<T> {
    let mut text = String::new();
    let read = (&mut *lines)
        .take(LONGEST_LINE as u64)
        .read_line(&mut text)
        .await
        .ok()?;
    (read > 0)
        .then(|| serde_json::from_str(&text).ok())
        .flatten()
}

async fn writing(
    mut told: mpsc::UnboundedReceiver<Option<SupervisorMessage>>,
    mut write: OwnedWriteHalf,
) {
    while let Some(Some(tell)) = told.recv().await {
        let Ok(text) = serde_json::to_string(&tell) else {
            continue;
        };
        if write.write_all((text + "\n").as_bytes()).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}

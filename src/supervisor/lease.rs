//! A session's hold on an engine: an open connection to its supervisor.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{
    Farewell, Granted, PROTOCOL, SessionMessage, SupervisorMessage, SupervisorRequest, WebSearch,
};
use super::{reservation, socket, socket_passing};
use crate::error::{Error, Exit, Result};
use crate::sys::paths::Paths;

/// How long the first answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The hold. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    pub granted: Granted,
    /// The gateway's port stays this user's while this is open, whatever happens to the supervisor.
    _port: OwnedFd,
    told: Lines<BufReader<OwnedReadHalf>>,
    say: OwnedWriteHalf,
}

impl Lease {
    /// Takes a lease on the engine at this port. None: it is ending, or gone already.
    pub async fn take(
        paths: &Paths,
        port: u16,
        linger: Duration,
        web_search: Option<WebSearch>,
    ) -> Result<Option<Self>> {
        let path = socket::path(&reservation::folder(paths, port));
        // First: with the lease the engine is started, and a supervisor whose engine fails at once is gone at once.
        let held = match socket_passing::take(&path) {
            Ok(held) => held,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(silent(port));
            }
            Err(_) => return Ok(None),
        };
        let Some(stream) = connect(&path) else {
            return Ok(None);
        };
        let (read, mut say) = stream.into_split();
        let mut told = BufReader::new(read).lines();
        let ask = SupervisorRequest::Lease {
            protocol: PROTOCOL,
            pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
            linger,
            web_search,
        };
        if !send(&mut say, &ask).await {
            return Ok(None);
        }
        let answer = tokio::time::timeout(ANSWER_DEADLINE, next(&mut told)).await;
        match answer {
            Ok(Some(SupervisorMessage::Granted(granted))) => Ok(Some(Self {
                granted,
                _port: held,
                told,
                say,
            })),
            Ok(_) => Ok(None),
            Err(_) => Err(silent(port)),
        }
    }

    /// The next message of the supervisor. None: it is gone. Can be cancelled and called again.
    pub async fn told(&mut self) -> Option<SupervisorMessage> {
        next(&mut self.told).await
    }

    /// Says something. A supervisor that is gone hears nothing; its end is noticed elsewhere.
    pub async fn say(&mut self, say: &SessionMessage) {
        send(&mut self.say, say).await;
    }

    /// Says that the session ends, and what the supervisor answers. None: it was gone before.
    pub async fn leave(&mut self, linger: Duration) -> Option<Farewell> {
        self.say(&SessionMessage::Leave { linger }).await;
        loop {
            match self.told().await? {
                SupervisorMessage::Farewell(farewell) => return Some(farewell),
                _ => continue,
            }
        }
    }

    /// Waits for the supervisor's end.
    pub async fn gone(&mut self) {
        while self.told().await.is_some() {}
    }
}

fn silent(port: u16) -> Error {
    Error::new(
        Exit::Engine,
        format!("the supervisor on port {port} does not answer"),
    )
    .cause(format!("no answer within {} s", ANSWER_DEADLINE.as_secs()))
    .hint("it may be suspended (resume it with kill -CONT) or hang; `cclocal status` shows its process")
}

fn connect(path: &Path) -> Option<UnixStream> {
    let stream = socket::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}

async fn send(say: &mut OwnedWriteHalf, line: &impl serde::Serialize) -> bool {
    let text = serde_json::to_string(line).unwrap_or_default() + "\n";
    say.write_all(text.as_bytes()).await.is_ok()
}

/// The next line that we understand: a newer supervisor may say more.
async fn next(told: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<SupervisorMessage> {
    loop {
        let line = told.next_line().await.ok()??;
        if let Ok(tell) = serde_json::from_str(&line) {
            return Some(tell);
        }
    }
}

//! Messages between sessions and their supervisor: lines of JSON over a Unix socket. The connection is the lease: the kernel closes it
//! however a session ends.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::memory_sampler::EngineMemory;
use super::progress::Activity;
use crate::claude::launch::Endpoint;
use crate::error::Error;
use crate::gateway::cache_breaks::CacheBreaks;
use crate::gateway::metrics::Summary;
use crate::gateway::web_search::Backend;
use crate::hub::download_progress::DownloadProgress;
use crate::memory::ContextWindow;
use crate::sys::secret::Secret;

/// Changes when an older supervisor could no longer be used by a newer session, or the other way round.
pub const PROTOCOL: u32 = 3;

/// The longest line that is read, in bytes.
pub const LONGEST_LINE: usize = 64 * 1024;

/// First line of a connection: a request to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum SupervisorRequest {
    /// A session wants to use the engine. Answered by [`SupervisorMessage::Granted`], then by progress, for as long as the connection is open.
    Lease {
        protocol: u32,
        /// The session's process id, for people.
        pid: i32,
        /// Keep-alive, if this session ends without a message and was the last.
        linger: Duration,
        #[serde(default)]
        web_search: Option<WebSearch>,
    },
    /// A session wants to hold the gateway's port. Answered by one byte that carries the listening socket, and the end of the connection.
    Port,
    /// State of the engine. Answered by one [`SupervisorMessage::Status`].
    Status,
    /// The engine's activity for a session at this moment. Answered by one [`SupervisorMessage::Live`]. Older supervisors do not answer.
    Live {
        /// The session's process.
        pid: i32,
    },
    /// Stop the engine. Answered by [`SupervisorMessage::Ending`] and the end of the connection, or by [`SupervisorMessage::Refused`].
    Stop {
        /// Also if sessions use it.
        even_if_used: bool,
    },
}

/// Web search for one session, as its user asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSearch {
    pub backend: Backend,
    /// Also for programs that use the supervisor's own token.
    pub for_programs: bool,
}

/// Message of a session that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum SessionMessage {
    /// Claude Code runs as this process in this group, which is ended if the session vanishes.
    Client { pid: i32, group: i32 },
    /// Claude Code has ended.
    ClientEnded,
    /// The session ends. Answered by [`SupervisorMessage::Farewell`].
    Leave {
        /// Keep-alive, if this was the last session.
        linger: Duration,
    },
}

/// Message of the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum SupervisorMessage {
    /// The lease is taken.
    Granted(Granted),
    /// State of a starting engine.
    Progress(Progress),
    Ready {
        /// How long it took, in words.
        took: String,
        /// Missing abilities of the engine, one sentence each.
        #[serde(default)]
        lacking: Vec<String>,
    },
    /// The engine died and is being started again.
    Restarting {
        why: String,
    },
    /// The engine failed and is not started again.
    Failed(Failure),
    /// The engine is being stopped, by a person or a signal.
    Ending,
    Farewell(Farewell),
    Status(Box<Status>),
    Live(Live),
    Refused {
        why: String,
    },
}

/// Lease as it was granted: everything that a session needs to use the engine.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
    /// This session's own token.
    pub token: String,
    pub served_name: String,
    /// The model as people know it, and as it is named on a command line.
    pub name: String,
    pub typed: String,
    #[serde(flatten)]
    pub window: ContextWindow,
    pub version: String,
    /// The folder in which the gateway remembers how sessions begin. None: it does not.
    #[serde(default)]
    pub fronts: Option<PathBuf>,
    /// Whether the gateway searches the web for this session.
    #[serde(default)]
    pub web_search: bool,
    /// The network that the gateway listens in. None: not known.
    #[serde(default)]
    pub network: Option<u64>,
}

impl Granted {
    /// The gateway, for Claude Code.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            port: self.port,
            token: Secret::new(self.token.clone()),
            model: self.served_name.clone(),
            window: self.window,
        }
    }
}

/// Without the token.
impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted")
            .field("port", &self.port)
            .field("served_name", &self.served_name)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// State of a starting engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "doing", rename_all = "snake_case")]
pub enum Progress {
    Downloading { standing: DownloadProgress },
    Loading { seconds: u64 },
}

/// An error of ours, as it crosses the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub exit: u8,
    pub message: String,
    pub cause: Option<String>,
    pub hint: Option<String>,
    pub detail: Vec<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            exit: error.exit.code(),
            message: error.message.clone(),
            cause: error.cause.clone(),
            hint: error.hint.clone(),
            detail: error.detail.clone(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self {
            exit: crate::error::Exit::of_code(failure.exit),
            message: failure.message,
            cause: failure.cause,
            hint: failure.hint,
            detail: failure.detail,
            source: None,
        }
    }
}

/// Summary for a session that leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Farewell {
    /// Totals of the session's requests.
    pub figures: Summary,
    /// How often the engine was started again while this session ran.
    pub restarts: u64,
    /// How many sessions still use the engine.
    pub sessions: usize,
    /// How long the engine stays loaded. None: others use it, or it is being stopped.
    pub lingers: Option<Duration>,
    /// The window in tokens, if it was narrowed while this session ran because memory ran short.
    #[serde(default)]
    pub narrowed: Option<u64>,
}

/// An engine at this moment, as a session sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The model as people know it.
    pub name: String,
    pub phase: PhaseName,
    /// How far its start is, while it starts.
    pub progress: Option<Progress>,
    /// In tokens.
    pub window: u64,
    /// The window before it was narrowed for memory's sake, in tokens.
    pub narrowed_from: Option<u64>,
    /// Of the session's prompt tokens, those that were there already.
    pub cached_percent: Option<u8>,
    pub activity: Activity,
}

/// Status of an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub protocol: u32,
    /// The supervisor's process.
    pub pid: u32,
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
    pub phase: PhaseName,
    pub name: String,
    pub typed: String,
    pub served_name: String,
    /// The hub id or the folder that it is served from.
    pub source: crate::catalog::Source,
    /// How the engine is run for it.
    pub profile: crate::catalog::EngineProfile,
    /// Whether the model is asked to think.
    pub thinking: bool,
    /// The engine's program.
    pub engine: PathBuf,
    /// Whether it keeps on the disk what it computes of system prompts.
    #[serde(default)]
    pub keeps_prefix: bool,
    #[serde(flatten)]
    pub window: ContextWindow,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    /// Most memory that the engine takes or may take of the budget, in bytes, if it was planned.
    #[serde(default)]
    pub claim: Option<u64>,
    /// Resident memory of the engine in bytes; on a Mac that leaves out most of what the GPU uses.
    pub resident: Option<u64>,
    /// Memory of the engine and its limit, if known.
    #[serde(default)]
    pub memory: Option<EngineMemory>,
    /// The engine's process, if there is one at the moment.
    pub engine_pid: Option<i32>,
    /// The sessions' processes.
    pub sessions: Vec<i32>,
    /// Seconds since the supervisor's start.
    pub up: u64,
    /// Seconds until the engine is ended because no session uses it.
    pub ends_in: Option<u64>,
    /// Requests that the engine works on or that wait for it.
    pub busy: usize,
    /// What it does at this moment.
    #[serde(default)]
    pub now: Option<Activity>,
    pub restarts: u64,
    /// Missing abilities of the engine, one sentence each.
    #[serde(default)]
    pub lacking: Vec<String>,
    pub figures: Summary,
    /// Turns that computed much more than was new.
    #[serde(default)]
    pub cache_breaks: CacheBreaks,
    pub log: PathBuf,
    /// The network that its gateway listens in. None: not known.
    #[serde(default)]
    pub network: Option<u64>,
}

impl Status {
    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// The phase of an engine, for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseName {
    Downloading,
    Loading,
    Ready,
    Restarting,
    Ending,
}

impl PhaseName {
    pub fn word(self) -> &'static str {
        match self {
            PhaseName::Downloading => "downloading",
            PhaseName::Loading => "loading",
            PhaseName::Ready => "ready",
            PhaseName::Restarting => "restarting",
            PhaseName::Ending => "ending",
        }
    }
}

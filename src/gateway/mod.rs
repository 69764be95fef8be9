//! Between Claude Code and the engine: the Anthropic Messages API on both sides, and what lies between repaired.
//!
//! The supervisor owns the listener and says through [`Settings`] where the engine is; everything else happens here.

pub mod anthropic;
pub mod auth;
mod backoff;
pub mod cache_breaks;
mod canned;
mod exchange;
mod in_flight;
mod limits;
pub mod metrics;
mod outage;
mod pdf;
mod prefix_warmer;
mod prompt_prefixes;
mod queue;
mod request_reader;
mod routes;
mod server;
mod sse_writer;
#[cfg(test)]
mod tests;
pub mod tool_calls;
mod upstream;
pub mod web_search;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

pub use auth::{Access, Caller};
pub use limits::Limits;
pub use metrics::{Metrics, Summary};
pub use outage::{Away, Outages};
pub use pdf::{COMMAND as READ_PDF, run as read_pdf};
pub use prompt_prefixes::FILE as PROMPT_PREFIXES_FILE;
pub use server::serve;
pub use upstream::{client, client_here, client_on};

use crate::catalog::Form;
use crate::sys::secret::Secret;

/// Where the engine is, as its owner tells.
#[derive(Debug, Clone)]
pub enum Engine {
    /// It is downloading, loading or being started again: requests wait.
    Starting,
    /// It answers.
    Ready {
        /// Such as `http://mac.example:8080`, without a slash at its end.
        base_url: String,
        /// Sent as `Authorization: Bearer`. None for an engine that takes none.
        key: Option<Secret>,
    },
    /// It is gone for good: every request is refused with this sentence.
    Gone(String),
}

/// What the gateway is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is served, and how.
    pub served: anthropic::Served,
    /// The form of tool calls that the chat template shows, put in when it is read: it can be only when the model is on this disk. It counts before what `served` says.
    pub form: Arc<OnceLock<Form>>,
    pub engine: watch::Receiver<Engine>,
    /// The Unix socket on which each engine serves, whatever host its URL names. None: they are where their URLs say.
    pub socket: Option<PathBuf>,
    /// The context window in tokens, for prompt and reply: a prompt that leaves too little of it is refused before it reaches the engine. It can become
    /// narrower while the engine runs.
    pub window: watch::Receiver<u64>,
    /// Who may ask. Keep a clone to grant and revoke.
    pub access: Access,
    /// Counters of requests and tokens. Keep a clone to read them.
    pub metrics: Metrics,
    pub limits: Limits,
    /// Whether nobody else uses the engine. What it works at when a client goes away is then cancelled by name, which is quicker and surer than
    /// that it notices. False for an engine that others use, too.
    pub exclusive: bool,
    /// The waiting for an engine that is somebody else's and goes away. None: its owner starts it again, and says so through `engine`.
    pub outages: Option<Outages>,
    /// How many requests the engine gets at a time.
    pub parallel: usize,
    /// Where system prompts and tools are remembered, so that an engine computes them before it is asked. None: nowhere.
    pub prompt_prefixes: Option<PathBuf>,
    /// This program, which reads PDFs in a process of its own ([`read_pdf`]). None: they are not read.
    pub pdf_reader: Option<PathBuf>,
    /// The engine's log, where it can be read: it says why a request failed, which the engine's answer does not.
    pub log: Option<PathBuf>,
}

impl Settings {
    /// With the usual limits, metrics of its own, and an engine that nobody else uses.
    pub fn new(
        served: anthropic::Served,
        engine: watch::Receiver<Engine>,
        window: watch::Receiver<u64>,
        access: Access,
    ) -> Self {
        Self {
            served,
            form: Arc::default(),
            engine,
            socket: None,
            window,
            access,
            metrics: Metrics::new(),
            limits: Limits::default(),
            exclusive: true,
            outages: None,
            parallel: 1,
            prompt_prefixes: None,
            pdf_reader: None,
            log: None,
        }
    }
}

//! The engines that run: asked, not read off files, so that what a killed supervisor left is not taken for one.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::protocol::{Ask, PROTOCOL, PhaseName, Status, Tell};
use super::{record, socket};
use crate::catalog::{EngineProfile, Source};
use crate::error::{Error, Exit, Result};
use crate::machine::network;
use crate::paths::Paths;

/// How long an engine may take to be gone: its time of grace, and what the supervisor itself needs.
const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// An engine that runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Running {
    /// One that speaks our protocol.
    Known(Box<Status>),
    /// One of another version of cclocal, with another protocol.
    Foreign {
        port: u16,
        version: String,
        used: bool,
    },
}

impl Running {
    pub fn port(&self) -> u16 {
        match self {
            Running::Known(status) => status.port,
            Running::Foreign { port, .. } => *port,
        }
    }
}

/// All that run, by their ports.
pub fn running(paths: &Paths) -> Vec<Running> {
    record::ports(paths)
        .into_iter()
        .filter_map(|port| at(paths, port))
        .collect()
}

/// Those that speak our protocol.
pub fn statuses(paths: &Paths) -> Vec<Status> {
    running(paths)
        .into_iter()
        .filter_map(|running| match running {
            Running::Known(status) => Some(*status),
            Running::Foreign { .. } => None,
        })
        .collect()
}

/// The one at this port, if one runs there.
pub fn at(paths: &Paths, port: u16) -> Option<Running> {
    let path = socket::path(&record::folder(paths, port));
    let answer = socket::ask(&path, &Ask::Status).ok()?;
    if let Ok(Tell::Status(status)) = serde_json::from_str(&answer)
        && status.protocol == PROTOCOL
    {
        return Some(Running::Known(status));
    }
    let value: Value = serde_json::from_str(&answer).unwrap_or_default();
    Some(Running::Foreign {
        port,
        version: value["version"].as_str().unwrap_or("unknown").to_owned(),
        used: !value["sessions"].as_array().is_some_and(Vec::is_empty),
    })
}

/// What a session wants to be served.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub source: &'a Source,
    pub profile: EngineProfile,
    /// Whether the model thinks. Not asked for means that it does not.
    pub thinking: bool,
    /// The engine's program.
    pub engine: &'a Path,
    /// As asked for; None takes any.
    pub context_window: Option<u64>,
    /// As asked for; None takes any.
    pub output_tokens: Option<u64>,
    /// As asked for; None takes any.
    pub port: Option<u16>,
}

impl Wanted<'_> {
    /// Whether this engine is what is wanted.
    pub fn is(&self, status: &Status) -> bool {
        network::is_shared(status.network)
            && status.source == *self.source
            && status.profile == self.profile
            && status.thinking == self.thinking
            && status.engine == self.engine
            && self.fits(status)
    }

    fn fits(&self, status: &Status) -> bool {
        let same = |asked: Option<u64>, runs: u64| asked.is_none_or(|asked| asked == runs);
        same(self.context_window, status.context_window)
            && same(self.output_tokens, status.output_tokens)
            && self.port.is_none_or(|port| port == status.port)
    }
}

/// Ends an engine, and returns when it is gone. `even_if_used`: also under the sessions that use it. Errors: it is used, or does not end.
pub fn stop(paths: &Paths, port: u16, even_if_used: bool) -> Result<()> {
    let path = socket::path(&record::folder(paths, port));
    let answer = socket::ask(&path, &Ask::Stop { even_if_used });
    if let Ok(answer) = &answer
        && let Ok(Tell::Refused { why }) = serde_json::from_str(answer)
    {
        return Err(Error::other(format!("the engine on port {port} was not ended"))
            .cause(why)
            .hint(format!("leave those sessions first, or end it under them: cclocal stop --force --port {port}")));
    }
    wait_until_gone(paths, port)
}

/// Waits for the end of an engine that is ending.
pub fn wait_until_gone(paths: &Paths, port: u16) -> Result<()> {
    let since = Instant::now();
    while record::folder(paths, port).exists() {
        if at(paths, port).is_none() {
            // It may have been killed before it could remove its files.
            record::sweep(paths, port);
        }
        if since.elapsed() > GONE_DEADLINE {
            return Err(Error::new(
                Exit::Engine,
                format!("the engine on port {port} does not end"),
            )
            .cause(format!("nothing after {} s", GONE_DEADLINE.as_secs()))
            .hint("cclocal status names its process; end that with kill -9"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether it can be used: one that is ending cannot.
pub fn is_usable(status: &Status) -> bool {
    status.phase != PhaseName::Ending
}
